//! `hasp elect`: campaigns for the lock of a file, and leads until it is stopped or the lock is lost.

use bytes::Bytes;
use hasp_client::{Client, Handle, LockMode, OpenOptions, Sequencer};
use serde::Serialize;

use crate::child::{Signals, code_of};
use crate::commands::lock::LockDelayArgs;
use crate::context::{ConnectArgs, Context, parse_name};
use crate::exit::{Exit, Failure, tell};
use crate::format::{print, print_json};
use crate::held::{self, Held, Watch};

/// Options of `hasp elect`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which file, as in /ls/dev/leader; created if it is missing
    name: String,

    /// What the file says while this leads, as an address that others are to use; it stays afterwards
    #[arg(long, value_name = "V", allow_hyphen_values = true)]
    value: String,

    #[command(flatten)]
    delay: LockDelayArgs,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// What is printed, in the order of things.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Told<'a> {
    Elected { name: &'a str, lock_generation: u64, sequencer: String },
    Lost { name: &'a str, lock_generation: u64, why: String },
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    match campaign(&args, ctx).await {
        Ok(exit) => exit,
        Err(failure) => failure.into(),
    }
}

async fn campaign(args: &Args, ctx: &Context) -> Result<Exit, Failure> {
    let name = parse_name(&args.name)?;
    let connect = &args.connect;
    connect
        .with_client(ctx, async |client| {
            let options = OpenOptions::create_file(Bytes::new()).lock_delay(args.delay.lock_delay);
            let options = options.events(held::events());
            let opened = connect.call(client.open(&name, options)).await?;
            stand(args, client, &opened.handle).await
        })
        .await
}

/// Waits to be elected; leads then.
async fn stand(args: &Args, client: &Client, handle: &Handle) -> Result<Exit, Failure> {
    let mut signals = Signals::take().map_err(|error| Failure::local("take signals", error))?;
    let sequencer = tokio::select! {
        biased;
        // Dropping the other arm cancels it: nobody is left leading by accident.
        signal = signals.next() => return Ok(Exit::Code(code_of(signal))),
        elected = be_elected(args, handle) => elected?,
    };
    let mut watch = Watch::over(Held::Lock, client, handle, Some(sequencer.cell().clone()));
    say_elected(args, &sequencer)?;
    tokio::select! {
        biased;
        why = watch.lost() => {
            say_lost(args, &sequencer, &why)?;
            return Err(why);
        }
        _ = signals.next() => {}
    }
    if let Err(failure) = args.connect.call(handle.release()).await {
        tell(format_args!("release: {failure}"));
    }
    Ok(Exit::Done)
}

/// Takes the lock, and writes the value as its holder only.
async fn be_elected(args: &Args, handle: &Handle) -> Result<Sequencer, Failure> {
    handle.acquire(LockMode::Exclusive).await?;
    let announcing = async {
        let sequencer = handle.get_sequencer().await?;
        handle.set_sequencer(&sequencer);
        handle.set_contents(args.value.clone(), None).await?;
        Ok(sequencer)
    };
    args.connect.call(announcing).await
}

fn say_elected(args: &Args, sequencer: &Sequencer) -> Result<(), Failure> {
    let lock_generation = sequencer.lock_generation().0;
    if args.connect.json {
        let sequencer = sequencer.to_string();
        return print_json(&Told::Elected { name: &args.name, lock_generation, sequencer });
    }
    print(format!("elected generation={lock_generation}\n").as_bytes())
}

fn say_lost(args: &Args, sequencer: &Sequencer, why: &Failure) -> Result<(), Failure> {
    let lock_generation = sequencer.lock_generation().0;
    if args.connect.json {
        return print_json(&Told::Lost { name: &args.name, lock_generation, why: why.to_string() });
    }
    print(format!("lost generation={lock_generation}\n").as_bytes())
}
