//! What goes into the log: commands come together into batches, one log entry each, and what each
//! command is for is remembered until it is applied.
//!
//! A few batches are under way at a time; what comes meanwhile waits and goes together, so that a
//! busy cell pays for few entries and an idle one waits for nothing (group commit).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hasp_proto::crossing::CrossOp;
use hasp_proto::id::{Claim, Instance, RequestNumber, SessionId};
use hasp_proto::name::Name;
use hasp_proto::request::{EndCause, Request};
use hasp_proto::server::ConnectionId;
use hasp_proto::server::cachers::RoundId;
use hasp_proto::stream::Hello;
use hasp_proto::time::Time;
use hasp_proto::trace::TraceContext;

use super::requests::Actor;
use super::waiting::{GivenUp, Waiter};
use crate::state::{Command, Write};

/// Batches proposed and not applied at a time. One keeps the log busy, the next fills meanwhile.
const BATCHES_IN_FLIGHT: usize = 3;
/// While a batch is under way another goes only with so many commands, twice as many while two are: a
/// few commands are worth no entry of their own, which costs every replica a write and a sync.
const COMPANY: usize = 16;
/// Commands of one batch.
const BATCH_COMMANDS: usize = 512;
/// Bytes of one batch, unless a single command is larger.
const BATCH_BYTES: usize = 512 * 1024;
/// Pause before a batch that the log did not take is proposed again: just after an election it
/// refuses until the first heartbeat has come back.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Number of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// What a command is for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Purpose {
    Epoch,
    Admission(ConnectionId, SessionId, Box<Hello>),
    SessionEnd(SessionId, EndCause),
    Request {
        speaker: SessionId,
        actor: Actor,
        request: Box<Request>,
    },
    /// A try for a lock; goes back to its queue if it fails.
    Lock(Box<Waiter>),
    /// A proxy's word on its client: that it is gone, or that it speaks through it now.
    Word {
        speaker: SessionId,
        number: RequestNumber,
        client: SessionId,
        claim: Claim,
    },
    /// What a router asks for the sake of another cell.
    Crossing {
        speaker: SessionId,
        number: RequestNumber,
        op: CrossOp,
    },
    /// A write that was done before is asked again by a speaker of whom the log does not know yet.
    Recall {
        speaker: SessionId,
        actor: Actor,
        request: Box<Request>,
    },
    LockDelayEnd(Name),
    /// An ephemeral node that nobody has open goes.
    Reap(Name, Instance),
    /// Longer leases may be granted.
    LeaseMax,
    /// The replicas compare their states.
    Checksum,
    Housekeeping,
}

/// A command on its way through the log.
#[derive(Clone, Debug)]
struct Proposed {
    command: Command,
    purpose: Purpose,
    /// The round of invalidations that was for it.
    round: Option<RoundId>,
}

impl Purpose {
    /// Of the request that it is done for.
    fn trace(&self) -> Option<&TraceContext> {
        match self {
            Self::Request { request, .. } | Self::Recall { request, .. } => request.trace.as_ref(),
            Self::Lock(waiter) => waiter.lock.trace.as_ref(),
            Self::Epoch
            | Self::Admission(..)
            | Self::SessionEnd(..)
            | Self::Word { .. }
            | Self::Crossing { .. }
            | Self::LockDelayEnd(_)
            | Self::Reap(..)
            | Self::LeaseMax
            | Self::Checksum
            | Self::Housekeeping => None,
        }
    }

