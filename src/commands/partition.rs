//! `hasp partition`: the partition map, and its changes.

mod change;
mod count;
mod follow;
mod load;
mod plan;
mod planner;
mod rebalance;
mod report;
mod show;
mod tree;
mod undo;

use std::collections::BTreeSet;

use hasp_client::{CallError, CellName, ErrorCode, Name, OpenOptions};
use hasp_proto::partition::{PARTITIONS_FILE, PartitionMap};

use crate::context::{ConnectArgs, Context, parse_name};
use crate::exit::{Exit, Failure};

/// Options of `hasp partition`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Show which cell owns which names, with what each cell holds and is asked for
    Show(show::Args),
    /// Make a rule: what is below a directory moves to other cells
    Split(change::ToArgs),
    /// Change the cells of a rule: what it is for moves there
    Move(change::ToArgs),
    /// Take a rule away: what it was for moves to the cells of the rule above
    Merge(change::Args),
    /// Say which changes would spread the load over the cells, and make them if told to
    Rebalance(rebalance::Args),
    /// Give up the change that is under way
    Undo(undo::Args),
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    match args.action {
        Action::Show(args) => show::run(args, ctx).await,
        Action::Split(args) => change::split(args, ctx).await,
        Action::Move(args) => change::change_cells(args, ctx).await,
        Action::Merge(args) => change::merge(args, ctx).await,
        Action::Rebalance(args) => rebalance::run(args, ctx).await,
        Action::Undo(args) => undo::run(args, ctx).await,
    }
}

/// Where the map is, in whatever namespace is served.
fn map_file() -> Result<Name, Failure> {
    parse_name(&format!("/ls/{}/{PARTITIONS_FILE}", plan::LOCAL))
}

/// The map as it is.
async fn map_now(connect: &ConnectArgs, ctx: &Context) -> Result<PartitionMap, Failure> {
    let name = map_file()?;
    let reading = connect.with_client(ctx, async |client| {
        let opened = connect.call(client.open(&name, OpenOptions::read())).await?;
        connect.call(opened.handle.get_contents_and_stat()).await
    });
    plan::read_map(&reading.await?.contents)
}

/// From where to where what is on the move goes, for people; nothing if no cell has to give anything away.
fn journey(map: &PartitionMap) -> Option<(String, String)> {
    let journeys = map.journeys();
    let list =
        |cells: BTreeSet<&CellName>| cells.iter().map(|cell| cell.as_str()).collect::<Vec<_>>().join(", ");
    let from = list(journeys.iter().map(|(from, _)| from).collect());
    let to = list(journeys.iter().map(|(_, to)| to).collect());
    if journeys.is_empty() { None } else { Some((from, to)) }
}

/// Says who may write the map, if this caller may not.
fn hint_at_admin(error: CallError) -> CallError {
    if error.code != ErrorCode::PermissionDenied {
        return error;
    }
    let detail = format!("{}; the map is changed with --principal admin", error.detail);
    CallError { detail, ..error }
}
