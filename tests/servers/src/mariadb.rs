//! A temporary MariaDB: own data, own port on 127.0.0.1, own unix socket. Does not touch a server
//! that the machine may be running.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::machine::{Owner, START_ATTEMPTS_MAX, free_port};

/// A running server, stopped and removed when dropped, and also when the test's process ends in
/// any other way: one in a `static` leaves nothing behind either.
///
/// The only account is `root`, with a password, from everywhere. The database `app` is there.
///
/// ```no_run
/// let server = claviger_test_servers::Mariadb::start();
/// println!("{} {}", server.url(), server.password());
/// ```
pub struct Mariadb {
    port: u16,
    folder: PathBuf,
    owner: Option<Owner>,
    watchdog: Option<Child>,
}

/// What a server has besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct MariadbOptions {
    /// PEM texts of the server's certificate and key; turns TLS on.
    pub tls: Option<(String, String)>,
}

impl Mariadb {
    /// Starts a server with the defaults.
    pub fn start() -> Self {
        Self::start_with(&MariadbOptions::default())
    }

    /// Starts a server with `options`.
    ///
    /// A free port is found by asking the kernel for one; since another process may take it
    /// before the server does, starting is tried a few times.
    pub fn start_with(options: &MariadbOptions) -> Self {
        let mut log = String::new();
        for _ in 0..START_ATTEMPTS_MAX {
            let server = Self::launch(options);
            if server.is_ready() {
                return server;
            }
            log = server.log_text();
        }
        panic!("no start:\n{log}");
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// The administrator's name.
    pub fn superuser(&self) -> &'static str {
        "root"
    }

    /// The administrator's password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The address of database `app` as Claviger's configuration writes it, without credentials.
    pub fn url(&self) -> String {
        format!("mysql://127.0.0.1:{}/app?sslmode=disable", self.port)
    }

    /// What the server has logged so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
    }

    /// Runs SQL as the administrator through `mariadb` and returns what it prints, without
    /// headings. Fails the test if the SQL fails.
    pub fn sql(&self, sql: &str) -> String {
        let output = self.try_sql(self.superuser(), PASSWORD, sql);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{sql}` failed: {error}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Runs SQL as `user` through `mariadb`: for logins that may be refused.
    pub fn try_sql(&self, user: &str, password: &str, sql: &str) -> Output {
        self.client(user, password).args(["-e", sql]).stdin(Stdio::null()).output().unwrap()
    }

    /// The `mariadb` client, ready to connect as `user`.
    pub fn client(&self, user: &str, password: &str) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "--batch", "--skip-column-names", "-h", "127.0.0.1"])
            .args(["-P", &self.port.to_string(), "-u", user, "app"])
            .env("MYSQL_PWD", password);
        command
    }

    fn launch(options: &MariadbOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("claviger-maria-").tempdir().unwrap().keep();
        let owner = Owner::unless_plain_user("nobody");
        let mut server = Self { port: free_port(), folder, owner, watchdog: None };
        server.hand_over(&server.folder, 0o755);
        server.write("init.sql", &ACCOUNTS.replace("{password}", PASSWORD));
        if let Some((certificate, key)) = &options.tls {
            server.write("server.crt", certificate);
            server.write("server.key", key);
        }
        server.install();
        server.watchdog = Some(server.run(options));
        server
    }

    /// The server under a process that waits for the end of this one, seen as the end of its
    /// input, and then stops the server and removes its data. In a process group of its own, so
    /// that the Ctrl-C that ends the test does not end it.
    fn run(&self, options: &MariadbOptions) -> Child {
        let at =
            |option: &str, file: &str| format!("--{option}={}", self.folder.join(file).display());
        let mut command = self.command("sh");
        command.args(["-c", WATCHDOG]).arg(&self.folder).arg(server_program());
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
        command.arg(format!("--port={}", self.port)).arg(self.tmpdir()).args(FRUGAL);
        for (option, file) in FILES {
            command.arg(at(option, file));
        }
        if options.tls.is_some() {
            command.args([at("ssl-cert", "server.crt"), at("ssl-key", "server.key")]);
        }
        command.process_group(0).current_dir("/").stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn install(&self) {
        let output = self
            .command("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", "--skip-name-resolve"])
            .arg(format!("--datadir={}", self.folder.join("data").display()))
            .arg(self.tmpdir())
            .args(FRUGAL)
            .output()
            .expect("no MariaDB server found: run `cargo xtask setup`");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mariadb-install-db failed: {error}");
    }

    /// A server that starts removes the temporary tables that it finds, those of a neighbour too.
    fn tmpdir(&self) -> String {
        format!("--tmpdir={}", self.folder.display())
    }

    /// Asks until the server answers. `false` if it gave up, such as for a port that was taken.
    fn is_ready(&self) -> bool {
        let began = Instant::now();
        while began.elapsed() < START_TIME_MAX {
            if self.try_sql(self.superuser(), PASSWORD, "SELECT 1").status.success() {
                return true;
            }
            if self.log_text().contains("Aborting") {
                return false;
            }
        }
        false
    }

    fn hand_over(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        if let Some(owner) = self.owner {
            chown(path, Some(owner.uid), Some(owner.gid)).unwrap();
        }
    }

    /// Writes a file that only the server's owner can read.
    fn write(&self, name: &str, content: &str) {
        let path = self.folder.join(name);
        fs::write(&path, content).unwrap();
        self.hand_over(&path, 0o600);
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).stdin(Stdio::null());
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            let _gone = watchdog.wait();
        }
    }
}

/// Debian keeps the server off the PATH of plain users.
fn server_program() -> &'static str {
    let debian = "/usr/sbin/mariadbd";
    if Path::new(debian).exists() { debian } else { "mariadbd" }
}

/// `$0` is the folder, the rest the server and its arguments. The data need no orderly end.
const WATCHDOG: &str = r#""$@" & cat >/dev/null; kill -9 $!; wait; rm -rf "$0""#;

/// Everything in the server's own folder.
const FILES: [(&str, &str); 5] = [
    ("datadir", "data"),
    ("socket", "socket"),
    ("log-error", "server.log"),
    ("pid-file", "pid"),
    ("init-file", "init.sql"),
];

/// A test needs no durable data and little memory.
const FRUGAL: [&str; 3] =
    ["--innodb-flush-method=nosync", "--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M"];

/// Leaves one account, as on a well-kept server: no anonymous one, and none without a password.
const ACCOUNTS: &str = "\
CREATE OR REPLACE USER root@'%' IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
DELETE FROM mysql.global_priv WHERE user = '' OR (user = 'root' AND host <> '%');
FLUSH PRIVILEGES;
CREATE DATABASE app;
";

/// Long enough never to stand in a message by chance: tests search logs and errors for it.
const PASSWORD: &str = "root-password-of-the-test-server";

/// A start takes about a second; on a busy machine some more.
const START_TIME_MAX: Duration = Duration::from_secs(60);
