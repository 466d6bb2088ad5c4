//! `claviger:jwt`: has the broker sign what a plugin may have signed.

use std::time::SystemTime;

use claviger_core::time::Timestamp;
use wasmtime::Result;
use wasmtime::component::Resource;

use super::NO_CONNECTION;
use super::generated::claviger::jwt::jwt::Host;
use super::generated::claviger::types::errors::Error;
use crate::egress::redact::SharedSecret;
use crate::egress::{Failure, FailureKind};
use crate::issuer::{Granted, guest_claims};
use crate::plugin::backend::{Backend, JwtConnection};
use crate::plugin::call::{Call, SecretHandle};

impl Host for Call {
    fn issuer(&mut self, connection: String) -> Result<Result<String, Error>> {
        let found = self.jwt_connection(&connection);
        self.answer(found.map(|(_, connection)| connection.issuer.url().to_owned()))
    }

    fn sign(
        &mut self,
        connection: String,
        audience: String,
        claims: String,
        expires_at: u64,
    ) -> Result<Result<Resource<SecretHandle>, Error>> {
        if let Err(failure) = self.spend_secret() {
            return self.answer(Err(failure));
        }
        match self.signed(&connection, (&audience, &claims), expires_at) {
            Ok(token) => self.hold(token),
            Err(failure) => self.answer(Err(failure)),
        }
    }
}

impl Call {
    fn jwt_connection(
        &self,
        name: &str,
    ) -> std::result::Result<(&Backend, &JwtConnection), Failure> {
        let backend = self.backend.as_deref();
        let found = backend.and_then(|backend| Some((backend, backend.jwt(name)?.as_ref())));
        found.ok_or_else(|| Failure::unsent(FailureKind::Denied, NO_CONNECTION))
    }

    fn signed(
        &self,
        connection: &str,
        (audience, claims): (&str, &str),
        expires_at_secs: u64,
    ) -> std::result::Result<SharedSecret, Failure> {
        let refused = |message: String| Failure::unsent(FailureKind::InvalidInput, message);
        let (backend, connection) = self.jwt_connection(connection)?;
        let Some(subject) = self.subject.as_deref() else {
            return Err(refused("tokens are signed only while issuing".to_owned()));
        };
        if !connection.audiences.iter().any(|granted| granted == audience) {
            let message = "the operator has not granted this audience: it stands under `audiences`";
            return Err(Failure::unsent(FailureKind::Denied, message));
        }
        let claims = guest_claims(claims).map_err(|error| refused(error.to_string()))?;
        let granted =
            Granted { backend: backend.name.as_str(), subject, audience, claims, expires_at_secs };
        connection.issuer.sign_granted(granted, Timestamp::from(SystemTime::now()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use jsonwebtoken::dangerous::insecure_decode;

    use super::super::generated::claviger::types::errors::ErrorKind;
    use super::super::generated::claviger::types::secrets::Host as _;
    use super::*;
    use crate::issuer::{Attribution, Issuer, Subject};
    use crate::journal::{JournalOptions, SealingKey, SqliteJournal};
    use crate::plugin::call::Memory;
    use crate::plugin::manifest::{ABI, Manifest};
    use crate::plugin::{BackendSpec, ConnectionSpec, JwtSpec};

    const AUDIENCE: &str = "sts.example";

    fn now_secs() -> u64 {
        Timestamp::from(SystemTime::now()).unix_secs()
    }

    async fn issuer() -> Arc<Issuer> {
        let folder = tempfile::tempdir().unwrap();
        let options = JournalOptions {
            path: folder.path().join("journal.db"),
            sealing_key: SealingKey::take(&mut [7; 32]),
            intent_timeout: Duration::from_secs(30),
            queue_max: 64,
            commit_observer: None,
        };
        let journal = SqliteJournal::open(options).unwrap().journal;
        let issuer = Issuer::new("https://b.example", Duration::from_hours(24)).unwrap();
        issuer.tend(&journal, Timestamp::from(SystemTime::now())).await.unwrap();
        journal.close().await;
        Arc::new(issuer)
    }

    /// A call on a backend with the connection `broker`; it issues for ten minutes.
    async fn call() -> Call {
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "id": "x", "version": "1", "abi": ABI, "title": "t",
            "settings-schema": {}, "parameters-schema": {},
            "credential": {"kind": "k", "fields": {}},
            "connections": {"broker": {"kind": "jwt", "why": "it signs"}},
            "revocation": {"class": "expire-only", "residual-exposure-secs": 600},
            "ttl": {"min-secs": 1},
        }))
        .unwrap();
        let jwt = ConnectionSpec::Jwt(JwtSpec { audiences: vec![AUDIENCE.to_owned()] });
        let spec = BackendSpec {
            name: "aws".parse().unwrap(),
            plugin: "plugin".parse().unwrap(),
            settings: serde_json::json!({}),
            connections: BTreeMap::from([("broker".parse().unwrap(), jwt)]),
            scopes: BTreeMap::new(),
        };
        let backend = Backend::ready(spec, &manifest, Some(&issuer().await)).ok().unwrap();
        let memory = Memory::new(0);
        let mut call = Call::new("plugin".parse().unwrap(), Some(Arc::new(backend)), memory);
        call.subject = Some(Arc::new(Subject {
            intent: "intent-1".to_owned(),
            expires_at_secs: now_secs() + 600,
            attribution: Attribution {
                session: "session-1".to_owned(),
                role: "support-triage".to_owned(),
                requester: "unix:1000".to_owned(),
                scope: "aws/readonly".to_owned(),
                prompt_sha256: "ab".repeat(32),
            },
        }));
        call
    }

