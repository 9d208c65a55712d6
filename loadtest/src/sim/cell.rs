//! A replica: the master's machine and the replicated state over a log that promises what Raft promises.
//!
//! A leader counts its lease from when it *sent* what a majority answered; followers elect nobody else for
//! the longest election timeout after they heard it, and for a tenth more after a start. All timings are production's. An election is over in a moment: it is won if a
//! majority is awake and within reach, has promised nothing, and has no newer log.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hasp_cell::master::{BatchId, Input, MasterConfig, MasterCore, Output};
use hasp_cell::replica::Timing;
use hasp_cell::state::{AppliedOutcome, LogEntry, Outcome, State};
use hasp_proto::lease::LeaseTerms;
use hasp_proto::partition::PartitionMap;
use hasp_proto::time::Time;

use super::clock::Moment;
use super::driving::drive;
use super::happening::{Append, Appended, Happening};
use super::log::{Entry, Log};
use super::mischief::forgetful;
use super::mutants::Mutant;
use super::node::NodeId;
use super::plan::{HEALED, REPLICAS, cell_name};
use super::world::World;

/// How long what was proposed may take to come to its end before the mastership is handed over.
const PROPOSED_PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks at whether it has.
const LEAVING_TICK: Duration = Duration::from_millis(20);

/// One replica.
#[derive(Debug)]
pub struct Replica {
    config: MasterConfig,
    timing: Timing,
    /// Anew each time it starts.
    pub core: MasterCore,
    /// Survives.
    pub log: Log,
    /// As far as the log is applied; survives.
    pub state: State,
    /// When it last heard its leader, by its own clock.
    heard: Time,
    leader: Option<u64>,
    leading: Option<Leading>,
    /// For [`Mutant::LeaderRestored`]: the term in which it led when it crashed.
    led: Option<u64>,
    /// It leaves: until then what it proposed may come to its end.
    leaving: Option<Time>,
}

/// What a leader keeps in mind.
#[derive(Debug, Default)]
struct Leading {
    /// Entries that each replica has, as it said.
    matched: [usize; REPLICAS],
    /// When what each has answered last was sent.
    acknowledged: [Option<Time>; REPLICAS],
    /// The machine is told of the election once so many entries are applied.
    begins_at: usize,
    is_told: bool,
    /// By the number of entries there are with it.
    proposed: BTreeMap<usize, BatchId>,
}

impl Leading {
    /// When what a majority answered was sent, its own vote aside.
    fn quorum(&self, own: usize) -> Option<Time> {
        (0..REPLICAS).filter(|at| *at != own).filter_map(|at| self.acknowledged[at]).max()
    }
}

impl Replica {
    /// The replica of that number among all, that has not begun.
    pub fn new(index: usize, map: &PartitionMap, lease: Duration, timing: Timing) -> Self {
        let cell = index / REPLICAS;
        let addresses = (0..REPLICAS)
            .map(|at| (at as u64 + 1, NodeId::Replica(cell * REPLICAS + at).address()))
            .collect();
        let config = MasterConfig {
            cell: cell_name(cell),
            replica: (index % REPLICAS) as u64 + 1,
            addresses,
            map: map.clone(),
            handle_key: Bytes::from(vec![u8::try_from(cell).expect("few"); 32]),
            terms: LeaseTerms { lease },
        };
        Self {
            core: MasterCore::new(config.clone(), timing.election_max),
            config,
            timing,
            log: Log::default(),
            state: State::default(),
            heard: Time::ZERO,
            leader: None,
            leading: None,
            led: None,
            leaving: None,
        }
    }

    /// Whether it leads.
    pub const fn is_leader(&self) -> bool {
        self.leading.is_some()
    }
}

fn number(index: usize) -> u64 {
    (index % REPLICAS) as u64 + 1
}

impl World {
    fn peers(&self, index: usize) -> [usize; REPLICAS] {
        let first = index / REPLICAS * REPLICAS;
        std::array::from_fn(|at| first + at)
    }

