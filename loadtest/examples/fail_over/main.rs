//! Kills a master while clients read and write, and checks that nobody notices more than a pause.
//!
//! Each client has a session of its own, straight at the master or through proxies. It writes its own
//! file, every write a new value, one after the other, half of them on condition of the generation
//! before; and it reads another client's file. Afterwards every acknowledged write must be there, none
//! may have taken effect twice, no read may have shown less than a write that completed before it, no
//! session may be lost, and the killed replica must rejoin.
//!
//! What is measured is how long after the kill the next master answers: the first read, a read of
//! every client, the first write, a write of every client.

mod client;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use hasp_client::{Client, ConnectOptions, Env, OpenOptions, Service, Timers};
use hasp_loadtest::bench::{Bench, Figures, Yardstick};
use hasp_loadtest::check::{ViolationKind, Violations};
use hasp_loadtest::measure::Latencies;
use hasp_loadtest::processes::Processes;
use hasp_loadtest::status::StatusReader;
use hasp_loadtest::system::{NAMESPACE, System, SystemSpec};
use hasp_proto::time::Time;
use tokio::task::JoinSet;

use client::{Outcome, Reader, Shared, Writer, value_of};

/// The only cell.
const CELL: &str = "a";
/// Looking for a master, for a replica to catch up, or for the last answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clients being connected at a time.
const CONNECTING: usize = 100;

/// Kills a master with -9 while clients read and write.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start the servers with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// How many read and write.
    #[arg(long, default_value_t = 1_000)]
    clients: usize,
    /// Proxies in front of the cell; 0: the clients are at the master.
    #[arg(long, default_value_t = 0)]
    proxies: usize,
    /// Pause of each client after a read and after a write, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    pause_ms: u64,
    /// Before the master is killed.
    #[arg(long, default_value_t = 5)]
    before_seconds: u64,
    /// Between the kill and the end.
    #[arg(long, default_value_t = 15)]
    after_seconds: u64,
    /// Let clients keep what they read. Then most reads are answered without the master, also while
    /// there is none, until the lease is over; only those that the next master answers are counted.
    #[arg(long)]
    cache: bool,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let spec = SystemSpec::cells(1).behind(flags.proxies);
    let figures = Bench::run(flags.hasp.clone(), &spec, async |bench| test(bench, &flags).await).await?;
    figures.publish(flags.json.as_deref())
}

async fn test(bench: &mut Bench, flags: &Flags) -> anyhow::Result<Figures> {
    let env = bench.env.clone();
    let bare = Yardstick::take(&env, bench.processes.logs()).await?;
    let shared = Shared::new(&env, flags.clients, Duration::from_millis(flags.pause_ms));
    let writers = connect_all(&env, &bench.system, flags).await?;
    let readers = open_to_read(&writers).await?;
    println!("{} clients connected", writers.len());
    let (mut writing, mut reading) = (JoinSet::new(), JoinSet::new());
    writers.into_iter().for_each(|writer| drop(writing.spawn(writer.write_on(shared.clone()))));
    readers.into_iter().for_each(|reader| drop(reading.spawn(reader.read_on(shared.clone()))));
    env.clock.sleep(Duration::from_secs(flags.before_seconds)).await;
    let (reads, writes) = (shared.reads.load(Ordering::Relaxed), shared.writes.load(Ordering::Relaxed));
    ensure!(reads > 0 && writes > 0, "nothing was answered in {} s", flags.before_seconds);
    println!("{reads} reads and {writes} writes answered before the kill");
    let (killed, killed_at) = kill_master(bench, &shared).await?;
    env.clock.sleep(Duration::from_secs(flags.after_seconds)).await;
    shared.is_over.store(true, Ordering::Release);
    let (writers, readers) = (join(writing).await?, join(reading).await?);
    let mut violations = verify(&env, &bench.system, &writers).await?;
    let rejoined = rejoin(&env, &bench.processes, &mut bench.system, killed).await?;
    let mut figures = figures(flags, &shared, killed_at, &writers, &readers);
    figures.at_most(
        0.0,
        "writes_wrong",
        "files that do not hold what was acknowledged",
        violations.count as f64,
    );
    figures.note("rejoin_s", "killed replica back in the group, s after its start", rejoined.as_secs_f64());
    bare.mean(Yardstick::take(&env, bench.processes.logs()).await?).note(&mut figures);
    let outcomes = writers.into_iter().map(|w| w.outcome).chain(readers.into_iter().map(|r| r.outcome));
    judge(outcomes, &mut violations).inspect_err(|_| println!("{figures}"))?;
    Ok(figures)
}

