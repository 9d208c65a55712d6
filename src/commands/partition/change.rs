//! `hasp partition split`, `move` and `merge`: write a change of one rule into the map file, and wait for its end.

use std::time::Duration;

use bytes::Bytes;
use hasp_client::{CallError, CellName, Client, ErrorCode, Generation, Handle, Name, NodeKind, OpenOptions};
use hasp_proto::partition::{Change, PartitionMap};
use hasp_proto::time::Time;

use super::follow::{self, Ended};
use super::plan::{Wish, parse_cell, parse_prefix, read_map};
use super::report::{self, Report, State};
use super::{count, hint_at_admin, map_file};
use crate::child::{Signals, code_of};
use crate::context::{ConnectArgs, Context};
use crate::exit::{Exit, Failure, tell};
use crate::format::{print, print_json};

/// Options of `hasp partition split` and `hasp partition move`.
#[derive(clap::Args, Debug)]
pub struct ToArgs {
    /// To which cell; to which ones, if the prefix ends in /*
    #[arg(long, value_name = "CELL,...", value_delimiter = ',', required = true, value_parser = parse_cell)]
    to: Vec<CellName>,

    #[command(flatten)]
    args: Args,
}

/// Options of `hasp partition merge`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What the rule is for: all below a directory, as in /ls/dev/jobs; or, as in '/ls/dev/users/*', all
    /// below the directories in it
    prefix: String,

    /// Only show what would move
    #[arg(long, conflicts_with = "no_wait")]
    dry_run: bool,

    /// Do not wait until everything has moved
    #[arg(long)]
    no_wait: bool,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs `hasp partition split`.
pub async fn split(args: ToArgs, ctx: &Context) -> Exit {
    let ToArgs { to: cells, args } = args;
    let wish = parse_prefix(&args.prefix).map(|prefix| Wish::Split(Change { prefix, cells }));
    run(wish, &args, ctx).await
}

/// Runs `hasp partition move`.
pub async fn change_cells(args: ToArgs, ctx: &Context) -> Exit {
    let ToArgs { to: cells, args } = args;
    let wish = parse_prefix(&args.prefix).map(|prefix| Wish::Move(Change { prefix, cells }));
    run(wish, &args, ctx).await
}

/// Runs `hasp partition merge`.
pub async fn merge(args: Args, ctx: &Context) -> Exit {
    run(parse_prefix(&args.prefix).map(Wish::Merge), &args, ctx).await
}

async fn run(wish: Result<Wish, Failure>, args: &Args, ctx: &Context) -> Exit {
    let changed = async {
        let (wish, connect) = (wish?, &args.connect);
        connect.with_client(ctx, async |client| change(&wish, args, client, ctx).await).await
    };
    changed.await.unwrap_or_else(Exit::from)
}

async fn change(wish: &Wish, args: &Args, client: &Client, ctx: &Context) -> Result<Exit, Failure> {
    let connect = &args.connect;
    let options = if args.dry_run { OpenOptions::read() } else { OpenOptions::write() };
    let prepared = Prepared::new(wish, connect, client, options).await?;
    if args.dry_run {
        return plan(args, client, &prepared.changing).await;
    }
    let mut signals = take_signals()?;
    let begun = prepared.begin(wish, connect, ctx).await?;
    if !connect.json {
        print(report::started(&begun.changing).as_bytes())?;
    }
    if args.no_wait {
        tell_object(connect, State::Moving, &begun.changing, |report| report)?;
        return Ok(Exit::Done);
    }
    let (changing, ended, took) = begun.follow(ctx, &mut signals).await?;
    tell_end(connect, &changing, ended, took)
}

/// Makes a change of this version of the map: the map with it under way, how it ended and how long it took.
///
/// # Errors
/// If the map is another by now, the change is refused, or its end cannot be seen.
pub async fn make(
    wish: &Wish,
    version: u64,
    connect: &ConnectArgs,
    client: &Client,
    ctx: &Context,
    signals: &mut Signals,
) -> Result<(PartitionMap, Ended, Duration), Failure> {
    let prepared = Prepared::new(wish, connect, client, OpenOptions::write()).await?;
    let found = prepared.found.map.version;
    if found != version {
        return Err(overtaken(&format!("version {found} is there, version {version} was looked at")));
    }
    prepared.begin(wish, connect, ctx).await?.follow(ctx, signals).await
}

/// Signals from now on no longer end the command.
///
/// # Errors
/// If the system does not hand them over.
pub fn take_signals() -> Result<Signals, Failure> {
    Signals::take().map_err(|error| Failure::local("take signals", error))
}

/// A change that can be made to the map as it was found.
struct Prepared {
    handle: Handle,
    found: Found,
    changing: PartitionMap,
}

/// A change that is under way.
struct Begun {
    handle: Handle,
    changing: PartitionMap,
    began: Time,
}

impl Prepared {
    async fn new(
        wish: &Wish,
        connect: &ConnectArgs,
        client: &Client,
        options: OpenOptions,
    ) -> Result<Self, Failure> {
        let name = map_file()?;
        let opening = async {
            let opened = client.open(&name, options.events(follow::events())).await;
            opened.map_err(hint_at_admin)
        };
        let handle = connect.call(opening).await?.handle;
        let found = Found::read(connect, &handle).await?;
        let changing = wish.over(&found.map)?;
        if let Wish::Split(_) = wish {
            check_directory(connect, client, &changing).await?;
        }
        Ok(Self { handle, found, changing })
    }