    /// It starts with what its disk has.
    pub fn start_replica(&mut self, index: usize) {
        let now = self.local(NodeId::Replica(index));
        let reads_snapshot = self.random.chance(300);
        let replica = &mut self.replicas[index];
        if reads_snapshot && replica.state.epoch().0 > 0 {
            let records = replica.state.write_snapshot();
            let read = State::from_snapshot(records.into_iter()).expect("what was written can be read");
            assert!(read == replica.state, "a snapshot is the state");
            replica.state = read;
        }
        let timing = replica.timing;
        replica.core = MasterCore::new(replica.config.clone(), timing.election_max);
        (replica.leader, replica.leading, replica.leaving) = (None, None, None);
        let hold = timing.vote_hold().saturating_sub(timing.election_max);
        replica.heard = if self.mutant == Some(Mutant::VotesNotHeld) { Time::ZERO } else { now + hold };
        let led = replica.led.take().filter(|term| *term == replica.log.term);
        self.master_inputs(index, [Input::Deposed(None)]);
        self.watch(index);
        if let Some(term) = led.filter(|_| self.mutant == Some(Mutant::LeaderRestored)) {
            self.lead(index, term);
        }
    }

    /// What it had not written down is gone; what was proposed may be in others' logs.
    pub fn replica_crashed(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        let was_leader = replica.leading.take().is_some();
        (replica.led, replica.leaving) = (was_leader.then_some(replica.log.term), None);
        self.tail_is_lost(index, was_leader);
    }

    fn watch(&mut self, index: usize) {
        let node = NodeId::Replica(index);
        let Timing { election_min, election_max, .. } = self.replicas[index].timing;
        let spread = u64::try_from((election_max - election_min).as_micros()).expect("short");
        let patience =
            election_min + Duration::from_micros(self.random.between(0, spread + 1)) + election_max / 2;
        let life = self.lives[&node].number;
        let due = self.lives[&node].clock.when(self.replicas[index].heard + patience);
        self.schedule.add(due.max(self.now + Duration::from_millis(50)), Happening::ElectionDue(index, life));
    }

    /// A follower that hears nobody stands for election.
    pub fn election_due(&mut self, index: usize, life: u64) {
        let node = NodeId::Replica(index);
        if self.lives[&node].number != life {
            return;
        }
        let waited = self.local(node).saturating_since(self.replicas[index].heard);
        if self.replicas[index].leading.is_none() && waited >= self.replicas[index].timing.election_max {
            self.stand(index, false);
        }
        self.watch(index);
    }

    /// Wins if a majority votes for it; whether it did.
    fn stand(&mut self, index: usize, is_handed_over: bool) -> bool {
        let peers = self.peers(index);
        let voters: Vec<usize> =
            peers.into_iter().filter(|voter| self.would_vote(*voter, index, is_handed_over)).collect();
        let may_win = voters.contains(&index) && 2 * voters.len() > REPLICAS;
        if !may_win {
            return false;
        }
        let term = 1 + voters.iter().map(|voter| self.replicas[*voter].log.term).max().unwrap_or(0);
        for voter in &voters {
            self.demote(*voter, term, None);
        }
        self.counts.elections += 1;
        self.lead(index, term);
        true
    }

    fn lead(&mut self, index: usize, term: u64) {
        self.story.tell(self.now, NodeId::Replica(index), format_args!("leads in term {term}"));
        let replica = &mut self.replicas[index];
        replica.leader = Some(number(index));
        let begins_at = replica.log.append(None);
        let mut leading = Leading { begins_at, ..Leading::default() };
        leading.matched[index % REPLICAS] = begins_at;
        replica.leading = Some(leading);
        self.beat(index, term);
    }

