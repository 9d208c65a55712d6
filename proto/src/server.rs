//! The granting end of sessions: what a master, a proxy and a router do for those that hold
//! sessions with them. All three own this one machine, so they cannot drift apart.
//!
//! It decides who may speak on which connection, when leases are granted and when a session has
//! run out, which requests are new, and what must still be told and acknowledged. What a request
//! means, and whether a session may be created, is its owner's business: it hears
//! [`Output::Request`] and [`Output::Admit`] and comes back with [`ServerCore::answer`] and
//! [`ServerCore::admit`].
//!
//! ```text
//! connection:  connected -- Hello --> admitting -- admit --> speaking -- lost, refused --> gone
//! session:     live -- lease over --> ending (Expired) -- forget --> gone
//!              live -- EndSession --> ending (Ended)   -- forget --> gone
//! ```

pub mod cachers;
mod news;
mod session;
mod stretch;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::deadlines::Deadlines;
use crate::error::{Error, ErrorCode};
use crate::event::NodeEvent;
use crate::handle::HandleKey;
use crate::id::{CellName, Epoch, RequestNumber, Sequence, SessionId};
use crate::lease::{Ceiling, LeaseEnds, LeaseLengths, LeaseTerms};
use crate::limits::{PROTOCOL, REQUESTS_IN_FLIGHT_PER_CLIENT, REQUESTS_IN_FLIGHT_PER_TIER};
use crate::request::{Answer, Request};
use crate::stream::{Down, Hello, KeepAlive, News, Role, Up, Welcome};
use crate::time::Time;

use news::EventRoom;
use session::Session;
use stretch::{Arrivals, Stretch};

/// A connection to this host; the shell numbers them and never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the owner is asked or told, and what the shell has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this on the connection.
    Send(ConnectionId, Down),
    /// Close the connection once everything sent before is out.
    Close(ConnectionId),
    /// A session wants in that is unknown here, or may have been elsewhere since: `admit` or `refuse` the connection.
    Admit(ConnectionId, SessionId, Hello),
    /// A request that is not being worked on yet: `answer` it.
    Request(SessionId, Request),
    /// The holder no longer waits for this request; it still has to be answered.
    Cancel(SessionId, RequestNumber),
    /// The holder has the answers of all its requests below.
    Settled(SessionId, RequestNumber),
    /// The session's lease is over: free what hangs on it as failed, then `forget` it.
    Expired(SessionId),
    /// Its holder ended the session: free what hangs on it as closed, then `forget` it.
    Ended(SessionId),
    /// A session has dealt with this piece of news.
    Acknowledged(SessionId, Sequence),
    /// A session's cache lease ended while it had news to acknowledge: whatever it had cached is void,
    /// and it gets no other cache lease until it has acknowledged (`cache-1`, `ka-3`).
    CacheLeaseOver(SessionId),
    /// More is to be granted than may be: raise the bound with [`ServerCore::set_lease_max`] (`lease-5`).
    WantsLease(Duration),
}

/// Counters since the start, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// KeepAlives received.
    pub keepalives: u64,
    /// Requests received.
    pub requests: u64,
    /// Sessions whose lease ran out.
    pub expired: u64,
}

/// The machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct ServerCore {
    terms: LeaseTerms,
    /// How far terms may be stretched (`ka-4`).
    lease_max: Duration,
    stretch: Stretch,
    arrivals: Arrivals,
    ceiling: Ceiling,
    master_of: Option<(CellName, Epoch)>,
    handle_keys: BTreeMap<CellName, HandleKey>,
    /// Session leases of proxies and routers, if they are others than those of applications.
    tier_lease: Option<Duration>,
    sessions: BTreeMap<SessionId, Session>,
    connections: BTreeMap<ConnectionId, Connection>,
    deadlines: Deadlines<SessionId>,
    /// Sessions with a KeepAlive that is due but could not be answered under the ceiling.
    waiting: BTreeSet<SessionId>,
    outputs: VecDeque<Output>,
    stats: Stats,
}

#[derive(Clone, Debug)]
enum Connection {
    /// Nothing has been said.
    Silent,
    /// Its Hello waits for the owner.
    Admitting { hello: Box<Hello>, received: Time },
    /// It speaks for a session.
    Speaking(SessionId),
}

