//! What kind of world a seed makes: how many machines, their limits, what goes wrong there and how often.
//!
//! Each world has only some kinds of faults: where all are mixed evenly, those that need quiet in between never show
//! what they could.

use std::time::Duration;

use hasp_rt::rng::{Rng, Seeds};

use super::layout::{Shape, Spread};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A replica loses its power.
    PowerLoss,
    /// All replicas do, or all of one cell, one soon after another.
    Blackout,
    /// A replica's process is killed.
    Kill,
    /// A replica is told to end, hands over if it is master, and is started again.
    HandOver,
    /// A replica is cut off from some of the others.
    Partition,
    /// What a host says to some of the others is lost, and what they say is heard.
    Silence,
    /// Messages between two hosts wait.
    Hold,
    /// A proxy dies.
    ProxyDeath,
    /// A host of clients dies.
    ClientDeath,
    /// A replica's disk becomes slow.
    SlowDisk,
    /// A replica's disk becomes full.
    FullDisk,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::PowerLoss,
        Self::Blackout,
        Self::Kill,
        Self::HandOver,
        Self::Partition,
        Self::Silence,
        Self::Hold,
        Self::ProxyDeath,
        Self::ClientDeath,
        Self::SlowDisk,
        Self::FullDisk,
    ];
}

/// A world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its machines.
    pub shape: Shape,
    /// For each host of clients, what each of its clients is.
    pub hosts: Vec<Vec<ClientPlan>>,
    /// What goes wrong, each with its weight; at least one.
    pub faults: Vec<(Fault, u64)>,
    /// Longest time from one fault to the next.
    pub pause_max: Duration,
    /// How long things go wrong.
    pub trouble: Duration,
    /// Of the contended lock.
    pub lock_delay: Duration,
    /// Of a thousand power losses, so many leave a part of what was not synced.
    pub torn_per_mille: u64,
    /// Faults go for the master in so many of a thousand cases where they may.
    pub master_per_mille: u64,
    /// Longest time between two calls of a client.
    pub idle_max_ms: u64,
    /// Of a thousand acquisitions so many are shared.
    pub shared_per_mille: u64,
    /// Whether clients listen to what becomes of a file.
    pub has_watches: bool,
    /// Whether the first client changes an ACL, and others try to open what it guards.
    pub has_gate: bool,
}

/// A client.
#[derive(Clone, Copy, Debug)]
pub struct ClientPlan {
    /// Its number.
    pub number: usize,
    /// Whether it goes through proxies.
    pub is_behind_proxies: bool,
    /// Whether it keeps what it reads.
    pub caches: bool,
}

impl Plan {
    /// The world of that seed.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Seeds::from_seed(seed).stream("plan");
        let rng = &mut rng;
        let spread = spread(seed);
        let has_moves = has_moves(seed, spread);
        let drawn = index(rng, 3);
        let (upper, is_upper_known) = layers(seed);
        // Who routes between cells is often a proxy.
        let proxies = if spread == Spread::One && upper == 0 { drawn } else { drawn.max(1) };
        let shape = Shape {
            replicas: if rng.below(5) == 0 { 5 } else { 3 },
            spread,
            has_moves,
            proxies,
            upper,
            is_upper_known,
            snapshot_after: pick(rng, [20, 50, 200, 1_000]),
            keep_after_snapshot: pick(rng, [0, 5, 20, 100]),
            proxy_lease: Duration::from_secs(pick(rng, [6, 12, 12, 30])),
        };
        let mut hosts = vec![Vec::new(); 1 + index(rng, 3)];
        let (count, at) = (3 + index(rng, 6), hosts.len());
        for number in 1..=count {
            let is_behind_proxies = proxies > 0 && rng.below(3) > 0;
            // What a client without a router holds stays where it is (`move-2`).
            let is_behind_proxies = is_behind_proxies || has_moves;
            let caches = rng.below(4) > 0;
            hosts[number % at].push(ClientPlan { number, is_behind_proxies, caches });
        }
        let mut faults: Vec<(Fault, u64)> = Vec::new();
        for fault in Fault::ALL {
            let is_possible = fault != Fault::ProxyDeath || proxies > 0;
            if rng.below(2) == 0 && is_possible {
                faults.push((fault, 1 + rng.below(4)));
            }
        }
        if faults.is_empty() {
            faults.push((Fault::PowerLoss, 1));
        }
        let mut uses = Seeds::from_seed(seed).stream("uses");
        Self {
            shape,
            hosts,
            faults,
            pause_max: Duration::from_millis(pick(rng, [800, 2_000, 4_000])),
            trouble: Duration::from_millis(15_000 + rng.below(20_000)),
            lock_delay: Duration::from_secs(1 + rng.below(8)),
            torn_per_mille: pick(rng, [0, 500, 1_000]),
            master_per_mille: pick(rng, [300, 600, 900]),
            idle_max_ms: pick(rng, [100, 300, 600]),
            shared_per_mille: pick(&mut uses, [0, 0, 400, 800]),
            has_watches: uses.below(2) == 0 || has_moves,
            has_gate: uses.below(2) == 0,
        }
    }

    /// One of the faults, by their weights.
    pub fn fault(&self, rng: &mut Rng) -> Fault {
        let sum = self.faults.iter().map(|(_, weight)| weight).sum();
        let mut left = rng.below(sum);
        for (fault, weight) in &self.faults {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *fault,
            }
        }
        unreachable!("less was left than all weights together")
    }
}

