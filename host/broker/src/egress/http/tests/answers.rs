//! Answers that are wrong, too large, too slow or not meant for the door.

use super::server::{json, wait_for_end, write_endlessly};
use super::*;

/// What became of one exchange: the kind of failure, whether it counts as sent, its sentence.
async fn check(server: Server, end: Instant, expect: Result<u16, (FailureKind, &str)>) {
    let door = Setup::to(server.url()).door();
    let sent = send_by(&door, &get(), (&mut Redactor::default(), end)).await;
    match (sent, expect) {
        (Ok(response), Ok(status)) => assert_eq!(response.status(), status),
        (Err(failure), Err((kind, sentence))) => {
            assert_eq!(failure.kind, kind, "{}", failure.message);
            assert!(failure.message.contains(sentence), "{} / {sentence}", failure.message);
            assert!(failure.request_sent, "{}", failure.message);
        }
        (Ok(response), Err(expect)) => panic!("{} instead of {expect:?}", response.status()),
        (Err(failure), Ok(status)) => panic!("{failure:?} instead of {status}"),
    }
}

fn with_length(length: usize, head: &str, body: usize) -> Server {
    let body = "x".repeat(body);
    Server::saying(&format!("HTTP/1.1 200 OK\r\n{head}content-length: {length}\r\n\r\n{body}"))
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let server = Server::saying(
        "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/v1?code=1\r\ncontent-length: 0\r\n\r\n",
    );
    let door = Setup::to(server.url()).door();
    let response = send(&door, &get()).await.unwrap();
    assert_eq!(response.status(), 302);
    let location = response.header("Location", &Redactor::default());
    assert_eq!(location.as_deref(), Some("http://169.254.169.254/v1"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_answer_is_bounded_in_size() {
    let large = Err((FailureKind::Other, "larger than 256 KiB"));
    check(with_length(256 * 1024, "", 256 * 1024), soon(), Ok(200)).await;
    check(with_length(256 * 1024 + 1, "", 256 * 1024 + 1), soon(), large).await;
    let endless = Server::answering(|_, wire| {
        wire.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        write_endlessly(wire, b"8\r\nxxxxxxxx\r\n");
    });
    check(endless, soon(), large).await;
    let without_length = Server::answering(|_, wire| {
        wire.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        write_endlessly(wire, &[b'x'; 4096]);
    });
    check(without_length, soon(), large).await;
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let flood = Err((FailureKind::Other, "more than 64 headers"));
    let small = |count: usize| with_length(0, &"x-a: 1\r\n".repeat(count), 0);
    check(small(63), soon(), Ok(200)).await;
    check(small(64), soon(), flood).await;
    check(with_length(0, &format!("x-a: {}\r\n", "1".repeat(8_000)).repeat(3), 0), soon(), flood)
        .await;
    let endless = Server::answering(|_, wire| {
        wire.write_all(b"HTTP/1.1 200 OK\r\nx-a: ").unwrap();
        write_endlessly(wire, &[b'x'; 1024]);
    });
    check(endless, soon(), flood).await;
}

#[tokio::test]
async fn what_does_not_end_ends_at_the_deadline_and_counts_as_sent() {
    let late = Err((FailureKind::Timeout, "in time"));
    for beginning in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello",
    ] {
        let server = Server::answering(move |_, wire| {
            wire.write_all(beginning.as_bytes()).unwrap();
            wait_for_end(wire);
        });
        check(server, at_once(), late).await;
    }
    let informational = Server::answering(|_, wire| {
        write_endlessly(wire, b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    });
    check(informational, at_once(), late).await;
}

#[tokio::test]
async fn a_malformed_answer_is_a_failure_that_was_sent() {
    let malformed = Err((FailureKind::Other, "no HTTP/1.1"));
    let broken = Err((FailureKind::Unavailable, "broke off"));
    for (answer, expect) in [
        ("SSH-2.0-OpenSSH\r\n\r\n", malformed),
        ("HTTP/1.1 9999 OK\r\n\r\n", malformed),
        ("HTTP/2 200 OK\r\n\r\n", malformed),
        ("HTTP/1.1 200 OK\r\nbad header: x\r\n\r\n", malformed),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\nhi", malformed),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", malformed),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2, 5\r\n\r\nhi", malformed),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot-hex\r\n", broken),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", Err((FailureKind::Other, ""))),
    ] {
        check(Server::saying(answer), soon(), expect).await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_counts_as_sent() {
    for beginning in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"]
    {
        let server = Server::answering(move |_, wire| drop(wire.write_all(beginning.as_bytes())));
        let door = Setup::to(server.url()).door();
        let mut request = get();
        request.header("x-close", "1");
        let failure = send(&door, &request).await.err().unwrap();
        assert_eq!(failure.kind, FailureKind::Unavailable, "{}", failure.message);
        assert!(failure.request_sent, "{}", failure.message);
    }
}

#[tokio::test]
async fn a_second_answer_to_one_request_poisons_nothing() {
    for poison in [
        json("{\"n\":\"poison\"}"),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "rubbish".to_owned(),
    ] {
        let first = json("{\"n\":\"good\"}");
        let server = Server::saying(&format!("{first}{poison}"));
        let door = Setup { reads: &["/n"], ..Setup::to(server.url()) }.door();
        for _ in 0..5 {
            let response = send(&door, &get()).await.unwrap();
            let read = response.read("/n", &Redactor::default()).unwrap();
            assert_eq!(read.as_deref(), Some("good"));
        }
    }
}

#[tokio::test]
async fn an_answer_with_two_lengths_ends_its_connection() {
    let server = Server::saying(
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    );
    let door = Setup::to(server.url()).door();
    for _ in 0..2 {
        drop(send(&door, &get()).await);
    }
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::json("{}");
    let door = Setup::to(server.url()).door();
    for _ in 0..5 {
        send(&door, &get()).await.unwrap();
        // The connection is ready again once its task has seen the end of the answer.
        tokio::task::yield_now().await;
    }
    assert!(server.accepted() < 5, "{} connections for 5 requests", server.accepted());
    assert_eq!(server.seen().len(), 5);
}