async fn join<T: 'static>(mut running: JoinSet<T>) -> anyhow::Result<Vec<T>> {
    let mut done = Vec::new();
    let joining = async {
        while let Some(one) = running.join_next().await {
            done.push(one.context("join a client")?);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, joining).await.context("wait for the last answers: none in time")??;
    Ok(done)
}

fn figures(
    flags: &Flags,
    shared: &Shared,
    killed_at: Time,
    writers: &[Writer],
    readers: &[Reader],
) -> Figures {
    let where_to =
        if flags.proxies == 0 { "at the master".into() } else { format!("at {} proxies", flags.proxies) };
    let caching = if flags.cache { "caching" } else { "not caching" };
    let setting = format!(
        "{} clients {where_to}, {caching}, each reading and writing every {} ms; the master killed with -9",
        flags.clients, flags.pause_ms
    );
    let mut figures = Figures::new("fail_over", setting);
    let reads = readers.iter().map(|reader| &reader.outcome);
    pauses(&mut figures, "read", 3.0, killed_at, reads);
    let writes = writers.iter().map(|writer| &writer.outcome);
    pauses(&mut figures, "write", 6.0, killed_at, writes);
    let lost = writers.iter().filter(|writer| writer.client.is_over()).count();
    let outcomes = || writers.iter().map(|w| &w.outcome).chain(readers.iter().map(|r| &r.outcome));
    let violations: u64 = outcomes().map(|outcome| outcome.violations.count).sum();
    let silent = outcomes().filter(|outcome| outcome.resumed.is_none()).count();
    figures.at_most(0.0, "sessions_lost", "sessions lost", lost as f64);
    figures.at_most(
        0.0,
        "stale_or_lost",
        "stale reads, and writes that found what they should not",
        violations as f64,
    );
    figures.at_most(
        0.0,
        "never_again",
        "clients whose reads or writes were never answered again",
        silent as f64,
    );
    figures.note("reads", "reads answered in all", shared.reads.load(Ordering::Relaxed) as f64);
    figures.note("writes", "writes answered in all", shared.writes.load(Ordering::Relaxed) as f64);
    figures
}

/// How long after the kill the new master answered: the first, and each client for the first time.
fn pauses<'a>(
    figures: &mut Figures,
    what: &str,
    most_s: f64,
    killed_at: Time,
    outcomes: impl Iterator<Item = &'a Outcome>,
) {
    let (mut pauses, mut first) = (Latencies::new(), None);
    for at in outcomes.filter_map(|outcome| outcome.resumed) {
        let pause = at.saturating_since(killed_at);
        pauses.record(pause);
        first = Some(first.map_or(pause, |first: Duration| first.min(pause)));
    }
    let summary = pauses.summary();
    let s = |micros: u64| if summary.count == 0 { f64::NAN } else { micros as f64 / 1e6 };
    figures.at_most(
        most_s,
        format!("first_{what}_s"),
        format!("first {what} answered again, s after the kill"),
        first.map_or(f64::NAN, |first| first.as_secs_f64()),
    );
    let half = format!("  half of the clients had a {what}, s");
    figures.note(format!("half_{what}s_s"), half, s(summary.p50_us));
    let all = format!("  all clients had a {what}, s");
    figures.at_most(most_s, format!("all_{what}s_s"), all, s(summary.max_us));
}

/// Fails if anything was wrong with anybody.
fn judge(outcomes: impl Iterator<Item = Outcome>, violations: &mut Violations) -> anyhow::Result<()> {
    let (mut errors, mut silent) = (Vec::new(), 0);
    for outcome in outcomes {
        violations.merge(outcome.violations);
        silent += usize::from(outcome.resumed.is_none());
        errors.extend(outcome.error);
    }
    for violation in &violations.examples {
        println!("FAILED: {violation}");
    }
    for error in errors.iter().take(5) {
        println!("FAILED: {error}");
    }
    ensure!(violations.count == 0, "{} checks failed", violations.count);
    ensure!(errors.is_empty(), "{} calls failed", errors.len());
    ensure!(silent == 0, "{silent} clients were never answered again after the kill");
    Ok(())
}

