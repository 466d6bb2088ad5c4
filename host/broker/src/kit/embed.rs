//! `clavigerd plugin embed-manifest`: for languages whose tools cannot add a custom section. The
//! manifest is checked as the broker will check it; the rest of the component stays as it is.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;

use super::{answer, read};
use crate::plugin::{Manifest, ManifestError, SECTION};

/// Which files.
#[derive(Args)]
pub struct EmbedArgs {
    /// The manifest, with both schemas
    manifest: PathBuf,
    /// The component without a manifest
    component: PathBuf,
    /// Where to write the component with the manifest
    output: PathBuf,
}

/// Writes the component with the manifest in it.
pub fn run(args: &EmbedArgs) -> anyhow::Result<ExitCode> {
    let manifest = read(&args.manifest)?;
    let component = read(&args.component)?;
    ensure!(
        matches!(Manifest::of_component(&component), Err(ManifestError::Missing)),
        "`{}` is not a component without a manifest",
        args.component.display()
    );
    let whole = with_section(component, &manifest);
    Manifest::of_component(&whole)
        .with_context(|| format!("`{}` {}", args.manifest.display(), "cannot be embedded"))?;
    std::fs::write(&args.output, &whole)
        .with_context(|| format!("`{}` cannot be written", args.output.display()))?;
    answer(&format!("wrote {} ({} bytes)", args.output.display(), whole.len()))?;
    Ok(ExitCode::SUCCESS)
}

/// Appends a custom section: the number 0, the length of what follows, name and content.
fn with_section(mut component: Vec<u8>, manifest: &[u8]) -> Vec<u8> {
    let mut body = leb128(SECTION.len());
    body.extend_from_slice(SECTION.as_bytes());
    body.extend_from_slice(manifest);
    component.push(0);
    component.extend(leb128(body.len()));
    component.extend(body);
    component
}

/// An unsigned number as WebAssembly writes it: seven bits a byte, the last without the high bit.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn the_broker_finds_what_was_embedded() {
        let manifest = serde_json::json!({
            "id": "example.x", "version": "0.1.0", "abi": crate::plugin::ABI, "title": "t",
            "settings-schema": {}, "parameters-schema": {},
            "credential": {"kind": "k", "fields": {"token": {"secret": true}}},
            "revocation": {"class": "revocable", "residual-exposure-secs": 0},
            "ttl": {"min-secs": 1},
        });
        let empty = b"\0asm\x0d\0\x01\0".to_vec();
        let whole = with_section(empty, manifest.to_string().as_bytes());
        assert_eq!(Manifest::of_component(&whole).unwrap().id, "example.x");
    }

    #[test]
    fn numbers_are_written_as_webassembly_reads_them() {
        assert_eq!(leb128(0), [0]);
        assert_eq!(leb128(127), [0x7f]);
        assert_eq!(leb128(624_485), [0xe5, 0x8e, 0x26]);
    }
}
