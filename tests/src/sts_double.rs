//! A double of AWS STS in front of moto: records every request, enforces what moto does not, and
//! lets moto issue the sessions. What concerns access keys is passed on as it is, to moto's IAM too.
//! Whatever it is, a test may have it held up on the way, or have STS doubt whose key it is.
//!
//! - The double's: the rules of `rules.rs` on what a request may say; that a web identity token
//!   is signed by an issuer that the role trusts (`identity.rs`); refusals that a test orders.
//! - moto's: who signed the request, whether that user may assume the role and the role trusts
//!   the user; the credentials, and that they work where the role's policy allows.
//!   Its errors are brought into the form that AWS documents.
//! - Nobody's: session policies and tags have no effect on what the credentials may do.

mod identity;
mod rules;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use claviger_test_servers::{AccessKey, Moto};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;

pub use identity::Trust;

/// A running double. It stops with the process of the test.
pub struct StsDouble {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// One request as it came in, the authentication left out.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// The form's fields, without the token.
    pub fields: BTreeMap<String, String>,
    /// The id of the access key that signed it, if one did.
    pub signed_by: Option<String>,
    /// The claims of its web identity token, if it had one that is valid.
    pub claims: serde_json::Value,
}

/// A refusal as AWS writes it.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// Such as `Throttling`.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
    /// The header `retry-after`, in seconds.
    pub retry_after_secs: Option<u32>,
}

/// What STS makes of a key that a test has it doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It has not heard of it, as for some seconds of a new one.
    Unknown,
    /// It is another user's.
    AnotherUsers,
}

/// Where requests are held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Such as `CreateAccessKey`.
    pub action: &'static str,
    /// On which way.
    pub moment: Moment,
}

/// When a request is held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before moto hears of it.
    Arriving,
    /// When moto has done it, and nobody knows of it yet.
    Answering,
}

struct Shared {
    moto: String,
    key: AccessKey,
    client: Client<HttpConnector, Body>,
    state: Mutex<Ordered>,
    stop: watch::Sender<Option<Stop>>,
    held_up: AtomicUsize,
}

#[derive(Default)]
struct Ordered {
    requests: Vec<Recorded>,
    refusals: VecDeque<Refusal>,
    trusts: Vec<Trust>,
    /// The key that is not doubted, and what is said of the others.
    doubt: Option<(String, Doubt)>,
}

impl StsDouble {
    /// Starts one in front of `moto`, in a thread of its own: tests block theirs.
    pub fn start(moto: &Moto) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            moto: moto.url().to_owned(),
            key: moto.double_key().clone(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            state: Mutex::default(),
            stop: watch::Sender::new(None),
            held_up: AtomicUsize::new(0),
        });
        let double = Self { address: listener.local_addr().unwrap(), shared: Arc::clone(&shared) };
        std::thread::spawn(move || serve(listener, shared));
        double
    }

    /// Such as `http://127.0.0.1:40451`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// Refuses the next request.
    pub fn refuse_next(&self, refusal: Refusal) {
        self.shared.state.lock().unwrap().refusals.push_back(refusal);
    }

    /// Holds up requests there from now on.
    pub fn stop_at(&self, stop: Stop) {
        self.shared.stop.send_replace(Some(stop));
    }

    /// Holds up nothing more, and lets go of what was held up: it goes its way, whether or not
    /// somebody waits for its answer.
    pub fn let_go(&self) {
        self.shared.stop.send_replace(None);
    }

    /// How many requests are held up.
    pub fn held_up(&self) -> usize {
        self.shared.held_up.load(Ordering::SeqCst)
    }

    /// Answers so whoever asks with another key than this one whose key it is.
    pub fn doubt_keys_but(&self, id: &str, doubt: Doubt) {
        self.shared.state.lock().unwrap().doubt = Some((id.to_owned(), doubt));
    }

    /// Knows every key again.
    pub fn doubt_nothing(&self) {
        self.shared.state.lock().unwrap().doubt = None;
    }

    /// Lets a role trust an issuer of tokens, as an IAM identity provider and a trust policy do.
    pub fn trust(&self, trust: Trust) {
        self.shared.state.lock().unwrap().trusts.push(trust);
    }
}

impl Recorded {
    /// Whether it asks for this action.
    pub fn is(&self, action: &str) -> bool {
        self.fields.get("Action").is_some_and(|asked| asked == action)
    }
}

impl Refusal {
    fn sender(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, code, message: message.into(), retry_after_secs: None }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, message) = (self.code, self.message.replace('&', "&amp;").replace('<', "&lt;"));
        let xml = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <Error>\n    \
             <Type>Sender</Type>\n    <Code>{code}</Code>\n    <Message>{message}</Message>\n  \
             </Error>\n  <RequestId>4f6c1d2e-double</RequestId>\n</ErrorResponse>\n"
        );
        let status = StatusCode::from_u16(self.status).unwrap();
        let mut response = (status, [(header::CONTENT_TYPE, "text/xml")], xml).into_response();
        if let Some(secs) = self.retry_after_secs {
            response.headers_mut().insert(header::RETRY_AFTER, secs.into());
        }
        response
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    axum::serve(listener, Router::new().fallback(answer).with_state(shared)).await.unwrap();
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await.unwrap();
    // On a task of its own: what was sent takes effect also when nobody waits for it any more.
    tokio::spawn(answer_whole(shared, parts, body)).await.unwrap()
}

