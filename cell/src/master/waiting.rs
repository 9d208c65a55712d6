//! Who waits for which lock: first come, first served, in the master's memory only (`lock-2`).
//!
//! A waiter leaves its queue to have its acquisition logged and comes back to its place if the
//! lock was not free after all. Shared waiters at the head go together; nobody overtakes an
//! exclusive one, so writers do not starve.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::id::{Claim, RequestNumber, SessionId};
use hasp_proto::limits::LOCK_WAITS_PER_CLIENT;
use hasp_proto::name::Name;
use hasp_proto::node::LockMode;

use super::requests::{Actor, LockRequest};
use crate::state::{Holder, HolderId, Node};

/// One request for a lock.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiter {
    /// Session on which it came.
    pub(super) speaker: SessionId,
    pub(super) actor: Actor,
    /// The speaker's number of the request.
    pub(super) number: RequestNumber,
    pub(super) lock: LockRequest,
    /// Its place among all that ever came.
    arrival: u64,
    /// Nobody waits for it any more: it has the lock with the try that is on its way, or not at all.
    given_up: Option<GivenUp>,
}

/// Why nobody waits for a request for a lock any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    ByCaller,
    HandleClosed,
}

impl GivenUp {
    pub(super) fn error(self) -> Error {
        ErrorCode::Cancelled.because(match self {
            Self::ByCaller => "by the caller",
            Self::HandleClosed => "the handle was closed",
        })
    }
}

impl Waiter {
    /// Whether its handle has the lock already.
    fn holds(&self, node: &Node) -> bool {
        let id = HolderId { session: self.actor.client, opened_by: self.lock.holder.opened_by };
        node.lock.is_held_by(id)
    }

    /// Whether it is this request.
    pub(super) fn asks(&self, speaker: SessionId, number: RequestNumber) -> bool {
        (self.speaker, self.number) == (speaker, number)
    }

    /// Whether it is for this handle of the client.
    pub(super) fn is_at(&self, holder: &Holder, client: SessionId) -> bool {
        let Holder { name, opened_by, .. } = &self.lock.holder;
        self.actor.client == client && (name, opened_by) == (&holder.name, &holder.opened_by)
    }

    /// Only the first reason counts.
    pub(super) fn give_up(&mut self, reason: GivenUp) {
        self.given_up.get_or_insert(reason);
    }

    pub(super) fn given_up(&self) -> Option<GivenUp> {
        self.given_up
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Queues {
    arrivals: u64,
    by_name: BTreeMap<Name, Queue>,
    /// How many requests of each client wait.
    by_client: BTreeMap<SessionId, usize>,
}

#[derive(Clone, Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    /// Taken out for the log and not decided yet.
    trying: usize,
}

impl Queue {
    /// Takes those at the head out that can have the lock together when it is held in this mode.
    fn take_fitting(&mut self, held: Option<LockMode>) -> Vec<Waiter> {
        let mut mode = held;
        let mut ready = Vec::new();
        while let Some(head) = self.waiters.front() {
            let wanted = head.lock.mode;
            let fits = mode.is_none() || (mode == Some(LockMode::Shared) && wanted == LockMode::Shared);
            if !fits {
                break;
            }
            mode = Some(wanted);
            ready.extend(self.waiters.pop_front());
        }
        ready
    }
}

impl Queues {
    /// Whether somebody waits, or has just been taken out to try.
    pub(super) fn has_waiters(&self, name: &Name) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether somebody waits for it at this moment.
    pub(super) fn is_wanted(&self, name: &Name) -> bool {
        self.by_name.get(name).is_some_and(|queue| !queue.waiters.is_empty())
    }

    /// Whether another request of the client may wait.
    pub(super) fn has_room(&self, client: SessionId) -> bool {
        self.by_client.get(&client).is_none_or(|count| *count < LOCK_WAITS_PER_CLIENT)
    }

    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.by_client.values().sum()
    }

    /// Somebody comes for a lock.
    pub(super) fn arrive(
        &mut self,
        speaker: SessionId,
        actor: Actor,
        number: RequestNumber,
        lock: LockRequest,
    ) -> Waiter {
        self.arrivals += 1;
        Waiter { speaker, actor, number, lock, arrival: self.arrivals, given_up: None }
    }

    /// To the end of the queue.
    pub(super) fn push(&mut self, waiter: Waiter) {
        let name = waiter.lock.holder.name.clone();
        *self.by_client.entry(waiter.actor.client).or_default() += 1;
        self.by_name.entry(name).or_default().waiters.push_back(waiter);
    }

    /// Back to its place: its try did not succeed.
    pub(super) fn put_back(&mut self, waiter: Waiter) {
        let name = waiter.lock.holder.name.clone();
        *self.by_client.entry(waiter.actor.client).or_default() += 1;
        let queue = self.by_name.entry(name).or_default();
        queue.trying = queue.trying.saturating_sub(1);
        let place = queue.waiters.partition_point(|other| other.arrival < waiter.arrival);
        queue.waiters.insert(place, waiter);
    }

