//! Since when a quorum follows this leader, as the leader can prove it.
//!
//! openraft counts too: but it takes an answer for the answer to everything with the same last entry, also to a
//! message that left after the answer did. That the commit of an entry is told right behind the entry makes this common,
//! and a leader whose followers' answers are slow then believes in a lease that they do not keep. Here an answer counts
//! for the one request that it answers (`lease-5`).

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::time::Instant;

/// Which requests of a leader its followers have answered.
#[derive(Debug)]
pub struct Acks {
    /// By follower: the request that left last, of those that were answered.
    followers: Mutex<BTreeMap<u64, Option<Ack>>>,
}

/// A follower was led in this term by what left then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ack {
    term: u64,
    sent: Instant,
}

impl Acks {
    /// Nothing was answered by these others of the cell.
    pub fn new(others: impl IntoIterator<Item = u64>) -> Self {
        Self { followers: Mutex::new(others.into_iter().map(|id| (id, None)).collect()) }
    }

    /// A follower has accepted a request of the leader of `term` that left at `sent`, or later.
    pub fn accepted(&self, follower: u64, term: u64, sent: Instant) {
        let mut followers = self.followers.lock().expect("not poisoned");
        if let Some(last) = followers.get_mut(&follower) {
            *last = (*last).max(Some(Ack { term, sent }));
        }
    }

    /// When the last request left that a majority, this replica included, accepted in `term`. `now` in a cell of one.
    pub fn quorum_since(&self, term: u64, now: Instant) -> Option<Instant> {
        let followers = self.followers.lock().expect("not poisoned");
        let in_term = followers.values().flatten().filter(|ack| ack.term == term);
        let mut sent: Vec<Instant> = in_term.map(|ack| ack.sent).collect();
        sent.sort_unstable_by(|a, b| b.cmp(a));
        // Of 2n or 2n + 1 replicas, n others make a majority with this one.
        match followers.len().div_ceil(2) {
            0 => Some(now),
            others => sent.get(others - 1).copied(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "an instant to count from")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn times() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |millis| start + Duration::from_millis(millis)
    }

    #[test]
    fn of_three_one_other_makes_a_majority_and_of_five_two_do() {
        let at = times();
        let three = Acks::new([2, 3]);
        three.accepted(2, 7, at(10));
        assert_eq!(three.quorum_since(7, at(99)), Some(at(10)));
        three.accepted(3, 7, at(20));
        assert_eq!(three.quorum_since(7, at(99)), Some(at(20)));

        let five = Acks::new([2, 3, 4, 5]);
        five.accepted(2, 7, at(30));
        assert_eq!(five.quorum_since(7, at(99)), None);
        five.accepted(5, 7, at(10));
        five.accepted(4, 7, at(20));
        assert_eq!(five.quorum_since(7, at(99)), Some(at(20)));
    }

    #[test]
    fn of_two_and_of_four_a_majority_is_more_than_half() {
        let at = times();
        let two = Acks::new([2]);
        assert_eq!(two.quorum_since(7, at(99)), None);
        two.accepted(2, 7, at(10));
        assert_eq!(two.quorum_since(7, at(99)), Some(at(10)));

        let four = Acks::new([2, 3, 4]);
        four.accepted(2, 7, at(10));
        assert_eq!(four.quorum_since(7, at(99)), None);
        four.accepted(3, 7, at(20));
        assert_eq!(four.quorum_since(7, at(99)), Some(at(10)));
    }

    #[test]
    fn one_replica_is_always_its_own_majority() {
        let at = times();
        assert_eq!(Acks::new([]).quorum_since(7, at(99)), Some(at(99)));
    }

    #[test]
    fn answers_out_of_order_and_of_other_terms_take_nothing_back() {
        let at = times();
        let acks = Acks::new([2, 3]);
        acks.accepted(2, 7, at(20));
        acks.accepted(2, 7, at(10));
        assert_eq!(acks.quorum_since(7, at(99)), Some(at(20)));
        assert_eq!(acks.quorum_since(8, at(99)), None, "of an earlier term");

        acks.accepted(2, 8, at(30));
        acks.accepted(2, 7, at(40));
        assert_eq!(acks.quorum_since(8, at(99)), Some(at(30)));
        assert_eq!(acks.quorum_since(7, at(99)), None);
    }

    #[test]
    fn strangers_do_not_count() {
        let at = times();
        let acks = Acks::new([2, 3]);
        acks.accepted(9, 7, at(10));
        assert_eq!(acks.quorum_since(7, at(99)), None);
    }
}
