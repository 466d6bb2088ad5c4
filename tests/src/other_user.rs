//! Somebody else on the same machine: programs run under another user id. Needs root, since
//! nobody else may change who they are.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::world::World;

/// `nobody` on every Linux.
pub const NOBODY: u32 = 65534;

/// Whether this process may become somebody else. Says on the terminal, past the capture of test
/// output, when it may not, so that what is left out is seen.
pub fn available(left_out: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let line = format!("LEFT OUT, it needs root to become another user: {left_out}\n");
        std::io::stderr().write_all(line.as_bytes()).expect("a terminal or a file");
    }
    root
}

/// Lets every user reach the sockets in the world's folder, as in `/run/claviger`.
pub fn let_in(world: &World) {
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(world.path(), everybody).expect("its owner may");
}

/// Runs `command` as `nobody`, without any of this user's groups.
pub fn run(mut command: Command) -> std::process::Output {
    command.uid(NOBODY).gid(NOBODY).current_dir("/").output().expect("the program runs for nobody")
}
