//! What goes into the core and what comes out of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hasp_proto::client::Event;
use hasp_proto::event::EventMask;
use hasp_proto::id::{CellName, Instance};
use hasp_proto::name::Name;
use hasp_proto::node::{LockMode, Stat};
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Op};
use hasp_proto::sequencer::SequencerToken;
use hasp_proto::stream::{Down, Up};
use hasp_proto::time::Time;
use hasp_proto::trace::TraceContext;
use hasp_router::upstream::LinkId;

use crate::node_events::HandleEvent;

/// Names a call; chosen by the shell, never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Names an open handle of the application; chosen by the core, never twice. Two may share what the
/// cell knows as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleNumber(pub u64);

/// What the application asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What.
    pub op: Op,
    /// A sequencer that must stand.
    pub guard: Option<SequencerToken>,
    /// The handle that it is asked of, if one is.
    pub on: Option<HandleNumber>,
    /// What becomes of the handle that an `Open` makes.
    pub opening: Opening,
    /// For those who follow it on its way.
    pub trace: Option<TraceContext>,
}

/// How the library treats a handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// What the application is told; the cell may be asked to tell more.
    pub told: EventMask,
    /// A released lock is kept (`lock-5`).
    pub keeps_lock: bool,
}

impl From<Op> for Call {
    fn from(op: Op) -> Self {
        Self { op, guard: None, on: None, opening: Opening::default(), trace: None }
    }
}

impl Call {
    /// The handle whose lock is asked for, and how, if one is.
    pub fn acquires(&self) -> Option<(HandleNumber, LockMode)> {
        match &self.op {
            Op::Acquire(_, mode) | Op::TryAcquire(_, mode) => Some((self.on?, *mode)),
            _ => None,
        }
    }
}

/// What can happen.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "made and taken in at once; a queue of them is never kept")]
pub enum Input {
    /// The application asks and waits for the answer.
    Ask(CallId, Call),
    /// The application is done with a handle and does not wait for an answer.
    Close(HandleNumber),
    /// Nobody waits for that call any more. Its answer will not be handed out.
    Abandon(CallId),
    /// This was handed out but nobody heard it.
    Unheard(Brought),
    /// The addresses that it was given stand for these hosts now.
    Hosts(Vec<String>),
    /// The connection stands.
    Connected(LinkId),
    /// Items came in together.
    Received(LinkId, Vec<Down>),
    /// The connection could not be made, or is gone.
    Disconnected(LinkId),
    /// The application is done.
    End,
}

/// What an answer brought that must not be held by nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// A handle.
    pub handle: Option<HandleNumber>,
    /// The lock of a handle.
    pub lock_of: Option<HandleNumber>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Open a connection there.
    Connect(LinkId, String),
    /// Close it.
    Disconnect(LinkId),
    /// Send on it.
    Send(LinkId, Up),
    /// To who waits for that call.
    Answered(CallId, Answer),
    /// To who waits for that `Open`.
    Opened(CallId, Answer, OpenHandle),
    /// To whoever listens: at which cell, `None` for the only session.
    Event(Option<CellName>, Event),
    /// To who listens at that handle.
    Tell(HandleNumber, HandleEvent),
    /// Every call on that handle fails like this from here on.
    Over(HandleNumber),
    /// Nothing more is told of that handle.
    Closed(HandleNumber),
    /// Reads of that node may be answered with this, while the cache lease holds.
    Show(Box<Shown>),
    /// Reads of that node are asked here again.
    Hide(Name),
    /// The cache lease of the session at that cell ends then; `None`: it is over, and what was shown
    /// under it is void.
    CacheLease(Option<CellName>, Option<Time>),
}

/// A handle that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenHandle {
    /// By what the core knows it.
    pub number: HandleNumber,
    /// The true name of its node.
    pub name: Name,
    /// The cell that made it.
    pub cell: CellName,
}

/// A file as it may be shown to whoever may read it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its node.
    pub name: Name,
    /// Which of that name.
    pub instance: Instance,
    /// All of it.
    pub contents: Bytes,
    /// Metadata.
    pub stat: Stat,
    /// Where it was read; it has not changed since.
    pub position: Position,
    /// Of the session whose cache lease it hangs on.
    pub cell: Option<CellName>,
    /// To be set when it is shown to somebody.
    pub used: Used,
}

/// Whether something was used since the last look. A clone is the same mark.
#[derive(Clone, Debug, Default)]
pub struct Used(Arc<AtomicBool>);

impl Used {
    /// Marks it as used.
    pub fn mark(&self) {
        // Most of the time it is marked already, and who only looks shares the cache line.
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Takes the mark away; whether it was there.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}
