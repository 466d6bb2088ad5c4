//! What servers take from the machine: a free port, and a user who may run them.

use std::fs;
use std::net::TcpListener;

/// The system's user who runs a server in the place of root, which servers refuse.
#[derive(Clone, Copy)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    /// The user of this name if the test runs as root; nobody else is needed otherwise.
    pub fn unless_plain_user(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let line = users.lines().find(|line| line.split(':').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("root needs a system user `{name}` here"));
        let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
        Some(Self { uid: fields.next().unwrap(), gid: fields.next().unwrap() })
    }
}

/// A port that nobody uses now; somebody may before the server does.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Each try takes another free port, so a second failure in a row has another cause.
pub const START_ATTEMPTS_MAX: u32 = 4;
