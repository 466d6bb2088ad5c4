//! A broker that listens with TLS, and the authority of its clients.

use tonic::transport::Channel;

use crate::broker::Broker;
use crate::pki::{Authority, Certified, connect, presented};
use crate::world::{Settings, World};
use crate::{poll, port};

/// A broker, its world and its certificates.
pub struct Remote {
    /// The files and the database.
    pub world: World,
    /// The process.
    pub broker: Broker,
    /// Who certified the broker and its clients.
    pub authority: Authority,
    /// Where it listens.
    pub port: u16,
    /// Where it listens for operators.
    pub admin_port: u16,
}

impl Remote {
    /// Starts one that demands certificates.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts one with `more` in `[listen.tls]`.
    pub async fn start_with(more: &str) -> Self {
        let (port, admin_port, authority) = (port::free(), port::free(), Authority::new());
        let files = "certificate = \"tls/server.pem\"\nkey = \"file:tls/server.key\"\n\
                     client_ca = \"tls/ca.pem\"\n";
        let more = format!(
            "[listen.tls]\naddress = \"127.0.0.1:{port}\"\n{files}{more}\n\
             [listen.admin_tls]\naddress = \"127.0.0.1:{admin_port}\"\n{files}\n"
        );
        let world = World::with(Settings { more, ..Settings::default() });
        world.write("tls/ca.pem", &authority.pem());
        put(&world, &authority.server());
        let broker = Broker::start(&world).await;
        let remote = Self { world, broker, authority, port, admin_port };
        poll::until("the broker listens with TLS", || {
            std::future::ready(presented(port, &remote.authority.pem()))
        })
        .await;
        remote
    }

    /// A connection of `client`.
    pub async fn channel(&self, client: &Certified) -> Channel {
        connect(self.port, &self.authority.pem(), Some(client)).await.expect("a connection")
    }

    /// Gives the broker another certificate and waits until it shows it.
    pub async fn rotate(&self, server: &Certified) {
        put(&self.world, server);
        let (port, ca) = (self.port, self.authority.pem());
        poll::until("the broker shows its new certificate", || {
            let shown = presented(port, &ca).is_some_and(|shown| shown == server.der());
            std::future::ready(shown.then_some(()))
        })
        .await;
    }
}

/// Puts the broker's certificate and its key where the configuration names them.
pub fn put(world: &World, server: &Certified) {
    world.write("tls/server.pem", &server.certificate);
    world.write("tls/server.key", &server.key);
}

/// The agent of these tests.
pub const AGENT: &str = "spiffe://example.org/agent";
