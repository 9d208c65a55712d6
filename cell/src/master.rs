//! A cell's master: what the replica that leads does besides replicating.
//!
//! It begins an epoch before it serves anything, keeps the sessions of proxies, routers and direct
//! clients, turns requests into answers or log entries, queues those who wait for a lock, and
//! decides by its clock what the log must learn: that a session ended, a lock-delay or a claim
//! window passed (`time-4`). All of it is soft state: a successor starts from the replicated
//! [`State`] alone.
//!
//! ```text
//! following -- elected --> beginning an epoch -- MasterEpoch applied --> serving -- told to --> stepping down
//!     ^------------------ deposed, or another epoch seen ------------------'                       |
//!     ^-------------------------------- deposed: another leads ------------------------------------'
//! ```
//!
//! [`MasterCore`] composes: `lease` says until when reads may be answered, `requests` what a request
//! means, `changes` what a command changes of what is cached, `proposals` what goes into which log
//! entry, `waiting` who is next at a lock, `subscriptions` who hears of what, `handles` and `absences`
//! what clients may not do too often, `vouches` how long other cells' ACLs are known, `timers` what has to be logged when,
//! `load` what is asked of which directory. What it does with them is in
//! `asking` (requests), `telling` (invalidations and events) and `applying` (outcomes).

mod absences;
mod applying;
mod asking;
mod changes;
mod chores;
mod handles;
mod lease;
mod load;
mod proposals;
mod requests;
mod subscriptions;
mod telling;
#[cfg(test)]
mod tests;
mod timers;
mod vouches;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hasp_proto::deadlines::Deadlines;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Epoch, Instance, RequestNumber, SessionId};
use hasp_proto::lease::{Ceiling, LeaseEnds, LeaseTerms};
use hasp_proto::limits::LEASE_MAX;
use hasp_proto::machine::Core;
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{EndCause, Request};
use hasp_proto::server::cachers::Cachers;
use hasp_proto::server::{self, ConnectionId, ServerCore};
use hasp_proto::stream::{Down, Hello, News, Up};
use hasp_proto::time::Time;
use hasp_proto::trace::TraceContext;

use crate::state::{AppliedOutcome, Command, CreateSession, Genesis, LogEntry, Outcome, State};

use absences::Absences;
use chores::Chores;
use handles::Handles;
pub use lease::MasterLease;
use load::Load;
pub use load::{Measured, Rates};
pub use proposals::BatchId;
use proposals::{Proposals, Purpose};
use subscriptions::Subscriptions;
use timers::Timers;
use vouches::Vouches;
use waiting::Queues;

/// What this replica is and what its cell will be, if it begins it.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// The cell's name.
    pub cell: CellName,
    /// This replica's Raft id.
    pub replica: u64,
    /// Raft id -> address that clients are sent to.
    pub addresses: BTreeMap<u64, String>,
    /// The partition map of a new cell.
    pub map: PartitionMap,
    /// The handle key of a new cell, 32 random bytes.
    pub handle_key: Bytes,
    /// How leases are granted.
    pub terms: LeaseTerms,
}

/// What can happen to a master.
#[derive(Debug)]
pub enum Input {
    /// A connection was opened.
    Connected(ConnectionId),
    /// Items came in on a connection, together and in this order.
    Received(ConnectionId, Vec<Up>),
    /// Something came in that can only be answered with an error.
    Unreadable(ConnectionId, RequestNumber, Error),
    /// A peer that does not speak the protocol.
    Broken(ConnectionId, Error),
    /// A connection is gone.
    Disconnected(ConnectionId),
    /// This replica leads, and this state has everything that was committed before.
    Elected(State),
    /// This replica does not lead (any more); who does, if known.
    Deposed(Option<u64>),
    /// A quorum acknowledged the leader's messages sent at this time or before.
    QuorumAcknowledged(Time),
    /// A proposed batch was applied, with one outcome for each command, in order; the state has it.
    Applied(BatchId, Vec<AppliedOutcome>, State),
    /// A proposed batch was not appended to the log, and never will be.
    NotProposed(BatchId),
    /// Nobody knows what became of a proposed batch.
    Unknown(BatchId),
    /// Serve nobody from here on: the leadership is about to be handed over. What is in the log's hands may still
    /// come to its end; wait for [`MasterCore::has_nothing_proposed`], not for long, and end with `Deposed`.
    StepDown,
}

