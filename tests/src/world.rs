//! A realistic world in a temporary folder: prompt files, policies, a configuration and a
//! PostgreSQL database with something worth protecting.

use std::path::{Path, PathBuf};

use claviger_test_servers::{ClusterOptions, Postgres};
use tempfile::TempDir;

use crate::poll;

/// Files and servers of one test.
pub struct World {
    /// The database server.
    pub postgres: Postgres,
    folder: TempDir,
    settings: Settings,
}

/// What a test may set differently.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `heartbeat_grace` of sessions.
    pub heartbeat_grace: &'static str,
    /// `intent_timeout` of the journal.
    pub intent_timeout: &'static str,
    /// Appended to the configuration.
    pub more: String,
    /// How its database server is set up.
    pub cluster: ClusterOptions,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_grace: "60s",
            intent_timeout: "30s",
            more: String::new(),
            cluster: ClusterOptions::default(),
        }
    }
}

impl World {
    /// The world with the usual settings.
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    /// The world with other settings.
    pub fn with(settings: Settings) -> Self {
        let postgres = Postgres::start_with(&settings.cluster);
        furnish(&postgres);
        let folder = tempfile::Builder::new().prefix("claviger-").tempdir().expect("a folder");
        let world = Self { postgres, folder, settings };
        for (name, text) in PROMPTS {
            world.write(&format!("prompts/{name}"), text);
        }
        world.write("policies/teams.cedar", POLICIES);
        world.write("secrets/admin", ADMIN_PASSWORD);
        world.write("secrets/sealing", &"5a".repeat(32));
        world.write_config();
        world
    }

    /// The temporary folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.path().join("claviger.toml")
    }

    /// Writes a file of the world, with its folders, in one step as editors do.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let draft = path.with_extension("draft");
        std::fs::write(&draft, text).expect("written");
        std::fs::rename(&draft, &path).expect("renamed");
    }

    /// Changes the configuration: `from`, which must stand in it, becomes `to`.
    pub fn configure(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).expect("read");
        assert!(text.contains(from), "no `{from}` in {text}");
        self.write("claviger.toml", &text.replacen(from, to, 1));
    }

    /// The names of the login roles that Claviger made and that exist now.
    pub fn logins(&self) -> Vec<String> {
        logins_on(&self.postgres)
    }

    /// Waits until no login role is left that Claviger made.
    pub async fn until_no_logins(&self) {
        let gone = || std::future::ready(self.logins().is_empty().then_some(()));
        poll::until("every login role is gone", gone).await;
    }

    fn write_config(&self) {
        let plugin = plugins().join("postgres.wasm");
        let sha256 = sha256_of(&plugin);
        let Settings { heartbeat_grace, intent_timeout, more, .. } = &self.settings;
        let (port, plugin) = (self.postgres.port(), plugin.display());
        self.write(
            "claviger.toml",
            &format!(
                r#"
[listen]
socket = "agent.sock"
admin_socket = "admin.sock"
[journal]
path = "state/journal.db"
sealing_key = "file:secrets/sealing"
intent_timeout = "{intent_timeout}"
[sessions]
heartbeat_grace = "{heartbeat_grace}"
[policies]
path = "policies"
[prompts]
path = "prompts"
[plugins.postgres]
path = "{plugin}"
sha256 = "{sha256}"
[backends.orders-db]
plugin = "postgres"
[backends.orders-db.connections.admin]
address = "postgres://127.0.0.1:{port}/postgres?sslmode=disable"
auth = {{ password = {{ user = "claviger", password = "file:secrets/admin" }} }}
[backends.orders-db.scopes.readonly]
authorization = "orders.read"
max_ttl = "1h"
grant_role = "orders_readonly"
[backends.orders-db.scopes.readwrite]
authorization = "orders.write"
max_ttl = "15m"
grant_role = "orders_readwrite"
[backends.orders-db.scopes.owner]
authorization = "orders.read"
tier = "sensitive"
grant_role = "orders_readwrite"
{more}
"#
            ),
        );
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// The database that every world protects, on a server of the test's own.
pub fn furnish(postgres: &Postgres) {
    postgres.psql(DATABASE);
}

/// The login roles that Claviger made on `postgres` and that exist now.
pub fn logins_on(postgres: &Postgres) -> Vec<String> {
    let found =
        postgres.psql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'clav\\_%' ORDER BY 1");
    found
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("clav_"))
        .map(str::to_owned)
        .collect()
}

/// The folder of the built plugins.
pub fn plugins() -> PathBuf {
    from_env("CLAVIGER_PLUGINS", "../target/plugins")
}

/// The built program of that name.
pub fn program(name: &str) -> PathBuf {
    from_env("CLAVIGER_BIN", "../target/debug").join(name)
}

/// The stanza that loads the plugin of that name.
pub fn plugin_stanza(name: &str) -> String {
    let path = plugins().join(format!("{name}.wasm"));
    let (sha256, path) = (sha256_of(&path), path.display());
    format!("[plugins.{name}]\npath = \"{path}\"\nsha256 = \"{sha256}\"\n")
}

fn from_env(variable: &str, default: &str) -> PathBuf {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(default),
    };
    path.canonicalize().unwrap_or_else(|error| {
        panic!("`{}`: {error}: run `cargo xtask test`, which builds it", path.display())
    })
}

/// The digest of a file, in hex.
pub fn sha256_of(path: &Path) -> String {
    let output =
        std::process::Command::new("sha256sum").arg(path).output().expect("sha256sum runs");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().next().expect("a digest").to_owned()
}

/// The password of the broker's own user; a canary that must appear nowhere.
pub const ADMIN_PASSWORD: &str = "canary-root-password-7f3a";

const DATABASE: &str = "
CREATE ROLE claviger LOGIN CREATEROLE PASSWORD 'canary-root-password-7f3a';
CREATE ROLE orders_readonly NOLOGIN;
CREATE ROLE orders_readwrite NOLOGIN;
CREATE ROLE orders_auditor NOLOGIN;
GRANT orders_readonly, orders_readwrite, orders_auditor TO claviger WITH ADMIN OPTION;
GRANT pg_signal_backend TO claviger;
CREATE TABLE orders (id int PRIMARY KEY, total_cents int NOT NULL);
INSERT INTO orders SELECT n, n * 100 FROM generate_series(1, 10) n;
GRANT SELECT ON orders TO orders_readonly, orders_readwrite, orders_auditor;
GRANT INSERT, UPDATE, DELETE ON orders TO orders_readwrite;
";

const PROMPTS: [(&str, &str); 3] = [
    (
        "support-triage.md",
        "---\nname: support-triage\ndescription: Reads billing tickets and proposes refunds.\n\
         tools: Read, Grep\nauthorizations:\n  - orders.read\n---\nYou triage support tickets.\n",
    ),
    (
        "incident-responder.md",
        "---\nname: incident-responder\nauthorizations:\n  - orders.read\n  - orders.write: { max_ttl: 10m }\n\
         ---\nYou mend broken orders.\n",
    ),
    ("code-reviewer.md", "---\nname: code-reviewer\ntools: Read\n---\nYou review code.\n"),
];

const POLICIES: &str = r#"
@id("sessions")
permit (principal, action == Action::"open_session", resource);

@id("orders.readonly")
@max_ttl("30m")
permit (principal, action == Action::"issue", resource == Scope::"orders-db/readonly");

@id("orders.readwrite")
permit (principal in Role::"incident-responder", action == Action::"issue", resource == Scope::"orders-db/readwrite");
"#;
