//! `claviger:provider/rotation-calls`: what a plugin is told that replaces a root credential.

use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::Resource;

use super::generated::claviger::types::errors::Error;
use super::rotating::claviger::provider::rotation_calls::{Host, HostRotateRequest};
use crate::plugin::call::{Call, SecretHandle};
use crate::plugin::request::RotateRequest;

impl Host for Call {}

impl HostRotateRequest for Call {
    fn connection(&mut self, request: Resource<RotateRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.connection.clone())
    }

    fn settings(&mut self, request: Resource<RotateRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.settings.clone())
    }

    fn now(&mut self, request: Resource<RotateRequest>) -> Result<u64> {
        Ok(self.table.get(&request)?.now_secs)
    }

    fn new_secret(
        &mut self,
        request: Resource<RotateRequest>,
    ) -> Result<Result<Resource<SecretHandle>, Error>> {
        let secret = Arc::clone(&self.table.get(&request)?.secret);
        if let Err(failure) = self.spend_secret() {
            return self.answer(Err(failure));
        }
        self.hold(secret)
    }

    fn drop(&mut self, request: Resource<RotateRequest>) -> Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}
