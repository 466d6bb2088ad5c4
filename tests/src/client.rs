//! gRPC clients of a broker, as an agent or an operator would hold them.

use std::path::Path;
use std::time::Duration;

use claviger_proto::v1;
use claviger_proto::v1::admin_service_client::AdminServiceClient;
use claviger_proto::v1::agent_service_client::AgentServiceClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

/// An agent: a channel, and the token of its session.
#[derive(Clone)]
pub struct Agent {
    /// The client.
    pub client: AgentServiceClient<Channel>,
    /// The session's token.
    pub token: String,
    /// The session's id.
    pub session: String,
}

/// A channel to the unix socket at `path`.
pub async fn channel(path: &Path) -> Channel {
    try_channel(path).await.expect("the broker accepts connections")
}

/// The same for a broker that may just have been killed.
pub async fn try_channel(path: &Path) -> Result<Channel, tonic::transport::Error> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}

/// What the health service says of the whole broker.
pub async fn health(path: &Path) -> ServingStatus {
    let mut client = HealthClient::new(channel(path).await);
    let answer = client.check(HealthCheckRequest::default()).await.expect("health answers");
    answer.into_inner().status()
}

/// Every lease in any of `states`, as operators see them; of no state given, all not final ones.
pub async fn lease_rows(path: &Path, states: &[v1::LeaseState]) -> Vec<v1::LeaseRow> {
    let states = states.iter().map(|state| (*state).into()).collect();
    let request = v1::QueryLeasesRequest { states, ..Default::default() };
    let rows = admin(path).await.query_leases(request).await.expect("leases").into_inner();
    rows.map(|row| row.expect("a row")).collect().await
}

/// The journal's entries, each as its JSON.
pub async fn journal(path: &Path, request: v1::QueryJournalRequest) -> Vec<serde_json::Value> {
    let entries = admin(path).await.query_journal(request).await.expect("entries").into_inner();
    let json = |entry: Result<v1::JournalEntry, Status>| {
        serde_json::from_str(&entry.expect("an entry").json).expect("JSON")
    };
    entries.map(json).collect().await
}

/// An operator's client.
pub async fn admin(path: &Path) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(channel(path).await)
}

impl Agent {
    /// Opens a session of `role` over the socket at `path`.
    pub async fn open(path: &Path, role: &str) -> Result<Self, Status> {
        Self::open_on(channel(path).await, role, None).await
    }

    /// Opens a session over `channel`, living at most `life_secs`.
    pub async fn open_on(
        channel: Channel,
        role: &str,
        life_secs: Option<i64>,
    ) -> Result<Self, Status> {
        let life = life_secs.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let request = v1::OpenSessionRequest {
            role: role.to_owned(),
            life,
            claimed_reason: "ticket 4711".to_owned(),
            ..Default::default()
        };
        Self::open_as(channel, request).await
    }

    /// Opens a session with every field in the caller's hand.
    pub async fn open_as(
        channel: Channel,
        request: v1::OpenSessionRequest,
    ) -> Result<Self, Status> {
        let mut client = AgentServiceClient::new(channel);
        let opened = client.open_session(request).await?.into_inner();
        Ok(Self { client, token: opened.session_token, session: opened.session_id })
    }

    /// Opens a session of `role` below this one.
    pub async fn child(&self, role: &str) -> Result<Self, Status> {
        let request = v1::OpenChildSessionRequest { role: role.to_owned(), ..Default::default() };
        let mut client = self.client.clone();
        let opened = client.open_child_session(self.with_token(request)).await?.into_inner();
        Ok(Self { client, token: opened.session_token, session: opened.session_id })
    }

    /// `message` with the session's token.
    pub fn with_token<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let token = format!("Bearer {}", self.token).parse().expect("ascii");
        request.metadata_mut().insert("authorization", token);
        request
    }

    /// Asks for a credential.
    pub async fn issue(&self, scope: &str) -> Result<Issued, Status> {
        self.issue_as(v1::IssueRequest { scope: scope.to_owned(), ..Default::default() }).await
    }

    /// Asks for a credential with every field in the caller's hand.
    pub async fn issue_as(&self, request: v1::IssueRequest) -> Result<Issued, Status> {
        let reply = self.client.clone().issue(self.with_token(request)).await?.into_inner();
        Ok(Issued {
            lease: reply.lease.expect("a lease"),
            credential: reply.credential.expect("a credential"),
        })
    }

    /// The session's news.
    pub async fn watch(&self) -> Result<Streaming<v1::WatchResponse>, Status> {
        let request = self.with_token(v1::WatchRequest {});
        Ok(self.client.clone().watch(request).await?.into_inner())
    }

    /// Gives a lease back.
    pub async fn release(&self, lease_id: &str) -> Result<v1::LeaseState, Status> {
        let request = self.with_token(v1::ReleaseLeaseRequest { lease_id: lease_id.to_owned() });
        Ok(self.client.clone().release_lease(request).await?.into_inner().state())
    }

    /// The leases of the session that still may work.
    pub async fn leases(&self) -> Result<Vec<v1::Lease>, Status> {
        let request = self.with_token(v1::ListLeasesRequest {});
        Ok(self.client.clone().list_leases(request).await?.into_inner().leases)
    }

    /// The same session over a new connection, as after a restart of the broker.
    pub async fn reconnected(&self, path: &Path) -> Self {
        Self { client: AgentServiceClient::new(channel(path).await), ..self.clone() }
    }

    /// Closes the session.
    pub async fn close(&self) -> Result<v1::CloseSessionResponse, Status> {
        let request = self.with_token(v1::CloseSessionRequest {});
        Ok(self.client.clone().close_session(request).await?.into_inner())
    }
}

/// What an agent got.
#[derive(Debug)]
pub struct Issued {
    /// Its lease.
    pub lease: v1::Lease,
    /// The credential.
    pub credential: v1::Credential,
}

impl Issued {
    /// The value of a field.
    pub fn field(&self, name: &str) -> &str {
        let found = self.credential.fields.iter().find(|field| field.name == name);
        &found.unwrap_or_else(|| panic!("no field `{name}` in the credential")).value
    }

    /// A connection string for a PostgreSQL driver.
    pub fn dsn(&self) -> String {
        ["host", "port", "dbname", "user", "password"]
            .map(|name| format!("{name}={}", self.field(name)))
            .join(" ")
    }
}

/// The status with which a stream ends that must not end without a word.
pub async fn last_word<T>(stream: &mut Streaming<T>) -> Status {
    let to_its_end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a word"),
                Err(status) => return status,
            }
        }
    };
    tokio::time::timeout(PATIENCE, to_its_end).await.expect("the stream ends")
}

/// Far more than it takes a stream to end; only a failure waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The stable reason in an error's details.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
