//! The broker's configuration: whatever stands in the file, it is read or refused with a line.

use std::path::Path;

use clavigerd::config::ConfigFile;

/// Reads `data` as `claviger.toml`.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ConfigFile::parse(Path::new(PATH), text.to_owned()) {
        Ok(file) => {
            let again = ConfigFile::parse(Path::new(PATH), text.to_owned()).expect("read before");
            assert_eq!(file.sha256(), again.sha256(), "the digest is of the text alone");
            // What later refuses a value looks for its line, whatever the text is like.
            let problem = file.problem(&["backends", "b", "scopes", "s"], "no").to_string();
            assert!(line(&problem).is_none_or(|line| line <= lines(text)), "{problem}");
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with(PATH), "{error}");
            assert!(line(&error).is_none_or(|line| line <= lines(text)), "{error}");
        }
    }
}

/// The line that a problem names, if it names one.
fn line(problem: &str) -> Option<usize> {
    problem.strip_prefix(PATH)?.strip_prefix(':')?.split(':').next()?.parse().ok()
}

fn lines(text: &str) -> usize {
    text.matches('\n').count() + 1
}

const PATH: &str = "claviger.toml";
