//! The user's wish to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Completes when the process is told to stop, with the signal's name.
pub async fn interrupted() -> &'static str {
    tokio::select! {
        () = next(signal(SignalKind::interrupt())) => "an interrupt",
        () = next(signal(SignalKind::terminate())) => "a termination signal",
        () = next(signal(SignalKind::hangup())) => "a hang-up",
    }
}

/// Never completes if the signal cannot be listened for, or comes no more.
async fn next(signal: std::io::Result<Signal>) {
    if let Ok(mut signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}
