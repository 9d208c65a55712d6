//! The arithmetic of leases: rules `time-1` to `time-3`, `lease-1`, `lease-2`, `lease-5`, `ka-1`.
//!
//! A lease is counted by its granter from when it answers and by its receiver from when it *sent*
//! the request, shortened by the clock-rate bound. So the receiver's end never lies after the
//! granter's, whatever the message took and however the clocks run within the bound.

use std::time::Duration;

use crate::limits::{CLAIM_WINDOW, CLOCK_RATE_BOUND_PPM, KEEP_ALIVE_TICK, LEASE, LEASE_MAX};
use crate::stream::Grant;
use crate::time::Time;

/// When the receiver of a grant must take the leases for ended (`time-2`).
///
/// `sent` is when the message that the grant answers was sent, by the receiver's clock.
pub fn ends_for_receiver(sent: Time, grant: &Grant) -> LeaseEnds {
    LeaseEnds {
        session: sent + slowed(grant.held + grant.session),
        cache: sent + slowed(grant.held + grant.cache),
    }
}

/// Until when a host must reckon with a holder that said, in a message received at that time, that it counts on its
/// session for so much longer by its own clock (`time-3`). No host promises more than the maximum, nor did another.
pub fn believed_until(received: Time, left: Duration) -> Time {
    let left = left.min(LEASE_MAX);
    received + left + left * CLOCK_RATE_BOUND_PPM / 1_000_000 + Duration::from_micros(1)
}

/// `duration / (1 + rho)`, rounded down.
fn slowed(duration: Duration) -> Duration {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 1_000_000);
    let scaled = u128::from(micros) * 1_000_000 / u128::from(1_000_000 + CLOCK_RATE_BOUND_PPM);
    Duration::from_micros(u64::try_from(scaled).unwrap_or(u64::MAX))
}

/// Ends of a session's two leases, by one process's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseEnds {
    /// Until then the session, its handles and locks are safe.
    pub session: Time,
    /// Until then cached data may be used.
    pub cache: Time,
}

impl LeaseEnds {
    /// Both ends moved to the later of the two (`time-3`: a lease never moves back).
    #[must_use]
    pub fn extended_to(self, other: LeaseEnds) -> LeaseEnds {
        LeaseEnds { session: self.session.max(other.session), cache: self.cache.max(other.cache) }
    }
}

/// How far a host may grant, set from outside by what it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// Nothing may be granted: no master lease, or no upstream session.
    Closed,
    /// Only the cell-wide maximum bounds the grants: the host is a master under its lease.
    Master,
    /// No downstream lease may end after these points: the host is a proxy or router.
    Upstream(LeaseEnds),
}

impl Ceiling {
    /// The ceiling below an upstream session with these ends: cache leases end before the upstream
    /// cache lease (`lease-1`), session leases before its session lease plus the claim window
    /// (`lease-2`). `margin` is kept off both.
    pub fn below(upstream: LeaseEnds, margin: Duration) -> Self {
        Self::Upstream(LeaseEnds {
            session: upstream.session + CLAIM_WINDOW - margin,
            cache: upstream.cache - margin,
        })
    }

    /// The same below a session with a host that is no cell: the claim window after the end of the cell's session is in
    /// what that host has promised already (`lease-2`).
    pub fn within(upstream: LeaseEnds, margin: Duration) -> Self {
        Self::Upstream(LeaseEnds { session: upstream.session - margin, cache: upstream.cache - margin })
    }

    /// The tighter of two ceilings.
    #[must_use]
    pub fn and(self, other: Ceiling) -> Ceiling {
        match (self, other) {
            (Self::Closed, _) | (_, Self::Closed) => Self::Closed,
            (Self::Master, bound) | (bound, Self::Master) => bound,
            (Self::Upstream(a), Self::Upstream(b)) => {
                Self::Upstream(LeaseEnds { session: a.session.min(b.session), cache: a.cache.min(b.cache) })
            }
        }
    }
}

/// How a host grants leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// What it grants when nothing bounds it.
    pub lease: Duration,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self { lease: LEASE }
    }
}

/// How long the leases of one session are that nothing bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLengths {
    /// Of the session lease.
    pub session: Duration,
    /// Of the cache lease.
    pub cache: Duration,
}

impl LeaseLengths {
    /// Both the same.
    pub const fn of(lease: Duration) -> Self {
        Self { session: lease, cache: lease }
    }

    /// What may be granted to a session whose leases end at `current`, answering at `now` a message
    /// held since `received`; `None` if that would not extend the session lease.
    pub fn grant(&self, now: Time, received: Time, current: LeaseEnds, ceiling: Ceiling) -> Option<Grant> {
        let wanted =
            LeaseEnds { session: now + self.session.min(LEASE_MAX), cache: now + self.cache.min(LEASE_MAX) };
        let ends = match ceiling {
            Ceiling::Closed => return None,
            Ceiling::Master => wanted,
            Ceiling::Upstream(bound) => {
                LeaseEnds { session: wanted.session.min(bound.session), cache: wanted.cache.min(bound.cache) }
            }
        };
        (ends.session > current.session && ends.session > now).then(|| Grant {
            held: now.saturating_since(received),
            session: ends.session.saturating_since(now),
            cache: ends.cache.saturating_since(now),
        })
    }
}

