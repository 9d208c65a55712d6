//! The cell: replicas of which one leads, and a log that promises what Raft promises. An entry that is committed stays; one
//! that is not may be lost with its leader, or not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hasp_cell::master::{BatchId, Input, MasterConfig, MasterCore, Output};
use hasp_cell::state::{AppliedOutcome, Command, LogEntry};
use hasp_proto::id::CellName;
use hasp_proto::lease::LeaseTerms;
use hasp_proto::machine::Core;
use hasp_proto::time::Time;

use super::hash_of;
use super::hashed::{Hashed, fingerprint};
use super::history::Broken;
use super::memo::Given;
use super::node::NodeId;
use super::omission::Omission;
use super::world::{CELL, Committed, REPLICAS, World, file, map};

/// Followers elect nobody else for that long after they heard their leader.
const ELECTION_MAX: Duration = Duration::from_millis(1_000);

/// An entry for whose outcome nobody waits.
const NOBODYS: BatchId = BatchId(u64::MAX);

/// A replica.
#[derive(Clone, Debug)]
pub struct Replica {
    core: MasterCore,
    /// Checksum of the state that it was given last, which its text does not show.
    knows: u64,
}

impl Core for Replica {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        if let Input::Elected(state) | Input::Applied(_, _, state) = &input {
            self.knows = state.checksum();
        }
        self.core.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Time) {
        self.core.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.core.poll_output()
    }

    fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        self.core.poll_timeout()
    }
}

impl World {
    /// A replica that has just started.
    pub(super) fn new_replica(index: usize) -> Replica {
        let number = |index: usize| index as u64 + 1;
        let addresses = (0..REPLICAS).map(|index| (number(index), NodeId::Replica(index).address()));
        let config = MasterConfig {
            cell: CellName::new(CELL),
            replica: number(index),
            addresses: addresses.collect(),
            map: map(),
            handle_key: Bytes::from_static(&[7; 32]),
            terms: LeaseTerms::default(),
        };
        Replica { core: MasterCore::new(config, ELECTION_MAX), knows: 0 }
    }

    /// Whether a majority answers that replica, or it believes so.
    fn has_quorum(&self, index: usize) -> bool {
        let leads = self.leadership.leader == Some(index) && self.leadership.isolated_since.is_none();
        leads || self.omits(Omission::MasterLeaseUnearned)
    }

    /// Hands inputs to a replica, after word of its majority, and carries out what it wants.
    pub(super) fn replica_hears(&mut self, index: usize, given: Option<Given<Input>>) {
        let now = self.local(NodeId::Replica(index));
        let quorum = self.has_quorum(index).then(|| Given::known(Input::QuorumAcknowledged(now), 1));
        let memo = self.memo.clone();
        let all = quorum.into_iter().chain(given).collect();
        let effects = memo.master(&mut self.replicas[index], now, all);
        self.carry_out(NodeId::Replica(index), &effects);
    }

    pub(super) fn propose(&mut self, index: usize, batch: BatchId, entry: LogEntry) {
        if self.leadership.leader != Some(index) {
            // Nobody takes it over, and nobody says so.
            return self.done_in_another_epoch(index, batch, entry);
        }
        self.tell(|_| format!("    m{} proposes {:?}", index + 1, entry.commands));
        self.log.change().push((batch, entry));
        if self.plan.commits_at_once && self.may_commit() {
            self.commit();
        }
    }

    /// Whether there is an entry that a majority may have.
    pub(super) fn may_commit(&self) -> bool {
        !self.log.is_empty() && self.leadership.leader.is_some() && self.leadership.isolated_since.is_none()
    }

    /// A majority has the next entry: it takes effect, and its leader hears of it.
    pub(super) fn commit(&mut self) {
        let (batch, entry) = self.log.change().remove(0);
        let outcomes = self.take_effect(&entry);
        let leader = self.leadership.leader.expect("only a leader's entries are committed");
        self.hears_of(leader, batch, &outcomes);
    }

    /// A replica hears what came of the entry that took effect last.
    fn hears_of(&mut self, index: usize, batch: BatchId, outcomes: &Arc<[AppliedOutcome]>) {
        let print = hash_of(&("applied", batch, self.committed.print(), fingerprint(outcomes)));
        let state = self.committed.state.clone();
        let input = Input::Applied(batch, outcomes.to_vec(), state);
        self.replica_hears(index, Some(Given::known(input, print)));
    }

