//! Kills all proxies at once and starts them again at their ports, under thousands of sessions.
//!
//! The clients are in worker processes of the load test, and send KeepAlives only. All of them lose their connections
//! in the same moment and come back together, to proxies that know nobody. Measured is how long it takes until the
//! proxies have a session for each client again, all of them safe; until there are no more KeepAlives than before; and until
//! they come at the rate that they came before, averaged over their period of two thirds of a lease, since they come in
//! waves afterwards: who comes while many come gets a longer lease (`ka-4`). No session may be lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use futures_util::future::join_all;
use hasp_loadtest::bench::{Bench, Crowd, Figures, Rate, Standing, Yardstick};
use hasp_loadtest::status::StatusReader;
use hasp_loadtest::system::SystemSpec;
use hasp_loadtest::workload::{Mix, Rates};

/// A client sends a KeepAlive each two thirds of its lease (`ka-1`).
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(8);
/// Between two looks at the counters.
const LOOK: Duration = Duration::from_secs(1);
/// How far the rate may be from what it was.
const STEADY_WITHIN: f64 = 0.1;

/// Kills all proxies with -9 and starts them again at once.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start servers and workers with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// Clients, each with a session and a connection.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    clients: u32,
    /// Proxies that they share.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    proxies: u32,
    /// Watched before, to know the rate.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(9..=3_600))]
    before_seconds: u64,
    /// Watched after all sessions stand again.
    #[arg(long, default_value_t = 70, value_parser = clap::value_parser!(u64).range(9..=3_600))]
    after_seconds: u64,
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
    let bare = Yardstick::take(&env, bench.processes.logs()).await?;
    let mut crowd = Crowd::begin(bench, flags.clients as usize, Rates::of_mix(&Mix::paper(), 0.0)).await?;
    println!("{} clients have their sessions and begin", flags.clients);
    let before = Watch::begin(bench).on(&mut crowd, flags.before_seconds).await?;
    let (_, rate_before) = *before.rates().last().context("watch KeepAlives for a period: too short")?;
    ensure!(rate_before > 0.0, "no KeepAlives came before the storm");

    let killed_at = env.clock.now();
    let killed = join_all(bench.system.proxies.iter_mut().map(|server| server.process.kill())).await;
    killed.into_iter().collect::<anyhow::Result<()>>()?;
    bench.system.restart_proxies(&bench.processes).await?;
    let served = env.clock.now().saturating_since(killed_at);
    println!("all proxies were killed, and serve again after {:.1} s", served.as_secs_f64());
    let watch = Watch::begin(bench).since(killed_at);
    crowd.all_stand(bench, said_each_second()).await?;
    let stood = env.clock.now().saturating_since(killed_at);
    println!("all clients stand again after {:.1} s", stood.as_secs_f64());
    let after = watch.on(&mut crowd, flags.after_seconds).await?;
    let fate = crowd.end().await?;

    let setting = format!(
        "{} clients, {} proxies killed with -9 and started again at once; KeepAlives only; one cell of 3 replicas",
        flags.clients, flags.proxies
    );
    let mut figures = Figures::new("storm", setting);
    let steady = after.steady_from(rate_before, STEADY_WITHIN);
    figures.at_most(0.0, "sessions_lost", "sessions lost", fate.sessions.lost as f64);
    figures.note("jeopardies", "times a session was in jeopardy", fate.sessions.jeopardy as f64);
    figures.note("proxies_serve_s", "all proxies serve again, s after the kill", served.as_secs_f64());
    figures.note("all_stand_s", "all sessions stand at a proxy again, s", stood.as_secs_f64());
    let calm = after.calm_from(rate_before, STEADY_WITHIN);
    let calm_s = calm.map_or(f64::NAN, |calm| calm.as_secs_f64());
    figures.note("calm_s", "KeepAlives per period no more than before and 10%, from then on, s", calm_s);
    let steady_s = steady.map_or(f64::NAN, |steady| steady.as_secs_f64());
    figures.note("steady_s", "KeepAlives per period as before, within 10%, from then on, s", steady_s);
    figures.note("keepalives_per_s", "KeepAlives/s before", rate_before);
    figures.note("keepalives_peak_per_s", "KeepAlives/s afterwards, greatest second", after.greatest_per_s());
    bare.mean(Yardstick::take(&env, bench.processes.logs()).await?).note(&mut figures);
    figures.publish(flags.json.as_deref())?;
    fate.judge()?;
    ensure!(
        calm.is_some(),
        "{} s after all sessions stood more KeepAlives still came than {rate_before:.1}/s and 10%",
        flags.after_seconds
    );
    Ok(())
}

/// Prints how the clients return.
fn said_each_second() -> impl FnMut(Duration, Standing) {
    let mut next = Duration::ZERO;
    move |passed, Standing { at_proxies, connected, lost }| {
        if passed >= next {
            next = passed + LOOK;
            let seconds = passed.as_secs_f64();
            println!(
                "  {seconds:5.1} s: {connected} speak with a proxy, {at_proxies} sessions there, {lost} lost"
            );
        }
    }
}

/// Looks at the proxies' counters again and again.
struct Watch<'a> {
    bench: &'a Bench,
    reader: StatusReader,
    since: hasp_proto::time::Time,
    /// By address: what each proxy said last.
    counts: BTreeMap<String, u64>,
}

impl<'a> Watch<'a> {
    fn begin(bench: &'a Bench) -> Self {
        let reader = StatusReader::new(bench.env.clone());
        Self { bench, reader, since: bench.env.clock.now(), counts: BTreeMap::new() }
    }

    /// Times count from then.
    fn since(self, since: hasp_proto::time::Time) -> Self {
        Self { since, ..self }
    }

    async fn on(mut self, crowd: &mut Crowd, seconds: u64) -> anyhow::Result<Rate> {
        let mut rate = Rate::over(KEEP_ALIVE_PERIOD);
        for _ in 0..=seconds {
            self.counts.extend(Crowd::keep_alives(self.bench, &mut self.reader).await);
            let at = self.bench.env.clock.now().saturating_since(self.since);
            ensure!(
                self.counts.len() == self.bench.system.proxies.len(),
                "not all proxies say what they count"
            );
            rate.look(at, self.counts.values().sum());
            crowd.listen(LOOK).await?;
        }
        Ok(rate)
    }
}
