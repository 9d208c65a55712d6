//! `hasp dev`: a whole system on loopback, in one process.

mod metrics;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hasp_cell::service::{CellConfig, CellServer};
use hasp_proto::id::CellName;
use hasp_proto::lease::LeaseTerms;
use hasp_proto::partition::PartitionMap;
use hasp_proxy::{Proxy, ProxyConfig};
use hasp_rt::env::Env;
use hasp_rt::telemetry::Metrics;
use hasp_rt::transport::Listener;

use crate::config::{self, Rule};
use crate::context::{Context, TraceArgs};
use crate::exit::{Exit, Failure};
use crate::serve::{self, Signals};

/// The namespace that `hasp dev` serves.
const NAMESPACE: &str = "dev";

/// Options of `hasp dev`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// How many cells: a, b, c, ...; a owns everything but what --partition says
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=26))]
    cells: u8,
    /// How many replicas each cell has
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    replicas: u8,
    /// How many proxies
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=64))]
    proxies: u8,
    /// How many proxies between these and the cells: each of --proxies then has its session with one of them. 0: with each cell
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=64))]
    upper_proxies: u8,
    /// Where data is kept [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Port of the first proxy; the others follow it [default: free ports]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Everything strictly below the directory PREFIX lives in CELL; with PREFIX/*=CELL,CELL the directories directly
    /// below it are spread over the cells. May be given more than once
    #[arg(long, value_name = "PREFIX=CELL", value_parser = parse_rule)]
    partition: Vec<Rule>,
    #[command(flatten)]
    trace: TraceArgs,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    match serve(args, ctx).await {
        Ok(exit) => exit,
        Err(failure) => failure.into(),
    }
}

async fn serve(args: Args, ctx: &Context) -> Result<Exit, Failure> {
    let mut signals = Signals::watch()?;
    let telemetry = serve::telemetry("hasp-dev", &args.trace)?;
    serve::warn_of_declared_principals();
    let data = DataDir::choose(args.dir.as_deref())?;
    let admin = bind(&ctx.env, "127.0.0.1:0").await?;
    let admin_address = admin.local_address();
    let system = Arc::new(System::start(&args, data.path(), &ctx.env).await?);

    let metrics = Metrics::new();
    metrics.register_collector(Box::new(metrics::SystemMetrics::of(&system)));
    let probed = Arc::downgrade(&system);
    let is_ready = move || probed.upgrade().is_some_and(|system| system.is_ready());
    hasp_rt::admin::serve(&ctx.env.tasks, admin, metrics, is_ready);

    let exit = tokio::select! {
        exit = serve::until_stopped(&mut signals, &ctx.env, system.dead()) => exit,
        () = async {
            system.ready().await;
            serve::say_ready(&system.addresses(), Some(&admin_address));
            std::future::pending().await
        } => Exit::Done,
    };
    match Arc::try_unwrap(system) {
        Ok(system) => system.shutdown().await,
        Err(_) => tracing::warn!("the system is still being looked at; it ends with the process"),
    }
    telemetry.shutdown().await;
    Ok(exit)
}

/// Where data is kept: as asked, or for as long as the process runs.
enum DataDir {
    Kept(PathBuf),
    Temporary(tempfile::TempDir),
}

