//! A host that holds no state of the service: sessions of many clients below, one session at each
//! cell above, and every request passed on. A router is this; a proxy is this with a cache.
//!
//! It decides what the cells must hear of the clients (`proxy-1`, `proxy-2`), what the clients must
//! hear of the cells (`route-7`), and how far leases below may reach (`lease-1`, `lease-2`). What a
//! session is and where a request goes is decided by the machines it is made of.
//!
//! ```text
//! client's request:  received -- on behalf --> asked upstream -- answered --> answered
//!                        '---- not a client's to ask, too many ----> refused
//! client's session:  admitted ... expired, ended --> requests cancelled --> EndClient --> gone
//! ```

mod departures;
mod flights;
mod footprints;
mod guests;
mod nesting;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hasp_proto::client::{Event, Status};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::{CellName, RequestNumber, SessionId};
use hasp_proto::lease::LeaseTerms;
use hasp_proto::machine::Core;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Answer, EndCause, OnBehalf, Op, Reply, Request};
use hasp_proto::server::{self, ConnectionId, ServerCore};
use hasp_proto::stream::{Down, Hello, News, Role, Up};
use hasp_proto::time::Time;

use crate::upstream::{self, Hosts, LinkId, Ticket, UpstreamConfig, UpstreamCore};
use departures::{Departure, Departures, speak_for};
use flights::{Flights, Purpose};
use footprints::{Footprint, Settling};
use guests::Guests;

/// What is kept off leases below: the time an answer takes from here to its client does not count,
/// but ends that fall together must not.
const MARGIN: Duration = Duration::from_millis(500);
/// Marks of settled requests go upstream at most this often.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);
/// Most marks in one message.
const SETTLE_BATCH_MAX: usize = 4_096;

/// What a relay is made from.
#[derive(Clone, Debug)]
pub struct RelayCoreConfig {
    /// Its own sessions. The hosts are cells.
    pub upstream: UpstreamConfig,
    /// What it grants to its clients, as far as its own leases reach.
    pub terms: LeaseTerms,
}

/// What can happen to a relay.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client's connection was opened; its number is never used again.
    Connected(ConnectionId),
    /// An item came from a client.
    Received(ConnectionId, Up),
    /// A request came that can only be answered with this error.
    Unreadable(ConnectionId, RequestNumber, Error),
    /// Something came that is no item of the protocol.
    Malformed(ConnectionId, &'static str),
    /// A client's connection is gone.
    Disconnected(ConnectionId),
    /// A connection to a cell stands.
    LinkConnected(LinkId),
    /// An item came from a cell.
    LinkReceived(LinkId, Down),
    /// A connection to a cell is gone.
    LinkDisconnected(LinkId),
    /// Send all clients elsewhere and end the own sessions.
    Stop,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this to a client.
    Send(ConnectionId, Down),
    /// Close a client's connection once everything sent before is out.
    Close(ConnectionId),
    /// Connect to a cell.
    Connect(LinkId, String),
    /// Close a connection to a cell.
    Disconnect(LinkId),
    /// Send this to a cell.
    SendUp(LinkId, Up),
    /// Something happened to the session at a cell. For the log.
    Noticed(CellName, Event),
    /// Each cell has welcomed it once: clients can be sent here.
    Ready,
    /// It was told to stop, and its own sessions have ended.
    Stopped,
}

/// Where a relay stands. It only moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Some cell has not welcomed it yet.
    Starting,
    /// Every cell has welcomed it once.
    Ready,
    /// Told to stop; its own sessions are ending.
    Stopping,
    /// They have ended.
    Stopped,
}

/// Counts for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStatus {
    /// Sessions of clients that stand.
    pub sessions: usize,
    /// Own sessions that stand.
    pub upstream_sessions: usize,
    /// KeepAlives received since the start.
    pub keepalives: u64,
    /// KeepAlives sent since the start.
    pub upstream_keepalives: u64,
    /// Requests received since the start.
    pub requests: u64,
    /// Requests passed on and not answered.
    pub requests_in_flight: usize,
    /// Sessions of clients whose lease ran out, since the start.
    pub sessions_expired: u64,
}

