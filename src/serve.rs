//! What every server command does around its server: logs, the ready line, signals, the end.

use hasp_rt::env::Env;
use hasp_rt::telemetry::{Settings, Telemetry};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Exit, Failure};

/// Starts logs and traces as the environment says.
///
/// # Errors
/// A setting is wrong.
pub fn telemetry(service: &str) -> Result<Telemetry, Failure> {
    Telemetry::start(&Settings::from_environment(service)).map_err(|error| Failure::Usage(error.to_string()))
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

/// SIGINT and SIGTERM, watched from the first moment on.
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn watch() -> Result<Self, Failure> {
        let take = |kind| signal(kind).map_err(|error| Failure::local("watch signals", error));
        Ok(Self { interrupt: take(SignalKind::interrupt())?, terminate: take(SignalKind::terminate())? })
    }

    /// Completes when either comes.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits until the server is to stop: by a signal (`Done`), or by its own failure.
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