    fn would_vote(&self, voter: usize, candidate: usize, is_handed_over: bool) -> bool {
        let (from, to) = (NodeId::Replica(candidate), NodeId::Replica(voter));
        let is_within_reach = voter == candidate
            || self.is_awake(to)
                && self.network.cut_until(self.now, from, to).is_none()
                && self.network.cut_until(self.now, to, from).is_none();
        let replica = &self.replicas[voter];
        let now = self.local(to);
        let heard = match &replica.leading {
            Some(leading) => leading.quorum(voter % REPLICAS).unwrap_or(Time::ZERO),
            None => replica.heard,
        };
        let is_free = is_handed_over || voter == candidate || now >= heard + replica.timing.election_max;
        let is_older = self.mutant == Some(Mutant::TailLost)
            || replica.log.is_no_newer_than(&self.replicas[candidate].log);
        is_within_reach && is_free && is_older
    }

    /// It is in that term, and does not lead.
    fn demote(&mut self, index: usize, term: u64, leader: Option<u64>) {
        let replica = &mut self.replicas[index];
        replica.log.term = term;
        let is_news = replica.leader != leader || replica.leading.is_some();
        replica.leader = leader;
        let Some(led) = replica.leading.take() else {
            if is_news {
                self.master_inputs(index, [Input::Deposed(leader)]);
            }
            return;
        };
        self.story.tell(self.now, NodeId::Replica(index), format_args!("does not lead any more"));
        let lost = led.proposed.into_values().map(Input::Unknown);
        let inputs: Vec<_> = std::iter::once(Input::Deposed(leader)).chain(lost).collect();
        self.master_inputs(index, inputs);
    }

    /// A leader sends its followers what they lack, and again and again that it is there.
    pub fn beat(&mut self, index: usize, term: u64) {
        if self.replicas[index].log.term != term || self.replicas[index].leading.is_none() {
            return;
        }
        self.replicate(index);
        let lease = self.quorum_acknowledged(index);
        self.master_inputs(index, lease);
        let node = NodeId::Replica(index);
        let next = self.lives[&node].clock.when(self.local(node) + self.replicas[index].timing.heartbeat);
        self.schedule.add(next, Happening::Beat(index, term));
    }

    /// A leader sends its followers what they lack.
    pub fn replicate(&mut self, index: usize) {
        let sent = self.local(NodeId::Replica(index));
        for peer in self.peers(index) {
            if peer == index {
                continue;
            }
            let replica = &self.replicas[index];
            let Some(leading) = &replica.leading else { return };
            let before = leading.matched[peer % REPLICAS];
            let append = Append {
                from: index,
                term: replica.log.term,
                sent,
                before,
                entries: replica.log.from(before),
                committed: replica.log.committed,
            };
            self.message(index, peer, Happening::Append(peer, Rc::new(append)));
        }
    }

    /// Between replicas messages may be lost: they are repeated.
    fn message(&mut self, from: usize, to: usize, message: Happening) {
        let (from, to) = (NodeId::Replica(from), NodeId::Replica(to));
        let delay = self.network.delay();
        if self.network.cut_until(self.now, from, to).is_none() {
            self.schedule.add(self.now + delay, message);
        }
    }

    /// A follower hears a leader.
    pub fn appended(&mut self, index: usize, append: &Append) {
        if append.term < self.replicas[index].log.term {
            // It hears of the newer term by the answer.
            let answer =
                Appended { from: index, term: self.replicas[index].log.term, matched: 0, sent: append.sent };
            return self.message(index, append.from, Happening::Appended(append.from, answer));
        }
        let leader = Some(number(append.from));
        if append.term > self.replicas[index].log.term || self.replicas[index].leader != leader {
            self.demote(index, append.term, leader);
        }
        let now = self.local(NodeId::Replica(index));
        let replica = &mut self.replicas[index];
        replica.heard = replica.heard.max(now);
        let matched = append.before + append.entries.len();
        if append.before > replica.log.len() {
            // Only if what it once had was lost.
            return;
        }
        if let Some(kept) = replica.log.take_over(append.before, &append.entries) {
            self.forget_applied(index, kept);
        }
        let committed = append.committed.min(matched);
        self.commit(index, committed);
        let answer = Appended { from: index, term: append.term, matched, sent: append.sent };
        self.message(index, append.from, Happening::Appended(append.from, answer));
    }

