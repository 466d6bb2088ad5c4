//! The project's own text files. Skips what tools write and what is not part of the project.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Every file that the checks look at.
pub struct Tree {
    /// In the order of their paths.
    pub files: Vec<TextFile>,
}

/// One file.
pub struct TextFile {
    /// From the root of the project, with slashes.
    pub path: String,
    /// What stands in it.
    pub text: String,
}

impl Tree {
    /// Reads the files of the project at `root`.
    pub fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        read_folder(root, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// The files whose names end in `.extension`.
    pub fn with_extension(&self, extension: &str) -> impl Iterator<Item = &TextFile> {
        self.files.iter().filter(move |file| {
            Path::new(&file.path).extension().is_some_and(|found| found == extension)
        })
    }

    /// The files of this name, in any folder.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &TextFile> {
        self.files
            .iter()
            .filter(move |file| Path::new(&file.path).file_name().is_some_and(|f| f == name))
    }

    /// The file at `path`.
    pub fn at(&self, path: &str) -> Option<&TextFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

fn read_folder(folder: &Path, path: &str, files: &mut Vec<TextFile>) -> Result<()> {
    let cannot = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let kind = entry.file_type().with_context(cannot)?;
        if kind.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_str()) {
            read_folder(&entry.path(), &path, files)?;
        }
        let extension = Path::new(&name).extension().and_then(|found| found.to_str());
        if kind.is_file() && extension.is_some_and(|found| EXTENSIONS.contains(&found)) {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("read {path}"))?;
            files.push(TextFile { path, text });
        }
    }
    Ok(())
}

/// `target` and `gen` are written by tools, `.git` by git; `seeds` hold what no style guide asks of
/// text.
const SKIPPED_FOLDERS: [&str; 4] = ["target", "gen", ".git", "seeds"];

const EXTENSIONS: [&str; 7] = ["rs", "toml", "lock", "wit", "proto", "md", "cedar"];