impl ServerCore {
    /// A host that grants nothing until it is given a ceiling.
    pub fn new(terms: LeaseTerms) -> Self {
        Self {
            terms,
            lease_max: terms.lease,
            stretch: Stretch::default(),
            arrivals: Arrivals::default(),
            ceiling: Ceiling::Closed,
            master_of: None,
            handle_keys: BTreeMap::new(),
            tier_lease: None,
            sessions: BTreeMap::new(),
            connections: BTreeMap::new(),
            deadlines: Deadlines::default(),
            waiting: BTreeSet::new(),
            outputs: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// What every Welcome says of this host: the cell and epoch of a master, and to proxies and routers
    /// the key of its handles.
    pub fn speak_as_master(&mut self, cell: CellName, epoch: Epoch, handle_key: HandleKey) {
        self.handle_keys = BTreeMap::from([(cell.clone(), handle_key)]);
        self.master_of = Some((cell, epoch));
    }

    /// The key of a cell above, which Welcomes tell to proxies and routers from here on.
    pub fn pass_on_key(&mut self, cell: CellName, handle_key: HandleKey) {
        self.handle_keys.insert(cell, handle_key);
    }

    /// Grants proxies and routers session leases of this length, as far as the ceiling reaches: what they grant ends
    /// before (`lease-2`), and their cache leases, which others wait for, are not longer for that.
    pub fn set_tier_lease(&mut self, lease: Duration) {
        self.tier_lease = Some(lease);
    }

    /// No lease longer than this is granted (`lease-5`).
    pub fn set_lease_max(&mut self, lease_max: Duration) {
        self.lease_max = lease_max;
    }

    /// The lease that is granted at the moment, when nothing else bounds it (`ka-4`).
    pub fn lease(&self) -> Duration {
        self.stretch.lease(self.terms.lease, self.sessions.len()).min(self.lease_max)
    }

    /// Whether the session may cache what it is told now: it has a cache lease and a connection.
    pub fn may_cache(&self, now: Time, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.may_cache(now))
    }

    /// When the session's cache lease ends, by this host's clock; also while the session is ending.
    pub fn cache_end(&self, session: SessionId) -> Option<Time> {
        self.sessions.get(&session).map(Session::cache_end)
    }

    /// Counters.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Sessions that stand, connected or not.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    /// How many sessions stand.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Who holds a session, and as whom.
    pub fn holder(&self, session: SessionId) -> Option<&Holder> {
        self.sessions.get(&session).map(|session| &session.holder)
    }

    /// Where the proxies and routers with a session here can be reached, sorted.
    pub fn tier_addresses(&self) -> Vec<String> {
        let tiers = self.sessions.values().map(|session| &session.holder);
        let tiers = tiers.filter(|holder| holder.role.is_tier() && !holder.advertise.is_empty());
        let advertised: BTreeSet<_> = tiers.map(|holder| holder.advertise.clone()).collect();
        advertised.into_iter().collect()
    }

    /// A connection was opened.
    pub fn connected(&mut self, connection: ConnectionId) {
        let fresh = self.connections.insert(connection, Connection::Silent).is_none();
        assert!(fresh, "connection numbers are never used twice");
    }

    /// A connection is gone. Its session stands until its lease ends.
    pub fn disconnected(&mut self, connection: ConnectionId) {
        let Some(Connection::Speaking(id)) = self.connections.remove(&connection) else { return };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.lost(connection);
            self.postpone(id);
        }
    }

    /// Takes in one item from a connection. Items from connections that were refused are dropped.
    pub fn received(&mut self, now: Time, connection: ConnectionId, up: Up) {
        match (self.connections.get(&connection), up) {
            (None, _) => {}
            (Some(Connection::Silent), Up::Hello(hello)) => self.hello(now, connection, hello),
            (Some(Connection::Speaking(id)), up) => {
                let id = *id;
                self.spoken(now, connection, id, up);
            }
            (Some(Connection::Silent | Connection::Admitting { .. }), _) => {
                self.refuse(
                    connection,
                    ErrorCode::InvalidArgument.because("a session begins with one Hello"),
                );
            }
        }
    }

