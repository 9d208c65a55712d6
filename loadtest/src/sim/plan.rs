//! What a world is like, drawn from its seed: how many of whom, which leases, which clocks' timings, what goes wrong.

use std::time::Duration;

use hasp_cell::replica::Timing;
use hasp_proto::id::CellName;

use super::clock::Moment;
use super::faults::Fault;
use super::mutants::Mutant;
use super::node::NodeId;
use super::random::Random;
use super::scenarios;

/// Replicas of each cell.
pub const REPLICAS: usize = 3;
/// Faults begin here, when everybody has found everybody.
pub const FIRST_FAULT: Moment = Moment::seconds(4);
/// From here on nothing goes wrong any more.
pub const HEALED: Moment = Moment::seconds(45);
/// From here on applications only look at what became of everything.
pub const LAST_LOOK: Moment = Moment::seconds(52);
/// By then every client must have its answers.
pub const END: Moment = Moment::seconds(75);
/// Kinds of faults that are drawn.
pub const KINDS: usize = 11;

/// What is asked of a world besides its seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// A mistake to be made on purpose.
    pub mutant: Option<Mutant>,
    /// The world is one in which that mistake would show, whether it is made or not.
    pub stage: Option<Mutant>,
    /// There are no proxies: all clients are straight at the masters.
    pub is_direct: bool,
}

impl Setting {
    /// For a mistake. Those that are none of a proxy's show soonest straight at the masters.
    pub const fn for_mutant(mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), ..Self::without(mutant) }
    }

    /// The same world without that mistake.
    pub const fn without(mutant: Mutant) -> Self {
        Self { mutant: None, stage: Some(mutant), is_direct: !mutant.is_of_proxies() }
    }
}

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Cells.
    pub cells: usize,
    /// Proxies.
    pub proxies: usize,
    /// So many of them, the first, are before the others; 0: all are before the cells.
    pub upper: usize,
    /// Directories are spread over two cells by a ring.
    pub has_ring: bool,
    /// The partition map changes, and what is below moves from cell to cell.
    pub has_moves: bool,
    /// Of a thousand steps of who runs the cells so many change it.
    pub repartitions: u64,
    /// Of a thousand steps of an application so many are about directories of the ring, one of them for each application.
    pub spreads: &'static [u64],
    /// The first proxy that applications know.
    pub first_known: usize,
    /// Applications.
    pub clients: usize,
    /// What masters and proxies grant.
    pub lease: Duration,
    /// How long sessions look for their hosts.
    pub grace: Duration,
    /// Heartbeats and elections of the cells.
    pub timing: Timing,
    /// Of a thousand messages so many take long, and how many milliseconds at most.
    pub slow: (u64, u64),
    /// Whenever the first proxy goes by a seal, what it sends to that cell arrives so much later.
    pub late_seals: Duration,
    /// At that moment all that the second cell has goes to the first. Some applications that share locks there say nothing
    /// any more.
    pub silence: Option<Moment>,
    /// What goes wrong.
    pub faults: Vec<(Moment, Fault)>,
}

impl Plan {
    /// Draws a world. One for a mistake that is made on purpose is such that it can show.
    pub fn draw(random: &mut Random, setting: Setting) -> Self {
        let cells = if random.chance(250) { 2 } else { 1 };
        let proxies = *random.pick(&[0, 1, 2, 2, 3]);
        let proxies = if setting.is_direct { 0 } else { proxies };
        let is_layered = proxies > 0 && setting.stage.is_none() && random.chance(350);
        let upper = if is_layered { random.index(2) + 1 } else { 0 };
        let proxies = proxies + upper;
        let first_known = if random.chance(700) { upper } else { 0 };
        let clients = random.index(9) + 4;
        let lease = Duration::from_millis(*random.pick(&[1_500, 3_000, 6_000, 12_000]));
        let grace = Duration::from_secs(*random.pick(&[3, 10, 45]));
        let timing = scaled(Timing::default(), *random.pick(&[50, 100, 100, 200]));
        let slow = *random.pick(&[(0, 50), (2, 400), (5, 3_000), (20, 200), (50, 1_000)]);
        let mut plan = Self {
            cells,
            proxies,
            upper,
            has_ring: false,
            has_moves: false,
            repartitions: 90,
            spreads: &[0, 150, 500],
            first_known,
            clients,
            lease,
            grace,
            timing,
            slow,
            late_seals: Duration::ZERO,
            silence: None,
            faults: Vec::new(),
        };
        match setting.stage {
            Some(mutant) => scenarios::set(&mut plan, random, mutant),
            None => {
                let pace = *random.pick(&[0, 5_000, 2_000, 700]);
                let kinds: Vec<usize> = (0..KINDS).filter(|_| random.chance(500)).collect();
                plan.faults = faults(random, &plan, pace, &kinds);
                plan.has_ring = cells > 1 && proxies > 0 && random.chance(700);
                plan.has_moves = cells > 1 && proxies > 0 && random.chance(600);
            }
        }
        plan
    }
}

/// What goes wrong: something of these kinds every so many milliseconds on average; nothing if that is 0.
pub fn faults(random: &mut Random, plan: &Plan, pace: u64, kinds: &[usize]) -> Vec<(Moment, Fault)> {
    let mut faults = Vec::new();
    let mut at = FIRST_FAULT;
    while pace > 0 && !kinds.is_empty() {
        at = at + random.millis(1, 2 * pace);
        if at >= HEALED {
            break;
        }
        let kind = *random.pick(kinds);
        faults.push((at, draw(random, kind, plan)));
    }
    faults
}

fn draw(random: &mut Random, kind: usize, plan: &Plan) -> Fault {
    let replica = NodeId::Replica(random.index(plan.cells * REPLICAS));
    let tier = if plan.proxies > 0 { NodeId::Proxy(random.index(plan.proxies)) } else { replica };
    let client = NodeId::Client(random.index(plan.clients));
    let any = *random.pick(&[replica, tier, client]);
    let cell = random.index(plan.cells);
    let long = if random.chance(300) { random.millis(1_000, 15_000) } else { random.millis(20, 2_500) };
    match kind {
        0 => Fault::Crash(any, long),
        1 => Fault::Pause(any, long),
        2 => {
            let is_lower = matches!(tier, NodeId::Proxy(index) if index >= plan.upper);
            let above =
                if plan.upper > 0 && is_lower { NodeId::Proxy(random.index(plan.upper)) } else { replica };
            Fault::Cut(tier, above, random.chance(500), long)
        }
        3 => Fault::Cut(client, tier, random.chance(500), long),
        4 => Fault::Isolate(any, long),
        5 => Fault::Reset(random.draw()),
        6 => Fault::StepDown(cell),
        7 => Fault::CrashMaster(cell, long),
        8 => Fault::PauseMaster(cell, long),
        9 => Fault::PowerLoss(cell, long),
        _ => Fault::IsolateMaster(cell, long),
    }
}

/// Production's timings in another proportion to everything else.
fn scaled(timing: Timing, percent: u32) -> Timing {
    let scale = |time: Duration| time * percent / 100;
    Timing {
        heartbeat: scale(timing.heartbeat),
        election_min: scale(timing.election_min),
        election_max: scale(timing.election_max),
    }
}

/// By number.
pub fn cell_name(index: usize) -> CellName {
    CellName::new(["a", "b", "c"][index])
}
