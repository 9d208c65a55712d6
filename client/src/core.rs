//! The application's side of its sessions: calls that somebody waits for, and calls that nobody
//! waits for any more.
//!
//! Sessions, routing and retries are decided by the [`UpstreamCore`]. What is decided here is what
//! becomes of a call whose caller has gone: it is cancelled, and if it brings back a handle or a
//! lock all the same, that is given up at once, so nothing is ever held by nobody.

mod locks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use hasp_proto::client::Event;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::CellName;
use hasp_proto::machine::Core;
use hasp_proto::request::{Answer, Op, Reply};
use hasp_proto::stream::{Down, Up};
use hasp_proto::time::Time;
use hasp_router::upstream::{self, LinkId, Ticket, UpstreamCore};

use locks::Locks;

/// Names a call; chosen by the shell, never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CallId(pub(crate) u64);

/// What can happen.
#[derive(Debug)]
pub(crate) enum Input {
    /// The application asks and waits for the answer.
    Ask(CallId, Op),
    /// The application asks and does not care for the answer.
    Tell(Op),
    /// Nobody waits for that call any more. Its answer will not be handed out.
    Abandon(CallId),
    /// This answer was handed out but nobody heard it. With an `Acquire`, its handle.
    Unheard(Option<HandleToken>, Answer),
    /// The connection stands.
    Connected(LinkId),
    /// An item came in.
    Received(LinkId, Down),
    /// The connection could not be made, or is gone.
    Disconnected(LinkId),
    /// The application is done.
    End,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// Open a connection there.
    Connect(LinkId, String),
    /// Close it.
    Disconnect(LinkId),
    /// Send on it.
    Send(LinkId, Up),
    /// To who waits for that call.
    Answered(CallId, Answer),
    /// To whoever listens: at which cell, `None` for the only session.
    Event(Option<CellName>, Event),
}

/// Who waits for a request.
#[derive(Clone, Debug)]
enum Waiter {
    /// A caller. With an `Acquire`, for the lock of this handle.
    Call(CallId, Option<HandleToken>),
    /// Nobody any more. With an `Acquire`, its handle.
    Abandoned(Option<HandleToken>),
}

/// The machine. See the module's documentation.
#[derive(Debug)]
pub(crate) struct ApplicationCore {
    upstream: UpstreamCore,
    waiters: BTreeMap<Ticket, Waiter>,
    tickets: BTreeMap<CallId, Ticket>,
    locks: Locks,
    /// When something was last taken in.
    now: Time,
}

impl ApplicationCore {
    pub(crate) fn new(upstream: UpstreamCore) -> Self {
        Self {
            upstream,
            waiters: BTreeMap::new(),
            tickets: BTreeMap::new(),
            locks: Locks::default(),
            now: Time::ZERO,
        }
    }

    /// The sessions below, to be looked at.
    pub(crate) const fn upstream(&self) -> &UpstreamCore {
        &self.upstream
    }

    fn ask(&mut self, now: Time, call: CallId, op: Op) {
        let acquires = acquires(&op).cloned();
        if let Some(handle) = &acquires {
            self.locks.asked(handle);
        }
        let ticket = self.submit(now, op);
        self.waiters.insert(ticket, Waiter::Call(call, acquires));
        self.tickets.insert(call, ticket);
    }

    fn submit(&mut self, now: Time, op: Op) -> Ticket {
        if let Op::Release(handle) | Op::Close(handle) = &op {
            self.locks.given_up(handle);
        }
        self.upstream.submit(now, op, None)
    }

    fn abandon(&mut self, now: Time, call: CallId) {
        let Some(ticket) = self.tickets.remove(&call) else { return };
        let Some(waiter) = self.waiters.get_mut(&ticket) else { return };
        let Waiter::Call(_, acquires) = waiter else { return };
        let acquires = acquires.take();
        *waiter = Waiter::Abandoned(acquires.clone());
        if let Some(handle) = acquires {
            self.locks.abandoned(&handle);
            self.release_unwanted(now, &handle);
        }
        self.upstream.cancel(now, ticket);
    }

