//! Who holds AWS credentials: a signed `GetCallerIdentity` that the workload does not send itself,
//! looked at and passed on to AWS STS, which alone can tell whose signature it is. Sees no key.
//!
//! What the workload chose is compared with what it must be before anything is sent: the request
//! goes to one place, says one thing, and was signed for this broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use claviger_core::principal::Principal;
use claviger_core::time::Timestamp;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use roxmltree::Document;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::claims::{LEEWAY, is_plain};
use super::place::Place;
use crate::egress::http::{Exchange, Outgoing};

/// What the configuration says of AWS, checked.
#[derive(Clone, Debug)]
pub struct AwsSpec {
    /// Where STS is.
    pub sts: Place,
    /// What workloads must sign as the header `x-claviger-server-id`: this broker's own name.
    pub server_id: String,
}

/// AWS STS, which tells whose signature a request bears.
pub struct AwsIdentity {
    spec: AwsSpec,
    exchange: Arc<dyn Exchange>,
    asking: Semaphore,
}

/// A signed request as a workload sent it.
#[derive(Clone, Debug, Default)]
pub struct UnverifiedRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The URL.
    pub url: &'a str,
    /// The headers.
    pub headers: Vec<(&'a str, &'a str)>,
    /// The body.
    pub body: &'a [u8],
}

/// Why a request proves nobody.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AwsError {
    /// This broker takes no such proof.
    #[error(
        "AWS identities are not taken here: the platform team would have to add `[identity.aws]`"
    )]
    NotConfigured,
    /// It is another request.
    #[error("it must be `POST` to `{0}` with the body `{BODY}` and nothing else")]
    Otherwise(String),
    /// It has a header that it must not have, or one twice.
    #[error("its header `{0}` is malformed, stands twice, or does not belong there")]
    Header(String),
    /// It lacks a header, or the signature does not cover it.
    #[error("its header `{0}` is missing, or its signature does not cover it")]
    Unsigned(&'static str),
    /// It was signed for another server.
    #[error("it was signed for another server: sign the header `{SERVER_ID}` with `{0}`")]
    OtherServer(String),
    /// It is older than its life or from the future.
    #[error(
        "it was signed more than {} ago, or in the future: sign a new one",
        humantime::format_duration(AGE_MAX)
    )]
    Stale,
    /// STS says that the signature is nobody's.
    #[error("AWS STS refused it")]
    Refused,
    /// STS does not answer, or not in a way that is understood.
    #[error("AWS STS cannot be asked: try again in a moment")]
    Unavailable,
    /// It is the root of an account or a federated user.
    #[error("`{0}` is neither a role nor a user: assume a role")]
    Nobody(String),
}

impl AwsIdentity {
    /// STS as `spec` says, over `exchange`.
    pub fn new(spec: AwsSpec, exchange: Arc<dyn Exchange>) -> Self {
        Self { spec, exchange, asking: Semaphore::new(ASKING_MAX) }
    }

    /// The workload whose credentials signed `request`.
    pub async fn workload(
        &self,
        request: &UnverifiedRequest<'_>,
        now: Timestamp,
    ) -> Result<Principal, AwsError> {
        let headers = self.admit(request, now)?;
        // Strangers may send these: only so many wait for STS at once, and the others go away.
        let _turn = self.asking.try_acquire().map_err(|_| AwsError::Unavailable)?;
        let outgoing = Outgoing {
            method: Method::POST,
            path_and_query: self.spec.sts.path_and_query.clone(),
            headers,
            body: Zeroizing::new(request.body.to_vec()),
        };
        let end = Instant::now() + ASK_MAX;
        let answer = self.exchange.exchange(&self.spec.sts.route, outgoing, end).await;
        let answer = answer.map_err(|failure| {
            tracing::warn!(problem = failure.message, "AWS STS cannot be asked");
            AwsError::Unavailable
        })?;
        match answer.status {
            StatusCode::OK => {}
            status if status.is_client_error() => return Err(AwsError::Refused),
            _ => return Err(AwsError::Unavailable),
        }
        let text = std::str::from_utf8(&answer.body).map_err(|_| AwsError::Unavailable)?;
        let said = Said::read(text).ok_or(AwsError::Unavailable)?;
        said.principal().ok_or(AwsError::Nobody(said.arn))
    }

