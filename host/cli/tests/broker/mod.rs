//! A broker by script: answers as told and remembers what it was asked. It decides nothing; the
//! end-to-end tests run the same commands against the real one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger_core::journal::chain::ChainHead;
use claviger_proto::v1::admin_service_server::{AdminService, AdminServiceServer};
use claviger_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use claviger_proto::v1::watch_response::Event;
use claviger_proto::v1::*;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the broker was told to answer, and what it was asked.
#[derive(Default)]
pub struct Script {
    /// Refusals of the next calls of Issue, last first.
    pub issue_refusals: Vec<Status>,
    /// Calls in order: the method's name and what matters of its message.
    pub calls: Vec<String>,
    /// The entries of the journal.
    pub entries: Vec<JournalEntry>,
}

/// The broker, as both of its services see it.
#[derive(Clone)]
pub struct Broker(Arc<Mutex<Script>>);

/// A running broker and its sockets.
pub struct Running {
    pub broker: Broker,
    pub directory: TempDir,
    _runtime: tokio::runtime::Runtime,
}

pub fn start(script: Script) -> Running {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker(Arc::new(Mutex::new(script)));
    let listen = |name: &str| {
        let _inside = runtime.enter();
        UnixListenerStream::new(UnixListener::bind(directory.path().join(name)).unwrap())
    };
    let agent = tonic::transport::Server::builder()
        .add_service(AgentServiceServer::new(broker.clone()))
        .serve_with_incoming(listen("agent.sock"));
    let admin = tonic::transport::Server::builder()
        .add_service(AdminServiceServer::new(broker.clone()))
        .serve_with_incoming(listen("admin.sock"));
    runtime.spawn(agent);
    runtime.spawn(admin);
    Running { broker, directory, _runtime: runtime }
}

impl Running {
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn calls(&self) -> Vec<String> {
        self.broker.0.lock().unwrap().calls.clone()
    }
}

impl Broker {
    /// Remembers a call, with its bearer token if it has one.
    fn hear<T>(&self, request: &Request<T>, what: &str) {
        let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let bearer = bearer.map(|value| value.replace("Bearer ", " as ")).unwrap_or_default();
        self.0.lock().unwrap().calls.push(format!("{what}{bearer}"));
    }
}

pub const TOKEN: &str = "token-of-the-session";

pub fn refusal(code: Code, reason: &str, said: &[(&str, &str)]) -> Status {
    let said: HashMap<String, String> =
        said.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut details = ErrorDetails::with_error_info(reason, claviger_proto::ERROR_DOMAIN, said);
    details.set_retry_info(Some(Duration::ZERO));
    Status::with_error_details(code, format!("refused: {reason}"), details)
}

pub fn journal(jsons: &[&str]) -> Vec<JournalEntry> {
    let mut head = ChainHead::EMPTY;
    let chained = jsons.iter().map(|json| {
        let next = head.extended(json.as_bytes());
        let previous_hash = head.hash.bytes().to_vec();
        head = next;
        let (seq, hash) = (next.seq.get(), next.hash.bytes().to_vec());
        JournalEntry { seq, previous_hash, hash, json: (*json).to_owned() }
    });
    chained.collect()
}

#[tonic::async_trait]
impl AgentService for Broker {
    type WatchStream = Streamed<WatchResponse>;

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        self.hear(&request, &format!("open {}", request.get_ref().role));
        Ok(Response::new(OpenSessionResponse {
            session_id: "ses_1".to_owned(),
            session_token: TOKEN.to_owned(),
            ..OpenSessionResponse::default()
        }))
    }

    async fn list_grants(
        &self,
        request: Request<ListGrantsRequest>,
    ) -> Result<Response<ListGrantsResponse>, Status> {
        self.hear(&request, "grants");
        Err(Status::unauthenticated("the session has ended: open a new one"))
    }

    async fn issue(
        &self,
        request: Request<IssueRequest>,
    ) -> Result<Response<IssueResponse>, Status> {
        let IssueRequest { scope, idempotency_key, .. } = request.get_ref();
        self.hear(&request, &format!("issue {scope} {idempotency_key}"));
        if let Some(refusal) = self.0.lock().unwrap().issue_refusals.pop() {
            return Err(refusal);
        }
        let field = |name: &str, value: &str, env: &str, secret| Field {
            name: name.to_owned(),
            value: value.to_owned(),
            secret,
            env: env.to_owned(),
        };
        let fields = vec![
            field("user", "cv_1", "PGUSER", false),
            field("password", "it's secret", "PGPASSWORD", true),
        ];
        Ok(Response::new(IssueResponse {
            lease: Some(Lease { lease_id: "int_1".to_owned(), ..Lease::default() }),
            credential: Some(Credential { fields, ..Credential::default() }),
            notice: String::new(),
        }))
    }

    async fn watch(
        &self,
        _request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = WatchResponse { event: Some(Event::Heartbeat(Heartbeat { at: None })) };
        let stream = tokio_stream::once(Ok(first)).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_leases(
        &self,
        request: Request<ListLeasesRequest>,
    ) -> Result<Response<ListLeasesResponse>, Status> {
        self.hear(&request, "leases");
        Ok(Response::new(ListLeasesResponse::default()))
    }

    async fn release_lease(
        &self,
        request: Request<ReleaseLeaseRequest>,
    ) -> Result<Response<ReleaseLeaseResponse>, Status> {
        self.hear(&request, &format!("release {}", request.get_ref().lease_id));
        Ok(Response::new(ReleaseLeaseResponse { state: LeaseState::Due.into() }))
    }

    async fn open_child_session(
        &self,
        request: Request<OpenChildSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        self.hear(&request, &format!("open child {}", request.get_ref().role));
        Ok(Response::new(OpenSessionResponse {
            session_id: "ses_2".to_owned(),
            session_token: "token-of-the-child".to_owned(),
            ..OpenSessionResponse::default()
        }))
    }

    async fn rebind_session(
        &self,
        request: Request<RebindSessionRequest>,
    ) -> Result<Response<RebindSessionResponse>, Status> {
        self.hear(&request, &format!("rebind {}", request.get_ref().certificate_sha256));
        Ok(Response::new(RebindSessionResponse {}))
    }

    async fn close_session(
        &self,
        request: Request<CloseSessionRequest>,
    ) -> Result<Response<CloseSessionResponse>, Status> {
        self.hear(&request, "close");
        Ok(Response::new(CloseSessionResponse { leases_due: 1 }))
    }
}