/// What a master wants done.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all outputs are of the large one")]
pub enum Output {
    /// Send this on the connection.
    Send(ConnectionId, Down),
    /// Close the connection once everything sent before is out.
    Close(ConnectionId),
    /// The batch that is proposed next is for these requests, among others. For those who follow them.
    Traced(BatchId, Vec<TraceContext>),
    /// Append this entry to the log, after all that were proposed before it.
    Propose(BatchId, LogEntry),
}

/// Counts at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasterStatus {
    /// Clients are served.
    pub is_serving: bool,
    /// That is served, or the last one known.
    pub epoch: Epoch,
    /// Sessions that stand.
    pub sessions: usize,
    /// Counters of the session side.
    pub stats: server::Stats,
    /// Requests that wait for locks.
    pub lock_waits: usize,
    /// Rounds of invalidations that are not finished.
    pub rounds: usize,
    /// Rounds begun since the start.
    pub rounds_begun: u64,
}

/// The machine. See the module's documentation.
#[derive(Clone, Debug)]
pub struct MasterCore {
    config: MasterConfig,
    state: State,
    phase: Phase,
    lease: MasterLease,
    server: ServerCore,
    proposals: Proposals,
    queues: Queues,
    timers: Timers,
    /// Reads that came while the master lease was not sure.
    stalled: VecDeque<(SessionId, Request)>,
    /// Marks of settled answers that go into the log with the next batch.
    settled: BTreeMap<SessionId, RequestNumber>,
    /// Who may cache what, and the rounds of invalidations.
    cachers: Cachers,
    /// Sessions that are over while they may still believe in a cache lease: until then their copies
    /// count.
    fading: Deadlines<SessionId>,
    rounds: u64,
    subscriptions: Subscriptions,
    handles: Handles,
    absences: Absences,
    /// Until when routers' word on ACLs of other cells stands.
    vouches: Vouches,
    /// What was left behind between cells.
    chores: Chores,
    load: Load,
    /// Opens of absent files that are looked at again then, in the order of their coming.
    postponed: BTreeMap<(Time, u64), (SessionId, Request)>,
    postponed_ever: u64,
    /// Index of the last command whose events were told, or had been before this mastership.
    told_up_to: u64,
    /// `Pack`s on their way through the log: what leaves by them may be cached by nobody any more.
    packing: usize,
    /// Ephemeral nodes whose end is on its way through the log.
    reaping: BTreeSet<(Name, Instance)>,
    /// When something was last taken in.
    now: Time,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Following { leader: Option<u64> },
    Beginning,
    Serving,
    SteppingDown,
}