    /// The headers to pass on, if the request is what it must be.
    fn admit(
        &self,
        request: &UnverifiedRequest<'_>,
        now: Timestamp,
    ) -> Result<HeaderMap, AwsError> {
        let sts = &self.spec.sts;
        let url = format!("{}{}", sts.route.origin(), sts.path_and_query);
        let is_meant = request.url == url || format!("{}/", request.url) == url;
        if request.method != "POST" || !is_meant || !BODIES.contains(&request.body) {
            return Err(AwsError::Otherwise(url));
        }
        let headers = Headers::read(&request.headers)?;
        if headers.signed("host")? != sts.route.authority() {
            return Err(AwsError::Otherwise(url));
        }
        if headers.signed(SERVER_ID)? != self.spec.server_id {
            return Err(AwsError::OtherServer(self.spec.server_id.clone()));
        }
        let at = moment(headers.signed("x-amz-date")?).ok_or(AwsError::Stale)?;
        let (now, age, leeway) = (now.unix_secs(), AGE_MAX.as_secs(), LEEWAY.as_secs());
        if at.saturating_add(age) <= now || at > now.saturating_add(leeway) {
            return Err(AwsError::Stale);
        }
        Ok(headers.passed_on)
    }
}

/// The headers of a request, and which of them its signature covers.
struct Headers<'a> {
    by_name: BTreeMap<String, &'a str>,
    signed: Vec<&'a str>,
    passed_on: HeaderMap,
}

impl<'a> Headers<'a> {
    fn read(headers: &[(&'a str, &'a str)]) -> Result<Self, AwsError> {
        let (mut by_name, mut passed_on) = (BTreeMap::new(), HeaderMap::new());
        for (name, text) in headers {
            let name = name.to_ascii_lowercase();
            let shown = || name.chars().filter(char::is_ascii_graphic).take(64).collect();
            let refused = || AwsError::Header(shown());
            if !ALLOWED.contains(&name.as_str()) || by_name.insert(name.clone(), *text).is_some() {
                return Err(refused());
            }
            let mut value = HeaderValue::from_str(text).map_err(|_| refused())?;
            value.set_sensitive(true);
            let known = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
            // The door sets these two itself, from where it goes and what it sends.
            if !["host", "content-length"].contains(&name.as_str()) {
                passed_on.insert(known, value);
            }
        }
        passed_on.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(FORM));
        let authorization = by_name.get("authorization").copied().unwrap_or_default();
        let signed = signed_headers(authorization).ok_or(AwsError::Unsigned("authorization"))?;
        Ok(Self { by_name, signed, passed_on })
    }

    /// The value of a header that the signature covers.
    fn signed(&self, name: &'static str) -> Result<&'a str, AwsError> {
        let value = self.by_name.get(name).filter(|_| self.signed.contains(&name));
        value.copied().ok_or(AwsError::Unsigned(name))
    }
}

/// What a Signature Version 4 for STS says that it covers. Its three parts stand there once each.
fn signed_headers(authorization: &str) -> Option<Vec<&str>> {
    let parts = authorization.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let parts: Vec<_> = parts.split(',').map(str::trim).collect();
    let [credential, headers, signature] = parts.as_slice() else { return None };
    let scope = credential.strip_prefix("Credential=")?;
    let signature = signature.strip_prefix("Signature=")?;
    let headers = headers.strip_prefix("SignedHeaders=")?;
    let is_hex = signature.len() == 64 && signature.bytes().all(|byte| byte.is_ascii_hexdigit());
    (scope.ends_with("/sts/aws4_request") && is_hex).then(|| headers.split(';').collect())
}

