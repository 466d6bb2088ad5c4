//! The bare limit of the transport: a gRPC server that answers an issue request at once with an
//! answer of the usual size, on the same service definition, in a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use claviger_bench::load::Caller;
use claviger_e2e::poll;
use claviger_proto::v1;
use claviger_proto::v1::agent_service_client::AgentServiceClient;
use claviger_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use crate::claviger::channels;

/// The running server.
pub struct Echo {
    child: Child,
    folder: tempfile::TempDir,
}

/// One caller of it.
pub struct Asking(AgentServiceClient<Channel>);

impl Echo {
    /// Starts this program again, as the server.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("echo.sock");
        let mut command = Command::new(std::env::current_exe()?);
        let child = command.arg("echo").arg(&socket).stdin(Stdio::null()).spawn()?;
        poll::until("the echo listens", || {
            std::future::ready(std::os::unix::net::UnixStream::connect(&socket).ok())
        })
        .await;
        Ok(Self { child, folder })
    }

    /// Callers.
    pub async fn callers(&self, count: usize) -> Vec<Asking> {
        let channels = channels(self.socket(), count).await;
        let clients = channels.into_iter().map(AgentServiceClient::new).collect::<Vec<_>>();
        clients.iter().cycle().take(count).map(|client| Asking(client.clone())).collect()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("echo.sock")
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

impl Caller for Asking {
    async fn call(&mut self) -> Result<()> {
        let mut request =
            Request::new(v1::IssueRequest { scope: "tokens/reports".into(), ..Default::default() });
        let token = TOKEN.parse().context("a constant")?;
        request.metadata_mut().insert("authorization", token);
        self.0.issue(request).await.map(drop).context("no echo")
    }
}

/// Is the server, until it is killed.
pub fn serve(socket: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let incoming = UnixListenerStream::new(UnixListener::bind(socket)?);
        let service = AgentServiceServer::new(Bare);
        Server::builder().add_service(service).serve_with_incoming(incoming).await?;
        Ok(())
    })
}

struct Bare;

#[tonic::async_trait]
impl AgentService for Bare {
    async fn issue(
        &self,
        _request: Request<v1::IssueRequest>,
    ) -> Result<Response<v1::IssueResponse>, Status> {
        let lease = v1::Lease {
            lease_id: "lease_01k2f7zr9jvd4b6y8m3n5p7q9s".into(),
            scope: "tokens/reports".into(),
            ..Default::default()
        };
        let field = v1::Field { value: "x".repeat(TOKEN_CHARS), ..Default::default() };
        let credential = v1::Credential { fields: vec![field], ..Default::default() };
        Ok(Response::new(v1::IssueResponse {
            lease: Some(lease),
            credential: Some(credential),
            ..Default::default()
        }))
    }

    async fn open_session(
        &self,
        _request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        Err(only_issue())
    }

    async fn list_grants(
        &self,
        _request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        Err(only_issue())
    }

    type WatchStream = tokio_stream::Empty<Result<v1::WatchResponse, Status>>;

    async fn watch(
        &self,
        _request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(only_issue())
    }

    async fn list_leases(
        &self,
        _request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        Err(only_issue())
    }

    async fn release_lease(
        &self,
        _request: Request<v1::ReleaseLeaseRequest>,
    ) -> Result<Response<v1::ReleaseLeaseResponse>, Status> {
        Err(only_issue())
    }

    async fn open_child_session(
        &self,
        _request: Request<v1::OpenChildSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        Err(only_issue())
    }

    async fn rebind_session(
        &self,
        _request: Request<v1::RebindSessionRequest>,
    ) -> Result<Response<v1::RebindSessionResponse>, Status> {
        Err(only_issue())
    }

    async fn close_session(
        &self,
        _request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        Err(only_issue())
    }
}

fn only_issue() -> Status {
    Status::unimplemented("the echo only issues")
}

/// As long as a session's.
const TOKEN: &str = "Bearer claviger_session_0123456789abcdefghijklmnopqrstuvwxyz0123456789abcd";

/// About as long as a signed token.
const TOKEN_CHARS: usize = 700;
