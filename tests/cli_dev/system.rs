//! A system in a process of its own, and commands run against it. Everything has a deadline.
#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// To elect masters and say `ready`, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// For one command.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// To leave after a signal.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// `hasp dev`, ready.
pub struct Dev {
    running: Running,
    /// Where clients connect.
    pub connect: Vec<String>,
    admin: String,
}

/// A process with its ends in our hands. Killed if dropped.
pub struct Running {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    line: String,
    pub code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Dev {
    /// Starts it and waits for its line.
    pub async fn start(options: &[&str]) -> Self {
        let mut command = hasp();
        command.arg("dev").args(options);
        let mut running = Running::start(command);
        let line = timeout(START_DEADLINE, running.line()).await.expect("ready in time");
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("ready"), "{line}");
        let mut word = |key: &str| {
            let word = words.next().and_then(|word| word.strip_prefix(key)?.strip_prefix('='));
            word.unwrap_or_else(|| panic!("no {key} in {line}")).to_owned()
        };
        let (connect, admin) = (word("connect"), word("admin"));
        Self { running, connect: connect.split(',').map(str::to_owned).collect(), admin }
    }

    /// As small as a system can be.
    pub async fn start_small() -> Self {
        Self::start(&["--cells", "1", "--replicas", "1", "--proxies", "1"]).await
    }

    /// Runs a command. `${IFS}` stands for a space inside a word.
    pub async fn run(&self, line: &str) -> Ran {
        self.run_with(line, b"").await
    }

    /// Runs a command with something on its stdin.
    pub async fn run_with(&self, line: &str, stdin: &[u8]) -> Ran {
        let mut child = self.command(line).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let ending = async {
            // A command that does not read it has closed it.
            let _ = pipe.write_all(stdin).await;
            drop(pipe);
            child.wait_with_output().await.unwrap()
        };
        let output =
            timeout(COMMAND_DEADLINE, ending).await.unwrap_or_else(|_| panic!("{line} takes too long"));
        Ran {
            line: line.to_owned(),
            code: code(output.status),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a command.
    pub async fn spawn(&self, line: &str) -> Running {
        Running::start(self.command(line))
    }

    /// Starts a command and checks the first line that it prints.
    pub async fn spawn_saying(&self, line: &str, says: &str) -> Running {
        let mut running = self.spawn(line).await;
        assert_eq!(running.line().await, says, "{line}");
        running
    }

    /// Stops it with a signal and checks that it leaves cleanly.
    pub async fn stop(mut self, signal: &str) {
        self.running.signal(signal);
        let code = timeout(STOP_DEADLINE, self.running.code()).await.expect("leaves in time");
        assert_eq!(code, 0, "after SIG{signal}");
    }

    /// The answer to a GET at the admin port, head and all.
    #[allow(clippy::disallowed_types, reason = "a real port of a real process")]
    pub async fn admin_page(&self, page: &str) -> String {
        let asking = async {
            let mut stream = tokio::net::TcpStream::connect(&self.admin).await.unwrap();
            let request = format!("GET {page} HTTP/1.1\r\nhost: hasp\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        timeout(COMMAND_DEADLINE, asking).await.expect("an answer in time")
    }

    /// A command to be run against it.
    pub fn command(&self, line: &str) -> Command {
        let mut command = hasp();
        command.args(line.split(' ').map(|word| word.replace("${IFS}", " ")));
        command.env("HASP_CONNECT", self.connect.join(","));
        command
    }
}

/// The command, with its ends in our hands.
pub fn hasp() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hasp"));
    command.env_remove("HASP_CONNECT").env_remove("HASP_PRINCIPAL").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(-1)
}

impl Running {
    /// Starts a process.
    pub fn start(mut command: Command) -> Self {
        let mut process = command.stderr(Stdio::inherit()).spawn().unwrap();
        let stdin = process.stdin.take();
        let lines = process.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Self { process, stdin, lines }
    }

    /// The next line of its stdout.
    pub async fn line(&mut self) -> String {
        let lines = self.lines.as_mut().expect("somebody reads");
        let line = timeout(START_DEADLINE, lines.next_line()).await.expect("a line in time");
        line.unwrap().expect("a line before the end")
    }

    /// The next line of its stdout, as one JSON object.
    pub async fn object(&mut self) -> Value {
        let line = self.line().await;
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_object(), "{line}");
        value
    }

    /// Reads its stdout no more.
    pub fn stop_reading(&mut self) {
        self.lines = None;
    }

    /// Ends it without a word.
    pub async fn kill(&mut self) {
        timeout(COMMAND_DEADLINE, self.process.kill()).await.expect("in time").unwrap();
    }

    /// Writes to its stdin.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).await.unwrap();
    }

    /// Sends it a signal, and it alone.
    pub fn signal(&self, name: &str) {
        let id = self.process.id().expect("it runs");
        let signal: Signal = format!("SIG{name}").parse().unwrap();
        kill(Pid::from_raw(i32::try_from(id).unwrap()), signal).unwrap();
    }

    pub async fn ends_within(&mut self, time: Duration) -> bool {
        timeout(time, self.process.wait()).await.is_ok()
    }

    /// Waits for its end.
    pub async fn code(&mut self) -> i32 {
        let status = timeout(COMMAND_DEADLINE, self.process.wait()).await.expect("ends in time");
        code(status.unwrap())
    }
}

impl Ran {
    /// Its stdout, after checking that all went well.
    pub fn ok(self) -> Vec<u8> {
        assert_eq!(self.code, 0, "{}: {}", self.line, self.stderr);
        self.stdout
    }

    /// Its stdout as one JSON object.
    pub fn json(self) -> Value {
        let line = self.line.clone();
        let value: Value = serde_json::from_slice(&self.ok()).expect("JSON");
        assert!(value.is_object(), "{line}: {value}");
        value
    }

    /// Its stdout as text, after checking that all went well.
    pub fn text(self) -> String {
        String::from_utf8(self.ok()).unwrap()
    }

    /// What it said on stderr.
    pub fn stderr(&self) -> &str {
        &self.stderr
    }

    /// Checks that the service said no, with that name, in one line.
    pub fn refused(self, name: &str) {
        assert_eq!(self.code, 1, "{}: {}", self.line, self.stderr);
        assert!(self.stderr.starts_with(&format!("{name}: ")), "{}: {}", self.line, self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
    }
}
