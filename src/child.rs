//! A command run on behalf of `hasp lock`: started, sent signals, stopped, and its code told.
//!
//! Away from a terminal it gets a process group of its own and signals go to all of it, so nothing
//! of a pipeline is left running without the lock. At a terminal it stays in ours: it must be able
//! to read the keyboard, and the terminal itself tells it of Ctrl-C.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal as _};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child as Process, Command};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// How long a command may take to leave after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Exit code of shells for a command that was not found, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

/// A running command.
pub struct Child {
    process: Process,
    id: Pid,
    group: Group,
}

/// Who gets the signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// The command and all that it started.
    Own,
    /// The command; the terminal reaches the others.
    Ours,
}

/// Why a command could not be started.
#[derive(Debug)]
pub struct NotStarted {
    program: OsString,
    source: io::Error,
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {}: {}", self.program.display(), self.source)
    }
}

impl NotStarted {
    /// The exit code that shells give.
    pub fn code(&self) -> u8 {
        if self.source.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE }
    }
}

impl Child {
    /// Starts `command`, the program first, with these variables added to its environment.
    ///
    /// # Errors
    /// If there is no such program or it cannot be run.
    pub fn start(command: &[OsString], variables: &[(&str, String)]) -> Result<Self, NotStarted> {
        let (program, arguments) = command.split_first().expect("clap asks for at least one word");
        let not_started = |source| NotStarted { program: program.clone(), source };
        let group = if io::stdin().is_terminal() { Group::Ours } else { Group::Own };
        let mut builder = Command::new(program);
        let variables = variables.iter().map(|(name, value)| (name, value));
        builder.args(arguments).envs(variables).kill_on_drop(true);
        if group == Group::Own {
            builder.process_group(0);
        }
        let process = builder.spawn().map_err(not_started)?;
        let id = process.id().and_then(|id| i32::try_from(id).ok()).expect("it was not waited for yet");
        Ok(Self { process, id: Pid::from_raw(id), group })
    }

    /// Waits for its end; gives its code, or 128 and the signal's number as shells do. Cancel-safe.
    pub async fn wait(&mut self) -> u8 {
        match self.process.wait().await {
            Ok(status) => code(status),
            Err(_) => NOT_RUNNABLE,
        }
    }

    /// Passes a signal on that came to us.
    pub fn forward(&self, signal: Signal) {
        let told_by_terminal = matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
        if self.group == Group::Own || !told_by_terminal {
            self.send(signal);
        }
    }

    /// Asks it to leave, and ends it if it does not within five seconds.
    pub async fn stop(&mut self) {
        self.send(Signal::SIGTERM);
        if tokio::time::timeout(STOP_GRACE, self.process.wait()).await.is_err() {
            self.send(Signal::SIGKILL);
            let _ = self.process.wait().await;
        } else if self.group == Group::Own {
            // What it left behind in its group would go on without the lock.
            let _ = killpg(self.id, Signal::SIGKILL);
        }
    }

    /// Nobody there any more is as good as signalled.
    fn send(&self, signal: Signal) {
        if self.process.id().is_none() {
            return;
        }
        let _ = match self.group {
            Group::Own => killpg(self.id, signal),
            Group::Ours => kill(self.id, signal),
        };
    }
}

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(1)
}

/// The signals that ask a program to leave.
pub struct Signals {
    streams: [(Signal, Stream); 4],
}

impl Signals {
    /// Takes them from now on; they no longer end this process.
    ///
    /// # Errors
    /// If the system does not hand them over.
    pub fn take() -> io::Result<Self> {
        let stream = |kind: SignalKind, name| Ok::<_, io::Error>((name, signal(kind)?));
        Ok(Self {
            streams: [
                stream(SignalKind::interrupt(), Signal::SIGINT)?,
                stream(SignalKind::terminate(), Signal::SIGTERM)?,
                stream(SignalKind::hangup(), Signal::SIGHUP)?,
                stream(SignalKind::quit(), Signal::SIGQUIT)?,
            ],
        })
    }

    /// The next one. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            for (name, stream) in &mut self.streams {
                if stream.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// The exit code of a program that left because of a signal.
pub fn code_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<OsString> {
        line.iter().map(Into::into).collect()
    }

    fn start(line: &[&str]) -> Child {
        Child::start(&words(line), &[("HASP_LOCK_GENERATION", "7".into()), ("X", "8".into())]).unwrap()
    }

    #[tokio::test]
    async fn the_command_sees_the_variables_and_its_code_is_told() {
        assert_eq!(start(&["sh", "-c", "exit $HASP_LOCK_GENERATION"]).wait().await, 7);
        assert_eq!(start(&["sh", "-c", "exit $X"]).wait().await, 8);
        assert_eq!(start(&["sh", "-c", "kill -TERM $$"]).wait().await, 128 + 15);
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_has_the_code_of_shells() {
        let check = |command: &[&str], code: u8| {
            let error = Child::start(&words(command), &[]).err().unwrap();
            assert_eq!(error.code(), code, "{error}");
        };
        check(&["/no/such/program"], 127);
        check(&["/"], 126);
    }

    #[tokio::test]
    async fn a_stopped_command_is_gone() {
        let mut child = start(&["sleep", "100"]);

        child.stop().await;

        assert_eq!(child.wait().await, 128 + 15);
    }
}
