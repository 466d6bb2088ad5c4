//! The admin service, on the operators' own listener. Every call goes through the gate first:
//! decided by policy, recorded in the journal.

pub mod gate;
mod lasting;
mod read;
mod revoke;

use std::sync::Arc;

use claviger_core::admin::{AdminAction, AdminResource, Selector};
use claviger_core::decide::AdminPermit;
use claviger_core::name::PluginName;
use claviger_core::ports::{Clock, Policies, Ports};
use claviger_proto::v1;
use claviger_proto::v1::admin_service_server::AdminService;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status};

use self::gate::{Act, Gate};
use self::lasting::{Streamed, Tenure, lasting};
use self::read::Answer;
use self::revoke::DryRun;
use super::{convert, status};
use crate::authenticate;
use crate::broker::Broker;
use crate::config::TwoPerson;
use crate::configuration;
use crate::policies::Reloaded;
use crate::revocation::{self, Revocation};

/// What operators call.
pub struct Admin {
    broker: Arc<Broker>,
    gate: Gate,
    draining: watch::Receiver<bool>,
}

impl Admin {
    /// The service over `broker`, for its own user, `operator_uids` and whom the policies permit.
    pub fn new(
        broker: Arc<Broker>,
        operator_uids: Vec<u32>,
        draining: watch::Receiver<bool>,
    ) -> Self {
        let gate = Gate::new(Arc::clone(&broker), operator_uids);
        Self { broker, gate, draining }
    }

