//! `hasp sequencer check`: whether the acquisition that a sequencer proves still stands.

use hasp_client::{LockMode, Sequencer};
use serde::Serialize;

use crate::context::{ConnectArgs, Context};
use crate::exit::{Exit, Failure};
use crate::format::{print, print_json};

/// Options of `hasp sequencer`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Exit with 0 if it is valid, with 1 and SequencerInvalid if not
    Check(CheckArgs),
}

#[derive(clap::Args, Debug)]
struct CheckArgs {
    /// The sequencer's text, as HASP_SEQUENCER has it: hasp1....
    sequencer: String,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// What a valid sequencer says.
#[derive(Serialize)]
struct Valid<'a> {
    name: &'a str,
    instance: u64,
    mode: &'static str,
    lock_generation: u64,
    cell: &'a str,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    let Action::Check(args) = args.action;
    check(&args, ctx).await.into()
}

async fn check(args: &CheckArgs, ctx: &Context) -> Result<(), Failure> {
    let connect = &args.connect;
    // Who checks did not make it: a text that is none is as invalid as an old one, and no wrong usage.
    let parsed = args.sequencer.parse::<Sequencer>();
    let sequencer = parsed.map_err(|error| Failure::Refused(format!("SequencerInvalid: {error}")))?;
    connect.with_client(ctx, async |client| connect.call(client.check_sequencer(&sequencer)).await).await?;
    let valid = Valid {
        name: sequencer.name().as_str(),
        instance: sequencer.instance().0,
        mode: match sequencer.mode() {
            LockMode::Exclusive => "exclusive",
            LockMode::Shared => "shared",
        },
        lock_generation: sequencer.lock_generation().0,
        cell: sequencer.cell().as_str(),
    };
    if connect.json {
        return print_json(&valid);
    }
    print(format!("valid {} {} generation={}\n", valid.name, valid.mode, valid.lock_generation).as_bytes())
}
