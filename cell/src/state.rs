//! The replicated state of a cell: a pure function of its log.
//!
//! No clock, no randomness, no hash order, no I/O: the same entries give the same state, the same
//! outcomes and the same [`checksum`](State::checksum) on every replica. Everything that grows lives in
//! persistent maps, so a clone costs the same at any size: snapshots and the master's reads work on
//! clones while entries go on being applied.
//!
//! Here the parts are put together; each owns its fields and its rules: `tree` and `node` what is stored,
//! `lock` who holds what, `access` who may do what, `quotas` how much there may be, `system` the files that say so,
//! `sessions` and `clients` who may ask, `writes` and `ephemeral` what can be asked, `roots` and `crossing` what other
//! cells have a part in, `moving` what goes to and comes from them, `genesis` how a cell begins,
//! `divergence` whether replicas agree, `snapshot` and `codec` the bytes.

mod access;
mod clients;
mod codec;
mod command;
mod crossing;
mod divergence;
mod ephemeral;
mod genesis;
mod invariants;
mod lock;
mod moving;
mod node;
mod outcome;
mod quotas;
mod roots;
mod sessions;
mod snapshot;
mod system;
#[cfg(test)]
mod tests;
mod tree;
mod writes;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hasp_proto::error::ErrorCode;
use hasp_proto::id::{Claim, Epoch, Instance, RequestNumber, SessionId};
use hasp_proto::limits::{LEASE, LEASE_MAX};
use hasp_proto::name::Name;
use hasp_proto::position::Position;
use hasp_proto::request::EndCause;

pub use access::{Access, Refusal, Who, needs_a_router};
pub use clients::{ClientRecord, NodeHandle};
pub use codec::DecodeError;
pub use command::{ClientWrite, Command, Create, CreateSession, Genesis, Guard, Holder, LogEntry, Write};
pub use lock::{DelayMark, HolderId, Lock, MarkId};
pub use node::Node;
pub use outcome::{AppliedOutcome, Outcome, Rejection};
pub use roots::RootRecord;
pub use sessions::SessionRecord;
pub use snapshot::SnapshotError;

use clients::Clients;
use divergence::Note;
use moving::Moving;
use sessions::Sessions;
use system::System;
use tree::Tree;

/// The state of one cell after some prefix of its log; the default is the state before the first entry.
#[derive(Clone, Default)]
pub struct State {
    /// `None` until the first `MasterEpoch`.
    genesis: Option<Arc<Genesis>>,
    epoch: Epoch,
    master: Option<u64>,
    /// Commands applied, the rejected ones included.
    index: u64,
    /// The last instance number or generation given out.
    stamp: u64,
    /// The longest lease that was ever to be allowed; zero if none was.
    lease_max: Duration,
    tree: Tree,
    /// What files of the tree say.
    system: System,
    sessions: Sessions,
    clients: Clients,
    /// The map, and what is on its way between cells.
    moving: Moving,
    /// This replica's own, no part of the state.
    note: Option<Note>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            genesis,
            epoch,
            master,
            index,
            stamp,
            lease_max,
            tree,
            system,
            sessions,
            clients,
            moving,
            note: _,
        } = self;
        (genesis, epoch, master, index) == (&other.genesis, &other.epoch, &other.master, &other.index)
            && (stamp, lease_max) == (&other.stamp, &other.lease_max)
            && (tree, system) == (&other.tree, &other.system)
            && (sessions, clients) == (&other.sessions, &other.clients)
            && *moving == other.moving
    }
}

/// What the log does.
impl State {
    /// Applies one entry: one outcome for each command, in order.
    ///
    /// Every command counts towards [`index`](State::index), a rejected one too, so each has a position of its own.
    /// With its outcome comes that position, or, if it is a write asked again, that of the first time (P-ONCE).
    pub fn apply(&mut self, entry: &LogEntry) -> Vec<AppliedOutcome> {
        entry.commands.iter().map(|command| self.apply_command(entry.epoch, command)).collect()
    }

