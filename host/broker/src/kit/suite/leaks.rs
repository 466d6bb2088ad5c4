//! Looks for secrets where none may be: errors, logs, plain fields, join keys, handles.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use claviger_core::issued::Handle;
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, HEXLOWER, HEXUPPER};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use zeroize::Zeroizing;

/// Everything that was said, and every secret that must not be in it.
pub struct Seen {
    secrets: Vec<(&'static str, Zeroizing<String>)>,
    said: Vec<(String, Zeroizing<String>)>,
    log: LogText,
}

impl Seen {
    /// Begins with the broker's own secrets.
    pub fn new(roots: Vec<Zeroizing<String>>, log: LogText) -> Self {
        let secrets = roots.into_iter().map(|root| ("the root credential", root)).collect();
        Self { secrets, said: Vec::new(), log }
    }

    /// A secret that was minted.
    pub fn secret(&mut self, value: &Zeroizing<String>) {
        if self.secrets.len() < KEPT_MAX {
            self.secrets.push(("a minted secret", value.clone()));
        }
    }

    /// Something that people or files may see.
    pub fn said(&mut self, place: impl Into<String>, text: &str) {
        if self.said.len() < KEPT_MAX {
            self.said.push((place.into(), Zeroizing::new(text.to_owned())));
        }
    }

    /// What `issue` left for `revoke`: sealed in the journal, but no place for a secret either.
    pub fn handle(&mut self, handle: &Handle) {
        self.said("the handle", handle.as_str());
    }

    /// The first secret found where none may be.
    pub fn leak(&self) -> Option<String> {
        let log = ("the log".to_owned(), Zeroizing::new(self.log.text()));
        for (what, secret) in &self.secrets {
            for (form, needle) in forms(secret) {
                let place =
                    self.said.iter().chain([&log]).find(|(_, text)| text.contains(needle.as_str()));
                if let Some((place, _)) = place {
                    return Some(format!("{what} stands in {place}{form}"));
                }
            }
        }
        None
    }

    /// How much was searched.
    pub fn extent(&self) -> String {
        format!("{} secrets in {} texts and the log", self.secrets.len(), self.said.len())
    }
}

/// A secret as it is and in the writings in which it could hide. What is very short is found by
/// chance and is no secret.
fn forms(secret: &str) -> Vec<(&'static str, Zeroizing<String>)> {
    if secret.len() < SECRET_BYTES_MIN {
        return Vec::new();
    }
    let bytes = secret.as_bytes();
    // Without its last group, so that it is found inside a longer text too.
    let inner = bytes.get(..bytes.len() / 3 * 3).unwrap_or(bytes);
    vec![
        ("", Zeroizing::new(secret.to_owned())),
        (", in base64", Zeroizing::new(BASE64_NOPAD.encode(inner))),
        (", in base64", Zeroizing::new(BASE64.encode(bytes))),
        (", in base64url", Zeroizing::new(BASE64URL.encode(inner))),
        (", in hexadecimal digits", Zeroizing::new(HEXLOWER.encode(bytes))),
        (", in hexadecimal digits", Zeroizing::new(HEXUPPER.encode(bytes))),
        (", backwards", Zeroizing::new(secret.chars().rev().collect())),
    ]
}

/// Everything that is logged while the suite runs.
#[derive(Clone, Default)]
pub struct LogText(Arc<Mutex<Vec<u8>>>);

impl LogText {
    /// Takes the process's log from now on.
    pub fn start() -> Self {
        let log = Self::default();
        let filter = EnvFilter::new("debug,wasmtime=warn,cranelift=warn,regalloc2=warn,hyper=info");
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone());
        // Only a second suite in one process would find a log that is taken; it then sees less.
        let _taken = logs.json().try_init();
        log
    }

    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for LogText {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = LOG_BYTES_MAX.saturating_sub(log.len());
        log.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for LogText {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

/// A suite makes some fifty calls with some ten texts each.
const KEPT_MAX: usize = 4096;

/// 64 log lines of 2 KiB for each of some fifty calls.
const LOG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Eight characters of a random secret do not occur by chance.
const SECRET_BYTES_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn leak(text: &str) -> Option<String> {
        let mut seen =
            Seen::new(vec![Zeroizing::new("hunter2-root".to_owned())], LogText::default());
        seen.secret(&Zeroizing::new("minted-secret-1".to_owned()));
        seen.said("field `note`", text);
        seen.leak()
    }

    #[test]
    fn finds_secrets_in_every_writing() {
        for (text, expect) in [
            ("nothing", None),
            ("a hunter2-root b", Some("the root credential stands in field `note`")),
            ("xminted-secret-1x", Some("a minted secret stands in field `note`")),
            ("bWludGVkLXNlY3JldC0x", Some("a minted secret stands in field `note`, in base64")),
            (
                "6d696e7465642d7365637265742d31",
                Some("a minted secret stands in field `note`, in hexadecimal digits"),
            ),
            ("1-terces-detnim", Some("a minted secret stands in field `note`, backwards")),
        ] {
            assert_eq!(leak(text).as_deref(), expect, "{text}");
        }
    }
}
