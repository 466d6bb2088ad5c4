//! `claviger:types/secrets`: secrets that a plugin moves but never reads.

use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::Resource;

use super::generated::claviger::types::errors::Error;
use super::generated::claviger::types::secrets::{Host, HostSecret};
use crate::egress::redact::SharedSecret;
use crate::egress::scram::random_secret;
use crate::egress::{Failure, FailureKind};
use crate::plugin::call::{Call, SecretHandle};

impl Host for Call {
    fn generate(&mut self, bits: u32) -> Result<Result<Resource<SecretHandle>, Error>> {
        if !BITS.contains(&bits) {
            return self.refuse("a secret takes 128 to 512 bits of entropy");
        }
        if let Err(failure) = self.spend_secret() {
            return self.answer(Err(failure));
        }
        let secret = Arc::new(random_secret(bits)?);
        self.hold(secret)
    }
}

impl HostSecret for Call {
    fn drop(&mut self, secret: Resource<SecretHandle>) -> Result<()> {
        self.table.delete(secret)?;
        Ok(())
    }
}

impl Call {
    pub(super) fn refuse<T>(&self, message: &str) -> Result<Result<T, Error>> {
        self.answer(Err(Failure::unsent(FailureKind::InvalidInput, message)))
    }

    /// Counts one more secret of the call.
    pub(super) fn spend_secret(&mut self) -> std::result::Result<(), Failure> {
        if self.used.secrets >= SECRETS_MAX {
            let message = "a call makes and takes at most 16 secrets";
            return Err(Failure::unsent(FailureKind::InvalidInput, message));
        }
        self.used.secrets += 1;
        Ok(())
    }

    /// Counts what the redactor is to know besides: it searches all of it at once, in every form.
    pub(super) fn spend_secret_bytes(&mut self, secret: &str) -> std::result::Result<(), Failure> {
        self.used.secret_bytes = self.used.secret_bytes.saturating_add(secret.len());
        if secret.len() > SECRET_BYTES_MAX || self.used.secret_bytes > SECRETS_BYTES_MAX {
            let message = "a secret takes at most 16 KiB, and those of a call 128 KiB in all that \
                           is taken and sent";
            return Err(Failure::unsent(FailureKind::InvalidInput, message));
        }
        Ok(())
    }

    /// Gives the guest a handle to `secret`, which is redacted from now on.
    pub(super) fn hold(
        &mut self,
        secret: SharedSecret,
    ) -> Result<Result<Resource<SecretHandle>, Error>> {
        self.redactor.learn(Arc::clone(&secret));
        Ok(Ok(self.table.push(SecretHandle(secret))?))
    }
}

/// Below 128 bits a verifier of one iteration could be searched; 512 is more than any upstream
/// takes.
const BITS: std::ops::RangeInclusive<u32> = 128..=512;

/// Documented in the plugin contract: four times the longest tokens in use.
const SECRET_BYTES_MAX: usize = 16 * 1024;

/// Documented in the plugin contract. To find them in every form takes some 300 times as much
/// memory for a moment.
const SECRETS_BYTES_MAX: usize = 128 * 1024;

/// Documented in the plugin contract; signed tokens count.
const SECRETS_MAX: u32 = 16;