    fn take_effect(&mut self, entry: &LogEntry) -> Arc<[AppliedOutcome]> {
        let contents = |committed: &Committed| {
            committed.state.node(&file()).map(|node| (node.content_generation, node.contents.clone()))
        };
        let before = contents(&self.committed);
        let outcomes = self.memo.commit(&mut self.committed, entry);
        let after = contents(&self.committed);
        if let (Some((from, _)), Some((to, contents))) = (before, after)
            && from != to
        {
            let number = std::str::from_utf8(&contents).ok().and_then(|text| text.parse().ok());
            let number = number.expect("nothing but numbers is written");
            if self.history.took_effect.contains(&number) {
                self.break_promise(Broken::Twice(format!("write {number} took effect twice")));
            }
            self.history.took_effect.push(number);
        }
        outcomes
    }

    // Who leads.

    /// The leader is gone, and has restarted without anything but the log.
    pub(super) fn crash(&mut self) {
        let Some(leader) = self.leadership.leader.take() else { return };
        self.leadership.isolated_since = None;
        self.restart(leader);
    }

    fn restart(&mut self, index: usize) {
        self.break_all(NodeId::Replica(index));
        self.replicas[index] = Hashed::new(Self::new_replica(index));
    }

    /// No majority answers the leader any more.
    pub(super) fn isolate(&mut self) {
        self.leadership.isolated_since = Some(self.now.0);
    }

    /// Whether followers are free to elect another.
    pub(super) fn may_elect(&self) -> bool {
        let promised = u64::try_from(ELECTION_MAX.as_micros()).expect("a second");
        match (self.leadership.leader, self.leadership.isolated_since) {
            (None, _) => true,
            (Some(_), Some(since)) => self.now.0 >= since + promised && self.leadership.outdated.is_none(),
            (Some(_), None) => false,
        }
    }

    /// Another replica leads, with or without what was proposed and not committed.
    pub(super) fn elect(&mut self, keeps_tail: bool) {
        let tail = std::mem::take(self.log.change());
        for (_, entry) in tail.iter().filter(|_| keeps_tail) {
            self.take_effect(entry);
        }
        let before = self.leadership.leader;
        let epoch = self.committed.state.epoch().0;
        let next =
            before.map_or(usize::try_from(epoch).expect("few") % REPLICAS, |leader| (leader + 1) % REPLICAS);
        self.leadership.leader = Some(next);
        self.leadership.isolated_since = None;
        if before.is_some() {
            self.leadership.outdated = before;
            let lost = tail.iter().filter(|_| !keeps_tail).map(|(batch, _)| *batch);
            self.leadership.discarded = lost.collect();
        }
        let print = hash_of(&("elected", self.committed.print()));
        let state = self.committed.state.clone();
        self.replica_hears(next, Some(Given::known(Input::Elected(state), print)));
    }

    /// The outdated leader hears that nobody knows what became of its entries, and then that it does not lead: it may want
    /// them again in between.
    pub(super) fn depose(&mut self) {
        let Some(index) = self.leadership.outdated.take() else { return };
        for batch in std::mem::take(&mut self.leadership.discarded) {
            self.replica_hears(index, Some(Given::new(Input::Unknown(batch))));
        }
        let leader = self.leadership.leader.map(|leader| leader as u64 + 1);
        self.replica_hears(index, Some(Given::new(Input::Deposed(leader))));
    }

    // What is left out.

    /// What an outdated master proposes is committed under its successor, and both see it.
    fn done_in_another_epoch(&mut self, index: usize, batch: BatchId, entry: LogEntry) {
        let is_meant = |command: &Command| match self.plan.omission {
            Some(Omission::EpochShared) => matches!(command, Command::ClientWrite(_)),
            Some(Omission::EndedByOldMaster) => matches!(command, Command::EndSession { .. }),
            _ => false,
        };
        let is_over = entry.epoch < self.committed.state.epoch();
        if let (Some(leader), true) = (self.leadership.leader, is_over)
            && entry.commands.iter().any(is_meant)
        {
            let epoch = self.committed.state.epoch();
            let outcomes = self.take_effect(&LogEntry { epoch, ..entry });
            self.hears_of(leader, NOBODYS, &outcomes);
            self.hears_of(index, batch, &outcomes);
        }
    }
}
