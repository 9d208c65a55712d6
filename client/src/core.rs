//! The application's side of its sessions: calls, handles, locks and what is cached.
//!
//! Sessions, routing and retries are decided by the [`UpstreamCore`]. What is decided here: what is
//! answered without asking ([`cached`], [`spares`], [`kept`]); what becomes of news ([`news`]); when a
//! session that nobody needs may rest ([`idle`]); and what becomes of a call whose caller has gone: it
//! is cancelled, and if it brings back a handle or a lock all the same, that is given up at once, so
//! nothing is ever held by nobody.

mod cached;
mod following;
mod handles;
mod idle;
mod interface;
mod kept;
mod locking;
mod locks;
mod news;
mod spares;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use hasp_proto::client::cache::FillTicket;
use hasp_proto::client::{Ask, NewsId, Status};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::{CellName, RequestNumber};
use hasp_proto::machine::Core;
use hasp_proto::name::Name;
use hasp_proto::node::LockMode;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Op, Reply};
use hasp_proto::time::Time;
use hasp_router::upstream::{self, Ticket, UpstreamCore};

use crate::node_events::HandleEvent;
use cached::Cached;
use following::Following;
use handles::Handles;
use idle::Idle;
pub use interface::{Brought, Call, CallId, HandleNumber, Input, OpenHandle, Opening, Output, Shown, Used};
use kept::{KeptLocks, Releases};
use locks::Locks;
use spares::{Left, Same, Spares};

/// How an application wants to be served.
#[derive(Clone, Debug)]
pub struct CoreOptions {
    /// As whom it acts.
    pub principal: String,
    /// Bytes to keep of what is read; `None`: nothing is cached.
    pub cache_bytes: Option<usize>,
    /// Sessions that nobody needs are ended.
    pub ends_idle: bool,
    /// The list of proxies is followed: the addresses that it was given. Empty: it is not.
    pub follows: Vec<String>,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Call(CallId),
    /// Nobody, or nobody any more.
    Nobody,
}

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// What the caller asked, of a handle or of none.
    Plain(Option<HandleNumber>),
    /// A new handle; whether it may serve others, too.
    Open(Opening, Sharing),
    /// The lock of a handle; after how many releases.
    Acquire(HandleNumber, LockMode, Releases),
    /// To give it back.
    Release(HandleNumber),
    /// To be told of events from here on.
    Refresh(HandleNumber),
}

/// Whether other `Open`s may be served with a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Shared,
    Own,
}

/// A request without an answer.
#[derive(Clone, Debug)]
struct Waiter {
    caller: Caller,
    purpose: Purpose,
    fill: Option<FillTicket>,
}

/// To be told once all that came with it has been taken in (`cache-6`).
#[derive(Clone, Debug)]
enum Late {
    Tell(HandleNumber, HandleEvent),
    Acknowledge(Option<CellName>, NewsId),
}

/// The machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct ApplicationCore {
    upstream: UpstreamCore,
    waiters: BTreeMap<Ticket, Waiter>,
    tickets: BTreeMap<CallId, Ticket>,
    handles: Handles,
    spares: Spares,
    locks: Locks,
    kept: KeptLocks,
    cached: Cached,
    idle: Idle,
    following: Option<Following>,
    late: Vec<Late>,
    outputs: VecDeque<Output>,
}

