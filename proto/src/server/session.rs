//! One session as its host sees it: its leases, its waiting KeepAlive, its news.

use std::collections::BTreeSet;
use std::time::Duration;

use super::news::Unacknowledged;
use super::stretch::Lag;
use super::{ConnectionId, Holder};
use crate::error::Error;
use crate::id::{Claim, RequestNumber, Sequence, SessionId};
use crate::lease::{Ceiling, LeaseEnds, LeaseLengths, Refresh, answer_at, believed_until, fraction_of};
use crate::limits::CLAIM_WINDOW;
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
    /// It was elsewhere, and until then nothing need be heard of it here: it may have left before it was welcomed, and
    /// look for another host until its grace period is over.
    kept_until: Time,
    /// Of the last session lease.
    length: Duration,
    /// The cache lease ended while news was unacknowledged, which it still is.
    lapsed: bool,
    parked: Option<Parked>,
    /// Taken off the first hold, so that sessions made together do not stay in step.
    phase: Duration,
    /// It keeps copies, or its own clients do: its cache lease must not lapse.
    pub(super) keeps: bool,
    /// Its place among all sessions, in 65,536ths: follows from its id.
    fraction: u16,
    /// The lease that the host grants usually.
    usual: Duration,
    /// When it was last told of one: from then on its KeepAlive is expected.
    told_at: Time,
    lag: Lag,
    /// Its KeepAlive waits for something to be granted.
    pub(super) waits: Option<Waits>,
    /// Turned out to begin anew: its holder is let in by the owner, whatever it says.
    pub(super) is_turned_out: bool,
}

/// For what a parked KeepAlive waits that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// More of the cache lease (`ka-5`).
    Cache,
    /// More of the session lease (`ka-1`).
    Session,
}

/// A KeepAlive that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Parked {
    number: u64,
    received: Time,
}

impl Session {
    pub(super) fn new(id: SessionId, holder: Holder, ends: LeaseEnds, lease: Duration) -> Self {
        let fraction = u16::from_be_bytes([id.0[14], id.0[15]]);
        // Proxies are few, and one that is granted the leases of all its cells at once need not ask for more so often.
        let is_tier = holder.role.is_tier();
        Self {
            phase: if is_tier { Duration::ZERO } else { fraction_of(lease * 2 / 3, fraction) },
            fraction,
            usual: lease,
            told_at: Time::ZERO,
            lag: Lag::default(),
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
            kept_until: Time::ZERO,
            length: lease,
            lapsed: false,
            parked: None,
            keeps: false,
            waits: None,
            is_turned_out: false,
        }
    }

