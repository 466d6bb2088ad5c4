//! The plugin contract in Rust: the only module that knows WIT types. Translates between them
//! and the host's own, and does nothing else.

mod batch;
mod calls;
mod http;
mod jwt;
mod key_rotation;
mod log;
mod rotation;
mod secrets;
mod sql;

use claviger_core::issued::Issued;
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime::{Result, Store};

pub use self::batch::revoke_all;
pub use self::generated::batch::{Batch, BatchPre};
use self::generated::claviger;
use self::generated::claviger::types::errors::{Error, ErrorKind};
pub use self::generated::{Plugin, PluginPre};
pub use self::key_rotating::{KeyRotating, KeyRotatingPre};
pub use self::rotating::{Rotating, RotatingPre};
use super::backend::PROBLEMS_MAX;
use super::call::Call;
use super::lease::LeaseDraft;
use super::manifest::Manifest;
use super::plain;
use super::request::{
    DeleteKeyRequest, IssueRequest, MakeKeyRequest, NewKey, RevokeRequest, RotateRequest,
};
use crate::egress::redact::Redactor;
use crate::egress::{Failure, FailureKind};

mod generated {
    #![allow(missing_docs, reason = "generated; the WIT files hold the documentation")]

    wasmtime::component::bindgen!({
        path: [
            "../../wit/types",
            "../../wit/sql",
            "../../wit/egress",
            "../../wit/jwt",
            "../../wit/log",
            "../../wit/provider",
        ],
        world: "claviger:provider/plugin",
        imports: {
            "claviger:sql/sql": async | trappable,
            "claviger:egress/http": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "claviger:types/secrets.secret": crate::plugin::call::SecretHandle,
            "claviger:sql/sql.statement": crate::egress::sql::Statement,
            "claviger:sql/sql.session": crate::plugin::call::OpenSession,
            "claviger:sql/sql.rows": crate::egress::sql::Rows,
            "claviger:egress/http.request": crate::egress::http::GuestRequest,
            "claviger:egress/http.response": crate::egress::http::GuestResponse,
            "claviger:provider/calls.issue-request": crate::plugin::request::IssueRequest,
            "claviger:provider/calls.revoke-request": crate::plugin::request::RevokeRequest,
            "claviger:provider/calls.lease": crate::plugin::lease::LeaseDraft,
        },
    });

    /// An ability that a component may have or not: a world of its own over the same imports.
    pub mod batch {
        wasmtime::component::bindgen!({
            path: [
                "../../wit/types",
                "../../wit/sql",
                "../../wit/egress",
                "../../wit/jwt",
                "../../wit/log",
                "../../wit/provider",
                "../../wit/batch",
            ],
            world: "claviger:batch/batch",
            exports: { default: async },
            with: {
                "claviger:types/errors": super::claviger::types::errors,
                "claviger:provider/calls": super::claviger::provider::calls,
            },
        });
    }
}

mod rotating {
    #![allow(missing_docs, reason = "generated; the WIT files hold the documentation")]

    wasmtime::component::bindgen!({
        path: [
            "../../wit/types",
            "../../wit/sql",
            "../../wit/egress",
            "../../wit/jwt",
            "../../wit/log",
            "../../wit/provider",
        ],
        world: "claviger:provider/rotating",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "claviger:types/errors": crate::plugin::bindings::generated::claviger::types::errors,
            "claviger:types/secrets": crate::plugin::bindings::generated::claviger::types::secrets,
            "claviger:provider/rotation-calls.rotate-request": crate::plugin::request::RotateRequest,
        },
    });
}

mod key_rotating {
    #![allow(missing_docs, reason = "generated; the WIT files hold the documentation")]

