//! One session as its host sees it: its leases, its waiting KeepAlive, its news.

use std::collections::BTreeSet;
use std::time::Duration;

use super::news::Unacknowledged;
use super::{ConnectionId, Holder};
use crate::error::Error;
use crate::id::{Claim, RequestNumber, Sequence, SessionId};
use crate::lease::{Ceiling, LeaseEnds, LeaseTerms, believed_until};
use crate::stream::{Grant, Hello};
use crate::time::Time;

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) holder: Holder,
    /// The connection that speaks for it, if one does.
    pub(super) connection: Option<ConnectionId>,
    /// Under which claim its holder was welcomed anew here; `None`: another host knew it before, and the holder has
    /// not been here since.
    since: Option<Claim>,
    /// Requests that its owner works on.
    pub(super) in_flight: BTreeSet<RequestNumber>,
    pub(super) settled_below: RequestNumber,
    pub(super) news: Unacknowledged,
    /// Over, but not forgotten by the owner: no lease is granted any more.
    pub(super) ending: bool,
    /// Why its holder is to take it for over, although it has not run out.
    pub(super) expelled: Option<Error>,
    ends: LeaseEnds,
    /// Until then its holder may count on what another host promised it.
    believed_until: Time,
    /// Of the last session lease.
    length: Duration,
    /// The cache lease ended while news was unacknowledged, which it still is.
    lapsed: bool,
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
    pub(super) fn new(id: SessionId, holder: Holder, ends: LeaseEnds, lease: Duration) -> Self {
        Self {
            holder,
            connection: None,
            since: None,
            in_flight: BTreeSet::new(),
            settled_below: RequestNumber(0),
            news: Unacknowledged::default(),
            ending: false,
            expelled: None,
            ends,
            believed_until: Time::ZERO,
            length: lease,
            lapsed: false,
            parked: None,
            phase: phase(id, lease * 2 / 3),
        }
    }

    /// The lease that goes with a Welcome: what can be granted, or what is left of the last one.
    pub(super) fn first_grant(
        &mut self,
        now: Time,
        received: Time,
        terms: LeaseTerms,
        ceiling: Ceiling,
    ) -> Option<Grant> {
        if let Some(grant) = self.grant(now, received, terms, ceiling) {
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

    /// The holder begins anew with this host, and takes for lost what it was not told of before.
    pub(super) fn drop_events(&mut self) {
        self.news.drop_events();
        self.lapsed &= !self.news.is_empty();
    }

    /// Whether the holder is known to have heard what was said here, and to have been nowhere else since.
    pub(super) fn is_continued_by(&self, hello: &Hello) -> bool {
        let has_heard = self.since.is_none() || self.since == hello.known_since;
        has_heard && hello.claim <= self.holder.claim.next()
    }

    /// Moves the session to this connection; returns the one that spoke before.
    pub(super) fn speak_on(
        &mut self,
        received: Time,
        connection: ConnectionId,
        hello: &Hello,
        resumed: bool,
    ) -> Option<ConnectionId> {
        if !resumed {
            let believed_until = believed_until(received, hello.lease_left);
            self.believed_until = self.believed_until.max(believed_until);
        }
        if !resumed || self.since.is_none() {
            self.since = Some(hello.claim);
            self.holder.first_request = hello.next_request;
        }
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
        !self.ending && now >= self.end()
    }

    /// When the host may end it: not while its holder counts on it, whoever made it believe that (P-LEASE).
    fn end(&self) -> Time {
        self.ends.session.max(self.believed_until)
    }

    pub(super) fn is_keep_alive_due(&self, now: Time) -> bool {
        self.parked.is_some() && now >= self.answer_at()
    }

    /// Answers the parked KeepAlive if it is due (`ka-1`) and the ceiling allows an extension. News does
    /// not wait for it: it travels by itself, and is acknowledged by itself (`ka-3`).
    pub(super) fn answer_keep_alive(
        &mut self,
        now: Time,
        terms: LeaseTerms,
        ceiling: Ceiling,
    ) -> Option<(u64, Grant)> {
        if !self.is_keep_alive_due(now) {
            return None;
        }
        let Parked { number, received } = self.parked?;
        let grant = self.grant(now, received, terms, ceiling)?;
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
        let mut at = self.end();
        if self.parked.is_some() && !overdue {
            at = at.min(self.answer_at());
        }
        if !self.news.is_empty() && !self.lapsed {
            at = at.min(self.ends.cache);
        }
        Some(at)
    }

    pub(super) fn may_cache(&self, now: Time) -> bool {
        !self.ending && !self.lapsed && self.connection.is_some() && now < self.ends.cache
    }

    pub(super) const fn cache_end(&self) -> Time {
        self.ends.cache
    }

    /// Whether the cache lease has just been found over with news unacknowledged.
    pub(super) fn lapses(&mut self, now: Time) -> bool {
        let lapses = !self.lapsed && !self.news.is_empty() && now >= self.ends.cache;
        self.lapsed |= lapses;
        lapses
    }

    /// Whether that piece of news waited for it.
    pub(super) fn acknowledge(&mut self, sequence: Sequence) -> bool {
        let waited = self.news.acknowledge(sequence);
        self.lapsed &= !self.news.is_empty();
        waited
    }

    fn answer_at(&self) -> Time {
        LeaseTerms::answer_at(self.ends.session, self.length, self.phase)
    }

    fn grant(&mut self, now: Time, received: Time, terms: LeaseTerms, ceiling: Ceiling) -> Option<Grant> {
        if self.ending {
            return None;
        }
        let mut grant = terms.grant(now, received, self.ends, ceiling)?;
        if let Some(since) = self.news.oldest() {
            // ka-3: with news unacknowledged there is no further cache lease. Proxies and routers, which may
            // have to wait for their own clients, get it for one lease more.
            let end = if self.holder.role.is_tier() { since + terms.lease } else { self.ends.cache };
            grant.cache = grant.cache.min(end.saturating_since(now));
        }
        if self.lapsed {
            grant.cache = Duration::ZERO;
        }
        self.length = grant.session;
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
