//! `hasp lock`: runs a command while holding a lock, and stops it if the lock is lost.

use std::ffi::OsString;
use std::time::Duration;

use bytes::Bytes;
use hasp_client::{
    Acquired, CallError, CellName, Client, Events, Handle, LOCK_DELAY_MAX, LockMode, OpenOptions,
    SessionEvent,
};
use serde::Serialize;

use crate::child::{Child, Signals, code_of};
use crate::context::{ConnectArgs, Context, close, parse_name};
use crate::exit::{Exit, Failure, tell};
use crate::format::json_line;

/// Variable in the command's environment.
const LOCK_GENERATION: &str = "HASP_LOCK_GENERATION";

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

    /// How long the lock stays barred to others if this session is lost, at most 60s
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_lock_delay)]
    lock_delay: Duration,

    #[command(flatten)]
    connect: ConnectArgs,

    /// What to run; gets HASP_LOCK_GENERATION in its environment
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
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
    let mut events = client.events();
    let options = OpenOptions::create_file(Bytes::new()).lock_delay(args.lock_delay);
    let exit = match args.connect.call(client.open(&name, options)).await {
        Err(failure) => failure.into(),
        Ok(opened) => hold(args, &client, &opened.handle, &mut events).await.unwrap_or_else(Exit::from),
    };
    close(&client).await;
    Ok(exit)
}

/// Acquires, runs the command, releases.
async fn hold(args: &Args, client: &Client, handle: &Handle, events: &mut Events) -> Result<Exit, Failure> {
    let mut signals = Signals::take().map_err(|error| Failure::local("take signals", error))?;
    let acquired = tokio::select! {
        biased;
        // Dropping the other arm cancels it: no lock is left behind.
        signal = signals.next() => return Ok(Exit::Code(code_of(signal))),
        acquired = acquire(args, handle) => acquired?,
    };
    tell_acquired(args, &acquired)?;
    let generation = acquired.lock_generation.to_string();
    let mut child = match Child::start(&args.command, (LOCK_GENERATION, generation)) {
        Ok(child) => child,
        Err(error) => {
            tell(&error);
            return Ok(Exit::Code(error.code()));
        }
    };
    let cell = acquired.position.map(|position| position.cell);
    let exit = match watch(&mut child, &mut signals, events, client, cell.as_ref()).await {
        Ended::Itself(code) => Exit::Code(code),
        Ended::Lost(why) => {
            tell("the lock is lost, stopping the command");
            child.stop().await;
            return Err(Failure::Refused(why));
        }
    };
    if let Err(failure) = args.connect.call(handle.release()).await {
        tell(format_args!("release: {failure}"));
    }
    Ok(exit)
}

async fn acquire(args: &Args, handle: &Handle) -> Result<Acquired, Failure> {
    let mode = if args.shared { LockMode::Shared } else { LockMode::Exclusive };
    if args.r#try {
        return args.connect.call(handle.try_acquire(mode)).await;
    }
    handle.acquire(mode).await.map_err(|error: CallError| error.into())
}

/// On stderr: stdout is the command's.
fn tell_acquired(args: &Args, acquired: &Acquired) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Held<'a> {
        name: &'a str,
        lock_generation: u64,
    }
    if args.connect.json {
        let held = Held { name: &args.name, lock_generation: acquired.lock_generation.0 };
        tell(json_line(&held)?.trim_end());
    }
    Ok(())
}

/// How the command came to its end.
enum Ended {
    Itself(u8),
    /// It still runs, but the lock is not held any more: why not.
    Lost(String),
}

/// Waits for the command's end or the lock's, passing signals on.
async fn watch(
    child: &mut Child,
    signals: &mut Signals,
    events: &mut Events,
    client: &Client,
    cell: Option<&CellName>,
) -> Ended {
    loop {
        // All three are cancel-safe.
        tokio::select! {
            code = child.wait() => return Ended::Itself(code),
            signal = signals.next() => child.forward(signal),
            event = events.next() => {
                if let Some(why) = heed(event, client, cell) {
                    return Ended::Lost(why);
                }
            }
        }
    }
}

/// Says why the lock is lost, if it is.
fn heed(event: Option<SessionEvent>, client: &Client, cell: Option<&CellName>) -> Option<String> {
    let over = || "SessionExpired: the session is over and the lock with it".to_owned();
    match event {
        Some(SessionEvent::Jeopardy { cell: at }) if is_ours(at.as_ref(), cell) => {
            tell("the session is in jeopardy: nobody answers, the lock may be lost");
            None
        }
        Some(SessionEvent::Safe { cell: at }) if is_ours(at.as_ref(), cell) => {
            tell("the session is safe again");
            None
        }
        Some(SessionEvent::CellLost { cell: lost }) if is_ours(Some(&lost), cell) => {
            Some(format!("SessionExpired: the session at cell {lost} is over and the lock with it"))
        }
        Some(
            SessionEvent::Jeopardy { .. }
            | SessionEvent::Safe { .. }
            | SessionEvent::CellLost { .. }
            | SessionEvent::FailOver { .. },
        ) => None,
        Some(SessionEvent::Expired(error)) => Some(error.to_string()),
        Some(SessionEvent::Missed(_)) => client.is_over().then(over),
        None => Some(over()),
    }
}

/// Whether what happens at one cell, or at all, concerns the lock's.
fn is_ours(at: Option<&CellName>, cell: Option<&CellName>) -> bool {
    at.is_none() || cell.is_none() || at == cell
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
