//! A host that holds no state of the service: sessions of many clients below, one session at each
//! cell above, and requests passed on. A router is this; a proxy is this with a strict cache.
//!
//! It decides what the cells must hear of the clients (`proxy-1`, `proxy-2`), what the clients must
//! hear of the cells (`route-7`, P-EVENT), how far leases below may reach (`lease-1`, `lease-2`), what is
//! answered from its cache and what the clients may keep of it (`cache-4`, `cache-5`). What a session is,
//! what may be cached and where a request goes is decided by the machines it is made of.
//!
//! ```text
//! client's request:  received -- on behalf --> asked upstream -- answered --> answered
//!                        |---- cached -----------------------------------------> answered
//!                        '---- not a client's to ask, too many ----> refused
//! client's session:  begins, or was claimed --> admitted ... expired, ended --> requests cancelled --> EndClient --> gone
//! ```

mod above;
mod admissions;
mod asking;
mod caching;
mod counts;
mod departures;
mod flights;
mod footprints;
mod guests;
mod hits;
mod nesting;
mod quotas;
mod reads;
mod routes;
mod sources;
mod stopping;
mod subscriptions;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hasp_proto::client::cache::Cache;
use hasp_proto::client::{Ask, Event, Status};
use hasp_proto::deadlines::Deadlines;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Instance, RequestNumber, SessionId};
use hasp_proto::item::Item;
use hasp_proto::lease::{LeaseEnds, LeaseTerms};
use hasp_proto::limits::LEASE_MAX;
use hasp_proto::machine::Core;
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, EndCause, Op, Reply};
use hasp_proto::server::{self, ConnectionId, ServerCore};
use hasp_proto::stream::{Down, News, Role, Up, Welcome};
use hasp_proto::time::Time;

use crate::upstream::{self, LinkId, UpstreamConfig, UpstreamCore};
use above::Above;
use admissions::Admissions;
use counts::Counts;
use departures::{Departure, Departures, speak_for};
use flights::{Flights, Purpose};
use footprints::{Footprint, Settling};
use guests::Guests;
use hits::Movers;
use quotas::Quotas;
use reads::Reads;
use sources::Sources;
use stopping::Stop;
use subscriptions::Subscriptions;

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
    /// Its own sessions: at the cells of the map, or one at a host that has those.
    pub upstream: UpstreamConfig,
    /// Which cell owns which names.
    pub map: PartitionMap,
    /// What it grants to its clients, as far as its own leases reach.
    pub terms: LeaseTerms,
    /// About how many bytes it caches. `None`: it keeps nothing and lets nobody keep anything, as a router.
    pub cache_bytes: Option<usize>,
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
    /// Something happened to the session at a cell, or at the one host above. For the log.
    Noticed(Option<CellName>, Event),
    /// A cell was told that no copy is left of what it had taken back that long ago. For reports.
    FannedOut(Duration),
    /// What the concurrent view of the cache has to know, in order with everything else.
    Show(Show),
    /// Each cell has welcomed it once: clients can be sent here.
    Ready,
    /// It was told to stop, and its own sessions have ended.
    Stopped,
}

