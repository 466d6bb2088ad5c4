//! Compiles components in a child process, so that a hostile one can exhaust neither the memory
//! nor the time of the broker. There is no way to compile in the broker itself.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use thiserror::Error;

use super::artifact::Artifact;
use super::engine;
use super::manifest::LimitsClass;
use super::spec::component_bytes_max;
use crate::harden;

/// Starts compiling children.
#[derive(Clone, Debug)]
pub struct Compiler {
    program: PathBuf,
}

/// Why a component was not compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    /// No child.
    #[error(
        "`{}` cannot be started to compile it: {error}; nothing is compiled in the broker itself", program.display()
    )]
    Start {
        /// Which program.
        program: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The child's pipes broke.
    #[error("the process that compiles it was lost: {0}")]
    Lost(std::io::Error),
    /// Too slow.
    #[error("took longer than {} s to compile and was given up", .0.as_secs())]
    TooSlow(Duration),
    /// Too much machine code.
    #[error("compiles to more than {0} bytes")]
    TooLarge(u64),
    /// The child says no.
    #[error("is not a component that this broker can run: {0}")]
    Refused(String),
    /// The child was ended by one of its limits, or by a fault of the compiler.
    #[error(
        "made the compiler end without an answer ({status}): it takes more processor time or memory than compiling may, or the compiler has a fault; {told}"
    )]
    Killed {
        /// How it ended.
        status: ExitStatus,
        /// What it said last.
        told: String,
    },
}

impl Compiler {
    /// The compiler of this very program.
    pub fn of_this_program() -> Self {
        // The file may be replaced by an update while this runs: the kernel's link still leads
        // to the program that runs. A test is another program than the broker.
        Self::of(if cfg!(test) { tests_program() } else { PathBuf::from("/proc/self/exe") })
    }

    /// The compiler of the `clavigerd` at `program`.
    pub const fn of(program: PathBuf) -> Self {
        Self { program }
    }

    /// Compiles `wasm` and waits for it.
    pub(super) fn compile(
        &self,
        wasm: &[u8],
        class: LimitsClass,
    ) -> Result<Artifact, CompileError> {
        let caps = caps(class);
        let mut child = self.start(class)?;
        let deadline = Instant::now() + caps.wall;
        let ended = std::thread::scope(|scope| {
            let stdin = child.stdin.take();
            // A child that was killed reads no more; its exit tells why.
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(wasm)));
            let output = read_bounded(child.stdout.take(), caps.output_bytes_max);
            let told = read_bounded(child.stderr.take(), SENTENCE_BYTES_MAX);
            let status = wait(&mut child, deadline);
            (status, output.join(), told.join())
        });
        let (status, Ok(output), Ok(told)) = ended else {
            return Err(CompileError::Lost(std::io::Error::other("a thread ended early")));
        };
        let status = status.map_err(CompileError::Lost)?;
        let status = status.ok_or(CompileError::TooSlow(caps.wall))?;
        let output = output.map_err(CompileError::Lost)?;
        if output.len() as u64 > caps.output_bytes_max {
            return Err(CompileError::TooLarge(caps.output_bytes_max));
        }
        if status.success() {
            return Ok(Artifact::compiled(output));
        }
        let told = told.unwrap_or_default();
        let told = String::from_utf8_lossy(&told).trim().to_owned();
        // Only an orderly refusal ends with this code; a limit or a fault ends otherwise.
        match status.code() {
            Some(REFUSED) => Err(CompileError::Refused(told)),
            _ => Err(CompileError::Killed { status, told }),
        }
    }

    fn start(&self, class: LimitsClass) -> Result<Child, CompileError> {
        Command::new(&self.program)
            .arg0("clavigerd-compile")
            .args(["compile-component", class.as_str()])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| CompileError::Start { program: self.program.clone(), error })
    }
}

