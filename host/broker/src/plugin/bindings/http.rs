//! `claviger:egress`: hands a plugin's requests to the one door for HTTP.

use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::Resource;

use super::NO_CONNECTION;
use super::generated::claviger::egress::http::{
    Encoding as GuestEncoding, Host, HostRequest, HostResponse,
};
use super::generated::claviger::types::errors::Error;
use crate::egress::http::{Door, Encoding, GuestRequest, GuestResponse};
use crate::egress::{Failure, FailureKind};
use crate::plugin::call::{Call, SecretHandle};

impl Host for Call {
    async fn address(&mut self, connection: String) -> Result<Result<String, Error>> {
        let door = self.door(&connection);
        self.answer(door.map(|door| door.client_address.clone()))
    }
}

impl HostRequest for Call {
    async fn new(&mut self, connection: String, method: String) -> Result<Resource<GuestRequest>> {
        Ok(self.table.push(GuestRequest::new(connection, method))?)
    }

    async fn path(&mut self, request: Resource<GuestRequest>, text: String) -> Result<()> {
        self.table.get_mut(&request)?.path(&text);
        Ok(())
    }

    async fn segment(&mut self, request: Resource<GuestRequest>, value: String) -> Result<()> {
        self.table.get_mut(&request)?.segment(&value);
        Ok(())
    }

    async fn query(
        &mut self,
        request: Resource<GuestRequest>,
        name: String,
        value: String,
    ) -> Result<()> {
        self.table.get_mut(&request)?.query(&name, &value);
        Ok(())
    }

    async fn header(
        &mut self,
        request: Resource<GuestRequest>,
        name: String,
        value: String,
    ) -> Result<()> {
        self.table.get_mut(&request)?.header(&name, &value);
        Ok(())
    }

    async fn claims(&mut self, request: Resource<GuestRequest>, claims: String) -> Result<()> {
        self.table.get_mut(&request)?.claims(claims);
        Ok(())
    }

    async fn text(&mut self, request: Resource<GuestRequest>, text: String) -> Result<()> {
        self.table.get_mut(&request)?.text(&text);
        Ok(())
    }

    async fn value(
        &mut self,
        request: Resource<GuestRequest>,
        value: String,
        encoding: GuestEncoding,
    ) -> Result<()> {
        self.table.get_mut(&request)?.value(&value, encoding.into());
        Ok(())
    }

    async fn secret(
        &mut self,
        request: Resource<GuestRequest>,
        value: Resource<SecretHandle>,
        encoding: GuestEncoding,
    ) -> Result<()> {
        let secret = Arc::clone(&self.table.get(&value)?.0);
        let encoding = encoding.into();
        let written = Arc::new(Encoding::write(encoding, &secret));
        match self.spend_secret_bytes(&written) {
            Ok(()) => self.table.get_mut(&request)?.secret(&written),
            Err(failure) => {
                self.table.get_mut(&request)?.refuse(failure);
                return Ok(());
            }
        }
        // A service may say the request back in an encoding of its own: the secret then stands in
        // it twice encoded, and is known only if its first form is.
        self.redactor.learn(written);
        Ok(())
    }

    async fn send(
        &mut self,
        request: Resource<GuestRequest>,
    ) -> Result<Result<Resource<GuestResponse>, Error>> {
        let response = match self.send_request(&request).await? {
            Ok(response) => Ok(self.table.push(response)?),
            Err(failure) => Err(failure),
        };
        self.answer(response)
    }

    async fn drop(&mut self, request: Resource<GuestRequest>) -> Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}

impl HostResponse for Call {
    async fn status(&mut self, response: Resource<GuestResponse>) -> Result<u16> {
        Ok(self.table.get(&response)?.status())
    }

    async fn header(
        &mut self,
        response: Resource<GuestResponse>,
        name: String,
    ) -> Result<Option<String>> {
        Ok(self.table.get(&response)?.header(&name, &self.redactor))
    }

    async fn body(&mut self, response: Resource<GuestResponse>) -> Result<String> {
        Ok(self.table.get(&response)?.body(&self.redactor))
    }

    async fn read(
        &mut self,
        response: Resource<GuestResponse>,
        location: String,
    ) -> Result<Result<Option<String>, Error>> {
        let read = self.table.get(&response)?.read(&location, &self.redactor);
        self.answer(read)
    }

    async fn take_secret(
        &mut self,
        response: Resource<GuestResponse>,
        location: String,
    ) -> Result<Result<Resource<SecretHandle>, Error>> {
        if let Err(failure) = self.spend_secret() {
            return self.answer(Err(failure));
        }
        match self.table.get(&response)?.take(&location) {
            Ok(secret) => match self.spend_secret_bytes(&secret) {
                Ok(()) => self.hold(secret),
                Err(failure) => self.answer(Err(Failure { request_sent: true, ..failure })),
            },
            Err(failure) => self.answer(Err(failure)),
        }
    }

    async fn drop(&mut self, response: Resource<GuestResponse>) -> Result<()> {
        self.table.delete(response)?;
        Ok(())
    }
}

impl Call {
    fn door(&self, name: &str) -> Result<Arc<Door>, Failure> {
        let backend = self.backend.as_ref();
        backend
            .and_then(|backend| backend.http(name))
            .cloned()
            .ok_or_else(|| Failure::unsent(FailureKind::Denied, NO_CONNECTION))
    }

    async fn send_request(
        &mut self,
        request: &Resource<GuestRequest>,
    ) -> Result<Result<GuestResponse, Failure>> {
        // Refused requests count too, or a guest could guess at secrets without end.
        if let Err(failure) = self.spend_request() {
            return Ok(Err(failure));
        }
        let request = self.table.get(request)?;
        let judged = self.door(&request.connection).and_then(|door| {
            let admitted = door.admit(request, &self.redactor)?;
            Ok((door, admitted))
        });
        let (door, admitted) = match judged {
            Ok(admitted) => admitted,
            Err(failure) => return Ok(Err(failure)),
        };
        // From here on the service may act, whatever becomes of this call.
        self.progress.sending();
        let admitted = admitted.within(self.subject.clone());
        Ok(door.send(admitted, &mut self.redactor, self.host_end).await)
    }
}

impl From<GuestEncoding> for Encoding {
    fn from(encoding: GuestEncoding) -> Self {
        match encoding {
            GuestEncoding::Raw => Self::Raw,
            GuestEncoding::Json => Self::Json,
            GuestEncoding::Form => Self::Form,
            GuestEncoding::Xml => Self::Xml,
            GuestEncoding::Base64 => Self::Base64,
        }
    }
}
