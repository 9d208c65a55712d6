//! What every server command does around its server: logs, the ready line, what asks it to stop, the end.

use std::io;

use hasp_rt::env::Env;
use hasp_rt::telemetry::{Settings, Telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::context::TraceArgs;
use crate::exit::{Exit, Failure};

/// Starts logs as the environment says, and traces as the arguments do.
///
/// # Errors
/// A setting is wrong.
pub fn telemetry(service: &str, traces: &TraceArgs) -> Result<Telemetry, Failure> {
    let settings = Settings::from_environment(service, traces.traces());
    Telemetry::start(&settings).map_err(|error| Failure::Usage(error.to_string()))
}

/// Says once, for everybody who reads logs, what this server does not do.
pub fn warn_of_declared_principals() {
    tracing::warn!(
        "INSECURE: principals are declared, not proven: whoever reaches a port can act as anybody, admin too"
    );
}

/// Says where clients and operators can go: the one line that scripts wait for.
pub fn say_ready(connect: &[String], admin: Option<&str>) {
    use std::io::Write as _;
    let mut line = format!("ready connect={}", connect.join(","));
    if let Some(admin) = admin {
        line.push_str(&format!(" admin={admin}"));
    }
    let mut stdout = std::io::stdout().lock();
    // Whoever started us may not listen; that is no reason not to serve.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// What a server is told that another program starts.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct StopArgs {
    /// Stop when standard input ends, as it does when whoever started this is gone
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// SIGINT and SIGTERM, watched from the first moment on; and the end of standard input, if asked.
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// Closed at the end of standard input; nothing is ever sent.
    input: Option<mpsc::Receiver<()>>,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn watch() -> Result<Self, Failure> {
        let take = |kind| signal(kind).map_err(|error| Failure::local("watch signals", error));
        let (interrupt, terminate) = (take(SignalKind::interrupt())?, take(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, input: None })
    }

    /// The same, and watches what else the arguments say.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn watch_with(args: StopArgs) -> Result<Self, Failure> {
        let mut signals = Self::watch()?;
        if args.exit_with_stdin {
            let input = watch_input().map_err(|error| Failure::local("watch stdin", error))?;
            signals.input = Some(input);
        }
        Ok(signals)
    }

    /// Completes when any comes. Cancel-safe.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = end_of(&mut self.input) => {}
        }
    }
}

/// Reads standard input in a thread that nobody waits for: a read cannot be cancelled, and must not
/// keep a server that has stopped from ending.
fn watch_input() -> io::Result<mpsc::Receiver<()>> {
    let (open, input) = mpsc::channel(1);
    let read = move || {
        // An input that cannot be read has ended as well.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(open);
    };
    std::thread::Builder::new().name("stdin".into()).spawn(read)?;
    Ok(input)
}

async fn end_of(input: &mut Option<mpsc::Receiver<()>>) {
    match input {
        Some(input) => drop(input.recv().await),
        None => std::future::pending().await,
    }
}

/// Waits until the server is to stop: by a signal or the end of its input (`Done`), or by its own failure.
pub async fn until_stopped(signals: &mut Signals, env: &Env, dead: impl Future<Output = String>) -> Exit {
    tokio::select! {
        () = signals.stop() => Exit::Done,
        failure = env.tasks.failed() => Failure::Local(failure.to_string()).into(),
        reason = dead => Failure::Local(reason).into(),
    }
}

/// The exit of something that could not start: a bad address, directory or file is wrong usage.
pub fn cannot_start(error: impl std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    Failure::Usage(text)
}
