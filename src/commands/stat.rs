//! `hasp stat`: the metadata of a node.

use hasp_client::OpenOptions;

use crate::context::{ConnectArgs, Context, parse_name};
use crate::exit::{Exit, Failure};
use crate::format::{NamedStat, print, print_json};

/// Options of `hasp stat`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which node, as in /ls/dev/services
    name: String,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    show(&args, ctx).await.into()
}

async fn show(args: &Args, ctx: &Context) -> Result<(), Failure> {
    let name = parse_name(&args.name)?;
    let connect = &args.connect;
    // The stat that comes with the handle is that of the moment of opening: no second call.
    let stat = connect
        .with_client(ctx, async |client| {
            let opened = connect.call(client.open(&name, OpenOptions::read())).await?;
            Ok(opened.stat)
        })
        .await?;
    let stat = NamedStat::new(&name, &stat);
    if connect.json { print_json(&stat) } else { print(stat.lines().as_bytes()) }
}