/// How the names of that world are divided: from a stream of its own, so that worlds of one cell are what they are without.
fn spread(seed: u64) -> Spread {
    let mut rng = Seeds::from_seed(seed).stream("spread");
    pick(&mut rng, [Spread::One, Spread::One, Spread::One, Spread::Prefix, Spread::Ring, Spread::Ring])
}

/// Whether names move in that world: in half of those of two cells.
fn has_moves(seed: u64, spread: Spread) -> bool {
    spread != Spread::One && Seeds::from_seed(seed).stream("moves").below(2) == 0
}

/// How many proxies others are behind in that world, and whether applications know of them: from a stream of its own, too.
fn layers(seed: u64) -> (usize, bool) {
    let mut rng = Seeds::from_seed(seed).stream("layers");
    match rng.below(3) {
        0 => (1 + index(&mut rng, 2), rng.below(3) == 0),
        _ => (0, false),
    }
}

/// One of them.
pub fn pick<T: Copy, const N: usize>(rng: &mut Rng, choices: [T; N]) -> T {
    choices[index(rng, N)]
}

/// A number below `count`.
pub fn index(rng: &mut Rng, count: usize) -> usize {
    usize::try_from(rng.below(count as u64)).expect("below a usize")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn worlds_differ_and_together_have_every_fault() {
        let plans: Vec<Plan> = (0..50).map(Plan::draw).collect();

        let faults: BTreeSet<Fault> =
            plans.iter().flat_map(|plan| &plan.faults).map(|(fault, _)| *fault).collect();
        assert_eq!(faults.len(), Fault::ALL.len());
        assert!(plans.iter().all(|plan| plan.faults.len() < Fault::ALL.len()));
        for proxies in 0..3 {
            assert!(plans.iter().any(|plan| plan.shape.proxies == proxies));
        }
        for spread in [Spread::One, Spread::Prefix, Spread::Ring] {
            let routed = |plan: &&Plan| {
                plan.shape.spread == spread && (spread == Spread::One || plan.shape.proxies > 0)
            };
            assert!(plans.iter().filter(routed).count() >= 5, "{spread:?}");
        }
        for upper in 0..3 {
            let layered = |plan: &&Plan| plan.shape.upper == upper && (upper == 0 || plan.shape.proxies > 0);
            assert!(plans.iter().filter(layered).count() >= 3, "{upper} upper proxies");
        }
        for spread in [Spread::Prefix, Spread::Ring] {
            let moving = |plan: &&Plan| plan.shape.spread == spread && plan.shape.has_moves;
            assert!(plans.iter().filter(moving).count() >= 2, "{spread:?}");
        }
        for uses in [
            |plan: &Plan| plan.shared_per_mille > 0,
            |plan: &Plan| plan.has_watches,
            |plan: &Plan| plan.has_gate,
        ] {
            assert!((10..=40).contains(&plans.iter().filter(|plan| uses(plan)).count()));
        }
        let clients = |plan: &Plan| plan.hosts.iter().map(Vec::len).sum::<usize>();
        assert!(plans.iter().all(|plan| (3..=8).contains(&clients(plan))));
    }
}
