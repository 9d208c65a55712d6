//! `hasp lock`: runs a command while holding a lock, and stops it if the lock is lost.

use std::ffi::OsString;
use std::time::Duration;

use bytes::Bytes;
use hasp_client::{Client, Handle, LOCK_DELAY_MAX, LockMode, OpenOptions, Sequencer};
use serde::Serialize;

use crate::child::{Child, Signals, code_of};
use crate::context::{ConnectArgs, Context, close, parse_name};
use crate::exit::{Exit, Failure, tell};
use crate::format::json_line;
use crate::held::{self, Held, Watch};

/// Variables in the command's environment.
const LOCK_GENERATION: &str = "HASP_LOCK_GENERATION";
const SEQUENCER: &str = "HASP_SEQUENCER";

/// Options of `hasp lock`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which file's lock, as in /ls/dev/leader; created if it is missing
    name: String,

    /// Hold it together with other shared holders
    #[arg(long)]
    shared: bool,

    /// Do not wait: exit with 1 and LockHeld if others hold it
    #[arg(long = "try")]
    r#try: bool,

    #[command(flatten)]
    delay: LockDelayArgs,

    #[command(flatten)]
    connect: ConnectArgs,

    /// What to run; gets HASP_SEQUENCER and HASP_LOCK_GENERATION in its environment
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// How a lock is barred if it is lost.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct LockDelayArgs {
    /// How long the lock stays barred to others if this session is lost, at most 60s
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_lock_delay)]
    pub lock_delay: Duration,
}

/// Runs the command: its exit code is CMD's.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    match run_locked(&args, ctx).await {
        Ok(exit) => exit,
        Err(failure) => failure.into(),
    }
}

async fn run_locked(args: &Args, ctx: &Context) -> Result<Exit, Failure> {
    let name = parse_name(&args.name)?;
    let client = args.connect.client(ctx).await?;
    let options = OpenOptions::create_file(Bytes::new()).lock_delay(args.delay.lock_delay);
    let opening = args.connect.call(client.open(&name, options.events(held::events())));
    let exit = match opening.await {
        Err(failure) => failure.into(),
        Ok(opened) => hold(args, &client, &opened.handle).await.unwrap_or_else(Exit::from),
    };
    close(&client).await;
    Ok(exit)
}

/// Acquires, runs the command, releases.
async fn hold(args: &Args, client: &Client, handle: &Handle) -> Result<Exit, Failure> {
    let mut signals = Signals::take().map_err(|error| Failure::local("take signals", error))?;
    let sequencer = tokio::select! {
        biased;
        // Dropping the other arm cancels it: no lock is left behind.
        signal = signals.next() => return Ok(Exit::Code(code_of(signal))),
        acquired = acquire(args, handle) => acquired?,
    };
    let mut watch = Watch::over(Held::Lock, client, handle, Some(sequencer.cell().clone()));
    tell_acquired(args, &sequencer)?;
    let variables =
        [(LOCK_GENERATION, sequencer.lock_generation().to_string()), (SEQUENCER, sequencer.to_string())];
    let mut child = match Child::start(&args.command, &variables) {
        Ok(child) => child,
        Err(error) => {
            tell(&error);
            return Ok(Exit::Code(error.code()));
        }
    };
    let exit = match attend(&mut child, &mut signals, &mut watch).await {
        Ended::Itself(code) => Exit::Code(code),
        Ended::Lost(why) => {
            tell("the lock is lost, stopping the command");
            child.stop().await;
            return Err(why);
        }
    };
    if let Err(failure) = args.connect.call(handle.release()).await {
        tell(format_args!("release: {failure}"));
    }
    Ok(exit)
}

async fn acquire(args: &Args, handle: &Handle) -> Result<Sequencer, Failure> {
    let mode = if args.shared { LockMode::Shared } else { LockMode::Exclusive };
    if args.r#try {
        args.connect.call(handle.try_acquire(mode)).await?;
    } else {
        handle.acquire(mode).await?;
    }
    args.connect.call(handle.get_sequencer()).await
}

/// On stderr: stdout is the command's.
fn tell_acquired(args: &Args, sequencer: &Sequencer) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Acquired<'a> {
        name: &'a str,
        lock_generation: u64,
        sequencer: String,
    }
    if args.connect.json {
        let (name, lock_generation) = (args.name.as_str(), sequencer.lock_generation().0);
        let acquired = Acquired { name, lock_generation, sequencer: sequencer.to_string() };
        tell(json_line(&acquired)?.trim_end());
    }
    Ok(())
}

/// How the command came to its end.
enum Ended {
    Itself(u8),
    /// It still runs, but the lock is not held any more: why not.
    Lost(Failure),
}

/// Waits for the command's end or the lock's, passing signals on.
async fn attend(child: &mut Child, signals: &mut Signals, watch: &mut Watch) -> Ended {
    loop {
        // All three are cancel-safe.
        tokio::select! {
            code = child.wait() => return Ended::Itself(code),
            signal = signals.next() => child.forward(signal),
            why = watch.lost() => return Ended::Lost(why),
        }
    }
}

fn parse_lock_delay(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(delay) if delay > LOCK_DELAY_MAX => {
            Err(format!("a lock-delay is at most {}", humantime::format_duration(LOCK_DELAY_MAX)))
        }
        Ok(delay) => Ok(delay),
        Err(error) => Err(error.to_string()),
    }
}
