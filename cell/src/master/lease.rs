//! The master lease: until when this replica may answer reads and grant leases (`lease-5`).
//!
//! Followers promise a leader to elect nobody else for `election_timeout_max`, counted from when
//! they hear it. The leader counts from when it *sent* what a quorum acknowledged, and keeps a tenth
//! off for clocks that run at different rates: openraft itself keeps nothing off.

use std::time::Duration;

use hasp_proto::time::Time;

/// The master lease.
#[derive(Clone, Debug)]
pub struct MasterLease {
    length: Duration,
    acknowledged: Option<Time>,
    /// The lease was found over and has not been extended since.
    lost: bool,
}

impl MasterLease {
    /// A lease that does not run. `promise` is how long followers elect nobody else.
    pub fn new(promise: Duration) -> Self {
        Self { length: promise - promise / 10, acknowledged: None, lost: true }
    }

    /// A quorum acknowledged what was sent at this time.
    pub fn extend(&mut self, sent: Time) {
        if self.acknowledged.is_none_or(|before| sent > before) {
            self.acknowledged = Some(sent);
            self.lost = false;
        }
    }

    /// Another may be master.
    pub fn lose(&mut self) {
        self.acknowledged = None;
        self.lost = true;
    }

    /// Whether nobody else can be master at this time.
    pub fn holds(&mut self, now: Time) -> bool {
        let holds = self.acknowledged.is_some_and(|sent| now < sent + self.length);
        self.lost = !holds;
        holds
    }

    /// The same, and not a look.
    #[cfg(test)]
    pub fn would_hold(&self, now: Time) -> bool {
        self.acknowledged.is_some_and(|sent| now < sent + self.length)
    }

    /// Whether the last look found it over.
    pub const fn is_lost(&self) -> bool {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn it_ends_a_tenth_before_the_followers_promise() {
        let mut lease = MasterLease::new(Duration::from_millis(1_500));
        assert!(!lease.holds(t(0)), "not before a quorum has answered");

        lease.extend(t(1_000));

        assert!(lease.holds(t(2_349)));
        assert!(!lease.holds(t(2_350)));
        assert!(lease.is_lost());
    }

    #[test]
    fn it_never_moves_back_and_is_gone_when_lost() {
        let mut lease = MasterLease::new(Duration::from_millis(1_000));
        lease.extend(t(5_000));
        lease.extend(t(4_000));
        assert!(lease.holds(t(5_899)));

        lease.lose();

        assert!(!lease.holds(t(5_100)));
    }
}
