//! Waits until a change of the partition map is done or given up, by what becomes of the map file.
//!
//! ```text
//!             the change is written          the map of the next version
//!   start ──────────────────────▶ moving ──────────────────────────────▶ done, given up
//!                                 │    ▲  a signal
//!          an event, or some time │    │ ─────────────────────────────▶ left: the move goes on
//!                                 └────┘
//! ```

use std::time::Duration;

use hasp_client::{ErrorCode, EventKind, EventMask, Handle, HandleEvent, NodeEvents};
use hasp_proto::partition::{PartitionMap, Standing};
use hasp_rt::clock::Clock;
use nix::sys::signal::Signal;

use crate::child::Signals;
use crate::exit::Failure;

/// The file is looked at so often even if nothing is told of it.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// How the wait ended.
#[derive(Debug)]
pub enum Ended {
    /// The change is done, in this version.
    Done(u64),
    /// It did not happen: why not.
    GivenUp(String),
    /// This command was told to leave.
    Left(Signal),
}

/// What the map file is opened with.
pub fn events() -> EventMask {
    EventMask::of([EventKind::ContentsModified, EventKind::HandleInvalid])
}

/// Waits for the end of the change that was under way in a map, at a handle that was opened with [`events`].
///
/// # Errors
/// If the session is over, or the file cannot be read any more.
pub async fn follow(
    handle: &Handle,
    changing: &PartitionMap,
    clock: &dyn Clock,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    tokio::select! {
        biased;
        ended = wait(handle, changing, clock) => ended,
        // Nothing is cut off: the other arm only reads.
        signal = signals.next() => Ok(Ended::Left(signal)),
    }
}

async fn wait(handle: &Handle, changing: &PartitionMap, clock: &dyn Clock) -> Result<Ended, Failure> {
    let mut events = handle.events();
    loop {
        match look(handle, changing).await? {
            Standing::Moving => {}
            Standing::Done(version) => return Ok(Ended::Done(version)),
            Standing::GivenUp(why) => return Ok(Ended::GivenUp(why)),
        }
        tokio::select! {
            biased;
            told = heed(&mut events) => told?,
            () = clock.sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Whatever is told of the file, it is looked at again; unless nothing will be told any more.
async fn heed(events: &mut NodeEvents) -> Result<(), Failure> {
    match events.next().await {
        Some(HandleEvent::Happened(_) | HandleEvent::EventsLost(_)) => Ok(()),
        Some(HandleEvent::Invalid(error)) => Err(error.into()),
        None => Err(Failure::Refused("StaleHandle: the handle is closed".into())),
    }
}

async fn look(handle: &Handle, changing: &PartitionMap) -> Result<Standing, Failure> {
    match handle.get_contents_and_stat().await {
        Ok(read) => {
            Standing::of(changing, &read.contents).map_err(|error| Failure::Refused(error.to_string()))
        }
        Err(error) if is_passing(&error.code) => Ok(Standing::Moving),
        Err(error) => Err(error.into()),
    }
}

const fn is_passing(code: &ErrorCode) -> bool {
    matches!(code, ErrorCode::Unavailable | ErrorCode::RateLimited { .. })
}
