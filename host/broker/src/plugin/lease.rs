//! The lease that a plugin is building: checked field by field, complete or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use claviger_core::issued::{Credential, Field, FieldValue, Handle, Issued};
use claviger_core::secret::Secret;
use claviger_core::time::Timestamp;
use zeroize::Zeroizing;

use super::manifest::Manifest;
use crate::egress::redact::SharedSecret;
use crate::egress::{Failure, FailureKind};

/// A lease under construction. Nothing of it counts unless the plugin's `issue` succeeds.
pub struct LeaseDraft {
    manifest: Arc<Manifest>,
    expires_at_secs: u64,
    values: BTreeMap<String, DraftValue>,
    join_keys: BTreeMap<String, String>,
    handle: Option<Zeroizing<String>>,
}

enum DraftValue {
    Plain(String),
    Secret(SharedSecret),
}

impl LeaseDraft {
    /// An empty one; the credential must stop working at `expires_at_secs`.
    pub const fn new(manifest: Arc<Manifest>, expires_at_secs: u64) -> Self {
        Self {
            manifest,
            expires_at_secs,
            values: BTreeMap::new(),
            join_keys: BTreeMap::new(),
            handle: None,
        }
    }

    /// Sets a field that may be shown.
    pub fn set_field(&mut self, name: String, value: String) -> Result<(), Failure> {
        if self.is_secret(&name)? {
            return Err(refuse(format!(
                "the manifest marks field `{name}` as secret: set it with `set-secret`"
            )));
        }
        self.values.insert(name, DraftValue::Plain(value));
        self.check_size()
    }

    /// Sets a secret field.
    pub fn set_secret(&mut self, name: String, value: SharedSecret) -> Result<(), Failure> {
        if !self.is_secret(&name)? {
            return Err(refuse(format!(
                "the manifest does not mark field `{name}` as secret: add `\"secret\": true`"
            )));
        }
        self.values.insert(name, DraftValue::Secret(value));
        self.check_size()
    }

    /// Sets what `revoke` will need.
    pub fn set_handle(&mut self, handle: String) -> Result<(), Failure> {
        let handle = Zeroizing::new(handle);
        if handle.len() > HANDLE_BYTES_MAX {
            return Err(refuse("a handle takes at most 4 KiB".to_owned()));
        }
        self.handle = Some(handle);
        Ok(())
    }

    /// Sets the credential's real expiry, if it is earlier than asked.
    pub fn set_expires_at(&mut self, unix_secs: u64) -> Result<(), Failure> {
        if unix_secs > self.expires_at_secs {
            return Err(refuse(format!(
                "a credential must not outlive its permission: {unix_secs} lies after {}",
                self.expires_at_secs
            )));
        }
        self.expires_at_secs = unix_secs;
        Ok(())
    }

    /// Sets what the upstream will log.
    pub fn set_join_key(&mut self, name: String, value: String) -> Result<(), Failure> {
        if !self.manifest.join_keys.contains_key(&name) {
            return Err(refuse("the manifest's `join-keys` do not name this".to_owned()));
        }
        self.join_keys.insert(name, value);
        self.check_size()
    }

    /// The finished lease; an error names the fields that are missing.
    pub fn finish(mut self) -> Result<Issued, Failure> {
        let manifest = Arc::clone(&self.manifest);
        let mut fields = Vec::with_capacity(manifest.credential.fields.len());
        let mut missing = Vec::new();
        for (name, spec) in &manifest.credential.fields {
            match self.values.remove(name) {
                Some(value) => {
                    fields.push(Field {
                        name: name.clone(),
                        env: spec.env.clone(),
                        value: value.into(),
                    });
                }
                None => missing.push(format!("`{name}`")),
            }
        }
        if !missing.is_empty() {
            let missing = missing.join(", ");
            let message = format!("it said `ok` without setting the manifest's fields {missing}");
            return Err(Failure::sent(FailureKind::Other, message));
        }
        let kind = manifest.credential.kind.clone();
        let expires_at = Timestamp::from_unix_millis(self.expires_at_secs.saturating_mul(1000));
        Ok(Issued {
            credential: Credential { kind, fields, expires_at },
            handle: self.handle.map(Handle::new),
            join_keys: self.join_keys,
        })
    }

    fn is_secret(&self, name: &str) -> Result<bool, Failure> {
        let field = self.manifest.credential.fields.iter().find(|(known, _)| known == name);
        let missing = || refuse("the manifest's `credential.fields` do not name this".to_owned());
        field.map(|(_, spec)| spec.secret).ok_or_else(missing)
    }

    fn check_size(&self) -> Result<(), Failure> {
        let values = self.values.iter().map(|(name, value)| name.len() + value.len());
        let join_keys = self.join_keys.iter().map(|(name, value)| name.len() + value.len());
        if values.chain(join_keys).sum::<usize>() > LEASE_BYTES_MAX {
            return Err(refuse("a lease takes at most 64 KiB in all".to_owned()));
        }
        Ok(())
    }
}

impl DraftValue {
    fn len(&self) -> usize {
        match self {
            Self::Plain(value) => value.len(),
            Self::Secret(value) => value.len(),
        }
    }
}

impl From<DraftValue> for FieldValue {
    fn from(value: DraftValue) -> Self {
        match value {
            DraftValue::Plain(value) => Self::Plain(value),
            DraftValue::Secret(value) => Self::Secret(Secret::new(value.as_ref().clone())),
        }
    }
}

fn refuse(message: String) -> Failure {
    Failure::unsent(FailureKind::InvalidInput, message)
}

/// Documented in the plugin contract: a certificate chain fits, a data set does not.
const LEASE_BYTES_MAX: usize = 64 * 1024;

/// Documented in the plugin contract: it is sealed in the journal and read back for `revoke`.
const HANDLE_BYTES_MAX: usize = 4 * 1024;
