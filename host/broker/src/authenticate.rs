//! Who is at the other end: from what the transport or a proof proved to a `Principal`, and from a
//! session token to a live session. Believes nothing that a message merely says.

use std::sync::Arc;

use claviger_core::admin::{Operator, Standing};
use claviger_core::binding::{Admission, Binding, NotCertified, Peer, Thumbprint};
use claviger_core::flow;
use claviger_core::ports::JournalError;
use claviger_core::principal::{Principal, Requester};
use claviger_core::session::TokenHash;
use claviger_core::time::Timestamp;
use thiserror::Error;
use tonic::Extensions;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpConnectInfo;

use crate::broker::{self, Broker};
use crate::identity::{Identities, IdentityError, UnverifiedRequest};
use crate::listen::UnixPeer;
use crate::sessions::LiveSession;
use crate::tls::TlsPeer;

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

/// The workload alone, as the connection proves it.
fn principal(extensions: &Extensions) -> Result<Principal, AuthenticateError> {
    if let Some(peer) = unix_peer(extensions) {
        return Ok(Principal::from_unix_peer(peer.uid, peer.gid));
    }
    match peer(extensions)? {
        Peer::Certified { name, thumbprint } => {
            Ok(Principal::from_client_certificate(&name, &thumbprint.to_string()))
        }
        Peer::Unix { .. } | Peer::Bearer => Err(AuthenticateError::NoProof),
    }
}

/// When the certificate of the connection expires, if it has one.
pub fn proof_ends(extensions: &Extensions) -> Option<Timestamp> {
    let certificate = extensions.get::<TlsPeer>().and_then(TlsPeer::certificate)?;
    Some(certificate.not_after())
}

/// What the connection proves of its other end: what a session's token is bound to.
pub fn peer(extensions: &Extensions) -> Result<Peer, AuthenticateError> {
    if let Some(peer) = unix_peer(extensions) {
        return Ok(Peer::Unix { uid: peer.uid });
    }
    let Some(tls) = extensions.get::<TlsPeer>() else {
        // Without TLS, on loopback in `clavigerd dev`, nothing is proven, as without a certificate.
        let plain = extensions.get::<TcpConnectInfo>();
        return plain.map(|_| Peer::Bearer).ok_or(AuthenticateError::NoProof);
    };
    let Some(certificate) = tls.certificate() else { return Ok(Peer::Bearer) };
    // TLS looked at it when the connection began, which may have been days ago.
    if certificate.has_expired(broker::now()) {
        return Err(AuthenticateError::ExpiredCertificate);
    }
    let name = certificate.name().ok_or(AuthenticateError::NamelessCertificate)?.to_owned();
    Ok(Peer::Certified { name, thumbprint: certificate.thumbprint() })
}

/// The live session that the request's token proves. The token is bound to who opened the session:
/// from elsewhere it is as unknown as any other.
pub async fn session(
    broker: &Broker,
    extensions: &Extensions,
    metadata: &MetadataMap,
) -> Result<Arc<LiveSession>, AuthenticateError> {
    let peer = peer(extensions)?;
    let unverified_token = bearer(metadata)?;
    let hash = TokenHash::of(unverified_token);
    let live = broker.sessions.find(&hash).ok_or(AuthenticateError::NoSession)?;
    let admission = live.binding.read().await.admit(&peer).ok_or(AuthenticateError::NoSession)?;
    if let Admission::Moved(_) = admission {
        move_on(broker, &live, &peer).await?;
    }
    live.seen();
    Ok(live)
}

/// The first use of the certificate that was named as the next one: recorded before the call goes
/// on, so that the older one counts no more, not even after a restart.
async fn move_on(
    broker: &Broker,
    live: &LiveSession,
    peer: &Peer,
) -> Result<(), AuthenticateError> {
    let mut binding = live.binding.write().await;
    // Another call may have moved it meanwhile.
    match binding.admit(peer).ok_or(AuthenticateError::NoSession)? {
        Admission::AsBound => Ok(()),
        Admission::Moved(moved) => bind(broker, live, (&mut binding, moved)).await,
    }
}

/// Records the new binding, then lets it count.
async fn bind(
    broker: &Broker,
    live: &LiveSession,
    (binding, bound): (&mut Binding, Binding),
) -> Result<(), AuthenticateError> {
    if !flow::session::bind(broker, live.session(), &bound).await? {
        return Err(AuthenticateError::NoSession);
    }
    *binding = bound;
    Ok(())
}

/// Lets the certificate `next` count for the session too. The caller has just proven to hold the
/// current one.
pub async fn rebind(
    broker: &Broker,
    live: &LiveSession,
    next: Thumbprint,
) -> Result<(), AuthenticateError> {
    let mut binding = live.binding.write().await;
    let bound = binding.expecting(next)?;
    bind(broker, live, (&mut binding, bound)).await
}

/// Who is at the other end of the operators' listener. What they may do is for policies to say.
pub fn operator(
    extensions: &Extensions,
    operator_uids: &[u32],
) -> Result<Operator, AuthenticateError> {
    let own = rustix::process::geteuid().as_raw();
    let standing = match unix_peer(extensions) {
        Some(peer) if peer.uid == own => Standing::Own,
        Some(peer) if operator_uids.contains(&peer.uid) => Standing::Listed,
        _ => Standing::Unlisted,
    };
    Ok(Operator::proven(principal(extensions)?, standing))
}

fn unix_peer(extensions: &Extensions) -> Option<UnixPeer> {
    extensions.get::<Option<UnixPeer>>().copied().flatten()
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
    /// The certificate was good when the connection began, and has expired since.
    #[error("the client certificate of this connection has expired: connect again with a new one")]
    ExpiredCertificate,
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
    /// The session has no certificate that another could follow.
    #[error(transparent)]
    NotCertified(#[from] NotCertified),
    /// What the call changes could not be recorded.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Tokens have 48 characters; what is longer need not be hashed.
const TOKEN_BYTES_MAX: usize = 128;

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
    fn without_a_proof_nobody_calls() {
        assert_eq!(connected(&Extensions::new()).err(), Some(AuthenticateError::NoProof));
    }
}
