//! How many writes a second one cell takes, and what each costs.
//!
//! Starts one cell of three replicas as child processes, keeps a number of writers busy over a few
//! sessions at its master, and prints writes per second, latencies, and the CPU time and memory of
//! the replicas. Every write is on the disks of a majority before it is answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use hasp_client::{Client, ConnectOptions, Handle, OpenOptions};
use hasp_loadtest::bench::{Bench, Cpu, CpuWindow, Figures, Yardstick};
use hasp_loadtest::measure::Latencies;
use hasp_loadtest::system::{NAMESPACE, System, SystemSpec};
use hasp_rt::env::Env;
use tokio::task::JoinSet;

/// Measures writes to one cell of three replicas.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start the cell with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// Length of the measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Before the measurement.
    #[arg(long, default_value_t = 3)]
    warm_up_seconds: u64,
    /// Writes in flight.
    #[arg(long, default_value_t = 256)]
    writers: usize,
    /// Sessions, and connections, that they share.
    #[arg(long, default_value_t = 4)]
    sessions: usize,
    /// Of contents.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Replicas of the cell.
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let spec = SystemSpec { cells: 1, replicas: flags.replicas, proxies: 0, has_ring: false };
    let figures = Bench::run(flags.hasp.clone(), &spec, async |bench| measure(bench, &flags).await).await?;
    figures.publish(flags.json.as_deref())
}

async fn measure(bench: &Bench, flags: &Flags) -> anyhow::Result<Figures> {
    let env = &bench.env;
    let bare = Yardstick::take(env, bench.processes.logs()).await?;
    let handles = open_files(env, &bench.system, flags).await?;
    let gate = Arc::new(Gate::default());
    let mut writers = JoinSet::new();
    for handle in handles {
        writers.spawn(write(env.clone(), handle, vec![b'w'; flags.bytes], gate.clone()));
    }
    tokio::time::sleep(Duration::from_secs(flags.warm_up_seconds)).await;
    let window = CpuWindow::of_servers(&bench.system);
    let own = CpuWindow::begin([("writers".to_owned(), std::process::id())]);
    let began = env.clock.now();
    gate.is_measuring.store(true, Ordering::Release);
    tokio::time::sleep(Duration::from_secs(flags.seconds)).await;
    gate.is_measuring.store(false, Ordering::Release);
    let seconds = env.clock.now().saturating_since(began).as_secs_f64();
    let (cpu, own) = (window.end(), own.end());
    gate.is_over.store(true, Ordering::Release);
    let mut latencies = Latencies::new();
    while let Some(written) = writers.join_next().await {
        latencies.merge(&written.context("join a writer")??);
    }
    let bare = bare.mean(Yardstick::take(env, bench.processes.logs()).await?);
    Ok(figures(flags, seconds, &latencies, &cpu, &own, &bare))
}

fn figures(
    flags: &Flags,
    seconds: f64,
    latencies: &Latencies,
    cpu: &Cpu,
    own: &Cpu,
    bare: &Yardstick,
) -> Figures {
    let setting = format!(
        "{} B, {} in flight over {} sessions, {} replicas, fsync on, {seconds:.1} s",
        flags.bytes, flags.writers, flags.sessions, flags.replicas
    );
    let mut figures = Figures::new("write_throughput", setting);
    let summary = latencies.summary();
    let ms = |micros: u64| micros as f64 / 1_000.0;
    figures.note("writes_per_s", "writes/s", summary.count as f64 / seconds);
    figures.note("p50_ms", "p50, ms", ms(summary.p50_us));
    figures.note("p99_ms", "p99, ms", ms(summary.p99_us));
    figures.note("max_ms", "max, ms", ms(summary.max_us));
    figures.note("cpu_us", "CPU us/write, all replicas", cpu.us_per("", summary.count));
    for ((name, used), rss_kib) in cpu.seconds.iter().zip(&cpu.rss_kib) {
        let key = name.replace('-', "_");
        let used_us = used * 1e6 / summary.count.max(1) as f64;
        figures.note(format!("cpu_us_{key}"), format!("  {name}"), used_us);
        figures.note(format!("rss_mib_{key}"), format!("  {name}: resident, MiB"), *rss_kib as f64 / 1_024.0);
    }
    figures.note("writers_cpu_us", "CPU us/write, the writers", own.us_per("", summary.count));
    bare.note(&mut figures);
    figures
}

#[derive(Default)]
struct Gate {
    is_measuring: AtomicBool,
    is_over: AtomicBool,
}

/// Writes one file again and again; gives the latencies of writes that began in the measurement.
async fn write(env: Env, handle: Handle, contents: Vec<u8>, gate: Arc<Gate>) -> anyhow::Result<Latencies> {
    let contents = bytes::Bytes::from(contents);
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

async fn open_files(env: &Env, system: &System, flags: &Flags) -> anyhow::Result<Vec<Handle>> {
    let targets = system.replica_addresses();
    let mut clients = Vec::new();
    for _ in 0..flags.sessions.max(1) {
        clients.push(Client::connect(ConnectOptions::new(targets.clone()), env).await.context("connect")?);
    }
    let mut handles = Vec::new();
    for (number, client) in (0..flags.writers).zip(clients.iter().cycle()) {
        let name = format!("/ls/{NAMESPACE}/w{number}");
        let opened = client.open(&name, OpenOptions::create_file("")).await;
        handles.push(opened.with_context(|| format!("create {name}"))?.handle);
    }
    Ok(handles)
}
