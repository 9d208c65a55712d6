//! `hasp rm`: deletes a node without children.

use hasp_client::OpenOptions;
use serde::Serialize;

use crate::context::{ConnectArgs, Context, parse_name};
use crate::exit::{Exit, Failure};
use crate::format::print_json;

/// Options of `hasp rm`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which node, as in /ls/dev/services/web
    name: String,

    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Serialize)]
struct Deleted<'a> {
    name: &'a str,
    instance: u64,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    delete(&args, ctx).await.into()
}

async fn delete(args: &Args, ctx: &Context) -> Result<(), Failure> {
    let name = parse_name(&args.name)?;
    let connect = &args.connect;
    let stat = connect
        .with_client(ctx, async |client| {
            let opened = connect.call(client.open(&name, OpenOptions::write())).await?;
            connect.call(opened.handle.delete()).await?;
            Ok(opened.stat)
        })
        .await?;
    if connect.json {
        print_json(&Deleted { name: name.as_str(), instance: stat.instance.0 })?;
    }
    Ok(())
}