    wasmtime::component::bindgen!({
        path: [
            "../../wit/types",
            "../../wit/sql",
            "../../wit/egress",
            "../../wit/jwt",
            "../../wit/log",
            "../../wit/provider",
        ],
        world: "claviger:provider/key-rotating",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "claviger:types/errors": crate::plugin::bindings::generated::claviger::types::errors,
            "claviger:types/secrets": crate::plugin::bindings::generated::claviger::types::secrets,
            "claviger:provider/key-rotation-calls.make-key-request": crate::plugin::request::MakeKeyRequest,
            "claviger:provider/key-rotation-calls.delete-key-request": crate::plugin::request::DeleteKeyRequest,
        },
    });
}

/// Something that a plugin finds wrong with a configuration.
pub struct Problem {
    /// A JSON pointer.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

/// Links what every plugin has.
pub fn add_always(linker: &mut Linker<Call>) -> Result<()> {
    claviger::types::errors::add_to_linker::<_, HasSelf<Call>>(linker, |call| call)?;
    claviger::types::secrets::add_to_linker::<_, HasSelf<Call>>(linker, |call| call)?;
    claviger::log::log::add_to_linker::<_, HasSelf<Call>>(linker, |call| call)?;
    claviger::provider::calls::add_to_linker::<_, HasSelf<Call>>(linker, |call| call)?;
    rotating::claviger::provider::rotation_calls::add_to_linker::<_, HasSelf<Call>>(
        linker,
        |call| call,
    )?;
    key_rotating::claviger::provider::key_rotation_calls::add_to_linker::<_, HasSelf<Call>>(
        linker,
        |call| call,
    )
}

/// Links `claviger:sql`.
pub fn add_sql(linker: &mut Linker<Call>) -> Result<()> {
    claviger::sql::sql::add_to_linker::<_, HasSelf<Call>>(linker, |call| call)
}

/// Links `claviger:egress`.
pub fn add_http(linker: &mut Linker<Call>) -> Result<()> {
    claviger::egress::http::add_to_linker::<_, HasSelf<Call>>(linker, |call| call)
}

/// Links `claviger:jwt`.
pub fn add_jwt(linker: &mut Linker<Call>) -> Result<()> {
    claviger::jwt::jwt::add_to_linker::<_, HasSelf<Call>>(linker, |call| call)
}

/// Calls `validate-config`.
pub async fn validate(
    store: &mut Store<Call>,
    plugin: &Plugin,
    config: &str,
) -> Result<Vec<Problem>> {
    let provider = plugin.claviger_provider_provider();
    let problems = provider.call_validate_config(store, config).await?;
    let problem = |p: generated::exports::claviger::provider::provider::Problem| Problem {
        pointer: plain::line(&p.pointer, MESSAGE_BYTES_MAX),
        message: plain::line(&p.message, MESSAGE_BYTES_MAX),
    };
    Ok(problems.into_iter().take(PROBLEMS_MAX).map(problem).collect())
}

/// Calls `issue`.
pub async fn issue(
    store: &mut Store<Call>,
    plugin: &Plugin,
    manifest: &std::sync::Arc<Manifest>,
    request: IssueRequest,
) -> Result<Result<Issued, Failure>> {
    let draft = LeaseDraft::new(manifest.clone(), request.expires_at_secs);
    let table = &mut store.data_mut().table;
    let draft = table.push(draft)?;
    let request = table.push(request)?;
    let (lent_request, lent_draft) =
        (Resource::new_borrow(request.rep()), Resource::new_borrow(draft.rep()));
    let provider = plugin.claviger_provider_provider();
    let answer = provider.call_issue(&mut *store, lent_request, lent_draft).await?;
    let draft = store.data_mut().table.delete(draft)?;
    Ok(answer.map_err(Failure::from).and_then(|()| draft.finish()))
}

/// Calls `revoke`.
pub async fn revoke(
    store: &mut Store<Call>,
    plugin: &Plugin,
    request: RevokeRequest,
) -> Result<Result<(), Failure>> {
    let request = store.data_mut().table.push(request)?;
    let lent = Resource::new_borrow(request.rep());
    let provider = plugin.claviger_provider_provider();
    let answer = provider.call_revoke(&mut *store, lent).await?;
    Ok(answer.map_err(Failure::from))
}

/// Calls `rotate-root`.
pub async fn rotate_root(
    store: &mut Store<Call>,
    plugin: &Rotating,
    request: RotateRequest,
) -> Result<Result<(), Failure>> {
    let request = store.data_mut().table.push(request)?;
    let lent = Resource::new_borrow(request.rep());
    let rotation = plugin.claviger_provider_rotation();
    let answer = rotation.call_rotate_root(&mut *store, lent).await?;
    Ok(answer.map_err(Failure::from))
}

/// Calls `make-key`.
pub async fn make_key(
    store: &mut Store<Call>,
    plugin: &KeyRotating,
    request: MakeKeyRequest,
) -> Result<Result<NewKey, Failure>> {
    let request = store.data_mut().table.push(request)?;
    let lent = Resource::new_borrow(request.rep());
    let rotation = plugin.claviger_provider_key_rotation();
    let answer = rotation.call_make_key(&mut *store, lent).await?;
    let kept = store.data_mut().table.delete(request)?.kept;
    let nothing = || Failure::sent(FailureKind::Other, "it said `ok` without handing over a key");
    Ok(answer.map_err(Failure::from).and_then(|()| kept.ok_or_else(nothing)))
}

/// Calls `delete-key`.
pub async fn delete_key(
    store: &mut Store<Call>,
    plugin: &KeyRotating,
    request: DeleteKeyRequest,
) -> Result<Result<(), Failure>> {
    let request = store.data_mut().table.push(request)?;
    let lent = Resource::new_borrow(request.rep());
    let rotation = plugin.claviger_provider_key_rotation();
    let answer = rotation.call_delete_key(&mut *store, lent).await?;
    Ok(answer.map_err(Failure::from))
}

/// What a guest is told of a connection that it has not. Not its name: the host's own sentences
/// repeat nothing of the guest's, or what is redacted in them would confirm a guess.
const NO_CONNECTION: &str =
    "the connection is not requested by the manifest or not granted by the operator";

/// An error for the guest: bounded and without secrets.
fn to_guest(failure: &Failure, redactor: &Redactor) -> Error {
    let retry_after = failure.retry_after.map(|wait| wait.as_millis());
    Error {
        kind: failure.kind.into(),
        code: failure.code.as_deref().map(|code| redactor.clean(code, CODE_BYTES_MAX)),
        message: redactor.clean(&failure.message, MESSAGE_BYTES_MAX),
        request_sent: failure.request_sent,
        retry_after_ms: retry_after.map(|wait| u64::try_from(wait).unwrap_or(u64::MAX)),
    }
}

impl Call {
    /// What a host function answers, with the failure made fit for the guest.
    fn answer<T>(&self, outcome: Result<T, Failure>) -> Result<Result<T, Error>> {
        Ok(outcome.map_err(|failure| to_guest(&failure, &self.redactor)))
    }
}

impl claviger::types::errors::Host for Call {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            kind: error.kind.into(),
            code: error.code,
            message: error.message,
            request_sent: error.request_sent,
            retry_after: error.retry_after_ms.map(std::time::Duration::from_millis),
        }
    }
}

macro_rules! same_kinds {
    ($($kind:ident),*) => {
        impl From<FailureKind> for ErrorKind {
            fn from(kind: FailureKind) -> Self {
                match kind { $(FailureKind::$kind => Self::$kind),* }
            }
        }

        impl From<ErrorKind> for FailureKind {
            fn from(kind: ErrorKind) -> Self {
                match kind { $(ErrorKind::$kind => Self::$kind),* }
            }
        }
    };
}

same_kinds!(
    InvalidConfig,
    InvalidInput,
    Denied,
    NotFound,
    Conflict,
    RateLimited,
    Unavailable,
    Timeout,
    Unsupported,
    Other
);

/// Documented in the plugin contract.
pub(super) const CODE_BYTES_MAX: usize = 64;

/// Documented in the plugin contract.
pub(super) const MESSAGE_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests;