/// The machine. See the module's documentation.
#[derive(Debug)]
pub struct RelayCore {
    server: ServerCore,
    upstream: UpstreamCore,
    /// Every cell, in order.
    cells: Vec<CellName>,
    welcomed: BTreeSet<CellName>,
    flights: Flights,
    footprints: BTreeMap<SessionId, Footprint>,
    settling: Settling,
    settle_at: Option<Time>,
    settled_last: Time,
    departures: Departures,
    guests: Guests,
    phase: Phase,
    outputs: VecDeque<Output>,
}

impl RelayCore {
    /// A host that begins its sessions upstream at once, and grants nothing until one stands.
    ///
    /// # Panics
    /// If its hosts are not cells.
    pub fn new(now: Time, config: RelayCoreConfig) -> Self {
        let Hosts::Cells(map) = &config.upstream.hosts else {
            panic!("a relay holds sessions with cells");
        };
        let cells = map.cells.keys().cloned().collect();
        Self {
            server: ServerCore::new(config.terms),
            upstream: UpstreamCore::new(now, config.upstream),
            cells,
            welcomed: BTreeSet::new(),
            flights: Flights::default(),
            footprints: BTreeMap::new(),
            settling: Settling::default(),
            settle_at: None,
            settled_last: Time::ZERO,
            departures: Departures::default(),
            guests: Guests::default(),
            phase: Phase::Starting,
            outputs: VecDeque::new(),
        }
    }

    /// The map that it routes by.
    pub fn map(&self) -> &PartitionMap {
        self.upstream.map().expect("checked when it was made")
    }

    /// Where it stands.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Counts at this moment.
    pub fn status(&self) -> RelayStatus {
        let stats = self.server.stats();
        let stands = |held: &upstream::Held<'_>| matches!(held.status, Status::Safe | Status::Jeopardy);
        RelayStatus {
            sessions: self.server.session_count(),
            upstream_sessions: self.upstream.sessions().filter(stands).count(),
            keepalives: stats.keepalives,
            upstream_keepalives: self.upstream.keep_alives_sent(),
            requests: stats.requests,
            requests_in_flight: self.flights.len(),
            sessions_expired: stats.expired,
        }
    }

    fn stop(&mut self, now: Time) {
        self.phase = self.phase.max(Phase::Stopping);
        self.server.stop(&stopping());
        self.upstream.end(now);
    }

    /// Carries out what the parts want of one another, until they want nothing more.
    fn settle(&mut self, now: Time) {
        loop {
            // What happened upstream comes first: what is asked after it must not be taken for before.
            if let Some(output) = self.upstream.poll_output() {
                self.hear(now, output);
            } else if let Some(output) = self.server.poll_output() {
                self.serve(now, output);
            } else {
                break;
            }
        }
        if self.phase == Phase::Starting && self.welcomed.len() == self.cells.len() {
            self.phase = Phase::Ready;
            self.outputs.push_back(Output::Ready);
        }
        if self.phase == Phase::Stopping && self.upstream.is_over() {
            self.phase = Phase::Stopped;
            self.outputs.push_back(Output::Stopped);
        }
    }

    fn serve(&mut self, now: Time, output: server::Output) {
        match output {
            server::Output::Send(connection, down) => self.outputs.push_back(Output::Send(connection, down)),
            server::Output::Close(connection) => self.outputs.push_back(Output::Close(connection)),
            server::Output::Admit(connection, session, hello) => self.admit(now, connection, session, &hello),
            server::Output::Request(session, request) => self.request(now, session, request),
            server::Output::Cancel(session, number) => self.cancel(now, session, number),
            server::Output::Settled(session, below) => self.note_settled(now, session, below),
            server::Output::Expired(session) => self.depart(now, session, EndCause::Failed),
            server::Output::Ended(session) => self.depart(now, session, EndCause::Closed),
            server::Output::Acknowledged(..) => {}
        }
    }

