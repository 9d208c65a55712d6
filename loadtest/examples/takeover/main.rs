//! Kills a proxy that carries every client, and checks that nobody loses anything.
//!
//! There are three proxies, and every client is given all three addresses. While the clients connect only the first one
//! runs: the others are stopped, and started again at their ports before the kill, so that all sessions are at the
//! first and have two to go on to. Some clients hold an exclusive lock, some an ephemeral file. The first proxy is
//! killed with -9, and every client makes one call at that moment.
//!
//! Meanwhile and afterwards a rival at the master asks for every lock, which must be refused because it is held, and
//! counts the ephemeral files. In the end each acquisition must stand: the same generation, the sequencer taken before
//! the kill still valid, and its holder able to get another.

mod holders;
mod rival;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use hasp_client::Env;
use hasp_loadtest::bench::{Bench, CpuWindow, Figures, Yardstick};
use hasp_loadtest::measure::{Latencies, Summary};
use hasp_loadtest::options::OPEN_FILES_SLACK;
use hasp_loadtest::processes::stop_all;
use hasp_loadtest::procfs::raise_open_files;
use hasp_loadtest::status::StatusReader;
use hasp_loadtest::system::SystemSpec;
use hasp_proto::time::Time;
use tokio::task::JoinSet;

use holders::{Happened, HoldingClient, connect_all};
use rival::{Rival, Seen};

