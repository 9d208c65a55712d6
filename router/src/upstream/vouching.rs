//! For how long a cell may go by what it is told of the home cell's ACLs: as long as the cache lease there, counted from
//! a moment of the cell's own clock that it told us, and told to it again while requests wait (`route-5`, `time-2`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hasp_proto::crossing::{Anchor, Vouch};
use hasp_proto::lease::ends_for_receiver;
use hasp_proto::stream::Grant;
use hasp_proto::time::Time;

/// An anchor that was heard longer ago is not counted from: clocks may differ in rate, and what lies back long has been
/// followed by others.
const ANCHOR_AGE_MAX: Duration = Duration::from_secs(30);
/// How often a cell where requests wait is told again.
pub(super) const VOUCH_INTERVAL: Duration = Duration::from_secs(3);

/// What was heard of the masters' clocks, and when they are to be told.
#[derive(Clone, Debug, Default)]
pub(super) struct Vouching {
    /// By slot; with when it was received.
    anchors: BTreeMap<usize, (Anchor, Time)>,
    /// Slots that have not answered yet.
    asked: BTreeSet<usize>,
    /// When cells where requests wait are told again.
    pub(super) due: Option<Time>,
}

impl Vouching {
    /// A master named a moment of its clock.
    pub(super) fn heard(&mut self, now: Time, slot: usize, anchor: Anchor) {
        let is_newer = |(known, _): &(Anchor, Time)| (anchor.epoch, anchor.at) > (known.epoch, known.at);
        if self.anchors.get(&slot).is_none_or(is_newer) {
            self.anchors.insert(slot, (anchor, now));
        }
    }

    /// Our word to that cell, if what it is about may be used until `end`; `None` if it is over, or there is no anchor to
    /// count from.
    ///
    /// The master counts from when it named the anchor, which was before it was received. So by a clock within the bound
    /// it stops before `end`.
    pub(super) fn vouch(&self, now: Time, slot: usize, end: Time) -> Option<Vouch> {
        let (anchor, received) = *self.anchors.get(&slot)?;
        if end <= now || now.saturating_since(received) > ANCHOR_AGE_MAX {
            return None;
        }
        Some(Vouch { anchor, lasts: slowed(end.saturating_since(received)) })
    }

    /// Somebody waits for long from now on.
    pub(super) fn begin(&mut self, now: Time) {
        self.due.get_or_insert(now + VOUCH_INTERVAL);
    }

    /// That cell is told; `false` if it has not answered the last time.
    pub(super) fn ask(&mut self, slot: usize) -> bool {
        self.asked.insert(slot)
    }

    /// It has answered, or will not.
    pub(super) fn answered(&mut self, slot: usize) {
        self.asked.remove(&slot);
    }
}

/// What is left of a duration by a clock that may run slower, as of a lease (`time-2`).
fn slowed(duration: Duration) -> Duration {
    let grant = Grant { held: Duration::ZERO, session: Duration::ZERO, cache: duration };
    ends_for_receiver(Time::ZERO, &grant).cache.saturating_since(Time::ZERO)
}

#[cfg(test)]
mod tests {
    use hasp_proto::id::Epoch;

    use super::*;

    const fn t(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    const fn anchor(epoch: u64, millis: u64) -> Anchor {
        Anchor { epoch: Epoch(epoch), at: t(millis) }
    }

    #[test]
    fn a_vouch_lasts_as_long_as_the_lease_by_any_clock_within_the_bound() {
        let mut vouching = Vouching::default();
        vouching.heard(t(1_000), 0, anchor(1, 77_000));

        let check = |now, end, lasts: Option<u64>| {
            let expected =
                lasts.map(|lasts| Vouch { anchor: anchor(1, 77_000), lasts: Duration::from_micros(lasts) });
            assert_eq!(vouching.vouch(now, 0, end), expected, "{now:?} {end:?}");
        };
        check(t(1_000), t(11_100), Some(10_000_000));
        check(t(9_000), t(11_100), Some(10_000_000));
        check(t(9_000), t(2_010), None);
        check(t(2_010), t(2_010), None);
        check(t(2_009), t(2_010), Some(1_000_000));
        assert_eq!(vouching.vouch(t(1_000), 1, t(11_100)), None, "another cell");
    }

    #[test]
    fn the_newest_anchor_counts_for_thirty_seconds() {
        let mut vouching = Vouching::default();
        let anchor_at = |vouching: &Vouching, now| vouching.vouch(now, 0, t(90_000)).map(|it| it.anchor);

        vouching.heard(t(0), 0, anchor(1, 500));
        assert_eq!(anchor_at(&vouching, t(30_000)), Some(anchor(1, 500)));
        assert_eq!(anchor_at(&vouching, t(30_001)), None);
        vouching.heard(t(30_000), 0, anchor(1, 500));
        assert_eq!(anchor_at(&vouching, t(30_001)), None, "no newer than it was");
        vouching.heard(t(30_000), 0, anchor(2, 3));
        vouching.heard(t(30_500), 0, anchor(1, 700));
        assert_eq!(anchor_at(&vouching, t(60_000)), Some(anchor(2, 3)));
        assert_eq!(anchor_at(&vouching, t(60_001)), None);
    }

    #[test]
    fn a_cell_that_has_not_answered_is_not_told_again() {
        let mut vouching = Vouching::default();
        vouching.begin(t(1_000));
        vouching.begin(t(2_000));
        assert_eq!(vouching.due, Some(t(4_000)));

        assert!(vouching.ask(0) && !vouching.ask(0) && vouching.ask(1));
        vouching.answered(0);
        assert!(vouching.ask(0));
    }
}
