//! Reads the folder of prompt files. Which bytes mean what is the core's to say.

use std::io::Read;
use std::path::{Path, PathBuf};

use claviger_core::prompt::{
    PROMPT_BYTES_MAX, PromptFile, Roles, SIDECAR_BYTES_MAX, Sidecar, collect, parse,
};

use crate::policies::PolicyLoadError;

/// Every role below `folder`. A file that fails leaves out its own role; a folder that cannot be
/// read fails the whole, since its roles would silently vanish.
pub fn read(folder: &Path) -> Result<Roles, PolicyLoadError> {
    let mut files = Vec::new();
    find(folder, DEPTH_MAX, &mut files)?;
    files.sort();
    let mut results = Vec::new();
    for path in &files {
        results.push(role(folder, path)?);
    }
    Ok(collect(results))
}

/// The path of `path` as seen from `folder`, for people.
pub fn name_in(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

/// The sidecar that belongs to the prompt file at `path`.
pub fn sidecar_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SIDECAR_SUFFIX);
    PathBuf::from(name)
}

fn role(
    folder: &Path,
    path: &Path,
) -> Result<Result<claviger_core::prompt::Role, claviger_core::prompt::PromptError>, PolicyLoadError>
{
    let bytes = read_bounded(path, PROMPT_BYTES_MAX)?;
    let sidecar_path = sidecar_of(path);
    let sidecar_name = name_in(folder, &sidecar_path);
    let sidecar_bytes = match sidecar_path.exists() {
        true => Some(read_bounded(&sidecar_path, SIDECAR_BYTES_MAX)?),
        false => None,
    };
    Ok(parse(&PromptFile {
        path: &name_in(folder, path),
        bytes: &bytes,
        sidecar: sidecar_bytes.as_deref().map(|bytes| Sidecar { path: &sidecar_name, bytes }),
    }))
}

/// Reads one byte more than allowed, so that the parser sees, and names, a file that is too long.
fn read_bounded(path: &Path, most: usize) -> Result<Vec<u8>, PolicyLoadError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(path, error.to_string()))?;
    Ok(bytes)
}

fn find(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), PolicyLoadError> {
    let entries = std::fs::read_dir(folder).map_err(|e| unreadable(folder, e.to_string()))?;
    for entry in entries {
        let path = entry.map_err(|error| unreadable(folder, error.to_string()))?.path();
        if hidden(&path) {
            continue;
        }
        if path.is_dir() {
            if depth > 0 {
                find(&path, depth - 1, files)?;
            }
        } else if is_prompt(&path) {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(unreadable(folder, format!("more than {FILES_MAX} prompt files")));
        }
    }
    Ok(())
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Markdown agents, skills and instructions, whose front matter the core reads, and Codex roles,
/// which need a sidecar.
fn is_prompt(path: &Path) -> bool {
    let known = |extension: &std::ffi::OsStr| {
        ["md", "markdown", "toml"].iter().any(|known| extension == *known)
    };
    path.extension().is_some_and(known)
}

fn unreadable(path: &Path, problem: String) -> PolicyLoadError {
    PolicyLoadError::Unreadable { path: path.to_owned(), problem }
}

/// `triage.md` has its authorizations in `triage.md.authz.yaml`, if not in itself.
const SIDECAR_SUFFIX: &str = ".authz.yaml";

/// Skills lie in folders of their own, in folders of their team; deeper is a mistake or a loop
/// of links.
const DEPTH_MAX: usize = 4;

/// Ten thousand roles are the largest set that is measured.
const FILES_MAX: usize = 10_000;
