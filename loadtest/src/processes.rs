//! Child processes: started, listened to, and stopped by their ids, whatever happens.
//!
//! Each child has a task that owns it. It reports the child's end to whoever waits for it, and if
//! the load test's tasks are aborted it kills the child. If the load test itself is killed nothing of
//! it can act: so children have a pipe from it as their input, and should stop when that ends. What children log goes to a file each. They
//! are in process groups of their own, so that an interrupt from the terminal reaches only the
//! load test, which then stops them in order.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real processes of a real machine are watched here, never simulated ones"
)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use hasp_rt::env::Env;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};

/// How long a child may take to stop when asked, before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// How long a killed child may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes shown from the end of a log.
const TAIL_BYTES: u64 = 2_000;
/// Lines of a child waiting to be read.
const LINES: usize = 256;
/// Children and their ends, more than are ever started.
const ENDS: usize = 4_096;

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// For people, and for its log's name; no slashes.
    pub name: String,
    /// After the program's name.
    pub args: Vec<OsString>,
}

impl Spec {
    /// A child called `name` with these arguments.
    pub fn new(name: impl Into<String>, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { name: name.into(), args: args.into_iter().map(Into::into).collect() }
    }
}

/// Starts children of one program.
pub struct Processes {
    env: Env,
    binary: PathBuf,
    logs: PathBuf,
    ended: mpsc::Sender<String>,
    /// Those that run, and some that ran.
    started: Mutex<Vec<Control>>,
}

/// Hears of children that end although they must run.
pub struct Ended {
    ended: mpsc::Receiver<String>,
    /// Keeps the channel open when no children are left to be started.
    _sender: mpsc::Sender<String>,
}

impl Ended {
    /// Completes when a child ended that [must run](Process::must_run): with why, and its last words.
    pub async fn unasked(&mut self) -> anyhow::Error {
        match self.ended.recv().await {
            Some(why) => anyhow!(why),
            None => std::future::pending().await,
        }
    }
}

/// A child. Dropping it ends its input, and leaves it running until it heeds that, is stopped, or the
/// load test ends.
///
/// Its end is nobody's surprise until it is said to be needed.
pub struct Process {
    pid: u32,
    input: Option<ChildStdin>,
    lines: Option<mpsc::Receiver<String>>,
    control: Control,
}

/// How to end a child and to hear of its end.
#[derive(Clone)]
struct Control {
    name: String,
    log: PathBuf,
    exit: watch::Receiver<Option<ExitStatus>>,
    signals: mpsc::Sender<Signal>,
    may_end: Arc<AtomicBool>,
}

impl Processes {
    /// Children of `binary`, with their logs in the directory `logs`.
    ///
    /// All of them are killed when the tasks of `env` are.
    pub fn new(env: Env, binary: PathBuf, logs: PathBuf) -> (Self, Ended) {
        let (sender, ended) = mpsc::channel(ENDS);
        (
            Self { env, binary, logs, ended: sender.clone(), started: Mutex::default() },
            Ended { ended, _sender: sender },
        )
    }

    /// The directory of the logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Starts a child.
    ///
    /// # Errors
    /// The program cannot be run, or its log not be written.
    pub fn start(&self, spec: &Spec) -> anyhow::Result<Process> {
        let log = self.logs.join(format!("{}.log", spec.name));
        let errors = File::options().create(true).append(true).open(&log);
        let errors = errors.with_context(|| format!("open log {}", log.display()))?;
        let mut child = Command::new(&self.binary)
            .args(&spec.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {} ({})", spec.name, self.binary.display()))?;
        let pid = child.id().context("start a child that was gone at once")?;
        let (lines_in, lines) = mpsc::channel(LINES);
        if let Some(output) = child.stdout.take() {
            self.env.tasks.spawn("child-output", forward(output, lines_in));
        }
        let input = child.stdin.take();
        let (signals, signals_in) = mpsc::channel(4);
        let (exit_in, exit) = watch::channel(None);
        let may_end = Arc::new(AtomicBool::new(true));
        let owner = Owner { name: spec.name.clone(), log: log.clone(), may_end: may_end.clone(), child };
        self.env.tasks.spawn("child", owner.run(signals_in, exit_in, self.ended.clone()));
        let control = Control { name: spec.name.clone(), log, exit, signals, may_end };
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.retain(Control::is_running);
        started.push(control.clone());
        drop(started);
        Ok(Process { pid, input, lines: Some(lines), control })
    }

    /// Stops all children that still run, whoever started them for what.
    ///
    /// # Errors
    /// As [`stop_all`].
    pub async fn stop_left(&self) -> anyhow::Result<()> {
        let started = std::mem::take(&mut *self.started.lock().unwrap_or_else(PoisonError::into_inner));
        stop(started).await
    }
}

/// Passes on a child's lines as long as somebody wants them, and reads on then.
async fn forward(output: ChildStdout, lines_in: mpsc::Sender<String>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // Nobody listens any more: the child must still not block on a full pipe.
        let _ = lines_in.send(line).await;
    }
}

/// The task that owns a child.
struct Owner {
    name: String,
    log: PathBuf,
    may_end: Arc<AtomicBool>,
    child: Child,
}