    /// What was applied and is gone from the log is taken back. It never is, unless the world makes a mistake.
    pub fn forget_applied(&mut self, index: usize, kept: usize) {
        let replica = &mut self.replicas[index];
        if replica.log.applied <= kept {
            return;
        }
        assert!(self.mutant.is_some_and(Mutant::loses_entries), "nothing that was applied is lost");
        replica.log.committed = replica.log.committed.min(kept);
        replica.log.applied = 0;
        replica.state = State::default();
        let replay = replica.log.committed;
        self.apply(index, replay);
    }

    /// A leader hears a follower.
    pub fn acknowledged(&mut self, index: usize, answer: Appended) {
        if answer.term > self.replicas[index].log.term {
            return self.demote(index, answer.term, None);
        }
        let replica = &mut self.replicas[index];
        let (len, term) = (replica.log.len(), replica.log.term);
        let Some(leading) = replica.leading.as_mut().filter(|_| answer.term == term) else { return };
        leading.matched[index % REPLICAS] = len;
        let from = answer.from % REPLICAS;
        leading.matched[from] = leading.matched[from].max(answer.matched);
        leading.acknowledged[from] = leading.acknowledged[from].max(Some(answer.sent));
        let mut matched = leading.matched;
        matched.sort_unstable();
        let majority = matched[REPLICAS / 2];
        if majority > replica.log.committed && replica.log.entry(majority - 1).term == term {
            self.commit(index, majority);
        }
        let lease = self.quorum_acknowledged(index);
        self.master_inputs(index, lease);
    }

    /// What the machine is told of its lease.
    pub fn quorum_acknowledged(&self, index: usize) -> Option<Input> {
        let leading = self.replicas[index].leading.as_ref().filter(|leading| leading.is_told)?;
        let unearned = [Mutant::MasterLeaseUnearned, Mutant::EndedByOldMaster, Mutant::EpochShared];
        if self.mutant.is_some_and(|mutant| unearned.contains(&mutant)) {
            return Some(Input::QuorumAcknowledged(self.local(NodeId::Replica(index))));
        }
        leading.quorum(index % REPLICAS).map(Input::QuorumAcknowledged)
    }

    fn commit(&mut self, index: usize, committed: usize) {
        let replica = &mut self.replicas[index];
        if committed <= replica.log.committed {
            return;
        }
        replica.log.committed = committed;
        self.note_committed(index);
        self.apply(index, committed);
    }

