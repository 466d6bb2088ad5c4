//! The manifest of a component that nobody has looked at yet: the first bytes of a stranger that
//! the broker reads.

use clavigerd::plugin::{Manifest, ManifestError};

/// Reads `data` as a component, and as the manifest in one.
pub fn run(data: &[u8]) {
    if let Ok(manifest) = Manifest::of_component(data) {
        keeps_its_promises(&manifest);
    }
    let component = component(data);
    match Manifest::of_component(&component) {
        Ok(manifest) => keeps_its_promises(&manifest),
        Err(error) => assert!(
            error.to_string().len() < MESSAGE_BYTES_MAX + 2 * data.len(),
            "a refusal grows faster than what it refuses"
        ),
    }
    let mut twice = component;
    twice.extend(section(b"{}"));
    let refused = Manifest::of_component(&twice).err();
    assert_eq!(refused, Some(ManifestError::Several(2)), "a second manifest is never passed over");
}

fn keeps_its_promises(manifest: &Manifest) {
    assert!(manifest.abi.starts_with("claviger:provider@0.1."), "{}", manifest.abi);
    let fields = &manifest.credential.fields;
    assert!(fields.len() <= 16 && manifest.join_keys.len() <= 8, "more than a lease holds");
    for (at, (name, _)) in fields.iter().enumerate() {
        assert!(fields.iter().skip(at + 1).all(|(other, _)| other != name), "`{name}` twice");
    }
}

/// A component of nothing but a manifest.
fn component(manifest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    bytes.extend(section(manifest));
    bytes
}

/// A custom section of the manifest's name.
fn section(content: &[u8]) -> Vec<u8> {
    let name = b"claviger:manifest";
    let mut section = vec![0];
    let mut left = content.len() + name.len() + 1;
    // LEB128, as WebAssembly writes lengths.
    while left >= 0x80 {
        section.push(0x80 | u8::try_from(left & 0x7f).unwrap_or_default());
        left >>= 7;
    }
    section.push(u8::try_from(left).unwrap_or_default());
    section.push(u8::try_from(name.len()).unwrap_or_default());
    section.extend(name);
    section.extend(content);
    section
}

/// What a sentence takes without what it quotes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