    fn apply_command(&mut self, epoch: Epoch, command: &Command) -> AppliedOutcome {
        self.index += 1;
        if epoch != self.epoch {
            return self.conclude(Outcome::Rejected(Rejection::WrongEpoch { current: self.epoch }));
        }
        if let Command::MasterEpoch { replica, genesis } = command {
            let outcome = self.begin_epoch(*replica, genesis.as_ref());
            return self.conclude(outcome);
        }
        if self.genesis.is_none() {
            return self.conclude(Outcome::Rejected(Rejection::NoGenesis));
        }
        let outcome = match command {
            Command::MasterEpoch { .. } => unreachable!("handled above"),
            Command::CreateSession(create) => self.create_session(create),
            Command::EndSession { session, cause } => self.end_session(*session, *cause),
            Command::ClientWrite(write) => return self.client_write(write),
            Command::EndClient { session, via, claim, cause } => {
                self.end_client(*session, *via, *claim, *cause)
            }
            Command::ClaimClient { session, via, claim } => self.claim_client(*session, *via, *claim),
            Command::Settle(clients) => self.settle(clients),
            Command::EndLockDelay { name, instance, began } => self.end_lock_delay(name, *instance, *began),
            Command::OrphanEnd { session, orphaned_at } => self.orphan_end(*session, *orphaned_at),
            Command::Forget { since } => {
                // What is packed may come back, and whose it is with it.
                if !self.has_packed() {
                    self.clients.forget(*since);
                }
                Outcome::Noted
            }
            Command::Reap { name, instance } => self.reap(name, *instance),
            Command::Cross(op) => self.cross(op),
            Command::RaiseLeaseMax(lease_max) => self.raise_lease_max(*lease_max),
            Command::TakeChecksum => self.take_checksum(),
            Command::CompareChecksum { index, checksum } => self.compare_checksum(*index, *checksum),
        };
        self.conclude(outcome)
    }

    /// What came of the command that is being applied, with its own position.
    fn conclude(&self, outcome: Outcome) -> AppliedOutcome {
        AppliedOutcome { position: self.position(), outcome }
    }

    fn begin_epoch(&mut self, replica: u64, genesis: Option<&Genesis>) -> Outcome {
        if self.genesis.is_none() {
            let Some(genesis) = genesis else {
                return Outcome::Rejected(Rejection::NoGenesis);
            };
            genesis::plant(genesis, &mut self.tree, &mut self.stamp);
            self.system = System::read_all(genesis, &self.tree).expect("what was just planted is good");
            self.genesis = Some(Arc::new(genesis.clone()));
            self.moving = Moving::begun(genesis);
        }
        self.epoch = self.epoch.next();
        self.master = Some(replica);
        Outcome::EpochBegun(self.epoch)
    }

    fn create_session(&mut self, create: &CreateSession) -> Outcome {
        let CreateSession { session, role, principal, advertise, claim } = create;
        if self.clients.has_ended(*session) {
            return Outcome::failed(ErrorCode::SessionExpired, "the session is over");
        }
        let existed = self.sessions.contains(*session);
        if !existed {
            let (principal, advertise) = (principal.clone(), advertise.clone());
            let record = SessionRecord { role: *role, principal, advertise, created_at: self.index };
            self.sessions.insert(*session, record);
        }
        self.clients.attach_own(*session, *claim, principal);
        self.tidy(*session);
        Outcome::SessionCreated { existed }
    }

    /// Ends a session. Its own locks go with it, unless its client has moved behind a proxy; the clients
    /// that spoke through it are orphaned whatever the cause, since they will come back through another.
    fn end_session(&mut self, session: SessionId, cause: EndCause) -> Outcome {
        self.sessions.remove(session);
        let is_own = self.clients.get(session).is_some_and(|record| record.via.is_none());
        let unlocked = if is_own { self.end(session, cause) } else { Vec::new() };
        self.tidy(session);
        for client in self.clients.orphan(session, self.index) {
            self.tidy(client);
        }
        Outcome::SessionEnded { unlocked }
    }

