//! `hasp status`: what all servers that can be found know of themselves.

mod gather;
mod report;

use std::time::Duration;

use crate::context::{ConnectArgs, Context};
use crate::exit::{Exit, Failure};
use crate::format::{print, print_json};
use gather::{Found, gather};
use hasp_proto::wire::admin::v1::StatusRequest;
pub use report::{Cell, Report, Unreachable};

/// Options of `hasp status`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A server that is silent for this long is shown as such, however long the service is tried.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    show(&args, ctx).await.into()
}

/// What the servers know that can be found from these addresses, with the load of each cell. Whoever does not answer is
/// left out.
pub async fn report_load(ctx: &Context, connect: &ConnectArgs) -> Report {
    Report::new(&found(ctx, connect, StatusRequest { load: true }).await)
}

async fn found(ctx: &Context, connect: &ConnectArgs, request: StatusRequest) -> Found {
    gather(ctx, &connect.connect, connect.timeout.min(SERVER_TIMEOUT), request).await
}

async fn show(args: &Args, ctx: &Context) -> Result<(), Failure> {
    let connect = &args.connect;
    let found = found(ctx, connect, StatusRequest::default()).await;
    if !found.any_answered() {
        return Err(Failure::Unreachable(found.reasons().join("; ")));
    }
    let report = Report::new(&found);
    if connect.json { print_json(&report) } else { print(report.tables().as_bytes()) }
}
