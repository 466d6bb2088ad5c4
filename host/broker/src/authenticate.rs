//! Who is at the other end: from what the transport or a proof proved to a `Principal`, and from a
//! session token to a live session. Believes nothing that a message merely says.

use std::sync::Arc;

use claviger_core::principal::{Principal, Requester};
use claviger_core::session::TokenHash;
use claviger_core::time::Timestamp;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tonic::Extensions;
use tonic::metadata::MetadataMap;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::{Identities, IdentityError, UnverifiedRequest};
use crate::listen::UnixPeer;
use crate::sessions::{LiveSession, Sessions};

/// An authenticated caller.
#[derive(Debug)]
pub struct Caller {
    /// The workload that connects.
    pub principal: Principal,
    /// For whom it does.
    pub requester: Requester,
}

/// What a message brings to prove who sends it. Empty text is no proof.
#[derive(Clone, Debug, Default)]
pub struct UnverifiedProofs<'a> {
    /// Who runs the agent.
    pub workload_token: &'a str,
    /// Who runs the agent, by a request that its AWS credentials signed.
    pub aws_identity: Option<UnverifiedRequest<'a>>,
    /// For whom.
    pub requester_token: &'a str,
}

/// The caller, as its proofs prove it or else the connection: the kernel's word on a unix socket,
/// a verified client certificate over TLS. A proof that is refused is never replaced by the
/// connection's: whoever sends one means it.
pub async fn caller(
    identities: &Identities,
    extensions: &Extensions,
    proofs: UnverifiedProofs<'_>,
    now: Timestamp,
) -> Result<Caller, AuthenticateError> {
    let proven = match (proofs.workload_token, &proofs.aws_identity) {
        ("", None) => None,
        ("", Some(request)) => Some(identities.aws_workload(request, now).await?),
        (token, None) => Some(identities.workload(token, now).await?),
        (_, Some(_)) => return Err(IdentityError::TwoProofs.into()),
    };
    let (principal, otherwise) = match proven {
        None => connected(extensions)?,
        Some(principal) => {
            let requester = Requester::from_workload(&principal);
            (principal, requester)
        }
    };
    let requester = match proofs.requester_token {
        "" => otherwise,
        token => identities.requester(token, &principal, now).await?,
    };
    Ok(Caller { principal, requester })
}

/// Whom the connection proves, and for whom it asks without a proof of that.
fn connected(extensions: &Extensions) -> Result<(Principal, Requester), AuthenticateError> {
    let principal = principal(extensions)?;
    let requester = match unix_peer(extensions) {
        Some(peer) => Requester::from_unix_peer(peer.uid, user_name(peer.uid)),
        None => Requester::from_workload(&principal),
    };
    Ok((principal, requester))
}

/// The workload alone: for whom it asks, a session knows since it was opened.
fn principal(extensions: &Extensions) -> Result<Principal, AuthenticateError> {
    if let Some(peer) = unix_peer(extensions) {
        return Ok(Principal::from_unix_peer(peer.uid, peer.gid));
    }
    let certificates = extensions
        .get::<TlsConnectInfo<TcpConnectInfo>>()
        .and_then(TlsConnectInfo::peer_certs)
        .ok_or(AuthenticateError::NoProof)?;
    let leaf = certificates.first().ok_or(AuthenticateError::NoProof)?;
    certified(leaf.as_ref())
}

/// The live session that the request's token proves. The token is bound to the principal that
/// opened the session: elsewhere it is as unknown as any other.
pub fn session(
    sessions: &Sessions,
    extensions: &Extensions,
    metadata: &MetadataMap,
) -> Result<Arc<LiveSession>, AuthenticateError> {
    let principal = principal(extensions);
    let unverified_token = bearer(metadata)?;
    let live =
        sessions.find(&TokenHash::of(unverified_token)).ok_or(AuthenticateError::NoSession)?;
    if !is_of(&live, &principal) {
        return Err(AuthenticateError::NoSession);
    }
    live.seen();
    Ok(live)
}

/// A session whose workload a token proved belongs to whoever holds the session's own token.
fn is_of(live: &LiveSession, connected: &Result<Principal, AuthenticateError>) -> bool {
    let principal = live.session().principal();
    let by_connection = ["unix", "mtls"];
    let method = principal.claims().get("method").map_or("", String::as_str);
    match connected {
        Ok(connected) if connected.id() == principal.id() => true,
        _ => !by_connection.contains(&method),
    }
}

/// Whether the caller on the admin socket operates the broker: its own user, or a listed one.
pub fn operator(extensions: &Extensions, operator_uids: &[u32]) -> Result<u32, AuthenticateError> {
    let peer = unix_peer(extensions).ok_or(AuthenticateError::NoProof)?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid == own || operator_uids.contains(&peer.uid) {
        return Ok(peer.uid);
    }
    Err(AuthenticateError::NotOperator { uid: peer.uid })
}

fn unix_peer(extensions: &Extensions) -> Option<UnixPeer> {
    extensions.get::<Option<UnixPeer>>().copied().flatten()
}

