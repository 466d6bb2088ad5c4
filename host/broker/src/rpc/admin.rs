//! The admin service, on the operators' own socket. Every act is an entry of the journal.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::journal::{Entry, Event, JournalSeq};
use claviger_core::name::PluginName;
use claviger_core::ports::{Clock, Journal, Policies, Ports};
use claviger_core::time::Timestamp;
use claviger_proto::v1;
use claviger_proto::v1::admin_service_server::AdminService;
use data_encoding::HEXLOWER;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

use super::{convert, status};
use crate::authenticate;
use crate::broker::Broker;
use crate::configuration;
use crate::journal::{EntryQuery, LeaseRow};
use crate::plugin::{PluginInfo, SignatureState};
use crate::policies::Reloaded;

/// What operators call.
pub struct Admin {
    broker: Arc<Broker>,
    operator_uids: Vec<u32>,
}

type Streamed<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

impl Admin {
    /// The service over `broker`, for its own user and `operator_uids`.
    pub const fn new(broker: Arc<Broker>, operator_uids: Vec<u32>) -> Self {
        Self { broker, operator_uids }
    }

    fn operator<T>(&self, request: &Request<T>) -> Result<u32, Status> {
        authenticate::operator(request.extensions(), &self.operator_uids)
            .map_err(|error| status::of_authentication(&error))
    }

