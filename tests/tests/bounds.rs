//! The bounds of the listeners: connections, streams, calls, headers, time. Each is pushed against
//! from outside, and others are served meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::io::ErrorKind;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use claviger_e2e::broker::Broker;
use claviger_e2e::client::{Agent, channel, health};
use claviger_e2e::poll;
use claviger_e2e::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_prost::ProstCodec;

#[tokio::test]
async fn each_connection_is_told_its_bounds() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    for socket in [broker.socket(), broker.admin_socket()] {
        let (_greeted, settings) = greet(&socket).await;
        for expect in [(MAX_CONCURRENT_STREAMS, 256), (MAX_HEADER_LIST_SIZE, 16 * 1024)] {
            assert!(settings.contains(&expect), "{expect:?} is not among {settings:?}");
        }
    }
}

#[tokio::test]
async fn the_sixty_fifth_operator_waits_until_one_has_left() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let mut connected = Vec::new();
    for _ in 0..OPERATORS {
        connected.push(UnixStream::connect(broker.admin_socket()).await.expect("accepted"));
    }
    let socket = broker.admin_socket();
    let late = tokio::spawn(async move { health(&socket).await });
    for _ in 0..LOOKS {
        assert_eq!(health(&broker.socket()).await, ServingStatus::Serving, "agents are served");
    }
    assert!(!late.is_finished(), "{OPERATORS} were connected, and one more was served");
    connected.pop();
    assert_eq!(late.await.expect("joined"), ServingStatus::Serving);
}

#[tokio::test]
async fn the_sixty_fifth_call_of_a_connection_waits_and_other_connections_do_not() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let busy = channel(&broker.socket()).await;
    let crowd = Agent::open_on(busy.clone(), "support-triage", None).await.expect("a session");
    let other = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let mut calls = Vec::new();
    for _ in 0..CALLS_OF_A_CONNECTION {
        calls.push(call_without_message(&busy).await);
    }
    // The broker may take the last of them up after a later call, so that one may still be served.
    let late = poll::until("one more call waits", || async {
        let crowd = crowd.clone();
        let late = tokio::spawn(async move { crowd.leases().await });
        for _ in 0..LOOKS {
            other.leases().await.expect("another connection is served");
        }
        (!late.is_finished()).then_some(late)
    })
    .await;
    for call in calls {
        call.abort();
    }
    late.await.expect("joined").expect("served in its turn");
}

#[tokio::test]
async fn a_call_whose_message_never_comes_is_ended() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let call = call_without_message(&channel(&broker.socket()).await).await;
    poll::until("the call is ended", || std::future::ready(call.is_finished().then_some(()))).await;
    let refused = call.await.expect("joined").expect_err("nothing was asked");
    assert_eq!(refused.code(), Code::Cancelled, "{refused:?}");
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_disconnected() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let (greeted, _) = greet(&broker.socket()).await;
    until_hung_up(&greeted).await;
}

#[tokio::test]
async fn a_peer_that_does_not_greet_is_disconnected() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    for socket in [broker.socket(), broker.admin_socket()] {
        let silent = UnixStream::connect(&socket).await.expect("accepted");
        let mut halting = UnixStream::connect(&socket).await.expect("accepted");
        halting.write_all(b"PRI * HTTP/2.0\r\n").await.expect("written");
        until_hung_up(&silent).await;
        until_hung_up(&halting).await;
    }
}

async fn until_hung_up(stream: &UnixStream) {
    poll::until("the broker hangs up", || {
        let mut heard = [0; 1024];
        let ended = loop {
            match stream.try_read(&mut heard) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
        };
        std::future::ready(ended.then_some(()))
    })
    .await;
}

/// Says as much HTTP/2 as opens a connection, and returns the other side's settings.
async fn greet(path: &Path) -> (UnixStream, Vec<(u16, u32)>) {
    let mut stream = UnixStream::connect(path).await.expect("accepted");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.expect("written");
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.expect("a frame");
    let [_, high, low, kind, ..] = head;
    assert_eq!(kind, SETTINGS, "the first frame");
    let mut body = vec![0; usize::from(u16::from_be_bytes([high, low]))];
    stream.read_exact(&mut body).await.expect("the settings");
    let setting = |entry: &[u8]| match *entry {
        [a, b, c, d, e, f] => (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])),
        _ => panic!("a setting has six bytes"),
    };
    let settings = body.chunks(6).map(setting).collect();
    (stream, settings)
}

/// Begins a call on `channel`, and never sends its message. Returns once its headers are out.
async fn call_without_message(channel: &Channel) -> JoinHandle<Result<(), Status>> {
    let (sender, begun) = oneshot::channel();
    let mut client = Grpc::new(channel.clone());
    let call = tokio::spawn(async move {
        client.ready().await.expect("the broker accepts connections");
        let path = PathAndQuery::from_static("/claviger.v1.AgentService/ListLeases");
        let request = Request::new(Unsaid(Some(sender)));
        let answer = client.client_streaming(request, path, ProstCodec::<(), ()>::default()).await;
        answer.map(|_| ())
    });
    begun.await.expect("the call has begun");
    call
}

/// A message that never comes; tells when it is waited for.
struct Unsaid(Option<oneshot::Sender<()>>);

impl Stream for Unsaid {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<()>> {
        if let Some(sender) = self.0.take() {
            sender.send(()).expect("somebody waits for it");
        }
        Poll::Pending
    }
}

/// As many operators as the broker serves at once.
const OPERATORS: usize = 64;

/// As many calls as one connection may have in progress.
const CALLS_OF_A_CONNECTION: usize = 64;

/// Answers to others while one waits: far more than it would take if it did not have to.
const LOOKS: usize = 50;

/// The type of an HTTP/2 frame (RFC 9113, section 6.5), and of two settings in it.
const SETTINGS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const MAX_HEADER_LIST_SIZE: u16 = 6;
