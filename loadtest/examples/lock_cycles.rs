//! How many times a second locks are acquired and released, and how fast one lock goes from hand to
//! hand.
//!
//! Starts one cell of three replicas as child processes. First each client takes and frees a lock of
//! its own, again and again; then some clients queue for one lock, and each frees it as soon as it
//! has it. Every step is on the disks of a majority before it is answered. Nobody may hold a lock
//! while another does: that is checked as well.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use hasp_client::{Client, ConnectOptions, Handle, LockMode, OpenOptions, Service, Timers};
use hasp_loadtest::bench::{Bench, Cpu, CpuWindow, Figures, Yardstick};
use hasp_loadtest::measure::Latencies;
use hasp_loadtest::system::{NAMESPACE, SystemSpec};
use hasp_proto::time::Time;
use hasp_rt::env::Env;
use tokio::task::JoinSet;

/// How long the service may take to be reached.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long clients may take to finish what they do.
const LAST_CYCLES: Duration = Duration::from_secs(30);

/// Measures acquiring and releasing of locks in one cell of three replicas.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start the servers with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// Clients with a lock each; a session and a connection for each client.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Clients that want the same lock.
    #[arg(long, default_value_t = 16)]
    waiters: usize,
    /// Length of each of the two measurements.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Before each of them.
    #[arg(long, default_value_t = 2)]
    warm_up_seconds: u64,
    /// Proxies in front of the cell; 0: the clients are at the master.
    #[arg(long, default_value_t = 0)]
    proxies: usize,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let spec = SystemSpec::cells(1).behind(flags.proxies);
    let figures = Bench::run(flags.hasp.clone(), &spec, async |bench| measure(bench, &flags).await).await?;
    figures.publish(flags.json.as_deref())
}

async fn measure(bench: &Bench, flags: &Flags) -> anyhow::Result<Figures> {
    let before = Yardstick::take(&bench.env, bench.processes.logs()).await?;
    let where_to =
        if flags.proxies == 0 { "at the master".into() } else { format!("at {} proxies", flags.proxies) };
    let setting = format!("one cell of 3 replicas, fsync on; clients {where_to}; {} s each", flags.seconds);
    let mut figures = Figures::new("lock_cycles", setting);
    let own = clients(bench, flags.clients, |number| format!("/ls/{NAMESPACE}/lock-{number}")).await?;
    cycles(bench, flags, own, &mut figures).await.context("cycles")?;
    let one = clients(bench, flags.waiters, |_| format!("/ls/{NAMESPACE}/the-lock")).await?;
    hand_overs(bench, flags, one, &mut figures).await.context("hand-overs")?;
    let after = Yardstick::take(&bench.env, bench.processes.logs()).await?;
    before.mean(after).note(&mut figures);
    Ok(figures)
}

/// A session with a handle on a lock.
struct Locker {
    /// Kept: the session ends with it.
    _client: Client,
    handle: Handle,
}

async fn clients(bench: &Bench, count: usize, name: impl Fn(usize) -> String) -> anyhow::Result<Vec<Locker>> {
    let at_proxies = bench.system.proxy_addresses();
    let targets = if at_proxies.is_empty() { bench.system.replica_addresses() } else { at_proxies };
    let service = Service::locate(&targets, PATIENCE, &bench.env).await.context("find the service")?;
    let timers = Timers::new(&bench.env);
    let mut lockers = Vec::new();
    for number in 0..count {
        let options = ConnectOptions { timers: Some(timers.clone()), ..ConnectOptions::new(targets.clone()) };
        let client = Client::join(&service, options, &bench.env).await.context("connect")?;
        let name = name(number);
        let opened = client.open(&name, OpenOptions::create_file("")).await;
        let handle = opened.with_context(|| format!("open {name}"))?.handle;
        lockers.push(Locker { _client: client, handle });
    }
    Ok(lockers)
}

/// What phase a measurement is in, for all its clients.
#[derive(Default)]
struct Gate {
    is_measuring: AtomicBool,
    is_over: AtomicBool,
}

