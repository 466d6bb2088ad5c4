//! Puts a credential into a request: into a header, marked as sensitive, or into a form.

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::AuthError;
use crate::egress::http::Outgoing;
use crate::egress::redact::SharedSecret;
use crate::egress::{Failure, FailureKind};

/// Sets a header to a credential, whatever stood there.
pub(super) fn header(
    outgoing: &mut Outgoing,
    name: &HeaderName,
    value: &SharedSecret,
) -> Result<(), Failure> {
    let value = sensitive(value).map_err(|_| unfit())?;
    outgoing.headers.insert(name.clone(), value);
    Ok(())
}

/// `authorization: Bearer …` (RFC 6750).
pub(super) fn bearer(outgoing: &mut Outgoing, token: &SharedSecret) -> Result<(), Failure> {
    let value = Zeroizing::new(format!("Bearer {}", token.as_str()));
    let value = sensitive(&value).map_err(|_| unfit())?;
    outgoing.headers.insert(AUTHORIZATION, value);
    Ok(())
}

/// Appends a credential to a form. A form that names the parameter already is refused: which of
/// the two counts would be the service's choice.
pub(super) fn form_parameter(
    outgoing: &mut Outgoing,
    name: &str,
    value: &SharedSecret,
) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure::unsent(FailureKind::InvalidInput, message));
    let kind = outgoing.headers.get(CONTENT_TYPE);
    let kind = kind.map(|kind| kind.to_str().unwrap_or_default().to_ascii_lowercase());
    match kind.as_deref().map(|kind| kind.split(';').next().unwrap_or_default().trim()) {
        Some(FORM) => {}
        None if outgoing.body.is_empty() => {
            outgoing.headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
        }
        _ => {
            return refuse(format!(
                "this connection sends `{name}` in a form: set the content type `{FORM}`"
            ));
        }
    }
    let query = outgoing.path_and_query.split_once('?').map_or("", |(_, query)| query);
    let names = |bytes: &[u8]| url::form_urlencoded::parse(bytes).any(|(key, _)| key == name);
    if names(&outgoing.body) || names(query.as_bytes()) {
        return refuse(format!("`{name}` is set by the host on this connection: leave it out"));
    }
    let encode = url::form_urlencoded::byte_serialize;
    let separator = if outgoing.body.is_empty() { "" } else { "&" };
    let parts = [separator].into_iter().chain(encode(name.as_bytes())).chain(["="]);
    let parts: Vec<&str> = parts.chain(encode(value.as_bytes())).collect();
    // In one piece: a body that grows would leave the credential in freed memory.
    let mut body = vec![outgoing.body.as_slice()];
    body.extend(parts.iter().map(|part| part.as_bytes()));
    outgoing.body = Zeroizing::new(body.concat());
    Ok(())
}

/// A header value that no log shows.
pub(super) fn sensitive(text: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A header that may carry a credential: not one by which the message is framed or routed.
pub(super) fn credential_header(name: &str) -> Result<HeaderName, AuthError> {
    let refused = || AuthError::HeaderName(name.to_owned());
    let header = HeaderName::try_from(name).map_err(|_| refused())?;
    if FRAMING.contains(&header.as_str()) { Err(refused()) } else { Ok(header) }
}

fn unfit() -> Failure {
    Failure::unsent(FailureKind::InvalidConfig, "the credential fits in no header")
}

/// The content type of a form.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// Headers that the door or the protocol owns.
const FRAMING: [&str; 11] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
