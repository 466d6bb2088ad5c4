//! Which files, folders and ports a configuration leads to. Looks at what exists; opens nothing.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::config::ConfigFile;
use crate::load;

/// What a broker of one configuration needs, beside what every program needs. Real paths, without
/// links: it is those that are opened.
#[derive(Debug)]
pub(super) struct Paths {
    /// To be read, with everything below.
    pub(super) read: BTreeSet<PathBuf>,
    /// Where files are made, written and removed: journal and component cache.
    pub(super) write: BTreeSet<PathBuf>,
    /// Where sockets are made and removed.
    pub(super) sockets: BTreeSet<PathBuf>,
    /// To listen on.
    pub(super) ports: BTreeSet<u16>,
}

impl Paths {
    pub(super) fn of(file: &ConfigFile) -> Self {
        let config = file.config();
        let mut read = BTreeSet::new();
        let mut ports = BTreeSet::new();
        read.extend(places(file.path()));
        for (key, text) in file.texts() {
            if let Ok(address) = text.parse::<SocketAddr>() {
                ports.insert(address.port());
            }
            let path = match text.strip_prefix("file:") {
                Some(path) => path,
                None if PATH_KEYS.contains(&key.as_str()) => &text,
                None => continue,
            };
            read.extend(places(&file.base().join(path)));
        }
        let journal = parent(&file.base().join(&config.journal.path)).to_owned();
        let listen = &config.listen;
        let sockets = [&listen.socket, &listen.admin_socket];
        Self {
            read,
            write: [journal, load::component_folder(file)].into(),
            sockets: sockets.map(|path| parent(&file.base().join(path)).to_owned()).into(),
            ports,
        }
    }

    /// Adds what the environment names.
    pub(super) fn with_environment(mut self) -> Self {
        let named = ENVIRONMENT.iter().filter_map(std::env::var_os);
        self.read.extend(named.flat_map(|path| places(Path::new(&path))));
        self
    }

    /// Makes the folders that the broker would make at its start: what is not there cannot be
    /// opened. Whoever needs one that cannot be made says so, and what to do.
    pub(super) fn make(&self) {
        for folder in &self.write {
            let _said_later = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        }
        for folder in &self.sockets {
            let _said_later = std::fs::create_dir_all(folder);
        }
    }

    /// The first of those to be read that is not within `opened`.
    pub(super) fn first_outside(&self, opened: &Self) -> Option<PathBuf> {
        let is_open = |path: &Path| {
            let mut folders = opened.read.iter().chain(&opened.write);
            folders.any(|folder| path.starts_with(folder))
        };
        self.read.iter().find(|path| !is_open(path)).cloned()
    }
}

/// What to open so that `path` can be read, also after it was replaced by another file of its
/// name: its folder, unless that belongs to the whole machine. Where the name is a link, the
/// folder of the link as well: Kubernetes turns links within a folder to replace its files.
fn places(path: &Path) -> Vec<PathBuf> {
    let Ok(real) = path.canonicalize() else { return Vec::new() };
    if real.is_dir() {
        return if is_shared(&real) { Vec::new() } else { vec![real] };
    }
    let named = parent(path).canonicalize().ok().filter(|folder| !is_shared(folder));
    let folder = parent(&real);
    let own = if is_shared(folder) { real.clone() } else { folder.to_owned() };
    named.into_iter().chain([own]).collect()
}

fn is_shared(folder: &Path) -> bool {
    SHARED.iter().any(|shared| folder == Path::new(shared))
}

/// The folder of `path`; never empty.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// The keys of the configuration whose text is the path of something that is read. A test finds
/// the one that is missing.
const PATH_KEYS: [&str; 9] = [
    "path",
    "signature",
    "certificate",
    "client_ca",
    "ca",
    "read",
    "cache",
    "jwt_bundle",
    "x509_bundle",
];

