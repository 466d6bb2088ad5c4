//! The service of the secrets that the broker keeps, on the operators' own listener. Every call goes
//! through the gate of operators. No answer holds a value.

use std::sync::Arc;

use claviger_core::admin::{AdminAction, AdminResource};
use claviger_core::name::SecretName;
use claviger_proto::v1;
use claviger_proto::v1::secret_service_server::SecretService;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::admin::gate::{Act, Gate};
use super::{convert, status};
use crate::broker::Broker;
use crate::configuration::{self, Asker, RekeyFault};
use crate::journal::{PutSecretError, RekeyAct, Resealed, SecretAct};
use crate::policies::Reloaded;
use crate::rotation::{self, RotateError, Rotated, Wish};

/// What operators call.
pub struct Secrets {
    broker: Arc<Broker>,
    gate: Gate,
}

impl Secrets {
    /// The service over `broker`, for its own user, `operator_uids` and whom the policies permit.
    pub fn new(broker: Arc<Broker>, operator_uids: Vec<u32>) -> Self {
        let gate = Gate::new(Arc::clone(&broker), operator_uids);
        Self { broker, gate }
    }

    /// What an operator does, now; nobody else gets one.
    async fn act<T>(
        &self,
        request: &Request<T>,
        (action, what): (AdminAction, &str),
    ) -> Result<SecretAct, Status> {
        let act = Act::on_broker(action, what);
        let permit = self.gate.admit(request.extensions(), act).await?;
        Ok(SecretAct { by: permit.ask().operator.id().to_owned(), at: permit.decided_at() })
    }

    /// Where the configuration in force refers to the secret.
    fn used_by(&self, name: &SecretName) -> Vec<String> {
        self.broker.configuration.current().stored_secrets().remove(name).unwrap_or_default()
    }
}

#[tonic::async_trait]
impl SecretService for Secrets {
    async fn put_secret(
        &self,
        request: Request<v1::PutSecretRequest>,
    ) -> Result<Response<v1::PutSecretResponse>, Status> {
        let act = self.act(&request, (AdminAction::Secret, "put of a secret")).await?;
        let v1::PutSecretRequest { name, value } = request.into_inner();
        let value = Zeroizing::new(value);
        let name = parsed(&name)?;
        let put = self.broker.journal.put_secret(name.clone(), value, act).await;
        let version =
            put.map_err(|error| status::of_journal(&error))?.map_err(|error| refused(&error))?;
        let used_by = self.used_by(&name);
        let (loaded, problems) =
            if used_by.is_empty() { (true, Vec::new()) } else { reload(&self.broker).await? };
        Ok(Response::new(v1::PutSecretResponse { version, used_by, loaded, problems }))
    }

    async fn list_secrets(
        &self,
        request: Request<v1::ListSecretsRequest>,
    ) -> Result<Response<v1::ListSecretsResponse>, Status> {
        self.act(&request, (AdminAction::Secret, "names of secrets")).await?;
        let rows = self.broker.journal.secret_rows().await;
        let rows = rows.map_err(|error| status::of_journal(&error))?;
        let pending = self.broker.journal.unsettled_secrets().await;
        let pending = pending.map_err(|error| status::of_journal(&error))?;
        let mut places = self.broker.configuration.current().stored_secrets();
        let secret = |row: crate::journal::SecretRow| v1::StoredSecret {
            used_by: places.remove(&row.name).unwrap_or_default(),
            unsettled: pending.iter().any(|left| left.name == row.name),
            name: row.name.to_string(),
            version: row.version,
            put_at: Some(convert::timestamp(row.put_at)),
            put_by: row.put_by,
        };
        let secrets = rows.into_iter().map(secret).collect();
        Ok(Response::new(v1::ListSecretsResponse { secrets }))
    }

