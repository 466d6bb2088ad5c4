//! Claviger's side: a broker as a process of its own, and agents that ask it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use claviger_bench::load::Caller;
use claviger_e2e::aws::IssuerPage;
use claviger_e2e::broker::Broker;
use claviger_e2e::client::{self, Agent};
use claviger_e2e::pki::{Authority, Certified, connect};
use claviger_e2e::port;
use claviger_e2e::remote::{AGENT, put};
use claviger_e2e::world::{Settings, World, plugin_stanza};
use claviger_proto::v1;
use claviger_test_servers::ClusterOptions;
use tonic::transport::Channel;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A login of the database.
    Login,
    /// A token that the broker signs itself.
    Token,
}

/// How agents reach the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The unix socket, as on one machine.
    Socket,
    /// TLS 1.3, the broker's certificate and the agents' own both proven.
    Tls,
}

/// A broker with a database and an issuer of tokens.
pub struct Claviger {
    /// Its folder, and the database.
    pub world: World,
    broker: Option<Broker>,
    metrics_port: u16,
    tls: Tls,
}

/// What agents connect with from elsewhere.
struct Tls {
    port: u16,
    ca: String,
    client: Certified,
}

/// An agent that asks for the same credential again and again.
#[derive(Clone)]
pub struct Asking {
    agent: Agent,
    scope: &'static str,
}

impl Claviger {
    /// Starts database and broker.
    pub async fn start() -> Result<Self> {
        let (metrics_port, port, authority) = (port::free(), port::free(), Authority::new());
        let world = world(metrics_port, port);
        world.write("tls/ca.pem", &authority.pem());
        put(&world, &authority.server());
        let broker = Some(start(&world).await?);
        let tls = Tls { port, ca: authority.pem(), client: authority.client(&[AGENT]) };
        Ok(Self { world, broker, metrics_port, tls })
    }

    /// Where its metrics are.
    pub const fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// The running broker.
    pub fn broker(&self) -> Result<&Broker> {
        self.broker.as_ref().context("the broker is stopped")
    }

    /// Stops it in order.
    pub async fn stop(&mut self) -> Result<()> {
        let broker = self.broker.take().context("the broker is stopped")?;
        ensure!(broker.stop().await.success(), "the broker did not stop in order");
        Ok(())
    }

    /// Starts it again.
    pub async fn start_again(&mut self) -> Result<()> {
        self.broker = Some(start(&self.world).await?);
        Ok(())
    }

    /// Agents with a session each.
    pub async fn agents(&self, count: usize, wanted: Wanted) -> Result<Vec<Asking>> {
        self.agents_over(Over::Socket, count, wanted).await
    }

    /// Agents with a session each, that reach the broker as said.
    pub async fn agents_over(
        &self,
        over: Over,
        count: usize,
        wanted: Wanted,
    ) -> Result<Vec<Asking>> {
        let channels = match over {
            Over::Socket => channels(self.broker()?.socket(), count).await,
            Over::Tls => self.tls.channels(count).await?,
        };
        let mut agents = Vec::with_capacity(count);
        for channel in channels.iter().cycle().take(count) {
            agents.push(Asking::open(channel.clone(), wanted).await?);
        }
        Ok(agents)
    }

    /// Ends the sessions of `agents` and waits until nothing that they got works any more.
    pub async fn end(&self, agents: Vec<Asking>) -> Result<()> {
        for asking in agents {
            asking.agent.close().await.context("a session cannot be closed")?;
        }
        self.until_nothing_is_due().await
    }

    async fn until_nothing_is_due(&self) -> Result<()> {
        let admin = self.broker()?.admin_socket();
        let states = [v1::LeaseState::Open, v1::LeaseState::Active, v1::LeaseState::Due];
        while !client::lease_rows(&admin, &states).await.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl Tls {
    async fn channels(&self, count: usize) -> Result<Vec<Channel>> {
        let mut channels = Vec::new();
        for _ in 0..count.clamp(1, CONNECTIONS_MAX) {
            channels.push(connect(self.port, &self.ca, Some(&self.client)).await?);
        }
        Ok(channels)
    }
}

impl Asking {
    async fn open(channel: Channel, wanted: Wanted) -> Result<Self> {
        let (role, scope) = match wanted {
            Wanted::Login => ("support-triage", "orders-db/readonly"),
            Wanted::Token => ("report-builder", "tokens/reports"),
        };
        let agent = Agent::open_on(channel, role, None).await.context("no session")?;
        Ok(Self { agent, scope })
    }

    /// Closes its session.
    pub async fn close(&self) -> Result<()> {
        self.agent.close().await.context("a session cannot be closed")?;
        Ok(())
    }
}

impl Caller for Asking {
    async fn call(&mut self) -> Result<()> {
        self.agent.issue(self.scope).await.map(drop).context("nothing was issued")
    }
}

/// Connections that `count` callers share: from some point on, more of them only cost.
pub async fn channels(socket: PathBuf, count: usize) -> Vec<Channel> {
    let mut channels = Vec::new();
    for _ in 0..count.clamp(1, CONNECTIONS_MAX) {
        channels.push(client::channel(&socket).await);
    }
    channels
}

/// The log goes where the broker does not watch for changes of its configuration.
async fn start(world: &World) -> Result<Broker> {
    let folder = world.path().join("log");
    std::fs::create_dir_all(&folder)?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("broker.log"));
    let log = log?;
    let redirect = |command: &mut std::process::Command| {
        command.stderr(log);
    };
    Ok(Broker::start_with(world, redirect).await)
}

fn world(metrics_port: u16, tls_port: u16) -> World {
    let page = IssuerPage::new();
    let (issuer, plugin) = (&page.stanza, plugin_stanza("oidc-token"));
    let metrics = format!("[metrics]\naddress = \"127.0.0.1:{metrics_port}\"\n");
    let tls = format!("[listen.tls]\naddress = \"127.0.0.1:{tls_port}\"\n{TLS_FILES}");
    let more = format!("{issuer}\n{metrics}\n{tls}\n{plugin}\n{TOKENS}");
    let settings = ["fsync = on", "max_connections = 200"].map(str::to_owned).to_vec();
    let cluster = ClusterOptions { settings, ..ClusterOptions::default() };
    let world =
        World::with(Settings { heartbeat_grace: "1h", more, cluster, ..Settings::default() });
    world.write("prompts/report-builder.md", PROMPT);
    world.write("policies/tokens.cedar", POLICIES);
    page.write_into(&world);
    world
}

const TLS_FILES: &str = r#"certificate = "tls/server.pem"
key = "file:tls/server.key"
client_ca = "tls/ca.pem"
"#;

const TOKENS: &str = r#"
[backends.tokens]
plugin = "oidc-token"
[backends.tokens.connections.issuer]
audiences = ["reports.example"]
[backends.tokens.scopes.reports]
authorization = "tokens.reports"
audience = "reports.example"
max_ttl = "1h"
"#;

const PROMPT: &str =
    "---\nname: report-builder\nauthorizations:\n  - tokens.reports\n---\nYou build reports.\n";

const POLICIES: &str = r#"
@id("tokens")
permit (principal in Role::"report-builder", action == Action::"issue", resource == Scope::"tokens/reports");
"#;

/// Agents are on one machine and have a connection each; but a load of hundreds from two cores
/// would measure its own connections.
const CONNECTIONS_MAX: usize = 16;

/// Between two looks at whether everything is gone; not a part of any figure.
const LOOK_EVERY: Duration = Duration::from_millis(50);
