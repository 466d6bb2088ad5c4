//! `claviger:provider/key-rotation-calls`: what a plugin is told whose backend makes root
//! credentials itself, and what is taken from it.

use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::Resource;

use super::generated::claviger::types::errors::Error;
use super::key_rotating::claviger::provider::key_rotation_calls::{
    Host, HostDeleteKeyRequest, HostMakeKeyRequest,
};
use crate::plugin::call::{Call, SecretHandle};
use crate::plugin::request::{DeleteKeyRequest, MakeKeyRequest};

impl Host for Call {}

impl HostMakeKeyRequest for Call {
    fn connection(&mut self, request: Resource<MakeKeyRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.connection.clone())
    }

    fn settings(&mut self, request: Resource<MakeKeyRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.settings.clone())
    }

    fn now(&mut self, request: Resource<MakeKeyRequest>) -> Result<u64> {
        Ok(self.table.get(&request)?.now_secs)
    }

    fn id_in_force(&mut self, request: Resource<MakeKeyRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.id_in_force.clone())
    }

    fn keep(
        &mut self,
        request: Resource<MakeKeyRequest>,
        id: String,
        key: Resource<SecretHandle>,
    ) -> Result<Result<(), Error>> {
        let key = Arc::clone(&self.table.get(&key)?.0);
        let kept = self.table.get_mut(&request)?.keep(id, key);
        self.answer(kept)
    }

    fn drop(&mut self, request: Resource<MakeKeyRequest>) -> Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}

impl HostDeleteKeyRequest for Call {
    fn connection(&mut self, request: Resource<DeleteKeyRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.connection.clone())
    }

    fn settings(&mut self, request: Resource<DeleteKeyRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.settings.clone())
    }

    fn now(&mut self, request: Resource<DeleteKeyRequest>) -> Result<u64> {
        Ok(self.table.get(&request)?.now_secs)
    }

    fn id_in_force(&mut self, request: Resource<DeleteKeyRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.id_in_force.clone())
    }

    fn id(&mut self, request: Resource<DeleteKeyRequest>) -> Result<String> {
        Ok(self.table.get(&request)?.id.clone())
    }

    fn drop(&mut self, request: Resource<DeleteKeyRequest>) -> Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}