async fn answer_whole(
    shared: Arc<Shared>,
    mut parts: axum::http::request::Parts,
    body: Bytes,
) -> Response {
    let mut fields: BTreeMap<String, String> =
        url::form_urlencoded::parse(&body).into_owned().collect();
    let token = fields.remove("WebIdentityToken");
    let action = fields.get("Action").cloned().unwrap_or_default();
    hold(&shared, Moment::Arriving, &action).await;
    let signed_by = signer(&parts);
    let mut recorded = Recorded { fields, signed_by, ..Recorded::default() };
    let checked = check(&shared, &mut recorded, token.as_deref()).await;
    shared.state.lock().unwrap().requests.push(recorded.clone());
    if let Err(refusal) = checked {
        return refusal.into_response();
    }
    if recorded.signed_by.is_none() {
        identity::sign(&mut parts, &body, &shared.key, &shared.moto);
    }
    let mut answer = forward(&shared, parts, body).await;
    if doubt(&shared, &recorded) == Some(Doubt::AnotherUsers) {
        answer = of_another_user(answer).await;
    }
    hold(&shared, Moment::Answering, &action).await;
    answer
}

/// Waits as long as a test holds up such requests at this moment.
async fn hold(shared: &Shared, moment: Moment, action: &str) {
    let is_held = |stop: Option<Stop>| {
        stop.is_some_and(|stop| stop.moment == moment && stop.action == action)
    };
    let mut stop = shared.stop.subscribe();
    let held = is_held(*stop.borrow_and_update());
    if held {
        shared.held_up.fetch_add(1, Ordering::SeqCst);
        let _let_go = stop.wait_for(|stop| !is_held(*stop)).await.map(drop);
        shared.held_up.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn check(
    shared: &Shared,
    recorded: &mut Recorded,
    token: Option<&str>,
) -> Result<(), Refusal> {
    let (ordered, trusts) = {
        let mut state = shared.state.lock().unwrap();
        (state.refusals.pop_front(), state.trusts.clone())
    };
    if let Some(refusal) = ordered {
        return Err(refusal);
    }
    if doubt(shared, recorded) == Some(Doubt::Unknown) {
        let message = "The security token included in the request is invalid.";
        let refusal = Refusal::sender("InvalidClientTokenId", message);
        return Err(Refusal { status: 403, ..refusal });
    }
    let action = recorded.fields.get("Action").map(String::as_str).unwrap_or_default();
    if PASSED_ON.contains(&action) && recorded.signed_by.is_some() {
        return Ok(());
    }
    rules::check(&recorded.fields)?;
    match recorded.fields.get("Action").map(String::as_str) {
        Some("AssumeRoleWithWebIdentity") => {
            let role = recorded.fields.get("RoleArn").cloned().unwrap_or_default();
            let token = token.unwrap_or_default();
            recorded.claims = identity::verify(&trusts, &role, token).await?;
            rules::check_claims(&recorded.claims)?;
            Ok(())
        }
        Some("AssumeRole") if recorded.signed_by.is_some() => Ok(()),
        _ => Err(Refusal {
            status: 403,
            ..Refusal::sender(
                "MissingAuthenticationToken",
                "Request is missing Authentication Token",
            )
        }),
    }
}

/// What a test has STS say of the key that signed this, if it asks whose key it is.
fn doubt(shared: &Shared, recorded: &Recorded) -> Option<Doubt> {
    let doubt = shared.state.lock().unwrap().doubt.clone();
    let (known, doubt) = doubt?;
    let is_known = recorded.signed_by.as_ref() == Some(&known);
    (recorded.is("GetCallerIdentity") && !is_known).then_some(doubt)
}

/// The same answer about somebody else.
async fn of_another_user(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await.unwrap();
    let text = String::from_utf8_lossy(&body).replace("</Arn>", "-of-another</Arn>");
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(text))
}

/// The access key in `authorization: AWS4-HMAC-SHA256 Credential=AKIA…/…`.
fn signer(parts: &axum::http::request::Parts) -> Option<String> {
    let header = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (_, credential) = header.split_once("Credential=")?;
    Some(credential.split('/').next()?.to_owned())
}

/// With every header as it was, `host` too: the signature covers them.
async fn forward(shared: &Shared, mut parts: axum::http::request::Parts, body: Bytes) -> Response {
    parts.uri = format!("{}/", shared.moto).parse().unwrap();
    let answer = shared.client.request(Request::from_parts(parts, Body::from(body))).await.unwrap();
    let (mut parts, body) = answer.into_parts();
    let body = to_bytes(Body::new(body), BODY_BYTES_MAX).await.unwrap();
    let text = String::from_utf8_lossy(&body);
    if parts.status.is_success() {
        return Response::from_parts(parts, Body::from(body));
    }
    // moto wraps the error of a refused signature or action once more than AWS does.
    let text = text.replace("<Errors><Error>", "<Error>").replace("</Error></Errors>", "</Error>");
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    Response::from_parts(parts, Body::from(text))
}

/// What concerns the access keys of users, at STS and at IAM.
const PASSED_ON: [&str; 5] = [
    "GetCallerIdentity",
    "ListAccessKeys",
    "GetAccessKeyLastUsed",
    "CreateAccessKey",
    "DeleteAccessKey",
];

/// Far more than STS takes.
const BODY_BYTES_MAX: usize = 256 * 1024;