impl DataDir {
    fn choose(asked: Option<&Path>) -> Result<Self, Failure> {
        match asked {
            Some(dir) => Ok(Self::Kept(dir.to_owned())),
            None => tempfile::Builder::new()
                .prefix("hasp-dev-")
                .tempdir()
                .map(Self::Temporary)
                .map_err(|error| Failure::local("make a temporary directory", error)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(dir) => dir,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

/// All servers of the system.
pub struct System {
    cells: Vec<CellServer>,
    /// Between the cells and the other proxies.
    upper_proxies: Vec<Proxy>,
    /// Where clients connect.
    proxies: Vec<Proxy>,
}

impl System {
    async fn start(args: &Args, dir: &Path, env: &Env) -> Result<Self, Failure> {
        let mut listeners = BTreeMap::new();
        for letter in (b'a'..).take(usize::from(args.cells)) {
            let mut bound = Vec::new();
            for _ in 0..args.replicas {
                bound.push(bind(env, "127.0.0.1:0").await?);
            }
            listeners.insert(char::from(letter).to_string(), bound);
        }
        let map = map(args, &listeners)?;
        let mut system = Self { cells: Vec::new(), upper_proxies: Vec::new(), proxies: Vec::new() };
        for (cell, bound) in listeners {
            for (id, listener) in (1..).zip(bound) {
                let dir = dir.join(format!("{cell}-{id}"));
                let address = listener.local_address();
                let config = CellConfig::new(CellName::new(&cell), id, &address, dir, map.clone());
                let started = CellServer::start_on(listener, config, env).await;
                system.cells.push(started.map_err(serve::cannot_start)?);
            }
        }
        for _ in 0..args.upper_proxies {
            let upper = start_proxy(env, 0, &map, Vec::new()).await?;
            system.upper_proxies.push(upper);
        }
        let upstream: Vec<_> =
            system.upper_proxies.iter().map(|upper| upper.local_address().to_owned()).collect();
        for place in 0..args.proxies {
            let port = args.port.map_or(Some(0), |port| port.checked_add(u16::from(place)));
            let port =
                port.ok_or_else(|| Failure::Usage("--port leaves no room for that many proxies".into()))?;
            system.proxies.push(start_proxy(env, port, &map, upstream.clone()).await?);
        }
        Ok(system)
    }

    fn addresses(&self) -> Vec<String> {
        self.proxies.iter().map(|proxy| proxy.local_address().to_owned()).collect()
    }

    async fn ready(&self) {
        for cell in &self.cells {
            cell.ready().await;
        }
        for proxy in self.all_proxies() {
            proxy.ready().await;
        }
    }

    fn all_proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.upper_proxies.iter().chain(&self.proxies)
    }

    fn is_ready(&self) -> bool {
        self.cells.iter().all(|cell| cell.status().is_ready())
            && self.all_proxies().all(|proxy| proxy.status().upstream_sessions > 0)
    }

    /// Completes with the reason when a replica goes out of service.
    async fn dead(&self) -> String {
        let deaths = self.cells.iter().map(|cell| Box::pin(cell.dead()));
        futures_util::future::select_all(deaths).await.0
    }

    /// Proxies first, the upper ones last: they still have somebody to say good-bye to.
    async fn shutdown(self) {
        for proxy in self.proxies.into_iter().chain(self.upper_proxies) {
            if let Err(unfinished) = proxy.shutdown().await {
                tracing::warn!(%unfinished, "a proxy stops without them");
            }
        }
        futures_util::future::join_all(self.cells.into_iter().map(CellServer::shutdown)).await;
    }
}

fn map(args: &Args, listeners: &BTreeMap<String, Vec<Box<dyn Listener>>>) -> Result<PartitionMap, Failure> {
    let root = Rule { prefix: format!("/ls/{NAMESPACE}"), cell: "a".into() };
    let rules: Vec<_> = std::iter::once(root).chain(args.partition.iter().cloned()).collect();
    let cells = listeners
        .iter()
        .map(|(cell, bound)| (cell.clone(), bound.iter().map(|listener| listener.local_address()).collect()))
        .collect();
    config::map(NAMESPACE, &rules, &cells)
}

async fn start_proxy(
    env: &Env,
    port: u16,
    map: &PartitionMap,
    upstream: Vec<String>,
) -> Result<Proxy, Failure> {
    let config = ProxyConfig {
        listen: format!("127.0.0.1:{port}"),
        advertise: None,
        map: map.clone(),
        upstream,
        admin: None,
        terms: LeaseTerms::default(),
    };
    Proxy::start(config, env).await.map_err(serve::cannot_start)
}

async fn bind(env: &Env, address: &str) -> Result<Box<dyn Listener>, Failure> {
    env.transport.listen(address).await.map_err(|error| Failure::local("listen", error))
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    const SHAPE: &str = "a rule is PREFIX=CELL, as in /ls/dev/logs=b or /ls/dev/users/*=a,b";
    let (prefix, cell) = text.rsplit_once('=').ok_or(SHAPE)?;
    Ok(Rule { prefix: prefix.into(), cell: cell.into() })
}