    /// What to hand out for an answer; nothing if nobody waits for it.
    fn answered(&mut self, now: Time, ticket: Ticket, answer: Answer) -> Option<Output> {
        match self.waiters.remove(&ticket)? {
            Waiter::Call(call, acquires) => {
                self.tickets.remove(&call);
                if let Some(handle) = acquires {
                    self.locks.answered(&handle, answer.result.is_ok());
                    self.release_unwanted(now, &handle);
                }
                Some(Output::Answered(call, answer))
            }
            Waiter::Abandoned(acquires) => {
                if let (Ok(_), Some(handle)) = (&answer.result, &acquires) {
                    self.locks.granted_to_nobody(handle);
                }
                self.give_up(now, acquires, answer);
                None
            }
        }
    }

    /// Gives back what an answer brought to nobody.
    fn give_up(&mut self, now: Time, acquires: Option<HandleToken>, answer: Answer) {
        if let Ok(Reply::Opened { handle, .. }) = answer.result {
            self.submit(now, Op::Close(handle));
        }
        if let Some(handle) = acquires {
            self.release_unwanted(now, &handle);
        }
    }

    fn release_unwanted(&mut self, now: Time, handle: &HandleToken) {
        if self.locks.is_unwanted(handle) {
            self.submit(now, Op::Release(handle.clone()));
        }
    }

    /// Walks everything. For tests.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.upstream.check_invariants();
        let calls = self.waiters.values().filter(|waiter| matches!(waiter, Waiter::Call(..))).count();
        assert_eq!(calls, self.tickets.len(), "who waits has a ticket, and the other way round");
    }
}

/// The handle whose lock is asked for, if one is.
pub(crate) fn acquires(op: &Op) -> Option<&HandleToken> {
    match op {
        Op::Acquire(handle, _) | Op::TryAcquire(handle, _) => Some(handle),
        Op::Open(_)
        | Op::Close(_)
        | Op::GetContentsAndStat(_)
        | Op::GetStat(_)
        | Op::ReadDir(_)
        | Op::SetContents { .. }
        | Op::Delete(_)
        | Op::Release(_)
        | Op::EndClient(_)
        | Op::Settle(_)
        | Op::Claim => None,
    }
}

impl Core for ApplicationCore {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        self.now = now;
        match input {
            Input::Ask(call, op) => self.ask(now, call, op),
            Input::Tell(op) => {
                self.submit(now, op);
            }
            Input::Abandon(call) => self.abandon(now, call),
            Input::Unheard(acquires, answer) => {
                if let (Ok(_), Some(handle)) = (&answer.result, &acquires) {
                    self.locks.unheard(handle);
                }
                self.give_up(now, acquires, answer);
            }
            Input::Connected(link) => self.upstream.connected(now, &link),
            Input::Received(link, down) => self.upstream.received(now, &link, down),
            Input::Disconnected(link) => self.upstream.disconnected(now, &link),
            Input::End => self.upstream.end(now),
        }
    }

    fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        self.upstream.handle_timeout(now);
    }

    /// Passes on what the sessions want; an answer that nobody waits for may make them want more.
    fn poll_output(&mut self) -> Option<Output> {
        loop {
            return Some(match self.upstream.poll_output()? {
                upstream::Output::Connect(link, address) => Output::Connect(link, address),
                upstream::Output::Disconnect(link) => Output::Disconnect(link),
                upstream::Output::Send(link, up) => Output::Send(link, up),
                upstream::Output::Event(cell, event) => Output::Event(cell, event),
                upstream::Output::Answered(ticket, answer) => match self.answered(self.now, ticket, answer) {
                    Some(output) => output,
                    None => continue,
                },
            });
        }
    }

    fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        self.upstream.poll_timeout()
    }
}
