//! `claviger:jwt`: has the broker sign what a plugin may have signed.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::generated::claviger::jwt::jwt::Host;
use super::generated::claviger::types::errors::Error;
use crate::egress::{Failure, FailureKind};
use crate::plugin::call::{Call, SecretHandle};

impl Host for Call {
    fn issuer(&mut self, _connection: String) -> Result<Result<String, Error>> {
        self.answer(Err(Failure::unsent(FailureKind::Unsupported, "not yet")))
    }

    fn sign(
        &mut self,
        _connection: String,
        _audience: String,
        _claims: String,
        _expires_at: u64,
    ) -> Result<Result<Resource<SecretHandle>, Error>> {
        self.answer(Err(Failure::unsent(FailureKind::Unsupported, "not yet")))
    }
}
