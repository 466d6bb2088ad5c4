//! From a plugin's configuration to what the plugin host is told: its bytes, its pin, how it must
//! be signed. Judges neither bytes nor signature.

use std::path::PathBuf;
use std::sync::Arc;

use claviger_core::name::PluginName;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest, Sha256};

use crate::app::Mode;
use crate::config::{Config, ConfigError, ConfigFile, PluginConfig, Requirement};
use crate::plugin::{PluginSpec, Signing, Terms, TrustedKey};

/// Every configured plugin, or what is wrong with it.
pub fn specs(file: &ConfigFile, mode: Mode) -> Vec<Result<PluginSpec, ConfigError>> {
    let trusted = match trusted_keys(file) {
        Ok(trusted) => trusted,
        Err(problem) => return vec![Err(problem)],
    };
    let plugins = file.config().plugins.iter();
    plugins.map(|(name, config)| spec(file, mode, &trusted, (name, config))).collect()
}

/// Where a plugin and its signature are.
pub fn files(file: &ConfigFile, config: &PluginConfig) -> (PathBuf, PathBuf) {
    let component = file.base().join(&config.path);
    let signature = config.signature.as_ref().map_or_else(
        || {
            let mut beside = component.clone().into_os_string();
            beside.push(".minisig");
            PathBuf::from(beside)
        },
        |path| file.base().join(path),
    );
    (component, signature)
}

fn spec(
    file: &ConfigFile,
    mode: Mode,
    trusted: &Arc<[TrustedKey]>,
    (name, config): (&PluginName, &PluginConfig),
) -> Result<PluginSpec, ConfigError> {
    let (path, signature) = files(file, config);
    let keys = |last: &'static str| ["plugins", name.as_str(), last];
    let bytes = std::fs::read(&path)
        .map_err(|error| file.problem(&keys("path"), format!("`{}`: {error}", path.display())))?;
    let sha256_pin = match &config.sha256 {
        None => None,
        Some(text) => Some(
            pin(text)
                .ok_or_else(|| file.problem(&keys("sha256"), "64 hexadecimal digits are wanted"))?,
        ),
    };
    let signing = Signing {
        require: requirement(file.config(), mode, config.require_signature),
        signature: read_signature(file, config, &signature)
            .map_err(|problem| file.problem(&keys("signature"), problem))?,
        path: signature,
        trusted: Arc::clone(trusted),
    };
    if sha256_pin.is_none() && signing.require == Requirement::UnlessPinned && !is_signing(file) {
        let found = HEXLOWER.encode(&Sha256::digest(&bytes));
        return Err(file.problem(&keys("sha256"), format!("a plugin is loaded by its digest only: review the file and write `sha256 = \"{found}\"`, or trust its publisher's key under `[signing]`")));
    }
    let terms = Terms { signing, limits: config.limits };
    Ok(PluginSpec { name: name.clone(), path, bytes, sha256_pin, terms })
}

fn is_signing(file: &ConfigFile) -> bool {
    file.config().signing.is_some()
}

/// When a plugin must be signed that says `own` of itself, or nothing. INVARIANT (two-persons): what
/// loosens this is recognised by the same rule; under another, a plugin could lose its guard with
/// nobody asked.
pub fn requirement(config: &Config, mode: Mode, own: Option<Requirement>) -> Requirement {
    let general = config.signing.as_ref().map(|signing| signing.require_signature);
    own.or(general).unwrap_or(match mode {
        Mode::Serve => Requirement::UnlessPinned,
        Mode::Dev => Requirement::NeverAndIAcceptUnsignedPlugins,
    })
}

/// A signature that merely lies beside the plugin counts only where signatures count.
fn read_signature(
    file: &ConfigFile,
    config: &PluginConfig,
    path: &PathBuf,
) -> Result<Option<String>, String> {
    let asked = is_signing(file) || config.require_signature.is_some();
    if config.signature.is_none() && !asked {
        return Ok(None);
    }
    match std::fs::metadata(path) {
        Ok(found) if found.len() > SIGNATURE_BYTES_MAX => {
            return Err(format!("`{}` is too large for a signature", path.display()));
        }
        _ => {}
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match &config.signature {
            Some(_) => Err(format!("`{}` is not there", path.display())),
            None => Ok(None),
        },
        Err(error) => Err(format!("`{}`: {error}", path.display())),
    }
}

fn trusted_keys(file: &ConfigFile) -> Result<Arc<[TrustedKey]>, ConfigError> {
    let texts = file.config().signing.iter().flat_map(|signing| &signing.trusted_keys);
    texts
        .map(|text| text.parse())
        .collect::<Result<_, _>>()
        .map_err(|error| file.problem(&["signing", "trusted_keys"], error))
}

fn pin(text: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// Four lines, of which the comments may be long.
const SIGNATURE_BYTES_MAX: u64 = 16 * 1024;