    /// The client whose write it is.
    fn client(&self) -> Option<SessionId> {
        match self {
            Self::Request { actor, .. } | Self::Recall { actor, .. } => Some(actor.client),
            Self::Lock(waiter) => Some(waiter.actor.client),
            Self::Word { client, .. } => Some(*client),
            Self::Epoch
            | Self::Admission(..)
            | Self::SessionEnd(..)
            | Self::Crossing { .. }
            | Self::LockDelayEnd(_)
            | Self::Reap(..)
            | Self::LeaseMax
            | Self::Checksum
            | Self::Housekeeping => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Proposals {
    last: u64,
    /// Wait for their round of invalidations.
    held: BTreeMap<RoundId, (Command, Purpose)>,
    queued: VecDeque<Proposed>,
    in_flight: BTreeMap<BatchId, Vec<Proposed>>,
    /// Clients with commands held, queued or in flight, and how many.
    busy: BTreeMap<SessionId, usize>,
    paused_until: Option<Time>,
}

impl Proposals {
    /// Forgets everything; numbers go on, so that late results find nothing.
    pub(super) fn restarted(&self) -> Self {
        Self { last: self.last, ..Self::default() }
    }

    pub(super) fn add(&mut self, command: Command, purpose: Purpose) {
        self.count_up(&purpose);
        self.queued.push_back(Proposed { command, purpose, round: None });
    }

    /// Keeps a command until its round of invalidations is ready.
    pub(super) fn hold(&mut self, round: RoundId, command: Command, purpose: Purpose) {
        self.count_up(&purpose);
        self.held.insert(round, (command, purpose));
    }

    /// The round is ready: its command goes to the end of the queue.
    pub(super) fn let_go(&mut self, round: RoundId) {
        if let Some((command, purpose)) = self.held.remove(&round) {
            self.queued.push_back(Proposed { command, purpose, round: Some(round) });
        }
    }

    /// Nobody waits any more for the lock that such a try on its way is for.
    pub(super) fn give_up(&mut self, reason: GivenUp, is_meant: impl Fn(&Waiter) -> bool) {
        let held = self.held.values_mut().map(|(_, purpose)| purpose);
        let proposed = self.queued.iter_mut().chain(self.in_flight.values_mut().flatten());
        for purpose in held.chain(proposed.map(|proposed| &mut proposed.purpose)) {
            if let Purpose::Lock(waiter) = purpose
                && is_meant(waiter)
            {
                waiter.give_up(reason);
            }
        }
    }

    /// Whether the client has a command held, queued or in flight.
    pub(super) fn is_busy(&self, client: SessionId) -> bool {
        self.busy.contains_key(&client)
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Whether commands are queued or in flight.
    pub(super) fn has_any(&self) -> bool {
        self.has_queued() || !self.in_flight.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        let in_flight = self.in_flight.len();
        let is_worth_it = self.queued.len() >= in_flight * COMPANY;
        in_flight < BATCHES_IN_FLIGHT && is_worth_it && self.paused_until.is_none()
    }

    /// The next batch to propose, if there is something and room for it.
    pub(super) fn next_batch(&mut self) -> Option<(BatchId, Vec<Command>)> {
        if self.queued.is_empty() || !self.has_room() {
            return None;
        }
        let mut bytes = 0;
        let mut count = 0;
        for proposed in self.queued.iter().take(BATCH_COMMANDS) {
            bytes += weight(&proposed.command);
            if count > 0 && bytes > BATCH_BYTES {
                break;
            }
            count += 1;
        }
        self.last += 1;
        let batch: Vec<_> = self.queued.drain(..count).collect();
        let commands = batch.iter().map(|proposed| proposed.command.clone()).collect();
        self.in_flight.insert(BatchId(self.last), batch);
        Some((BatchId(self.last), commands))
    }

    /// Of the requests that a batch under way is for, those that are followed.
    pub(super) fn traces_of(&self, batch: BatchId) -> Vec<TraceContext> {
        let proposed = self.in_flight.get(&batch).into_iter().flatten();
        proposed.filter_map(|proposed| proposed.purpose.trace().cloned()).collect()
    }

    /// A batch has its outcome: what its commands were for, in order, with their rounds. `None` if it
    /// was forgotten.
    pub(super) fn take(&mut self, batch: BatchId) -> Option<Vec<(Purpose, Option<RoundId>)>> {
        let batch = self.in_flight.remove(&batch)?;
        for proposed in &batch {
            self.count_down(&proposed.purpose);
        }
        Some(batch.into_iter().map(|proposed| (proposed.purpose, proposed.round)).collect())
    }

    /// A batch was not taken by the log: it goes again, before all else, after a pause.
    pub(super) fn put_back(&mut self, now: Time, batch: BatchId) {
        if let Some(batch) = self.in_flight.remove(&batch) {
            for item in batch.into_iter().rev() {
                self.queued.push_front(item);
            }
            self.paused_until = Some(now + RETRY_PAUSE);
        }
    }

    /// Goes on after a pause.
    pub(super) fn resume(&mut self, now: Time) {
        self.paused_until = self.paused_until.filter(|until| now < *until);
    }

    pub(super) fn retry_at(&self) -> Option<(Time, &'static str)> {
        self.paused_until.map(|at| (at, "the log did not take a batch"))
    }

    fn count_up(&mut self, purpose: &Purpose) {
        if let Some(client) = purpose.client() {
            *self.busy.entry(client).or_default() += 1;
        }
    }

    fn count_down(&mut self, purpose: &Purpose) {
        let Some(client) = purpose.client() else { return };
        if let Some(count) = self.busy.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(&client);
            }
        }
    }
}

/// Rough size of a command in the log, in bytes.
fn weight(command: &Command) -> usize {
    let body = match command {
        Command::ClientWrite(write) => match &write.write {
            Write::Create(create) => create.contents.len(),
            Write::SetContents { contents, .. } => contents.len(),
            Write::Delete { .. }
            | Write::Acquire { .. }
            | Write::Release { .. }
            | Write::CloseHandle { .. }
            | Write::SetAcl { .. }
            | Write::OpenEphemeral { .. } => 0,
        },
        Command::Settle(marks) => marks.len() * 32,
        Command::Cross(CrossOp::Import { data, .. }) => data.len(),
        _ => 0,
    };
    body + 256
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(key: u8) -> (Command, Purpose) {
        let session = SessionId([key; 16]);
        (
            Command::EndSession { session, cause: EndCause::Failed },
            Purpose::SessionEnd(session, EndCause::Failed),
        )
    }

    fn add(proposals: &mut Proposals, keys: std::ops::Range<u8>) {
        for key in keys {
            let (command, purpose) = end(key);
            proposals.add(command, purpose);
        }
    }

    #[test]
    fn what_comes_while_batches_are_under_way_goes_together() {
        let mut proposals = Proposals::default();
        add(&mut proposals, 0..1);
        assert_eq!(proposals.next_batch().expect("nothing under way").1.len(), 1);
        add(&mut proposals, 1..16);
        assert!(proposals.next_batch().is_none(), "too few to go beside another");
        add(&mut proposals, 16..17);
        assert_eq!(proposals.next_batch().expect("company").1.len(), 16);
        add(&mut proposals, 17..48);
        assert!(proposals.next_batch().is_none(), "too few to go beside two others");
        add(&mut proposals, 48..49);
        assert_eq!(proposals.next_batch().expect("company").1.len(), 32);
        add(&mut proposals, 49..250);
        assert!(proposals.next_batch().is_none(), "no room");

        assert_eq!(proposals.take(BatchId(2)).expect("known").len(), 16);

        assert_eq!(proposals.next_batch().expect("room").1.len(), 201);
    }

    #[test]
    fn a_batch_that_was_not_taken_goes_first_after_a_pause() {
        let mut proposals = Proposals::default();
        add(&mut proposals, 0..1);
        let (batch, commands) = proposals.next_batch().expect("room");
        add(&mut proposals, 1..2);

        proposals.put_back(Time::from_millis(100), batch);

        assert!(proposals.next_batch().is_none(), "paused");
        proposals.resume(Time::from_millis(119));
        assert!(proposals.next_batch().is_none(), "still paused");
        proposals.resume(Time::from_millis(120));
        assert_eq!(proposals.next_batch().expect("room").1[0], commands[0]);
    }

    #[test]
    fn results_of_a_former_mastership_find_nothing() {
        let mut proposals = Proposals::default();
        add(&mut proposals, 0..1);
        let (old, _) = proposals.next_batch().expect("room");

        let mut proposals = proposals.restarted();
        add(&mut proposals, 1..2);
        let (new, _) = proposals.next_batch().expect("room");

        assert!(proposals.take(old).is_none());
        assert!(new > old);
    }
}
