//! The guides, read as their readers do: block by block, with the names of a test's own machine in
//! place of those that a guide has.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::world::program;

/// A guide, with the reader's own names.
pub struct Guide(String);

impl Guide {
    /// The guide in `docs/guides/<name>.md`; of each pair, the second stands for the first.
    pub fn read(name: &str, own: &[(&str, &str)]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/guides/{name}.md"));
        let text = std::fs::read_to_string(path).expect("a guide");
        Self(replaced(&text, own))
    }

    /// Its blocks of one language, in order.
    pub fn blocks(&self, language: &str) -> Vec<&str> {
        let begin = format!("```{language}\n");
        let blocks = self.0.split(begin.as_str()).skip(1);
        blocks.map(|rest| rest.split("```").next().unwrap_or_default()).collect()
    }

    /// The block of `language` in which `part` stands.
    pub fn block_with(&self, language: &str, part: &str) -> &str {
        let found = self.blocks(language).into_iter().find(|block| block.contains(part));
        found.unwrap_or_else(|| panic!("no block of the guide has `{part}`"))
    }
}

/// `text` with the reader's own names: of each pair, the second stands for the first, which must
/// stand in it.
pub fn replaced(text: &str, own: &[(&str, &str)]) -> String {
    own.iter().fold(text.to_owned(), |text, (theirs, ours)| {
        assert!(text.contains(theirs), "no `{theirs}` to replace");
        text.replace(theirs, ours)
    })
}

/// A shell that runs `script` in `folder`, with our programs in its path.
pub fn shell(folder: &Path, script: &str) -> Command {
    let programs = program("claviger").parent().expect("a folder").to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(folder).stdin(Stdio::null());
    command.env("PATH", format!("{}:{path}", programs.display()));
    command
}

/// Runs `script` to its end, which must be a good one.
pub fn run(folder: &Path, script: &str) -> String {
    succeeded(&shell(folder, script).output().expect("a shell"), script)
}

/// What a command wrote that must have succeeded.
pub fn succeeded(output: &Output, what: &str) -> String {
    let (out, told) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}\n{out}\n{told}");
    out.into_owned()
}
