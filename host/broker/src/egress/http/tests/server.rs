//! An HTTP server of raw bytes, so that its answers can be wrong. One thread a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A connection, plain or not.
pub trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// Answers a request, given as text, on its connection.
type Answer = dyn Fn(&str, &mut dyn Wire) + Send + Sync;

/// A server that runs until it is dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Box<Answer>,
    tls: Option<Arc<ServerConfig>>,
    seen: Mutex<Vec<String>>,
    accepted: AtomicUsize,
    stopped: AtomicBool,
}

impl Server {
    /// One that answers every request with these bytes.
    pub fn saying(answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::answering(move |_, wire| drop(wire.write_all(answer.as_bytes())))
    }

    /// One that answers every request with this JSON.
    pub fn json(body: &str) -> Self {
        Self::saying(&json(body))
    }

    /// One that answers as `answer` does.
    pub fn answering(answer: impl Fn(&str, &mut dyn Wire) + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0", None, answer)
    }

    /// As `answering`, at this address, with TLS or without.
    pub fn on(
        address: &str,
        tls: Option<ServerConfig>,
        answer: impl Fn(&str, &mut dyn Wire) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            tls: tls.map(Arc::new),
            seen: Mutex::default(),
            accepted: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.stopped.load(Ordering::SeqCst) {
                    return;
                }
                serving.accepted.fetch_add(1, Ordering::SeqCst);
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serving.serve(stream.unwrap()));
            }
        });
        Self { address, shared }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its address, in plain HTTP.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many connections were opened so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        match &self.tls {
            None => self.converse(stream),
            Some(tls) => {
                let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
                self.converse(StreamOwned::new(connection, stream));
            }
        }
    }

    fn converse(&self, mut wire: impl Wire) {
        while let Some(request) = read_request(&mut wire) {
            self.seen.lock().unwrap().push(request.clone());
            (self.answer)(&request, &mut wire);
            if wire.flush().is_err() || asks_to_close(&request) {
                return;
            }
        }
    }
}

/// An answer with this JSON.
pub fn json(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Waits until the other side hangs up.
pub fn wait_for_end(wire: &mut dyn Wire) {
    let mut buffer = [0; 1024];
    while wire.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

/// Writes the same again and again until the other side hangs up.
pub fn write_endlessly(wire: &mut dyn Wire, bytes: &[u8]) {
    while wire.write_all(bytes).is_ok() {}
}

fn asks_to_close(request: &str) -> bool {
    request.contains("\r\nx-close: 1\r\n")
}

fn read_request(wire: &mut impl Wire) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if wire.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    wire.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}
