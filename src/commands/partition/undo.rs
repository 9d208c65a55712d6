//! `hasp partition undo`: gives up the change of the partition map that is under way.

use hasp_client::{Client, OpenOptions};

use super::change::{overtaken, swap, tell_object};
use super::plan::{give_up, read_map};
use super::report::{self, State};
use super::{hint_at_admin, map_file};
use crate::context::{ConnectArgs, Context};
use crate::exit::{Exit, Failure};
use crate::format::print;

/// Options of `hasp partition undo`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    let connect = &args.connect;
    connect.with_client(ctx, async |client| undo(connect, client).await).await.into()
}

async fn undo(connect: &ConnectArgs, client: &Client) -> Result<(), Failure> {
    let name = map_file()?;
    let opening = async { client.open(&name, OpenOptions::write()).await.map_err(hint_at_admin) };
    let handle = connect.call(opening).await?.handle;
    let read = connect.call(handle.get_contents_and_stat()).await?;
    let changing = read_map(&read.contents)?;
    let (given_up, contents) = give_up(&changing)?;
    // Another change may be under way by then, of which nobody has said that it is to be given up.
    if !swap(connect, &handle, contents, read.stat.content_generation).await? {
        return Err(overtaken("look at it with hasp partition show"));
    }
    if !connect.json {
        print(report::given_up(&changing, given_up.version).as_bytes())?;
    }
    tell_object(connect, State::GivenUp, &changing, |report| report.since(given_up.version, None))
}
