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
use hasp_loadtest::interrupted;
use hasp_loadtest::measure::Latencies;
use hasp_loadtest::processes::Processes;
use hasp_loadtest::procfs::{Usage, usage};
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let env = Env::system().context("look at the world")?;
    let home = tempfile::tempdir().context("make a temporary directory")?;
    let (processes, mut ended) = Processes::new(env.clone(), flags.hasp.clone(), home.path().to_owned());
    let spec = SystemSpec { cells: 1, replicas: flags.replicas, proxies: 0 };
    let measuring = async {
        let mut system = System::start(&env, &processes, &spec, home.path()).await?;
        let measured = measure(&env, &system, &flags).await;
        system.stop().await?;
        measured
    };
    let result = tokio::select! {
        biased;
        result = measuring => result,
        why = ended.unasked() => Err(why),
        signal = interrupted() => Err(anyhow::anyhow!("stopped by {signal}")),
    };
    let left = processes.stop_left().await;
    env.tasks.abort();
    let drained = env.tasks.drain(Duration::from_secs(5)).await;
    result?.print(&flags);
    left?;
    drained.context("stop everything")
}

struct Measured {
    seconds: f64,
    latencies: Latencies,
    /// Name, CPU seconds within the measurement, resident memory at its end.
    replicas: Vec<(String, Usage)>,
    client: Usage,
}

async fn measure(env: &Env, system: &System, flags: &Flags) -> anyhow::Result<Measured> {
    let handles = open_files(env, system, flags).await?;
    let gate = Arc::new(Gate::default());
    let mut writers = JoinSet::new();
    for handle in handles {
        writers.spawn(write(env.clone(), handle, vec![b'w'; flags.bytes], gate.clone()));
    }
    tokio::time::sleep(Duration::from_secs(flags.warm_up_seconds)).await;
    let before = usages(system);
    let began = env.clock.now();
    gate.is_measuring.store(true, Ordering::Release);
    tokio::time::sleep(Duration::from_secs(flags.seconds)).await;
    gate.is_measuring.store(false, Ordering::Release);
    let seconds = env.clock.now().saturating_since(began).as_secs_f64();
    let after = usages(system);
    gate.is_over.store(true, Ordering::Release);
    let mut latencies = Latencies::new();
    while let Some(written) = writers.join_next().await {
        latencies.merge(&written.context("join a writer")??);
    }
    let mut used = before.into_iter().zip(after).map(|((name, before), (_, after))| {
        (name, Usage { cpu_s: after.cpu_s - before.cpu_s, rss_kib: after.rss_kib })
    });
    let client = used.next().map(|(_, usage)| usage).unwrap_or_default();
    Ok(Measured { seconds, latencies, replicas: used.collect(), client })
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

/// This process first, then the replicas.
fn usages(system: &System) -> Vec<(String, Usage)> {
    let own = ("writers".to_owned(), usage(std::process::id()).unwrap_or_default());
    let of = |process: &hasp_loadtest::processes::Process| {
        (process.name().to_owned(), usage(process.pid()).unwrap_or_default())
    };
    [own].into_iter().chain(system.servers().map(|server| of(&server.process))).collect()
}

impl Measured {
    fn print(&self, flags: &Flags) {
        let summary = self.latencies.summary();
        let writes = summary.count.max(1) as f64;
        let ms = |micros: u64| micros as f64 / 1_000.0;
        let cpu_us: f64 = self.replicas.iter().map(|(_, usage)| usage.cpu_s * 1e6).sum();
        println!(
            "{} B, {} in flight over {} sessions, {} replicas, fsync on, {:.1} s",
            flags.bytes, flags.writers, flags.sessions, flags.replicas, self.seconds
        );
        println!("writes/s       {:.0}", writes / self.seconds);
        println!("p50 ms         {:.2}", ms(summary.p50_us));
        println!("p99 ms         {:.2}", ms(summary.p99_us));
        println!("max ms         {:.2}", ms(summary.max_us));
        println!("CPU us/write   {:.1} over all replicas", cpu_us / writes);
        for (name, used) in &self.replicas {
            let rss_mib = used.rss_kib as f64 / 1_024.0;
            println!("  {name}     {:.1} us/write, {rss_mib:.1} MiB resident", used.cpu_s * 1e6 / writes);
        }
        println!("  (writers     {:.1} us/write)", self.client.cpu_s * 1e6 / writes);
    }
}