    /// Ends a connection, with a reason. Its session, if it has one, stands.
    pub fn refuse(&mut self, connection: ConnectionId, error: Error) {
        if self.connections.contains_key(&connection) {
            self.outputs.push_back(Output::Send(connection, Down::Refused(error)));
            self.outputs.push_back(Output::Close(connection));
            self.disconnected(connection);
        }
    }

    /// The owner lets the session in that `connection` asked for. Nothing happens if the connection
    /// is gone by now.
    pub fn admit(&mut self, now: Time, connection: ConnectionId) {
        self.admit_without(now, connection, Vec::new());
    }

    /// As [`admit`](Self::admit), and tells its holder with the Welcome what it has lost.
    pub fn admit_without(&mut self, now: Time, connection: ConnectionId, lost_cells: Vec<CellName>) {
        let Some(Connection::Admitting { hello, received }) = self.connections.get(&connection) else {
            return;
        };
        let (hello, received) = ((**hello).clone(), *received);
        let id = hello.key.id();
        match self.sessions.get(&id) {
            Some(session) if session.ending || session.expelled.is_some() => {
                let error = session.expelled.clone().unwrap_or_else(over);
                return self.refuse(connection, error);
            }
            Some(session) if hello.claim < session.holder.claim => return self.refuse(connection, moved()),
            Some(_) | None => {}
        }
        self.sessions
            .entry(id)
            .or_insert_with(|| Session::new(id, holder_of(&hello), LeaseEnds::default(), self.terms.lease));
        self.welcome(now, connection, id, &hello, received, Known::Not { lost_cells });
    }

    /// Takes over a session from a predecessor, which may have promised it leases until `ends`.
    pub fn adopt(&mut self, id: SessionId, holder: Holder, ends: LeaseEnds) {
        self.sessions.insert(id, Session::new(id, holder, ends, self.terms.lease));
        self.postpone(id);
    }

