//! Tells when a file changes from which the broker was loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::config::ConfigFile;
use crate::{load, tls};

/// What has to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// Policies and prompt files.
    Folders,
    /// The configuration and everything that it names.
    Configuration,
    /// Certificates, their keys and authorities.
    Certificates,
}

/// Watches the folders of policies and prompt files whole, and of the configuration's files the
/// folders in which they are: an editor puts a new file in the place of the old one.
///
/// A file is watched before it is read, so that no change falls between the two.
pub struct Watching {
    /// None where the system watches no files.
    watched: Mutex<Option<Watched>>,
    files: Arc<ArcSwap<Files>>,
}

/// Which files are watched, and what their change means.
type Files = BTreeMap<PathBuf, Changed>;

struct Watched {
    watcher: RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
}

impl Watching {
    /// Begins with what `file` names, before any of it is loaded.
    pub fn start(file: &ConfigFile) -> (Self, mpsc::Receiver<Changed>) {
        let (changed, changes) = mpsc::channel(CHANGES_MAX);
        let files = Arc::new(ArcSwap::from_pointee(Files::new()));
        let watched = match Watched::start(file, changed.clone(), Arc::clone(&files)) {
            Ok(watched) => Some(watched),
            Err(error) => {
                tracing::warn!(%error, "files cannot be watched: send SIGHUP after a change");
                None
            }
        };
        let watching = Self { watched: Mutex::new(watched), files };
        watching.follow([file]);
        // The configuration itself was read before it could be watched.
        if !file.read_again().is_ok_and(|now| now.sha256() == file.sha256()) {
            let _empty = changed.try_send(Changed::Configuration);
        }
        (watching, changes)
    }

    /// Watches what `configurations` name, and of other configurations' files none.
    pub fn follow<'a>(&self, configurations: impl IntoIterator<Item = &'a ConfigFile>) {
        let files: Files = configurations.into_iter().flat_map(named_by).collect();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = watched.as_mut() {
            for folder in files.keys().filter_map(|file| file.parent()) {
                watched.add(folder);
            }
        }
        self.files.store(Arc::new(files));
    }
}

impl Watched {
    fn start(
        file: &ConfigFile,
        changed: mpsc::Sender<Changed>,
        files: Arc<ArcSwap<Files>>,
    ) -> notify::Result<Self> {
        let whole = load::folder_paths(file).map(absolute);
        let within = whole.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if event.kind.is_access() {
                return;
            }
            let files = files.load();
            let named = event.paths.iter().filter_map(|path| files.get(path));
            let is_in = |path: &PathBuf| {
                within.iter().any(|folder| path != folder && path.starts_with(folder))
            };
            let what = if let Some(what) = named.min() {
                *what
            } else if event.need_rescan() || event.paths.iter().any(is_in) {
                Changed::Folders
            } else {
                return;
            };
            // Full means that a reload is asked for already, and it will read everything.
            let _asked = changed.try_send(what);
        })?;
        let mut watched = Self { watcher, folders: BTreeSet::new() };
        for folder in whole {
            watched.watcher.watch(&folder, RecursiveMode::Recursive)?;
            watched.folders.insert(folder);
        }
        Ok(watched)
    }

    fn add(&mut self, folder: &Path) {
        if self.folders.contains(folder) {
            return;
        }
        match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => drop(self.folders.insert(folder.to_owned())),
            Err(error) => {
                let folder = folder.display();
                tracing::warn!(%folder, %error, "not watched: send SIGHUP after a change");
            }
        }
    }
}

/// The files of which `file`'s configuration consists; the watcher reports absolute paths.
fn named_by(file: &ConfigFile) -> impl Iterator<Item = (PathBuf, Changed)> {
    let certificates = tls::files(file).into_iter().flat_map(|path| {
        // Kubernetes mounts a secret as links into a folder `..data`, which it replaces whole.
        let replaced = path.parent().map(|folder| folder.join("..data"));
        [Some(path), replaced].into_iter().flatten().map(|path| (path, Changed::Certificates))
    });
    let configuration = load::plugin_files(file).into_iter().chain([file.path().to_owned()]);
    let configuration = configuration.map(|path| (path, Changed::Configuration));
    // The configuration last: it wins where one path stands for both.
    certificates.chain(configuration).map(|(path, what)| (absolute(path), what))
}

/// As it is where the working folder is unknown; then the signal is left.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Of the configuration's changes none may be lost behind those of a folder that is written all
/// the time; while a reload runs, a few are remembered.
const CHANGES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
[listen]
socket = "agent.sock"
admin_socket = "admin.sock"
[journal]
path = "journal.db"
sealing_key = "file:key"
[policies]
path = "policies"
[prompts]
path = "prompts"
"#;

    /// A folder with a configuration that has been read.
    fn read() -> (tempfile::TempDir, ConfigFile) {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["policies", "prompts"] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
        }
        let path = folder.path().join("claviger.toml");
        std::fs::write(&path, MINIMAL).expect("written");
        let file = ConfigFile::read(&path).expect("a configuration");
        (folder, file)
    }

    #[test]
    fn a_configuration_that_changed_before_it_was_watched_is_read_again() {
        let (folder, file) = read();
        let (_watching, mut changes) = Watching::start(&file);
        changes.try_recv().expect_err("nothing has changed");
        let changed = format!("{MINIMAL}[teams]\n");
        std::fs::write(folder.path().join("claviger.toml"), changed).expect("written");
        let (_watching, mut changes) = Watching::start(&file);
        assert_eq!(changes.try_recv(), Ok(Changed::Configuration));
    }

    #[test]
    fn a_prompt_file_that_changes_before_anything_is_loaded_is_not_missed() {
        let (folder, file) = read();
        let (_watching, mut changes) = Watching::start(&file);
        std::fs::write(folder.path().join("prompts/auditor.md"), "").expect("written");
        assert_eq!(changes.blocking_recv(), Some(Changed::Folders));
    }

    #[test]
    fn what_is_followed_anew_is_watched_before_it_is_read() {
        let (folder, file) = read();
        let (watching, mut changes) = Watching::start(&file);
        let elsewhere = tempfile::tempdir().expect("a folder");
        let plugin = elsewhere.path().join("orders.wasm");
        let text = format!("{MINIMAL}[plugins.orders]\npath = \"{}\"\n", plugin.display());
        let next = ConfigFile::parse(&folder.path().join("claviger.toml"), text).expect("parsed");
        watching.follow([&file, &next]);
        std::fs::write(&plugin, "").expect("written");
        assert_eq!(changes.blocking_recv(), Some(Changed::Configuration));
    }
}
