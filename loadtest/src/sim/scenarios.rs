//! Worlds in which a certain mistake shows, if it is made: most mistakes matter only in a rare order of things, which
//! these bring about again and again.

use std::time::Duration;

use super::clock::Moment;
use super::faults::Fault;
use super::mutants::Mutant;
use super::node::NodeId;
use super::plan::{FIRST_FAULT, HEALED, KINDS, Plan, REPLICAS, faults};
use super::random::Random;

/// Short, so that leases run out while something is wrong.
const SHORT: Duration = Duration::from_millis(1_500);
/// The length that a new master takes its predecessor's leases to have.
const USUAL: Duration = Duration::from_secs(12);

/// Makes a plan one in which that mistake shows.
pub fn set(plan: &mut Plan, random: &mut Random, mutant: Mutant) {
    let every_kind: Vec<usize> = (0..KINDS).collect();
    match mutant {
        Mutant::LeaseFromReceipt => {
            (plan.cells, plan.lease, plan.slow) = (1, SHORT, (150, 1_200));
            let clients = plan.clients;
            plan.faults = now_and_then(random, (100, 1_000), |random| {
                Fault::Isolate(NodeId::Client(random.index(clients)), random.millis(3_000, 6_000))
            });
        }
        Mutant::MasterLeaseUnearned => {
            (plan.cells, plan.clients, plan.lease) = (1, 8, SHORT);
            plan.faults = every(20, |at| vec![(at, Fault::Divide(0, 2, Duration::from_secs(18)))]);
        }
        Mutant::VotesNotHeld => {
            (plan.cells, plan.clients, plan.lease) = (1, 12, USUAL);
            plan.faults = every(19, |at| {
                let (soon, long) = (at + 2 * plan.timing.election_max, Duration::from_secs(17));
                vec![(at, Fault::LosesFollower(0, long)), (soon, Fault::ForgottenVote(0, long))]
            });
        }
        Mutant::LeaderRestored => {
            plan.cells = 1;
            let gap = (300, 2_500);
            plan.faults = now_and_then(random, gap, |random| Fault::CrashMaster(0, random.millis(5, 100)));
        }
        Mutant::AcknowledgedBeforeFsync => {
            plan.cells = 1;
            let gap = (1_000, 4_000);
            plan.faults = now_and_then(random, gap, |random| Fault::PowerLoss(0, random.millis(50, 1_500)));
        }
        Mutant::EndedByOldMaster => {
            (plan.cells, plan.lease, plan.slow) = (1, USUAL, (0, 50));
            plan.faults = every(20, |at| vec![(at, Fault::Divide(0, 1, Duration::from_secs(18)))]);
        }
        Mutant::EpochShared => {
            (plan.cells, plan.lease, plan.slow) = (1, SHORT, (0, 50));
            plan.faults = every(13, |at| vec![(at, Fault::Divide(0, 2, Duration::from_secs(10)))]);
        }
        Mutant::NoFloor => {
            (plan.cells, plan.clients) = (1, 10);
            plan.faults = faults(random, plan, 700, &every_kind);
        }
        Mutant::ProxyAcknowledgesEarly => {
            (plan.cells, plan.proxies, plan.clients) = (1, 2, 10);
            plan.faults = faults(random, plan, 5_000, &every_kind);
        }
        Mutant::ProxyLeaseUnbound => {
            (plan.cells, plan.proxies, plan.clients, plan.lease) = (1, 1, 10, SHORT);
            plan.faults = every(13, |at| cut_from_cell(at, NodeId::Proxy(0)));
        }
        Mutant::ClaimNotSent => {
            (plan.cells, plan.proxies, plan.clients, plan.lease) = (1, 2, 8, SHORT);
            plan.grace = Duration::from_secs(45);
            let (clients, proxies) = (plan.clients, plan.proxies);
            plan.faults = now_and_then(random, (200, 2_000), |random| {
                let client = NodeId::Client(random.index(clients));
                let proxy = NodeId::Proxy(random.index(proxies));
                Fault::Cut(client, proxy, true, random.millis(2_000, 8_000))
            });
        }
        Mutant::UpperAcknowledgesEarly => {
            layered(plan);
            plan.faults = faults(random, plan, 5_000, &every_kind);
        }
        Mutant::LowerLeaseUnbound => {
            layered(plan);
            plan.lease = SHORT;
            plan.faults = every(13, |at| cut_from_cell(at, NodeId::Proxy(0)));
        }
        Mutant::FailOverKeptAbove => {
            layered(plan);
            (plan.lease, plan.slow) = (USUAL, (0, 50));
            let gap = (2_000, 6_000);
            plan.faults = now_and_then(random, gap, |random| Fault::CrashMaster(0, random.millis(50, 2_000)));
        }
        Mutant::ClaimKeptAbove => {
            layered(plan);
            (plan.lease, plan.grace) = (SHORT, Duration::from_secs(45));
            let (clients, lower) = (plan.clients, plan.upper..plan.proxies);
            plan.faults = now_and_then(random, (200, 2_000), |random| {
                let client = NodeId::Client(random.index(clients));
                let proxy = NodeId::Proxy(lower.start + random.index(lower.len()));
                Fault::Cut(client, proxy, true, random.millis(2_000, 8_000))
            });
        }
        Mutant::SealNotAsked | Mutant::RootFromMemory => {
            spread(plan, &[900]);
            plan.slow = (0, 50);
            plan.faults = faults(random, plan, 5_000, &every_kind);
        }
        Mutant::UnsealNotVoided => {
            spread(plan, &[900]);
            (plan.lease, plan.slow) = (USUAL, (0, 50));
            plan.late_seals = Duration::from_secs(1);
            plan.faults = faults(random, plan, 5_000, &every_kind);
        }
        Mutant::AclEvidenceKept => {
            spread(plan, &[200]);
            plan.slow = (0, 50);
            plan.faults = faults(random, plan, 5_000, &every_kind);
        }
        Mutant::MovedWithoutHolders | Mutant::MovedWithoutDelays => {
            (plan.cells, plan.proxies, plan.clients, plan.has_moves) = (2, 2, 12, true);
            (plan.lease, plan.slow, plan.repartitions) = (SHORT, (0, 50), 900);
            let clients = plan.clients;
            plan.faults = now_and_then(random, (500, 3_000), |random| {
                Fault::Crash(NodeId::Client(1 + random.index(clients - 1)), random.millis(100, 4_000))
            });
        }
        Mutant::MoveNotClaimed => {
            (plan.cells, plan.proxies, plan.clients) = (2, 1, 6);
            (plan.lease, plan.slow) = (USUAL, (0, 50));
            plan.silence = Some(FIRST_FAULT);
            // Of nobody who has anything.
            plan.faults = every(20, |at| vec![(at, Fault::Pause(NodeId::Client(0), Duration::from_secs(1)))]);
        }
        Mutant::FailOverUnheard => {
            (plan.cells, plan.clients, plan.lease, plan.slow) = (1, 10, USUAL, (0, 50));
            let gap = (2_000, 6_000);
            plan.faults = now_and_then(random, gap, |random| Fault::CrashMaster(0, random.millis(50, 2_000)));
        }
        Mutant::RetriedAnew => {
            (plan.cells, plan.clients, plan.slow) = (1, 10, (0, 80));
            plan.faults = now_and_then(random, (50, 400), |random| Fault::Reset(random.draw()));
        }
        Mutant::EventBeforeAction | Mutant::EventUnheard | Mutant::AclPastRevocation => {
            (plan.cells, plan.clients, plan.slow) = (1, 12, (0, 50));
            plan.faults = faults(random, plan, 5_000, &every_kind);
        }
        Mutant::AcknowledgedUnheard
        | Mutant::InvalidationLost
        | Mutant::AppliedEarly
        | Mutant::TailLost
        | Mutant::FastMasterClock
        | Mutant::GenerationReset => plan.faults = faults(random, plan, 700, &every_kind),
    }
}