/// systemd's credentials, and the authorities that replace the system's.
const ENVIRONMENT: [&str; 3] = ["CREDENTIALS_DIRECTORY", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Folders that hold everybody's files. One who puts a single file there opens that file, and not
/// those of all others; to replace it takes a restart.
const SHARED: [&str; 18] = [
    "/", "/bin", "/boot", "/dev", "/dev/shm", "/etc", "/home", "/media", "/mnt", "/opt", "/proc",
    "/root", "/run", "/srv", "/sys", "/tmp", "/usr", "/var",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path, more: &str) -> ConfigFile {
        let text = format!(
            "[listen]\nsocket = \"run/a.sock\"\nadmin_socket = \"run/b.sock\"\n\
             [journal]\npath = \"state/journal.db\"\nsealing_key = \"file:key\"\n\
             [policies]\npath = \"policies\"\n[prompts]\npath = \"prompts\"\n{more}"
        );
        let path = folder.join("c.toml");
        std::fs::write(&path, &text).expect("written");
        ConfigFile::read(&path).expect("a configuration")
    }

    #[test]
    fn opens_what_is_named_and_not_what_lies_beside_it() {
        let (own, other) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        let secrets = other.path().join("secrets");
        std::fs::create_dir(&secrets).expect("made");
        std::fs::write(secrets.join("key"), "k").expect("written");
        let single = tempfile::NamedTempFile::new_in("/tmp").expect("a file");
        let more = format!(
            "[metrics]\naddress = \"127.0.0.1:9464\"\n[backends.b]\nplugin = \"p\"\n\
             [backends.b.connections.api]\naddress = \"https://h\"\npaths = [\"/\"]\n\
             ca = \"{}\"\nauth = {{ bearer = {{ token = \"file:{}\" }} }}\n",
            single.path().display(),
            secrets.join("key").display()
        );
        let paths = Paths::of(&config(own.path(), &more));
        let real = |path: &Path| path.canonicalize().expect("there");
        let expect = [real(own.path()), real(&secrets), real(single.path())];
        assert_eq!(paths.read, BTreeSet::from(expect));
        assert_eq!(paths.ports, BTreeSet::from([9464]));
        let write = [own.path().join("state"), own.path().join("state/journal.db.components")];
        assert_eq!(paths.write, BTreeSet::from(write));
        assert_eq!(paths.sockets, BTreeSet::from([own.path().join("run")]));
    }

    #[test]
    fn a_file_that_kubernetes_replaces_stays_readable() {
        let (own, other) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        let volume = other.path().join("volume");
        std::fs::create_dir_all(volume.join("..2026_1")).expect("made");
        std::fs::write(volume.join("..2026_1/token"), "t").expect("written");
        std::os::unix::fs::symlink("..2026_1", volume.join("..data")).expect("linked");
        std::os::unix::fs::symlink("..data/token", volume.join("token")).expect("linked");
        let more = format!(
            "[backends.b]\nplugin = \"p\"\n[backends.b.connections.api]\n\
             address = \"https://h\"\n\
             auth = {{ bearer = {{ token = \"file:{}/token\" }} }}\n",
            volume.display()
        );
        let paths = Paths::of(&config(own.path(), &more));
        assert!(paths.read.contains(&volume.canonicalize().expect("there")), "{paths:?}");
    }

    #[test]
    fn what_a_later_configuration_names_elsewhere_is_found() {
        let (own, other) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        let plugin = other.path().join("orders.wasm");
        std::fs::write(&plugin, "").expect("written");
        let more = format!("[plugins.orders]\npath = \"{}\"\n", plugin.display());
        let (before, after) = (config(own.path(), ""), config(own.path(), &more));
        let (before, after) = (Paths::of(&before), Paths::of(&after));
        let real = other.path().canonicalize().expect("there");
        assert_eq!(after.first_outside(&before), Some(real.clone()));
        assert_eq!(before.first_outside(&after), None);
        let beforehand = format!("[process]\nread = [\"{}\"]\n", real.display());
        let opened = Paths::of(&config(own.path(), &beforehand));
        assert_eq!(after.first_outside(&opened), None);
    }

    /// A path whose key is not listed would be closed, and only to brokers whose operator keeps
    /// it elsewhere than the configuration.
    #[test]
    fn every_path_of_the_configuration_is_opened() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let sections = std::fs::read_dir(folder.join("config")).expect("its sections");
        let mut text = std::fs::read_to_string(folder.join("config.rs")).expect("text");
        for section in sections {
            text += &std::fs::read_to_string(section.expect("a file").path()).expect("text");
        }
        // Of what is deserialized: public fields, and those of the variants of `AuthConfig`.
        let fields = text.lines().filter_map(|line| {
            let (name, kind) = line.trim().trim_end_matches(',').split_once(": ")?;
            let private = line.starts_with("    ") && !line.starts_with("     ");
            let name = match name.strip_prefix("pub ") {
                Some(name) => name,
                None if private => return None,
                None => name,
            };
            ["PathBuf", "Option<PathBuf>", "Vec<PathBuf>"].contains(&kind).then_some(name)
        });
        let fields: BTreeSet<&str> = fields.collect();
        assert!(fields.contains("client_ca") && fields.contains("read"), "{fields:?}");
        for field in fields {
            let known = PATH_KEYS.contains(&field) || ["socket", "admin_socket"].contains(&field);
            assert!(known, "`{field}` is a path: add it to `PATH_KEYS`, or Landlock closes it");
        }
    }
}
