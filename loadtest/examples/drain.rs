//! Restarts one proxy after the other, as an operator would, under sessions with a light load.
//!
//! Each proxy is told to end (SIGTERM): it refuses its clients, so that they go on to the next. It is started again at
//! its port as soon as it has ended, and the next one's turn comes when the proxies have a session for each client
//! again. Nobody may notice: no session may come into jeopardy or be lost, no call may fail, and every answer is
//! checked as in the load test. The slowest call is measured.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use hasp_loadtest::bench::{Bench, Crowd, Figures, Yardstick};
use hasp_loadtest::faults::{Deed, Fault, Faults, Saboteur};
use hasp_loadtest::system::SystemSpec;
use hasp_loadtest::workload::{Mix, Rates};

/// What the clients do. No sessions of their own beside: all that stand are to be counted.
const MIX: &str = "get_stat=20,open=10,get_contents_and_stat=10,set_contents=5,acquire=2";

/// Restarts one proxy after the other.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start servers and workers with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// Clients, each with a session and a connection.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    clients: u32,
    /// Proxies that they share.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=100))]
    proxies: u32,
    /// Operations per second of all clients together.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Load before the first restart and after each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pause_seconds: u64,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let spec = SystemSpec::cells(1).behind(flags.proxies as usize);
    Bench::run(flags.hasp.clone(), &spec, async |bench| test(bench, &flags).await).await
}

async fn test(bench: &mut Bench, flags: &Flags) -> anyhow::Result<()> {
    let env = bench.env.clone();
    let pause = Duration::from_secs(flags.pause_seconds);
    let bare = Yardstick::take(&env, bench.processes.logs()).await?;
    let mix: Mix = MIX.parse().context("read the mix")?;
    let rates = Rates::of_mix(&mix, f64::from(flags.rate) / f64::from(flags.clients));
    let mut crowd = Crowd::begin(bench, flags.clients as usize, rates).await?;
    println!("{} clients have their sessions and begin", flags.clients);
    crowd.listen(pause).await?;
    let mut faults = Faults::default();
    let mut stood: Vec<Duration> = Vec::new();
    for _ in 0..flags.proxies {
        let began = env.clock.now();
        let mut saboteur =
            Saboteur { env: &env, processes: &bench.processes, system: &mut bench.system, moves: None };
        let what = saboteur.act(&mut faults, Duration::ZERO, Deed::Do(Fault::ProxyRestart)).await?;
        crowd.all_stand(bench, |_, _| {}).await?;
        stood.push(env.clock.now().saturating_since(began));
        println!("{what}; all sessions stand again");
        let so_far = crowd.listen(pause).await?.all;
        ensure!(so_far.ops > 0, "no operation was done");
    }
    let fate = crowd.end().await?;

    let setting = format!(
        "{} clients, {} proxies restarted one after the other; {} operations/s; one cell of 3 replicas",
        flags.clients, flags.proxies, flags.rate
    );
    let mut figures = Figures::new("drain", setting);
    let longest = stood.iter().max().copied().unwrap_or_default();
    figures.at_most(0.0, "jeopardies", "times a session was in jeopardy", fate.sessions.jeopardy as f64);
    figures.at_most(0.0, "sessions_lost", "sessions lost", fate.sessions.lost as f64);
    figures.at_most(0.0, "errors", "calls failed", fate.errors as f64);
    figures.at_most(0.0, "violations", "checks failed", fate.violations.count as f64);
    figures.note("ops", "calls answered", fate.ops as f64);
    figures.note("checks", "answers checked", fate.checks.reads as f64);
    figures.note("p50_ms", "call, p50, ms", fate.latency.p50_us as f64 / 1e3);
    figures.note("p99_ms", "call, p99, ms", fate.latency.p99_us as f64 / 1e3);
    figures.note("slowest_ms", "slowest call, ms", fate.latency.max_us as f64 / 1e3);
    figures.note("restart_s", "longest from SIGTERM until all sessions stand, s", longest.as_secs_f64());
    bare.mean(Yardstick::take(&env, bench.processes.logs()).await?).note(&mut figures);
    figures.publish(flags.json.as_deref())?;
    fate.judge()?;
    ensure!(fate.sessions.jeopardy == 0, "sessions were in jeopardy {} times", fate.sessions.jeopardy);
    Ok(())
}