    /// Applies so many entries, and tells the machine of its own.
    fn apply(&mut self, index: usize, until: usize) {
        let mut applied: Vec<(BatchId, Vec<AppliedOutcome>)> = Vec::new();
        let mut is_elected = false;
        let mut diverged = None;
        let (mut smuggled, mut answered) = (Vec::new(), Vec::new());
        let forgets = self.mutant == Some(Mutant::GenerationReset);
        let replica = &mut self.replicas[index];
        while replica.log.applied < until {
            let entry = replica.log.entry(replica.log.applied).clone();
            replica.log.applied += 1;
            let outcomes = entry.body.as_ref().map(|body| replica.state.apply(body));
            if forgets && entry.body.is_none() {
                replica.state = forgetful(&replica.state);
            }
            let Some(leading) = &mut replica.leading else { continue };
            if replica.log.applied == leading.begins_at {
                is_elected = true;
                leading.is_told = true;
            }
            let batch = leading.proposed.remove(&replica.log.applied);
            if batch.is_none()
                && let Some(outcomes) = &outcomes
            {
                smuggled.push((replica.log.applied, outcomes.clone()));
            }
            if let (Some(batch), Some(outcomes)) = (batch, outcomes) {
                diverged = diverged.or(outcomes.iter().find_map(|it| match &it.outcome {
                    Outcome::Diverged { index, .. } => Some(*index),
                    _ => None,
                }));
                if self.mischief.answered.remove(&(index, batch)) {
                    answered.push(batch);
                } else {
                    applied.push((batch, outcomes));
                }
            }
        }
        if let Some(at) = diverged {
            self.break_promise(format!("{}: states differ before command {at}", NodeId::Replica(index)));
        }
        let state = self.replicas[index].state.clone();
        if is_elected {
            let lease = self.quorum_acknowledged(index);
            self.master_inputs(index, std::iter::once(Input::Elected(state.clone())).chain(lease));
        }
        for (batch, outcomes) in applied {
            self.master_inputs(index, [Input::Applied(batch, outcomes, state.clone())]);
        }
        for batch in answered {
            self.release_held(index, batch);
        }
        for (count, outcomes) in smuggled {
            if let Some((smuggler, batch)) = self.smuggler(index, count) {
                self.master_inputs(smuggler, [Input::Applied(batch, outcomes, state.clone())]);
            }
        }
    }

    /// Hands inputs to the machine and carries out what it wants.
    pub fn master_inputs(&mut self, index: usize, inputs: impl IntoIterator<Item = Input>) {
        let node = NodeId::Replica(index);
        if !self.is_awake(node) {
            return;
        }
        let now = self.local(node);
        let mut outputs = Vec::new();
        let due = drive(&mut self.replicas[index].core, now, inputs, &mut outputs);
        self.wake_at(node, due);
        for output in outputs {
            match output {
                Output::Send(connection, down) => self.send_down(connection, down),
                Output::Close(connection) => self.close(connection),
                Output::Traced(..) => {}
                Output::Propose(batch, entry) => self.propose(index, batch, entry),
            }
        }
    }

    fn propose(&mut self, index: usize, batch: BatchId, entry: LogEntry) {
        let now = self.local(NodeId::Replica(index));
        let holds = self.mutant == Some(Mutant::EventBeforeAction);
        let early = holds || self.mutant == Some(Mutant::AppliedEarly);
        let replica = &mut self.replicas[index];
        let promise = replica.timing.election_max;
        let has_lease =
            |leading: &Leading| leading.quorum(index % REPLICAS).is_some_and(|sent| now < sent + promise);
        if !replica.leading.as_ref().is_some_and(has_lease) {
            if !self.is_smuggled(index, batch, &entry) {
                self.master_inputs(index, [Input::NotProposed(batch)]);
            }
            return;
        }
        let replica = &mut self.replicas[index];
        let speculated = early.then(|| {
            let mut state = replica.state.clone();
            for at in replica.log.applied..replica.log.len() {
                if let Some(body) = &replica.log.entry(at).body {
                    state.apply(body);
                }
            }
            let outcomes = state.apply(&entry);
            (outcomes, state)
        });
        let count = replica.log.append(Some(entry));
        let leading = replica.leading.as_mut().expect("just seen");
        leading.matched[index % REPLICAS] = count;
        leading.proposed.insert(count, batch);
        if let Some((outcomes, state)) = speculated {
            self.mischief.answered.insert((index, batch));
            self.mischief.holds_for = holds.then_some((index, batch));
            self.master_inputs(index, [Input::Applied(batch, outcomes, state)]);
            self.mischief.holds_for = None;
        }
        self.replicate(index);
    }

    // Hand-over.

    /// The replica hands its mastership over and leaves for a while, as a server that is stopped does.
    pub fn leave(&mut self, index: usize) {
        let node = NodeId::Replica(index);
        if !self.is_awake(node) || self.replicas[index].leading.is_none() {
            return;
        }
        self.story.tell(self.now, node, format_args!("is told to step down"));
        self.replicas[index].leaving = Some(self.local(node) + PROPOSED_PATIENCE);
        self.master_inputs(index, [Input::StepDown]);
        let life = self.lives[&node].number;
        self.schedule.add(self.now, Happening::Leaving(index, life));
    }

