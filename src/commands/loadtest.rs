//! `hasp loadtest`: measures what proxies save, with real sessions.

use std::path::PathBuf;
use std::time::Duration;

use hasp_loadtest::LoadtestOptions;
use hasp_loadtest::faults::Fault;
use hasp_loadtest::options::Mode;
use hasp_loadtest::workload::Mix;

use crate::context::{Context, TraceArgs, parse_address};
use crate::exit::{Exit, Failure};
use crate::serve;

/// Options of `hasp loadtest`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to find out: hold (how clients fare that stay), churn (that others come and go beside them), capacity (how
    /// many there can be)
    #[arg(long, value_name = "MODE", default_value = "hold")]
    mode: Mode,
    /// Clients through proxies, each a real session; with --mode capacity, the most
    #[arg(long, value_name = "N", default_value_t = 3_000)]
    clients: usize,
    /// Measure these numbers of clients one after another, instead of --clients
    #[arg(long, value_name = "N,...", value_delimiter = ',', conflicts_with = "clients")]
    sizes: Vec<usize>,
    /// With --mode capacity: by how many clients it grows [default: a tenth of --clients]
    #[arg(long, value_name = "N")]
    step: Option<usize>,
    /// With --mode capacity: what 99 of 100 operations must not exceed
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    latency_max: Duration,
    /// With --mode churn: sessions that come each second, and go [default: one for a hundred clients]
    #[arg(long, value_name = "X")]
    churn_rate: Option<f64>,
    /// With --mode churn: how long each of these stays
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    churn_stay: Duration,
    /// Proxies to start
    #[arg(long, value_name = "N", default_value_t = 3)]
    proxies: usize,
    /// Proxies to start between those and the cells: each of --proxies then has its session with one of them; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0)]
    upper_proxies: usize,
    /// Cells to start
    #[arg(long, value_name = "N", default_value_t = 2)]
    cells: usize,
    /// Replicas of each cell
    #[arg(long, value_name = "N", default_value_t = 3)]
    replicas: usize,
    /// Spread all directories over the cells by a ring; their own nodes are in the first cell
    #[arg(long)]
    ring: bool,
    /// How long to measure, each time
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Clients straight at the masters, for comparison; 0 for none [default: the smaller of --clients and 3000, none with --mode churn or capacity]
    #[arg(long, value_name = "N")]
    baseline_clients: Option<usize>,
    /// Sessions that share one TCP connection
    #[arg(long, value_name = "N", default_value_t = 1)]
    sessions_per_connection: usize,
    /// Weights of operations, as in get_stat=20,open=10; or partitioned: all of them, with --ring [default: the table of the Chubby paper]
    #[arg(long, value_name = "OP=WEIGHT,...")]
    mix: Option<Mix>,
    /// Operations per second and client [default: as in the paper, in proportion to the KeepAlives; with --mix partitioned 0.1]
    #[arg(long, value_name = "X")]
    rate: Option<f64>,
    /// Proxies that run already, instead of a system of its own
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', value_parser = parse_address)]
    target: Vec<String>,
    /// What to do to the servers under load, one after another: proxy-kill (or router-kill: proxies have the routers in them), proxy-restart, upper-proxy-kill (with --upper-proxies), master-kill, master-restart, move (a prefix moves to another cell)
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Write the report as a page for browsers, with plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// For everything left to chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl From<Args> for LoadtestOptions {
    fn from(args: Args) -> Self {
        Self {
            mode: args.mode,
            clients: args.sizes.last().copied().unwrap_or(args.clients),
            sizes: args.sizes,
            step: args.step,
            latency_max: args.latency_max,
            churn_per_s: args.churn_rate,
            churn_stay: args.churn_stay,
            proxies: args.proxies,
            upper_proxies: args.upper_proxies,
            cells: args.cells,
            replicas: args.replicas,
            ring: args.ring,
            duration: args.duration,
            baseline_clients: args.baseline_clients,
            sessions_per_connection: args.sessions_per_connection,
            mix: args.mix,
            rate: args.rate,
            targets: args.target,
            json: args.json,
            page: args.report,
            faults: args.faults,
            seed: args.seed,
            binary: None,
        }
    }
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    match hasp_loadtest::run(args.into(), ctx.env.clone()).await {
        Ok(outcome) => {
            println!("{}", outcome.report);
            if outcome.is_success() { Exit::Done } else { Exit::Code(1) }
        }
        Err(error) => Failure::Local(format!("{error:#}")).into(),
    }
}

/// Runs one worker process of a load test; its job comes on standard input.
pub async fn run_worker(ctx: &Context) -> Exit {
    let telemetry = match serve::telemetry("hasp-loadtest-worker", &TraceArgs::default()) {
        Ok(telemetry) => telemetry,
        Err(failure) => return failure.into(),
    };
    let done = hasp_loadtest::worker(ctx.env.clone()).await;
    telemetry.shutdown().await;
    match done {
        Ok(()) => Exit::Done,
        Err(error) => Failure::Local(format!("{error:#}")).into(),
    }
}
