//! Of `delay`.

use std::time::Duration;

use hasp_cell::state::HolderId;
use hasp_proto::id::{RequestNumber, SessionId};

use super::*;
use crate::sim::lock_log::{DelayEnded, LockLog, Lost, Taken};

const DELAY: Duration = Duration::from_secs(2);
const HOLDER: HolderId = HolderId { session: SessionId([1; 16]), opened_by: RequestNumber(3) };

fn s(tenths: u64) -> Moment {
    Moment(tenths * 100_000)
}

/// Lost by the command 10 at 10 s; the lock-delay ended at 20 and the lock taken at 21, then.
fn history(ended: Moment, taken: Moment) -> History {
    let (name, instance) = (name("/ls/dev/l0"), Instance(1));
    let lost = Lost { name: name.clone(), instance, holder: HOLDER, delay: DELAY, index: 10, at: s(100) };
    let end = DelayEnded { name: name.clone(), began: 10, index: 20, at: ended };
    let taken = Taken { name, instance, session: SessionId([2; 16]), index: 21, at: taken };
    let locks =
        LockLog { taken: vec![taken], lost: vec![lost], delays_ended: vec![end], ..LockLog::default() };
    let truth = Truth { locks, ..Truth::default() };
    let lock_delays = BTreeMap::from([(HOLDER, DELAY)]);
    History { truths: BTreeMap::from([(CellName::new("a"), truth)]), lock_delays, ..History::default() }
}

fn locks(history: &mut History) -> &mut LockLog {
    &mut history.truths.get_mut(&CellName::new("a")).unwrap().locks
}

#[test]
fn a_lock_that_is_taken_when_its_delay_has_passed_is_right_and_earlier_is_seen() {
    assert_eq!(found(history(s(120), s(120)), Vec::new()), Vec::<String>::new());

    finds(history(s(119), s(119)), Vec::new(), "P-DELAY: /ls/dev/l0 was lost at index 10");
}

#[test]
fn a_lock_that_is_taken_before_the_log_ended_its_delay_is_seen() {
    let mut early = history(s(150), s(150));
    locks(&mut early).taken[0].index = 19;
    finds(early, Vec::new(), "though its lock-delay had not ended");

    let mut other = history(s(150), s(150));
    locks(&mut other).taken[0].instance = Instance(9);
    locks(&mut other).taken[0].index = 19;
    assert_eq!(found(other, Vec::new()), Vec::<String>::new(), "another node of the same name");
}

#[test]
fn a_new_master_must_begin_the_delay_again() {
    let mut hasty = history(s(130), s(130));
    locks(&mut hasty).masters.push((15, s(115)));
    finds(hasty, Vec::new(), "was ended at index 20");

    let mut patient = history(s(135), s(135));
    locks(&mut patient).masters.extend([(5, s(90)), (15, s(115)), (25, s(140))]);
    assert_eq!(found(patient, Vec::new()), Vec::<String>::new());
}

#[test]
fn a_delay_that_nobody_asked_for_is_seen() {
    let mut short = history(s(120), s(120));
    short.lock_delays.insert(HOLDER, 2 * DELAY);

    finds(short, Vec::new(), "who asked for a lock-delay of 4s and not 2s");
}