    /// It leaves once nothing is under way, or its patience is over.
    pub fn leaving(&mut self, index: usize, life: u64) {
        let node = NodeId::Replica(index);
        let Some(until) = self.replicas[index].leaving.filter(|_| self.lives[&node].number == life) else {
            return;
        };
        if self.replicas[index].leading.is_some()
            && !self.replicas[index].core.has_nothing_proposed()
            && self.local(node) < until
        {
            return self.schedule.add(self.now + LEAVING_TICK, Happening::Leaving(index, life));
        }
        if self.replicas[index].leading.is_some() {
            self.master_inputs(index, [Input::StepDown]);
            let others = self.peers(index).into_iter().filter(|peer| *peer != index);
            let willing = others
                .filter(|peer| self.is_awake(NodeId::Replica(*peer)))
                .find(|peer| self.replicas[index].log.is_no_newer_than(&self.replicas[*peer].log));
            if let Some(successor) = willing {
                self.stand(successor, true);
            }
        }
        self.master_inputs(index, [Input::Deposed(None)]);
        self.crash(node);
        let back = if self.now < HEALED { self.random.millis(50, 3_000) } else { Duration::from_millis(100) };
        self.schedule.add(self.now + back, Happening::Start(node));
    }

    // What was committed.

    fn note_committed(&mut self, index: usize) {
        let cell = index / REPLICAS;
        let committed = self.replicas[index].log.committed;
        let mut broken = Vec::new();
        let now: Moment = self.now;
        let name = cell_name(cell);
        let can_lose = self.mutant.is_some_and(Mutant::loses_entries);
        let forgets = self.mutant == Some(Mutant::GenerationReset);
        let mut known = std::mem::take(self.committed.entry(cell).or_default());
        let last = committed.min(known.len());
        let is_same =
            |known: &[Rc<Entry>], at: usize| Rc::ptr_eq(&known[at], self.replicas[index].log.entry(at));
        let agrees = last == 0 || is_same(&known, last - 1);
        for at in 0..if agrees { 0 } else { last } {
            if !is_same(&known, at) {
                assert!(can_lose, "the log of the world keeps what Raft promises");
                // History is another from here on: what was is forgotten, as the new leader has.
                known.truncate(at);
                let names: Vec<_> = self.history.truths[&name].versions.keys().cloned().collect();
                let mut truth = super::history::Truth::of(&names);
                for entry in known.iter().filter_map(|entry| entry.body.as_ref()) {
                    truth.commit(now, entry, |_, _, _, _| {});
                }
                self.history.truths.insert(name.clone(), truth);
                break;
            }
        }
        let from = known.len();
        for at in from..committed {
            known.push(self.replicas[index].log.entry(at).clone());
        }
        let fresh: Vec<_> = known[from..].to_vec();
        let mut truth = self.history.truths.remove(&name).expect("every cell has a truth");
        for entry in &fresh {
            let Some(entry) = &entry.body else {
                if forgets {
                    truth.state = forgetful(&truth.state);
                }
                continue;
            };
            truth.commit(now, entry, |before, after, command, _| {
                broken.extend(super::check::leases::ended(self, before, after, command));
            });
        }
        self.history.truths.insert(name, truth);
        self.committed.insert(cell, known);
        // What was broken stays so for a while: once is enough.
        if (self.plan.has_ring || self.plan.has_moves) && self.broken.is_empty() {
            let mut findings = super::check::Findings::default();
            super::check::tree::check_across(self, &mut findings);
            self.counts.checks += findings.checks;
            broken.extend(findings.broken);
        }
        for what in broken {
            self.break_promise(what);
        }
    }
}
