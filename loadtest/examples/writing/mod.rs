//! Writers that replace the contents of files without a pause, for a while.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use hasp_client::Handle;
use hasp_loadtest::bench::{Bench, Cpu, CpuWindow};
use hasp_loadtest::measure::Latencies;
use hasp_rt::env::Env;
use tokio::task::JoinSet;

/// How long, and how much at once.
#[derive(Args, Clone, Debug)]
pub struct Pace {
    /// The `hasp` program to start the servers with.
    #[arg(long, default_value = "target/release/hasp")]
    pub hasp: PathBuf,
    /// Length of the measurement.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Before the measurement.
    #[arg(long, default_value_t = 3)]
    pub warm_up_seconds: u64,
    /// Writes in flight.
    #[arg(long, default_value_t = 256)]
    pub writers: usize,
    /// Of contents.
    #[arg(long, default_value_t = 256)]
    pub bytes: usize,
    /// Write the figures to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// What came of it.
pub struct Written {
    /// How long it was measured.
    pub seconds: f64,
    /// Of writes that began and ended meanwhile.
    pub latencies: Latencies,
    /// Of the servers.
    pub servers: Cpu,
    /// Of the writers.
    pub own: Cpu,
}

/// Writes each file again and again, one write of it at a time.
pub async fn write_all(bench: &Bench, handles: Vec<Handle>, pace: &Pace) -> anyhow::Result<Written> {
    let env = &bench.env;
    let gate = Arc::new(Gate::default());
    let mut writers = JoinSet::new();
    for handle in handles {
        writers.spawn(write(env.clone(), handle, vec![b'w'; pace.bytes].into(), gate.clone()));
    }
    tokio::time::sleep(Duration::from_secs(pace.warm_up_seconds)).await;
    let window = CpuWindow::of_servers(&bench.system);
    let own = CpuWindow::begin([("writers".to_owned(), std::process::id())]);
    let began = env.clock.now();
    gate.is_measuring.store(true, Ordering::Release);
    tokio::time::sleep(Duration::from_secs(pace.seconds)).await;
    gate.is_measuring.store(false, Ordering::Release);
    let seconds = env.clock.now().saturating_since(began).as_secs_f64();
    let (servers, own) = (window.end(), own.end());
    gate.is_over.store(true, Ordering::Release);
    let mut latencies = Latencies::new();
    while let Some(written) = writers.join_next().await {
        latencies.merge(&written.context("join a writer")??);
    }
    Ok(Written { seconds, latencies, servers, own })
}

#[derive(Default)]
struct Gate {
    is_measuring: AtomicBool,
    is_over: AtomicBool,
}

/// Gives the latencies of writes that began in the measurement.
async fn write(env: Env, handle: Handle, contents: Bytes, gate: Arc<Gate>) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new();
    while !gate.is_over.load(Ordering::Acquire) {
        let is_measured = gate.is_measuring.load(Ordering::Acquire);
        let began = env.clock.now();
        handle.set_contents(contents.clone(), None).await.context("write")?;
        // Only what begins and ends in the measurement: so the count is that of the answers in it,
        // less those in flight when it began.
        if is_measured && gate.is_measuring.load(Ordering::Acquire) {
            latencies.record(env.clock.now().saturating_since(began));
        }
    }
    Ok(latencies)
}
