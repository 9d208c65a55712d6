//! Liveness. When nothing goes wrong any more every call comes to an end, also of those who went through the faults; and
//! a change waits for those who may have cached what it changes no longer than their cache leases last, once those who
//! have to do with it are well again.
//!
//! The world knows when something was wrong: what it planned, and for how long. From the end of the last trouble that
//! reached into a call, or from its beginning, the wait is bounded: by the time in which everybody finds out and a master
//! is found, and by the longest lease there may be.

use std::time::Duration;

use hasp_proto::limits::{CLOCK_RATE_BOUND_PPM, LEASE};

use super::super::clock::Moment;
use super::super::faults::{Fault, POWER_APART};
use super::super::history::{Asked, History, What};
use super::super::world::{END, HEALED, World};
use super::Findings;
use super::reads::describe;

/// In which everybody finds out that connections are gone, a master is elected, and sessions are with it.
const RECOVERY: Duration = Duration::from_secs(14);
/// Of true time, in which a new master may have been looked for.
const ELECTION: u64 = 5_000_000;
/// What messages and the log may take where nothing goes wrong, on top of what the network may hold a message up.
const ROUND_TRIPS: Duration = Duration::from_secs(6);

/// At the end of a world.
pub fn check(world: &World, findings: &mut Findings) {
    check_waiting(&world.waiting(), world.counts.answers, findings);
    let planned =
        world.plan.faults.iter().map(|(at, fault)| Trouble { from: *at, until: at_last(*at, fault) });
    let truths = world.history.truths.values();
    let elected = truths.clone().flat_map(|truth| &truth.locks.masters);
    // Without a fault, because of slow messages.
    let elected = elected.map(|(_, at)| Trouble { from: Moment(at.0.saturating_sub(ELECTION)), until: *at });
    let returned = truths.clone().flat_map(|truth| &truth.locks.proxies);
    let returned = returned.filter(|_| may_lose_sessions(world.plan.slow, world.plan.lease));
    let returned = returned.map(|at| Trouble { from: Moment(at.0.saturating_sub(ELECTION)), until: *at });
    let lease_max = truths.map(|truth| truth.state.lease_max()).max().unwrap_or_default();
    let lease = if lease_max > LEASE { lease_max } else { world.plan.lease };
    let patience = Patience { troubles: planned.chain(elected).chain(returned).collect(), lease, lease_max };
    check_waits(&world.history, &patience, findings);
}

/// Whether proxies lose their sessions without a fault, since a message may take longer than what is left of a lease when its
/// KeepAlive is due (`ka-1`). What one call asks of several cells is then asked again for each session that is lost.
pub fn may_lose_sessions((per_mille, millis_max): (u64, u64), lease: Duration) -> bool {
    per_mille > 0 && Duration::from_millis(millis_max) >= lease / 3
}

/// Nobody may wait any longer: who does, and since when.
pub fn check_waiting(waiting: &[(usize, Option<Moment>)], answers: u64, findings: &mut Findings) {
    for (client, since) in waiting {
        findings.expect(false, || {
            let since = since.map_or_else(|| "without a call".to_owned(), |at| format!("since {at}"));
            format!(
                "no progress: c{} still waits at {END}, {since}; all was well from {HEALED} on",
                client + 1
            )
        });
    }
    findings.expect(answers > 20, || format!("no progress: only {answers} calls were answered"));
}

/// Something that went wrong.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// When it began.
    pub from: Moment,
    /// When it was over.
    pub until: Moment,
}

/// How long changes may have to wait.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Everything that went wrong.
    pub troubles: Vec<Trouble>,
    /// The longest lease that anybody was granted while all went well.
    pub lease: Duration,
    /// The longest that a new master must take into account.
    pub lease_max: Duration,
}

/// No change that was acknowledged had to wait for longer.
pub fn check_waits(history: &History, patience: &Patience, findings: &mut Findings) {
    let slowed = |lease: Duration| lease * (1_000_000 + CLOCK_RATE_BOUND_PPM) / 1_000_000;
    for asked in history.asked.iter().filter(|asked| waits_for_cachers(asked)) {
        let Some(told) = &asked.told else { continue };
        let reaching = |it: &&Trouble| it.from < told.at && it.until + RECOVERY > asked.begun;
        let well = patience.troubles.iter().filter(reaching).map(|it| it.until).max();
        let (since, bound) = match well {
            Some(until) => (until.max(asked.begun), RECOVERY + slowed(patience.lease_max)),
            None => (asked.begun, ROUND_TRIPS + slowed(patience.lease)),
        };
        let waited = told.at.since(since);
        findings.expect(waited <= bound, || {
            let Asked { begun, .. } = asked;
            let (what, at) = (describe(asked), asked.index().unwrap_or_default());
            format!(
                "no bound: {what}, done at index {at}, waited for {waited:?} of at most {bound:?} though all was well since \
                 {since}; asked at {begun}"
            )
        });
    }
}

fn waits_for_cachers(asked: &Asked) -> bool {
    asked.has_changed() && !matches!(asked.what, What::Acquire(_))
}

/// When a fault that began then is over.
fn at_last(at: Moment, fault: &Fault) -> Moment {
    let long = match fault {
        Fault::Crash(_, long)
        | Fault::Pause(_, long)
        | Fault::Cut(_, _, _, long)
        | Fault::Isolate(_, long)
        | Fault::CrashMaster(_, long)
        | Fault::PauseMaster(_, long)
        | Fault::IsolateMaster(_, long)
        | Fault::Divide(_, _, long)
        | Fault::LosesFollower(_, long)
        | Fault::ForgottenVote(_, long) => *long,
        Fault::PowerLoss(_, long) => *long + POWER_APART,
        Fault::StepDown(_) => Duration::from_secs(3),
        Fault::Restart(_) | Fault::Reset(_) => Duration::ZERO,
    };
    (at + long).min(HEALED.max(at))
}