    fn hear(&mut self, now: Time, output: upstream::Output) {
        match output {
            upstream::Output::Connect(link, address) => {
                self.outputs.push_back(Output::Connect(link, address))
            }
            upstream::Output::Disconnect(link) => self.outputs.push_back(Output::Disconnect(link)),
            upstream::Output::Send(link, up) => self.outputs.push_back(Output::SendUp(link, up)),
            upstream::Output::Answered(ticket, answer) => self.answered(now, ticket, answer),
            upstream::Output::Event(cell, event) => {
                let cell = cell.expect("every session of a relay is at a cell");
                self.happened(now, &cell, &event);
                if event != Event::Extended {
                    self.outputs.push_back(Output::Noticed(cell, event));
                }
            }
        }
    }

    /// Lets everybody in, also sessions that were elsewhere before (`proxy-5`).
    fn admit(&mut self, now: Time, connection: ConnectionId, session: SessionId, hello: &Hello) {
        if self.phase >= Phase::Stopping {
            return self.server.refuse(connection, stopping());
        }
        self.server.admit(now, connection);
        if let Some(guest) = self.guests.remove(session) {
            self.footprints.insert(session, guest.footprint);
        }
        if hello.resume {
            self.claim(now, session);
        }
    }

    /// Tells the cells that the client speaks from here, before whoever spoke for it earlier takes its
    /// silence for its end (`proxy-4`).
    fn claim(&mut self, now: Time, session: SessionId) {
        let Some(holder) = self.server.holder(session).filter(|holder| holder.role == Role::Client) else {
            return;
        };
        let on_behalf = speak_for(session, holder.claim, &holder.principal, RequestNumber(0));
        self.ask_all(now, Purpose::Note, &Op::Claim, Some(&on_behalf));
    }

    /// A known session that comes back with more than the next claim has been elsewhere since.
    fn greeted(&mut self, now: Time, connection: ConnectionId, hello: Hello) {
        let session = hello.key.id();
        let claim_before = self.server.holder(session).map(|holder| holder.claim);
        let claim = hello.claim;
        self.server.received(now, connection, Up::Hello(hello));
        let is_back = claim_before.is_some_and(|before| claim > before.next());
        if is_back && self.server.holder(session).is_some_and(|holder| holder.claim == claim) {
            self.claim(now, session);
        }
    }

    fn request(&mut self, now: Time, session: SessionId, request: Request) {
        let Some(holder) = self.server.holder(session) else { return };
        let Request { number, settled_below, on_behalf, op } = request;
        if (on_behalf.is_some() || op.is_tier_only()) && !holder.role.is_tier() {
            let error = ErrorCode::PermissionDenied.because("only proxies and routers speak for others");
            return self.refuse(session, number, error);
        }
        if let Some(client) = on_behalf {
            return self.relay_for_guest(now, session, number, client, op);
        }
        match op {
            Op::Settle(_) => self.ask_all(now, Purpose::Part(session, number), &op, None),
            Op::EndClient(_) | Op::Claim => {
                self.refuse(session, number, ErrorCode::InvalidArgument.because("on whose behalf?"));
            }
            op => {
                let (claim, principal) = (holder.claim, holder.principal.clone());
                let client = OnBehalf { session, number, settled_below, claim, principal };
                let ticket = self.upstream.submit(now, op.clone(), Some(client));
                let cell = self.upstream.cell_of(ticket).cloned();
                if let Some(cell) = &cell {
                    self.footprints.entry(session).or_default().note(cell, &op);
                }
                self.flights.add(ticket, Purpose::Answer(session, number), cell);
            }
        }
    }

    /// A proxy asks for its client: passed on as it is.
    fn relay_for_guest(
        &mut self,
        now: Time,
        via: SessionId,
        number: RequestNumber,
        client: OnBehalf,
        op: Op,
    ) {
        if !self.guests.hear(via, &client) {
            let error = ErrorCode::SessionMoved.because("the client speaks through another proxy");
            return self.refuse(via, number, error);
        }
        if op.is_tier_only() {
            if matches!(op, Op::EndClient(_)) {
                self.guests.remove(client.session);
            }
            return self.ask_all(now, Purpose::Part(via, number), &op, Some(&client));
        }
        let ticket = self.upstream.submit(now, op.clone(), Some(client.clone()));
        let cell = self.upstream.cell_of(ticket).cloned();
        if let Some(cell) = &cell {
            self.footprints.entry(via).or_default().note_use(cell);
            self.guests.note(via, &client, cell, &op);
        }
        self.flights.add(ticket, Purpose::Answer(via, number), cell);
    }

