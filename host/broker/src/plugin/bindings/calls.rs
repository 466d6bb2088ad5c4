//! `claviger:provider/calls`: what a plugin is told, and the lease that it builds.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::generated::claviger::provider::calls::{
    Host, HostIssueRequest, HostLease, HostRevokeRequest,
};
use super::generated::claviger::types::errors::Error;
use crate::egress::Failure;
use crate::plugin::call::{Call, SecretHandle};
use crate::plugin::lease::LeaseDraft;
use crate::plugin::request::{IssueRequest, RevokeRequest};

impl Host for Call {}

impl HostIssueRequest for Call {
    fn intent(&mut self, request: Resource<IssueRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.intent.clone())
    }

    fn session(&mut self, request: Resource<IssueRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.session.clone())
    }

    fn role(&mut self, request: Resource<IssueRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.role.clone())
    }

    fn requester(&mut self, request: Resource<IssueRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.requester.clone())
    }

    fn scope(&mut self, request: Resource<IssueRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.scope.clone())
    }

    fn settings(&mut self, request: Resource<IssueRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.settings.clone())
    }

    fn parameters(&mut self, request: Resource<IssueRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.parameters.clone())
    }

    fn now(&mut self, request: Resource<IssueRequest>) -> Result<u64> {
        Ok(self.table.get(&request)?.now_secs)
    }

    fn expires_at(&mut self, request: Resource<IssueRequest>) -> Result<u64> {
        Ok(self.table.get(&request)?.expires_at_secs)
    }

    fn drop(&mut self, request: Resource<IssueRequest>) -> Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}

impl HostRevokeRequest for Call {
    fn intent(&mut self, request: Resource<RevokeRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.intent.clone())
    }

    fn scope(&mut self, request: Resource<RevokeRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.scope.clone())
    }

    fn settings(&mut self, request: Resource<RevokeRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.settings.clone())
    }

    fn lease_handle(&mut self, request: Resource<RevokeRequest>) -> Result<Option<String>> {
        Ok(self.table.get(&request)?.handle.as_ref().map(|handle| handle.to_string()))
    }

    fn now(&mut self, request: Resource<RevokeRequest>) -> Result<u64> {
        Ok(self.table.get(&request)?.now_secs)
    }

    fn drop(&mut self, request: Resource<RevokeRequest>) -> Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}

impl HostLease for Call {
    fn set_field(
        &mut self,
        lease: Resource<LeaseDraft>,
        name: String,
        value: String,
    ) -> Result<Result<(), Error>> {
        self.on_lease(&lease, |draft| draft.set_field(name, value))
    }

    fn set_secret(
        &mut self,
        lease: Resource<LeaseDraft>,
        name: String,
        value: Resource<SecretHandle>,
    ) -> Result<Result<(), Error>> {
        let secret = self.table.get(&value)?.0.clone();
        self.on_lease(&lease, |draft| draft.set_secret(name, secret))
    }

    fn set_handle(
        &mut self,
        lease: Resource<LeaseDraft>,
        handle: String,
    ) -> Result<Result<(), Error>> {
        self.on_lease(&lease, |draft| draft.set_handle(handle))
    }

    fn set_expires_at(
        &mut self,
        lease: Resource<LeaseDraft>,
        unix_secs: u64,
    ) -> Result<Result<(), Error>> {
        self.on_lease(&lease, |draft| draft.set_expires_at(unix_secs))
    }

    fn set_join_key(
        &mut self,
        lease: Resource<LeaseDraft>,
        name: String,
        value: String,
    ) -> Result<Result<(), Error>> {
        self.on_lease(&lease, |draft| draft.set_join_key(name, value))
    }

    fn drop(&mut self, lease: Resource<LeaseDraft>) -> Result<()> {
        self.table.delete(lease)?;
        Ok(())
    }
}

impl Call {
    fn on_lease(
        &mut self,
        lease: &Resource<LeaseDraft>,
        change: impl FnOnce(&mut LeaseDraft) -> Result<(), Failure>,
    ) -> Result<Result<(), Error>> {
        let outcome = change(self.table.get_mut(lease)?);
        self.answer(outcome)
    }
}
