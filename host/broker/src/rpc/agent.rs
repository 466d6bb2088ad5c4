//! The agent service. Each call: authenticate, parse, run the flow, build the reply.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::ask::{Ask, UnverifiedAsk};
use claviger_core::binding::{Binding, Peer};
use claviger_core::catalog::{Backend, Scope};
use claviger_core::decide::{SessionAsk, decide};
use claviger_core::flow;
use claviger_core::name::Authorization;
use claviger_core::ports::{Clock, Journal, Policies, Ports};
use claviger_core::session::EndCause;
use claviger_proto::v1;
use claviger_proto::v1::agent_service_server::AgentService;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status};
use zeroize::Zeroize;

use super::{convert, reply, status, watch};
use crate::authenticate::{self, Caller, UnverifiedProofs};
use crate::broker::Broker;
use crate::sessions::LiveSession;

/// What agents call.
pub struct Agent {
    broker: Arc<Broker>,
    heartbeat_grace: Duration,
    draining: tokio::sync::watch::Receiver<bool>,
}

impl Agent {
    /// The service over `broker`.
    pub const fn new(
        broker: Arc<Broker>,
        heartbeat_grace: Duration,
        draining: tokio::sync::watch::Receiver<bool>,
    ) -> Self {
        Self { broker, heartbeat_grace, draining }
    }

    async fn caller(
        &self,
        extensions: &Extensions,
        message: &v1::OpenSessionRequest,
    ) -> Result<Caller, Status> {
        let proofs = UnverifiedProofs {
            workload_token: &message.workload_token,
            aws_identity: message.aws_identity.as_ref().map(convert::signed_request),
            requester_token: &message.requester_token,
        };
        let (identities, now) = (&self.broker.identities, self.broker.clock().now());
        authenticate::caller(identities, extensions, proofs, now).await.map_err(|error| {
            // The sentence tells what is wrong with a proof, and nothing of the proof itself.
            tracing::warn!(%error, "a caller proves too little to open a session");
            status::of_authentication(&error)
        })
    }

    async fn session<T>(&self, request: &Request<T>) -> Result<Arc<LiveSession>, Status> {
        authenticate::session(&self.broker, request.extensions(), request.metadata())
            .await
            .map_err(|error| status::of_authentication(&error))
    }

    /// Begins a session whose token is good for `peer`.
    async fn open(
        &self,
        ask: &SessionAsk,
        peer: &Peer,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        if !self.broker.sessions.has_room() {
            return Err(status::no_room());
        }
        let opened = flow::session::open(&*self.broker, ask, Binding::of(peer)).await;
        self.broker.metrics.session_decided(&opened);
        let opened = opened.map_err(|error| status::of_open_session(&error))?;
        let begun = (opened.known.clone(), Arc::clone(&opened.session));
        let (journal, identities) = (&self.broker.journal, &self.broker.identities);
        let remembered = self.broker.sessions.remember(journal, identities, begun).await;
        if !remembered.map_err(|error| status::of_journal(&error))? {
            return Err(status::ended_meanwhile());
        }
        Ok(Response::new(reply::session(opened, self.heartbeat_grace)))
    }
}

