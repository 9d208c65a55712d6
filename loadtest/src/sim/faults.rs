//! What goes wrong, drawn from the seed: which kinds at all, how often, how long.

use std::time::Duration;

use super::clock::Moment;
use super::mutants::Mutant;
use super::random::Random;
use super::world::{HEALED, Happening, NodeId, Plan, REPLICAS, Setting, World};

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node is gone, and starts again after that long.
    Crash(NodeId, Duration),
    /// An application starts anew: its session is over.
    Restart(NodeId),
    /// A node does nothing for so long.
    Pause(NodeId, Duration),
    /// Nothing gets from the one to the other; nor back, if it is cut both ways.
    Cut(NodeId, NodeId, bool, Duration),
    /// A node hears nobody, and nobody hears it, for so long.
    Isolate(NodeId, Duration),
    /// A connection breaks; the number chooses which.
    Reset(u64),
    /// A master is told to hand over; the number says of which cell.
    StepDown(usize),
    /// The master of that cell crashes.
    CrashMaster(usize, Duration),
    /// The master of that cell does nothing for so long.
    PauseMaster(usize, Duration),
    /// The master of that cell is cut off from the other replicas only.
    IsolateMaster(usize, Duration),
}

/// Draws a world. A mistake that is made on purpose gets a world in which it can show.
pub fn plan(random: &mut Random, setting: Setting) -> Plan {
    let mutant = setting.mutant;
    let cells = if random.chance(250) { 2 } else { 1 };
    let proxies = *random.pick(&[0, 1, 2, 2, 3]);
    let proxies = if setting.is_direct { 0 } else { proxies };
    let clients = random.index(9) + 4;
    let lease = *random.pick(&[1_500, 3_000, 6_000, 12_000]);
    let hangs_on_leases = matches!(mutant, Some(Mutant::LeaseFromReceipt | Mutant::MasterLeaseUnearned));
    let lease = if hangs_on_leases { 1_500 } else { lease };
    let grace = *random.pick(&[3, 10, 45]);
    let rate = if mutant.is_some() { 700 } else { *random.pick(&[0, 5_000, 2_000, 700]) };
    let kinds: Vec<usize> = (0..10).filter(|_| random.chance(500)).collect();
    let kinds = if mutant.is_some() { (0..10).collect() } else { kinds };
    let mut faults = Vec::new();
    let mut at = Moment::seconds(4);
    while rate > 0 && !kinds.is_empty() {
        at = at + random.millis(1, 2 * rate);
        if at >= HEALED {
            break;
        }
        let kind = *random.pick(&kinds);
        faults.push((at, draw(random, kind, cells, proxies, clients)));
    }
    if mutant == Some(Mutant::MasterLeaseUnearned) {
        faults = deserted_masters(random);
    }
    let (lease, grace) = (Duration::from_millis(lease), Duration::from_secs(grace));
    Plan { cells, proxies, clients, lease, grace, faults }
}

/// A master is cut off from the other replicas, then some clients start anew, and find the new one or not.
fn deserted_masters(random: &mut Random) -> Vec<(Moment, Fault)> {
    let deserted = |at: u64| {
        let restarts = (0..5).map(move |step| Moment(Moment::seconds(at + 2).0 + step * 200_000));
        (Moment::seconds(at), restarts)
    };
    let mut faults = Vec::new();
    for (at, restarts) in (0..4).map(|round| deserted(5 + 10 * round)) {
        faults.push((at, Fault::IsolateMaster(0, Duration::from_secs(8))));
        faults.extend(restarts.map(|at| (at, Fault::Restart(NodeId::Client(random.index(4))))));
    }
    faults
}

fn draw(random: &mut Random, kind: usize, cells: usize, proxies: usize, clients: usize) -> Fault {
    let replica = NodeId::Replica(random.index(cells * REPLICAS));
    let tier = if proxies > 0 { NodeId::Proxy(random.index(proxies)) } else { replica };
    let client = NodeId::Client(random.index(clients));
    let any = *random.pick(&[replica, tier, client]);
    let cell = random.index(cells);
    let long = if random.chance(300) { random.millis(1_000, 15_000) } else { random.millis(20, 2_500) };
    match kind {
        0 => Fault::Crash(any, long),
        1 => Fault::Pause(any, long),
        2 => Fault::Cut(tier, replica, random.chance(500), long),
        3 => Fault::Cut(client, tier, random.chance(500), long),
        4 => Fault::Isolate(any, long),
        5 => Fault::Reset(random.draw()),
        6 => Fault::StepDown(cell),
        7 => Fault::CrashMaster(cell, long),
        8 => Fault::PauseMaster(cell, long),
        _ => Fault::IsolateMaster(cell, long),
    }
}

