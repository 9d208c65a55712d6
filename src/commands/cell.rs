//! `hasp cell`: one replica of a cell.

use std::path::PathBuf;

use hasp_cell::service::{CellConfig, CellServer};
use hasp_proto::id::CellName;

use crate::config::{self, CellFile};
use crate::context::{Context, TraceArgs};
use crate::exit::{Exit, Failure};
use crate::serve::{self, Signals, StopArgs};

/// Options of `hasp cell`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The configuration file
    #[arg(long, env = "HASP_CONFIG", value_name = "FILE.toml")]
    config: PathBuf,
    /// Which replica this is, instead of the file's
    #[arg(long, env = "HASP_ID", value_name = "N")]
    id: Option<u64>,
    /// Where to listen, instead of the file's
    #[arg(long, env = "HASP_LISTEN", value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where operators' HTTP is served, instead of the file's
    #[arg(long, env = "HASP_ADMIN", value_name = "HOST:PORT")]
    admin: Option<String>,
    /// The data directory, instead of the file's
    #[arg(long, env = "HASP_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Worker threads [default: one for each core]
    #[arg(long, env = "HASP_THREADS", value_name = "N")]
    pub threads: Option<std::num::NonZeroUsize>,
    #[command(flatten)]
    trace: TraceArgs,
    #[command(flatten)]
    stop: StopArgs,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    match serve(args, ctx).await {
        Ok(exit) => exit,
        Err(failure) => failure.into(),
    }
}

async fn serve(args: Args, ctx: &Context) -> Result<Exit, Failure> {
    let mut signals = Signals::watch_with(args.stop)?;
    let (config, trace) = configuration(args)?;
    let telemetry = serve::telemetry(&format!("hasp-cell-{}-{}", config.cell, config.id), &trace)?;
    serve::warn_of_declared_principals();
    let server = CellServer::start(config, &ctx.env).await.map_err(serve::cannot_start)?;
    let started = async {
        server.ready().await;
        serve::say_ready(&[server.address().to_owned()], server.admin());
        std::future::pending::<()>().await;
    };
    let exit = tokio::select! {
        exit = serve::until_stopped(&mut signals, &ctx.env, server.dead()) => exit,
        () = started => Exit::Done,
    };
    server.shutdown().await;
    telemetry.shutdown().await;
    Ok(exit)
}

fn configuration(args: Args) -> Result<(CellConfig, TraceArgs), Failure> {
    let file: CellFile = config::read(&args.config)?;
    let map = config::map(&file.namespace, &file.rules, &file.cells)?;
    let id = args.id.unwrap_or(file.id);
    let own =
        usize::try_from(id).ok().and_then(|id| file.cells.get(&file.cell)?.get(id.checked_sub(1)?)).cloned();
    let listen = args.listen.or(file.listen).or(own).ok_or_else(|| {
        Failure::Usage(format!(
            "replica {id} of cell {}: not in the list of cells, and no listen address",
            file.cell
        ))
    })?;
    let dir = args
        .dir
        .or(file.dir)
        .ok_or_else(|| Failure::Usage("no data directory: set dir in the file, HASP_DIR or --dir".into()))?;
    let mut config = CellConfig::new(CellName::new(&file.cell), id, &listen, dir, map);
    config.admin = args.admin.or(file.admin);
    Ok((config, args.trace.over(file.otlp, file.trace_ratio)?))
}
