//! The limits of the plugin contract, asked of the host functions directly.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use claviger_core::issued::FieldValue;
use wasmtime::component::Resource;

use super::generated::claviger::provider::calls::HostLease;
use super::generated::claviger::sql::sql::{HostSession, HostStatement};
use super::generated::claviger::types::errors::{Error, ErrorKind};
use super::generated::claviger::types::secrets::Host as _;
use super::*;
use crate::plugin::call::Memory;
use crate::plugin::manifest::{ABI, Dialect};

fn call() -> Call {
    Call::new("plugin".parse().unwrap(), None, Memory::new(0))
}

fn refused<T>(outcome: Result<std::result::Result<T, Error>>) -> Error {
    outcome.unwrap().err().unwrap()
}

#[test]
fn a_call_makes_sixteen_secrets_of_sound_strength() {
    let mut call = call();
    for bits in [0, 127, 513] {
        assert_eq!(refused(call.generate(bits)).kind, ErrorKind::InvalidInput);
    }
    for _ in 0..16 {
        call.generate(128).unwrap().unwrap();
    }
    assert!(refused(call.generate(128)).message.contains("at most 16 secrets"));
}

#[tokio::test]
async fn a_connection_that_nobody_granted_is_denied() {
    let mut call = call();
    for name in ["admin", "", "*", "../admin", "admin\0"] {
        assert_eq!(refused(call.open(name.to_owned()).await).kind, ErrorKind::Denied, "{name:?}");
    }
}

#[tokio::test]
async fn the_iterations_of_a_call_are_bounded_in_all() {
    let mut call = call();
    let secret = call.generate(128).unwrap().unwrap();
    for (used, iterations, fits) in
        [(0, 0, false), (0, 10_000, true), (990_000, 10_000, true), (990_001, 10_000, false)]
    {
        call.used.scram_iterations = used;
        let statement = HostStatement::new(&mut call).await.unwrap();
        let lent = Resource::new_borrow(statement.rep());
        let value = Resource::new_borrow(secret.rep());
        call.scram_sha256(lent, value, iterations).await.unwrap();
        let rendered = call.table.get(&statement).unwrap().render(Dialect::Postgres);
        assert_eq!(rendered.is_ok(), fits, "{used} + {iterations}");
    }
}

fn manifest() -> Arc<Manifest> {
    let json = serde_json::json!({
        "id": "x", "version": "1", "abi": ABI, "title": "t",
        "settings-schema": {}, "parameters-schema": {},
        "credential": {"kind": "k", "fields": {"user": {"env": "U"}, "password": {"secret": true}}},
        "revocation": {"class": "revocable", "residual-exposure-secs": 0},
        "ttl": {"min-secs": 1}, "join-keys": {"db_user": "somewhere"},
    });
    Arc::new(serde_json::from_value(json).unwrap())
}

fn lease(call: &mut Call) -> Resource<LeaseDraft> {
    call.table.push(LeaseDraft::new(manifest(), 1_000)).unwrap()
}

#[test]
fn the_manifest_decides_what_a_lease_holds() {
    let mut call = call();
    let own = lease(&mut call);
    let lent = || Resource::new_borrow(own.rep());
    let text = str::to_owned;
    let secret = call.generate(128).unwrap().unwrap();
    let value = || Resource::new_borrow(secret.rep());
    refused(call.set_field(lent(), text("other"), text("x")));
    refused(call.set_field(lent(), text("password"), text("mine")));
    refused(call.set_secret(lent(), text("user"), value()));
    refused(call.set_join_key(lent(), text("other"), text("x")));
    refused(call.set_expires_at(lent(), 1_001));
    refused(call.set_handle(lent(), "x".repeat(4_097)));
    call.set_expires_at(lent(), 900).unwrap().unwrap();
    call.set_secret(lent(), text("password"), value()).unwrap().unwrap();
    call.set_handle(lent(), text("h")).unwrap().unwrap();
    call.set_join_key(lent(), text("db_user"), text("u")).unwrap().unwrap();
    refused(call.set_field(lent(), text("user"), "x".repeat(65_536)));
    call.set_field(lent(), text("user"), text("u")).unwrap().unwrap();
    let issued = call.table.delete(own).unwrap().finish().unwrap();
    assert_eq!(issued.credential.expires_at.unix_secs(), 900);
    assert_eq!(issued.credential.fields[0].env.as_deref(), Some("U"));
    assert!(matches!(issued.credential.fields[1].value, FieldValue::Secret(_)));
    assert_eq!(issued.join_keys, BTreeMap::from([(text("db_user"), text("u"))]));
    assert_eq!(issued.handle.map(|handle| handle.as_str().to_owned()), Some(text("h")));
}

#[test]
fn an_unfinished_lease_names_what_is_missing() {
    let mut call = call();
    let own = lease(&mut call);
    let lent = Resource::new_borrow(own.rep());
    call.set_field(lent, "user".to_owned(), "u".to_owned()).unwrap().unwrap();
    let failure = call.table.delete(own).unwrap().finish().err().unwrap();
    assert!(failure.message.contains("fields `password`"), "{}", failure.message);
}

#[test]
fn errors_reach_the_guest_bounded_and_without_secrets() {
    let mut call = call();
    let secret = call.generate(128).unwrap().unwrap();
    let text = call.table.get(&secret).unwrap().0.to_string();
    let failure = Failure {
        code: Some("c".repeat(100)),
        message: format!("{text} {}", "m".repeat(2_000)),
        ..Failure::sent(FailureKind::Other, "")
    };
    let error = to_guest(&failure, &call.redactor);
    assert!(error.message.starts_with("[redacted] mm"), "{}", error.message);
    assert_eq!((error.message.len(), error.code.unwrap().len()), (1_024, 64));
    assert!(error.request_sent);
}
