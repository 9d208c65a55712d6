//! Kills a master while clients write through a proxy, and checks that nobody notices more than a
//! pause.
//!
//! Each client writes its own file, every write a new value, one after the other; half of them on
//! condition of the generation before. Afterwards every acknowledged write must be there, none may
//! have taken effect twice, no session may be lost, and the killed replica must rejoin.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use hasp_client::{Client, ConnectOptions, Env, ErrorCode, Generation, Handle, OpenOptions, Service, Timers};
use hasp_loadtest::check::{ViolationKind, Violations};
use hasp_loadtest::interrupted;
use hasp_loadtest::measure::Latencies;
use hasp_loadtest::processes::Processes;
use hasp_loadtest::procfs::raise_open_files;
use hasp_loadtest::status::StatusReader;
use hasp_loadtest::system::{NAMESPACE, System, SystemSpec};
use hasp_proto::time::Time;
use tokio::task::JoinSet;

/// The only cell.
const CELL: &str = "a";
/// Looking for a master, or for a replica to catch up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills a master with -9 while clients write through a proxy.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start the cell and the proxy with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// How many write.
    #[arg(long, default_value_t = 1_000)]
    clients: usize,
    /// Pause of each client after a write, in milliseconds.
    #[arg(long, default_value_t = 500)]
    pause_ms: u64,
    /// Before the master is killed.
    #[arg(long, default_value_t = 5)]
    before_seconds: u64,
    /// Between the kill and the end of the writing.
    #[arg(long, default_value_t = 15)]
    after_seconds: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    raise_open_files();
    let env = Env::system().context("look at the world")?;
    let home = tempfile::tempdir().context("make a temporary directory")?;
    let (processes, mut ended) = Processes::new(env.clone(), flags.hasp.clone(), home.path().to_owned());
    let spec = SystemSpec { cells: 1, replicas: 3, proxies: 1 };
    let testing = async {
        let mut system = System::start(&env, &processes, &spec, home.path()).await?;
        let tested = test(&env, &processes, &mut system, &flags).await;
        let stopped = system.stop().await;
        tested.and(stopped)
    };
    let result = tokio::select! {
        biased;
        result = testing => result,
        why = ended.unasked() => Err(why),
        signal = interrupted() => Err(anyhow::anyhow!("stopped by {signal}")),
    };
    let left = processes.stop_left().await;
    env.tasks.abort();
    let drained = env.tasks.drain(Duration::from_secs(5)).await;
    if let Err(error) = result {
        let kept = home.keep();
        return Err(error.context(format!("logs are in {}", kept.display())));
    }
    left?;
    drained.context("stop everything")
}

async fn test(env: &Env, processes: &Processes, system: &mut System, flags: &Flags) -> anyhow::Result<()> {
    let shared = Arc::new(Shared::default());
    let writers = connect_all(env, system, flags).await?;
    println!("{} clients connected", writers.len());
    let mut writing = JoinSet::new();
    for writer in writers {
        writing.spawn(writer.write_on(env.clone(), shared.clone(), Duration::from_millis(flags.pause_ms)));
    }
    tokio::time::sleep(Duration::from_secs(flags.before_seconds)).await;
    let before = shared.acknowledged.load(Ordering::Relaxed);
    ensure!(before > 0, "no write was acknowledged in {} s", flags.before_seconds);
    println!("{before} writes acknowledged before the kill");
    let killed = kill_master(env, system).await?;
    let killed_at = env.clock.now();
    shared.killed_at.store(killed_at.as_micros(), Ordering::Release);
    tokio::time::sleep(Duration::from_secs(flags.after_seconds)).await;
    shared.is_over.store(true, Ordering::Release);
    let mut writers = Vec::new();
    let joining = async {
        while let Some(writer) = writing.join_next().await {
            writers.push(writer.context("join a writer")?);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, joining)
        .await
        .context("wait for the last writes: no answer in time")??;
    print_pause(&writers, killed_at);
    let mut violations = verify(env, system, &writers).await?;
    rejoin(env, processes, system, killed).await?;
    let lost = writers.iter().filter(|writer| writer.client.is_over()).count();
    let acknowledged = shared.acknowledged.load(Ordering::Relaxed);
    println!(
        "{acknowledged} writes acknowledged in all, {lost} sessions lost, {} checks failed",
        violations.count
    );
    for writer in &mut writers {
        violations.merge(std::mem::take(&mut writer.violations));
    }
    for violation in &violations.examples {
        println!("FAILED: {violation}");
    }
    for error in writers.iter().filter_map(|writer| writer.error.as_ref()).take(5) {
        println!("FAILED: {error}");
    }
    let failed = writers.iter().filter(|writer| writer.error.is_some()).count();
    let silent = writers.iter().filter(|writer| writer.resumed.is_none()).count();
    ensure!(lost == 0, "{lost} sessions lost");
    ensure!(violations.count == 0, "{} checks failed", violations.count);
    ensure!(failed == 0, "{failed} clients had a write refused");
    ensure!(silent == 0, "{silent} clients never wrote again after the kill");
    Ok(())
}

#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    /// Microseconds; 0 before.
    killed_at: AtomicU64,
    is_over: AtomicBool,
}

