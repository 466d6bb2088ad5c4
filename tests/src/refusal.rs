//! A `clavigerd` that must not serve: started, and watched until it has said why and ended.

use std::process::{Command, Stdio};

use crate::poll;
use crate::world::{World, program};

/// What `clavigerd serve` says on the world's configuration before it ends with exit code 1.
pub async fn of_serve(world: &World) -> String {
    let mut command = Command::new(program("clavigerd"));
    command.args(["serve", "--config"]).arg(world.config());
    of(command).await
}

/// What `command` says before it ends with exit code 1. Fails if it goes on running.
pub async fn of(mut command: Command) -> String {
    let said = tempfile::NamedTempFile::new().expect("a file");
    let stderr = said.reopen().expect("the same file");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let mut child = Ended(command.spawn().expect("clavigerd starts"));
    let status = poll::until("clavigerd refuses to serve", || {
        std::future::ready(child.0.try_wait().expect("waited"))
    })
    .await;
    let text = std::fs::read_to_string(said.path()).expect("text");
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

/// A process that ends with its test, however that ends.
pub struct Ended(pub std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped_already = self.0.wait();
    }
}