    fn end_client(&mut self, session: SessionId, via: SessionId, claim: Claim, cause: EndCause) -> Outcome {
        if !self.speaker_stands(session, Some(via)) {
            return writes::expired(session, Some(via));
        }
        if self.clients.get(session).is_none() {
            return Outcome::ClientEnded { unlocked: Vec::new() };
        }
        if let Err(refusal) = self.clients.claim(session, via, claim) {
            return refusal.into();
        }
        let unlocked = self.end(session, cause);
        self.tidy(session);
        Outcome::ClientEnded { unlocked }
    }

    fn claim_client(&mut self, session: SessionId, via: SessionId, claim: Claim) -> Outcome {
        if !self.speaker_stands(session, Some(via)) {
            return writes::expired(session, Some(via));
        }
        if let Err(refusal) = self.clients.claim(session, via, claim) {
            return refusal.into();
        }
        self.tidy(session);
        Outcome::Noted
    }

    fn orphan_end(&mut self, session: SessionId, orphaned_at: u64) -> Outcome {
        let is_still = |record: &ClientRecord| record.orphaned_at == Some(orphaned_at) && !record.is_idle();
        if !self.clients.get(session).is_some_and(is_still) {
            return Outcome::Noted;
        }
        let unlocked = self.end(session, EndCause::Failed);
        self.tidy(session);
        Outcome::ClientEnded { unlocked }
    }

    fn settle(&mut self, clients: &[(SessionId, RequestNumber)]) -> Outcome {
        for (session, below) in clients {
            self.clients.settle(*session, *below);
            self.tidy(*session);
        }
        Outcome::Noted
    }

    fn end_lock_delay(&mut self, name: &Name, instance: Instance, began: u64) -> Outcome {
        if let Some(node) = self.tree.get_mut(name, instance)
            && node.lock.end_delay(began)
        {
            self.tree.note_delays(name);
        }
        Outcome::Noted
    }

    /// No lease is ever longer than the limit, whatever a master asks for.
    fn raise_lease_max(&mut self, lease_max: Duration) -> Outcome {
        self.lease_max = self.lease_max.max(lease_max.min(LEASE_MAX));
        Outcome::Noted
    }

    /// Ends a client and takes everything off it: its answers, its handles on ephemeral nodes, and its locks, which
    /// are free at once or after their lock-delay. Names of the nodes unlocked, in order, each once.
    fn end(&mut self, session: SessionId, cause: EndCause) -> Vec<Name> {
        let mut unlocked = Vec::new();
        let (locks, opens) = self.clients.end(session);
        for NodeHandle { name, instance, opened_by } in locks {
            let node =
                self.tree.get_mut(&name, instance).expect("locks are listed only on nodes that are there");
            let holder = HolderId { session, opened_by };
            match cause {
                EndCause::Closed => node.lock.release(holder),
                EndCause::Failed => node.lock.lose(holder, self.index),
            };
            self.tree.note_delays(&name);
            unlocked.push(name);
        }
        unlocked.dedup();
        for handle in opens {
            self.take_off_record(session, &handle);
        }
        unlocked
    }

    /// Lets what is known of a client linger if nothing hangs on it any more (`proxy-1`).
    fn tidy(&mut self, session: SessionId) {
        let has_own_session = self.sessions.contains(session);
        self.clients.tidy(session, has_own_session, self.index);
    }

    /// Whether whoever speaks for the client has a session that may.
    fn speaker_stands(&self, session: SessionId, via: Option<SessionId>) -> bool {
        via.map_or_else(|| self.sessions.contains(session), |proxy| self.sessions.is_tier(proxy))
    }
}