    /// Whoever leaves from here on has to be told that the change goes on.
    async fn begin(self, wish: &Wish, connect: &ConnectArgs, ctx: &Context) -> Result<Begun, Failure> {
        let Self { handle, found, changing } = self;
        let began = ctx.env.clock.now();
        let changing = begin(wish, connect, &handle, found, changing).await?;
        Ok(Begun { handle, changing, began })
    }
}

impl Begun {
    async fn follow(
        self,
        ctx: &Context,
        signals: &mut Signals,
    ) -> Result<(PartitionMap, Ended, Duration), Failure> {
        let Self { handle, changing, began } = self;
        let waiting = follow::follow(&handle, &changing, &*ctx.env.clock, signals).await;
        let ended = waiting.inspect_err(|_| tell(report::GOES_ON))?;
        Ok((changing, ended, ctx.env.clock.now().saturating_since(began)))
    }
}

/// Tells how the change ended, or that it has not.
fn tell_end(
    connect: &ConnectArgs,
    changing: &PartitionMap,
    ended: Ended,
    took: Duration,
) -> Result<Exit, Failure> {
    match ended {
        Ended::Done(version) => {
            if !connect.json {
                print(report::done(version, took).as_bytes())?;
            }
            tell_object(connect, State::Done, changing, |report| report.since(version, Some(took)))?;
            Ok(Exit::Done)
        }
        Ended::GivenUp(why) => Err(Failure::Refused(format!("GivenUp: {why}"))),
        Ended::Left(signal) => {
            tell(report::GOES_ON);
            Ok(Exit::Code(code_of(signal)))
        }
    }
}

/// The map as it was read.
struct Found {
    map: PartitionMap,
    generation: Generation,
}

impl Found {
    async fn read(connect: &ConnectArgs, handle: &Handle) -> Result<Self, Failure> {
        let read = connect.call(handle.get_contents_and_stat()).await?;
        Ok(Self { map: read_map(&read.contents)?, generation: read.stat.content_generation })
    }
}

/// The directory of a new rule must be there, for it cannot be made any more once the rule is.
async fn check_directory(
    connect: &ConnectArgs,
    client: &Client,
    changing: &PartitionMap,
) -> Result<(), Failure> {
    let Some(change) = changing.change() else { return Ok(()) };
    let name: &Name = change.prefix.name();
    let opening = async {
        let missing = |error: CallError| match error.code {
            ErrorCode::NotFound => {
                CallError { detail: format!("{}: make the directory first", error.detail), ..error }
            }
            _ => error,
        };
        client.open(name, OpenOptions::read()).await.map_err(missing)
    };
    match connect.call(opening).await?.stat.kind {
        NodeKind::Directory => Ok(()),
        NodeKind::File => Err(Failure::Refused(format!("NotADirectory: {name} is a file"))),
    }
}

/// Shows what would be done.
async fn plan(args: &Args, client: &Client, changing: &PartitionMap) -> Result<Exit, Failure> {
    let connect = &args.connect;
    let nodes = count::count(connect, client, changing).await?;
    if !connect.json {
        print(report::planned(changing, &nodes).as_bytes())?;
    }
    tell_object(connect, State::DryRun, changing, |report| report.with_plan(nodes, changing))?;
    Ok(Exit::Done)
}

/// Writes the change over the map that was found. If that has changed meanwhile, and nothing is under way, it is
/// tried once more over the one that is there then.
async fn begin(
    wish: &Wish,
    connect: &ConnectArgs,
    handle: &Handle,
    found: Found,
    changing: PartitionMap,
) -> Result<PartitionMap, Failure> {
    if swap(connect, handle, changing.to_file(), found.generation).await? {
        return Ok(changing);
    }
    let found = Found::read(connect, handle).await?;
    let changing = wish.over(&found.map).map_err(|failure| overtaken(&failure.to_string()))?;
    if swap(connect, handle, changing.to_file(), found.generation).await? {
        return Ok(changing);
    }
    Err(overtaken("twice in a row"))
}

/// Replaces the map file if it is still the one that was read; whether it was.
pub async fn swap(
    connect: &ConnectArgs,
    handle: &Handle,
    contents: String,
    read: Generation,
) -> Result<bool, Failure> {
    let writing = async {
        match handle.set_contents(Bytes::from(contents), Some(read)).await {
            Ok(_) => Ok(true),
            Err(error) if error.code == ErrorCode::GenerationMismatch => Ok(false),
            Err(error) => Err(hint_at_admin(error)),
        }
    };
    connect.call(writing).await
}

/// Somebody else was faster.
pub fn overtaken(why: &str) -> Failure {
    Failure::Refused(format!("GenerationMismatch: somebody else changed the map: {why}"))
}

/// Prints the object, if one is asked for.
pub fn tell_object(
    connect: &ConnectArgs,
    state: State,
    changing: &PartitionMap,
    complete: impl FnOnce(Report) -> Report,
) -> Result<(), Failure> {
    match Report::new(state, changing) {
        Some(report) if connect.json => print_json(&complete(report)),
        _ => Ok(()),
    }
}
