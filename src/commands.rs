//! The subcommands: one file each, with `Args` and `run`, composed here.

mod acl;
mod cat;
mod cell;
mod dev;
mod elect;
mod loadtest;
mod lock;
mod ls;
mod mkdir;
mod partition;
mod proxy;
mod put;
mod rm;
mod router;
mod sequencer;
mod stat;
mod status;
mod watch;

use clap::{Parser, Subcommand};

use crate::context::Context;
use crate::exit::Exit;

/// What scripts may rely on.
const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 refused by the service (the error's name on stderr), 2 wrong usage, 3 unreachable";

/// A lock service and small-file store
#[derive(Debug, Parser)]
#[command(name = "hasp", bin_name = "hasp", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the children of a directory
    Ls(ls::Args),
    /// Print the contents of a file
    Cat(cat::Args),
    /// Write a file; creates it if it is missing
    Put(put::Args),
    /// Print the metadata of a node
    Stat(stat::Args),
    /// Create a directory
    Mkdir(mkdir::Args),
    /// Delete a file or an empty directory
    Rm(rm::Args),
    /// Show or change which ACLs guard a node
    Acl(acl::Args),
    /// Print a line for each event of a node
    Watch(watch::Args),
    /// Run a command while holding a lock
    Lock(lock::Args),
    /// Campaign for a lock, and hold it until stopped
    Elect(elect::Args),
    /// Check the sequencer of a lock's holder
    Sequencer(sequencer::Args),
    /// Show cells, masters, sessions, proxies and KeepAlive rates
    Status(status::Args),
    /// Show or change which cell owns which names
    Partition(partition::Args),
    /// Run a whole system on this machine, in one process
    Dev(dev::Args),
    /// Run one replica of a cell
    Cell(cell::Args),
    /// Run a proxy
    Proxy(proxy::Args),
    /// Run a router
    Router(router::Args),
    /// Measure what proxies save
    Loadtest(loadtest::Args),
    /// One worker process of a load test
    #[command(hide = true)]
    LoadtestWorker,
}

/// How many threads a command's runtime has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The command waits most of the time, or was told to make do with the one it starts on: there is nobody to
    /// wake then.
    One,
    /// The command serves or makes load.
    PerCore,
    /// The command serves, with as many as it was told.
    Some(std::num::NonZeroUsize),
}

impl Threads {
    /// As asked, or one for each core.
    const fn of(asked: Option<std::num::NonZeroUsize>) -> Self {
        match asked {
            Some(std::num::NonZeroUsize::MIN) => Self::One,
            Some(threads) => Self::Some(threads),
            None => Self::PerCore,
        }
    }
}

impl Command {
    /// What runtime it needs.
    pub const fn threads(&self) -> Threads {
        match self {
            Self::Ls(_)
            | Self::Cat(_)
            | Self::Put(_)
            | Self::Stat(_)
            | Self::Mkdir(_)
            | Self::Rm(_)
            | Self::Acl(_)
            | Self::Watch(_)
            | Self::Lock(_)
            | Self::Elect(_)
            | Self::Sequencer(_)
            | Self::Status(_)
            | Self::Partition(_) => Threads::One,
            Self::Cell(args) => Threads::of(args.threads),
            Self::Proxy(args) => Threads::of(args.threads()),
            Self::Router(args) => Threads::of(args.threads()),
            Self::Dev(_) | Self::Loadtest(_) => Threads::PerCore,
            // There are as many of them as it takes.
            Self::LoadtestWorker => Threads::One,
        }
    }

    /// Does it.
    pub async fn run(self, ctx: &Context) -> Exit {
        match self {
            Self::Ls(args) => ls::run(args, ctx).await,
            Self::Cat(args) => cat::run(args, ctx).await,
            Self::Put(args) => put::run(args, ctx).await,
            Self::Stat(args) => stat::run(args, ctx).await,
            Self::Mkdir(args) => mkdir::run(args, ctx).await,
            Self::Rm(args) => rm::run(args, ctx).await,
            Self::Acl(args) => acl::run(args, ctx).await,
            Self::Watch(args) => watch::run(args, ctx).await,
            Self::Lock(args) => lock::run(args, ctx).await,
            Self::Elect(args) => elect::run(args, ctx).await,
            Self::Sequencer(args) => sequencer::run(args, ctx).await,
            Self::Status(args) => status::run(args, ctx).await,
            Self::Partition(args) => partition::run(args, ctx).await,
            Self::Dev(args) => dev::run(args, ctx).await,
            Self::Cell(args) => cell::run(args, ctx).await,
            Self::Proxy(args) => proxy::run(args, ctx).await,
            Self::Router(args) => router::run(args, ctx).await,
            Self::Loadtest(args) => loadtest::run(args, ctx).await,
            Self::LoadtestWorker => loadtest::run_worker(ctx).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_client_command_takes_the_same_options() {
        let commands = ["ls N", "cat N", "put N v", "stat N", "mkdir N", "rm N", "status", "lock N -- true"];
        let more = ["acl N", "watch N", "elect --value v N"];
        for command in commands.iter().chain(&more) {
            let (verb, rest) = command.split_once(' ').unwrap_or((*command, ""));
            let options = "--connect h:1,i:2 --timeout 3s --json --principal me";
            let line = format!("hasp {verb} {options} {rest}");
            assert!(parse(&line).is_ok(), "{line}");
        }
        assert!(parse("hasp sequencer check --connect h:1 --json --principal me S").is_ok());
        for action in ["show", "split --to b N", "move --to a,b N/*", "merge N", "undo"] {
            let line = format!("hasp partition {action} --connect h:1 --timeout 3s --json --principal me");
            assert!(parse(&line).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        let lines = [
            "hasp",
            "hasp frobnicate",
            "hasp cat --connect h:1",
            "hasp cat --connect h N",
            "hasp cat --connect h:1 --timeout soon N",
            "hasp put --connect h:1 --if-generation -1 N v",
            "hasp put --connect h:1 N v w",
            "hasp lock --connect h:1 N true",
            "hasp lock --connect h:1 N --",
            "hasp lock --connect h:1 --lock-delay 61s N -- true",
            "hasp acl --connect h:1 --if-generation x N",
            "hasp acl --connect h:1 N M",
            "hasp watch --connect h:1 --events contents N",
            "hasp elect --connect h:1 N",
            "hasp elect --connect h:1 --lock-delay 61s --value v N",
            "hasp sequencer --connect h:1 S",
            "hasp sequencer check --connect h:1",
            "hasp partition --connect h:1",
            "hasp partition show --connect h:1 N",
            "hasp partition split --connect h:1 N",
            "hasp partition split --connect h:1 --to b",
            "hasp partition split --connect h:1 --to B N",
            "hasp partition move --connect h:1 --to , N",
            "hasp partition move --connect h:1 --to b --dry-run --no-wait N",
            "hasp partition merge --connect h:1 --to b N",
            "hasp partition rebalance --connect h:1 N",
            "hasp partition rebalance --connect h:1 --min-gain 100",
            "hasp partition rebalance --connect h:1 --min-load -1",
            "hasp partition undo --connect h:1 N",
            "hasp cat --connect h:1 --principal",
        ];
        for line in lines {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