impl Gate {
    fn is_measuring(&self) -> bool {
        self.is_measuring.load(Ordering::Acquire)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// What one measurement brought.
struct Measured {
    seconds: f64,
    latencies: Latencies,
    cpu: Cpu,
}

/// Lets clients run through warm-up and measurement, then ends them.
async fn run(
    bench: &Bench,
    flags: &Flags,
    gate: &Gate,
    mut running: JoinSet<anyhow::Result<Latencies>>,
) -> anyhow::Result<Measured> {
    let clock = &bench.env.clock;
    clock.sleep(Duration::from_secs(flags.warm_up_seconds)).await;
    let window = CpuWindow::of_servers(&bench.system);
    let began = clock.now();
    gate.is_measuring.store(true, Ordering::Release);
    clock.sleep(Duration::from_secs(flags.seconds)).await;
    gate.is_measuring.store(false, Ordering::Release);
    let seconds = clock.now().saturating_since(began).as_secs_f64();
    let cpu = window.end();
    gate.is_over.store(true, Ordering::Release);
    let mut latencies = Latencies::new();
    let joining = async {
        while let Some(done) = running.join_next().await {
            latencies.merge(&done.context("join a client")??);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LAST_CYCLES, joining).await.context("wait for the last cycles")??;
    Ok(Measured { seconds, latencies, cpu })
}

async fn cycles(
    bench: &Bench,
    flags: &Flags,
    lockers: Vec<Locker>,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let gate = Arc::new(Gate::default());
    let mut running = JoinSet::new();
    for locker in lockers {
        running.spawn(cycle(bench.env.clone(), locker, gate.clone()));
    }
    let Measured { seconds, latencies, cpu } = run(bench, flags, &gate, running).await?;
    let summary = latencies.summary();
    let (ms, count) = (|micros: u64| micros as f64 / 1e3, summary.count);
    let what = format!("{} clients, a lock each", flags.clients);
    figures.at_least(6_000.0, "cycles_per_s", format!("{what}: cycles/s"), count as f64 / seconds);
    figures.at_most(200.0, "cycle_cpu_us", "  CPU us/cycle, all replicas", cpu.us_per("cell", count));
    for (name, used) in &cpu.seconds {
        let key = format!("cycle_cpu_us_{}", name.replace('-', "_"));
        figures.note(key, format!("    {name}"), used * 1e6 / count.max(1) as f64);
    }
    figures.note("cycle_p50_ms", "  cycle p50, ms", ms(summary.p50_us));
    figures.note("cycle_p99_ms", "  cycle p99, ms", ms(summary.p99_us));
    Ok(())
}

/// Acquires and releases; gives the durations of cycles that lie in the measurement.
async fn cycle(env: Env, locker: Locker, gate: Arc<Gate>) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new();
    let mut last = None;
    while !gate.is_over() {
        let (is_measured, began) = (gate.is_measuring(), env.clock.now());
        let acquired = locker.handle.acquire(LockMode::Exclusive).await.context("acquire")?;
        ensure!(last < Some(acquired.lock_generation), "a lock generation did not grow: {acquired:?}");
        last = Some(acquired.lock_generation);
        locker.handle.release().await.context("release")?;
        if is_measured && gate.is_measuring() {
            latencies.record(env.clock.now().saturating_since(began));
        }
    }
    Ok(latencies)
}

/// What those who want one lock share.
#[derive(Default)]
struct Baton {
    gate: Gate,
    /// When the last holder began to release it, in microseconds; 0 while somebody holds it.
    released_at: AtomicU64,
    is_held: AtomicBool,
    /// Of the last acquisition.
    generation: AtomicU64,
}

async fn hand_overs(
    bench: &Bench,
    flags: &Flags,
    lockers: Vec<Locker>,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let baton = Arc::new(Baton::default());
    let mut running = JoinSet::new();
    for locker in lockers {
        running.spawn(pass_on(bench.env.clone(), locker, baton.clone()));
    }
    let Measured { seconds, latencies, cpu } = run(bench, flags, &baton.gate, running).await?;
    let summary = latencies.summary();
    let (ms, count) = (|micros: u64| micros as f64 / 1e3, summary.count);
    let what = format!("{} clients, one lock", flags.waiters);
    figures.at_least(900.0, "hand_overs_per_s", format!("{what}: hand-overs/s"), count as f64 / seconds);
    figures.at_most(1.0, "hand_over_p50_ms", "  release sent to next acquired, p50, ms", ms(summary.p50_us));
    figures.note("hand_over_p99_ms", "  p99, ms", ms(summary.p99_us));
    figures.note("hand_over_cpu_us", "  CPU us/hand-over, all replicas", cpu.us_per("cell", count));
    Ok(())
}

/// Waits for the lock and frees it; gives the durations of the hand-overs to this client.
async fn pass_on(env: Env, locker: Locker, baton: Arc<Baton>) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new();
    while !baton.gate.is_over() {
        let acquired = locker.handle.acquire(LockMode::Exclusive).await.context("acquire")?;
        let now = env.clock.now();
        ensure!(!baton.is_held.swap(true, Ordering::AcqRel), "two clients hold the lock at once");
        let last = baton.generation.swap(acquired.lock_generation.0, Ordering::AcqRel);
        ensure!(last < acquired.lock_generation.0, "generation {last} comes before {acquired:?}");
        let released_at = baton.released_at.swap(0, Ordering::AcqRel);
        if released_at > 0 && baton.gate.is_measuring() {
            latencies.record(now.saturating_since(Time::from_micros(released_at)));
        }
        baton.is_held.store(false, Ordering::Release);
        baton.released_at.store(env.clock.now().as_micros(), Ordering::Release);
        locker.handle.release().await.context("release")?;
    }
    Ok(latencies)
}
