//! The peer's side: OpenBao as an operator would run it, with raft storage, a file audit device
//! and no development mode, and clients that ask it over HTTP.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use claviger_bench::load::Caller;
use claviger_e2e::{poll, port};
use claviger_test_servers::Postgres;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::claviger::Wanted;

/// A running, unsealed server.
pub struct OpenBao {
    child: Child,
    folder: tempfile::TempDir,
    token: String,
}

/// One client with a connection of its own.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    token: String,
    wanted: Wanted,
}

/// The `bao` binary, if this machine has one.
pub fn binary() -> Option<PathBuf> {
    std::env::var_os("CLAVIGER_BENCH_BAO").map(PathBuf::from)
}

impl OpenBao {
    /// Starts the server and has it issue logins of `postgres`.
    pub async fn start(binary: &Path, postgres: &Postgres) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("claviger-bao-").tempdir()?;
        std::fs::create_dir(folder.path().join("raft"))?;
        std::fs::write(folder.path().join("bao.hcl"), config(folder.path()))?;
        let log = std::fs::File::create(folder.path().join("bao.log"))?;
        let child = Command::new(binary)
            .args(["server", "-config"])
            .arg(folder.path().join("bao.hcl"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("OpenBao cannot be started")?;
        let mut server = Self { child, folder, token: String::new() };
        poll::until("OpenBao listens", || {
            std::future::ready(std::os::unix::net::UnixStream::connect(server.socket()).ok())
        })
        .await;
        server.unseal().await?;
        server.furnish(postgres).await.with_context(|| server.log())?;
        Ok(server)
    }

    /// Clients.
    pub async fn clients(&self, count: usize, wanted: Wanted) -> Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            let sender = self.connect().await?;
            clients.push(Client { sender, token: self.token.clone(), wanted });
        }
        Ok(clients)
    }

    /// Ends every login that it has issued.
    pub async fn revoke_logins(&self) -> Result<()> {
        self.api(Method::PUT, "sys/leases/revoke-prefix/database/creds", json!({ "sync": true }))
            .await
            .map(drop)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn unseal(&mut self) -> Result<()> {
        let init = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let keys = self.api(Method::PUT, "sys/init", init).await?;
        let key = text(&keys, "/keys/0")?;
        self.api(Method::PUT, "sys/unseal", json!({ "key": key })).await?;
        self.token = text(&keys, "/root_token")?;
        for _ in 0..UNSEAL_LOOKS_MAX {
            let leader = self.api(Method::GET, "sys/leader", Value::Null).await?;
            if leader.pointer("/is_self") == Some(&Value::Bool(true)) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::bail!("OpenBao has no leader: {}", self.log())
    }

    async fn furnish(&mut self, postgres: &Postgres) -> Result<()> {
        let mount = json!({ "type": "database" });
        self.api(Method::POST, "sys/mounts/database", mount).await?;
        let connection = json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "readonly",
            "connection_url": format!(
                "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable",
                postgres.port()
            ),
            "username": postgres.superuser(),
            "password": postgres.password(),
            "max_open_connections": 16,
            "max_idle_connections": 16,
        });
        self.api(Method::POST, "database/config/orders", connection).await?;
        let role = json!({
            "db_name": "orders",
            "creation_statements": [CREATION],
            "default_ttl": "30m",
            "max_ttl": "1h",
        });
        self.api(Method::POST, "database/roles/readonly", role).await?;
        let policy = json!({ "policy": POLICY });
        self.api(Method::POST, "sys/policies/acl/agents", policy).await?;
        let token = json!({ "policies": ["agents"], "period": "24h" });
        let made = self.api(Method::POST, "auth/token/create", token).await?;
        self.token = text(&made, "/auth/client_token")?;
        Ok(())
    }

    async fn api(&self, method: Method, path: &str, body: Value) -> Result<Value> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body)? };
        let mut sender = self.connect().await?;
        let answer = ask(&mut sender, request(&method, path, &self.token, body)?).await?;
        if answer.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&answer)?) }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = UnixStream::connect(self.socket()).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("bao.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("bao.log")).unwrap_or_default()
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

impl Caller for Client {
    async fn call(&mut self) -> Result<()> {
        let request = match self.wanted {
            Wanted::Login => {
                request(&Method::GET, "database/creds/readonly", &self.token, Vec::new())
            }
            Wanted::Token => {
                request(&Method::POST, "auth/token/create", &self.token, LEASED_TOKEN.to_vec())
            }
        };
        ask(&mut self.sender, request?).await.map(drop)
    }
}

fn text(answer: &Value, pointer: &str) -> Result<String> {
    let found = answer.pointer(pointer).and_then(Value::as_str);
    Ok(found.with_context(|| format!("OpenBao answered without `{pointer}`"))?.to_owned())
}

fn request(
    method: &Method,
    path: &str,
    token: &str,
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>> {
    Request::builder()
        .method(method)
        .uri(format!("/v1/{path}"))
        .header("host", "localhost")
        .header("x-vault-token", token)
        .body(Full::new(body.into()))
        .context("a request")
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Bytes> {
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let text = || String::from_utf8_lossy(&body).into_owned();
    ensure!(status.is_success(), "OpenBao answered {status}: {}", text());
    Ok(body)
}

fn config(folder: &Path) -> String {
    let (api, cluster, folder) = (port::free(), port::free(), folder.display());
    format!(
        r#"
disable_mlock = true
api_addr = "http://127.0.0.1:{api}"
cluster_addr = "https://127.0.0.1:{cluster}"
storage "raft" {{
  path = "{folder}/raft"
  node_id = "one"
}}
listener "tcp" {{
  address = "127.0.0.1:{api}"
  cluster_address = "127.0.0.1:{cluster}"
  tls_disable = true
}}
listener "unix" {{
  address = "{folder}/bao.sock"
}}
audit "file" "to-file" {{
  options = {{ file_path = "{folder}/audit.log" }}
}}
"#
    )
}

/// As its documentation has it.
const CREATION: &str = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' \
    VALID UNTIL '{{expiration}}'; GRANT orders_readonly TO \"{{name}}\";";

const POLICY: &str = r#"
path "database/creds/readonly" { capabilities = ["read"] }
path "sys/leases/revoke-prefix/*" { capabilities = ["create", "update", "sudo"] }
path "auth/token/create" { capabilities = ["create", "update"] }
"#;

const LEASED_TOKEN: &[u8] = br#"{"policies":["default"],"ttl":"1h"}"#;

/// Ten seconds: it elects itself in two or three.
const UNSEAL_LOOKS_MAX: usize = 100;

const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(100);
