//! A temporary PostgreSQL cluster: own data, own port on 127.0.0.1, own unix socket. Does not
//! touch a cluster that the machine may be running.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::machine::{Owner, START_ATTEMPTS_MAX, free_port};

/// A running cluster, stopped and removed when dropped, and also when the test's process ends in
/// any other way: one in a `static` leaves nothing behind either.
///
/// The superuser is `postgres`. Every login, on TCP and on the unix socket, takes a password by
/// SCRAM-SHA-256, as on a well-kept server.
///
/// ```no_run
/// let server = claviger_test_servers::Postgres::start();
/// println!("{} {}", server.url(), server.password());
/// ```
pub struct Postgres {
    port: u16,
    folder: PathBuf,
    owner: Option<Owner>,
    binaries: PathBuf,
    watchdog: Option<Child>,
}

/// What a cluster has besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    /// Lines for `postgresql.conf`, such as `log_connections = on`.
    pub settings: Vec<String>,
    /// PEM files of the server's certificate and key; turns TLS on.
    pub tls: Option<(String, String)>,
}

impl Postgres {
    /// Starts a cluster with the defaults.
    pub fn start() -> Self {
        Self::start_with(&ClusterOptions::default())
    }

    /// Starts a cluster with `options`.
    ///
    /// A free port is found by asking the kernel for one; since another process may take it
    /// before the server does, starting is tried a few times.
    pub fn start_with(options: &ClusterOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("claviger-pg-").tempdir().unwrap().keep();
        let (owner, binaries) = (Owner::unless_plain_user("postgres"), binaries());
        let mut server = Self { port: free_port(), folder, owner, binaries, watchdog: None };
        server.take_over_folder();
        server.watchdog = Some(server.watch());
        server.init(options);
        let mut attempts = 1;
        while !server.try_start() {
            assert!(attempts < START_ATTEMPTS_MAX, "no start:\n{}", server.log_text());
            attempts += 1;
            server.port = free_port();
        }
        server
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the unix socket.
    pub fn socket_folder(&self) -> &Path {
        &self.folder
    }

    /// The superuser's name.
    pub fn superuser(&self) -> &'static str {
        SUPERUSER
    }

    /// The superuser's password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The address of database `postgres` as Claviger's configuration writes it, without
    /// credentials.
    pub fn url(&self) -> String {
        format!("postgres://127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// A libpq connection string for the superuser.
    pub fn dsn(&self) -> String {
        format!(
            "host=127.0.0.1 port={} user={SUPERUSER} password={PASSWORD} dbname=postgres",
            self.port
        )
    }

    /// What the server has logged so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Runs SQL as the superuser through `psql` and returns what it prints, unaligned and
    /// without headings. Fails the test if the SQL fails.
    pub fn psql(&self, sql: &str) -> String {
        let output = self.try_psql(SUPERUSER, PASSWORD, sql);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{sql}` failed: {error}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Runs SQL as `user` through `psql`: for logins that may be refused.
    pub fn try_psql(&self, user: &str, password: &str, sql: &str) -> Output {
        Command::new(self.binaries.join("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"])
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-U", user, "-d", "postgres", "-c", sql])
            .env("PGPASSWORD", password)
            .output()
            .unwrap()
    }

    /// Stops the server at once, as a power cut would; the data stay.
    pub fn stop(&self) {
        self.pg_ctl(&["stop", "-m", "immediate", "-w"]);
    }

    /// Starts the server again on the same port.
    pub fn start_again(&self) {
        assert!(self.try_start(), "no start:\n{}", self.log_text());
    }

    fn try_start(&self) -> bool {
        let port = format!("-p {}", self.port);
        self.pg_ctl(&["start", "-w", "-t", "60", "-o", &port]).status.success()
    }

    fn take_over_folder(&self) {
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(owner) = self.owner {
            chown(&self.folder, Some(owner.uid), Some(owner.gid)).unwrap();
        }
    }

    /// A process that waits for the end of this one, seen as the end of its input, and then
    /// stops and removes the cluster. In a process group of its own, so that the Ctrl-C that
    /// ends the test does not end it.
    fn watch(&self) -> Child {
        let script = r#"cat >/dev/null; "$0" stop -D "$1" -m immediate -w; rm -rf "$2""#;
        let mut command = self.command_at(Path::new("sh"));
        command.arg("-c").arg(script).arg(self.binaries.join("pg_ctl"));
        command.arg(self.data()).arg(&self.folder).process_group(0).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    fn init(&self, options: &ClusterOptions) {
        let password = self.folder.join("password");
        self.write(&password, PASSWORD);
        let mut initdb = self.command("initdb");
        initdb
            .args(["-U", SUPERUSER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C"])
            .args(["--no-sync", "--no-instructions"])
            .arg(format!("--pwfile={}", password.display()))
            .arg("-D")
            .arg(self.data());
        let output = initdb.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb failed: {error}");
        self.configure(options);
    }

    fn configure(&self, options: &ClusterOptions) {
        let mut lines = vec![
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("unix_socket_directories = '{}'", self.folder.display()),
            "fsync = off".to_owned(),
            "log_line_prefix = '%m [%p] user=%u db=%d app=%a '".to_owned(),
        ];
        if let Some((certificate, key)) = &options.tls {
            self.write(&self.data().join("server.crt"), certificate);
            self.write(&self.data().join("server.key"), key);
            lines.push("ssl = on".to_owned());
        }
        lines.extend(options.settings.iter().cloned());
        let path = self.data().join("postgresql.conf");
        let defaults = fs::read_to_string(&path).unwrap();
        self.write(&path, &format!("{defaults}\n{}\n", lines.join("\n")));
    }

    /// Writes a file that only the cluster's owner can read.
    fn write(&self, path: &Path, content: &str) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some(owner) = self.owner {
            chown(path, Some(owner.uid), Some(owner.gid)).unwrap();
        }
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.data()).arg("-l").arg(self.log()).args(arguments);
        command.output().unwrap()
    }

    fn command(&self, binary: &str) -> Command {
        self.command_at(&self.binaries.join(binary))
    }

    fn command_at(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).stdin(Stdio::null());
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            let _gone = watchdog.wait();
        }
    }
}

/// Debian keeps the server's programs off the PATH, one folder a version: the newest is taken.
fn binaries() -> PathBuf {
    let folders = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = folders.map(|entry| entry.path()).max_by_key(version);
    let folder = newest.expect("no PostgreSQL server found: run `apt-get install postgresql`");
    folder.join("bin")
}

const SUPERUSER: &str = "postgres";

/// Long enough never to stand in a message by chance: tests search logs and errors for it.
const PASSWORD: &str = "root-password-of-the-test-cluster";
