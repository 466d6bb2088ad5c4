//! `claviger:egress`: hands a plugin's requests to the one door for HTTP.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::generated::claviger::egress::http::{Encoding, Host, HostRequest, HostResponse};
use super::generated::claviger::types::errors::Error;
use crate::egress::http::{GuestRequest, GuestResponse};
use crate::egress::{Failure, FailureKind};
use crate::plugin::call::{Call, SecretHandle};

fn not_yet() -> Failure {
    Failure::unsent(FailureKind::Unsupported, "not yet")
}

impl Host for Call {
    async fn address(&mut self, _connection: String) -> Result<Result<String, Error>> {
        self.answer(Err(not_yet()))
    }
}

impl HostRequest for Call {
    async fn new(&mut self, _c: String, _m: String) -> Result<Resource<GuestRequest>> {
        Ok(self.table.push(GuestRequest)?)
    }

    async fn path(&mut self, _r: Resource<GuestRequest>, _t: String) -> Result<()> {
        Ok(())
    }

    async fn segment(&mut self, _r: Resource<GuestRequest>, _v: String) -> Result<()> {
        Ok(())
    }

    async fn query(&mut self, _r: Resource<GuestRequest>, _n: String, _v: String) -> Result<()> {
        Ok(())
    }

    async fn header(&mut self, _r: Resource<GuestRequest>, _n: String, _v: String) -> Result<()> {
        Ok(())
    }

    async fn text(&mut self, _r: Resource<GuestRequest>, _t: String) -> Result<()> {
        Ok(())
    }

    async fn value(&mut self, _r: Resource<GuestRequest>, _v: String, _e: Encoding) -> Result<()> {
        Ok(())
    }

    async fn secret(
        &mut self,
        _r: Resource<GuestRequest>,
        _v: Resource<SecretHandle>,
        _e: Encoding,
    ) -> Result<()> {
        Ok(())
    }

    async fn send(
        &mut self,
        _r: Resource<GuestRequest>,
    ) -> Result<Result<Resource<GuestResponse>, Error>> {
        self.answer(Err(not_yet()))
    }

    async fn drop(&mut self, request: Resource<GuestRequest>) -> Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}

impl HostResponse for Call {
    async fn status(&mut self, _r: Resource<GuestResponse>) -> Result<u16> {
        Ok(0)
    }

    async fn header(&mut self, _r: Resource<GuestResponse>, _n: String) -> Result<Option<String>> {
        Ok(None)
    }

    async fn body(&mut self, _r: Resource<GuestResponse>) -> Result<String> {
        Ok(String::new())
    }

    async fn read(
        &mut self,
        _r: Resource<GuestResponse>,
        _l: String,
    ) -> Result<Result<Option<String>, Error>> {
        self.answer(Err(not_yet()))
    }

    async fn take_secret(
        &mut self,
        _r: Resource<GuestResponse>,
        _l: String,
    ) -> Result<Result<Resource<SecretHandle>, Error>> {
        self.answer(Err(not_yet()))
    }

    async fn drop(&mut self, response: Resource<GuestResponse>) -> Result<()> {
        self.table.delete(response)?;
        Ok(())
    }
}