/// What the master reads.
impl State {
    /// What the cell is; `None` before its first `MasterEpoch`.
    pub fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_deref()
    }

    /// The current mastership; 0 before the first.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Raft id of the replica that began the current mastership.
    pub fn master(&self) -> Option<u64> {
        self.master
    }

    /// How many commands have been applied, the rejected ones included.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Where in the cell's history this state is.
    pub fn position(&self) -> Position {
        let cell = self.genesis().map(|genesis| genesis.cell.clone()).unwrap_or_default();
        Position { cell, epoch: self.epoch, index: self.index }
    }

    /// The node of this name.
    pub fn node(&self, name: &Name) -> Option<&Node> {
        self.tree.get(name)
    }

    /// The children of a directory in this cell, by name; those of a root record too.
    pub fn children(&self, directory: &Name) -> impl Iterator<Item = (&Name, &Node)> + use<'_> {
        self.tree.children(directory)
    }

    /// Whether the directory has a child in this cell.
    pub fn has_children(&self, directory: &Name) -> bool {
        self.children(directory).next().is_some()
    }

    /// All nodes, parents before their children, those of one directory side by side.
    pub fn nodes(&self) -> impl Iterator<Item = (&Name, &Node)> {
        self.tree.iter()
    }

    /// How many nodes the cell holds.
    pub fn node_count(&self) -> usize {
        self.tree.len()
    }

    /// A session that the master grants.
    pub fn session(&self, session: SessionId) -> Option<&SessionRecord> {
        self.sessions.get(session)
    }

    /// All sessions that the master grants, by id.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &SessionRecord)> {
        self.sessions.iter()
    }

    /// What is known of a client: of one with a session here always something, of one behind a proxy
    /// only while it holds locks or has answers to its name, and for a while after that.
    pub fn client(&self, session: SessionId) -> Option<&ClientRecord> {
        self.clients.get(session)
    }

    /// All clients that are known, by session.
    pub fn clients(&self) -> impl Iterator<Item = (SessionId, &ClientRecord)> {
        self.clients.iter()
    }

    /// The clients whose claim window the master must time, each with the index of the command that
    /// orphaned it, by session. Walks all clients: for a new master and after an `EndSession`.
    pub fn orphans(&self) -> impl Iterator<Item = (SessionId, u64)> {
        let needed = self.clients.iter().filter(|(_, record)| !record.is_idle());
        needed.filter_map(|(session, record)| Some((session, record.orphaned_at?)))
    }

    /// Whether the record of a client lingers since this command or longer. Walks all clients.
    pub fn has_lingered(&self, since: u64) -> bool {
        self.clients.iter().any(|(_, record)| record.lingers_since.is_some_and(|at| at <= since))
    }

    /// The outcome of a write that was done and is not settled, and the position at which it was done (P-ONCE).
    pub fn answered(&self, session: SessionId, number: RequestNumber) -> Option<&AppliedOutcome> {
        self.clients.get(session)?.answer(number)
    }

    /// The lock-delays that are running, by name and age: the node, the index of the command that began
    /// it, and how long it lasts. The master times them, and proposes `EndLockDelay` for each.
    pub fn delayed_locks(&self) -> impl Iterator<Item = (Name, Instance, u64, Duration)> {
        self.tree.delayed().flat_map(|(name, node)| {
            node.lock.delays().map(|(began, longest)| (name.clone(), node.instance, began, longest))
        })
    }

    /// The longest lease that any master may have granted (`lease-5`).
    pub fn lease_max(&self) -> Duration {
        self.lease_max.max(LEASE)
    }

    /// Whether the acquisition stands: that very instance, held in that mode under that generation.
    pub fn sequencer_stands(&self, guard: &Guard) -> bool {
        let Guard { name, instance, mode, lock_generation } = guard;
        self.tree.get(name).is_some_and(|node| {
            node.instance == *instance
                && node.lock.mode() == Some(*mode)
                && node.lock_generation == *lock_generation
        })
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, sessions, clients) = (self.tree.len(), self.sessions.len(), self.clients.len());
        write!(f, "state at {}: {nodes} nodes, {sessions} sessions, {clients} clients", self.position())
    }
}