/// The whole life of the child: takes away what it does not need, reads a component from
/// standard input, writes machine code to standard output or a sentence to standard error.
pub fn child(class: LimitsClass) -> ExitCode {
    match compile_here(class) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text: String = format!("{error:#}").chars().take(SENTENCE_CHARS_MAX).collect();
            // If nobody reads it, the exit code still tells.
            let _unread = std::io::stderr().write_all(text.as_bytes());
            u8::try_from(REFUSED).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn compile_here(class: LimitsClass) -> anyhow::Result<()> {
    confine(class)?;
    let wasm_max = component_bytes_max(class);
    let mut wasm = Vec::new();
    std::io::stdin().lock().take(wasm_max as u64 + 1).read_to_end(&mut wasm)?;
    ensure!(wasm.len() <= wasm_max, "it has more than {wasm_max} bytes");
    let artifact = engine::for_compiling()
        .and_then(|engine| engine.precompile_component(&wasm))
        .map_err(|error| anyhow::anyhow!("{error:#}"))?;
    std::io::stdout().lock().write_all(&artifact).context("the broker reads no more")
}

/// Limits that hold for whatever the compiler is tricked into.
fn confine(class: LimitsClass) -> anyhow::Result<()> {
    let caps = caps(class);
    set_parent_process_death_signal(Some(Signal::KILL)).context("the process stays unwatched")?;
    // Before the limits: the kernel hands it a file for the moment.
    harden::close_files_of_compiler();
    for (resource, most) in [
        (Resource::As, caps.memory_bytes_max),
        (Resource::Cpu, caps.cpu.as_secs()),
        (Resource::Fsize, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Core, 0),
    ] {
        // Whoever started the broker may have set a lower one, which stays.
        let most = getrlimit(resource).maximum.map_or(most, |set| set.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .with_context(|| format!("the limit {resource:?} cannot be set"))?;
    }
    harden::close_calls_of_compiler();
    Ok(())
}

fn wait(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Reads to the end or one byte past the bound; a child that writes more finds nobody there.
fn read_bounded(
    pipe: Option<impl Read + Send + 'static>,
    most: u64,
) -> JoinHandle<std::io::Result<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            pipe.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

/// What compiling one component may take.
struct Caps {
    memory_bytes_max: u64,
    cpu: Duration,
    wall: Duration,
    output_bytes_max: u64,
}

const fn caps(class: LimitsClass) -> Caps {
    match class {
        LimitsClass::Standard => STANDARD,
        LimitsClass::Interpreted => INTERPRETED,
    }
}

/// The program that a test of this crate starts: the one beside the tests.
fn tests_program() -> PathBuf {
    let folder = std::env::var_os("CLAVIGER_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug"),
        PathBuf::from,
    );
    folder.join("clavigerd")
}

/// Of the address space, which is more than what is used: the allocator reserves 64 MiB for each
/// of the compiler's threads. The PostgreSQL plugin (265 KB) took 274 MiB of it and 42 MiB of
/// memory, and 0.7 s of processor time in an unoptimised build.
const STANDARD: Caps = Caps {
    memory_bytes_max: 2 * 1024 * 1024 * 1024,
    cpu: Duration::from_secs(60),
    wall: Duration::from_secs(60),
    output_bytes_max: 64 * 1024 * 1024,
};

/// Eight times the bytes, four to five times the caps: an interpreter's code is compiled once
/// and comes from the cache from then on. Not yet measured with an interpreter of 32 MiB.
const INTERPRETED: Caps = Caps {
    memory_bytes_max: 8 * 1024 * 1024 * 1024,
    cpu: Duration::from_secs(300),
    wall: Duration::from_secs(300),
    output_bytes_max: 256 * 1024 * 1024,
};

/// The three that it is given; a fourth cannot be opened.
const OPEN_FILES: u64 = 3;

/// Neither of a panic (101) nor of a signal (128 and more), so that a refusal is told apart.
const REFUSED: i32 = 3;

/// A compile takes a hundred times longer; a look costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// wasmtime's errors take a few lines.
const SENTENCE_CHARS_MAX: usize = 1000;

/// The same in the bytes of UTF-8.
const SENTENCE_BYTES_MAX: u64 = 4 * SENTENCE_CHARS_MAX as u64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn error(compiler: &Compiler, wasm: &[u8]) -> String {
        compiler.compile(wasm, LimitsClass::Standard).err().unwrap().to_string()
    }

    #[test]
    fn what_is_no_component_comes_back_as_a_sentence() {
        let said = error(&Compiler::of_this_program(), b"\0asm\x0d\0\x01\0rest");
        assert!(said.contains("not a component that this broker can run: "), "{said}");
        assert!(said.len() < 2000 && !said.contains("panicked"), "{said}");
    }

    #[test]
    fn without_a_child_nothing_is_compiled() {
        let said = error(&Compiler::of("/nonexistent/clavigerd".into()), b"\0asm\x0d\0\x01\0");
        assert!(said.contains("cannot be started to compile it"), "{said}");
    }

    #[test]
    fn the_child_takes_its_limits_before_it_reads_a_byte() {
        let mut child = Compiler::of_this_program().start(LimitsClass::Standard).unwrap();
        let path = format!("/proc/{}/limits", child.id());
        // It waits for a component that never comes.
        let limits = loop {
            let limits = std::fs::read_to_string(&path).unwrap();
            if limit(&limits, "Max open files") == OPEN_FILES.to_string() {
                break limits;
            }
            assert!(child.try_wait().unwrap().is_none(), "it ended:\n{limits}");
            std::thread::yield_now();
        };
        child.kill().unwrap();
        child.wait().unwrap();
        for (name, most) in [
            ("Max address space", STANDARD.memory_bytes_max),
            ("Max cpu time", STANDARD.cpu.as_secs()),
            ("Max file size", 0),
        ] {
            assert_eq!(limit(&limits, name), most.to_string(), "{limits}");
        }
    }

    /// The soft limit of this name in the kernel's table.
    fn limit<'t>(table: &'t str, name: &str) -> &'t str {
        let line = table.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default()
    }

    #[test]
    fn a_child_that_runs_out_of_memory_ends_without_harm() {
        let folder = tempfile::tempdir().unwrap();
        let wasm = std::fs::read(crate::plugin::tests::component_path("postgres")).unwrap();
        // 100 MB of address space: too little for what the compiler needs.
        let (program, limit) = (folder.path().join("clavigerd"), "ulimit -v 100000");
        let script = format!("#!/bin/bash\n{limit}\nexec {} \"$@\"\n", tests_program().display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let said = error(&Compiler::of(program), &wasm);
        // It ends, or says so, by where it ran out.
        let sentences = ["made the compiler end without an answer", "out of memory"];
        assert!(sentences.iter().any(|sentence| said.contains(sentence)), "{said}");
    }

    #[test]
    fn a_child_that_dies_is_told_apart_from_one_that_refuses() {
        let said = error(&Compiler::of("/bin/false".into()), b"\0asm\x0d\0\x01\0");
        assert!(said.contains("end without an answer"), "{said}");
    }

    #[test]
    fn an_empty_component_compiles_and_loads() {
        let compiler = Compiler::of_this_program();
        let artifact = compiler.compile(b"\0asm\x0d\0\x01\0", LimitsClass::Standard).unwrap();
        assert!(artifact.load(&engine::for_compiling().unwrap()).is_ok());
    }
}