/// What those may go by that answer reads beside the machine: only what it has shown, and only until it
/// has shown that it is void. It does so before anybody above hears that no copy is left.
#[derive(Clone, Debug, PartialEq)]
pub enum Show {
    /// The key of a cell's handles.
    Key(CellName, HandleKey),
    /// Copies of what a cell said may be used until then (`lease-3`).
    Lease(CellName, Time),
    /// Copies of what that cell said are current as of this position.
    Seen(Position),
    /// What a cell says of a node to that principal.
    Copy {
        /// Which cell.
        cell: CellName,
        /// As whom it was read.
        principal: String,
        /// Of the node.
        name: Name,
        /// Of the node, which the handle was bound to.
        instance: Instance,
        /// `Contents`, `Stat` or `Children`.
        reply: Reply,
    },
    /// A connection speaks for the session of an application.
    Speaks {
        /// Which connection.
        connection: ConnectionId,
        /// Whose.
        session: SessionId,
        /// As whom.
        principal: String,
        /// It was never elsewhere, so nothing can be too old for it (P-MONO).
        is_new: bool,
    },
    /// The session was shown something of that cell through this host that is as new as what it may have
    /// seen elsewhere.
    CaughtUp(SessionId, CellName),
    /// A connection speaks for nobody any more.
    Silent(ConnectionId),
    /// Nothing of these items may be used any more.
    Void(Vec<Item>),
    /// Nothing that this cell said may be used any more.
    VoidCell(CellName),
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
    /// Requests answered from the cache by the machine, since the start.
    pub hits: u64,
    /// Reads that could have been answered from the cache and were not, since the start.
    pub misses: u64,
    /// Items that cells took back, since the start.
    pub invalidations: u64,
    /// Names that had to make room in the cache, since the start.
    pub evictions: u64,
    /// Sessions of clients that came from another host, since the start.
    pub sessions_taken_over: u64,
    /// Sessions of clients that a cell had ended, since the start.
    pub sessions_expelled: u64,
    /// Reads that wait for one that others asked.
    pub reads_shared: usize,
    /// About how many bytes are cached.
    pub cache_bytes: usize,
    /// Items that sessions of clients may cache, once for each session.
    pub registrations: usize,
    /// Invalidations and the like that cells told and that are not acknowledged yet.
    pub rounds: usize,
    /// Invalidations that cells told since the start, of any number of items.
    pub upstream_invalidations: u64,
}

/// The machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct RelayCore {
    server: ServerCore,
    upstream: UpstreamCore,
    above: Above,
    welcomed: BTreeSet<CellName>,
    flights: Flights,
    footprints: BTreeMap<SessionId, Footprint>,
    settling: Settling,
    settle_at: Option<Time>,
    settled_last: Time,
    departures: Departures,
    guests: Guests,
    admissions: Admissions,
    /// When it was made.
    started: Time,
    sources: Sources,
    cache: Cache,
    /// Whether it keeps anything.
    keeps: bool,
    reads: Reads,
    movers: Movers,
    /// Cells that names have moved to since it was made, each with those they came from.
    moved: BTreeMap<CellName, BTreeSet<CellName>>,
    /// Sessions that are over without having said so, until the end of the cache lease they may believe in.
    fading: Deadlines<SessionId>,
    subscriptions: Subscriptions,
    quotas: Quotas,
    hits: u64,
    counts: Counts,
    stop: Stop,
    phase: Phase,
    outputs: VecDeque<Output>,
}

impl RelayCore {
    /// A host that begins its sessions upstream at once, and grants nothing until one stands.
    ///
    /// # Panics
    /// If it is to hold sessions with cells of another map, or there is none.
    pub fn new(now: Time, config: RelayCoreConfig) -> Self {
        let above = Above::new(config.map, &config.upstream.hosts);
        let mut server = ServerCore::new(config.terms);
        server.set_tier_lease(LEASE_MAX);
        Self {
            server,
            sources: above.cells().iter().map(|cell| (cell.clone(), Default::default())).collect(),
            cache: Cache::new(config.cache_bytes.unwrap_or(0)),
            keeps: config.cache_bytes.is_some(),
            reads: Reads::default(),
            movers: Movers::default(),
            moved: BTreeMap::new(),
            fading: Deadlines::default(),
            subscriptions: Subscriptions::default(),
            quotas: Quotas::default(),
            hits: 0,
            counts: Counts::default(),
            stop: Stop::No,
            upstream: UpstreamCore::new(now, config.upstream),
            above,
            welcomed: BTreeSet::new(),
            flights: Flights::default(),
            footprints: BTreeMap::new(),
            settling: Settling::default(),
            settle_at: None,
            settled_last: Time::ZERO,
            departures: Departures::default(),
            guests: Guests::default(),
            admissions: Admissions::default(),
            started: now,
            phase: Phase::Starting,
            outputs: VecDeque::new(),
        }
    }