/// When to answer a KeepAlive under a session lease of this length that ends at `end`: with a
/// third of it left (`ka-1`), or `phase` earlier, at a tick of the host's clock.
pub fn answer_at(end: Time, length: Duration, phase: Duration) -> Time {
    (end - length / 3 - phase).rounded_down(KEEP_ALIVE_TICK)
}

/// When a relay answers the KeepAlive of a session that keeps copies, if it can grant more of the cache lease (`ka-5`). The
/// relay's own is extended with a third left (`ka-1`), and all this is after that. In parts of its usual lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// How much is left then, of an application's: up to so much, by session,
    spread: Duration,
    /// and so much more.
    left: Duration,
    /// The same of a relay's: others wait for what it is granted.
    of_relay: Duration,
    /// What an answer for this reason gains at least: of several cells, whose leases end at different times, the nearest
    /// end binds.
    pub gain: Duration,
}

impl Refresh {
    /// Of a relay that grants leases of this length.
    pub fn under(lease: Duration) -> Self {
        Self { spread: lease / 5, left: lease / 12, of_relay: lease / 3, gain: lease * 5 / 24 }
    }

    /// When that is for a session whose cache lease ends at `end`; `fraction`, in 65,536ths, spreads applications.
    pub fn at(&self, end: Time, is_relay: bool, fraction: u16) -> Time {
        let left = if is_relay { self.of_relay } else { self.left + fraction_of(self.spread, fraction) };
        (end - left).rounded_down(KEEP_ALIVE_TICK)
    }
}

/// So many 65,536ths of it.
pub fn fraction_of(span: Duration, fraction: u16) -> Duration {
    span * u32::from(fraction) / 65_536
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::t;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_receiver_counts_from_sending_and_allows_for_the_clock_rate() {
        let grant = Grant { held: s(8), session: s(12), cache: s(4) };

        let ends = ends_for_receiver(t(1_000), &grant);

        assert_eq!(ends.session, t(1_000) + Duration::from_micros(20_000_000 * 100 / 101));
        assert_eq!(ends.cache, t(1_000) + Duration::from_micros(12_000_000 * 100 / 101));
    }

    #[test]
    fn a_grant_extends_or_is_none() {
        let terms = LeaseLengths::of(s(12));
        let ends = LeaseEnds { session: t(20_000), cache: t(20_000) };

        assert_eq!(terms.grant(t(8_000), t(0), ends, Ceiling::Master), None, "nothing to extend yet");
        assert_eq!(
            terms.grant(t(16_000), t(9_000), ends, Ceiling::Master),
            Some(Grant { held: s(7), session: s(12), cache: s(12) })
        );
        assert_eq!(terms.grant(t(16_000), t(9_000), ends, Ceiling::Closed), None, "no master lease");
    }

    #[test]
    fn downstream_leases_nest_within_the_upstream_ones() {
        let terms = LeaseLengths::of(s(12));
        let upstream = LeaseEnds { session: t(10_000), cache: t(10_000) };
        let ceiling = Ceiling::below(upstream, s(1));
        let none = LeaseEnds::default();

        let grant = terms.grant(t(4_000), t(4_000), none, ceiling).expect("grants");
        assert_eq!(grant.cache, s(5), "lease-1: ends at 9 s, before the upstream cache lease");
        assert_eq!(grant.session, s(12), "lease-2: far below 10 s + 60 s");

        let late = terms.grant(t(65_000), t(65_000), none, ceiling).expect("grants");
        assert_eq!(late.cache, s(0), "nothing may be cached any more");
        assert_eq!(late.session, s(4), "ends at 69 s, within the claim window");
        assert_eq!(terms.grant(t(69_000), t(69_000), none, ceiling), None);
    }

    #[test]
    fn no_lease_is_longer_than_the_maximum() {
        let terms = LeaseLengths::of(s(600));

        let grant = terms.grant(t(0), t(0), LeaseEnds::default(), Ceiling::Master).expect("grants");

        assert_eq!(grant.session, LEASE_MAX);
    }

    proptest::proptest! {
        /// The receiver's end, in true time, is never after the granter's, whatever the delays
        /// and with either clock running up to half the bound off.
        #[test]
        fn receiver_never_outlives_granter(
            sent in 0u64..1_000_000_000, up in 0u64..5_000_000, held in 0u64..20_000_000,
            lease in 0u64..60_000_000, fast in 0u64..=9_900,
        ) {
            // True time is the receiver's clock; the granter's runs faster by `fast` ppm.
            let granter = |micros: u64| micros + micros * fast / 1_000_000;
            let grant = Grant {
                held: Duration::from_micros(granter(held)),
                session: Duration::from_micros(lease),
                cache: Duration::from_micros(lease),
            };
            let answered = sent + up + held;
            // The granter's lease of `lease` on its fast clock passes sooner in true time.
            let granter_end = answered + lease * 1_000_000 / (1_000_000 + fast);

            let receiver_end = ends_for_receiver(Time::from_micros(sent), &grant).session;

            proptest::prop_assert!(receiver_end.as_micros() <= granter_end + 1);
        }
    }
}
