//! Makes a fresh machine ready for tests and demo. Installs from the distribution, and packages of
//! Python and Node.js below `target/`; says what and why, and never touches a PostgreSQL or MariaDB that is there already.

pub mod node;
pub mod python;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::step::{Step, probe};
use python::Outcome;

/// Whether to change the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Install what is missing.
    Install,
    /// Only tell what is missing and how to install it.
    Print,
}

/// Looks for what tests and demo need, and installs what is missing and can be installed.
pub fn run(paths: &Paths, mode: Mode) -> Result<()> {
    let programs = install_programs(mode)?;
    let packages = [python::install(paths, mode, python::TESTS)?, node::install(paths, mode)?];
    if programs == Outcome::Unmet || packages.contains(&Outcome::Unmet) {
        bail!("something required is missing: run the commands above, then this one again");
    }
    println!("xtask: set-up: everything is there");
    Ok(())
}

fn install_programs(mode: Mode) -> Result<Outcome> {
    let mut outcome = Outcome::Met;
    for need in NEEDS.into_iter().filter(|need| !need.is_met()) {
        println!("xtask: set-up: {} is missing; {}", need.name(), need.why());
        let remedy = need.remedy();
        match remedy {
            Remedy::Run(steps) if mode == Mode::Install => install(need, steps)?,
            Remedy::Run(steps) => {
                outcome = Outcome::Unmet;
                steps.iter().for_each(|step| println!("  {}", step.line()));
            }
            Remedy::Tell(lines) => {
                outcome = Outcome::Unmet;
                lines.iter().for_each(|line| println!("  {line}"));
            }
        }
    }
    Ok(outcome)
}

/// Something that must be on the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Rustc,
    CCompiler,
    CppCompiler,
    WasmTarget,
    PostgresServer,
    Psql,
    MariadbServer,
    MariadbClient,
    Npm,
    Python,
}

/// How to meet a need.
enum Remedy {
    /// This script can do it.
    Run(Vec<Step>),
    /// A person must.
    Tell(Vec<String>),
}

impl Need {
    const fn name(self) -> &'static str {
        match self {
            Self::Rustc => "rustc 1.95 or newer",
            Self::CCompiler => "a C compiler",
            Self::CppCompiler => "a C++ compiler",
            Self::WasmTarget => "the Rust target wasm32-wasip2",
            Self::PostgresServer => "a PostgreSQL server, version 15 or newer",
            Self::Psql => "psql",
            Self::MariadbServer => "a MariaDB server, version 10.11 or newer",
            Self::MariadbClient => "the mariadb client",
            Self::Npm => "npm",
            Self::Python => "Python 3.10 or newer with `venv`",
        }
    }

    const fn why(self) -> &'static str {
        match self {
            Self::Rustc => "the workspace is written for it",
            Self::CCompiler => "SQLite and the TLS library are built with it",
            Self::CppCompiler => "libFuzzer, which the fuzz targets link, is built with it",
            Self::WasmTarget => "plugins are built for it",
            Self::PostgresServer => "tests and demo issue logins on a real one of their own",
            Self::Psql => "tests and demo log in with it, as an agent would",
            Self::MariadbServer => "tests issue logins on a real one of their own",
            Self::MariadbClient => "tests log in with it, as an agent would",
            Self::Npm => {
                "tests have a real OpenID provider sign tokens, which is a program of Node.js; the \
                 plugin in JavaScript is built with it"
            }
            Self::Python => "a stand-in for AWS and the clients that use it are Python programs",
        }
    }

    fn is_met(self) -> bool {
        match self {
            Self::Rustc => probe("rustc", &["--version"])
                .is_some_and(|line| version(&line) >= Some(RUSTC_LEAST)),
            Self::CCompiler => {
                let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
                probe(&cc, &["--version"]).is_some()
            }
            Self::CppCompiler => {
                let cxx = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
                probe(&cxx, &["--version"]).is_some()
            }
            Self::WasmTarget => wasm_target_is_there(),
            Self::PostgresServer => postgres_folders().iter().any(|folder| {
                let initdb = probe(&folder.join("initdb").to_string_lossy(), &["--version"]);
                let server = probe(&folder.join("postgres").to_string_lossy(), &["--version"]);
                initdb.is_some()
                    && server.is_some_and(|line| version(&line) >= Some(POSTGRES_LEAST))
            }),
            Self::Psql => postgres_folders().iter().any(|folder| {
                probe(&folder.join("psql").to_string_lossy(), &["--version"]).is_some()
            }),
            Self::MariadbServer => {
                let installer = probe("sh", &["-c", "command -v mariadb-install-db"]);
                let server = ["/usr/sbin/mariadbd", "mariadbd"]
                    .iter()
                    .find_map(|program| probe(program, &["--version"]));
                installer.is_some()
                    && server.is_some_and(|line| mariadb_version(&line) >= Some(MARIADB_LEAST))
            }
            Self::MariadbClient => probe("mariadb", &["--version"]).is_some(),
            Self::Npm => probe("npm", &["--version"]).is_some(),
            Self::Python => probe("python3", &["-c", PYTHON_PROBE]).is_some(),
        }
    }

    fn remedy(self) -> Remedy {
        let tell = |line: &str| Remedy::Tell(vec![line.to_owned()]);
        match self {
            Self::Rustc => tell("rustup update stable    (or see https://rustup.rs)"),
            Self::CCompiler => packages(&["gcc", "libc6-dev"]),
            Self::CppCompiler => packages(&["g++"]),
            Self::WasmTarget if probe("rustup", &["--version"]).is_none() => {
                tell("install the standard library of wasm32-wasip2 the way you installed rustc")
            }
            Self::WasmTarget => {
                Remedy::Run(vec![Step::new("add the Rust target wasm32-wasip2", "rustup").args([
                    "target",
                    "add",
                    "wasm32-wasip2",
                ])])
            }
            Self::PostgresServer => packages(&["postgresql"]),
            Self::Psql => packages(&["postgresql-client"]),
            // Not `mariadb-server`, which starts one on port 3306 as soon as it is installed:
            // this package has the server's programs only, and tests start their own.
            Self::MariadbServer => packages(&["mariadb-server-core"]),
            Self::MariadbClient => packages(&["mariadb-client"]),
            Self::Npm => packages(&["nodejs", "npm"]),
            Self::Python => packages(&["python3", "python3-venv"]),
        }
    }
}

