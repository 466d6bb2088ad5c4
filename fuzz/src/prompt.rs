//! Prompt files, which anybody who can open a pull request writes.

use claviger_core::prompt::{AUTHORIZATIONS_MAX, PromptFile, Role, Sidecar, parse};

/// Reads `data` as a prompt file; a NUL, which no prompt holds, divides it from a sidecar.
pub fn run(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let prompt = parts.next().unwrap_or_default();
    let sidecar = parts.next();
    let Some(role) = read(prompt, sidecar) else { return };
    assert!(role.authorizations.len() <= AUTHORIZATIONS_MAX);
    // What the model reads declares nothing: more of it changes no authorization.
    let longer = [prompt, b"\nauthorizations: [all.of.it]\n---\n"].concat();
    if let Some(longer) = read(&longer, sidecar) {
        assert_eq!(role.authorizations, longer.authorizations, "the body declared something");
        assert_ne!(role.digest, longer.digest, "another file with the same digest");
    }
    // No declaration outlives its sidecar.
    if sidecar.is_some()
        && let Some(alone) = read(prompt, None)
    {
        assert!(
            alone.authorizations.is_empty() || alone.authorizations == role.authorizations,
            "two declarations were not refused"
        );
    }
}

fn read(bytes: &[u8], sidecar: Option<&[u8]>) -> Option<Role> {
    let sidecar = sidecar.map(|bytes| Sidecar { path: "agents/a.authz.yaml", bytes });
    let file = PromptFile { path: "agents/a.md", bytes, sidecar };
    match parse(&file) {
        Ok(role) => Some(role),
        Err(error) => {
            let of = if error.path == file.path { bytes } else { file.sidecar?.bytes };
            let lines = of.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 2;
            assert!(error.at.line <= lines, "{error}: the file has no such line");
            assert!(error.to_string().len() < MESSAGE_BYTES_MAX, "a refusal of any length");
            None
        }
    }
}

/// Refusals quote a part of what they refuse, never all of it.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