#[tonic::async_trait]
impl AgentService for Agent {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let (_, extensions, mut message) = request.into_parts();
        let caller = self.caller(&extensions, &message).await;
        forget_proofs(&mut message);
        let caller = caller?;
        let peer =
            authenticate::peer(&extensions).map_err(|error| status::of_authentication(&error))?;
        let ask = session_ask(caller, message)?;
        self.open(&ask, &peer).await
    }

    async fn open_child_session(
        &self,
        request: Request<v1::OpenChildSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let live = self.session(&request).await?;
        let peer = authenticate::peer(request.extensions())
            .map_err(|error| status::of_authentication(&error))?;
        let parent = Arc::clone(live.session());
        let (principal, requester) = (parent.principal().clone(), parent.requester().clone());
        let v1::OpenChildSessionRequest { role, life, claimed_reason } = request.into_inner();
        let wish = v1::OpenSessionRequest { role, life, claimed_reason, ..Default::default() };
        let ask = session_ask(Caller { principal, requester }, wish)?;
        self.open(&SessionAsk { parent: Some(parent), ..ask }, &peer).await
    }

    async fn list_grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        let live = self.session(&request).await?;
        Ok(Response::new(grants(&self.broker, &live)))
    }

    async fn issue(
        &self,
        request: Request<v1::IssueRequest>,
    ) -> Result<Response<v1::IssueResponse>, Status> {
        let live = self.session(&request).await?;
        let message = request.into_inner();
        let ttl = convert::wish("ttl", message.ttl)?;
        let ask = Ask::parse(&UnverifiedAsk {
            scope: &message.scope,
            ttl_secs: ttl.map_or(0, |ttl| ttl.as_secs()),
            idempotency_key: &message.idempotency_key,
            claimed_reason: &message.claimed_reason,
        })
        .map_err(|error| status::of_ask(&error))?;
        let issued = flow::issue::issue(&*self.broker, live.session(), &ask).await;
        self.broker.metrics.issue_decided(&ask, &issued);
        let delivery = issued.map_err(|error| status::of_issue(&error))?;
        Ok(Response::new(v1::IssueResponse {
            lease: Some(convert::lease(&delivery.lease)),
            credential: Some(reply::credential(delivery.credential)),
            notice: delivery.notice.unwrap_or_default(),
        }))
    }

    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let live = self.session(&request).await?;
        let proof_ends = authenticate::proof_ends(request.extensions());
        let watched = watch::Watched {
            watcher: live.watch(),
            beat: self.heartbeat_grace / 3,
            proof_ends,
            draining: self.draining.clone(),
        };
        Ok(Response::new(watch::start(Arc::clone(&self.broker.journal), watched)))
    }

    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let live = self.session(&request).await?;
        let leases = self
            .broker
            .journal()
            .leases(live.session().id())
            .await
            .map_err(|error| status::of_journal(&error))?;
        Ok(Response::new(v1::ListLeasesResponse {
            leases: leases.iter().map(convert::lease).collect(),
        }))
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Result<Response<v1::ReleaseLeaseResponse>, Status> {
        let live = self.session(&request).await?;
        let text = request.into_inner().lease_id;
        let lease = text.parse().map_err(|error| status::invalid("lease_id", error))?;
        let state = flow::session::release(&*self.broker, live.session().id(), lease)
            .await
            .map_err(|error| status::of_journal(&error))?
            .ok_or_else(|| status::no_lease(lease))?;
        Ok(Response::new(v1::ReleaseLeaseResponse { state: convert::lease_state(state).into() }))
    }

    async fn rebind_session(
        &self,
        request: Request<v1::RebindSessionRequest>,
    ) -> Result<Response<v1::RebindSessionResponse>, Status> {
        let live = self.session(&request).await?;
        let text = request.into_inner().certificate_sha256;
        let next = text.parse().map_err(|error| status::invalid("certificate_sha256", error))?;
        authenticate::rebind(&self.broker, &live, next)
            .await
            .map_err(|error| status::of_authentication(&error))?;
        Ok(Response::new(v1::RebindSessionResponse {}))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let live = self.session(&request).await?;
        let id = live.session().id();
        let ended = flow::session::end(&*self.broker, id, EndCause::Closed)
            .await
            .map_err(|error| status::of_journal(&error))?;
        self.broker.sessions.remove(id);
        let leases_due = ended.map_or(0, |ended| ended.leases_due);
        Ok(Response::new(v1::CloseSessionResponse { leases_due }))
    }
}

/// Tokens and signatures are good for minutes still; they need not lie in memory that long.
fn forget_proofs(message: &mut v1::OpenSessionRequest) {
    message.workload_token.zeroize();
    message.requester_token.zeroize();
    if let Some(signed) = &mut message.aws_identity {
        signed.headers.iter_mut().for_each(|header| header.value.zeroize());
    }
}

fn session_ask(caller: Caller, message: v1::OpenSessionRequest) -> Result<SessionAsk, Status> {
    let role = message.role.parse().map_err(|error| status::invalid("role", error))?;
    let life = convert::wish("life", message.life)?;
    let claimed_reason = message.claimed_reason;
    if claimed_reason.len() > claviger_core::ask::REASON_BYTES_MAX {
        return Err(status::invalid("claimed_reason", "at most 512 bytes are recorded"));
    }
    Ok(SessionAsk {
        principal: caller.principal,
        requester: caller.requester,
        role,
        life,
        claimed_reason: (!claimed_reason.is_empty()).then_some(claimed_reason),
        parent: None,
    })
}

/// Asks the decision for every scope, and throws the permits away.
fn grants(broker: &Broker, live: &LiveSession) -> v1::ListGrantsResponse {
    let snapshot = broker.policies().current();
    let now = broker.clock().now();
    let session = live.session();
    let grant = |(backend, scope): (&Arc<Backend>, &Arc<Scope>)| {
        let ask = Ask {
            scope: scope.name.clone(),
            ttl: None,
            idempotency_key: None,
            claimed_reason: None,
        };
        let decided = decide(&snapshot, session, &ask, now);
        let denial = decided.as_ref().err();
        v1::Grant {
            scope: scope.name.to_string(),
            authorization: scope.authorization.to_string(),
            permitted: decided.is_ok(),
            ttl_max: decided.as_ref().ok().map(|permit| convert::duration(permit.ttl_max())),
            refusal: denial.map(|denial| denial.reason.to_string()).unwrap_or_default(),
            refusal_code: denial.map(|denial| denial.reason.code().to_owned()).unwrap_or_default(),
            revocation: convert::revocation(backend.revocation).into(),
        }
    };
    let catalog = snapshot.catalog();
    let needed =
        |name: &Authorization| catalog.scopes().any(|(_, scope)| scope.authorization == *name);
    v1::ListGrantsResponse {
        grants: catalog.scopes().map(grant).collect(),
        unused_authorizations: session
            .authorizations()
            .keys()
            .filter(|name| !needed(name))
            .map(ToString::to_string)
            .collect(),
    }
}
