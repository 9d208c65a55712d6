//! For how long the word of routers on ACLs of other cells stands (`route-5`).
//!
//! A router speaks for an ACL as long as its cache lease at the home cell lasts, and while it does, the ACL does not change
//! before the router has had everything answered or cancelled that it asked with the old one. It says for how long, counted
//! from a moment of this master's clock that it was told before: so the master's end of it comes first.

use std::collections::BTreeMap;

use hasp_proto::crossing::{Anchor, Vouch};
use hasp_proto::id::SessionId;
use hasp_proto::limits::LEASE_MAX;
use hasp_proto::time::Time;

/// Until when each router's word stands, by its session.
#[derive(Clone, Debug, Default)]
pub(super) struct Vouches {
    until: BTreeMap<SessionId, Time>,
}

impl Vouches {
    /// A router says for how long its word stands. Of another master's clock nothing follows here.
    pub(super) fn heard(&mut self, speaker: SessionId, now: Anchor, vouch: Option<Vouch>) {
        let Some(Vouch { anchor, lasts }) = vouch else { return };
        if anchor.epoch == now.epoch && anchor.at <= now.at && lasts <= 2 * LEASE_MAX {
            let until = self.until.entry(speaker).or_default();
            *until = (*until).max(anchor.at + lasts);
        }
    }

    /// Whether its word stands at this moment.
    pub(super) fn stand(&self, speaker: SessionId, now: Time) -> bool {
        self.until.get(&speaker).is_some_and(|until| *until > now)
    }

    /// Its session is over.
    pub(super) fn forget(&mut self, speaker: SessionId) {
        self.until.remove(&speaker);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hasp_proto::id::Epoch;

    use super::*;

    const ROUTER: SessionId = SessionId([1; 16]);

    fn anchor(epoch: u64, at: u64) -> Anchor {
        Anchor { epoch: Epoch(epoch), at: Time::from_millis(at) }
    }

    fn vouch(epoch: u64, at: u64, lasts: u64) -> Option<Vouch> {
        Some(Vouch { anchor: anchor(epoch, at), lasts: Duration::from_millis(lasts) })
    }

    #[test]
    fn a_word_stands_as_long_as_it_was_given_for_counted_from_its_anchor() {
        let mut all = Vouches::default();
        all.heard(ROUTER, anchor(3, 9_000), vouch(3, 1_000, 12_000));

        assert!(all.stand(ROUTER, Time::from_millis(12_999)));
        assert!(!all.stand(ROUTER, Time::from_millis(13_000)));
        assert!(!all.stand(SessionId([2; 16]), Time::from_millis(9_000)));
    }

    #[test]
    fn an_earlier_end_that_comes_later_takes_nothing_back_and_no_word_is_none() {
        let mut all = Vouches::default();
        all.heard(ROUTER, anchor(3, 0), None);
        assert!(!all.stand(ROUTER, Time::ZERO));
        all.heard(ROUTER, anchor(3, 0), vouch(3, 0, 10_000));
        all.heard(ROUTER, anchor(3, 0), vouch(3, 0, 5_000));
        assert!(all.stand(ROUTER, Time::from_millis(9_999)));

        all.forget(ROUTER);
        assert!(!all.stand(ROUTER, Time::ZERO));
    }

    #[test]
    fn what_counts_from_another_masters_clock_or_from_the_future_says_nothing() {
        for vouch in [vouch(2, 1_000, 12_000), vouch(4, 1_000, 12_000), vouch(3, 9_001, 12_000)] {
            let mut all = Vouches::default();
            all.heard(ROUTER, anchor(3, 9_000), vouch);
            assert!(!all.stand(ROUTER, Time::from_millis(9_000)), "{vouch:?}");
        }
    }

    #[test]
    fn no_word_is_taken_for_longer_than_leases_can_last() {
        let mut all = Vouches::default();
        all.heard(ROUTER, anchor(3, 0), vouch(3, 0, 120_001));
        assert!(!all.stand(ROUTER, Time::ZERO));
    }
}
