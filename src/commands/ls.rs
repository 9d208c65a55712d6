//! `hasp ls`: the children of a directory.

use hasp_client::OpenOptions;

use crate::context::{ConnectArgs, Context, parse_name};
use crate::exit::{Exit, Failure};
use crate::format::{Listing, print, print_json};

/// Options of `hasp ls`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which directory, as in /ls/dev/services
    name: String,

    /// Print kinds, generations and lengths too
    #[arg(short, long)]
    long: bool,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    list(&args, ctx).await.into()
}

async fn list(args: &Args, ctx: &Context) -> Result<(), Failure> {
    let name = parse_name(&args.name)?;
    let connect = &args.connect;
    let listing = connect
        .with_client(ctx, async |client| {
            let opened = connect.call(client.open(&name, OpenOptions::read())).await?;
            connect.call(opened.handle.read_dir()).await
        })
        .await?;
    let listing = Listing::new(&name, &listing.children);
    if connect.json {
        print_json(&listing)
    } else if args.long {
        print(listing.long().as_bytes())
    } else {
        print(listing.short().as_bytes())
    }
}
