//! A cell's master: what the replica that leads does besides replicating.
//!
//! It begins an epoch before it serves anything, keeps the sessions of proxies, routers and direct
//! clients, turns requests into answers or log entries, queues those who wait for a lock, and
//! decides by its clock what the log must learn: that a session ended, a lock-delay or a claim
//! window passed (`time-4`). All of it is soft state: a successor starts from the replicated
//! [`State`] alone.
//!
//! ```text
//! following -- elected --> beginning an epoch -- MasterEpoch applied --> serving
//!     ^------------------ deposed, or another epoch seen ------------------'
//! ```
//!
//! [`MasterCore`] composes: `lease` says until when reads may be answered, `requests` what a request
//! means, `proposals` what goes into which log entry, `waiting` who is next at a lock, `timers` what
//! has to be logged when.

mod lease;
mod proposals;
mod requests;
#[cfg(test)]
mod tests;
mod timers;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Epoch, RequestNumber, SessionId};
use hasp_proto::lease::{Ceiling, LeaseEnds, LeaseTerms};
use hasp_proto::limits::LEASE_MAX;
use hasp_proto::machine::Core;
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, EndCause, Op, Reply, Request};
use hasp_proto::server::{self, ConnectionId, ServerCore};
use hasp_proto::stream::{Down, Hello, News, Up};
use hasp_proto::time::Time;

use crate::state::{AppliedOutcome, Command, CreateSession, Genesis, LogEntry, Outcome, State, Write};

pub use lease::MasterLease;
pub use proposals::BatchId;
use proposals::{Proposals, Purpose};
use requests::{Actor, Decision};
use timers::{Timer, Timers};
use waiting::{Queues, Waiter};

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
}

/// What a master wants done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send this on the connection.
    Send(ConnectionId, Down),
    /// Close the connection once everything sent before is out.
    Close(ConnectionId),
    /// Append this entry to the log, after all that were proposed before it.
    Propose(BatchId, LogEntry),
}

