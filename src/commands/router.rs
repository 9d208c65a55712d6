//! `hasp router`: sends requests to the cells that own the names; a proxy without a cache.

use std::path::PathBuf;

use hasp_proto::lease::LeaseTerms;
use hasp_proto::partition::PartitionMap;
use hasp_proto::stream::Role;
use hasp_router::service::{RelayConfig, RelayServer};

use crate::config::{self, HostFile};
use crate::context::{Context, TraceArgs};
use crate::exit::{Exit, Failure};
use crate::serve::{self, Signals, StopArgs};

/// Options of `hasp router`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    host: HostArgs,
}

impl Args {
    /// Worker threads, if it matters.
    pub const fn threads(&self) -> Option<std::num::NonZeroUsize> {
        self.host.threads
    }
}

/// What proxies and routers are told.
#[derive(clap::Args, Debug)]
pub struct HostArgs {
    /// The configuration file
    #[arg(long, env = "HASP_CONFIG", value_name = "FILE.toml")]
    config: PathBuf,
    /// Where to listen, instead of the file's
    #[arg(long, env = "HASP_LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where operators' HTTP is served, instead of the file's
    #[arg(long, env = "HASP_ADMIN", value_name = "HOST:PORT")]
    admin: Option<String>,
    /// Where clients reach it, if not where it listens
    #[arg(long, env = "HASP_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Worker threads [default: one for each core]
    #[arg(long, env = "HASP_THREADS", value_name = "N")]
    pub threads: Option<std::num::NonZeroUsize>,
    #[command(flatten)]
    trace: TraceArgs,
    #[command(flatten)]
    pub stop: StopArgs,
}

/// The same, read and checked.
pub struct HostConfig {
    /// Where to listen.
    pub listen: String,
    /// Where operators' HTTP is served.
    pub admin: Option<String>,
    /// Where clients reach it.
    pub advertise: Option<String>,
    /// Which cell owns what, and where the cells are.
    pub map: PartitionMap,
    /// Hosts that stand before the cells.
    pub upstream: Vec<String>,
    /// Where traces go.
    pub trace: TraceArgs,
}

impl HostArgs {
    /// Reads the file and lays the flags over it.
    ///
    /// # Errors
    /// Wrong usage, with file and line.
    pub fn read(self) -> Result<HostConfig, Failure> {
        let file: HostFile = config::read(&self.config)?;
        let map = config::map(&file.namespace, &file.rules, &file.cells)?;
        config::addresses("upstream", &file.upstream)?;
        let listen = self.listen.or(file.listen).ok_or_else(|| {
            Failure::Usage("no address to listen on: set listen in the file, HASP_LISTEN or --listen".into())
        })?;
        Ok(HostConfig {
            listen,
            admin: self.admin.or(file.admin),
            advertise: self.advertise.or(file.advertise),
            map,
            upstream: file.upstream,
            trace: self.trace.over(file.otlp, file.trace_ratio)?,
        })
    }
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    match serve(args, ctx).await {
        Ok(exit) => exit,
        Err(failure) => failure.into(),
    }
}

async fn serve(args: Args, ctx: &Context) -> Result<Exit, Failure> {
    let mut signals = Signals::watch_with(args.host.stop)?;
    let host = args.host.read()?;
    let config = RelayConfig {
        role: Role::Router,
        listen: host.listen,
        advertise: host.advertise,
        map: host.map,
        upstream: host.upstream,
        admin: host.admin,
        terms: LeaseTerms::default(),
    };
    let telemetry = serve::telemetry("hasp-router", &host.trace)?;
    serve::warn_of_declared_principals();
    let router = RelayServer::start(config, &ctx.env).await.map_err(serve::cannot_start)?;
    let exit = tokio::select! {
        exit = serve::until_stopped(&mut signals, &ctx.env, std::future::pending()) => exit,
        () = async {
            router.ready().await;
            serve::say_ready(&[router.local_address().to_owned()], router.admin_address());
            std::future::pending().await
        } => Exit::Done,
    };
    if let Err(unfinished) = router.shutdown().await {
        tracing::warn!(%unfinished, "stops without them");
    }
    telemetry.shutdown().await;
    Ok(exit)
}
