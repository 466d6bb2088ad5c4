//! A server on this machine that keeps what it is sent and answers what a test tells it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use tokio::net::TcpListener;

use crate::egress::http::{Reach, Route};

/// What one request held.
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) uri: String,
    pub(super) headers: http::HeaderMap,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// A parameter of the form.
    pub(super) fn form(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.body.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

type Answer = Box<dyn Fn(usize) -> (u16, String) + Send + Sync>;

struct Shared {
    seen: Mutex<Vec<Seen>>,
    answer: Answer,
}

/// The server; it ends with the test.
pub(super) struct Server {
    port: u16,
    shared: Arc<Shared>,
    task: tokio::task::AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// One that answers 200.
    pub(super) async fn start() -> Self {
        Self::answering(|_| (200, String::new())).await
    }

    /// One that answers the request of each number, counted from 0, with a status and a body.
    pub(super) async fn answering(
        answer: impl Fn(usize) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { seen: Mutex::default(), answer: Box::new(answer) });
        let router = Router::new().fallback(keep).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Self { port, shared, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/token?tenant=a", self.port)
    }

    pub(super) fn route(&self) -> Route {
        let host = "127.0.0.1".to_owned();
        Route { tls: false, host, port: self.port, reach: vec![Reach::Loopback] }
    }

    /// What it was sent since this was last asked.
    pub(super) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }

    /// The one request that it was sent.
    pub(super) fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1);
        seen.remove(0)
    }
}

async fn keep(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let number = {
        let mut seen = shared.seen.lock().unwrap();
        seen.push(Seen {
            method: head.method.to_string(),
            uri: head.uri.to_string(),
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        });
        seen.len() - 1
    };
    let (status, text) = (shared.answer)(number);
    (StatusCode::from_u16(status).unwrap(), Body::from(text)).into_response()
}