/// The machine. See the module's documentation.
#[derive(Debug)]
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
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Following { leader: Option<u64> },
    Beginning,
    Serving,
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
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Whether clients are served.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Whether this replica leads but does not serve yet.
    pub fn is_beginning(&self) -> bool {
        self.phase == Phase::Beginning
    }

    /// The epoch that is served, or the last one known.
    pub fn epoch(&self) -> Epoch {
        self.state.epoch()
    }

    /// Counters of the session side.
    pub fn stats(&self) -> server::Stats {
        self.server.stats()
    }

    /// Sessions that stand.
    pub fn session_count(&self) -> usize {
        self.server.session_count()
    }

    /// Where the proxies and routers with a session here can be reached, sorted.
    pub fn tier_addresses(&self) -> Vec<String> {
        let advertised: BTreeSet<_> = self
            .server
            .sessions()
            .filter_map(|id| self.server.holder(id))
            .filter(|holder| holder.role.is_tier() && !holder.advertise.is_empty())
            .map(|holder| holder.advertise.clone())
            .collect();
        advertised.into_iter().collect()
    }

    /// Where the master is, if that is known.
    pub fn master_address(&self) -> Option<String> {
        let id = match self.phase {
            Phase::Following { leader } => leader?,
            Phase::Beginning | Phase::Serving => self.config.replica,
        };
        self.config.addresses.get(&id).cloned()
    }

    /// The cell's name.
    pub fn cell(&self) -> &CellName {
        &self.config.cell
    }

    /// The partition map: its rules are those that the cell began with, its addresses those that
    /// this replica was configured with.
    pub fn map(&self) -> PartitionMap {
        let rules = self.state.genesis().map_or(&self.config.map, |genesis| &genesis.map);
        let mut map = rules.clone();
        map.cells.clone_from(&self.config.map.cells);
        map
    }

    fn not_master(&self) -> Error {
        let detail = match self.phase {
            Phase::Following { .. } => "this replica is not the master",
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
        self.server.speak_as_master(self.config.cell.clone(), self.state.epoch());
        self.set_ceiling(now);
        // The predecessor may have promised leases of the greatest length until just now.
        let promised = LeaseEnds { session: now + LEASE_MAX, cache: now + LEASE_MAX };
        let sessions: Vec<_> = self
            .state
            .sessions()
            .map(|(id, record)| (id, requests::holder_of(&self.state, id, record)))
            .collect();
        let news = News::FailOver { cell: self.config.cell.clone(), epoch: self.state.epoch() };
        for (id, holder) in sessions {
            self.server.adopt(id, holder, promised);
            self.server.tell(now, id, news.clone());
        }
        self.timers.start_all(now, &self.state);
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
        self.lease.lose();
    }

    fn set_ceiling(&mut self, now: Time) {
        let ceiling =
            if self.is_serving() && self.lease.holds(now) { Ceiling::Master } else { Ceiling::Closed };
        self.server.set_ceiling(now, ceiling);
    }

    fn quorum_acknowledged(&mut self, now: Time, sent: Time) {
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
                server::Output::Request(session, request) => self.request(now, session, request),
                server::Output::Cancel(session, number) => self.cancel(session, number),
                server::Output::Settled(session, below) => self.settle(now, session, below),
                server::Output::Expired(session) => self.session_over(session, EndCause::Failed),
                server::Output::Ended(session) => self.session_over(session, EndCause::Closed),
                server::Output::Acknowledged(..) => {}
            }
        }
    }

    fn admit(&mut self, connection: ConnectionId, id: SessionId, hello: Hello) {
        if !self.is_serving() {
            return self.server.refuse(connection, self.not_master());
        }
        if hello.resume && self.state.session(id).is_none() {
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
            let length = self.config.terms.lease;
            let ends = LeaseEnds { session: now + length, cache: now + length };
            self.server.adopt(id, requests::holder_of_hello(hello), ends);
        }
        self.server.admit(now, connection);
    }

    fn session_over(&mut self, session: SessionId, cause: EndCause) {
        self.queues.drop_speaker(session);
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

    // Requests.

    fn request(&mut self, now: Time, session: SessionId, request: Request) {
        let Some(holder) = self.server.holder(session) else { return };
        let number = request.number;
        let actor = match Actor::of(session, holder, &request) {
            Ok(actor) => actor,
            Err(error) => return self.answer(session, number, Err(error)),
        };
        if let Some(kept) = self.state.answered(actor.client, actor.number) {
            let AppliedOutcome { position, outcome } = kept.clone();
            let reply = requests::reply_of(&self.state, &actor, &request.op, outcome);
            return self.answer_at(position, session, number, reply);
        }
        let busy = self.proposals.is_busy(actor.client);
        match requests::decide(&self.state, &actor, &request.op, busy) {
            Decision::Refuse(error) => self.answer(session, number, Err(error)),
            Decision::Read(read) => {
                if self.lease.holds(now) {
                    let reply = read.answer(&self.state, &actor);
                    self.answer(session, number, reply);
                } else {
                    self.stalled.push_back((session, request));
                }
            }
            Decision::Write(write) => self.propose_write(session, actor, request, write),
            Decision::Lock(waiter) => self.lock(session, actor, request, waiter),
            Decision::Close { holder, needs_log } => {
                for waiter in self.queues.drop_handle(&holder, actor.client) {
                    let error = ErrorCode::Cancelled.because("the handle was closed");
                    self.answer(waiter.speaker, waiter.number, Err(error));
                }
                if needs_log {
                    self.propose_write(session, actor, request, Write::CloseHandle { holder });
                } else {
                    self.answer(session, number, Ok(Reply::Closed));
                }
            }
            Decision::EndClient(cause) => self.end_client(session, &actor, number, cause),
            Decision::Settle(marks) => {
                for (client, below) in marks {
                    self.settle(now, client, below);
                }
                self.answer(session, number, Ok(Reply::Noted));
            }
            Decision::Claim => self.claim_client(session, &actor, number),
        }
    }

    fn propose_write(&mut self, speaker: SessionId, actor: Actor, request: Request, write: Write) {
        let command = Command::ClientWrite(actor.write(write));
        let request = Box::new(request);
        self.proposals.add(command, Purpose::Request { speaker, actor, request });
    }

    fn propose_lock(&mut self, waiter: Waiter) {
        let command = Command::ClientWrite(waiter.actor.write(waiter.lock.write()));
        self.proposals.add(command, Purpose::Lock(Box::new(waiter)));
    }

    fn lock(&mut self, speaker: SessionId, actor: Actor, request: Request, lock: requests::LockRequest) {
        let is_queued = self.queues.has_waiters(&lock.holder.name);
        let is_held = lock.is_held(&self.state, actor.client);
        let waiter = self.queues.arrive(speaker, actor, request.number, lock);
        if !is_queued || is_held {
            self.propose_lock(waiter);
        } else if waiter.lock.waits {
            self.queues.push(waiter);
        } else {
            self.answer(speaker, waiter.number, Err(ErrorCode::LockHeld.because("others wait for the lock")));
        }
    }

    fn end_client(&mut self, session: SessionId, actor: &Actor, number: RequestNumber, cause: EndCause) {
        for waiter in self.queues.drop_client(actor.client) {
            let error = ErrorCode::Cancelled.because("the client is gone");
            self.answer(waiter.speaker, waiter.number, Err(error));
        }
        let (client, claim) = (actor.client, actor.claim);
        let command = Command::EndClient { session: client, via: session, claim, cause };
        self.proposals.add(command, Purpose::Word { speaker: session, number, client });
    }

    /// A client of which nothing is known, and nothing is about to be, need not be claimed.
    fn claim_client(&mut self, session: SessionId, actor: &Actor, number: RequestNumber) {
        let (client, claim) = (actor.client, actor.claim);
        if self.state.client(client).is_none() && !self.proposals.is_busy(client) {
            return self.answer(session, number, Ok(Reply::Noted));
        }
        let command = Command::ClaimClient { session: client, via: session, claim };
        self.proposals.add(command, Purpose::Word { speaker: session, number, client });
    }

    fn cancel(&mut self, session: SessionId, number: RequestNumber) {
        if self.queues.drop_request(session, number) {
            self.answer(session, number, Err(ErrorCode::Cancelled.because("by the caller")));
        }
    }

    fn answer(&mut self, session: SessionId, number: RequestNumber, result: Result<Reply, Error>) {
        self.answer_at(self.state.position(), session, number, result);
    }

    fn answer_at(
        &mut self,
        position: Position,
        session: SessionId,
        number: RequestNumber,
        result: Result<Reply, Error>,
    ) {
        self.server.answer(session, Answer { number, position: Some(position), result });
    }

    // The log.

    fn applied(&mut self, now: Time, batch: BatchId, outcomes: Vec<AppliedOutcome>, state: State) {
        self.state = state;
        let Some(purposes) = self.proposals.take(batch) else { return };
        assert_eq!(purposes.len(), outcomes.len(), "one outcome for each command");
        let mut touched = BTreeSet::new();
        for (purpose, applied) in purposes.into_iter().zip(outcomes) {
            if matches!(applied.outcome, Outcome::Rejected(_)) && purpose != Purpose::Epoch {
                // `fail-1`: another epoch has begun. Nothing that was promised under this one stands.
                self.deposed(None);
                return self.begin_epoch();
            }
            self.command_applied(now, purpose, applied, &mut touched);
        }
        for name in touched {
            self.pump(&name);
        }
    }

    fn command_applied(
        &mut self,
        now: Time,
        purpose: Purpose,
        applied: AppliedOutcome,
        touched: &mut BTreeSet<Name>,
    ) {
        let AppliedOutcome { position, outcome } = applied;
        match &outcome {
            Outcome::SessionEnded { unlocked } | Outcome::ClientEnded { unlocked } => {
                for name in unlocked {
                    self.timers.start_delays(now, &self.state, name);
                    touched.insert(name.clone());
                }
            }
            _ => {}
        }
        match purpose {
            Purpose::Epoch => self.epoch_began(now, &outcome),
            Purpose::Admission(connection, id, hello) => self.session_created(now, connection, id, &hello),
            Purpose::SessionEnd(session, _) => {
                self.server.forget(session);
                self.timers.start_claim_windows(now, &self.state);
            }
            Purpose::Word { speaker, number, .. } => {
                let result = match outcome {
                    Outcome::Failed(error) => Err(error),
                    _ => Ok(Reply::Noted),
                };
                self.answer_at(position, speaker, number, result);
            }
            Purpose::LockDelayEnd(name) => {
                touched.insert(name);
            }
            Purpose::Housekeeping => {}
            Purpose::Request { speaker, actor, request } => {
                if let Some(name) = self.lock_touched_by(&request.op) {
                    touched.insert(name);
                }
                let result = requests::reply_of(&self.state, &actor, &request.op, outcome);
                self.answer_at(position, speaker, request.number, result);
            }
            Purpose::Lock(waiter) => {
                touched.insert(waiter.lock.holder.name.clone());
                self.lock_tried(position, *waiter, outcome);
            }
        }
    }

    fn lock_tried(&mut self, position: Position, waiter: Waiter, outcome: Outcome) {
        let is_busy = matches!(outcome, Outcome::LockHeld | Outcome::LockDelayed { .. });
        if is_busy && waiter.lock.waits && self.server.holder(waiter.speaker).is_some() {
            return self.queues.put_back(waiter);
        }
        let result = requests::lock_reply_of(outcome);
        self.answer_at(position, waiter.speaker, waiter.number, result);
    }

    /// The node whose lock may have changed hands by this operation.
    fn lock_touched_by(&self, op: &Op) -> Option<Name> {
        match op {
            Op::Release(token) | Op::Close(token) | Op::Delete(token) => {
                Some(token.claimed_body()?.name).filter(|name| self.queues.has_waiters(name))
            }
            Op::Acquire(..)
            | Op::TryAcquire(..)
            | Op::Open(_)
            | Op::GetContentsAndStat(_)
            | Op::GetStat(_)
            | Op::ReadDir(_)
            | Op::SetContents { .. }
            | Op::EndClient(_)
            | Op::Settle(_)
            | Op::Claim => None,
        }
    }

    /// Proposes the lock for those whose turn it is.
    fn pump(&mut self, name: &Name) {
        let (ready, stale) = self.queues.next(name, self.state.node(name));
        for waiter in stale {
            let error = ErrorCode::StaleHandle.because(format!("{name} was deleted"));
            self.answer(waiter.speaker, waiter.number, Err(error));
        }
        for waiter in ready {
            self.propose_lock(waiter);
        }
    }

    fn unknown(&mut self, batch: BatchId) {
        let Some(purposes) = self.proposals.take(batch) else { return };
        let unknown = || ErrorCode::Unavailable.because("the outcome is unknown");
        for purpose in purposes {
            match purpose {
                // `fail-3`: the holder asks again with the same number and learns the true result.
                Purpose::Request { speaker, request, .. } => {
                    self.answer(speaker, request.number, Err(unknown()))
                }
                Purpose::Lock(waiter) => {
                    self.answer(waiter.speaker, waiter.number, Err(unknown()));
                    self.pump(&waiter.lock.holder.name);
                }
                Purpose::Word { speaker, number, .. } => self.answer(speaker, number, Err(unknown())),
                Purpose::Admission(connection, ..) => self.server.refuse(connection, unknown()),
                Purpose::SessionEnd(session, cause) => self.session_over(session, cause),
                Purpose::Epoch => self.begin_epoch(),
                Purpose::LockDelayEnd(_) | Purpose::Housekeeping => {}
            }
        }
    }

    fn timer_due(&mut self, timer: Timer) {
        match timer {
            Timer::LockDelay { name, instance, began } => {
                let command = Command::EndLockDelay { name: name.clone(), instance, began };
                self.proposals.add(command, Purpose::LockDelayEnd(name));
            }
            Timer::ClaimWindow { session, orphaned_at } => {
                self.proposals.add(Command::OrphanEnd { session, orphaned_at }, Purpose::Housekeeping);
            }
            Timer::FlushSettled => self.flush_settled(),
        }
    }

    /// After every input: hands out what has come together.
    fn settle_outputs(&mut self, now: Time) {
        self.drain_server(now);
        // Marks ride along with a batch that is proposed anyway.
        if self.proposals.has_room() && self.proposals.has_queued() && !self.settled.is_empty() {
            self.flush_settled();
        }
        while let Some((batch, commands)) = self.proposals.next_batch() {
            let entry = LogEntry { epoch: self.state.epoch(), commands };
            self.outputs.push_back(Output::Propose(batch, entry));
        }
    }

    /// Walks everything. For tests.
    pub fn check_invariants(&self) {
        self.server.check_invariants();
        self.queues.check_invariants();
        if matches!(self.phase, Phase::Following { .. }) {
            assert_eq!(self.server.session_count(), 0, "only a master has sessions");
        }
    }
}

impl Core for MasterCore {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
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
        }
        self.settle_outputs(now);
    }

    fn handle_timeout(&mut self, now: Time) {
        if self.is_serving() && !self.lease.holds(now) {
            self.set_ceiling(now);
        } else {
            self.server.handle_timeout(now);
        }
        while let Some(timer) = self.timers.pop_due(now) {
            self.timer_due(timer);
        }
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
        [server, self.timers.next(), self.proposals.retry_at()]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}
