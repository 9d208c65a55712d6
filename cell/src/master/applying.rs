//! Outcomes: what the master does once the log has done what it proposed.

use std::collections::BTreeSet;
use std::mem;

use hasp_proto::crossing::{CrossOp, Need};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;
use hasp_proto::request::{Op, Reply};
use hasp_proto::stream::News;
use hasp_proto::time::Time;

use super::asking::too_many_waits;
use super::load::Load;
use super::proposals::{BatchId, Purpose};
use super::requests::Actor;
use super::timers::Timer;
use super::waiting::Waiter;
use super::{MasterCore, requests};
use crate::state::{AppliedOutcome, Command, Outcome, Refusal, State};

impl MasterCore {
    pub(super) fn applied(&mut self, now: Time, batch: BatchId, outcomes: Vec<AppliedOutcome>, state: State) {
        let map_before = mem::replace(&mut self.state, state).shared_map();
        let Some(purposes) = self.proposals.take(batch) else { return };
        assert_eq!(purposes.len(), outcomes.len(), "one outcome for each command");
        let mut touched = BTreeSet::new();
        for ((purpose, round), applied) in purposes.into_iter().zip(outcomes) {
            if matches!(applied.outcome, Outcome::Rejected(_)) && purpose != Purpose::Epoch {
                // `fail-1`: another epoch has begun. Nothing that was promised under this one stands.
                self.deposed(None);
                return self.begin_epoch();
            }
            if let Some(round) = round {
                self.cachers.finish(round);
            }
            self.command_applied(now, purpose, applied, &mut touched);
        }
        self.forget_what_moved(now, map_before.as_deref());
        for name in touched {
            self.pump(&name);
        }
        self.reap_abandoned();
        if self.is_serving() {
            self.chores.look(now, self.state.chores());
            self.hand_out_chores(now);
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
        // What was done before is answered again with its position then, and its events were told then.
        let is_new = position.index > self.told_up_to;
        self.told_up_to = self.told_up_to.max(position.index);
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
            Purpose::Admission(connection, id, hello) => match outcome {
                Outcome::Failed(error) => self.server.refuse(connection, error),
                _ => self.session_created(now, connection, id, &hello),
            },
            Purpose::SessionEnd(session, _) => {
                self.server.forget(session);
                self.timers.start_claim_windows(now, &self.state);
            }
            Purpose::Word { speaker, number, client, claim } => {
                let result = match outcome {
                    Outcome::Failed(error) => Err(error),
                    Outcome::ClientEnded { .. } => {
                        self.client_ended(client, claim);
                        Ok(Reply::Noted)
                    }
                    _ => Ok(Reply::Noted),
                };
                self.answer_at(position, speaker, number, result);
            }
            Purpose::Crossing { speaker, number, op } => {
                self.tell_crossed(&op, &outcome, &position);
                self.moved(now, &op);
                let result = match outcome {
                    Outcome::Needs(need) => Ok(Reply::Needs(need, self.anchor())),
                    Outcome::Sealed(ticket) => Ok(Reply::Sealed(ticket)),
                    Outcome::Failed(error) => Err(error),
                    Outcome::Reaped { deleted: false } => {
                        Err(ErrorCode::NotEmpty.because("somebody has it open, or may create below it"))
                    }
                    _ => Ok(Reply::Noted),
                };
                self.answer_at(position, speaker, number, result);
            }
            Purpose::Recall { speaker, actor, request } => {
                let kept = self.state.answered(actor.client, actor.number).cloned();
                match (outcome, kept) {
                    (Outcome::Failed(error), _) => {
                        self.answer_at(position, speaker, request.number, Err(error));
                    }
                    (_, Some(kept)) => self.answer_outcome(speaker, &actor, &request, kept),
                    (_, None) => self.answer(speaker, request.number, Err(unknown())),
                }
            }
            Purpose::LockDelayEnd(name) => {
                touched.insert(name);
            }
            Purpose::Reap(name, instance) => {
                self.reaping.remove(&(name.clone(), instance));
                if outcome == (Outcome::Reaped { deleted: true }) {
                    self.tell_deleted(&name, instance, &position);
                    touched.insert(name);
                }
            }
            Purpose::LeaseMax => self.server.set_lease_max(self.state.lease_max()),
            Purpose::Checksum => {
                if let Outcome::ChecksumTaken { index, checksum } = outcome {
                    let command = Command::CompareChecksum { index, checksum };
                    self.proposals.add(command, Purpose::Housekeeping);
                }
            }
            Purpose::Housekeeping => {}
            Purpose::Request { speaker, actor, request } => {
                if let Some(name) = self.lock_touched_by(&request.op) {
                    touched.insert(name);
                }
                if is_new {
                    self.tell_done(&request.op, &outcome, &position);
                }
                if self.is_map_written(&request.op, &outcome) {
                    self.time_what_came(now);
                }
                let outcome = self.told_to_its_speaker(&actor, outcome);
                self.answer_outcome(speaker, &actor, &request, AppliedOutcome { position, outcome });
            }
            Purpose::Lock(waiter) => {
                touched.insert(waiter.lock.holder.name.clone());
                self.lock_tried(position, *waiter, outcome, is_new);
            }
        }
    }

