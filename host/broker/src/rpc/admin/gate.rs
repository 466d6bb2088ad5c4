//! Lets operators in: who they are, what the policies say, and the entry that tells of it. Every
//! call of the admin service goes through here first.

use std::sync::Arc;

use claviger_core::admin::{AdminAction, AdminAsk, AdminResource};
use claviger_core::decide::AdminPermit;
use claviger_core::flow;
use claviger_core::flow::admin::AdmitError;
use claviger_core::journal::Entry;
use claviger_core::ports::{Clock, Journal, Policies, Ports};
use tonic::{Extensions, Status};

use crate::approvals::{Asked, Present, RequestDigest};
use crate::authenticate;
use crate::broker::Broker;
use crate::rpc::status;

/// The door to everything that operators do.
#[derive(Clone)]
pub struct Gate {
    broker: Arc<Broker>,
    operator_uids: Vec<u32>,
}

/// What an operator is about to do.
pub struct Act {
    /// Which action of the policies it is.
    pub action: AdminAction,
    /// What it is done to.
    pub resource: AdminResource,
    /// As a phrase for the journal.
    pub what: String,
    /// What the operator says it is for.
    pub claimed_reason: Option<String>,
}

impl Act {
    /// An act on the broker as a whole.
    pub fn on_broker(action: AdminAction, what: impl Into<String>) -> Self {
        Self::on(AdminResource::Broker, action, what)
    }

    /// An act on `resource`.
    pub fn on(resource: AdminResource, action: AdminAction, what: impl Into<String>) -> Self {
        Self { action, resource, what: what.into(), claimed_reason: None }
    }
}

impl Gate {
    /// A gate for the broker's own user, `operator_uids`, and whom the policies permit.
    pub const fn new(broker: Arc<Broker>, operator_uids: Vec<u32>) -> Self {
        Self { broker, operator_uids }
    }

    /// What was read of a request. Of one that cannot be read, too, it is first decided and recorded
    /// whether the caller may do such a thing at all: a stranger learns nothing from its form.
    pub async fn read<T>(
        &self,
        extensions: &Extensions,
        action: AdminAction,
        read: Result<T, Status>,
    ) -> Result<T, Status> {
        if read.is_err() {
            let act = Act::on_broker(action, "a request that cannot be read");
            self.admit(extensions, act).await?;
        }
        read
    }

    /// Lets the caller do `act`, and records it; or records the refusal.
    pub async fn admit(&self, extensions: &Extensions, act: Act) -> Result<AdminPermit, Status> {
        let operator = authenticate::operator(extensions, &self.operator_uids)
            .map_err(|error| status::of_authentication(&error))?;
        let Act { action, resource, what, claimed_reason } = act;
        let ask = AdminAsk { operator, action, resource, what, claimed_reason };
        match flow::admin::admit(&*self.broker, ask).await {
            Ok(permit) => Ok(permit),
            // Who must find out why the journal cannot write may look without a record in it.
            Err(AdmitError::Unrecorded { permit, error }) if action == AdminAction::Read => {
                let (operator, what) = (permit.ask().operator.id(), &permit.ask().what);
                tracing::warn!(operator, what, %error, "an operator looks, unrecorded");
                Ok(*permit)
            }
            Err(error) => Err(status::of_admit(&error)),
        }
    }

    /// The second operator, who agreed to exactly this; without an approval the act begins to wait
    /// for one.
    pub async fn second(
        &self,
        permit: &AdminPermit,
        request: RequestDigest,
        unverified_approval: &str,
    ) -> Result<String, Status> {
        let ask = permit.ask();
        let asked = Asked { operator: ask.operator.id(), what: &ask.what, request };
        let (now, approvals) = (self.broker.clock().now(), self.broker.approvals());
        let of_approval = |error| status::of_approval(&error);
        if !unverified_approval.is_empty() {
            let id = super::read::parsed("approval_id", unverified_approval)?;
            let policies = self.broker.policies().current();
            let present = Present { policies: &policies, now };
            return approvals.take(id, &asked, present).map_err(of_approval);
        }
        let waits = approvals.ask(&asked, self.broker.mint_approval(), now);
        let waits = waits.map_err(of_approval)?;
        let what = format!("{}: waits for a second operator as `{}`", ask.what, waits.id);
        let recorded = self.broker.journal().record(Entry::operator_outcome(permit, what, now));
        recorded.await.map_err(|error| status::of_journal(&error))?;
        Err(status::approval_required(&waits))
    }
}
