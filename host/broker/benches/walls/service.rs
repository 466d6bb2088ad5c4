//! A service on loopback in a process of its own, so that what it takes is not counted: it makes and
//! deletes tokens, and can hold its answers back. Also the barest client of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use bytes::Bytes;
use http::{HeaderName, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::specimen::ROOT_TOKEN;

/// The running service; it ends with this.
pub struct Service {
    child: Child,
    port: u16,
}

impl Service {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the service does not start")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let port = line.trim().parse().context("the service names no port")?;
        Ok(Self { child, port })
    }

    /// Where it listens on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It ends when its standard input does; reaping it is for tidiness.
        drop(self.child.stdin.take());
        let _status = self.child.wait();
    }
}

/// The service's process: tells its port, and ends when its standard input does.
pub fn serve() -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{}", listener.local_addr()?.port())?;
        stdout.flush()?;
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        tokio::select! {
            served = axum::serve(listener, router()) => served.context("it cannot serve"),
            _ = ended => Ok(()),
        }
    })
}

/// How many requests wait, and whether they are let go.
struct Gate {
    waiting: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Gate {
    async fn pass(&self) {
        self.waiting.send_modify(|count| *count += 1);
        // It is not dropped while requests are served.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        self.waiting.send_modify(|count| *count -= 1);
    }
}

fn router() -> Router {
    let gate = Gate { waiting: watch::Sender::new(0), open: watch::Sender::new(true) };
    Router::new()
        .route("/v1/tokens", post(made))
        .route("/v1/tokens/by-name/{name}", delete(deleted))
        .route("/gate/close", post(|State(gate): State<Arc<Gate>>| turned(gate, false)))
        .route("/gate/open", post(|State(gate): State<Arc<Gate>>| turned(gate, true)))
        .route("/gate/waiting/{count}", get(waiting))
        .with_state(Arc::new(gate))
}

async fn made() -> (StatusCode, [(HeaderName, &'static str); 1], String) {
    let made = json!({ "id": "tok_1", "secret": "minted-0123456789", "expires_at": 1_795_000_600 });
    (StatusCode::CREATED, [(header::CONTENT_TYPE, "application/json")], made.to_string())
}

async fn deleted(State(gate): State<Arc<Gate>>) -> StatusCode {
    gate.pass().await;
    StatusCode::NO_CONTENT
}

async fn turned(gate: Arc<Gate>, open: bool) -> StatusCode {
    gate.open.send_replace(open);
    StatusCode::NO_CONTENT
}

/// Answers when as many requests wait.
async fn waiting(State(gate): State<Arc<Gate>>, Path(count): Path<usize>) -> StatusCode {
    let _ = gate.waiting.subscribe().wait_for(|waiting| *waiting >= count).await;
    StatusCode::NO_CONTENT
}

/// A connection to the service, by hyper alone.
pub struct Straight {
    sender: SendRequest<Full<Bytes>>,
    port: u16,
}

impl Straight {
    /// Opens one.
    pub async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // What goes wrong here is told to the request that waits for it.
        tokio::spawn(async move { connection.await.map_err(drop) });
        Ok(Self { sender, port })
    }

    /// The request that the plugins' `revoke` makes.
    pub async fn delete(&mut self) -> Result<()> {
        self.send("DELETE", TOKEN_PATH).await
    }

    /// Holds answers back.
    pub async fn close_gate(&mut self) -> Result<()> {
        self.send("POST", "/gate/close").await
    }

    /// Lets them go.
    pub async fn open_gate(&mut self) -> Result<()> {
        self.send("POST", "/gate/open").await
    }

    /// Comes back when `count` requests are held.
    pub async fn wait_for_held(&mut self, count: usize) -> Result<()> {
        self.send("GET", &format!("/gate/waiting/{count}")).await
    }

    async fn send(&mut self, method: &str, path: &str) -> Result<()> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("127.0.0.1:{}", self.port))
            .header(header::AUTHORIZATION, format!("Bearer {ROOT_TOKEN}"))
            .body(Full::default())?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        ensure!(status == StatusCode::NO_CONTENT, "the service answers {status} to {path}");
        Ok(())
    }
}

/// As long as the paths of the plugins.
pub const TOKEN_PATH: &str = "/v1/tokens/by-name/rs-token-01k6x0000000000000000000aa";