    /// Answers a request of a session. Dropped if the session or its connection is gone: the holder
    /// asks again with the same number.
    pub fn answer(&mut self, id: SessionId, answer: Answer) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.in_flight.remove(&answer.number)
            && let Some(connection) = session.connection
        {
            self.outputs.push_back(Output::Send(connection, Down::Answer(answer)));
        }
    }

    /// Answers a request that could not be read any further than its number.
    pub fn answer_unreadable(&mut self, connection: ConnectionId, number: RequestNumber, error: Error) {
        self.stats.requests += 1;
        if let Some(Connection::Speaking(_)) = self.connections.get(&connection) {
            self.send(connection, Down::Answer(Answer::plain(number, Err(error))));
        }
    }

    /// Tells a session something that it must acknowledge, under the number that is returned; `None` if
    /// there is no such session, or it has left so much unacknowledged that this ends it.
    pub fn tell(&mut self, now: Time, id: SessionId, item: News) -> Option<Sequence> {
        let session = self.sessions.get_mut(&id).filter(|session| !session.ending)?;
        let Some(sequence) = session.news.push(now, item.clone()) else {
            let error = ErrorCode::SessionExpired.because("too much news left unacknowledged");
            self.expire(id, error);
            return None;
        };
        if let Some(connection) = session.connection {
            self.outputs.push_back(Output::Send(connection, Down::News { sequence, item }));
        }
        self.schedule(now, id);
        Some(sequence)
    }

    /// Tells a session of an event, or, if it has not acknowledged many others, that there are some it
    /// is not told of: a slow reader costs its host no more than that.
    pub fn tell_event(&mut self, now: Time, id: SessionId, event: NodeEvent) {
        let Some(session) = self.sessions.get(&id) else { return };
        match session.news.room_for_event() {
            EventRoom::Free => self.tell(now, id, News::Event(event)),
            EventRoom::Full => self.tell(now, id, News::EventsLost { cell: None }),
            EventRoom::Told => None,
        };
    }

    /// Tells a session that it is not told of all events, unless that was said and is not acknowledged.
    pub fn tell_events_lost(&mut self, now: Time, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        if session.news.room_for_event() != EventRoom::Told {
            self.tell(now, id, News::EventsLost { cell: None });
        }
    }

    /// Tells the holder of a session that it is over, whenever it comes, and lets it run out: what the holder was
    /// promised stands until it has heard that or its lease is over (P-LEASE).
    pub fn expel(&mut self, id: SessionId, error: Error) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.ending) else { return };
        session.expelled = Some(error.clone());
        if let Some(connection) = session.connection {
            self.refuse(connection, error);
        }
    }

    /// The session was let keep something of what it is told: its cache lease is extended in time (`ka-5`).
    pub fn note_keeps(&mut self, now: Time, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.keeps) {
            session.keeps = true;
            self.schedule(now, id);
        }
    }

    /// Has the holder of a session come again, and let in by the owner: what speaks for it above has changed. What it
    /// was promised stands.
    pub fn turn_out(&mut self, id: SessionId, error: Error) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.ending) else { return };
        session.is_turned_out = true;
        if let Some(connection) = session.connection {
            self.refuse(connection, error);
        }
    }

    /// Sets how far leases may be granted from here on, and answers what had to wait for it.
    pub fn set_ceiling(&mut self, now: Time, ceiling: Ceiling) {
        if self.ceiling == Ceiling::Closed {
            self.stretch.excused(now);
        }
        self.ceiling = ceiling;
        for id in std::mem::take(&mut self.waiting) {
            self.try_answer_keep_alive(now, id);
            self.schedule(now, id);
        }
    }

    /// The owner is done with a session that ended.
    pub fn forget(&mut self, id: SessionId) {
        self.deadlines.set(id, None);
        self.waiting.remove(&id);
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(connection) = session.connection {
            self.outputs.push_back(Output::Close(connection));
            self.connections.remove(&connection);
        }
    }

    /// Ends every connection with this reason and forgets every session: mastership is lost.
    pub fn stop(&mut self, error: &Error) {
        let connections: Vec<_> = self.connections.keys().copied().collect();
        for connection in connections {
            self.refuse(connection, error.clone());
        }
        self.sessions.clear();
        self.deadlines = Deadlines::default();
        self.waiting.clear();
        self.ceiling = Ceiling::Closed;
        self.master_of = None;
        self.handle_keys.clear();
        self.stretch = Stretch::default();
        self.lease_max = self.terms.lease;
    }

    /// Answers due KeepAlives and ends sessions whose lease is over.
    pub fn handle_timeout(&mut self, now: Time) {
        if let Some(due) = self.deadlines.first()
            && self.ceiling != Ceiling::Closed
        {
            self.stretch.woke(now, due);
        }
        while let Some(id) = self.deadlines.pop_due(now) {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if session.is_over(now) {
                self.expire(id, ErrorCode::SessionExpired.because("the session's lease ran out"));
                continue;
            }
            if session.lapses(now) {
                self.outputs.push_back(Output::CacheLeaseOver(id));
            }
            self.try_answer_keep_alive(now, id);
            self.schedule(now, id);
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`ServerCore::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        self.deadlines.first().map(|at| (at, "a KeepAlive is due or a session runs out"))
    }

    fn hello(&mut self, now: Time, connection: ConnectionId, hello: Hello) {
        if hello.protocol != PROTOCOL {
            let detail = format!("this host speaks version {PROTOCOL}, not {}", hello.protocol);
            return self.refuse(connection, ErrorCode::InvalidArgument.because(detail));
        }
        let id = hello.key.id();
        match self.sessions.get(&id) {
            Some(session) if session.ending || session.expelled.is_some() => {
                let error = session.expelled.clone().unwrap_or_else(over);
                self.refuse(connection, error);
            }
            Some(session) if hello.claim < session.holder.claim => self.refuse(connection, moved()),
            Some(session) if session.is_continued_by(&hello) => {
                self.welcome(now, connection, id, &hello, now, Known::Since);
            }
            // Unknown, or a gap in its claims: it may have been with another host meanwhile, whose leave to cache
            // nobody here knows of, which numbered its news in its own way, and which may still speak for it. Or it
            // has not heard yet that it was welcomed here, and believes what it was told before that.
            Some(_) | None => {
                let waiting = Connection::Admitting { hello: Box::new(hello.clone()), received: now };
                self.connections.insert(connection, waiting);
                self.outputs.push_back(Output::Admit(connection, id, hello));
            }
        }
    }

    fn welcome(
        &mut self,
        now: Time,
        connection: ConnectionId,
        id: SessionId,
        hello: &Hello,
        received: Time,
        known: Known,
    ) {
        let (resumed, lost_cells) = match known {
            Known::Since => (true, Vec::new()),
            Known::Not { lost_cells } => (false, lost_cells),
        };
        if !resumed && hello.known_since.is_some() {
            self.arrivals.one(now);
        }
        let lengths = self.granting(now, hello.role);
        let session = self.sessions.get_mut(&id).expect("known or just made");
        if !resumed {
            session.drop_events();
        }
        let Some(grant) = session.first_grant(now, received, lengths, self.ceiling) else {
            if session.never_granted() {
                self.sessions.remove(&id);
            }
            let error = ErrorCode::Unavailable.because("no lease can be granted at the moment");
            return self.refuse(connection, error);
        };
        let displaced = session.speak_on(received, connection, hello, resumed);
        session.keeps = hello.role.is_tier() || (session.keeps && resumed);
        self.waiting.remove(&id);
        self.connections.insert(connection, Connection::Speaking(id));
        let master_of = self.master_of.clone();
        let handle_keys = if hello.role.is_tier() { self.handle_keys.clone() } else { BTreeMap::new() };
        let handle_keys = handle_keys.into_iter().collect();
        let session = id;
        let welcome = Welcome { session, resumed, grant, master_of, handle_keys, lost_cells };
        self.send(connection, Down::Welcome(welcome));
        let unacknowledged: Vec<_> = self.sessions[&id].news.unacknowledged().collect();
        for (sequence, item) in unacknowledged {
            self.send(connection, Down::News { sequence, item });
        }
        if let Some(old) = displaced {
            self.refuse(old, moved());
        }
        self.schedule(now, id);
    }

    fn spoken(&mut self, now: Time, connection: ConnectionId, id: SessionId, up: Up) {
        match up {
            Up::Hello(_) => {
                self.refuse(
                    connection,
                    ErrorCode::InvalidArgument.because("a session begins with one Hello"),
                );
            }
            Up::Request(request) => self.request(id, request),
            Up::KeepAlive(keep_alive) => self.keep_alive(now, id, keep_alive),
            Up::Acknowledge(sequence) => self.acknowledge(id, sequence),
            Up::Cancel(number) => {
                if self.sessions.get(&id).is_some_and(|session| session.in_flight.contains(&number)) {
                    self.outputs.push_back(Output::Cancel(id, number));
                }
            }
            Up::EndSession => self.end(id),
        }
    }

    fn request(&mut self, id: SessionId, request: Request) {
        self.stats.requests += 1;
        self.settled(id, request.settled_below);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let number = request.number;
        if session.in_flight.contains(&number) {
            return; // Asked again after a lost connection; the answer is on its way.
        }
        let limit = if session.holder.role.is_tier() {
            REQUESTS_IN_FLIGHT_PER_TIER
        } else {
            REQUESTS_IN_FLIGHT_PER_CLIENT
        };
        let over_limit = session.in_flight.len() >= limit;
        session.in_flight.insert(number);
        if over_limit {
            let code = ErrorCode::RateLimited { retry_after: Duration::from_millis(100) };
            let result = Err(code.because(format!("more than {limit} requests in flight")));
            return self.answer(id, Answer::plain(number, result));
        }
        self.outputs.push_back(Output::Request(id, request));
    }

    fn keep_alive(&mut self, now: Time, id: SessionId, keep_alive: KeepAlive) {
        self.stats.keepalives += 1;
        self.settled(id, keep_alive.settled_below);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.park(now, keep_alive.number);
        self.waiting.remove(&id);
        self.schedule(now, id);
    }

    fn settled(&mut self, id: SessionId, below: RequestNumber) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if below > session.settled_below {
            session.settled_below = below;
            self.outputs.push_back(Output::Settled(id, below));
        }
    }

    fn acknowledge(&mut self, id: SessionId, sequence: Sequence) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.acknowledge(sequence) {
            self.outputs.push_back(Output::Acknowledged(id, sequence));
            self.postpone(id);
        }
    }

    fn end(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.ending = true;
        self.postpone(id);
        self.outputs.push_back(Output::Ended(id));
    }

    /// No KeepAlive is taken from here on, so the lease cannot be extended and ended at once.
    fn expire(&mut self, id: SessionId, error: Error) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.ending = true;
        let connection = session.connection;
        self.stats.expired += 1;
        if let Some(connection) = connection {
            self.refuse(connection, error);
        }
        self.postpone(id);
        self.outputs.push_back(Output::Expired(id));
    }

    fn try_answer_keep_alive(&mut self, now: Time, id: SessionId) {
        let Some(role) = self.sessions.get(&id).map(|session| session.holder.role) else { return };
        let lengths = self.granting(now, role);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(connection) = session.connection else { return };
        if let Some((keep_alive, grant)) = session.answer_keep_alive(now, lengths, self.ceiling) {
            self.send(connection, Down::Lease { keep_alive, grant });
        } else if session.waits.is_some() {
            self.waiting.insert(id);
        }
    }

    /// What is granted at the moment; asks for more room if the load calls for it.
    fn granting(&mut self, now: Time, role: Role) -> LeaseLengths {
        let wanted = self.stretch.lease(self.terms.lease, self.sessions.len());
        if wanted > self.lease_max && self.stretch.should_ask(wanted) {
            self.outputs.push_back(Output::WantsLease(wanted));
        }
        let mut lengths = LeaseLengths::of(wanted.min(self.lease_max));
        // A master's leases are the cell's to stretch (`lease-5`).
        if matches!(self.ceiling, Ceiling::Upstream(_)) {
            lengths.session = lengths.session.max(self.arrivals.lease(now, self.terms.lease));
        }
        match self.tier_lease.filter(|_| role.is_tier()) {
            Some(lease) => LeaseLengths { session: lengths.session.max(lease), ..lengths },
            None => lengths,
        }
    }

    /// Sets when the session is to be looked at again: never before now, or what was due before anybody could know
    /// of it would pass for this host's lateness.
    fn schedule(&mut self, now: Time, id: SessionId) {
        self.deadlines.set(id, self.deadline(id).map(|at| at.max(now)));
    }

    /// The same when it can only be later than before.
    fn postpone(&mut self, id: SessionId) {
        let before = self.deadlines.get(id);
        self.deadlines.set(id, self.deadline(id).map(|at| before.map_or(at, |before| at.max(before))));
    }

    fn deadline(&self, id: SessionId) -> Option<Time> {
        self.sessions.get(&id).and_then(|session| session.deadline(self.ceiling))
    }

    fn send(&mut self, connection: ConnectionId, down: Down) {
        self.outputs.push_back(Output::Send(connection, down));
    }

    /// Walks everything. For tests.
    pub fn check_invariants(&self) {
        for (connection, state) in &self.connections {
            if let Connection::Speaking(id) = state {
                let session = self.sessions.get(id).expect("a speaking connection has a session");
                assert_eq!(session.connection, Some(*connection), "one connection speaks for a session");
            }
        }
        for (id, session) in &self.sessions {
            assert!(session.ending || session.deadline(self.ceiling).is_some(), "{id} can never run out");
            if let Some(connection) = session.connection {
                assert!(self.connections.contains_key(&connection), "{id} speaks on a closed connection");
            }
        }
    }
}

/// Who holds a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Application, proxy or router.
    pub role: Role,
    /// As whom it acts.
    pub principal: String,
    /// Where its clients reach a proxy or router.
    pub advertise: String,
    /// Which of its connections to hosts speaks (`proxy-4`).
    pub claim: crate::id::Claim,
    /// The first of its requests that can only have been asked here.
    pub first_request: RequestNumber,
}

/// Whether the holder of a session goes on with what it was told here.
enum Known {
    Since,
    /// It begins anew, and not with these cells.
    Not {
        lost_cells: Vec<CellName>,
    },
}

fn over() -> Error {
    ErrorCode::SessionExpired.because("the session is over")
}

fn moved() -> Error {
    ErrorCode::SessionMoved.because("a newer connection holds the session")
}

fn holder_of(hello: &Hello) -> Holder {
    Holder {
        role: hello.role,
        principal: hello.principal.clone(),
        advertise: hello.advertise.clone(),
        claim: hello.claim,
        first_request: hello.next_request,
    }
}