fn certified(der: &[u8]) -> Result<Principal, AuthenticateError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| AuthenticateError::UnreadableCertificate)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| AuthenticateError::UnreadableCertificate)?
        .ok_or(AuthenticateError::NamelessCertificate)?;
    let name = principal_name(&names.value.general_names)?;
    Ok(Principal::from_client_certificate(&name, &HEXLOWER.encode(&Sha256::digest(der))))
}

/// The SPIFFE id if there is one (exactly one, as the X.509-SVID specification demands),
/// otherwise the first DNS name.
fn principal_name(names: &[GeneralName<'_>]) -> Result<String, AuthenticateError> {
    let uris = || {
        names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
    };
    if let Some(uri) = uris().next() {
        let single = uris().count() == 1;
        let plain = uri.bytes().all(|byte| byte.is_ascii_graphic()) && uri.len() <= NAME_BYTES_MAX;
        if single && plain && uri.starts_with("spiffe://") {
            return Ok(uri.to_owned());
        }
        return Err(AuthenticateError::NamelessCertificate);
    }
    names
        .iter()
        .find_map(|name| match name {
            GeneralName::DNSName(dns) if dns.len() <= NAME_BYTES_MAX && !dns.contains('*') => {
                Some(format!("dns:{}", dns.to_ascii_lowercase()))
            }
            _ => None,
        })
        .ok_or(AuthenticateError::NamelessCertificate)
}

fn bearer(metadata: &MetadataMap) -> Result<&str, AuthenticateError> {
    let mut values = metadata.get_all("authorization").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(AuthenticateError::NoToken);
    };
    let text = value.to_str().map_err(|_| AuthenticateError::NoToken)?;
    let token = text.strip_prefix("Bearer ").ok_or(AuthenticateError::NoToken)?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(AuthenticateError::NoSession);
    }
    Ok(token)
}

/// What the user database calls `uid`: for readers of the journal only.
fn user_name(uid: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let wanted = uid.to_string();
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(wanted.as_str())).then(|| name.to_owned())
    })
}

/// Why a caller is nobody.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthenticateError {
    /// Neither peer credentials nor a client certificate.
    #[error(
        "the connection proves no identity: connect over the unix socket, or over TLS with a client certificate"
    )]
    NoProof,
    /// The certificate was accepted by TLS but cannot be read here.
    #[error("the client certificate cannot be read: its extensions are malformed")]
    UnreadableCertificate,
    /// The certificate names nobody.
    #[error(
        "the client certificate names no workload: it needs one SPIFFE URI, or a DNS name, as subject alternative name"
    )]
    NamelessCertificate,
    /// A proof in the message does not count.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No session token in the request.
    #[error(
        "the call needs a session token: send it once as metadata `authorization: Bearer <token>`"
    )]
    NoToken,
    /// The token proves no session, or not to this caller.
    #[error(
        "the session token is unknown: the session has ended, or the token belongs to another caller; open a new session"
    )]
    NoSession,
    /// Not an operator.
    #[error("user {uid} does not operate this broker: add it to `operator_uids` under `[admin]`")]
    NotOperator {
        /// The caller's user id.
        uid: u32,
    },
}

/// Tokens have 48 characters; what is longer need not be hashed.
const TOKEN_BYTES_MAX: usize = 128;

/// SPIFFE ids have at most 2048 bytes, DNS names 253.
const NAME_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn takes_exactly_one_bearer_token() {
        let check = |values: &[&str]| {
            let mut metadata = MetadataMap::new();
            for value in values {
                metadata.append("authorization", value.parse().expect("ascii"));
            }
            bearer(&metadata).map(str::to_owned)
        };
        assert_eq!(check(&["Bearer abc"]), Ok("abc".to_owned()));
        assert_eq!(check(&[]), Err(AuthenticateError::NoToken));
        assert_eq!(check(&["Bearer a", "Bearer b"]), Err(AuthenticateError::NoToken));
        assert_eq!(check(&["Basic abc"]), Err(AuthenticateError::NoToken));
        assert_eq!(
            check(&[&format!("Bearer {}", "x".repeat(200))]),
            Err(AuthenticateError::NoSession)
        );
    }

    #[test]
    fn names_a_certificate_by_its_only_spiffe_id() {
        let uri = GeneralName::URI;
        let dns = GeneralName::DNSName;
        let check = |names: &[GeneralName<'_>]| principal_name(names).ok();
        assert_eq!(check(&[uri("spiffe://a/b"), dns("x.y")]), Some("spiffe://a/b".into()));
        assert_eq!(check(&[dns("X.y")]), Some("dns:x.y".into()));
        for refused in [
            vec![],
            vec![uri("https://a/b")],
            vec![uri("spiffe://a/b"), uri("spiffe://a/c")],
            vec![uri("spiffe://a/b c")],
            vec![dns("*.y")],
        ] {
            assert_eq!(check(&refused), None, "{refused:?}");
        }
    }

    #[test]
    fn without_a_proof_nobody_calls() {
        assert_eq!(connected(&Extensions::new()).err(), Some(AuthenticateError::NoProof));
    }
}
