//! `hasp watch`: a line for each event of a node, until it is stopped.
//!
//! ```text
//!           opened with events            a signal, or nobody reads
//!   start ─────────────────────▶ watching ─────────────────────────▶ exit 0
//!                                 │    ▲  deleted, session over
//!                           event │    │ ──────────────────────────▶ exit 1
//!                                 └────┘ a line, perhaps the state
//! ```

mod lines;

use hasp_client::{
    CallError, Client, ErrorCode, EventKind, EventMask, Handle, HandleEvent, NodeKind, OpenOptions, Opened,
    SessionEvent,
};

use crate::child::Signals;
use crate::context::{ConnectArgs, Context, parse_name};
use crate::exit::{Exit, Failure, tell};
use crate::format::{Reader, offer};
use lines::{Form, Line, Seen, render};

/// Options of `hasp watch`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which file or directory, as in /ls/dev/services
    name: String,

    /// Which events: contents-modified, child-added, child-removed, child-modified, lock-acquired,
    /// lock-conflict, handle-invalid (told always) [default: all]
    #[arg(long, value_name = "EVENT,...", value_delimiter = ',', value_parser = parse_event)]
    events: Vec<EventKind>,

    /// Print the contents, or the children, at the start and after each event
    #[arg(long)]
    cat: bool,

    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs the command.
pub async fn run(args: Args, ctx: &Context) -> Exit {
    watch(&args, ctx).await.into()
}

async fn watch(args: &Args, ctx: &Context) -> Result<(), Failure> {
    let name = parse_name(&args.name)?;
    let mut signals = Signals::take().map_err(|error| Failure::local("take signals", error))?;
    let watching = args.connect.with_client(ctx, async |client| {
        let options = OpenOptions::read().events(mask(&args.events));
        let opened = args.connect.call(client.open(&name, options)).await?;
        tokio::select! {
            biased;
            ended = follow(args, client, &opened) => ended,
            // Lines are written as a whole: none is cut off.
            _ = signals.next() => Ok(()),
        }
    });
    watching.await
}

/// The end of the node is told whatever is asked for: it is the end of the watch.
fn mask(asked: &[EventKind]) -> EventMask {
    match asked {
        [] => EventMask::ALL,
        kinds => EventMask::of(kinds.iter().copied().chain([EventKind::HandleInvalid])),
    }
}

/// Prints what happens until the node, the session or the reader is gone.
async fn follow(args: &Args, client: &Client, opened: &Opened) -> Result<(), Failure> {
    let handle = &opened.handle;
    let show = async |line: Line<'_>| {
        let seen = if args.cat { see(handle, opened.stat.kind).await? } else { None };
        offer(&render(form(args), &line, handle.name(), seen.as_ref())?)
    };
    let (mut session, mut events) = (client.events(), handle.events());
    let mut reader = show(Line::watching(handle, opened.position.as_ref())).await?;
    while reader == Reader::Reads {
        let event = tokio::select! {
            biased;
            event = events.next() => event,
            event = session.next() => match heed(event) {
                None => continue,
                Some(error) => Some(HandleEvent::Invalid(error)),
            },
        };
        reader = match &event {
            Some(HandleEvent::Happened(event)) if event.kind == EventKind::HandleInvalid => {
                offer(&render(form(args), &Line::happened(event), handle.name(), None)?)?;
                return Err(Failure::Refused(format!("StaleHandle: {} was deleted", event.name)));
            }
            Some(HandleEvent::Happened(event)) => show(Line::happened(event)).await?,
            Some(HandleEvent::EventsLost(cause)) => show(Line::lost(handle.name(), cause)).await?,
            Some(HandleEvent::Invalid(error)) => {
                offer(&render(form(args), &Line::invalid(handle.name(), error), handle.name(), None)?)?;
                return Err(error.clone().into());
            }
            None => return Err(over().into()),
        };
    }
    Ok(())
}

/// What there is to see; nothing if the node is gone, which will be told.
async fn see(handle: &Handle, kind: NodeKind) -> Result<Option<Seen>, Failure> {
    let seen = match kind {
        NodeKind::File => handle.get_contents_and_stat().await.map(Seen::Contents),
        NodeKind::Directory => handle.read_dir().await.map(Seen::Children),
    };
    match seen {
        Ok(seen) => Ok(Some(seen)),
        Err(error) if error.code == ErrorCode::StaleHandle => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Says why the session is over, if it is.
fn heed(event: Option<SessionEvent>) -> Option<CallError> {
    match event {
        Some(SessionEvent::Jeopardy { .. }) => {
            tell("the session is in jeopardy: nobody answers, events may be missed");
            None
        }
        Some(SessionEvent::Safe { .. }) => {
            tell("the session is safe again");
            None
        }
        // What of this concerns the node comes as an event of its handle.
        Some(SessionEvent::CellLost { .. } | SessionEvent::FailOver { .. } | SessionEvent::Missed(_)) => None,
        Some(SessionEvent::Expired(error)) => Some(error),
        None => Some(over()),
    }
}

fn over() -> CallError {
    CallError { code: ErrorCode::SessionExpired, detail: "the session is over".into(), position: None }
}

const fn form(args: &Args) -> Form {
    if args.connect.json { Form::Json } else { Form::Text }
}

fn parse_event(text: &str) -> Result<EventKind, String> {
    let known = || EventKind::ALL.map(EventKind::name).join(", ");
    let kind = EventKind::ALL.into_iter().find(|kind| kind.name() == text);
    kind.ok_or_else(|| format!("no such event; there are {}", known()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_known_by_its_name_and_no_other() {
        for kind in EventKind::ALL {
            assert_eq!(parse_event(kind.name()), Ok(kind));
        }
        assert!(parse_event("contents").is_err());
    }

    #[test]
    fn the_end_is_told_whatever_is_asked_for() {
        let asked = mask(&[EventKind::ChildAdded]);

        assert_eq!(asked.kinds().collect::<Vec<_>>(), [EventKind::ChildAdded, EventKind::HandleInvalid]);
        assert_eq!(mask(&[]), EventMask::ALL);
    }
}
