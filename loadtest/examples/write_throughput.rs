//! How many writes a second one cell takes, and what each costs.
//!
//! Starts one cell of three replicas as child processes, keeps a number of writers busy over a few
//! sessions at its master, and prints writes per second, latencies, and the CPU time and memory of
//! the replicas. Every write is on the disks of a majority before it is answered.

mod writing;

use anyhow::Context as _;
use clap::Parser;
use hasp_client::{Client, ConnectOptions, Handle, OpenOptions};
use hasp_loadtest::bench::{Bench, Figures, Yardstick};
use hasp_loadtest::system::{NAMESPACE, System, SystemSpec};
use hasp_rt::env::Env;

use writing::{Pace, Written, write_all};

/// Measures writes to one cell of three replicas.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    pace: Pace,
    /// Sessions, and connections, that the writers share.
    #[arg(long, default_value_t = 4)]
    sessions: usize,
    /// Replicas of the cell.
    #[arg(long, default_value_t = 3)]
    replicas: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let spec = SystemSpec { replicas: flags.replicas, ..SystemSpec::cells(1) };
    let hasp = flags.pace.hasp.clone();
    let figures = Bench::run(hasp, &spec, async |bench| measure(bench, &flags).await).await?;
    figures.publish(flags.pace.json.as_deref())
}

async fn measure(bench: &Bench, flags: &Flags) -> anyhow::Result<Figures> {
    let env = &bench.env;
    let bare = Yardstick::take(env, bench.processes.logs()).await?;
    let handles = open_files(env, &bench.system, flags).await?;
    let written = write_all(bench, handles, &flags.pace).await?;
    let bare = bare.mean(Yardstick::take(env, bench.processes.logs()).await?);
    Ok(figures(flags, &written, &bare))
}

fn figures(flags: &Flags, written: &Written, bare: &Yardstick) -> Figures {
    let Written { seconds, latencies, servers, own } = written;
    let setting = format!(
        "{} B, {} in flight over {} sessions, {} replicas, fsync on, {seconds:.1} s",
        flags.pace.bytes, flags.pace.writers, flags.sessions, flags.replicas
    );
    let mut figures = Figures::new("write_throughput", setting);
    let summary = latencies.summary();
    let ms = |micros: u64| micros as f64 / 1_000.0;
    figures.note("writes_per_s", "writes/s", summary.count as f64 / seconds);
    figures.note("p50_ms", "p50, ms", ms(summary.p50_us));
    figures.note("p99_ms", "p99, ms", ms(summary.p99_us));
    figures.note("max_ms", "max, ms", ms(summary.max_us));
    figures.note("cpu_us", "CPU us/write, all replicas", servers.us_per("", summary.count));
    for ((name, used), rss_kib) in servers.seconds.iter().zip(&servers.rss_kib) {
        let key = name.replace('-', "_");
        let used_us = used * 1e6 / summary.count.max(1) as f64;
        figures.note(format!("cpu_us_{key}"), format!("  {name}"), used_us);
        figures.note(format!("rss_mib_{key}"), format!("  {name}: resident, MiB"), *rss_kib as f64 / 1_024.0);
    }
    figures.note("writers_cpu_us", "CPU us/write, the writers", own.us_per("", summary.count));
    bare.note(&mut figures);
    figures
}

async fn open_files(env: &Env, system: &System, flags: &Flags) -> anyhow::Result<Vec<Handle>> {
    let targets = system.replica_addresses();
    let mut clients = Vec::new();
    for _ in 0..flags.sessions.max(1) {
        clients.push(Client::connect(ConnectOptions::new(targets.clone()), env).await.context("connect")?);
    }
    let mut handles = Vec::new();
    for (number, client) in (0..flags.pace.writers).zip(clients.iter().cycle()) {
        let name = format!("/ls/{NAMESPACE}/w{number}");
        let opened = client.open(&name, OpenOptions::create_file("")).await;
        handles.push(opened.with_context(|| format!("create {name}"))?.handle);
    }
    Ok(handles)
}