/// Two proxies are behind a third.
const fn layered(plan: &mut Plan) {
    (plan.cells, plan.proxies, plan.clients) = (1, 3, 12);
    (plan.upper, plan.first_known) = (1, 1);
}

/// A proxy loses the first cell for longer than its lease.
fn cut_from_cell(at: Moment, proxy: NodeId) -> Vec<(Moment, Fault)> {
    let cut = |replica| (at, Fault::Cut(proxy, NodeId::Replica(replica), true, Duration::from_secs(10)));
    (0..REPLICAS).map(cut).collect()
}

/// Many are busy with directories in two cells, through two routers, each as eagerly as one of these.
const fn spread(plan: &mut Plan, spreads: &'static [u64]) {
    (plan.cells, plan.proxies, plan.clients) = (2, 2, 12);
    (plan.has_ring, plan.spreads) = (true, spreads);
}

/// The same every so many seconds.
fn every(seconds: u64, what: impl Fn(Moment) -> Vec<(Moment, Fault)>) -> Vec<(Moment, Fault)> {
    let begin = Moment::seconds(5);
    let rounds = HEALED.since(begin).as_secs().div_ceil(seconds);
    (0..rounds).flat_map(|round| what(begin + Duration::from_secs(round * seconds))).collect()
}

/// Something like that again and again, with pauses of so many milliseconds, at least and at most.
fn now_and_then(
    random: &mut Random,
    (least, most): (u64, u64),
    what: impl Fn(&mut Random) -> Fault,
) -> Vec<(Moment, Fault)> {
    let mut faults = Vec::new();
    let mut at = FIRST_FAULT;
    while at < HEALED {
        faults.push((at, what(random)));
        at = at + random.millis(least, most);
    }
    faults
}