fn install(need: Need, steps: Vec<Step>) -> Result<()> {
    if need == Need::PostgresServer {
        leave_the_default_cluster_out()?;
    }
    for step in steps {
        step.run()?;
    }
    if need.is_met() {
        return Ok(());
    }
    bail!("{} is still missing after its installation: install it by hand", need.name())
}

fn packages(names: &[&str]) -> Remedy {
    let list = names.join(" ");
    if probe("apt-get", &["--version"]).is_none() {
        return Remedy::Tell(vec![format!(
            "install what your system calls `{list}` (Debian's names)"
        )]);
    }
    if probe("id", &["-u"]).as_deref() != Some("0") {
        return Remedy::Tell(vec![
            "sudo apt-get update".to_owned(),
            format!("sudo apt-get install --yes --no-install-recommends {list}"),
        ]);
    }
    let apt = |what: String| {
        // A script has nobody to answer questions: take every default and keep existing files.
        Step::new(what, "apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("UCF_FORCE_CONFFOLD", "1")
            .go_on("check the package sources of this machine and run `cargo xtask setup` again")
    };
    Remedy::Run(vec![
        apt("fetch the list of packages".to_owned()).args(["update", "--quiet"]),
        apt(format!("install {list}"))
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(names),
    ])
}

/// Debian starts a server on port 5432 as soon as the package is installed. Nothing here uses
/// it: tests and demo start their own. An existing file is the machine owner's and stays.
fn leave_the_default_cluster_out() -> Result<()> {
    let file = Path::new("/etc/postgresql-common/createcluster.conf");
    if file.exists() {
        return Ok(());
    }
    println!("xtask: write {}, so that no server starts by itself", file.display());
    let write = || {
        fs::create_dir_all(file.parent().unwrap_or(file))?;
        fs::write(file, "create_main_cluster = false\n")
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

fn wasm_target_is_there() -> bool {
    probe("rustc", &["--print", "sysroot"])
        .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/wasm32-wasip2/lib").is_dir())
}

/// Every folder that may hold PostgreSQL's programs: Debian keeps servers off the `PATH`.
fn postgres_folders() -> Vec<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian.map(|entry| entry.path().join("bin")).chain(std::env::split_paths(&path)).collect()
}

/// The first two numbers of a `--version` line; a missing second one is 0.
fn version(line: &str) -> Option<(u32, u32)> {
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    };
    let word = line.split_whitespace().find(|word| number(word).is_some())?;
    let (major, minor) = word.split_once('.').unwrap_or((word, "0"));
    Some((number(major)?, number(minor).unwrap_or(0)))
}

/// MariaDB's programs name themselves with a path or a protocol before the server's version.
fn mariadb_version(line: &str) -> Option<(u32, u32)> {
    line.split_once(" Ver ").and_then(|(_, rest)| version(rest))
}

/// What `rust-version` in Cargo.toml says; an older compiler refuses the workspace.
const RUSTC_LEAST: (u32, u32) = (1, 95);

/// The oldest server that the PostgreSQL plugin supports.
const POSTGRES_LEAST: (u32, u32) = (15, 0);

/// The oldest server that the MySQL plugin's tests have run on.
const MARIADB_LEAST: (u32, u32) = (10, 11);

/// Debian's `python3` has `venv` without what it needs to make an environment. The version is the
/// oldest that moto runs on.
const PYTHON_PROBE: &str = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))";

const NEEDS: [Need; 10] = [
    Need::Rustc,
    Need::CCompiler,
    Need::CppCompiler,
    Need::WasmTarget,
    Need::PostgresServer,
    Need::Psql,
    Need::MariadbServer,
    Need::MariadbClient,
    Need::Npm,
    Need::Python,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_as_the_programs_write_them() {
        let table = [
            ("rustc 1.95.0 (59807616e 2026-04-14)", Some((1, 95))),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some((15, 18))),
            ("postgres (PostgreSQL) 17beta1", Some((17, 0))),
            ("no number here", None),
        ];
        for (line, expect) in table {
            assert_eq!(version(line), expect, "{line}");
        }
        let mariadb = "/usr/sbin/mariadbd  Ver 10.11.19-MariaDB for debian-linux-gnu on x86_64";
        assert_eq!(mariadb_version(mariadb), Some((10, 11)));
    }
}
