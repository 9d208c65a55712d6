//! What the servers of a simulated world say, if somebody wants to read it.

use std::fmt;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Shown instead of the time of day: seconds since the world began.
struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{:>9.3}", turmoil::sim_elapsed().unwrap_or_default().as_secs_f64())
    }
}

/// Prints logs to standard error if `RUST_LOG` asks for some. May be called again.
pub fn log_if_asked() {
    if std::env::var("RUST_LOG").is_ok() {
        let filter = EnvFilter::from_default_env();
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_timer(SimulatedTime);
        // Another scenario of the process may have set it already.
        let _ = logs.with_writer(std::io::stderr).with_ansi(false).try_init();
    }
}