impl Owner {
    async fn run(
        mut self,
        mut signals: mpsc::Receiver<Signal>,
        exit: watch::Sender<Option<ExitStatus>>,
        ended: mpsc::Sender<String>,
    ) {
        let status = loop {
            tokio::select! {
                biased;
                status = self.child.wait() => break status,
                Some(signal) = signals.recv() => self.signal(signal),
            }
        };
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(child = self.name, %error, "wait for child");
                return;
            }
        };
        if !self.may_end.load(Ordering::Acquire) {
            let why = format!("{} ended by itself ({status}); its log ends:\n{}", self.name, tail(&self.log));
            let _ = ended.try_send(why);
        }
        exit.send_replace(Some(status));
    }

    /// The child was not waited for yet, so its id is its own.
    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid
            && let Err(error) = kill(Pid::from_raw(pid), signal)
        {
            tracing::debug!(child = self.name, %error, "signal child");
        }
    }
}

impl Process {
    /// For people.
    pub fn name(&self) -> &str {
        &self.control.name
    }

    /// Its process id.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The end of what it logged.
    pub fn log_tail(&self) -> String {
        tail(&self.control.log)
    }

    /// The next line it says.
    ///
    /// # Errors
    /// It ended, or says nothing within `deadline`.
    pub async fn line(&mut self, deadline: Duration) -> anyhow::Result<String> {
        let Some(lines) = &mut self.lines else { bail!("{} is not listened to", self.name()) };
        let what = match tokio::time::timeout(deadline, lines.recv()).await {
            Ok(Some(line)) => return Ok(line),
            Ok(None) => match self.exited(KILL_DEADLINE).await {
                Some(status) => format!("ended ({status})"),
                None => "closed its output".to_owned(),
            },
            Err(_) => format!("said nothing for {deadline:?}"),
        };
        Err(anyhow!("{} {what}; its log ends:\n{}", self.name(), self.log_tail()))
    }

    /// The lines it says, for somebody else to read.
    pub fn take_lines(&mut self) -> Option<mpsc::Receiver<String>> {
        self.lines.take()
    }

    /// Stops listening: what it says from now on is lost.
    pub fn ignore_lines(&mut self) {
        self.lines = None;
    }

    /// Tells it a line.
    ///
    /// # Errors
    /// It no longer reads.
    pub async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let name = &self.control.name;
        let Some(input) = &mut self.input else { bail!("{name} is not spoken to") };
        let told = async {
            input.write_all(line.as_bytes()).await?;
            input.write_all(b"\n").await?;
            input.flush().await
        };
        let told = tokio::time::timeout(STOP_DEADLINE, told).await;
        told.with_context(|| format!("tell {name} something: it does not read"))?
            .with_context(|| format!("tell {name} something"))
    }

    /// From now on its end is reported, unless it was asked for.
    ///
    /// # Errors
    /// It has ended already.
    pub fn must_run(&self) -> anyhow::Result<()> {
        self.control.may_end.store(false, Ordering::Release);
        ensure!(self.is_running(), "{} ended by itself; its log ends:\n{}", self.name(), self.log_tail());
        Ok(())
    }

    /// From now on its end is no surprise.
    pub fn may_end(&self) {
        self.control.may_end();
    }

    /// How it ended; `None` if it still runs after `deadline`.
    pub async fn exited(&mut self, deadline: Duration) -> Option<ExitStatus> {
        self.control.exited(deadline).await
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.control.is_running()
    }

    /// Stops it from doing anything until it is [resumed](Self::resume); its connections stay open.
    ///
    /// A child that is paused cannot be asked to stop, only killed.
    pub fn pause(&self) {
        self.control.send(Signal::SIGSTOP);
    }

    /// Lets it go on after a [pause](Self::pause).
    pub fn resume(&self) {
        self.control.send(Signal::SIGCONT);
    }

    /// Kills it where it stands, as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// It would not go.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.control.kill().await
    }
}

impl Control {
    fn may_end(&self) {
        self.may_end.store(true, Ordering::Release);
    }

    fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    async fn exited(&mut self, deadline: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(deadline, self.ended()).await.ok()
    }

    /// Completes once it has ended.
    async fn ended(&mut self) -> ExitStatus {
        let ended = self.exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        // Its owner may be gone without a word, as when the load test was aborted: so is the child then.
        ended.unwrap_or_default()
    }

    /// Asks it to end. Its end is asked for from then on.
    fn signal(&self, signal: Signal) {
        self.may_end();
        self.send(signal);
    }

    fn send(&self, signal: Signal) {
        // If its owner does not read, it has ended.
        let _ = self.signals.try_send(signal);
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGKILL);
        self.exited(KILL_DEADLINE).await.with_context(|| format!("kill {}", self.name))?;
        Ok(())
    }

    fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

/// Asks all of these to stop, waits, and kills those that do not.
///
/// # Errors
/// The first that had to be killed, or did not end cleanly.
pub async fn stop_all(processes: impl IntoIterator<Item = &mut Process>) -> anyhow::Result<()> {
    stop(processes.into_iter().map(|process| process.control.clone()).collect()).await
}

async fn stop(mut running: Vec<Control>) -> anyhow::Result<()> {
    running.retain(Control::is_running);
    for control in &running {
        control.signal(Signal::SIGTERM);
    }
    // Together, not each: they stop at the same time.
    let until = tokio::time::sleep(STOP_DEADLINE).deadline();
    let mut first = Ok(());
    for control in &mut running {
        let what = match tokio::time::timeout_at(until, control.ended()).await {
            Ok(status) if status.success() => continue,
            Ok(status) => format!("ended badly ({status})"),
            Err(_) => {
                control.kill().await?;
                "did not stop when asked and was killed".to_owned()
            }
        };
        if first.is_ok() {
            first = Err(anyhow!("{} {what}; its log ends:\n{}", control.name, control.log_tail()));
        }
    }
    first
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.is_empty() => format!("(nothing in {})", log.display()),
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim_end().to_owned(),
        Err(error) => format!("({}: {error})", log.display()),
    }
}

#[cfg(test)]
mod tests;
