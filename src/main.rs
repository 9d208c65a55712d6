//! The `hasp` command: reads its arguments, hands over to one subcommand, reports how it ended.

mod acls;
mod child;
mod commands;
mod config;
mod context;
mod exit;
mod format;
mod held;
mod serve;

use std::process::ExitCode;

use clap::Parser as _;
use hasp_rt::env::Env;

use commands::{Cli, Threads};
use context::Context;
use exit::{Exit, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(cli).unwrap_or_else(Exit::from).report()
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let mut builder = match cli.command.threads() {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::PerCore | Threads::Some(_) => tokio::runtime::Builder::new_multi_thread(),
    };
    if let Threads::Some(threads) = cli.command.threads() {
        builder.worker_threads(threads.get());
    }
    let runtime = builder.enable_all().build().map_err(|error| Failure::local("start", error))?;
    let env = Env::system().map_err(|error| Failure::local("draw random numbers", error))?;
    let ctx = Context::new(env);
    let exit = runtime.block_on(async {
        let exit = cli.command.run(&ctx).await;
        ctx.end().await;
        exit
    });
    // A read of stdin or a name look-up may still block one of its threads.
    runtime.shutdown_background();
    Ok(exit)
}