    /// Takes out those whose turn it is, given the node as it is; and those for whom it never will be.
    pub(super) fn next(&mut self, name: &Name, node: Option<&Node>) -> (Vec<Waiter>, Vec<Waiter>) {
        let Some(queue) = self.by_name.get_mut(name) else { return Default::default() };
        queue.trying = 0;
        let instance = node.map(|node| node.instance);
        let (waiters, stale): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut queue.waiters)
            .into_iter()
            .partition(|waiter| Some(waiter.lock.holder.instance) == instance);
        queue.waiters = waiters;
        let mut ready = Vec::new();
        if let Some(node) = node {
            // Whoever has it already waits for nobody: it asked again through another proxy, while its
            // first request was granted through the one that it had left.
            let (holding, waiting): (Vec<_>, Vec<_>) =
                std::mem::take(&mut queue.waiters).into_iter().partition(|waiter| waiter.holds(node));
            ready = holding;
            queue.waiters = waiting.into();
        }
        if let Some(node) = node
            && !node.lock.is_delayed()
        {
            ready.extend(queue.take_fitting(node.lock.mode()));
        }
        queue.trying = ready.len();
        if queue.waiters.is_empty() && queue.trying == 0 {
            self.by_name.remove(name);
        }
        ready.iter().chain(&stale).for_each(|waiter| count_out(&mut self.by_client, waiter));
        (ready, stale.into())
    }

    /// Takes out those whose turn it will be once `holder` has given the lock back, which is on its way
    /// to the log: their tries go right behind it, so that a hand-over costs one entry and not two.
    pub(super) fn behind_release(&mut self, name: &Name, node: &Node, holder: HolderId) -> Vec<Waiter> {
        let Some(queue) = self.by_name.get_mut(name) else { return Vec::new() };
        let is_last = node.lock.is_held_by(holder) && node.lock.holder_count() == 1;
        let is_in_order = queue.waiters.iter().all(|waiter| waiter.lock.holder.instance == node.instance);
        if !is_last || !is_in_order || queue.trying > 0 {
            return Vec::new();
        }
        let ready = queue.take_fitting(None);
        queue.trying = ready.len();
        ready.iter().for_each(|waiter| count_out(&mut self.by_client, waiter));
        ready
    }

    /// The caller no longer waits; whether it was found.
    pub(super) fn drop_request(&mut self, speaker: SessionId, number: RequestNumber) -> bool {
        !self.drop_if(|waiter| waiter.asks(speaker, number)).is_empty()
    }

    /// The handle was closed.
    pub(super) fn drop_handle(&mut self, holder: &Holder, client: SessionId) -> Vec<Waiter> {
        let Some(queue) = self.by_name.get_mut(&holder.name) else { return Vec::new() };
        let (dropped, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut queue.waiters).into_iter().partition(|waiter| waiter.is_at(holder, client));
        queue.waiters = kept.into();
        dropped.iter().for_each(|waiter| count_out(&mut self.by_client, waiter));
        self.tidy();
        dropped
    }

    /// Locks of such names are another cell's from here on.
    pub(super) fn drop_names(&mut self, is_meant: impl Fn(&Name) -> bool) -> Vec<Waiter> {
        self.drop_if(|waiter| is_meant(&waiter.lock.holder.name))
    }

    /// The client is gone, as far as those know who spoke for it with this claim or before.
    pub(super) fn drop_client(&mut self, client: SessionId, claim: Claim) -> Vec<Waiter> {
        self.drop_if(|waiter| waiter.actor.client == client && waiter.actor.claim <= claim)
    }

    /// The session is over; nobody is there to hear an answer.
    pub(super) fn drop_speaker(&mut self, speaker: SessionId) {
        self.drop_if(|waiter| waiter.speaker == speaker);
    }

    fn drop_if(&mut self, is_meant: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let mut dropped = Vec::new();
        for queue in self.by_name.values_mut() {
            let (out, kept): (Vec<_>, Vec<_>) =
                std::mem::take(&mut queue.waiters).into_iter().partition(&is_meant);
            dropped.extend(out);
            queue.waiters = kept.into();
        }
        dropped.iter().for_each(|waiter| count_out(&mut self.by_client, waiter));
        self.tidy();
        dropped
    }

    fn tidy(&mut self) {
        self.by_name.retain(|_, queue| !queue.waiters.is_empty() || queue.trying > 0);
    }

    pub(super) fn check_invariants(&self) {
        for (name, queue) in &self.by_name {
            assert!(!queue.waiters.is_empty() || queue.trying > 0, "an empty queue for {name}");
        }
        let waiting: usize = self.by_name.values().map(|queue| queue.waiters.len()).sum();
        assert_eq!(waiting, self.by_client.values().sum::<usize>(), "every waiter counts for its client");
    }
}

fn count_out(by_client: &mut BTreeMap<SessionId, usize>, waiter: &Waiter) {
    if let Entry::Occupied(mut count) = by_client.entry(waiter.actor.client) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}