/// `20261125T213000Z` as seconds since 1970.
fn moment(text: &str) -> Option<u64> {
    let digits = |from: usize, to: usize| {
        let part = text.get(from..to)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then_some(part)
    };
    let (date, time) = (digits(0, 8)?, digits(9, 15)?);
    if text.len() != 16 || text.get(8..9) != Some("T") || text.get(15..) != Some("Z") {
        return None;
    }
    let (year, month, day) = (date.get(..4)?, date.get(4..6)?, date.get(6..)?);
    let (hour, minute, second) = (time.get(..2)?, time.get(2..4)?, time.get(4..)?);
    let written = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    let at = humantime::parse_rfc3339(&written).ok()?;
    at.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// What STS says of whoever signed.
struct Said {
    arn: String,
    account: String,
    user_id: String,
}

impl Said {
    fn read(xml: &str) -> Option<Self> {
        let document = Document::parse(xml).ok()?;
        let root = document.root_element();
        if root.tag_name().name() != "GetCallerIdentityResponse" {
            return None;
        }
        let mut results =
            root.children().filter(|node| node.tag_name().name() == "GetCallerIdentityResult");
        let result = results.next().filter(|_| results.next().is_none())?;
        let text = |name: &str| {
            let node = result.children().find(|node| node.tag_name().name() == name)?;
            node.text().map(str::trim).filter(|text| is_plain(text)).map(str::to_owned)
        };
        Some(Self { arn: text("Arn")?, account: text("Account")?, user_id: text("UserId")? })
    }

    /// `aws:<account>:role/<name>` or `aws:<account>:user/<name>`. The session of a role is a tag:
    /// whoever assumes the role names it.
    fn principal(&self) -> Option<Principal> {
        let parts: Vec<_> = self.arn.splitn(6, ':').collect();
        let ["arn", partition, service, "", account, resource] = parts.as_slice() else {
            return None;
        };
        if *account != self.account {
            return None;
        }
        let mut tags = BTreeMap::from([
            ("method", "aws".to_owned()),
            ("account", self.account.clone()),
            ("arn", self.arn.clone()),
            ("partition", (*partition).to_owned()),
        ]);
        // Of a role `AROA…:session`, of a user `AIDA…`: unlike names, ids are never given anew.
        let unique = self.user_id.split(':').next().unwrap_or_default();
        tags.insert("unique_id", unique.to_owned());
        let who = match (*service, resource.split_once('/')?) {
            ("sts", ("assumed-role", rest)) => {
                let (role, session) = rest.split_once('/')?;
                tags.insert("session", session.to_owned());
                format!("role/{role}")
            }
            ("iam", ("user", path)) => format!("user/{}", path.rsplit('/').next()?),
            _ => return None,
        };
        let tags = tags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Some(Principal::from_inquiry(format!("aws:{account}:{who}"), tags))
    }
}

/// The header that names this broker; the signature must cover it, or a request for another server
/// could be used here.
pub const SERVER_ID: &str = "x-claviger-server-id";

/// All that a request may say: another parameter could make STS do something else.
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

/// In both orders.
const BODIES: [&[u8]; 2] = [BODY.as_bytes(), b"Version=2011-06-15&Action=GetCallerIdentity"];

const FORM: &str = "application/x-www-form-urlencoded";

/// What SDKs send with it. `accept` is not among them, since the answer must be XML.
const ALLOWED: [&str; 12] = [
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "content-length",
    "content-type",
    "host",
    "user-agent",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-user-agent",
    SERVER_ID,
];

/// STS itself takes fifteen minutes. Somebody who overhears a request can use it here for as long.
const AGE_MAX: Duration = Duration::from_mins(5);

/// Far below the thirty seconds of a call.
const ASK_MAX: Duration = Duration::from_secs(5);

/// STS answers within a tenth of a second: that is a hundred and sixty a second.
const ASKING_MAX: usize = 16;

#[cfg(test)]
mod tests;
