//! `hasp partition rebalance`: says which changes of the partition map would spread the load better, and makes them if
//! it is told to.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::FutureExt as _;
use hasp_client::CellName;
use hasp_proto::partition::{MapError, PartitionMap};
use serde::Serialize;

use super::change::take_signals;
use super::follow::Ended;
use super::load::Loads;
use super::plan::{Wish, refused};
use super::planner::{Plan, Proposal, Thresholds, WRITE_WEIGHT, plan};
use super::{change, map_now, report};
use crate::child::code_of;
use crate::commands::status;
use crate::context::{ConnectArgs, Context};
use crate::exit::{Exit, Failure, tell};
use crate::format::{columns, print, print_json};

/// Pause between two looks at what the cells have measured.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Options of `hasp partition rebalance`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Make the changes that are proposed, one after another
    #[arg(long)]
    apply: bool,

    /// Do nothing that takes less than this part of its load from the most loaded cell, in percent
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = clap::value_parser!(u8).range(1..=99))]
    min_gain: u8,

    /// Leave cells alone that have less load than this, in reads/s + 4 x writes/s
    #[arg(long, value_name = "LOAD", default_value = "100")]
    min_load: u32,

    /// Wait until all cells have counted what is asked of them for so many seconds: they begin anew with each change of the map and each master
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u64).range(0..=10))]
    measure: u64,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// What is proposed, and what came of it; for programs.
#[derive(Debug, Serialize)]
struct Rebalanced {
    state: State,
    /// How many reads a write counts for.
    write_weight: f64,
    mean: f64,
    cells: Vec<CellLoads>,
    proposals: Vec<Proposed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// There is nothing worth it.
    Nothing,
    /// Nobody was told to do it.
    Proposed,
    /// All is done.
    Done,
}

#[derive(Debug, Serialize)]
struct CellLoads {
    name: String,
    load: f64,
    /// If all is done that is proposed.
    expected: f64,
}

#[derive(Debug, Serialize)]
struct Proposed {
    command: String,
    from: String,
    to: String,
    nodes: u64,
    bytes: u64,
    load: f64,
    /// The version of the map in which it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    rebalance(&args, ctx).await.unwrap_or_else(Exit::from)
}

async fn rebalance(args: &Args, ctx: &Context) -> Result<Exit, Failure> {
    let connect = &args.connect;
    let map = map_now(connect, ctx).await?;
    let loads = measure(args, &map, ctx).await?;
    let thresholds =
        Thresholds { gain_min: f64::from(args.min_gain) / 100.0, load_min: f64::from(args.min_load) };
    let plan = plan(&map, &loads, thresholds);
    if !connect.json {
        print(text(&plan, args).as_bytes())?;
    }
    let mut versions = Vec::new();
    if args.apply {
        let applying = connect.with_client(ctx, async |client| {
            let mut signals = take_signals()?;
            for (place, proposal) in plan.proposals.iter().enumerate() {
                if let Some(signal) = signals.next().now_or_never() {
                    tell(left(&plan, place));
                    return Ok(Some(Exit::Code(code_of(signal))));
                }
                let version = *versions.last().unwrap_or(&map.version);
                let made = change::make(&proposal.wish, version, connect, client, ctx, &mut signals).await;
                let ended = made.and_then(|(changing, ended, took)| told(connect, &changing, ended, took));
                match ended.map_err(|failure| stopped(&plan, place, failure))? {
                    Ok(version) => versions.push(version),
                    Err(exit) => return Ok(Some(exit)),
                }
            }
            Ok(None)
        });
        if let Some(exit) = applying.await? {
            return Ok(exit);
        }
    }
    if connect.json {
        print_json(&Rebalanced::new(&plan, args, &versions))?;
    }
    Ok(Exit::Done)
}