/// A client and what it knows of its file.
struct Writer {
    number: usize,
    client: Client,
    handle: Handle,
    /// The last value acknowledged, and its generation.
    value: u64,
    generation: Generation,
    /// A later value of which nobody knows whether it was written.
    unknown: Option<u64>,
    /// When the first write that began after the kill was acknowledged.
    resumed: Option<Time>,
    violations: Violations,
    error: Option<String>,
}

fn value_of(number: usize, value: u64) -> String {
    format!("client {number} value {value}")
}

impl Writer {
    async fn write_on(mut self, env: Env, shared: Arc<Shared>, pause: Duration) -> Self {
        // Not all at the same moment.
        tokio::time::sleep(pause * u32::try_from(self.number % 100).unwrap_or(0) / 100).await;
        while !shared.is_over.load(Ordering::Acquire) && self.error.is_none() {
            let began = env.clock.now();
            self.write_next().await;
            let killed_at = shared.killed_at.load(Ordering::Acquire);
            if self.error.is_none() {
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                if self.resumed.is_none() && killed_at > 0 && began.as_micros() > killed_at {
                    self.resumed = Some(env.clock.now());
                }
            }
            tokio::time::sleep(pause).await;
        }
        self
    }

    async fn write_next(&mut self) {
        let value = self.value + 1;
        let condition = value.is_multiple_of(2).then_some(self.generation);
        match self.handle.set_contents(value_of(self.number, value), condition).await {
            Ok(written) => {
                if written.previous_generation != self.generation {
                    let (found, known) = (written.previous_generation, self.generation);
                    let why = format!("client {}: generation {found} replaced, not {known}", self.number);
                    self.violations.add(ViolationKind::LostOrRepeatedWrite.because(why));
                }
                (self.value, self.generation) = (value, written.content_generation);
            }
            Err(error) => {
                if error.code == ErrorCode::GenerationMismatch {
                    let why = format!("client {}: value {value} refused, nobody else writes", self.number);
                    self.violations.add(ViolationKind::LostOrRepeatedWrite.because(why));
                } else {
                    self.unknown = Some(value);
                }
                self.error = Some(format!("client {}: value {value}: {error}", self.number));
            }
        }
    }
}

async fn connect_all(env: &Env, system: &System, flags: &Flags) -> anyhow::Result<Vec<Writer>> {
    let targets = system.proxy_addresses();
    let service = Service::locate(&targets, PATIENCE, env).await.context("find the proxy")?;
    let timers = Timers::new(env);
    let mut connecting = JoinSet::new();
    let mut writers = Vec::new();
    for number in 0..flags.clients {
        let options = ConnectOptions { timers: Some(timers.clone()), ..ConnectOptions::new(targets.clone()) };
        let (env, service) = (env.clone(), service.clone());
        connecting.spawn(async move {
            let client = Client::join(&service, options, &env).await.context("connect")?;
            let name = format!("/ls/{NAMESPACE}/client-{number}");
            let create = OpenOptions::create_file(value_of(number, 0)).must_create();
            let opened = client.open(&name, create).await.with_context(|| format!("create {name}"))?;
            anyhow::Ok(Writer {
                number,
                client,
                handle: opened.handle,
                value: 0,
                generation: opened.stat.content_generation,
                unknown: None,
                resumed: None,
                violations: Violations::default(),
                error: None,
            })
        });
        if connecting.len() >= 100
            && let Some(writer) = connecting.join_next().await
        {
            writers.push(writer.context("join")??);
        }
    }
    while let Some(writer) = connecting.join_next().await {
        writers.push(writer.context("join")??);
    }
    Ok(writers)
}