    fn ask_all(&mut self, now: Time, purpose: Purpose, op: &Op, on_behalf: Option<&OnBehalf>) {
        for cell in self.cells.clone() {
            let ticket = self.upstream.submit_to(now, &cell, op.clone(), on_behalf.cloned());
            self.flights.add(ticket, purpose, Some(cell));
        }
    }

    fn refuse(&mut self, session: SessionId, number: RequestNumber, error: Error) {
        self.server.answer(session, Answer { number, position: None, result: Err(error) });
    }

    fn cancel(&mut self, now: Time, session: SessionId, number: RequestNumber) {
        if let Some(ticket) = self.flights.ticket(session, number) {
            self.upstream.cancel(now, ticket);
        }
    }

    fn answered(&mut self, now: Time, ticket: Ticket, answer: Answer) {
        match self.flights.land(ticket) {
            None | Some(Purpose::Note) => {}
            Some(Purpose::Answer(session, number)) => {
                let result = answer.result.map_err(|error| self.for_holder(session, error));
                self.server.answer(session, Answer { number, position: answer.position, result });
                self.send_departures(now, session);
            }
            Some(Purpose::Part(session, number)) => {
                if self.flights.is_last_part(session, number) {
                    // A cell that could not note it has lost what there was to note, or will by itself.
                    self.server.answer(session, Answer { number, position: None, result: Ok(Reply::Noted) });
                }
            }
        }
    }

    /// What an error means to the session that asked. That our own session at a cell is over is not its
    /// end; and a client that is heard here speaks from here, so a cell that does not take its claim will,
    /// once it has seen the end of whoever spoke for it before. In both cases it asks again with the same
    /// number, and what was done is not done twice (P-ONCE).
    fn for_holder(&self, session: SessionId, error: Error) -> Error {
        let is_client = self.server.holder(session).is_some_and(|holder| holder.role == Role::Client);
        match error.code {
            ErrorCode::SessionExpired => ErrorCode::Unavailable.because(error.detail),
            ErrorCode::SessionMoved if is_client => ErrorCode::Unavailable.because(error.detail),
            _ => error,
        }
    }

    fn happened(&mut self, now: Time, cell: &CellName, event: &Event) {
        match event {
            Event::Welcomed { .. } => {
                self.welcomed.insert(cell.clone());
            }
            Event::Expired(_) => self.lose(now, cell),
            Event::News(item) => self.pass_on(now, item),
            Event::Extended | Event::Jeopardy | Event::Safe | Event::Closed => {}
        }
        if self.phase < Phase::Stopping {
            let ceiling = nesting::ceiling(self.upstream.sessions(), MARGIN);
            self.server.set_ceiling(now, ceiling);
        }
    }

    /// The session at a cell is gone, and with it what was promised of that cell.
    fn lose(&mut self, now: Time, cell: &CellName) {
        for session in self.users_of(cell) {
            self.server.tell(now, session, News::CellLost { cell: cell.clone() });
        }
    }

    fn pass_on(&mut self, now: Time, item: &News) {
        let hearers = match item {
            News::FailOver { .. } => self.server.sessions().collect(),
            News::CellLost { cell } => self.users_of(cell),
        };
        for session in hearers {
            self.server.tell(now, session, item.clone());
        }
    }

    fn users_of(&self, cell: &CellName) -> Vec<SessionId> {
        self.footprints.iter().filter(|(_, print)| print.used(cell)).map(|(session, _)| *session).collect()
    }

    fn note_settled(&mut self, now: Time, session: SessionId, below: RequestNumber) {
        let wrote = self.footprints.get(&session).is_some_and(|print| !print.wrote().is_empty());
        if wrote {
            self.settling.note(session, below);
            self.settle_at.get_or_insert(now.max(self.settled_last + SETTLE_INTERVAL));
        }
    }

