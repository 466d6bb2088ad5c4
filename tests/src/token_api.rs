//! The practice service `token-api` as a process, started for one test and stopped with it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::poll;
use crate::world::program;

/// A running service.
pub struct TokenApi {
    child: Child,
    port: u16,
}

impl TokenApi {
    /// Starts it on a free port; its log and the administrator's token lie in `folder`.
    pub async fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder.join("secrets")).expect("made");
        std::fs::write(folder.join("secrets/admin"), ADMIN_TOKEN).expect("written");
        let log = std::fs::File::create(folder.join("service.log")).expect("a log");
        let child = Command::new(program("token-api"))
            .args(["--port", "0", "--admin-token-file", "secrets/admin"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .expect("token-api starts");
        let port = poll::until("the service listens", || {
            let log = std::fs::read_to_string(folder.join("service.log")).unwrap_or_default();
            let line = log.lines().next().filter(|_| log.contains('\n'));
            let port = line.and_then(|line| line.rsplit_once(':')).map(|(_, port)| port.parse());
            std::future::ready(port.map(|port| port.expect("a port")))
        })
        .await;
        Self { child, port }
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for TokenApi {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// The administrator's token; a canary that must appear nowhere.
pub const ADMIN_TOKEN: &str = "canary-practice-admin-token";