/// Kills the master; gives its place among the replicas.
async fn kill_master(env: &Env, system: &mut System) -> anyhow::Result<usize> {
    let mut reader = StatusReader::new(env.clone());
    let servers = system.cells.get_mut(CELL).context("find the cell")?;
    for (index, server) in servers.iter_mut().enumerate() {
        if reader.ask(&server.address).await?.is_master() {
            println!("killing {} ({})", server.process.name(), server.process.pid());
            server.process.kill().await?;
            return Ok(index);
        }
    }
    bail!("no replica is the master")
}

fn print_pause(writers: &[Writer], killed_at: Time) {
    let mut pauses = Latencies::new();
    let resumed = writers.iter().filter_map(|writer| writer.resumed);
    resumed.clone().for_each(|at| pauses.record(at.saturating_since(killed_at)));
    let s = |micros: u64| micros as f64 / 1e6;
    let summary = pauses.summary();
    let first = resumed.min().map_or(f64::NAN, |at| at.saturating_since(killed_at).as_secs_f64());
    println!("first write begun after the kill acknowledged {first:.2} s after it");
    println!(
        "each client's first: half within {:.2} s, 99% within {:.2} s, all within {:.2} s",
        s(summary.p50_us),
        s(summary.p99_us),
        s(summary.max_us)
    );
}

/// Reads every file at the new master and compares it with what was acknowledged.
async fn verify(env: &Env, system: &System, writers: &[Writer]) -> anyhow::Result<Violations> {
    let client =
        Client::connect(ConnectOptions::new(system.replica_addresses()), env).await.context("connect")?;
    let mut violations = Violations::default();
    for writer in writers {
        let name = format!("/ls/{NAMESPACE}/client-{}", writer.number);
        let opened = client.open(&name, OpenOptions::read()).await.with_context(|| format!("open {name}"))?;
        let read = opened.handle.get_contents_and_stat().await.with_context(|| format!("read {name}"))?;
        let found = String::from_utf8_lossy(&read.contents).into_owned();
        let is_last = found == value_of(writer.number, writer.value);
        let is_unknown = writer.unknown.is_some_and(|value| found == value_of(writer.number, value));
        let is_generation = read.stat.content_generation == writer.generation;
        if !(is_unknown || is_last && is_generation) {
            let why = format!(
                "{name} holds {found:?} (generation {}), and value {} was acknowledged (generation {})",
                read.stat.content_generation, writer.value, writer.generation
            );
            violations.add(ViolationKind::LostOrRepeatedWrite.because(why));
        }
    }
    client.close().await;
    Ok(violations)
}

/// Starts the killed replica again and waits until it has applied what the others have.
async fn rejoin(env: &Env, processes: &Processes, system: &mut System, killed: usize) -> anyhow::Result<()> {
    let mut reader = StatusReader::new(env.clone());
    let answers = reader.ask_all(&system.replica_addresses()).await;
    let applied = answers.values().map(|status| status.applied).max().unwrap_or(0);
    let began = env.clock.now();
    system.restart_replica(processes, CELL, killed).await?;
    let address = system.cells[CELL][killed].address.clone();
    loop {
        let status = reader.ask(&address).await;
        let passed = env.clock.now().saturating_since(began);
        if let Ok(status) = &status
            && status.applied >= applied
            && matches!(status.state.as_str(), "follower" | "master")
        {
            println!("the killed replica rejoined {:.2} s after its start", passed.as_secs_f64());
            return Ok(());
        }
        ensure!(passed < PATIENCE, "the killed replica did not rejoin: {status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
