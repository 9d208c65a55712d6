//! A session's leases by its holder's clock, and the KeepAlive that is to extend them.

use std::time::Duration;

use crate::lease::{LeaseEnds, ends_for_receiver};
use crate::stream::Grant;
use crate::time::Time;

#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    ends: LeaseEnds,
    /// Length of the last session lease: how soon to suspect a host that does not answer.
    length: Duration,
    outstanding: Option<(u64, Time)>,
}

impl Leases {
    pub(super) const fn ends(&self) -> LeaseEnds {
        self.ends
    }

    /// Rules `time-2` and `time-3`.
    pub(super) fn extend(&mut self, sent: Time, grant: &Grant) {
        let ends = ends_for_receiver(sent, grant);
        if ends.session > self.ends.session {
            self.length = grant.session;
        }
        self.ends = self.ends.extended_to(ends);
    }

    /// Another host serves from here on, which the word of the last one does not bind (`time-3`).
    pub(super) const fn forget_cache(&mut self) {
        self.ends.cache = Time::ZERO;
    }

    pub(super) fn grace_end(&self, grace: Duration) -> Time {
        self.ends.session + grace
    }

    pub(super) fn sent(&mut self, now: Time, keep_alive: u64) {
        self.outstanding = Some((keep_alive, now));
    }

    pub(super) fn forget_sent(&mut self) {
        self.outstanding = None;
    }

    /// When the KeepAlive of this number was sent, once.
    pub(super) fn take_sent(&mut self, keep_alive: u64) -> Option<Time> {
        let (_, sent) = self.outstanding.take_if(|(number, _)| *number == keep_alive)?;
        Some(sent)
    }

    /// A host answers with a third of the lease left; half of that third is the patience for it.
    pub(super) fn suspect_at(&self) -> Option<Time> {
        self.outstanding.map(|_| self.ends.session - self.length / 6)
    }

    pub(super) fn is_host_suspect(&self, now: Time) -> bool {
        self.suspect_at().is_some_and(|at| now >= at)
    }
}