    /// The map that it routes by.
    pub fn map(&self) -> &PartitionMap {
        self.above.map()
    }

    /// Its own sessions, to be looked at.
    pub const fn upstream(&self) -> &UpstreamCore {
        &self.upstream
    }

    /// Ends of the leases at each cell where a session stands.
    pub fn lease_ends(&self) -> Vec<(CellName, LeaseEnds)> {
        let stands = |held: &upstream::Held<'_>| matches!(held.status, Status::Safe | Status::Jeopardy);
        let held = self.upstream.sessions().filter(stands);
        // A session with the one host above is one with every cell.
        let of = |held: upstream::Held<'_>| match held.cell {
            Some(cell) => vec![(cell.clone(), held.ends)],
            None => self.above.cells().iter().map(|cell| (cell.clone(), held.ends)).collect(),
        };
        held.flat_map(of).collect()
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
            hits: self.hits,
            misses: self.counts.misses,
            invalidations: self.counts.invalidations,
            evictions: self.counts.evictions,
            sessions_taken_over: self.counts.taken_over,
            sessions_expelled: self.counts.expelled,
            reads_shared: self.reads.len(),
            cache_bytes: self.cache.bytes(),
            registrations: self.sources.values().map(|source| source.cachers.registrations()).sum(),
            rounds: self.sources.values().map(|source| source.rounds()).sum(),
            upstream_invalidations: self.counts.upstream_invalidations,
        }
    }

    /// Where the proxies and routers with a session here can be reached, sorted.
    pub fn tier_addresses(&self) -> Vec<String> {
        self.server.tier_addresses()
    }

    /// Carries out what the parts want of one another, until they want nothing more.
    fn settle(&mut self, now: Time) {
        loop {
            // What happened upstream comes first: what is asked after it must not be taken for before.
            if let Some(output) = self.upstream.poll_output() {
                self.hear(now, output);
            } else if let Some(output) = self.server.poll_output() {
                self.serve(now, output);
            } else if self.stop_goes_on(now) {
                continue;
            } else {
                break;
            }
        }
        if self.phase == Phase::Starting && self.welcomed.len() == self.above.cells().len() {
            self.phase = Phase::Ready;
            self.outputs.push_back(Output::Ready);
        }
        if self.phase == Phase::Stopping && self.stop == Stop::Ending && self.upstream.is_over() {
            self.phase = Phase::Stopped;
            self.outputs.push_back(Output::Stopped);
        }
    }

    fn serve(&mut self, now: Time, output: server::Output) {
        match output {
            server::Output::Send(connection, down) => {
                if let Down::Welcome(Welcome { session, .. }) = &down {
                    self.show_speaker(connection, *session);
                }
                self.outputs.push_back(Output::Send(connection, down));
            }
            server::Output::Close(connection) => {
                self.outputs.push_back(Output::Show(Show::Silent(connection)));
                self.outputs.push_back(Output::Close(connection));
            }
            server::Output::Admit(connection, session, hello) => self.admit(now, connection, session, &hello),
            server::Output::Request(session, request) => self.request(now, session, request),
            server::Output::Cancel(session, number) => self.cancel(now, session, number),
            server::Output::Settled(session, below) => self.note_settled(now, session, below),
            server::Output::Expired(session) => self.depart(now, session, EndCause::Failed),
            server::Output::Ended(session) => self.depart(now, session, EndCause::Closed),
            server::Output::Acknowledged(session, sequence) => self.acknowledged(now, session, sequence),
            server::Output::CacheLeaseOver(session) => self.holds_nothing(now, session),
            // How far leases below reach is bound by those above; nobody has to agree to longer ones.
            server::Output::WantsLease(_) => self.server.set_lease_max(LEASE_MAX),
        }
    }

    fn show_speaker(&mut self, connection: ConnectionId, session: SessionId) {
        if let Some(holder) = self.server.holder(session).filter(|holder| holder.role == Role::Client) {
            let principal = holder.principal.clone();
            let is_new = !self.movers.is_mover(session);
            let speaks = Show::Speaks { connection, session, principal, is_new };
            self.outputs.push_back(Output::Show(speaks));
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
            upstream::Output::Routes(map) => self.routed_by(now, *map),
            upstream::Output::Event(cell, event) => {
                if is_notable(&event) {
                    self.outputs.push_back(Output::Noticed(cell.clone(), event.clone()));
                }
                match cell {
                    Some(cell) => self.happened(now, &cell, event),
                    None => self.happened_above(now, event),
                }
            }
        }
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
            self.ask_gate(now, cell, Purpose::Note, Op::Settle(batch).into());
        }
    }

    /// A session has come to its end: nothing is asked for it any more, and the cells hear of it.
    fn depart(&mut self, now: Time, session: SessionId, cause: EndCause) {
        let Some(holder) = self.server.holder(session).cloned() else { return };
        let cache_end = self.server.cache_end(session).unwrap_or_default();
        self.server.forget(session);
        match cause {
            EndCause::Closed => self.holds_nothing(now, session),
            EndCause::Failed => self.fade(now, session, cache_end),
        }
        self.guests.orphan(now, session);
        self.reads.forget(session);
        self.movers.forget(session);
        self.quotas.forget(session);
        // Not those that it has by now through a proxy.
        self.subscriptions.forget_speaker(session);
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
            let ask = Ask { on_behalf: Some(on_behalf), ..Op::EndClient(cause).into() };
            self.ask_gate(now, cell, Purpose::Note, ask);
        }
    }

    fn end_orphans(&mut self, now: Time) {
        while let Some(guest) = self.guests.take_due(now) {
            let on_behalf = speak_for(guest.session, guest.claim, &guest.principal, RequestNumber(0));
            self.subscriptions.forget_client(guest.session);
            for cell in guest.footprint.wrote() {
                let op = Op::EndClient(EndCause::Failed);
                let ask = Ask { on_behalf: Some(on_behalf.clone()), ..op.into() };
                self.ask_gate(now, cell.clone(), Purpose::Note, ask);
            }
        }
    }

    /// Walks everything. For tests.
    pub fn check_invariants(&self) {
        self.server.check_invariants();
        self.upstream.check_invariants();
        self.flights.check_invariants();
        self.reads.check_invariants();
        self.subscriptions.check_invariants();
        self.cache.check_invariants();
        self.sources.values().for_each(sources::Source::check_invariants);
        assert!(self.settling.is_empty() || self.settle_at.is_some(), "marks would never go out");
    }
}

impl Core for RelayCore {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Connected(connection) => self.server.connected(connection),
            Input::Received(connection, up) => self.server.received(now, connection, up),
            Input::Unreadable(connection, number, error) => {
                let answer = Answer::plain(number, Err(error));
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
        self.end_fading(now);
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
        let stop = self.stop_due().map(|at| (at, "clients have had their time to drop what they cached"));
        let faded = self.fading.first().map(|at| (at, "a cache lease of a session that is over ends"));
        [self.server.poll_timeout(), self.upstream.poll_timeout(), settle, orphan, faded, stop]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}

/// Whether somebody who reads the log should know of it.
fn is_notable(event: &Event) -> bool {
    match event {
        Event::News(_, News::FailOver { .. } | News::CellLost { .. }) => true,
        Event::News(_, News::Invalidate { .. } | News::Event(_) | News::EventsLost { .. }) => false,
        Event::Extended | Event::CacheLapsed => false,
        Event::CellLost(_)
        | Event::Welcomed { .. }
        | Event::Jeopardy
        | Event::Safe
        | Event::Expired(_)
        | Event::Closed => true,
    }
}