    async fn delete_secret(
        &self,
        request: Request<v1::DeleteSecretRequest>,
    ) -> Result<Response<v1::DeleteSecretResponse>, Status> {
        let act = self.act(&request, (AdminAction::Secret, "deletion of a secret")).await?;
        let v1::DeleteSecretRequest { name, force } = request.into_inner();
        let name = parsed(&name)?;
        let used_by = self.used_by(&name);
        if !used_by.is_empty() && !force {
            let places = used_by.join("`, `");
            return Err(status::precondition(format!(
                "`store:{name}` is used by `{places}`: change that first, or delete it with `--force`"
            )));
        }
        let deleted = self.broker.journal.delete_secret(name.clone(), act).await;
        match deleted.map_err(|error| status::of_journal(&error))? {
            Some(_version) => Ok(Response::new(v1::DeleteSecretResponse { used_by })),
            None => Err(status::precondition(format!(
                "the broker keeps no secret `store:{name}`: see `claviger secret list`"
            ))),
        }
    }

    async fn rotate_root(
        &self,
        request: Request<v1::RotateRootRequest>,
    ) -> Result<Response<v1::RotateRootResponse>, Status> {
        let extensions = request.extensions();
        let read = self.gate.read(extensions, AdminAction::Rotate, wished(request.get_ref()));
        let wish = read.await?;
        // Of a secret, too, policies are asked about the backend that uses it.
        let backend = wish.backend.clone().or_else(|| rotation::backend(&self.broker, &wish));
        let resource = backend.map_or(AdminResource::Broker, AdminResource::Backend);
        let what = format!("another root credential: {wish}");
        let act = Act::on(resource, AdminAction::Rotate, what);
        let permit = self.gate.admit(extensions, act).await?;
        let by = permit.ask().operator.id().to_owned();
        let rotated = rotation::rotate(&self.broker, wish, by).await;
        let Rotated { secret, version } = rotated.map_err(|error| match error {
            RotateError::Journal(error) => status::of_journal(&error),
            error => status::precondition(error),
        })?;
        Ok(Response::new(v1::RotateRootResponse { secret: secret.to_string(), version }))
    }

    async fn rekey(
        &self,
        request: Request<v1::RekeyRequest>,
    ) -> Result<Response<v1::RekeyResponse>, Status> {
        let what = (AdminAction::Rotate, "another sealing key");
        let SecretAct { by, at } = self.act(&request, what).await?;
        let rekeyed = configuration::rekey(&self.broker, RekeyAct { by: Some(by), at }).await;
        let Resealed { handles, issuer_keys, secrets } = rekeyed.map_err(|fault| match fault {
            RekeyFault::Journal(error) => status::of_journal(&error),
            RekeyFault::Config(_) | RekeyFault::Keys(_) => status::precondition(fault),
        })?;
        Ok(Response::new(v1::RekeyResponse { handles, issuer_keys, secrets }))
    }
}

/// Has what refers to the secret read it.
async fn reload(broker: &Arc<Broker>) -> Result<(bool, Vec<String>), Status> {
    let reloaded = configuration::reload(broker, Asker::default()).await;
    Ok(match reloaded.map_err(|error| status::of_journal(&error))? {
        Reloaded::Changed { problems } | Reloaded::Same { problems } => (true, problems),
        Reloaded::Refused { problems } => (false, problems),
    })
}

/// Reads which root credential is meant.
fn wished(request: &v1::RotateRootRequest) -> Result<Wish, Status> {
    let v1::RotateRootRequest { backend, connection, secret } = request;
    if backend.is_empty() && secret.is_empty() {
        return Err(status::invalid("backend", "name a backend or a secret"));
    }
    Ok(Wish {
        backend: optional("backend", backend)?,
        connection: optional("connection", connection)?,
        secret: optional("secret", secret)?,
    })
}

fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: &str,
) -> Result<Option<T>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| status::invalid(field, error))
}

fn parsed(name: &str) -> Result<SecretName, Status> {
    name.parse().map_err(|error| status::invalid("name", error))
}

fn refused(error: &PutSecretError) -> Status {
    match error {
        PutSecretError::Empty | PutSecretError::TooLong => status::invalid("value", error),
        PutSecretError::TooMany => status::precondition(error),
    }
}
