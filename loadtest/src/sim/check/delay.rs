//! P-DELAY: nobody takes a lock that was lost with its holder's session before the lock-delay has passed that its holder
//! asked for, in true time as far as clocks may differ; a new master begins it again in full. And a lock that was given
//! back is barred to nobody: that is `lock-4`, and shows as a call that never ends.

use super::super::clock::Moment;
use super::super::history::{History, Truth};
use super::super::lock_log::{DelayEnded, Lost, Taken};
use super::Findings;

/// What a master's clock shows of a second of true time is more than this.
const RATE_MIN_PPM: u32 = 990_000;

/// Checks all locks that were lost.
pub fn check(history: &History, findings: &mut Findings) {
    for truth in history.truths.values() {
        for lost in &truth.locks.lost {
            if let Some(asked) = history.lock_delays.get(&lost.holder) {
                findings.expect(*asked == lost.delay, || {
                    let Lost { name, holder, delay, index, .. } = lost;
                    format!(
                        "P-DELAY: {name} was lost at index {index} by {holder:?}, who asked for a lock-delay of {asked:?} \
                         and not {delay:?}"
                    )
                });
            }
            check_lost(truth, lost, findings);
            check_elsewhere(history, truth, lost, findings);
        }
    }
}

fn check_lost(truth: &Truth, lost: &Lost, findings: &mut Findings) {
    let Lost { name, instance, delay, index, at, .. } = lost;
    let least = *delay * RATE_MIN_PPM / 1_000_000;
    let taken = truth
        .locks
        .taken
        .iter()
        .find(|taken| (&taken.name, taken.instance) == (name, *instance) && taken.index > *index);
    if let Some(taken) = taken {
        findings.expect(taken.at.since(*at) >= least, || {
            format!(
                "P-DELAY: {name} was lost at index {index}, {at}, with a lock-delay of {delay:?}, and taken by {:?} at index \
                 {}, {}",
                taken.session, taken.index, taken.at
            )
        });
        findings.expect(delay.is_zero() || ended(truth, lost).is_some_and(|it| it.index < taken.index), || {
            format!(
                "P-DELAY: {name} was lost at index {index} and taken at index {}, though its lock-delay had not ended",
                taken.index
            )
        });
    }
    if let Some(end) = ended(truth, lost).filter(|_| !delay.is_zero()) {
        let (begun, master) = begun(truth, lost, end);
        findings.expect(end.at.since(begun) >= least, || {
            format!(
                "P-DELAY: the lock-delay of {delay:?} of {name}, lost at index {index}, {at}, was ended at index {}, {}, by a \
                 master that began at index {master:?}",
                end.index, end.at
            )
        });
    }
}

/// Nor in another cell, to which the node has moved meanwhile.
fn check_elsewhere(history: &History, truth: &Truth, lost: &Lost, findings: &mut Findings) {
    let Lost { name, instance, delay, index, at, .. } = lost;
    let others = history.truths.values().filter(|other| !std::ptr::eq(*other, truth));
    let is_it = |taken: &&Taken| (&taken.name, taken.instance) == (name, *instance) && taken.at >= *at;
    let taken = others.flat_map(|other| &other.locks.taken).filter(is_it).min_by_key(|taken| taken.at);
    if let Some(taken) = taken {
        findings.expect(taken.at.since(*at) >= *delay * RATE_MIN_PPM / 1_000_000, || {
            format!(
                "P-DELAY: {name} was lost at index {index}, {at}, with a lock-delay of {delay:?}, and taken by {:?} in \
                 another cell at {}",
                taken.session, taken.at
            )
        });
    }
}

fn ended<'a>(truth: &'a Truth, lost: &Lost) -> Option<&'a DelayEnded> {
    truth.locks.delays_ended.iter().find(|end| end.name == lost.name && end.began == lost.index)
}

/// When the master that ended it could begin to count, and the index of its mastership if that is later than the loss.
fn begun(truth: &Truth, lost: &Lost, end: &DelayEnded) -> (Moment, Option<u64>) {
    let between = |(index, _): &&(u64, Moment)| *index > lost.index && *index < end.index;
    let master = truth.locks.masters.iter().rfind(between);
    master.map_or((lost.at, None), |(index, at)| ((*at).max(lost.at), Some(*index)))
}
