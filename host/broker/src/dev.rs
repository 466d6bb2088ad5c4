//! `clavigerd dev`: a broker for one developer on this machine. Sockets, journal, sealing key and
//! a permissive policy are made in one folder; whatever the configuration says itself, counts.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use clap::Args;
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::config::ConfigFile;
use crate::telemetry;

/// How to run the broker for one developer.
#[derive(Args)]
pub struct DevArgs {
    /// A configuration that may leave out `[listen]`, `[journal]`, `[policies]`, `[prompts]` and
    /// the `sha256` of plugins.
    #[arg(short, long)]
    config: PathBuf,
    /// Where sockets, journal and key are kept [default: $XDG_RUNTIME_DIR/claviger, else
    /// /tmp/claviger-<uid>].
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Makes what is left out, and gives the configuration that the broker of one developer serves.
pub fn prepare(args: DevArgs) -> anyhow::Result<ConfigFile> {
    let folder = args.dir.unwrap_or_else(default_folder);
    let folder = make_private(&folder)?;
    make_key(&folder.join("sealing.key"))?;
    let text = std::fs::read_to_string(&args.config)
        .with_context(|| format!("`{}` cannot be read", args.config.display()))?;
    let appended = completion(&text, &folder)?;
    let file = ConfigFile::parse_completed(&args.config, text, &appended)?;
    let listen = &file.config().listen;
    for (section, tls) in [("tls", &listen.tls), ("admin_tls", &listen.admin_tls)] {
        let Some(tls) = tls else { continue };
        anyhow::ensure!(
            tls.address.ip().is_loopback(),
            "`listen.{section}.address` is `{}`, but `dev` serves this machine only: use a loopback address",
            tls.address
        );
    }
    banner(&file, &folder);
    Ok(file)
}

fn default_folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) => Path::new(&runtime).join("claviger"),
        None => {
            std::env::temp_dir().join(format!("claviger-{}", rustix::process::geteuid().as_raw()))
        }
    }
}

/// Makes the folder, or takes one that nobody else can write to: in a shared temporary folder,
/// another user could have made it first.
fn make_private(folder: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    if !folder.exists() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    let metadata = std::fs::symlink_metadata(folder)?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    anyhow::ensure!(
        metadata.is_dir() && own && metadata.mode() & 0o022 == 0,
        "`{}` is not a folder that only you can write to: name another with --dir",
        folder.display()
    );
    folder.canonicalize().with_context(|| format!("`{}`", folder.display()))
}

fn make_key(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut key = Zeroizing::new([0_u8; 32]);
    SystemRandom::new().fill(key.as_mut()).map_err(|_| anyhow::anyhow!("no random bytes"))?;
    let text = Zeroizing::new(HEXLOWER.encode(key.as_ref()));
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// The sections that the configuration leaves out.
fn completion(text: &str, folder: &Path) -> anyhow::Result<String> {
    let given: toml::Table = text.parse().context("the configuration does not parse")?;
    let at = |name: &str| toml::Value::from(folder.join(name).display().to_string());
    if !given.contains_key("policies") {
        let policies = folder.join("policies");
        std::fs::create_dir_all(&policies)?;
        std::fs::write(policies.join("dev.cedar"), DEV_POLICY)?;
    }
    if !given.contains_key("prompts") {
        std::fs::create_dir_all(folder.join("prompts"))?;
    }
    let key = toml::Value::from(format!("file:{}", folder.join("sealing.key").display()));
    let sections = [
        ("listen", format!("socket = {}\nadmin_socket = {}", at("agent.sock"), at("admin.sock"))),
        ("journal", format!("path = {}\nsealing_key = {key}", at("journal.db"))),
        ("policies", format!("path = {}", at("policies"))),
        ("prompts", format!("path = {}", at("prompts"))),
    ];
    let left_out = sections.iter().filter(|(name, _)| !given.contains_key(*name));
    Ok(left_out.map(|(name, body)| format!("\n[{name}]\n{body}\n")).collect())
}

fn banner(file: &ConfigFile, folder: &Path) {
    let config = file.config();
    let plain = config.listen.plain.as_ref().map(|plain| {
        format!(" WITHOUT TLS: http://{}, where any local process can connect.", plain.address)
    });
    for line in [
        "==============================================================================".to_owned(),
        " clavigerd dev: for one developer on this machine. NOT FOR PRODUCTION.".to_owned(),
        " Plugins may be unpinned, and the sealing key lies beside the journal.".to_owned(),
        format!(" state      {}", folder.display()),
        format!(" policies   {}", config.policies.path.display()),
        format!(" prompts    {}", config.prompts.path.display()),
        format!(" agents     export CLAVIGER_SOCKET={}", config.listen.socket.display()),
        format!(
            " operator   export CLAVIGER_ADMIN_SOCKET={}",
            config.listen.admin_socket.display()
        ),
        "==============================================================================".to_owned(),
    ]
    .into_iter()
    .chain(plain)
    {
        telemetry::say(&line);
    }
}

/// The guardrails still hold: nothing undeclared, nothing sensitive, nothing above the cap.
const DEV_POLICY: &str = r#"// Written by `clavigerd dev`: permits every role whatever its prompt file declares.
@id("dev.sessions")
permit (principal, action == Action::"open_session", resource);

@id("dev.issue")
permit (principal, action == Action::"issue", resource);
"#;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn completes_only_what_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let given = "[prompts]\npath = \"mine\"\n".to_owned();
        let appended = completion(&given, folder.path()).expect("completed");
        let file = ConfigFile::parse_completed(Path::new("dev.toml"), given, &appended);
        let file = file.expect("valid");
        assert_eq!(file.config().prompts.path, Path::new("mine"));
        assert_eq!(file.config().journal.path, folder.path().join("journal.db"));
    }

    #[test]
    fn refuses_a_folder_that_others_can_write_to() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777))
            .expect("set");
        assert!(make_private(folder.path()).is_err());
    }

    #[test]
    fn keeps_a_key_that_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        make_key(&path).expect("made");
        let first = std::fs::read(&path).expect("read");
        make_key(&path).expect("kept");
        assert_eq!(std::fs::read(&path).expect("read"), first);
        assert_eq!(first.len(), 64);
    }
}
