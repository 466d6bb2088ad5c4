//! Runs a command in the foreground and passes signals on to it. Knows no broker.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::signal::unix::{self, SignalKind};

use crate::environment::Environment;
use crate::exit::{Exit, Failure};

/// The signals that are passed on instead of ending this process. Listening begins when this is
/// made, so that none is lost before the command has started.
pub struct Signals {
    hangup: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    /// Starts to listen.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            unix::signal(kind).map_err(|error| Failure::other(format!("no signals: {error}")))
        };
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::HUP,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.terminate.recv() => Signal::TERM,
        }
    }
}

/// Runs `command` to its end and returns the code that it ended with.
pub async fn run(
    command: &[OsString],
    environment: &Environment,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::usage("there is no command to run: put it after `--`"));
    };
    let mut child = Command::new(program);
    child.args(arguments);
    environment.apply(&mut child);
    let mut child = child.spawn().map_err(|error| cannot_start(program, &error))?;
    loop {
        tokio::select! {
            status = child.wait() => return status.map(exit_of).map_err(|error| {
                Failure::other(format!("the end of the command cannot be learned: {error}"))
            }),
            signal = signals.next() => pass_on(signal, child.id()),
        }
    }
}

/// A terminal sends its own signals (Ctrl-C, Ctrl-\) to the child as well; passing them on would
/// interrupt it twice, which many programs take as "now, without clean-up".
fn pass_on(signal: Signal, child: Option<u32>) {
    let is_from_terminal = matches!(signal, Signal::INT | Signal::QUIT) && in_foreground();
    let pid = child.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let (Some(pid), false) = (pid, is_from_terminal) {
        // The only failure is that the child has just ended, which the caller learns next.
        let _ended = kill_process(pid, signal);
    }
}

fn in_foreground() -> bool {
    std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| is_foreground(&stat))
}

/// Whether the process group of a `/proc/…/stat` line is the one in front on its terminal. The
/// fields after the command's name are: state, parent, group, session, terminal, group in front.
fn is_foreground(stat: &str) -> bool {
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    match (fields.get(2), fields.get(5)) {
        (Some(group), Some(in_front)) => group == in_front,
        _ => false,
    }
}

fn cannot_start(program: &OsStr, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        ErrorKind::NotFound => Exit::NOT_FOUND,
        _ => Exit::CANNOT_RUN,
    };
    Failure::new(exit, format!("`{}` cannot be run: {error}", program.display()))
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).map_or(Exit::FAILURE, Exit),
        (None, Some(signal)) => Exit::of_signal(signal),
        (None, None) => Exit::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    async fn check(command: &[&str], expect: Exit) {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        let mut signals = Signals::listen().unwrap();
        let result = run(&command, &Environment::default(), &mut signals).await;
        assert_eq!(result.unwrap_or_else(|failure| failure.exit), expect, "{command:?}");
    }

    #[tokio::test]
    async fn the_exit_code_is_the_commands_own() {
        check(&["true"], Exit::OK).await;
        check(&["sh", "-c", "exit 42"], Exit(42)).await;
        check(&["sh", "-c", "kill -TERM $$"], Exit(143)).await;
        check(&["/nowhere/command"], Exit::NOT_FOUND).await;
        check(&["/"], Exit::CANNOT_RUN).await;
        check(&[], Exit::USAGE).await;
    }

    #[test]
    fn tells_whether_a_terminal_has_signalled_the_child_too() {
        for (stat, expect) in [
            ("7 (claviger) S 1 7 7 34816 7 4194304", true),
            ("7 (a) (b) S 1 7 7 34816 7 0", true),
            ("7 (claviger) S 1 7 7 34816 9 0", false),
            ("7 (claviger) S 1 7 7 0 -1 0", false),
            ("", false),
        ] {
            assert_eq!(is_foreground(stat), expect, "{stat}");
        }
    }
}