    async fn record(&self, uid: u32, act: String) -> Result<(), Status> {
        let mut entry = Entry::new(self.broker.clock().now(), Event::OperatorAct);
        entry.principal = Some(format!("unix:{uid}"));
        entry.detail = Some(act);
        let recorded = self.broker.journal().record(entry).await;
        recorded.map(drop).map_err(|error| status::of_journal(&error))
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    type QueryJournalStream = Streamed<v1::JournalEntry>;

    async fn query_journal(
        &self,
        request: Request<v1::QueryJournalRequest>,
    ) -> Result<Response<Self::QueryJournalStream>, Status> {
        self.operator(&request)?;
        let entries = self.broker.journal.entries(query(&request.into_inner())?);
        let entries = entries.map(|entry| match entry {
            Ok(entry) => Ok(v1::JournalEntry {
                seq: entry.seq.get(),
                previous_hash: entry.previous.bytes().to_vec(),
                hash: entry.hash.bytes().to_vec(),
                json: entry.json,
            }),
            Err(error) => Err(status::of_journal(&error)),
        });
        Ok(Response::new(Box::pin(entries)))
    }

    async fn journal_head(
        &self,
        request: Request<v1::JournalHeadRequest>,
    ) -> Result<Response<v1::JournalHeadResponse>, Status> {
        self.operator(&request)?;
        let head = self.broker.journal.head().await.map_err(|e| status::of_journal(&e))?;
        Ok(Response::new(v1::JournalHeadResponse {
            seq: head.head.seq.get(),
            hash: head.head.hash.bytes().to_vec(),
            seal_intact: head.seal_intact,
        }))
    }

    type QueryLeasesStream = Streamed<v1::LeaseRow>;

    async fn query_leases(
        &self,
        request: Request<v1::QueryLeasesRequest>,
    ) -> Result<Response<Self::QueryLeasesStream>, Status> {
        self.operator(&request)?;
        let states = request.into_inner().states().filter_map(convert::named_state).collect();
        let rows = self.broker.journal.lease_rows(states);
        let rows = rows.map(|row| row.as_ref().map(lease_row).map_err(status::of_journal));
        Ok(Response::new(Box::pin(rows)))
    }

    async fn retry_lease(
        &self,
        request: Request<v1::RetryLeaseRequest>,
    ) -> Result<Response<v1::RetryLeaseResponse>, Status> {
        let uid = self.operator(&request)?;
        let text = request.into_inner().lease_id;
        let lease = text.parse().map_err(|error| status::invalid("lease_id", error))?;
        self.record(uid, format!("retry of lease `{lease}`")).await?;
        let state = self
            .broker
            .journal
            .retry_lease(lease, self.broker.clock().now())
            .await
            .map_err(|error| status::of_journal(&error))?
            .ok_or_else(|| status::precondition(format!("lease `{lease}` is not stuck")))?;
        Ok(Response::new(v1::RetryLeaseResponse { state: convert::lease_state(state).into() }))
    }

    async fn reload(
        &self,
        request: Request<v1::ReloadRequest>,
    ) -> Result<Response<v1::ReloadResponse>, Status> {
        let uid = self.operator(&request)?;
        self.record(uid, "reload of configuration, policies and prompt files".to_owned()).await?;
        let reloaded = configuration::reload(&self.broker).await;
        let reloaded = reloaded.map_err(|error| status::of_journal(&error))?;
        let (loaded, problems) = match reloaded {
            Reloaded::Changed { problems } | Reloaded::Same { problems } => (true, problems),
            Reloaded::Refused { problems } => (false, problems),
        };
        let snapshot = self.broker.policies.current().digest().to_string();
        Ok(Response::new(v1::ReloadResponse { snapshot, problems, loaded }))
    }

    async fn list_plugins(
        &self,
        request: Request<v1::ListPluginsRequest>,
    ) -> Result<Response<v1::ListPluginsResponse>, Status> {
        self.operator(&request)?;
        let now = self.broker.clock().now();
        let plugins = self.broker.plugins.current().list();
        let plugins = plugins.iter().map(|plugin| plugin_row(plugin, now)).collect();
        Ok(Response::new(v1::ListPluginsResponse { plugins }))
    }

    async fn lift_quarantine(
        &self,
        request: Request<v1::LiftQuarantineRequest>,
    ) -> Result<Response<v1::LiftQuarantineResponse>, Status> {
        let uid = self.operator(&request)?;
        let plugin: PluginName = request
            .into_inner()
            .plugin
            .parse()
            .map_err(|error| status::invalid("plugin", error))?;
        let plugins = self.broker.plugins.current();
        match plugins.is_quarantined(&plugin) {
            None => {
                let message = format!("there is no plugin `{plugin}`: see `claviger plugin list`");
                return Err(status::precondition(message));
            }
            Some(false) => {
                return Err(status::precondition(format!("plugin `{plugin}` is not quarantined")));
            }
            Some(true) => {}
        }
        self.record(uid, format!("lift of the quarantine of plugin `{plugin}`")).await?;
        plugins.lift_quarantine(&plugin);
        Ok(Response::new(v1::LiftQuarantineResponse {}))
    }
}

fn plugin_row(plugin: &PluginInfo, now: Timestamp) -> v1::Plugin {
    let until = |secs| convert::timestamp(now.after(Duration::from_secs(secs)));
    v1::Plugin {
        name: plugin.name.to_string(),
        id: plugin.manifest.id.clone(),
        version: plugin.manifest.version.clone(),
        sha256: HEXLOWER.encode(&plugin.sha256),
        signed_by: match &plugin.signature {
            SignatureState::Signed(key) => key.clone(),
            SignatureState::Unsigned => String::new(),
        },
        limits: plugin.manifest.limits_class.as_str().to_owned(),
        backends: plugin.backends.iter().map(ToString::to_string).collect(),
        quarantined_until: plugin.quarantined_secs.map(until),
        traps: plugin.traps,
    }
}

fn query(request: &v1::QueryJournalRequest) -> Result<EntryQuery, Status> {
    let seq = |seq: u64| (seq > 0).then(|| JournalSeq::durable(seq));
    Ok(EntryQuery {
        from: seq(request.from_seq),
        to: seq(request.to_seq),
        session: optional("session_id", &request.session_id)?,
        lease: optional("lease_id", &request.lease_id)?,
        denial: optional("denial_id", &request.denial_id)?,
        role: optional("role", &request.role)?,
        last: (request.last > 0).then_some(request.last),
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

fn lease_row(row: &LeaseRow) -> v1::LeaseRow {
    v1::LeaseRow {
        session_id: row.lease.session.to_string(),
        role: row.role.to_string(),
        attempts: row.attempts,
        next_at: row.next_at.map(convert::timestamp),
        cause: row.cause.map(|cause| cause.as_str().to_owned()).unwrap_or_default(),
        lease: Some(convert::lease(&row.lease)),
    }
}