impl ApplicationCore {
    /// Over the sessions below.
    pub fn new(upstream: UpstreamCore, options: &CoreOptions) -> Self {
        let namespace = upstream.map().map(|map| map.namespace.clone());
        Self {
            upstream,
            waiters: BTreeMap::new(),
            tickets: BTreeMap::new(),
            handles: Handles::default(),
            spares: Spares::default(),
            locks: Locks::default(),
            kept: KeptLocks::default(),
            cached: Cached::new(options.cache_bytes, &options.principal, namespace),
            idle: Idle::new(options.ends_idle),
            following: (!options.follows.is_empty()).then(|| Following::new(options.follows.clone())),
            late: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The sessions below, to be looked at.
    pub const fn upstream(&self) -> &UpstreamCore {
        &self.upstream
    }

    fn ask(&mut self, now: Time, id: CallId, call: Call) {
        if let Op::Close(_) = call.op {
            return self.close_for(now, id, call);
        }
        if let Err(error) = self.check_handle(&call) {
            return self.answer(id, refused(error));
        }
        let is_done = match (&call.op, call.on) {
            (Op::Acquire(..) | Op::TryAcquire(..), _) => self.acquire(now, id, &call),
            (Op::Release(_), Some(on)) => self.release(now, id, on),
            (Op::GetSequencer(_), Some(on)) if self.kept.is_idle(on) => {
                self.answer(id, refused(ErrorCode::LockNotHeld.because("it was released")));
                true
            }
            (Op::Open(_), _) => self.open_from_cache(now, id, &call),
            (_, Some(on)) => self.read_from_cache(now, id, &call, on),
            (_, None) => false,
        };
        if !is_done {
            self.send(now, Caller::Call(id), call);
        }
    }

    /// A handle that is closed or over is good for nothing any more.
    fn check_handle(&self, call: &Call) -> Result<(), Error> {
        let Some(on) = call.on else { return Ok(()) };
        let Some(handle) = self.handles.get(on) else {
            return Err(ErrorCode::StaleHandle.because("the handle is closed"));
        };
        handle.over.clone().map_or(Ok(()), Err)
    }

    /// Answers a read by handle, if that is possible; whether it was.
    fn read_from_cache(&mut self, now: Time, id: CallId, call: &Call, on: HandleNumber) -> bool {
        if call.guard.is_some() {
            return false;
        }
        let Some(handle) = self.handles.get(on) else { return false };
        let Some(answer) = self.cached.read(&call.op, &handle.body) else { return false };
        if self.cache_lease(now, &answer.position).is_none() {
            return false;
        }
        if matches!(call.op, Op::GetContentsAndStat(_)) {
            self.show(now, on);
        }
        self.answer(id, answer);
        true
    }

    /// Lets the shell answer for a file, if it is kept.
    fn show(&mut self, now: Time, on: HandleNumber) {
        let Some(handle) = self.handles.get(on) else { return };
        let place = Some(Position { cell: handle.body.cell.clone(), ..Position::default() });
        if let Some(cell) = self.cache_lease(now, &place)
            && let Some(shown) = self.cached.show(&handle.body, cell)
        {
            self.outputs.push_back(Output::Show(Box::new(shown)));
        }
    }

    /// Answers an `Open`, if that is possible; whether it was.
    fn open_from_cache(&mut self, now: Time, id: CallId, call: &Call) -> bool {
        let Op::Open(open) = &call.op else { return false };
        let name = self.cached.true_name(&open.name);
        let Some(same) = name.and_then(|name| Same::of(open, name)).filter(|_| call.guard.is_none()) else {
            return false;
        };
        if let Some(absent) = self.cached.absence(&same.name)
            && self.cache_lease(now, &absent.position).is_some()
        {
            self.answer(id, absent);
            return true;
        }
        let Some(spare) = self.spares.offer(&same) else { return false };
        let (token, body) = (spare.token.clone(), spare.body.clone());
        let Some(answer) = self.cached.open(&body, &token) else { return false };
        if self.cache_lease(now, &answer.position).is_none() {
            return false;
        }
        self.spares.take(&same);
        self.hand_out(id, answer, token, body, call.opening);
        true
    }

    /// On which session's cache lease something read there hangs; nothing if that lease is not valid
    /// (`lease-3`).
    fn cache_lease(&self, now: Time, position: &Option<Position>) -> Option<Option<CellName>> {
        let cell = self.session_cell(&position.as_ref()?.cell);
        let is_valid = |held: upstream::Held<'_>| {
            held.cell == cell.as_ref() && held.status == Status::Safe && now < held.ends.cache
        };
        self.upstream.sessions().any(is_valid).then_some(cell)
    }

    /// Whether what is held in that cell is held: not in jeopardy, nor about to be.
    fn is_safe(&self, now: Time, cell: &CellName) -> bool {
        let cell = self.session_cell(cell);
        self.upstream
            .sessions()
            .any(|held| held.cell == cell.as_ref() && held.status == Status::Safe && now < held.ends.session)
    }

    /// By what the session that serves a cell is known.
    fn session_cell(&self, cell: &CellName) -> Option<CellName> {
        self.upstream.map().map(|_| cell.clone())
    }

    fn send(&mut self, now: Time, caller: Caller, call: Call) {
        let purpose = match (&call.op, call.acquires(), call.on) {
            (_, Some((handle, mode)), _) => Purpose::Acquire(handle, mode, self.kept.releases(handle)),
            (Op::Release(_), _, Some(handle)) => Purpose::Release(handle),
            (Op::Refresh(_), _, Some(handle)) => Purpose::Refresh(handle),
            (Op::Open(open), ..) => {
                let is_plain = Same::of(open, open.name.clone()).is_some();
                Purpose::Open(call.opening, if is_plain { Sharing::Shared } else { Sharing::Own })
            }
            (_, None, on) => Purpose::Plain(on),
        };
        match purpose {
            Purpose::Acquire(handle, ..) => self.locks.asked(handle),
            Purpose::Release(handle) => {
                self.locks.releasing(handle);
                self.kept.giving(handle);
            }
            Purpose::Plain(_) | Purpose::Open(..) | Purpose::Refresh(_) => {}
        }
        let body = call.on.and_then(|on| self.handles.get(on)).map(|handle| &handle.body);
        let fill = match call.guard {
            None => self.cached.ticket(&call.op, body),
            Some(_) => None,
        };
        let Call { op, guard, trace, .. } = call;
        let ticket =
            self.upstream.submit(now, Ask { op, on_behalf: None, guard, caches: fill.is_some(), trace });
        if let Caller::Call(id) = caller {
            self.tickets.insert(id, ticket);
        }
        self.waiters.insert(ticket, Waiter { caller, purpose, fill });
    }

    fn abandon(&mut self, now: Time, id: CallId) {
        let Some(ticket) = self.tickets.remove(&id) else {
            let _ = self.kept.abandoned(id) || self.locks.abandoned_here(id);
            return;
        };
        let waiter = self.waiters.get_mut(&ticket).expect("a caller that waits, waits for something");
        waiter.caller = Caller::Nobody;
        if let Purpose::Acquire(handle, mode, _) = waiter.purpose {
            self.locks.abandoned(handle, mode);
            self.release_unwanted(now, handle);
        }
        self.upstream.cancel(now, ticket);
    }

    fn answered(&mut self, now: Time, ticket: Ticket, answer: Answer) {
        if self.followed(now, ticket, &answer) {
            return;
        }
        let Some(Waiter { caller, purpose, fill }) = self.waiters.remove(&ticket) else { return };
        if let Caller::Call(id) = caller {
            self.tickets.remove(&id);
        }
        if let Some(fill) = fill {
            self.fill(now, fill, &answer);
        }
        match purpose {
            Purpose::Plain(on) => {
                self.note_end(now, on, &answer);
                if let (Ok(Reply::Contents { .. }), Some(on)) = (&answer.result, on) {
                    self.show(now, on);
                }
                self.answer_caller(caller, answer);
            }
            Purpose::Open(opening, sharing) => self.opened(now, caller, opening, sharing, answer),
            Purpose::Acquire(handle, mode, releases) => {
                let answer = self.give_back_if_over(now, handle, answer);
                self.kept.answered(handle, mode, releases, &answer);
                self.acquired(now, caller, handle, mode, answer);
            }
            Purpose::Release(handle) => self.released(now, caller, handle, answer),
            Purpose::Refresh(handle) => self.refreshed(now, handle, &answer),
        }
    }

    /// A lock that was granted to a handle which is over meanwhile: nobody would hear of its loss any more, so its holder
    /// never hears that it has it.
    fn give_back_if_over(&mut self, now: Time, number: HandleNumber, answer: Answer) -> Answer {
        let over = self.handles.get(number).and_then(|it| Some((it.over.clone()?, it.token.clone())));
        match over {
            Some((error, token)) if answer.result.is_ok() => {
                self.close_token(now, token);
                Answer { result: Err(error), ..answer }
            }
            _ => answer,
        }
    }

    fn fill(&mut self, now: Time, fill: FillTicket, answer: &Answer) {
        let crowded_out = self.cached.fill(fill, answer);
        if !crowded_out.is_empty() {
            self.hide(crowded_out);
            self.drop_spares(now);
        }
    }

    fn opened(&mut self, now: Time, caller: Caller, opening: Opening, sharing: Sharing, answer: Answer) {
        let token = match &answer.result {
            Ok(Reply::Opened { handle, .. }) => handle.clone(),
            Ok(_) | Err(_) => return self.answer_caller(caller, answer),
        };
        let Some(body) = token.claimed_body() else {
            let error = ErrorCode::Unavailable.because("the host made a handle that is none");
            return self.answer_caller(caller, Answer { result: Err(error), ..answer });
        };
        if sharing == Sharing::Shared
            && let Some(replaced) = self.spares.opened(token.clone(), body.clone())
        {
            self.close_token(now, replaced);
        }
        match caller {
            Caller::Call(id) => self.hand_out(id, answer, token, body, opening),
            Caller::Nobody => {
                let number = self.handles.add(token, body, opening);
                self.close(now, number);
            }
        }
    }

    fn hand_out(
        &mut self,
        id: CallId,
        answer: Answer,
        token: HandleToken,
        body: HandleBody,
        opening: Opening,
    ) {
        let (name, cell) = (body.name.clone(), body.cell.clone());
        let number = self.handles.add(token, body, opening);
        if opening.keeps_lock {
            self.kept.add(number);
        }
        self.saw(&answer);
        self.outputs.push_back(Output::Opened(id, answer, OpenHandle { number, name, cell }));
    }

    /// Closes a handle, for somebody who waits for the cell's answer.
    fn close_for(&mut self, now: Time, id: CallId, call: Call) {
        let gone = call.on.and_then(|on| self.remove(now, on));
        match gone {
            Some(token) => self.send(now, Caller::Call(id), Call { on: None, ..Op::Close(token).into() }),
            None => self.answer(id, Answer::plain(RequestNumber(0), Ok(Reply::Closed))),
        }
    }

    /// Closes a handle, for nobody.
    fn close(&mut self, now: Time, number: HandleNumber) {
        if let Some(token) = self.remove(now, number) {
            self.close_token(now, token);
        }
    }

    fn close_token(&mut self, now: Time, token: HandleToken) {
        self.send(now, Caller::Nobody, Op::Close(token).into());
    }

    /// Takes a handle out. Returns what is to be closed at the cell: nothing if the cell knows it no
    /// more, or others use it or may.
    fn remove(&mut self, now: Time, number: HandleNumber) -> Option<HandleToken> {
        let handle = self.handles.remove(number)?;
        self.outputs.push_back(Output::Closed(number));
        self.idle.closed(now, self.session_cell(&handle.body.cell));
        let is_concerned = self.locks.is_concerned(number);
        for (id, _) in self.waiting_for_lock(number) {
            self.answer(id, refused(ErrorCode::Cancelled.because("the handle was closed")));
        }
        if handle.over.is_some_and(|error| error.code == ErrorCode::SessionExpired) {
            // Whatever the cell may still have of it ends with the session, or has ended.
            self.spares.closed(&handle.token, &handle.body, false);
            return None;
        }
        let is_known = !is_concerned && self.cached.is_known(&handle.body);
        let left = self.spares.closed(&handle.token, &handle.body, is_known);
        if let Some(oldest) = self.spares.pop_excess() {
            self.close_token(now, oldest);
        }
        (left == Left::Close).then_some(handle.token)
    }

    /// Really closes the idle handles that are of no use any more.
    fn drop_spares(&mut self, now: Time) {
        let cached = &self.cached;
        for token in self.spares.sweep(|body| cached.is_known(body)) {
            self.close_token(now, token);
        }
    }

    /// A call on a handle failed because its session is over: so do all later ones (paper §2.8).
    fn note_end(&mut self, now: Time, on: Option<HandleNumber>, answer: &Answer) {
        if let (Some(handle), Err(error)) = (on, &answer.result)
            && error.code == ErrorCode::SessionExpired
        {
            self.end_handle(now, handle, error);
        }
    }

    fn end_handle(&mut self, now: Time, number: HandleNumber, error: &Error) {
        if !self.handles.end(number, error) {
            return;
        }
        self.outputs.push_back(Output::Over(number));
        self.late.push(Late::Tell(number, HandleEvent::invalid(error.clone(), None)));
        for (id, call) in self.waiting_for_lock(number) {
            self.ask(now, id, call);
        }
    }

    /// Forgets the lock of a handle that is no more. Returns the calls that waited here to ask for it.
    fn waiting_for_lock(&mut self, number: HandleNumber) -> Vec<(CallId, Call)> {
        let mut calls = self.kept.remove(number);
        calls.extend(self.locks.forget(number));
        calls
    }

    fn answer_caller(&mut self, caller: Caller, answer: Answer) {
        if let Caller::Call(id) = caller {
            self.answer(id, answer);
        }
    }

    fn answer(&mut self, id: CallId, answer: Answer) {
        self.saw(&answer);
        self.outputs.push_back(Output::Answered(id, answer));
    }

    fn saw(&mut self, answer: &Answer) {
        if let Some(position) = &answer.position {
            self.cached.saw(position);
        }
    }

    fn hide(&mut self, names: Vec<Name>) {
        self.outputs.extend(names.into_iter().map(Output::Hide));
    }

    /// Takes in what the sessions bring, until they bring nothing more.
    fn collect(&mut self, now: Time) {
        while let Some(output) = self.upstream.poll_output() {
            match output {
                upstream::Output::Connect(link, address) => {
                    self.outputs.push_back(Output::Connect(link, address));
                }
                upstream::Output::Disconnect(link) => self.outputs.push_back(Output::Disconnect(link)),
                upstream::Output::Send(link, up) => self.outputs.push_back(Output::Send(link, up)),
                upstream::Output::Event(cell, event) => self.happened(now, cell, event),
                // Only proxies and routers follow the map.
                upstream::Output::Routes(_) => {}
                upstream::Output::Answered(ticket, answer) => self.answered(now, ticket, answer),
            }
        }
    }

    /// Takes in everything, then tells what was to be told after it.
    fn settle(&mut self, now: Time) {
        self.collect(now);
        for late in std::mem::take(&mut self.late) {
            match late {
                Late::Tell(handle, event) => self.outputs.push_back(Output::Tell(handle, event)),
                Late::Acknowledge(cell, news) => self.upstream.acknowledge(now, cell.as_ref(), news),
            }
        }
        self.collect(now);
        assert!(self.late.is_empty(), "an acknowledgement brings no news");
    }

    /// Walks everything. For tests.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.upstream.check_invariants();
        self.handles.check_invariants();
        self.spares.check_invariants();
        let calls = self.waiters.values().filter(|waiter| waiter.caller != Caller::Nobody).count();
        assert_eq!(calls, self.tickets.len(), "who waits has a ticket, and the other way round");
    }
}

fn refused(error: Error) -> Answer {
    Answer::plain(RequestNumber(0), Err(error))
}

impl Core for ApplicationCore {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Ask(id, call) => self.ask(now, id, call),
            Input::Close(handle) => self.close(now, handle),
            Input::Abandon(id) => self.abandon(now, id),
            Input::Unheard(brought) => self.unheard(now, brought),
            Input::Connected(link) => self.upstream.connected(now, &link),
            Input::Received(link, items) => {
                for down in items {
                    self.upstream.received(now, &link, down);
                    self.collect(now);
                }
            }
            Input::Disconnected(link) => self.upstream.disconnected(now, &link),
            Input::Hosts(given) => self.given_again(given),
            Input::End => self.end(now),
        }
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Time) {
        self.upstream.handle_timeout(now);
        self.collect(now);
        self.look_at_list(now);
        self.rest(now);
        self.settle(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        let idle = self.rest_at().map(|at| (at, "a session that nobody needs may rest"));
        let list = self.follow_at().map(|at| (at, "the list of proxies is to be looked at"));
        self.upstream.poll_timeout().into_iter().chain(idle).chain(list).min_by_key(|(at, _)| *at)
    }
}