async fn connect_all(env: &Env, system: &System, flags: &Flags) -> anyhow::Result<Vec<Writer>> {
    let at_proxies = system.proxy_addresses();
    let targets = if at_proxies.is_empty() { system.replica_addresses() } else { at_proxies };
    let service = Service::locate(&targets, PATIENCE, env).await.context("find the service")?;
    let timers = Timers::new(env);
    let mut connecting = JoinSet::new();
    let mut writers = Vec::new();
    for number in 0..flags.clients {
        let options = ConnectOptions {
            timers: Some(timers.clone()),
            cache: flags.cache,
            ..ConnectOptions::new(targets.clone())
        };
        let (env, service) = (env.clone(), service.clone());
        connecting.spawn(async move { connect(&env, &service, options, number).await });
        if connecting.len() >= CONNECTING
            && let Some(writer) = connecting.join_next().await
        {
            writers.push(writer.context("join")??);
        }
    }
    while let Some(writer) = connecting.join_next().await {
        writers.push(writer.context("join")??);
    }
    writers.sort_by_key(|writer| writer.number);
    Ok(writers)
}

async fn connect(
    env: &Env,
    service: &Service,
    options: ConnectOptions,
    number: usize,
) -> anyhow::Result<Writer> {
    let client = Client::join(service, options, env).await.context("connect")?;
    let name = file_of(number);
    let create = OpenOptions::create_file(value_of(number, 0)).must_create();
    let opened = client.open(&name, create).await.with_context(|| format!("create {name}"))?;
    Ok(Writer {
        number,
        client,
        handle: opened.handle,
        value: 0,
        generation: opened.stat.content_generation,
        unknown: None,
        outcome: Outcome::default(),
    })
}

fn file_of(client: usize) -> String {
    format!("/ls/{NAMESPACE}/client-{client}")
}

/// Each client reads the next one's file.
async fn open_to_read(writers: &[Writer]) -> anyhow::Result<Vec<Reader>> {
    let mut readers = Vec::new();
    for writer in writers {
        let of = (writer.number + 1) % writers.len();
        let opened = writer.client.open(file_of(of), OpenOptions::read()).await.context("open to read")?;
        let (number, handle) = (writer.number, opened.handle);
        readers.push(Reader { number, of, handle, outcome: Outcome::default() });
    }
    Ok(readers)
}

/// Kills the master; gives its place among the replicas, and when it was killed.
async fn kill_master(bench: &mut Bench, shared: &Shared) -> anyhow::Result<(usize, Time)> {
    let (index, master) = bench.master(CELL).await?;
    let status = StatusReader::new(bench.env.clone()).ask(&master.address).await?;
    shared.old_epoch.store(status.epoch, Ordering::Release);
    let servers = bench.system.cells.get_mut(CELL).context("find the cell")?;
    let process = &mut servers[index].process;
    println!("killing {} ({})", process.name(), process.pid());
    let killed_at = bench.env.clock.now();
    process.kill().await?;
    shared.is_gone.store(true, Ordering::Release);
    Ok((index, killed_at))
}

/// Reads every file at the new master and compares it with what was acknowledged.
async fn verify(env: &Env, system: &System, writers: &[Writer]) -> anyhow::Result<Violations> {
    let client =
        Client::connect(ConnectOptions::new(system.replica_addresses()), env).await.context("connect")?;
    let mut violations = Violations::default();
    for writer in writers {
        let name = file_of(writer.number);
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
async fn rejoin(
    env: &Env,
    processes: &Processes,
    system: &mut System,
    killed: usize,
) -> anyhow::Result<Duration> {
    let mut reader = StatusReader::new(env.clone());
    let answers = reader.ask_all(&system.replica_addresses()).await;
    let applied = answers.values().map(|status| status.applied).max().unwrap_or(0);
    let began = env.clock.now();
    let server = system.cells.get_mut(CELL).and_then(|replicas| replicas.get_mut(killed));
    let server = server.context("find the replica that was killed")?;
    server.restart(processes).await?;
    let address = server.address.clone();
    loop {
        let status = reader.ask(&address).await;
        let passed = env.clock.now().saturating_since(began);
        if let Ok(status) = &status
            && status.applied >= applied
            && matches!(status.state.as_str(), "follower" | "master")
        {
            return Ok(passed);
        }
        ensure!(passed < PATIENCE, "the killed replica did not rejoin: {status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