impl MasterCore {
    /// A replica that does not lead. `election_timeout_max` is the promise that followers make to a
    /// leader: to elect nobody else for that long.
    pub fn new(config: MasterConfig, election_timeout_max: Duration) -> Self {
        Self {
            state: State::default(),
            phase: Phase::Following { leader: None },
            lease: MasterLease::new(election_timeout_max),
            server: ServerCore::new(config.terms),
            proposals: Proposals::default(),
            queues: Queues::default(),
            timers: Timers::default(),
            stalled: VecDeque::new(),
            settled: BTreeMap::new(),
            cachers: Cachers::default(),
            fading: Deadlines::default(),
            rounds: 0,
            subscriptions: Subscriptions::default(),
            handles: Handles::default(),
            absences: Absences::default(),
            vouches: Vouches::default(),
            chores: Chores::default(),
            load: Load::default(),
            postponed: BTreeMap::new(),
            postponed_ever: 0,
            told_up_to: 0,
            packing: 0,
            reaping: BTreeSet::new(),
            now: Time::ZERO,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Whether clients are served.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Whether a read would be answered at this time.
    #[cfg(test)]
    pub(crate) fn answers_reads(&self, now: Time) -> bool {
        self.is_serving() && self.lease.would_hold(now)
    }

    /// Whether this replica leads but does not serve yet.
    pub fn is_beginning(&self) -> bool {
        self.phase == Phase::Beginning
    }

    /// The epoch that is served, or the last one known.
    pub fn epoch(&self) -> Epoch {
        self.state.epoch()
    }

    /// Counts for reports.
    pub fn status(&self) -> MasterStatus {
        MasterStatus {
            is_serving: self.is_serving(),
            epoch: self.epoch(),
            sessions: self.session_count(),
            stats: self.stats(),
            lock_waits: self.queues.len(),
            rounds: self.cachers.rounds(),
            rounds_begun: self.rounds,
        }
    }

    /// Counters of the session side.
    pub fn stats(&self) -> server::Stats {
        self.server.stats()
    }

    /// What was asked of which directories over the last seconds.
    pub fn load(&self, now: Time) -> Measured {
        self.load.measured(now)
    }

    /// Sessions that stand.
    pub fn session_count(&self) -> usize {
        self.server.session_count()
    }

    /// Where the proxies and routers with a session here can be reached, sorted.
    pub fn tier_addresses(&self) -> Vec<String> {
        self.server.tier_addresses()
    }

    /// Where the master is, if that is known.
    pub fn master_address(&self) -> Option<String> {
        let id = match self.phase {
            Phase::Following { leader } => leader?,
            Phase::SteppingDown => return None,
            Phase::Beginning | Phase::Serving => self.config.replica,
        };
        self.config.addresses.get(&id).cloned()
    }

    /// The cell's name.
    pub fn cell(&self) -> &CellName {
        &self.config.cell
    }

    /// The partition map: its rules are those that the cell goes by, its addresses those that this replica was
    /// configured with.
    pub fn map(&self) -> PartitionMap {
        let rules = if self.state.genesis().is_some() { self.state.map() } else { &self.config.map };
        rules.with_cells(&self.config.map.cells)
    }

    fn not_master(&self) -> Error {
        let detail = match self.phase {
            Phase::Following { .. } => "this replica is not the master",
            Phase::SteppingDown => "this replica hands its mastership over",
            Phase::Beginning | Phase::Serving => "this replica is about to become the master",
        };
        ErrorCode::NotMaster { hint: self.master_address() }.because(detail)
    }

    // Mastership.

    fn elected(&mut self, state: State) {
        // Another mastership may have been in between without having been told of.
        self.deposed(None);
        self.state = state;
        self.begin_epoch();
    }

    /// `fail-2`: nothing is served before this entry is applied.
    fn begin_epoch(&mut self) {
        self.phase = Phase::Beginning;
        let genesis = self.state.genesis().is_none().then(|| Genesis {
            cell: self.config.cell.clone(),
            map: self.config.map.clone(),
            handle_key: HandleKey::new(self.config.handle_key.clone()),
        });
        let command = Command::MasterEpoch { replica: self.config.replica, genesis };
        self.proposals.add(command, Purpose::Epoch);
    }

    fn epoch_began(&mut self, now: Time, outcome: &Outcome) {
        let ours = matches!(outcome, Outcome::EpochBegun(epoch) if *epoch == self.state.epoch());
        if !ours {
            return self.begin_epoch();
        }
        self.phase = Phase::Serving;
        self.load = Load::since(now);
        self.told_up_to = self.state.index();
        let genesis = self.state.genesis().expect("an epoch that began has a genesis");
        let key = genesis.handle_key.clone();
        self.server.speak_as_master(self.config.cell.clone(), self.state.epoch(), key);
        // The predecessor may have promised leases of the greatest length until just now.
        let lease_max = self.state.lease_max();
        self.server.set_lease_max(lease_max);
        self.set_ceiling(now);
        let promised = LeaseEnds { session: now + lease_max, cache: now + lease_max };
        let sessions: Vec<_> = self
            .state
            .sessions()
            .map(|(id, record)| (id, requests::holder_of(&self.state, id, record)))
            .collect();
        let news = News::FailOver { cell: self.config.cell.clone(), epoch: self.state.epoch() };
        for (id, holder) in sessions {
            self.server.adopt(id, holder, promised);
            // It may have cached anything, of which nothing is known here.
            if let Some(told) = self.server.tell(now, id, news.clone()) {
                self.cachers.suspect(id, told);
            }
        }
        self.timers.start_all(now, &self.state);
        self.reap_abandoned();
        self.chores.look(now, self.state.chores());
    }

    fn deposed(&mut self, leader: Option<u64>) {
        let was = std::mem::replace(&mut self.phase, Phase::Following { leader });
        if matches!(was, Phase::Following { .. }) {
            return;
        }
        let error = self.not_master();
        self.server.stop(&error);
        self.proposals = self.proposals.restarted();
        self.queues = Queues::default();
        self.timers = Timers::default();
        self.stalled.clear();
        self.settled.clear();
        self.cachers = Cachers::default();
        self.fading = Deadlines::default();
        self.subscriptions = Subscriptions::default();
        self.handles = Handles::default();
        self.absences = Absences::default();
        self.vouches = Vouches::default();
        self.chores = Chores::default();
        self.load = Load::default();
        self.postponed.clear();
        self.packing = 0;
        self.reaping.clear();
        self.lease.lose();
    }

    /// The master lease is given up for good before anything else: whoever takes over need not wait for it.
    fn step_down(&mut self, now: Time) {
        match self.phase {
            Phase::Following { .. } | Phase::SteppingDown => {}
            Phase::Beginning => self.deposed(None),
            Phase::Serving => {
                self.phase = Phase::SteppingDown;
                self.lease.lose();
                self.set_ceiling(now);
            }
        }
    }

    /// Whether everything that was given to the log has come to its end.
    pub fn has_nothing_proposed(&self) -> bool {
        !self.proposals.has_any()
    }

    fn set_ceiling(&mut self, now: Time) {
        let ceiling =
            if self.is_serving() && self.lease.holds(now) { Ceiling::Master } else { Ceiling::Closed };
        self.server.set_ceiling(now, ceiling);
    }

    fn quorum_acknowledged(&mut self, now: Time, sent: Time) {
        if self.phase == Phase::SteppingDown {
            return;
        }
        self.lease.extend(sent);
        if self.is_serving() {
            self.set_ceiling(now);
            if self.lease.holds(now) {
                for (session, request) in std::mem::take(&mut self.stalled) {
                    self.request(now, session, request);
                }
            }
        }
    }

    // Sessions.

    fn drain_server(&mut self, now: Time) {
        while let Some(output) = self.server.poll_output() {
            match output {
                server::Output::Send(connection, down) => {
                    self.outputs.push_back(Output::Send(connection, down))
                }
                server::Output::Close(connection) => self.outputs.push_back(Output::Close(connection)),
                server::Output::Admit(connection, id, hello) => self.admit(connection, id, hello),
                // Its holder asks the next master, with the same number.
                server::Output::Request(..) if self.phase == Phase::SteppingDown => {}
                server::Output::Request(session, request) => self.request(now, session, request),
                server::Output::Cancel(session, number) => self.cancel(session, number),
                server::Output::Settled(session, below) => self.settle(now, session, below),
                server::Output::Expired(session) => self.session_over(session, EndCause::Failed),
                server::Output::Ended(session) => self.session_over(session, EndCause::Closed),
                server::Output::Acknowledged(session, sequence) => self.acknowledged(session, sequence),
                server::Output::CacheLeaseOver(session) => self.holds_nothing(session),
                server::Output::WantsLease(lease) => {
                    self.proposals.add(Command::RaiseLeaseMax(lease), Purpose::LeaseMax);
                }
            }
        }
    }

    fn admit(&mut self, connection: ConnectionId, id: SessionId, hello: Hello) {
        if !self.is_serving() {
            return self.server.refuse(connection, self.not_master());
        }
        if hello.known_since.is_some() && self.state.session(id).is_none() {
            let error = ErrorCode::SessionExpired.because("the cell does not know the session any more");
            return self.server.refuse(connection, error);
        }
        let command = Command::CreateSession(CreateSession {
            session: id,
            role: hello.role,
            principal: hello.principal.clone(),
            advertise: hello.advertise.clone(),
            claim: hello.claim,
        });
        self.proposals.add(command, Purpose::Admission(connection, id, Box::new(hello)));
    }

    /// The session is in the log: it must run out some day even if its connection is gone by now.
    fn session_created(&mut self, now: Time, connection: ConnectionId, id: SessionId, hello: &Hello) {
        if self.server.holder(id).is_none() {
            let length = self.config.terms.lease.max(hello.lease_left.min(LEASE_MAX));
            let ends = LeaseEnds { session: now + length, cache: now + length };
            self.server.adopt(id, requests::holder_of_hello(hello), ends);
        }
        self.server.admit(now, connection);
    }

    fn session_over(&mut self, session: SessionId, cause: EndCause) {
        self.queues.drop_speaker(session);
        self.fade(session, cause);
        self.subscriptions.forget_speaker(session);
        self.handles.forget(session);
        self.vouches.forget(session);
        self.chores.forget(session);
        self.proposals.add(Command::EndSession { session, cause }, Purpose::SessionEnd(session, cause));
    }

    fn settle(&mut self, now: Time, client: SessionId, below: RequestNumber) {
        let is_news = self.state.client(client).is_some_and(|record| record.settled_below < below);
        if is_news {
            let mark = self.settled.entry(client).or_default();
            *mark = (*mark).max(below);
            self.timers.flush_settled_soon(now);
        }
    }

    fn flush_settled(&mut self) {
        if !self.settled.is_empty() {
            let marks = std::mem::take(&mut self.settled).into_iter().collect();
            self.proposals.add(Command::Settle(marks), Purpose::Housekeeping);
        }
        self.timers.settled_flushed();
    }

    /// After every input: hands out what has come together.
    fn settle_outputs(&mut self, now: Time) {
        self.drain_server(now);
        // Marks ride along with a batch that is proposed anyway.
        if self.proposals.has_room() && self.proposals.has_queued() && !self.settled.is_empty() {
            self.flush_settled();
        }
        while let Some((batch, mut commands)) = self.proposals.next_batch() {
            // Some have waited until nobody caches what they change: what was said of ACLs may stand no longer.
            for write in commands.iter_mut().filter_map(Command::as_client_write) {
                if let (Some(speaker), Some(evidence)) = (write.via, &mut write.evidence)
                    && !self.vouches.stand(speaker, now)
                {
                    evidence.memberships.clear();
                }
            }
            let entry = LogEntry { epoch: self.state.epoch(), commands };
            let traces = self.proposals.traces_of(batch);
            if !traces.is_empty() {
                self.outputs.push_back(Output::Traced(batch, traces));
            }
            self.outputs.push_back(Output::Propose(batch, entry));
        }
    }

    /// Walks everything. For tests.
    pub fn check_invariants(&self) {
        self.server.check_invariants();
        self.queues.check_invariants();
        self.cachers.check_invariants();
        self.subscriptions.check_invariants();
        if matches!(self.phase, Phase::Following { .. }) {
            assert_eq!(self.server.session_count(), 0, "only a master has sessions");
        }
    }
}

impl Core for MasterCore {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        self.now = now;
        match input {
            Input::Connected(connection) => self.server.connected(connection),
            Input::Received(connection, items) => {
                for up in items {
                    self.server.received(now, connection, up);
                }
            }
            Input::Unreadable(connection, number, error) => {
                self.server.answer_unreadable(connection, number, error)
            }
            Input::Broken(connection, error) => self.server.refuse(connection, error),
            Input::Disconnected(connection) => self.server.disconnected(connection),
            Input::Elected(state) => self.elected(state),
            Input::Deposed(leader) => self.deposed(leader),
            Input::QuorumAcknowledged(sent) => self.quorum_acknowledged(now, sent),
            Input::Applied(batch, outcomes, state) => self.applied(now, batch, outcomes, state),
            Input::NotProposed(batch) => self.proposals.put_back(now, batch),
            Input::Unknown(batch) => self.unknown(batch),
            Input::StepDown => self.step_down(now),
        }
        self.settle_outputs(now);
    }

    fn handle_timeout(&mut self, now: Time) {
        self.now = now;
        if self.phase != Phase::SteppingDown {
            if self.is_serving() && !self.lease.holds(now) {
                self.set_ceiling(now);
            } else {
                self.server.handle_timeout(now);
            }
        }
        while let Some(timer) = self.timers.pop_due(now) {
            self.timer_due(timer);
        }
        while let Some(session) = self.fading.pop_due(now) {
            self.holds_nothing(session);
        }
        self.take_up_postponed(now);
        self.hand_out_chores(now);
        self.proposals.resume(now);
        self.settle_outputs(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        // Without a master lease nothing is granted and nobody runs out: the next acknowledgement
        // of a quorum, or the end of the mastership, is what moves things on.
        let server = self.server.poll_timeout().filter(|_| !self.lease.is_lost());
        let postponed =
            self.postponed.keys().next().map(|(at, _)| (*at, "an absent file is looked for again"));
        let chores = self.chores.next_due().map(|at| (at, "something was left behind between cells"));
        let fading = self.fading.first().map(|at| (at, "the cache lease of a session that is over ends"));
        [server, self.timers.next(), self.proposals.retry_at(), postponed, fading, chores]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}
