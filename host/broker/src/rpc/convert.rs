//! Between the core's types and proto types, without a decision in between.

use std::time::Duration;

use claviger_core::catalog::RevocationClass;
use claviger_core::lease::{Lease, LeaseState};
use claviger_core::time::Timestamp;
use claviger_proto::v1;
use tonic::Status;

use super::status;
use crate::identity::UnverifiedRequest;

/// A point in time.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let millis = time.unix_millis();
    prost_types::Timestamp {
        seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
    }
}

/// A length of time.
pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A wish of the client in whole seconds: positive, or absent.
pub fn wish(field: &str, wish: Option<prost_types::Duration>) -> Result<Option<Duration>, Status> {
    let Some(wish) = wish else { return Ok(None) };
    match u64::try_from(wish.seconds) {
        Ok(secs) if secs > 0 && wish.nanos == 0 => Ok(Some(Duration::from_secs(secs))),
        _ => Err(status::invalid(field, "a positive number of whole seconds is wanted")),
    }
}

/// A lease.
pub fn lease(lease: &Lease) -> v1::Lease {
    v1::Lease {
        lease_id: lease.id.to_string(),
        scope: lease.scope.to_string(),
        state: lease_state(lease.state).into(),
        expires_at: Some(timestamp(lease.expires_at)),
        revocation: revocation(lease.revocation).into(),
        residual_exposure: Some(duration(lease.residual_exposure)),
    }
}

/// Where a lease stands.
pub const fn lease_state(state: LeaseState) -> v1::LeaseState {
    match state {
        LeaseState::Open => v1::LeaseState::Open,
        LeaseState::Active => v1::LeaseState::Active,
        LeaseState::Due => v1::LeaseState::Due,
        LeaseState::Lapsing => v1::LeaseState::Lapsing,
        LeaseState::Revoked => v1::LeaseState::Revoked,
        LeaseState::Expired => v1::LeaseState::Expired,
        LeaseState::Stuck => v1::LeaseState::Stuck,
    }
}

/// The state that a client names; `None` if it names none.
pub const fn named_state(state: v1::LeaseState) -> Option<LeaseState> {
    match state {
        v1::LeaseState::Unspecified => None,
        v1::LeaseState::Open => Some(LeaseState::Open),
        v1::LeaseState::Active => Some(LeaseState::Active),
        v1::LeaseState::Due => Some(LeaseState::Due),
        v1::LeaseState::Lapsing => Some(LeaseState::Lapsing),
        v1::LeaseState::Revoked => Some(LeaseState::Revoked),
        v1::LeaseState::Expired => Some(LeaseState::Expired),
        v1::LeaseState::Stuck => Some(LeaseState::Stuck),
    }
}

/// What ending a lease early means.
pub const fn revocation(class: RevocationClass) -> v1::RevocationClass {
    match class {
        RevocationClass::Revocable => v1::RevocationClass::Revocable,
        RevocationClass::DenyByPolicy => v1::RevocationClass::DenyByPolicy,
        RevocationClass::ExpireOnly => v1::RevocationClass::ExpireOnly,
    }
}

/// A request that AWS credentials signed, as it was sent.
pub fn signed_request(message: &v1::AwsIdentity) -> UnverifiedRequest<'_> {
    let headers = message.headers.iter();
    UnverifiedRequest {
        method: &message.method,
        url: &message.url,
        headers: headers.map(|one| (one.name.as_str(), one.value.as_str())).collect(),
        body: &message.body,
    }
}