    fn send_settled(&mut self, now: Time) {
        (self.settle_at, self.settled_last) = (None, now);
        for (cell, batch) in self.settling.take_batches(&self.footprints, SETTLE_BATCH_MAX) {
            let ticket = self.upstream.submit_to(now, &cell, Op::Settle(batch), None);
            self.flights.add(ticket, Purpose::Note, Some(cell));
        }
    }

    /// A session has come to its end: nothing is asked for it any more, and the cells hear of it.
    fn depart(&mut self, now: Time, session: SessionId, cause: EndCause) {
        let Some(holder) = self.server.holder(session).cloned() else { return };
        self.server.forget(session);
        self.guests.orphan(now, session);
        let settled_below = self.settling.take(session).unwrap_or_default();
        let footprint = self.footprints.remove(&session).unwrap_or_default();
        let on_behalf = speak_for(session, holder.claim, &holder.principal, settled_below);
        for cell in footprint.wrote() {
            self.departures.add(cell, Departure { on_behalf: on_behalf.clone(), cause });
        }
        for ticket in self.flights.of(session).collect::<Vec<_>>() {
            self.upstream.cancel(now, ticket);
        }
        self.send_departures(now, session);
    }

    fn send_departures(&mut self, now: Time, session: SessionId) {
        for (cell, Departure { on_behalf, cause }) in self.departures.take_ready(session, &self.flights) {
            let ticket = self.upstream.submit_to(now, &cell, Op::EndClient(cause), Some(on_behalf));
            self.flights.add(ticket, Purpose::Note, Some(cell));
        }
    }

    fn end_orphans(&mut self, now: Time) {
        while let Some(guest) = self.guests.take_due(now) {
            let on_behalf = speak_for(guest.session, guest.claim, &guest.principal, RequestNumber(0));
            for cell in guest.footprint.wrote() {
                let op = Op::EndClient(EndCause::Failed);
                let ticket = self.upstream.submit_to(now, cell, op, Some(on_behalf.clone()));
                self.flights.add(ticket, Purpose::Note, Some(cell.clone()));
            }
        }
    }

    /// Walks everything. For tests.
    pub fn check_invariants(&self) {
        self.server.check_invariants();
        self.upstream.check_invariants();
        self.flights.check_invariants();
        assert!(self.settling.is_empty() || self.settle_at.is_some(), "marks would never go out");
    }
}

impl Core for RelayCore {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Connected(connection) => self.server.connected(connection),
            Input::Received(connection, Up::Hello(hello)) => self.greeted(now, connection, hello),
            Input::Received(connection, up) => self.server.received(now, connection, up),
            Input::Unreadable(connection, number, error) => {
                let answer = Answer { number, position: None, result: Err(error) };
                self.outputs.push_back(Output::Send(connection, Down::Answer(answer)));
            }
            Input::Malformed(connection, what) => {
                self.server
                    .refuse(connection, ErrorCode::InvalidArgument.because(format!("malformed {what}")));
            }
            Input::Disconnected(connection) => self.server.disconnected(connection),
            Input::LinkConnected(link) => self.upstream.connected(now, &link),
            Input::LinkReceived(link, down) => self.upstream.received(now, &link, down),
            Input::LinkDisconnected(link) => self.upstream.disconnected(now, &link),
            Input::Stop => self.stop(now),
        }
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Time) {
        self.upstream.handle_timeout(now);
        self.settle(now);
        self.server.handle_timeout(now);
        self.settle(now);
        self.end_orphans(now);
        if self.settle_at.is_some_and(|at| at <= now) {
            self.send_settled(now);
        }
        self.settle(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        let settle = self.settle_at.map(|at| (at, "marks of settled requests are due"));
        let orphan = self.guests.next_due().map(|at| (at, "a claim window is over"));
        [self.server.poll_timeout(), self.upstream.poll_timeout(), settle, orphan]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}

fn stopping() -> Error {
    ErrorCode::Unavailable.because("this host is stopping")
}
