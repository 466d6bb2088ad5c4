//! Names that lead elsewhere than they did, or where no plugin may go.

use super::*;

const NAME: &str = "api.test";

fn through(resolver: &Arc<Scripted>, port: u16, reach: &[Reach]) -> Door {
    let (name, resolver) = (format!("https://{NAME}:{port}"), Arc::clone(resolver));
    Setup { reach: reach.to_vec(), resolver, ..Setup::to(name) }.door()
}

/// A connection by plain HTTP to a name: only tests have one, for a route is parsed strictly.
fn plain(port: u16) -> Route {
    let reach = vec![Reach::Loopback];
    Route { tls: false, host: NAME.to_owned(), port, reach }
}

fn client(resolver: &Arc<Scripted>) -> Client {
    let tls = crate::egress::tls::client(None, None).unwrap();
    Client::new(tls, Arc::clone(resolver) as Arc<dyn Resolve>)
}

fn outgoing(path: &str) -> Outgoing {
    Outgoing {
        method: http::Method::GET,
        path_and_query: path.to_owned(),
        headers: http::HeaderMap::new(),
        body: Zeroizing::default(),
    }
}

#[tokio::test]
async fn a_name_that_leads_to_a_denied_address_is_not_connected_to() {
    let server = Server::json("{}");
    for (addresses, reach, sentence) in [
        ("127.0.0.1", &[][..], "this machine"),
        ("::ffff:127.0.0.1", &[], "this machine"),
        ("64:ff9b::7f00:1", &[], "this machine"),
        ("::1", &[Reach::Private], "this machine"),
        ("10.0.0.1", &[Reach::Loopback], "in a private network"),
        ("8.8.8.8 10.0.0.1", &[], "in a private network"),
        ("127.0.0.1 10.0.0.1", &[Reach::Loopback], "in a private network"),
        ("127.0.0.1 169.254.169.254", &[Reach::Loopback, Reach::Private], "a metadata service"),
        ("::ffff:169.254.169.254", &[Reach::Loopback, Reach::Private], "a metadata service"),
        ("fd00:ec2::254", &[Reach::Loopback, Reach::Private], "a metadata service"),
        ("0.0.0.0", &[Reach::Loopback, Reach::Private], "a reserved address"),
        ("2002:7f00:1::", &[Reach::Loopback, Reach::Private], "of a tunnel"),
        ("", &[Reach::Loopback, Reach::Private], "has no address"),
    ] {
        let door = through(&Scripted::new(&[addresses]), server.port(), reach);
        let failure = send(&door, &get()).await.err().unwrap();
        assert!(failure.message.contains(sentence), "{addresses}: {}", failure.message);
        assert!(!failure.request_sent, "{addresses}");
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_used() {
    let here = Server::json("{}");
    let elsewhere = Server::on(&format!("127.0.0.2:{}", here.port()), None, |_, _| ());
    // Whoever asks twice, once to check and once to connect, gets the second address.
    let resolver = Scripted::new(&["127.0.0.1", "127.0.0.2"]);
    let client = client(&resolver);
    let incoming = client.exchange(&plain(here.port()), outgoing("/"), soon()).await.unwrap();
    assert_eq!(incoming.status, 200);
    assert_eq!((resolver.asked(), here.accepted(), elsewhere.accepted()), (1, 1, 0));
    let host = format!("\r\nhost: {NAME}:{}\r\n", here.port());
    assert!(here.seen()[0].contains(&host), "{}", here.seen()[0]);
}

#[tokio::test]
async fn a_name_is_checked_anew_for_every_connection() {
    let server =
        Server::saying("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let resolver = Scripted::new(&["127.0.0.1", "169.254.169.254"]);
    let client = client(&resolver);
    let route = plain(server.port());
    assert!(client.exchange(&route, outgoing("/"), soon()).await.is_ok());
    let failure = client.exchange(&route, outgoing("/"), soon()).await.err().unwrap();
    assert!(failure.message.contains("a metadata service"), "{}", failure.message);
    assert!(!failure.request_sent);
}

#[tokio::test]
async fn plain_http_leaves_this_machine_for_nowhere() {
    let client = client(&Scripted::new(&["8.8.8.8"]));
    let failure = client.exchange(&plain(80), outgoing("/"), soon()).await.err().unwrap();
    assert!(failure.message.contains("plain HTTP goes nowhere else"), "{}", failure.message);
}

#[tokio::test]
async fn what_does_not_connect_was_not_sent() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = Setup::to(format!("http://{closed}")).door();
    let failure = send(&refused, &get()).await.err().unwrap();
    assert_eq!((failure.kind, failure.request_sent), (FailureKind::Unavailable, false));

    let unknown = through(&Scripted::new(&[]), 443, &[]);
    let failure = send(&unknown, &get()).await.err().unwrap();
    assert!(failure.message.contains("cannot be resolved"), "{}", failure.message);
    assert_eq!((failure.kind, failure.request_sent), (FailureKind::Unavailable, false));

    let server = Server::json("{}");
    let door = Setup::to(server.url()).door();
    let over = send_by(&door, &get(), (&mut Redactor::default(), Instant::now())).await;
    let failure = over.err().unwrap();
    assert_eq!((failure.kind, failure.request_sent), (FailureKind::Timeout, false));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn only_a_path_goes_into_the_request_line() {
    let server = Server::json("{}");
    let client = client(&Scripted::new(&["127.0.0.1"]));
    for path in ["http://evil.example/", "//evil.example/", "evil", "*", "", "/a b", "/a\r\nx: y"] {
        let outcome = client.exchange(&plain(server.port()), outgoing(path), soon()).await;
        if let Ok(incoming) = outcome {
            // Two slashes are a path here, not an authority.
            assert_eq!((path, incoming.status.as_u16()), ("//evil.example/", 200));
        }
    }
    assert!(server.seen().iter().all(|seen| seen.starts_with("GET //evil.example/ HTTP/1.1\r\n")));
}
