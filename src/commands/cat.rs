//! `hasp cat`: the contents of a file.

use hasp_client::OpenOptions;

use crate::context::{ConnectArgs, Context, parse_name};
use crate::exit::{Exit, Failure};
use crate::format::{File, print, print_json};

/// Options of `hasp cat`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which file, as in /ls/dev/services/web
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
    let file = connect
        .with_client(ctx, async |client| {
            let opened = connect.call(client.open(&name, OpenOptions::read())).await?;
            connect.call(opened.handle.get_contents_and_stat()).await
        })
        .await?;
    if connect.json {
        print_json(&File::new(&name, &file.contents, &file.stat))
    } else {
        print(&file.contents)
    }
}
