//! `hasp partition`: the partition map, and its changes.

mod change;
mod count;
mod follow;
mod plan;
mod report;
mod show;
mod tree;
mod undo;

use std::collections::BTreeSet;

use hasp_client::{CallError, CellName, ErrorCode, Name};
use hasp_proto::partition::{PARTITIONS_FILE, PartitionMap};

use crate::context::{Context, parse_name};
use crate::exit::{Exit, Failure};

/// Options of `hasp partition`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Show which cell owns which names, with the nodes and sessions of each
    Show(show::Args),
    /// Make a rule: what is below a directory moves to other cells
    Split(change::ToArgs),
    /// Change the cells of a rule: what it is for moves there
    Move(change::ToArgs),
    /// Take a rule away: what it was for moves to the cells of the rule above
    Merge(change::Args),
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
        Action::Undo(args) => undo::run(args, ctx).await,
    }
}

/// Where the map is, in whatever namespace is served.
fn map_file() -> Result<Name, Failure> {
    parse_name(&format!("/ls/{}/{PARTITIONS_FILE}", plan::LOCAL))
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