    /// The lease that goes with a Welcome: what can be granted, or what is left of the last one.
    pub(super) fn first_grant(
        &mut self,
        now: Time,
        received: Time,
        lengths: LeaseLengths,
        ceiling: Ceiling,
    ) -> Option<Grant> {
        if let Some(grant) = self.grant(now, received, lengths, ceiling) {
            return Some(grant);
        }
        // Its KeepAlives begin anew with this Welcome.
        self.told_at = now;
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
        has_heard && hello.claim <= self.holder.claim.next() && !self.is_turned_out
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
            if hello.known_since.is_some() && !hello.role.is_tier() {
                self.kept_until = received + CLAIM_WINDOW;
            }
        }
        if !resumed || self.since.is_none() {
            self.since = Some(hello.claim);
            self.holder.first_request = hello.next_request;
        }
        self.holder.claim = hello.claim;
        self.is_turned_out = false;
        self.parked = None;
        self.waits = None;
        self.connection.replace(connection).filter(|old| *old != connection)
    }

    pub(super) fn lost(&mut self, connection: ConnectionId) {
        if self.connection == Some(connection) {
            self.connection = None;
            self.parked = None;
            self.waits = None;
        }
    }

    pub(super) fn park(&mut self, now: Time, number: u64) {
        if !self.ending {
            self.parked = Some(Parked { number, received: now });
            self.waits = None;
            // It has heard the Welcome.
            self.kept_until = Time::ZERO;
            // The holder sends it as soon as it has the lease before.
            self.lag.was(now.saturating_since(self.told_at));
        }
    }

    pub(super) fn is_over(&self, now: Time) -> bool {
        !self.ending && now >= self.end()
    }

    /// When the host may end it: not while its holder counts on it, whoever made it believe that (P-LEASE), nor before who
    /// came and went unheard may be elsewhere (`proxy-3`).
    fn end(&self) -> Time {
        self.ends.session.max(self.believed_until).max(self.kept_until)
    }

    /// Answers the parked KeepAlive if it is due (`ka-1`, `ka-5`) and the ceiling allows an extension; else it waits for
    /// one. News does not wait for it: it travels by itself, and is acknowledged by itself (`ka-3`).
    pub(super) fn answer_keep_alive(
        &mut self,
        now: Time,
        lengths: LeaseLengths,
        ceiling: Ceiling,
    ) -> Option<(u64, Grant)> {
        let Parked { number, received } = self.parked?;
        let due = self.due(now, ceiling)?;
        self.waits = Some(due);
        let cache_end = self.ends.cache;
        let grant = match due {
            Waits::Session => self.grant(now, received, lengths, ceiling)?,
            Waits::Cache => {
                let possible = self.possible(now, received, lengths, ceiling)?;
                if now + possible.cache < cache_end.max(now) + Refresh::under(self.usual).gain {
                    return None;
                }
                self.grant(now, received, lengths, ceiling)?
            }
        };
        self.waits = None;
        self.parked = None;
        self.phase = Duration::ZERO;
        Some((number, grant))
    }

    /// Why the parked KeepAlive is to be answered, if it is.
    fn due(&self, now: Time, ceiling: Ceiling) -> Option<Waits> {
        if now >= self.answer_at() {
            Some(Waits::Session)
        } else if self.refresh_at(ceiling).is_some_and(|at| now >= at) {
            Some(Waits::Cache)
        } else {
            None
        }
    }

    /// When something happens to the session by itself. A KeepAlive that waits for the ceiling does not wait for time.
    pub(super) fn deadline(&self, ceiling: Ceiling) -> Option<Time> {
        if self.ending {
            return None;
        }
        let mut at = self.end();
        if self.parked.is_some() && self.waits != Some(Waits::Session) {
            at = at.min(self.answer_at());
            if self.waits.is_none() {
                at = self.refresh_at(ceiling).map_or(at, |refresh| at.min(refresh));
            }
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
        answer_at(self.ends.session, self.length, self.phase)
    }

    /// Under a master the two leases are the same, and the session lease comes first.
    fn refresh_at(&self, ceiling: Ceiling) -> Option<Time> {
        let is_meant = self.keeps && matches!(ceiling, Ceiling::Upstream(_));
        let refresh = Refresh::under(self.usual);
        is_meant.then(|| refresh.at(self.ends.cache, self.holder.role.is_tier(), self.fraction))
    }

    fn possible(&self, now: Time, received: Time, lengths: LeaseLengths, ceiling: Ceiling) -> Option<Grant> {
        if self.ending {
            return None;
        }
        // A master's leases are the cell's to stretch (`lease-5`).
        let session = match ceiling {
            Ceiling::Upstream(_) => lengths.session.max(self.lag.lease(self.usual)),
            Ceiling::Master | Ceiling::Closed => lengths.session,
        };
        let mut grant = LeaseLengths { session, ..lengths }.grant(now, received, self.ends, ceiling)?;
        if let Some(since) = self.news.oldest() {
            // ka-3: with news unacknowledged there is no further cache lease. Proxies and routers, which may
            // have to wait for their own clients, get it for one lease more.
            let end = if self.holder.role.is_tier() { since + lengths.cache } else { self.ends.cache };
            grant.cache = grant.cache.min(end.saturating_since(now));
        }
        if self.lapsed {
            grant.cache = Duration::ZERO;
        }
        Some(grant)
    }

    fn grant(&mut self, now: Time, received: Time, lengths: LeaseLengths, ceiling: Ceiling) -> Option<Grant> {
        let grant = self.possible(now, received, lengths, ceiling)?;
        // What it kept is void by then; a proxy's clients go on.
        self.keeps &= now < self.ends.cache || self.holder.role.is_tier();
        self.length = grant.session;
        self.told_at = now;
        let granted = LeaseEnds { session: now + grant.session, cache: now + grant.cache };
        self.ends = self.ends.extended_to(granted);
        Some(grant)
    }
}