    /// What must hold for as long as a stream of the call is told.
    fn tenure(&self, extensions: &Extensions, permit: &AdminPermit) -> Tenure {
        Tenure {
            broker: Arc::clone(&self.broker),
            ask: permit.ask().clone(),
            snapshot: permit.snapshot(),
            proof_ends: authenticate::proof_ends(extensions),
        }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    type QueryJournalStream = Streamed<v1::JournalEntry>;

    async fn query_journal(
        &self,
        request: Request<v1::QueryJournalRequest>,
    ) -> Result<Response<Self::QueryJournalStream>, Status> {
        let wanted = read::entry_query(request.get_ref());
        let wanted = self.gate.read(request.extensions(), AdminAction::Read, wanted).await?;
        let act = Act::on(read::entries_of(&wanted), AdminAction::Read, "entries of the journal");
        let permit = self.gate.admit(request.extensions(), act).await?;
        let tenure = self.tenure(request.extensions(), &permit);
        let journal = &self.broker.journal;
        let entries = match request.get_ref().follow {
            true => journal.entries_from_now_on(wanted, self.draining.clone()),
            false => journal.entries(wanted),
        };
        let entries = entries.map(|entry| match entry {
            Ok(entry) => Ok(v1::JournalEntry {
                seq: entry.seq.get(),
                previous_hash: entry.previous.bytes().to_vec(),
                hash: entry.hash.bytes().to_vec(),
                json: entry.json,
            }),
            Err(error) => Err(status::of_journal(&error)),
        });
        Ok(Response::new(lasting(entries, tenure)))
    }

    async fn journal_head(
        &self,
        request: Request<v1::JournalHeadRequest>,
    ) -> Result<Response<v1::JournalHeadResponse>, Status> {
        // Read first: the record of this call makes a new head, and would mend a broken seal.
        let head = self.broker.journal.head().await;
        let act = Act::on_broker(AdminAction::Read, "the journal's head");
        self.gate.admit(request.extensions(), act).await?;
        let head = head.map_err(|error| status::of_journal(&error))?;
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
        let wanted = read::lease_query(request.get_ref());
        let wanted = self.gate.read(request.extensions(), AdminAction::Read, wanted).await?;
        let act = Act::on(read::leases_of(&wanted), AdminAction::Read, "leases");
        let permit = self.gate.admit(request.extensions(), act).await?;
        let tenure = self.tenure(request.extensions(), &permit);
        let rows = self.broker.journal.lease_rows(wanted);
        let rows = rows.map(|row| row.as_ref().map(read::lease_row).map_err(status::of_journal));
        Ok(Response::new(lasting(rows, tenure)))
    }

    async fn retry_lease(
        &self,
        request: Request<v1::RetryLeaseRequest>,
    ) -> Result<Response<v1::RetryLeaseResponse>, Status> {
        let lease = read::parsed("lease_id", &request.get_ref().lease_id);
        let lease = self.gate.read(request.extensions(), AdminAction::Lease, lease).await?;
        let scope = self.broker.journal.scope_of(lease).await;
        let scope = scope.map_err(|error| status::of_journal(&error))?;
        let resource = scope.map_or(AdminResource::Broker, AdminResource::Scope);
        let act = Act::on(resource, AdminAction::Lease, format!("retry of lease `{lease}`"));
        self.gate.admit(request.extensions(), act).await?;
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
        let what = "reload of configuration, policies and prompt files";
        let act = Act::on_broker(AdminAction::Reload, what);
        let permit = self.gate.admit(request.extensions(), act).await?;
        let approval = &request.get_ref().approval_id;
        let asker = configuration::Asker {
            operator: Some(permit.ask().operator.id().to_owned()),
            approval: read::optional("approval_id", approval)?,
        };
        let reloaded = configuration::reload(&self.broker, asker).await;
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
        let act = Act::on_broker(AdminAction::Read, "plugins");
        self.gate.admit(request.extensions(), act).await?;
        let now = self.broker.clock().now();
        let plugins = self.broker.plugins.current().list();
        let plugins = plugins.iter().map(|plugin| read::plugin_row(plugin, now)).collect();
        Ok(Response::new(v1::ListPluginsResponse { plugins }))
    }

    async fn lift_quarantine(
        &self,
        request: Request<v1::LiftQuarantineRequest>,
    ) -> Result<Response<v1::LiftQuarantineResponse>, Status> {
        let plugin = read::parsed("plugin", &request.get_ref().plugin);
        let plugin: PluginName =
            self.gate.read(request.extensions(), AdminAction::Plugin, plugin).await?;
        let what = format!("lift of the quarantine of plugin `{plugin}`");
        let act = Act::on(AdminResource::Plugin(plugin.clone()), AdminAction::Plugin, what);
        self.gate.admit(request.extensions(), act).await?;
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
        plugins.lift_quarantine(&plugin);
        Ok(Response::new(v1::LiftQuarantineResponse {}))
    }

    type ListSessionsStream = Streamed<v1::SessionRow>;

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<Self::ListSessionsStream>, Status> {
        let wanted = read::session_query(request.get_ref());
        let wanted = self.gate.read(request.extensions(), AdminAction::Read, wanted).await?;
        let act = Act::on(read::sessions_of(&wanted), AdminAction::Read, "sessions");
        let permit = self.gate.admit(request.extensions(), act).await?;
        let tenure = self.tenure(request.extensions(), &permit);
        let rows = self.broker.journal.session_rows(wanted);
        let rows = rows.map(|row| row.as_ref().map(read::session_row).map_err(status::of_journal));
        Ok(Response::new(lasting(rows, tenure)))
    }

    type RevokeStream = Streamed<v1::RevokeResponse>;

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<Self::RevokeStream>, Status> {
        let parsed = revoke::parse(request.get_ref());
        let parsed = self.gate.read(request.extensions(), AdminAction::Revoke, parsed).await?;
        let dry_run = if request.get_ref().dry_run { DryRun::Yes } else { DryRun::No };
        let act = revoke::act(&self.broker, &parsed, dry_run).await?;
        let permit = self.gate.admit(request.extensions(), act).await?;
        if dry_run == DryRun::Yes {
            let preview = revoke::preview(&self.broker, parsed.selector).await?;
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(preview)))));
        }
        let takes_two = self.broker.configuration.takes_two(TwoPerson::RevokeEverything);
        let mut approver = None;
        if takes_two && parsed.selector == Selector::Everything {
            let (digest, approval) = revoke::digest(request.get_ref());
            approver = Some(self.gate.second(&permit, digest, &approval).await?);
        }
        let tenure = self.tenure(request.extensions(), &permit);
        let (selector, until, draining) = (parsed.selector, parsed.until, self.draining.clone());
        let revocation = Revocation { selector, permit, approver, until, draining };
        let told = revocation::start(Arc::clone(&self.broker), revocation);
        let told = ReceiverStream::new(told).map(|told| match told {
            Ok(progress) => Ok(revoke::progress(&progress)),
            Err(error) => Err(status::of_journal(&error)),
        });
        // Who may no longer revoke hears no more of it; what has begun goes on.
        Ok(Response::new(lasting(told, tenure)))
    }

    async fn list_policies(
        &self,
        request: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        let act = Act::on_broker(AdminAction::Read, "policies");
        self.gate.admit(request.extensions(), act).await?;
        let current = self.broker.policies.current();
        let policies = current.policies().into_iter().map(read::policy).collect();
        let snapshot = current.digest().to_string();
        Ok(Response::new(v1::ListPoliciesResponse { snapshot, policies }))
    }

    async fn list_roles(
        &self,
        request: Request<v1::ListRolesRequest>,
    ) -> Result<Response<v1::ListRolesResponse>, Status> {
        let act = Act::on_broker(AdminAction::Read, "roles");
        self.gate.admit(request.extensions(), act).await?;
        let current = self.broker.policies.current();
        let roles = current.roles().values().map(read::role).collect();
        let problems = self.broker.policies.problems().to_vec();
        let snapshot = current.digest().to_string();
        Ok(Response::new(v1::ListRolesResponse { snapshot, roles, problems }))
    }

    async fn list_approvals(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        let act = Act::on_broker(AdminAction::Read, "what waits for a second operator");
        self.gate.admit(request.extensions(), act).await?;
        let waiting = self.broker.approvals().list(self.broker.clock().now());
        let approvals = waiting.iter().map(read::approval).collect();
        Ok(Response::new(v1::ListApprovalsResponse { approvals }))
    }

    async fn decide_approval(
        &self,
        request: Request<v1::DecideApprovalRequest>,
    ) -> Result<Response<v1::DecideApprovalResponse>, Status> {
        let read = read::answer(request.get_ref());
        let read = self.gate.read(request.extensions(), AdminAction::Approve, read);
        let (id, answer) = read.await?;
        let verb = match answer {
            Answer::Grant => "grant",
            Answer::Refuse => "refusal",
        };
        let (approvals, now) = (self.broker.approvals(), self.broker.clock().now());
        let found = approvals.find(id, now);
        let what = found.as_ref().map(|one| format!("{}, asked by `{}`", one.what, one.operator));
        let what = what.unwrap_or_else(|_| "not there".to_owned());
        let act = Act::on_broker(AdminAction::Approve, format!("{verb} of `{id}`: {what}"));
        let permit = self.gate.admit(request.extensions(), act).await?;
        let decided = match answer {
            Answer::Grant => approvals.grant(id, &permit.ask().operator, now),
            Answer::Refuse => approvals.refuse(id, now),
        };
        decided.map_err(|error| status::of_approval(&error))?;
        Ok(Response::new(v1::DecideApprovalResponse {}))
    }
}
