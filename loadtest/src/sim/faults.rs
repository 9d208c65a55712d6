//! What goes wrong, and what that does to a world.

use std::time::Duration;

use super::happening::Happening;
use super::node::NodeId;
use super::plan::{HEALED, REPLICAS};
use super::world::World;

/// Replicas that lost power are back within that time of one another.
pub const POWER_APART: Duration = Duration::from_millis(200);

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
    /// All replicas of that cell crash at once, and start again after that long, one after the other.
    PowerLoss(usize, Duration),
    /// The master of that cell is cut off from the other replicas, and those who hold sessions from the one or the
    /// others: of so many of them one loses the master, the rest the others; if 0, all keep the master.
    Divide(usize, usize, Duration),
    /// The master of that cell loses one of its followers.
    LosesFollower(usize, Duration),
    /// The master of that cell loses all followers, who lose everybody; one of them restarts at that moment.
    ForgottenVote(usize, Duration),
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
                    self.isolate(NodeId::Replica(master), &self.others(master), long);
                }
            }
            Fault::PowerLoss(cell, down) => {
                for replica in cell * REPLICAS..(cell + 1) * REPLICAS {
                    let apart = self.random.millis(0, 200).min(POWER_APART);
                    self.go_wrong(Fault::Crash(NodeId::Replica(replica), down + apart));
                }
            }
            Fault::Divide(cell, share, long) => {
                if let Some(master) = self.leader(cell) {
                    self.divide(master, share, long);
                }
            }
            Fault::LosesFollower(cell, long) => {
                if let Some(master) = self.leader(cell)
                    && let Some(follower) = self.others(master).last()
                {
                    self.isolate(NodeId::Replica(master), &[*follower], long);
                }
            }
            Fault::ForgottenVote(cell, long) => {
                if let Some(master) = self.leader(cell)
                    && let Some(voter) = self.others(master).first()
                {
                    self.divide(master, 0, long);
                    self.go_wrong(Fault::Crash(*voter, Duration::from_millis(1)));
                }
            }
        }
    }

    /// The other replicas of its cell.
    fn others(&self, replica: usize) -> Vec<NodeId> {
        let first = replica / REPLICAS * REPLICAS;
        (first..first + REPLICAS).filter(|other| *other != replica).map(NodeId::Replica).collect()
    }

    fn divide(&mut self, master: usize, share: usize, long: Duration) {
        let (node, others) = (NodeId::Replica(master), self.others(master));
        self.isolate(node, &others, long);
        let holders: Vec<_> =
            self.nodes().into_iter().filter(|node| !matches!(node, NodeId::Replica(_))).collect();
        let loses_master = |at: usize| share > 0 && at.is_multiple_of(share);
        for (at, holder) in holders.into_iter().enumerate() {
            let lost = if loses_master(at) { &[node][..] } else { &others };
            self.isolate(holder, lost, long);
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
        self.story.tell(self.now, node, format_args!("is cut off from {} others for {long:?}", others.len()));
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
