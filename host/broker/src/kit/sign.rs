//! `clavigerd plugin keygen | sign | verify`: signatures in minisign's format, over a component's
//! bytes and, in the trusted comment, its id and version.

use std::fs::OpenOptions;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Args;
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};

use crate::plugin::{self, Manifest, TrustedKey};
use crate::telemetry::say;

/// How to make a key pair.
#[derive(Args)]
pub struct KeygenArgs {
    /// Where the secret key goes; the public key goes beside it, with `.pub` at the end
    #[arg(long, default_value = "claviger-plugins.key")]
    key: PathBuf,
    /// Write the secret key unencrypted, for a vault that encrypts it. Otherwise the password is
    /// read from standard input
    #[arg(long)]
    without_password: bool,
}

/// What to sign, and with what.
#[derive(Args)]
pub struct SignArgs {
    /// The secret key file. Its password is read from standard input
    #[arg(long)]
    key: PathBuf,
    /// The key file is not encrypted
    #[arg(long)]
    without_password: bool,
    /// The component
    file: PathBuf,
}

/// What to verify.
#[derive(Args)]
pub struct VerifyArgs {
    /// A public key, `RW…`, as under `trusted_keys`; repeatable
    #[arg(long = "trusted-key", required = true)]
    trusted_keys: Vec<TrustedKey>,
    /// The signature [default: `<file>.minisig`]
    #[arg(long)]
    signature: Option<PathBuf>,
    /// The component
    file: PathBuf,
}

/// Makes a key pair. Never replaces a file.
pub fn keygen(args: &KeygenArgs) -> anyhow::Result<ExitCode> {
    let pair = if args.without_password {
        KeyPair::generate_unencrypted_keypair()
    } else {
        KeyPair::generate_encrypted_keypair(Some(new_password()?))
    };
    let pair = pair.context("no key pair could be made")?;
    let secret = pair.sk.to_box(Some("claviger plugin secret key"))?;
    let public = pair.pk.to_box()?;
    let public_path = beside(&args.key, ".pub");
    create(&args.key, 0o600, &secret.into_string())?;
    create(&public_path, 0o644, &public.into_string())?;
    say(&format!("secret key  {}", args.key.display()));
    say(&format!("public key  {}", public_path.display()));
    say(&format!(
        "brokers trust it with\n\n[signing]\ntrusted_keys = [\"{}\"]",
        pair.pk.to_base64()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Signs a component under its id and version.
pub fn sign(args: &SignArgs) -> anyhow::Result<ExitCode> {
    let key = read_key(&args.key, args.without_password)?;
    let (wasm, name) = component(&args.file)?;
    let public = PublicKey::from_secret_key(&key).context("the key file is damaged")?;
    let signature = minisign::sign(
        Some(&public),
        &key,
        wasm.as_slice(),
        Some(&name),
        Some("signature of a Claviger plugin"),
    );
    let signature = signature.context("it could not be signed")?.into_string();
    let path = beside(&args.file, ".minisig");
    let draft = beside(&args.file, ".minisig.draft");
    std::fs::write(&draft, signature)
        .and_then(|()| std::fs::rename(&draft, &path))
        .with_context(|| format!("`{}`", path.display()))?;
    say(&format!("signed {name} with {}: {}", public.to_base64(), path.display()));
    Ok(ExitCode::SUCCESS)
}

/// Verifies a component as the broker would.
pub fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let (wasm, name) = component(&args.file)?;
    let path = args.signature.clone().unwrap_or_else(|| beside(&args.file, ".minisig"));
    let signature =
        std::fs::read_to_string(&path).with_context(|| format!("`{}`", path.display()))?;
    match plugin::verify(&signature, &wasm, &name, &args.trusted_keys) {
        Ok(key) => {
            say(&format!("{name} is signed by {key}"));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => bail!("`{}` {error}", args.file.display()),
    }
}

/// The bytes of a component, and the name under which it is signed.
fn component(path: &Path) -> anyhow::Result<(Vec<u8>, String)> {
    let wasm = std::fs::read(path).with_context(|| format!("`{}`", path.display()))?;
    match Manifest::of_component(&wasm) {
        Ok(manifest) => Ok((wasm, plugin::signed_name(&manifest))),
        Err(error) => bail!("`{}` {error}", path.display()),
    }
}

fn read_key(path: &Path, without_password: bool) -> anyhow::Result<SecretKey> {
    let found = std::fs::metadata(path).with_context(|| format!("`{}`", path.display()))?;
    ensure!(
        found.mode() & 0o077 == 0,
        "others can read `{}`: make it private with `chmod 600`, or make a new key if they may have",
        path.display()
    );
    let text = std::fs::read_to_string(path).with_context(|| format!("`{}`", path.display()))?;
    let key = SecretKeyBox::from_string(&text)?;
    let key = if without_password {
        key.into_unencrypted_secret_key()
            .context("an encrypted key needs its password: leave out `--without-password`")
    } else {
        key.into_secret_key(Some(password("password of the key: ")?))
            .context("the password is wrong, or the key has none: see `--without-password`")
    };
    key.with_context(|| format!("`{}`", path.display()))
}

fn new_password() -> anyhow::Result<String> {
    let password = password("password for the new key: ")?;
    ensure!(!password.is_empty(), "an empty password protects nothing: see `--without-password`");
    Ok(password)
}

/// From standard input. A terminal shows what is typed, so a person is told to pipe it.
fn password(prompt: &str) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    ensure!(
        !stdin.is_terminal(),
        "{prompt}pipe it to standard input, such as from your password store; a terminal would show it"
    );
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn create(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    created
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("`{}` cannot be made", path.display()))
}