    fn sign(call: &mut Call, audience: &str, claims: &str) -> std::result::Result<String, Error> {
        let to = (audience.to_owned(), claims.to_owned());
        let signed = call.sign("broker".to_owned(), to.0, to.1, now_secs() + 60).unwrap();
        signed.map(|handle| call.table.get(&handle).unwrap().0.to_string())
    }

    #[tokio::test]
    async fn a_signed_token_is_a_secret_that_says_what_the_host_knows() {
        let mut call = call().await;
        let issuer = call.issuer("broker".to_owned()).unwrap().unwrap();
        assert_eq!(issuer, "https://b.example");
        let token = sign(&mut call, AUDIENCE, r#"{"x": 1}"#).unwrap();
        let claims = insecure_decode::<serde_json::Value>(&token).unwrap().claims;
        let at = |pointer: &str| claims.pointer(pointer).unwrap().clone();
        assert_eq!(at("/sub"), "backend:aws:role:support-triage");
        assert_eq!(at("/jti"), "intent-1");
        assert_eq!(at("/claviger/session"), "session-1");
        assert_eq!(at("/x"), 1);
        assert_eq!(call.redactor.clean(&token, 99), "[redacted]");
    }

    #[tokio::test]
    async fn what_was_not_granted_or_is_not_the_guests_is_refused() {
        let mut call = call().await;
        let cases = [
            ("sts.example.", "{}", ErrorKind::Denied),
            ("STS.example", "{}", ErrorKind::Denied),
            ("", "{}", ErrorKind::Denied),
            (AUDIENCE, "[]", ErrorKind::InvalidInput),
            (AUDIENCE, r#"{"sub": "backend:other"}"#, ErrorKind::InvalidInput),
            (AUDIENCE, r#"{"a": 1, "a": 2}"#, ErrorKind::InvalidInput),
        ];
        for (audience, claims, kind) in cases {
            assert_eq!(sign(&mut call, audience, claims).unwrap_err().kind, kind, "{claims}");
        }
        let (audience, late) = (AUDIENCE.to_owned(), now_secs() + 601);
        let outlives = call.sign("broker".to_owned(), audience.clone(), "{}".to_owned(), late);
        assert_eq!(outlives.unwrap().err().unwrap().kind, ErrorKind::InvalidInput);
        let elsewhere = call.sign("api".to_owned(), audience, "{}".to_owned(), now_secs() + 1);
        assert_eq!(elsewhere.unwrap().err().unwrap().kind, ErrorKind::Denied);
    }

    #[tokio::test]
    async fn nothing_is_signed_outside_an_issue_and_tokens_count_as_secrets() {
        let mut call = call().await;
        let subject = call.subject.take();
        let error = sign(&mut call, AUDIENCE, "{}").unwrap_err();
        assert!(error.message.contains("only while issuing"), "{}", error.message);
        call.subject = subject;
        call.used.secrets = 0;
        for _ in 0..16 {
            sign(&mut call, AUDIENCE, "{}").unwrap();
        }
        assert!(sign(&mut call, AUDIENCE, "{}").is_err());
        assert!(call.generate(128).unwrap().is_err());
    }
}