/// What load the cells bear by this map, once all have counted for long enough.
async fn measure(args: &Args, map: &PartitionMap, ctx: &Context) -> Result<Loads, Failure> {
    let clock = &ctx.env.clock;
    let over = Duration::from_secs(args.measure);
    let deadline = clock.now() + over + args.connect.timeout;
    let mut is_told = false;
    loop {
        let loads = Loads::of(map, &status::report_load(ctx, &args.connect).await);
        match check(map, &loads, over)? {
            Fit::Yes => return Ok(loads),
            Fit::No(why) if clock.now() >= deadline => return Err(Failure::Unreachable(why)),
            Fit::No(why) => {
                if !std::mem::replace(&mut is_told, true) {
                    tell(format!("waiting, {over:?} are to be measured: {why}"));
                }
                clock.sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// Whether something can be planned by what the cells say.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Yes,
    /// Not yet, and why.
    No(String),
}

/// Nothing can be said while something moves, or of what is not known.
fn check(map: &PartitionMap, loads: &Loads, over: Duration) -> Result<Fit, Failure> {
    if let Some(change) = map.change() {
        return Err(refused(&MapError::IsChanging(change.prefix.clone())));
    }
    let silent: Vec<_> =
        map.cells.keys().filter(|cell| !loads.0.contains_key(*cell)).map(CellName::as_str).collect();
    if !silent.is_empty() {
        let cells = if silent.len() == 1 { "cell" } else { "cells" };
        let why = format!("no master says what load it bears of {cells} {}", silent.join(", "));
        return Err(Failure::Unreachable(why));
    }
    for (cell, load) in &loads.0 {
        if load.map_version != map.version {
            let (theirs, ours) = (load.map_version, map.version);
            return Ok(Fit::No(format!(
                "cell {cell} goes by version {theirs} of the map, the file says {ours}"
            )));
        }
        if load.over < over {
            return Ok(Fit::No(format!("cell {cell} has counted for {:.1} s", load.over.as_secs_f64())));
        }
    }
    Ok(Fit::Yes)
}

/// The version in which a change is done, or how to leave before that.
fn told(
    connect: &ConnectArgs,
    changing: &PartitionMap,
    ended: Ended,
    took: Duration,
) -> Result<Result<u64, Exit>, Failure> {
    match ended {
        Ended::Done(version) => {
            if !connect.json {
                print((report::started(changing) + &report::done(version, took)).as_bytes())?;
            }
            Ok(Ok(version))
        }
        Ended::GivenUp(why) => Err(Failure::Refused(format!("GivenUp: {why}"))),
        Ended::Left(signal) => {
            tell(report::GOES_ON);
            Ok(Err(Exit::Code(code_of(signal))))
        }
    }
}

/// Says how far it came.
fn stopped(plan: &Plan, place: usize, failure: Failure) -> Failure {
    let (number, count) = (place + 1, plan.proposals.len());
    let command = plan.proposals.get(place).map(|proposal| command(&proposal.wish)).unwrap_or_default();
    let at = |why: String| {
        format!("{why}; change {number} of {count} ({command}) stopped, {place} done before it")
    };
    match failure {
        Failure::Refused(why) => Failure::Refused(at(why)),
        Failure::Usage(why) => Failure::Usage(at(why)),
        Failure::Unreachable(why) => Failure::Unreachable(at(why)),
        Failure::Local(why) => Failure::Local(at(why)),
    }
}

/// Somebody wanted to leave before the next change.
fn left(plan: &Plan, place: usize) -> String {
    format!("stopped, {place} of {} changes are made", plan.proposals.len())
}

/// As it is typed in a shell.
fn command(wish: &Wish) -> String {
    let prefix = quoted(&wish.prefix().to_string());
    let to = |cells: &[CellName]| cells.iter().map(CellName::as_str).collect::<Vec<_>>().join(",");
    match wish {
        Wish::Split(change) => format!("hasp partition split {prefix} --to {}", to(&change.cells)),
        Wish::Move(change) => format!("hasp partition move {prefix} --to {}", to(&change.cells)),
        Wish::Merge(_) => format!("hasp partition merge {prefix}"),
    }
}

fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// For people.
fn text(plan: &Plan, args: &Args) -> String {
    let mut text = String::new();
    for Proposal { wish, from, to, nodes, bytes, load } in &plan.proposals {
        let moved = format!("{from} -> {to}: {nodes} nodes, {bytes} bytes, load {load:.1}");
        let _ = writeln!(text, "{}  # {moved}", command(wish));
    }
    if plan.proposals.is_empty() {
        text += &nothing(plan, args);
    }
    let head = ["CELL", "LOAD", "EXPECTED"].map(str::to_owned).to_vec();
    let row = |(cell, load): (&CellName, &f64)| {
        let expected = plan.after.get(cell).copied().unwrap_or_default();
        vec![cell.to_string(), format!("{load:.1}"), format!("{expected:.1}")]
    };
    let rows: Vec<_> = std::iter::once(head).chain(plan.before.iter().map(row)).collect();
    format!(
        "{text}\n{}\nload: reads/s + {WRITE_WEIGHT} x writes/s; mean {:.1}\n",
        columns(&rows),
        plan.mean()
    )
}

/// Why nothing is proposed.
fn nothing(plan: &Plan, Args { min_gain, min_load, .. }: &Args) -> String {
    let Some((cell, load)) = plan.most_loaded() else { return "nothing worth moving\n".into() };
    let why = if load < f64::from(*min_load) {
        format!("less than {min_load}")
    } else {
        format!("and no change takes {min_gain}% off")
    };
    format!("nothing worth moving: the most loaded cell is {cell} with {load:.1}, {why}\n")
}

impl Rebalanced {
    fn new(plan: &Plan, args: &Args, versions: &[u64]) -> Self {
        let state = match (plan.proposals.is_empty(), args.apply) {
            (true, _) => State::Nothing,
            (false, false) => State::Proposed,
            (false, true) => State::Done,
        };
        let cell = |(cell, load): (&CellName, &f64)| CellLoads {
            name: cell.to_string(),
            load: *load,
            expected: plan.after.get(cell).copied().unwrap_or_default(),
        };
        let proposed = |(place, proposal): (usize, &Proposal)| Proposed {
            command: command(&proposal.wish),
            from: proposal.from.to_string(),
            to: proposal.to.to_string(),
            nodes: proposal.nodes,
            bytes: proposal.bytes,
            load: proposal.load,
            version: versions.get(place).copied(),
        };
        Self {
            state,
            write_weight: WRITE_WEIGHT,
            mean: plan.mean(),
            cells: plan.before.iter().map(cell).collect(),
            proposals: plan.proposals.iter().enumerate().map(proposed).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