    /// Nobody is told here any more of what is another cell's by the map of now, and nothing counts for this cell. What is
    /// only packed may come back.
    fn forget_what_moved(&mut self, now: Time, before: Option<&PartitionMap>) {
        let Some(before) = before.filter(|before| before.version != self.state.map().version) else { return };
        let map = self.state.map();
        if !before.rules().eq(map.rules()) || !before.rings().eq(map.rings()) {
            // What was measured is of a directory that is another cell's, or lacks what was asked of that.
            self.load = Load::since(now);
        }
        let told = self.subscriptions.forget_names(|name| before.has_moved(name, map));
        // Routers see to it that their clients are told by the other cell. Others show their handles again, and hear that this
        // cell does not have their nodes any more.
        for session in told {
            if self.server.holder(session).is_some_and(|it| !it.role.is_tier()) {
                let (cell, epoch) = (self.config.cell.clone(), self.state.epoch());
                self.server.tell(now, session, News::FailOver { cell, epoch });
            }
        }
    }

    /// Something may have left the cell, or come to it.
    fn moved(&mut self, now: Time, op: &CrossOp) {
        match op {
            CrossOp::Pack { version } => {
                if *version == self.state.map().version {
                    self.packing = self.packing.saturating_sub(1);
                }
                if self.state.has_packed() {
                    let (map, version) = (self.state.map(), self.state.map().version);
                    for waiter in self.queues.drop_names(|name| map.moves(name)) {
                        let result = waiter.actor.told_to_bring(Need::Map(version), self.anchor());
                        self.answer(waiter.speaker, waiter.number, result);
                    }
                }
            }
            CrossOp::Adopt(_) | CrossOp::Finish { .. } | CrossOp::GiveUp { .. } => self.time_what_came(now),
            _ => {}
        }
    }

    /// Whoever writes the file of the map may have given a change up: what was packed is back.
    fn is_map_written(&self, op: &Op, outcome: &Outcome) -> bool {
        match (op, outcome) {
            (Op::SetContents { handle, .. }, Outcome::Written { .. }) => {
                handle.claimed_body().is_some_and(|body| self.state.map_file() == Some(&body.name))
            }
            _ => false,
        }
    }

    fn time_what_came(&mut self, now: Time) {
        self.timers.start_all_delays(now, &self.state);
        self.timers.start_claim_windows(now, &self.state);
    }

    fn lock_tried(&mut self, position: Position, waiter: Waiter, outcome: Outcome, is_new: bool) {
        if outcome == Outcome::LockHeld {
            self.tell_conflict(&waiter);
        }
        let is_busy = matches!(outcome, Outcome::LockHeld | Outcome::LockDelayed { .. });
        if let Some(reason) = waiter.given_up()
            && is_busy
        {
            return self.answer_at(position, waiter.speaker, waiter.number, Err(reason.error()));
        }
        if is_busy && waiter.lock.waits && self.server.holder(waiter.speaker).is_some() {
            if self.queues.has_room(waiter.actor.client) {
                return self.queues.put_back(waiter);
            }
            return self.answer_at(position, waiter.speaker, waiter.number, Err(too_many_waits()));
        }
        if let Outcome::Acquired { is_first, .. } = outcome {
            self.tell_acquired(&waiter, is_first && is_new, &position);
        }
        let outcome = self.told_to_its_speaker(&waiter.actor, outcome);
        let result = requests::lock_reply_of(&waiter.actor, outcome, self.anchor());
        self.answer_at(position, waiter.speaker, waiter.number, result);
    }