impl World {
    /// Something goes wrong.
    pub fn go_wrong(&mut self, fault: Fault) {
        if self.is_healed() && !matches!(fault, Fault::Restart(_)) {
            return;
        }
        match fault {
            Fault::Crash(node, down) => {
                if self.lives[&node].is_up {
                    self.counts.crashes += 1;
                    self.crash(node);
                    self.schedule.add(self.now + down, Happening::Start(node));
                }
            }
            Fault::Restart(node) => {
                self.crash(node);
                self.schedule.add(self.now + Duration::from_millis(10), Happening::Start(node));
            }
            Fault::Pause(node, long) => self.pause(node, long),
            Fault::Cut(from, to, is_both, long) => {
                self.counts.other_faults += 1;
                self.story.tell(
                    self.now,
                    from,
                    format_args!("is cut off from {to} for {long:?}, both ways {is_both}"),
                );
                self.network.cut(from, to, (self.now + long).min(HEALED));
                if is_both {
                    self.network.cut(to, from, (self.now + long).min(HEALED));
                }
            }
            Fault::Isolate(node, long) => {
                let others: Vec<_> = self.nodes().into_iter().filter(|other| *other != node).collect();
                self.isolate(node, &others, long);
            }
            Fault::Reset(choice) => {
                let all = self.network.all();
                if !all.is_empty() {
                    self.counts.other_faults += 1;
                    let at = usize::try_from(choice % all.len() as u64).expect("an index");
                    self.reset(all[at]);
                }
            }
            Fault::StepDown(cell) => {
                if let Some(master) = self.leader(cell) {
                    self.counts.other_faults += 1;
                    self.leave(master);
                }
            }
            Fault::CrashMaster(cell, down) => {
                if let Some(master) = self.leader(cell) {
                    self.go_wrong(Fault::Crash(NodeId::Replica(master), down));
                }
            }
            Fault::PauseMaster(cell, long) => {
                if let Some(master) = self.leader(cell) {
                    self.pause(NodeId::Replica(master), long);
                }
            }
            Fault::IsolateMaster(cell, long) => {
                if let Some(master) = self.leader(cell) {
                    let others: Vec<_> = (cell * REPLICAS..(cell + 1) * REPLICAS)
                        .filter(|other| *other != master)
                        .map(NodeId::Replica)
                        .collect();
                    self.isolate(NodeId::Replica(master), &others, long);
                }
            }
        }
    }

    /// The newest leader of a cell that is up.
    pub fn leader(&self, cell: usize) -> Option<usize> {
        (cell * REPLICAS..(cell + 1) * REPLICAS)
            .filter(|at| self.replicas[*at].is_leader() && self.lives[&NodeId::Replica(*at)].is_up)
            .max_by_key(|at| self.replicas[*at].log.term)
    }

    fn pause(&mut self, node: NodeId, long: Duration) {
        let until = self.now + long;
        let life = self.life(node);
        if !life.is_up || life.paused_until.is_some() {
            return;
        }
        life.paused_until = Some(until);
        self.counts.other_faults += 1;
        self.story.tell(self.now, node, format_args!("is paused for {long:?}"));
        self.schedule.add(until, Happening::Resume(node));
    }

    fn isolate(&mut self, node: NodeId, others: &[NodeId], long: Duration) {
        self.counts.other_faults += 1;
        self.story.tell(self.now, node, format_args!("is isolated for {long:?}"));
        for other in others {
            self.network.cut(node, *other, (self.now + long).min(HEALED));
            self.network.cut(*other, node, (self.now + long).min(HEALED));
        }
    }

    /// Nothing goes wrong any more, and everything that did is mended.
    pub fn heal(&mut self) {
        self.network.heal();
        for node in self.nodes() {
            self.story.tell(self.now, node, format_args!("is well from here on"));
            if self.lives[&node].paused_until.is_some() {
                let now = self.now;
                self.life(node).paused_until = Some(now);
                self.resume(node);
            }
            if !self.lives[&node].is_up {
                self.schedule.add(self.now, Happening::Start(node));
            }
        }
    }
}
