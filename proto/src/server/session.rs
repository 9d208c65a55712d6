//! One session as its host sees it: its leases, its waiting KeepAlive, its news.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{ConnectionId, Holder};
use crate::id::{RequestNumber, Sequence, SessionId};
use crate::lease::{Ceiling, LeaseEnds, LeaseTerms};
use crate::limits::NEWS_PER_SESSION;
use crate::stream::{Grant, Hello, News};
use crate::time::Time;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) holder: Holder,
    /// The connection that speaks for it, if one does.
    pub(super) connection: Option<ConnectionId>,
    /// Requests that its owner works on.
    pub(super) in_flight: BTreeSet<RequestNumber>,
    pub(super) settled_below: RequestNumber,
    pub(super) news: Unacknowledged,
    /// Over, but not forgotten by the owner: no lease is granted any more.
    pub(super) ending: bool,
    terms: LeaseTerms,
    ends: LeaseEnds,
    parked: Option<Parked>,
    /// Taken off the first hold, so that sessions made together do not stay in step.
    phase: Duration,
}

/// A KeepAlive that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Parked {
    number: u64,
    received: Time,
}

impl Session {
    pub(super) fn new(id: SessionId, holder: Holder, ends: LeaseEnds, terms: LeaseTerms) -> Self {
        Self {
            holder,
            connection: None,
            in_flight: BTreeSet::new(),
            settled_below: RequestNumber(0),
            news: Unacknowledged::default(),
            ending: false,
            terms,
            ends,
            parked: None,
            phase: phase(id, terms.lease * 2 / 3),
        }
    }

    /// The lease that goes with a Welcome: what can be granted, or what is left of the last one.
    pub(super) fn first_grant(&mut self, now: Time, received: Time, ceiling: Ceiling) -> Option<Grant> {
        if let Some(grant) = self.grant(now, received, ceiling) {
            return Some(grant);
        }
        let left = self.ends.session.saturating_since(now);
        (!left.is_zero()).then(|| Grant {
            held: now.saturating_since(received),
            session: left,
            cache: self.ends.cache.saturating_since(now),
        })
    }

    pub(super) fn never_granted(&self) -> bool {
        self.ends == LeaseEnds::default()
    }

    /// Moves the session to this connection; returns the one that spoke before.
    pub(super) fn speak_on(&mut self, connection: ConnectionId, hello: &Hello) -> Option<ConnectionId> {
        self.holder.claim = hello.claim;
        self.parked = None;
        self.connection.replace(connection).filter(|old| *old != connection)
    }

    pub(super) fn lost(&mut self, connection: ConnectionId) {
        if self.connection == Some(connection) {
            self.connection = None;
            self.parked = None;
        }
    }

    pub(super) fn park(&mut self, now: Time, number: u64) {
        if !self.ending {
            self.parked = Some(Parked { number, received: now });
        }
    }

    pub(super) fn is_over(&self, now: Time) -> bool {
        !self.ending && now >= self.ends.session
    }

    pub(super) fn is_keep_alive_due(&self, now: Time) -> bool {
        self.parked.is_some() && now >= self.answer_at()
    }

    /// Answers the parked KeepAlive if it is due or there is news on the way (`ka-1`), and the
    /// ceiling allows an extension.
    pub(super) fn answer_keep_alive(&mut self, now: Time, ceiling: Ceiling) -> Option<(u64, Grant)> {
        if !self.is_keep_alive_due(now) && self.news.is_empty() {
            return None;
        }
        let Parked { number, received } = self.parked?;
        let grant = self.grant(now, received, ceiling)?;
        self.parked = None;
        self.phase = Duration::ZERO;
        Some((number, grant))
    }

    /// When something happens to the session by itself. An overdue KeepAlive waits for the ceiling,
    /// not for time.
    pub(super) fn deadline(&self, overdue: bool) -> Option<Time> {
        if self.ending {
            return None;
        }
        if self.parked.is_some() && !overdue {
            return Some(self.answer_at().min(self.ends.session));
        }
        Some(self.ends.session)
    }

    fn answer_at(&self) -> Time {
        self.terms.answer_at(self.ends.session, self.phase)
    }

    fn grant(&mut self, now: Time, received: Time, ceiling: Ceiling) -> Option<Grant> {
        if self.ending {
            return None;
        }
        let mut grant = self.terms.grant(now, received, self.ends, ceiling)?;
        if let Some(since) = self.news.oldest() {
            // ka-3: one lease after the oldest unacknowledged news there is no further cache lease.
            let bound = (since + self.terms.lease).saturating_since(now);
            grant.cache = grant.cache.min(bound);
        }
        let granted = LeaseEnds { session: now + grant.session, cache: now + grant.cache };
        self.ends = self.ends.extended_to(granted);
        Some(grant)
    }
}

/// A fraction of `span` that follows from the session's id.
fn phase(id: SessionId, span: Duration) -> Duration {
    let sixteenth_bits = u32::from(id.0[14]) << 8 | u32::from(id.0[15]);
    span * sixteenth_bits / 65_536
}

/// News that was told and not acknowledged, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    last: Sequence,
    items: VecDeque<(Sequence, Time, News)>,
}

impl Unacknowledged {
    /// Takes in one more; `None` if there are too many.
    pub(super) fn push(&mut self, now: Time, item: News) -> Option<Sequence> {
        if self.items.len() >= NEWS_PER_SESSION {
            return None;
        }
        self.last = self.last.next();
        self.items.push_back((self.last, now, item));
        Some(self.last)
    }

    /// Drops everything up to `sequence`; whether there was anything to drop.
    pub(super) fn acknowledge(&mut self, sequence: Sequence) -> bool {
        let before = self.items.len();
        self.items.retain(|(told, _, _)| *told > sequence);
        if self.items.is_empty() {
            self.items.shrink_to_fit();
        }
        self.items.len() < before
    }

    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = (Sequence, News)> {
        self.items.iter().map(|(sequence, _, item)| (*sequence, item.clone()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Since when the oldest waits.
    fn oldest(&self) -> Option<Time> {
        self.items.front().map(|(_, told, _)| *told)
    }
}