    /// What was asked on an earlier connection of a client's own session is outdated once the log knows the next one.
    /// That is no news for who speaks on it: what it still wants it may ask again.
    fn told_to_its_speaker(&self, actor: &Actor, outcome: Outcome) -> Outcome {
        let has_come_back = || {
            let holder = self.server.holder(actor.client).filter(|_| actor.via.is_none());
            holder.is_some_and(|holder| holder.claim > actor.claim)
        };
        match outcome {
            Outcome::Failed(error) if error.code == ErrorCode::SessionMoved && has_come_back() => {
                Outcome::failed(ErrorCode::Unavailable, "it was asked on an earlier connection")
            }
            outcome => outcome,
        }
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
            | Op::SetAcl { .. }
            | Op::GetSequencer(_)
            | Op::CheckSequencer(_)
            | Op::Refresh(_)
            | Op::EndClient(_)
            | Op::Settle(_)
            | Op::Claim
            | Op::Cross(_) => None,
        }
    }

    /// Proposes the lock for those whose turn it is.
    fn pump(&mut self, name: &Name) {
        let (ready, stale) = self.queues.next(name, self.state.node(name));
        for waiter in stale {
            // The state may be ahead of what was proposed here: of a node that has been packed since, too.
            let result = match self.state.check_cell(name) {
                Ok(()) => Err(ErrorCode::StaleHandle.because(format!("{name} was deleted"))),
                Err(Refusal::Need(need)) => waiter.actor.told_to_bring(need, self.anchor()),
                Err(Refusal::Error(error)) => Err(error),
            };
            self.answer(waiter.speaker, waiter.number, result);
        }
        for waiter in ready {
            self.propose_lock(waiter);
        }
    }

    pub(super) fn unknown(&mut self, batch: BatchId) {
        let Some(purposes) = self.proposals.take(batch) else { return };
        // What they would have changed stays uncachable: they may be applied yet.
        for (purpose, _round) in purposes {
            match purpose {
                // `fail-3`: the holder asks again with the same number and learns the true result.
                Purpose::Request { speaker, request, .. } | Purpose::Recall { speaker, request, .. } => {
                    self.answer(speaker, request.number, Err(unknown()))
                }
                Purpose::Lock(waiter) => {
                    self.answer(waiter.speaker, waiter.number, Err(unknown()));
                    self.pump(&waiter.lock.holder.name);
                }
                Purpose::Word { speaker, number, .. } | Purpose::Crossing { speaker, number, .. } => {
                    self.answer(speaker, number, Err(unknown()))
                }
                Purpose::Admission(connection, ..) => self.server.refuse(connection, unknown()),
                Purpose::SessionEnd(session, cause) => self.session_over(session, cause),
                Purpose::Epoch => self.begin_epoch(),
                Purpose::Reap(name, instance) => {
                    self.reaping.remove(&(name, instance));
                }
                Purpose::LockDelayEnd(_) | Purpose::LeaseMax | Purpose::Checksum | Purpose::Housekeeping => {}
            }
        }
    }

    pub(super) fn timer_due(&mut self, timer: Timer) {
        match timer {
            Timer::LockDelay { name, instance, began } => {
                let command = Command::EndLockDelay { name: name.clone(), instance, began };
                self.proposals.add(command, Purpose::LockDelayEnd(name));
            }
            Timer::ClaimWindow { session, orphaned_at } => {
                self.proposals.add(Command::OrphanEnd { session, orphaned_at }, Purpose::Housekeeping);
            }
            Timer::FlushSettled => self.flush_settled(),
            Timer::Checksum => {
                self.proposals.add(Command::TakeChecksum, Purpose::Checksum);
                self.timers.compare_later(self.now);
            }
            Timer::Forget { since } => {
                if self.state.has_lingered(since) {
                    self.proposals.add(Command::Forget { since }, Purpose::Housekeeping);
                }
                self.timers.forget_later(self.now, self.state.index());
            }
        }
    }

    /// Proposes the end of the ephemeral nodes that nobody has open.
    pub(super) fn reap_abandoned(&mut self) {
        if !self.is_serving() {
            return;
        }
        let abandoned: Vec<_> = self.state.abandoned().filter(|node| !self.reaping.contains(node)).collect();
        for (name, instance) in abandoned {
            self.reaping.insert((name.clone(), instance));
            self.change(Command::Reap { name: name.clone(), instance }, Purpose::Reap(name, instance));
        }
    }
}

fn unknown() -> Error {
    ErrorCode::Unavailable.because("the outcome is unknown")
}
