//! What a component may import, and the host functions behind it. An import outside the grant
//! set is refused by name; nothing is ever linked to a trap.

use thiserror::Error;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{Engine, Result};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, filesystem, random};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView};

use super::bindings;
use super::call::Call;

/// What a plugin was granted beyond what every plugin has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// `claviger:sql`.
    pub sql: Grant,
    /// `claviger:egress`.
    pub http: Grant,
    /// `claviger:jwt`.
    pub jwt: Grant,
}

/// Whether one door is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Requested by the manifest and bound by the operator.
    Given,
    /// The manifest requests it; no backend binds it.
    Unbound,
    /// The manifest does not request it.
    Unrequested,
}

/// Why a component was not linked.
#[derive(Debug, Error)]
pub enum LinkError {
    /// It imports what no plugin gets.
    #[error(
        "imports `{0}`, which no plugin gets: a plugin reaches the outside through granted connections only"
    )]
    Forbidden(String),
    /// It imports a door that its manifest does not name.
    #[error(
        "imports `{import}` but its manifest requests no connection of kind `{kind}`: add one under `connections`"
    )]
    Unrequested {
        /// The import.
        import: String,
        /// The kind of connection behind it.
        kind: &'static str,
    },
    /// It imports a door that nobody granted.
    #[error(
        "imports `{import}` but no backend binds a connection of kind `{kind}` for it: add a backend that uses the plugin, or remove the plugin"
    )]
    Unbound {
        /// The import.
        import: String,
        /// The kind of connection behind it.
        kind: &'static str,
    },
    /// Its imports or exports do not match the contract.
    #[error("does not match the plugin contract: {0}")]
    Mismatch(String),
}

/// Links `component` to what `grants` allow.
pub fn link(component: &Component, grants: Grants) -> Result<InstancePre<Call>, LinkError> {
    let engine = component.engine();
    for (import, _) in component.component_type().imports(engine) {
        check_import(import, grants)?;
    }
    let mismatch = |error: wasmtime::Error| LinkError::Mismatch(format!("{error:#}"));
    let linker = linker(engine, grants).map_err(mismatch)?;
    linker.instantiate_pre(component).map_err(mismatch)
}

/// Whether a component may import `import`.
pub fn check_import(import: &str, grants: Grants) -> Result<(), LinkError> {
    let doors = [
        ("claviger:sql/", "sql", grants.sql),
        ("claviger:egress/", "http", grants.http),
        ("claviger:jwt/", "jwt", grants.jwt),
    ];
    if let Some((_, kind, grant)) = doors.into_iter().find(|(door, ..)| import.starts_with(door)) {
        let import = import.to_owned();
        return match grant {
            Grant::Given => Ok(()),
            Grant::Unbound => Err(LinkError::Unbound { import, kind }),
            Grant::Unrequested => Err(LinkError::Unrequested { import, kind }),
        };
    }
    if ALWAYS.iter().any(|prefix| import.starts_with(prefix)) {
        return Ok(());
    }
    Err(LinkError::Forbidden(import.to_owned()))
}

fn linker(engine: &Engine, grants: Grants) -> Result<Linker<Call>> {
    let mut linker = Linker::new(engine);
    bindings::add_always(&mut linker)?;
    if grants.sql == Grant::Given {
        bindings::add_sql(&mut linker)?;
    }
    if grants.http == Grant::Given {
        bindings::add_http(&mut linker)?;
    }
    if grants.jwt == Grant::Given {
        bindings::add_jwt(&mut linker)?;
    }
    add_empty_wasi(&mut linker)?;
    Ok(linker)
}

/// The parts of WASI that Rust's standard library imports, over an empty context. No sockets, no
/// `wasi:http`: they are not linked at all.
fn add_empty_wasi(linker: &mut Linker<Call>) -> Result<()> {
    // Streams, polling, clocks, random bytes, standard input and outputs.
    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(linker)?;
    random::insecure::add_to_linker::<Call, WasiRandom>(linker, Call::random)?;
    random::insecure_seed::add_to_linker::<Call, WasiRandom>(linker, Call::random)?;
    cli::exit::add_to_linker::<Call, WasiCli>(linker, Call::cli)?;
    cli::environment::add_to_linker::<Call, WasiCli>(linker, Call::cli)?;
    cli::terminal_input::add_to_linker::<Call, WasiCli>(linker, Call::cli)?;
    cli::terminal_output::add_to_linker::<Call, WasiCli>(linker, Call::cli)?;
    cli::terminal_stdin::add_to_linker::<Call, WasiCli>(linker, Call::cli)?;
    cli::terminal_stdout::add_to_linker::<Call, WasiCli>(linker, Call::cli)?;
    cli::terminal_stderr::add_to_linker::<Call, WasiCli>(linker, Call::cli)?;
    filesystem::preopens::add_to_linker::<Call, WasiFilesystem>(linker, Call::filesystem)?;
    filesystem::types::add_to_linker::<Call, WasiFilesystem>(linker, Call::filesystem)
}

/// What every plugin may import. The doors are granted one by one.
const ALWAYS: [&str; 10] = [
    "claviger:types/",
    "claviger:log/",
    "claviger:provider/calls",
    "claviger:provider/rotation-calls",
    "claviger:provider/key-rotation-calls",
    "wasi:cli/",
    "wasi:io/",
    "wasi:clocks/",
    "wasi:random/",
    "wasi:filesystem/",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_granted_doors_open() {
        for (import, door, sentence) in [
            ("claviger:types/errors@0.1.0", Grant::Unrequested, ""),
            ("wasi:cli/environment@0.2.3", Grant::Unrequested, ""),
            ("claviger:sql/sql@0.1.0", Grant::Given, ""),
            ("claviger:sql/sql@0.1.0", Grant::Unbound, "no backend binds"),
            ("claviger:egress/http@0.1.0", Grant::Unrequested, "of kind `http`"),
            ("claviger:jwt/jwt@0.1.0", Grant::Unbound, "of kind `jwt`"),
            ("wasi:sockets/tcp@0.2.3", Grant::Given, "which no plugin gets"),
            ("wasi:http/outgoing-handler@0.2.0", Grant::Given, "which no plugin gets"),
            ("claviger:provider/provider@0.1.0", Grant::Given, "which no plugin gets"),
            ("env", Grant::Given, "which no plugin gets"),
        ] {
            let grants = Grants { sql: door, http: door, jwt: door };
            let refusal = check_import(import, grants).err().map(|e| e.to_string());
            match refusal {
                None => assert!(sentence.is_empty(), "{import} {door:?}"),
                Some(text) => assert!(!sentence.is_empty() && text.contains(sentence), "{text}"),
            }
        }
    }
}