#[tonic::async_trait]
impl AdminService for Broker {
    type QueryJournalStream = Streamed<JournalEntry>;
    type QueryLeasesStream = Streamed<LeaseRow>;

    async fn query_journal(
        &self,
        _request: Request<QueryJournalRequest>,
    ) -> Result<Response<Self::QueryJournalStream>, Status> {
        let entries = self.0.lock().unwrap().entries.clone();
        Ok(Response::new(Box::pin(tokio_stream::iter(entries.into_iter().map(Ok)))))
    }

    async fn journal_head(
        &self,
        _request: Request<JournalHeadRequest>,
    ) -> Result<Response<JournalHeadResponse>, Status> {
        let last = self.0.lock().unwrap().entries.last().cloned().unwrap_or_default();
        let (seq, hash) = (last.seq, last.hash);
        Ok(Response::new(JournalHeadResponse { seq, hash, seal_intact: true }))
    }

    async fn query_leases(
        &self,
        _request: Request<QueryLeasesRequest>,
    ) -> Result<Response<Self::QueryLeasesStream>, Status> {
        let lease = Lease { lease_id: "int_9".to_owned(), ..Lease::default() };
        let row = LeaseRow { lease: Some(lease), attempts: 8, ..LeaseRow::default() };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(row)))))
    }

    async fn retry_lease(
        &self,
        request: Request<RetryLeaseRequest>,
    ) -> Result<Response<RetryLeaseResponse>, Status> {
        self.hear(&request, &format!("retry {}", request.get_ref().lease_id));
        Ok(Response::new(RetryLeaseResponse { state: LeaseState::Due.into() }))
    }

    async fn reload(
        &self,
        _request: Request<ReloadRequest>,
    ) -> Result<Response<ReloadResponse>, Status> {
        let problems = vec!["roles/a.md:1:1: no".to_owned()];
        Ok(Response::new(ReloadResponse { snapshot: "ab".to_owned(), problems, loaded: false }))
    }

    async fn list_plugins(
        &self,
        _request: Request<ListPluginsRequest>,
    ) -> Result<Response<ListPluginsResponse>, Status> {
        let plugin = Plugin {
            name: "postgres".to_owned(),
            id: "claviger.postgres".to_owned(),
            backends: vec!["orders-db".to_owned()],
            traps: 3,
            ..Plugin::default()
        };
        Ok(Response::new(ListPluginsResponse { plugins: vec![plugin] }))
    }

    async fn lift_quarantine(
        &self,
        request: Request<LiftQuarantineRequest>,
    ) -> Result<Response<LiftQuarantineResponse>, Status> {
        self.hear(&request, &format!("lift {}", request.get_ref().plugin));
        Ok(Response::new(LiftQuarantineResponse {}))
    }

    async fn list_policies(
        &self,
        _request: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        Ok(Response::new(ListPoliciesResponse::default()))
    }

    async fn list_roles(
        &self,
        _request: Request<ListRolesRequest>,
    ) -> Result<Response<ListRolesResponse>, Status> {
        Ok(Response::new(ListRolesResponse::default()))
    }

    async fn list_approvals(
        &self,
        _request: Request<ListApprovalsRequest>,
    ) -> Result<Response<ListApprovalsResponse>, Status> {
        Ok(Response::new(ListApprovalsResponse::default()))
    }

    async fn decide_approval(
        &self,
        request: Request<DecideApprovalRequest>,
    ) -> Result<Response<DecideApprovalResponse>, Status> {
        self.hear(&request, &format!("decide {}", request.get_ref().approval_id));
        Ok(Response::new(DecideApprovalResponse {}))
    }

    type ListSessionsStream = Streamed<SessionRow>;

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<Self::ListSessionsStream>, Status> {
        self.hear(&request, &format!("sessions {}", request.get_ref().requester));
        let row = SessionRow { session_id: "ses_1".to_owned(), leases: 2, ..SessionRow::default() };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(row)))))
    }

    type RevokeStream = Streamed<RevokeResponse>;

    async fn revoke(
        &self,
        request: Request<RevokeRequest>,
    ) -> Result<Response<Self::RevokeStream>, Status> {
        let RevokeRequest { dry_run, reason, .. } = request.get_ref();
        self.hear(&request, &format!("revoke {dry_run} {reason}"));
        let stages = if *dry_run {
            vec![RevokeStage::WouldEnd]
        } else {
            vec![RevokeStage::Ending, RevokeStage::Following, RevokeStage::Done]
        };
        let told = stages.into_iter().map(|stage| {
            let gone = u64::from(stage == RevokeStage::Done);
            Ok(RevokeResponse {
                stage: stage.into(),
                sessions_matched: 1,
                sessions_ended: u64::from(!dry_run),
                leases_matched: 2,
                leases_gone: gone,
                leases_stuck: gone,
                ..RevokeResponse::default()
            })
        });
        let told: Vec<_> = told.collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(told))))
    }
}
