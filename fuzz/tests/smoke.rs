//! Each fuzz target for a moment, in the ordinary tests: the seeds, every input that ever found a
//! fault, and thousands of their mutations, the same ones each time. Sees no coverage:
//! `cargo xtask fuzz` searches.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use claviger_fuzz::{TARGETS, Target};

#[test]
fn no_target_finds_a_fault_in_a_moment() {
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(move || try_for_a_moment(target));
        }
    });
}

#[test]
fn the_program_runs_the_seeds_of_each_target() {
    for target in TARGETS {
        let output = run(target.name, seed_files(target.name));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{}` found a fault:\n{said}", target.name);
        assert!(said.contains("Executed "), "`{}` ran nothing:\n{said}", target.name);
    }
}

#[test]
fn an_unknown_target_is_refused_by_name() {
    let output = run("nothing", seed_files("config"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("set it to one of config, extract"), "{said}");
}

fn try_for_a_moment(target: &Target) {
    let seeds: Vec<_> =
        seed_files(target.name).iter().map(|file| fs::read(file).unwrap()).collect();
    seeds.iter().for_each(|seed| try_one(target, seed));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..MUTATIONS {
        let mut input = random.pick(&seeds).clone();
        for _ in 0..=random.below(6) {
            mutate(&mut input, &seeds, &mut random);
        }
        try_one(target, &input);
    }
}

fn try_one(target: &Target, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    assert!(outcome.is_ok(), "`{}` fails on {}", target.name, input.escape_ascii());
}

/// One small change: a byte, a piece gone, a piece twice, a piece of another seed.
fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = input.len().min(at + random.below(PIECE_BYTES));
    match random.below(5) {
        0 => input.insert(at, *random.pick(&SPECIAL)),
        1 if at < input.len() => input.splice(at..=at, [*random.pick(&SPECIAL)]).for_each(drop),
        2 => drop(input.drain(at..end)),
        3 => {
            let piece: Vec<_> = input.drain(at..end).collect();
            input.splice(at..at, [piece.clone(), piece].concat()).for_each(drop);
        }
        _ => {
            let other = random.pick(seeds);
            let from = random.below(other.len() + 1);
            let piece = other.iter().skip(from).take(PIECE_BYTES).copied();
            input.splice(at..at, piece).for_each(drop);
        }
    }
}

/// xorshift64: no run differs from another.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % end.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.get(self.below(from.len())).unwrap()
    }
}

fn seed_files(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let Ok(entries) = folder.read_dir() else { panic!("`{target}` has no seeds") };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "`{target}` has no seeds");
    files.sort();
    files
}

/// Runs the program in a folder where libFuzzer may write what it finds.
fn run(target: &str, files: Vec<PathBuf>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_claviger-fuzz"))
        .env("CLAVIGER_FUZZ_TARGET", target)
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .arg("-timeout=20")
        .args(files)
        .output()
        .unwrap()
}

/// A few seconds without optimisation.
const MUTATIONS: u32 = 4_000;
const PIECE_BYTES: usize = 24;
/// What the grammars of the targets turn on.
const SPECIAL: [u8; 24] = *b"\0\n\r\t \"'`\\{}[]<>&;:,-#%\xff\xc3";