/// Until a client is connected, or answered again: beyond a lease and its grace period its session is lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills with -9 a proxy that carries all clients.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start the servers with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// Clients, each with a session and a connection.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// How many of them hold an exclusive lock.
    #[arg(long, default_value_t = 1_000)]
    locks: u32,
    /// How many of them hold an ephemeral file.
    #[arg(long, default_value_t = 1_000)]
    ephemerals: u32,
    /// From the kill to the end: longer than a lease, so that a session that nobody cares for would be over.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(15..=3_600))]
    after_seconds: u64,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Flags {
    fn validate(&self, open_files: usize) -> anyhow::Result<()> {
        ensure!(self.locks <= self.clients, "--locks must be at most --clients, {}", self.clients);
        ensure!(self.ephemerals <= self.clients, "--ephemerals must be at most --clients, {}", self.clients);
        let room = open_files.saturating_sub(OPEN_FILES_SLACK);
        ensure!(
            self.clients as usize <= room,
            "--clients must be at most {room}: a process may open {open_files} files (ulimit -n)"
        );
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    flags.validate(raise_open_files())?;
    let spec = SystemSpec::cells(1).behind(3);
    Bench::run(flags.hasp.clone(), &spec, async |bench| test(bench, &flags).await).await
}

async fn test(bench: &mut Bench, flags: &Flags) -> anyhow::Result<()> {
    let env = bench.env.clone();
    let bare = Yardstick::take(&env, bench.processes.logs()).await?;
    let happened = Arc::<Happened>::default();
    let clients = gather(bench, flags, &happened).await?;
    let present = flags.ephemerals as usize;
    let mut rival = Rival::connect(&env, bench.system.replica_addresses(), flags.locks, present).await?;
    rival.round().await?;
    ensure!(
        rival.seen.granted.is_empty() && rival.seen.gone == 0,
        "not all is held before the kill: {:?}",
        rival.seen
    );

    let master = bench.master("a").await?.1.process.pid();
    let proxy = &mut bench.system.proxies[0].process;
    println!("killing {} ({})", proxy.name(), proxy.pid());
    let killed_at = env.clock.now();
    proxy.kill().await?;
    let until = killed_at + Duration::from_secs(flags.after_seconds);
    let haunting = async {
        while env.clock.now() < until {
            rival.round().await?;
        }
        anyhow::Ok(())
    };
    let (answered, busy, haunted) =
        tokio::join!(call_all(&env, &clients, killed_at), watch_cpu(&env, master, until), haunting);
    haunted?;
    let (answered, errors) = answered?;
    rival.check(&clients).await?;
    rival.round().await?;
    let over = clients.iter().filter(|client| client.client.is_over()).count() as u64;

    let found = Found {
        lost: over.max(happened.lost.load(Ordering::Relaxed)),
        jeopardies: happened.jeopardies.load(Ordering::Relaxed),
        answered: answered.summary(),
        errors,
        busy,
        seen: rival.seen,
    };
    let mut figures = found.figures(flags);
    bare.mean(Yardstick::take(&env, bench.processes.logs()).await?).note(&mut figures);
    figures.publish(flags.json.as_deref())?;
    found.judge()
}

/// What came of it.
struct Found {
    lost: u64,
    jeopardies: u64,
    answered: Summary,
    /// Of calls that failed.
    errors: Vec<String>,
    /// CPU of the master in each second, in cores.
    busy: Vec<f64>,
    seen: Seen,
}

impl Found {
    fn figures(&self, flags: &Flags) -> Figures {
        let setting = format!(
            "{} clients at one of three proxies, {} with a lock, {} with an ephemeral file; that proxy killed with -9",
            flags.clients, flags.locks, flags.ephemerals
        );
        let mut figures = Figures::new("takeover", setting);
        let Self { answered, seen, .. } = self;
        let s = |micros: u64| if answered.count == 0 { f64::NAN } else { micros as f64 / 1e6 };
        figures.at_most(0.0, "sessions_lost", "sessions lost", self.lost as f64);
        figures.note("jeopardies", "times a session was in jeopardy", self.jeopardies as f64);
        figures.at_most(0.0, "locks_lost", "locks lost", seen.lost.len() as f64);
        let granted = seen.granted.len() as f64;
        figures.at_most(0.0, "locks_granted", "locks granted to another while they were held", granted);
        figures.note("locks_asked", "times another asked for a lock", seen.asked as f64);
        figures.at_most(0.0, "ephemerals_gone", "ephemeral files gone", seen.gone as f64);
        figures.at_most(0.0, "errors", "clients whose call failed", self.errors.len() as f64);
        let half = "client answered again, p50, s after the kill";
        figures.at_most(2.0, "answered_p50_s", half, s(answered.p50_us));
        figures.note("answered_p99_s", "  p99, s", s(answered.p99_us));
        figures.at_most(10.0, "answered_max_s", "  the last, s", s(answered.max_us));
        let busiest = self.busy.iter().copied().reduce(f64::max).unwrap_or(f64::NAN);
        figures.at_most(1.0, "master_cpu_max", "CPU of the master, busiest second, cores", busiest);
        let first: Vec<String> = self.busy.iter().take(15).map(|share| format!("{share:.2}")).collect();
        println!("CPU of the master in each second after the kill, cores: {}", first.join(" "));
        figures
    }

    /// Fails if anybody lost anything.
    fn judge(&self) -> anyhow::Result<()> {
        let Self { lost, seen, errors, .. } = self;
        for error in errors.iter().take(5) {
            println!("FAILED: {error}");
        }
        ensure!(*lost == 0, "{lost} sessions were lost");
        let is_kept = seen.lost.is_empty() && seen.granted.is_empty();
        ensure!(is_kept, "locks were lost, or granted to another: {seen:?}");
        ensure!(seen.gone == 0, "{} ephemeral files were gone", seen.gone);
        ensure!(errors.is_empty(), "{} calls failed", errors.len());
        Ok(())
    }
}

/// Connects everybody while only the first proxy runs, and starts the others again.
async fn gather(
    bench: &mut Bench,
    flags: &Flags,
    happened: &Arc<Happened>,
) -> anyhow::Result<Vec<HoldingClient>> {
    let targets = bench.system.proxy_addresses();
    stop_all(bench.system.proxies[1..].iter_mut().map(|server| &mut server.process)).await?;
    let clients = connect_all(&bench.env, &targets, flags, happened).await?;
    for index in [1, 2] {
        bench.system.proxies[index].restart(&bench.processes).await?;
    }
    let mut reader = StatusReader::new(bench.env.clone());
    for (index, address) in targets.iter().enumerate() {
        let sessions = reader.ask(address).await?.sessions;
        let wanted = if index == 0 { u64::from(flags.clients) } else { 0 };
        ensure!(sessions == wanted, "proxy {} has {sessions} sessions, and was to have {wanted}", index + 1);
    }
    println!("{} clients connected, all at the first proxy", clients.len());
    Ok(clients)
}

/// Every client calls once; gives how long after the kill each was answered, and why some were not.
async fn call_all(
    env: &Env,
    clients: &[HoldingClient],
    killed_at: Time,
) -> anyhow::Result<(Latencies, Vec<String>)> {
    let mut calling = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        let (env, file) = (env.clone(), client.file.clone());
        calling.spawn(async move {
            let answered = tokio::time::timeout(PATIENCE, file.get_stat()).await;
            match answered {
                Ok(Ok(_)) => Ok(env.clock.now().saturating_since(killed_at)),
                Ok(Err(error)) => Err(format!("client {number}: {error}")),
                Err(_) => Err(format!("client {number} was not answered within {PATIENCE:?}")),
            }
        });
    }
    let (mut latencies, mut errors) = (Latencies::new(), Vec::new());
    while let Some(called) = calling.join_next().await {
        match called.context("join a client")? {
            Ok(after) => latencies.record(after),
            Err(error) => errors.push(error),
        }
    }
    Ok((latencies, errors))
}

/// CPU that a process uses in each second until then, in cores.
async fn watch_cpu(env: &Env, pid: u32, until: Time) -> Vec<f64> {
    let mut shares = Vec::new();
    while env.clock.now() < until {
        let (window, began) = (CpuWindow::begin([("master".to_owned(), pid)]), env.clock.now());
        env.clock.sleep(Duration::from_secs(1)).await;
        let seconds = env.clock.now().saturating_since(began).as_secs_f64();
        shares.push(window.end().total_s("") / seconds);
    }
    shares
}
