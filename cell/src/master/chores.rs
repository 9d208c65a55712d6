//! What was left behind between this cell and others, and the routers that ask for it: any of them can finish or undo it
//! (`route-4`). Most of it is on its way and needs nobody, so a chore is handed out only after a while; and again, ever
//! later, as long as it is not done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hasp_proto::crossing::Chore;
use hasp_proto::id::{RequestNumber, SessionId};
use hasp_proto::time::Time;

/// For how long a seal, or ACL names that are news elsewhere, may be somebody's who goes on.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a router has for a chore before it is handed out again, the first time.
const PAUSE: Duration = Duration::from_secs(5);
/// The same at most.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Most chores for one router at a time.
const CHORES_MAX: usize = 64;

/// When a chore is handed out.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Time,
    pause: Duration,
}

/// All that is left behind, and who asks for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Chores {
    left: BTreeMap<Chore, Due>,
    askers: VecDeque<(SessionId, RequestNumber)>,
}

impl Chores {
    /// This is left behind now.
    pub(super) fn look(&mut self, now: Time, left: BTreeSet<Chore>) {
        self.left.retain(|chore, _| left.contains(chore));
        for chore in left {
            let patience = match chore {
                Chore::End { .. } | Chore::Move(_) | Chore::Announce(_) => Duration::ZERO,
                Chore::Unseal { .. } | Chore::Propagate { .. } => PATIENCE,
            };
            self.left.entry(chore).or_insert(Due { at: now + patience, pause: PAUSE });
        }
    }

    /// A router wants to be told.
    pub(super) fn ask(&mut self, session: SessionId, number: RequestNumber) {
        self.askers.retain(|(asker, _)| *asker != session);
        self.askers.push_back((session, number));
    }

    /// It does no longer; whether it did.
    pub(super) fn cancel(&mut self, session: SessionId, number: RequestNumber) -> bool {
        let before = self.askers.len();
        self.askers.retain(|asker| *asker != (session, number));
        self.askers.len() < before
    }

    /// Its session is over.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.askers.retain(|(asker, _)| *asker != session);
    }

    /// What is due, for the router that has waited longest.
    pub(super) fn hand_out(&mut self, now: Time) -> Option<(SessionId, RequestNumber, Vec<Chore>)> {
        let due = self.left.iter_mut().filter(|(_, due)| due.at <= now).take(CHORES_MAX);
        if self.askers.is_empty() {
            return None;
        }
        let chores: Vec<_> = due
            .map(|(chore, due)| {
                *due = Due { at: now + due.pause, pause: (2 * due.pause).min(PAUSE_MAX) };
                chore.clone()
            })
            .collect();
        if chores.is_empty() {
            return None;
        }
        let (session, number) = self.askers.pop_front()?;
        Some((session, number, chores))
    }

    /// When something is due for somebody who asks.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.left.values().map(|due| due.at).min().filter(|_| !self.askers.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::crossing::SealTicket;
    use hasp_proto::id::Instance;
    use hasp_proto::name::Name;

    use super::*;

    const R1: SessionId = SessionId([1; 16]);
    const R2: SessionId = SessionId([2; 16]);

    fn end(text: &str) -> Chore {
        Chore::End { name: Name::parse(text).expect("good"), instance: Instance(3) }
    }

    fn unseal(ticket: u64) -> Chore {
        let name = Name::parse("/ls/dev/r/x").expect("good");
        Chore::Unseal { name, instance: Instance(3), ticket: SealTicket(ticket) }
    }

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn number(number: u64) -> RequestNumber {
        RequestNumber(number)
    }

    #[test]
    fn the_router_that_has_waited_longest_is_told_of_all_that_is_due() {
        let mut all = Chores::default();
        all.look(at(0), [end("/ls/dev/a"), end("/ls/dev/b")].into());
        assert_eq!(all.hand_out(at(0)), None, "nobody asks");
        assert_eq!(all.next_due(), None);
        all.ask(R1, number(7));
        all.ask(R2, number(8));

        assert_eq!(all.next_due(), Some(at(0)));
        assert_eq!(all.hand_out(at(0)), Some((R1, number(7), vec![end("/ls/dev/a"), end("/ls/dev/b")])));
        assert_eq!(all.hand_out(at(0)), None, "R1 is at it");
    }

    #[test]
    fn a_seal_is_left_to_whoever_made_it_for_a_while() {
        let mut all = Chores::default();
        all.ask(R1, number(1));
        all.look(at(1_000), [unseal(9)].into());
        all.look(at(3_000), [unseal(9)].into());

        assert_eq!(all.hand_out(at(5_999)), None);
        assert_eq!(all.next_due(), Some(at(6_000)));
        all.look(at(6_000), [unseal(10)].into());
        assert_eq!(all.hand_out(at(6_000)), None, "that is another");
        assert_eq!(all.hand_out(at(11_000)), Some((R1, number(1), vec![unseal(10)])));
    }

    #[test]
    fn what_is_not_done_is_handed_out_again_ever_later_and_what_is_done_is_not() {
        let mut all = Chores::default();
        let mut told = Vec::new();
        for second in 0..200 {
            all.look(at(second * 1_000), [end("/ls/dev/a")].into());
            all.ask(R1, number(second));
            told.extend(all.hand_out(at(second * 1_000)).map(|_| second));
        }
        assert_eq!(told[..6], [0, 5, 15, 30, 45, 60]);
        all.look(at(200_000), BTreeSet::new());
        assert_eq!(all.hand_out(at(300_000)), None);
    }

    #[test]
    fn a_router_that_is_gone_or_does_not_want_to_know_is_not_told() {
        let mut all = Chores::default();
        all.look(at(0), [end("/ls/dev/a")].into());
        all.ask(R1, number(1));
        all.ask(R1, number(2));
        all.ask(R2, number(3));
        assert!(!all.cancel(R1, number(1)), "asked anew");
        assert!(all.cancel(R1, number(2)));
        all.forget(R2);

        assert_eq!(all.hand_out(at(0)), None);
    }
}
