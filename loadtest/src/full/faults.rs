//! What goes wrong in a world, one thing after another, and how each is mended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hasp_rt::rng::{Rng, Seeds};

use super::plan::{Fault, Plan, index};
use super::verdict::Counts;
use super::world::World;

/// How long a replica with a failed disk may go on (P-STOP).
const STOP_MAX: Duration = Duration::from_secs(5);

/// What ends a fault.
#[derive(Clone, Debug)]
enum Mend {
    Start(String),
    Links(String),
    Release(String, String),
    Fast(String),
    Room(String),
}

/// Makes trouble in a world as its plan says.
pub struct Faults<'a> {
    plan: &'a Plan,
    rng: Rng,
    /// By the time when they are due, in the order of their making.
    mends: BTreeMap<(Duration, u64), Mend>,
    made: u64,
    /// Hosts that do not run, or were told to end.
    down: BTreeSet<String>,
    full: BTreeSet<String>,
    /// From when until when, at most, something was wrong.
    pub spans: Vec<(Duration, Duration)>,
    /// What came of it.
    pub counts: Counts,
    /// What a host did that it must not do.
    pub broken: Vec<String>,
}

impl<'a> Faults<'a> {
    /// Of the world of that seed.
    pub fn new(seed: u64, plan: &'a Plan) -> Self {
        Self {
            plan,
            rng: Seeds::from_seed(seed).stream("trouble"),
            mends: BTreeMap::new(),
            made: 0,
            down: BTreeSet::new(),
            full: BTreeSet::new(),
            spans: Vec::new(),
            counts: Counts::default(),
            broken: Vec::new(),
        }
    }

    /// One fault after another, until the plan's time is up; then mends all of it.
    pub fn trouble(&mut self, world: &mut World) {
        let end = world.elapsed() + self.plan.trouble;
        while world.elapsed() < end {
            let pause_max = u64::try_from(self.plan.pause_max.as_millis()).expect("seconds");
            let next = (world.elapsed() + self.millis(50, pause_max)).min(end);
            self.run_until(world, next);
            if next < end {
                self.strike(world);
            }
        }
        world.tell("all is mended");
        for (_, until) in &mut self.spans {
            *until = world.elapsed().min(*until);
        }
        for (_, mend) in std::mem::take(&mut self.mends) {
            self.mend(world, mend);
        }
        for host in world.host_names() {
            world.mend(&host);
        }
    }

    fn run_until(&mut self, world: &mut World, until: Duration) {
        while let Some(entry) = self.mends.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((at, _), mend) = entry.remove_entry();
            world.run_for(at.saturating_sub(world.elapsed()));
            self.mend(world, mend);
        }
        world.run_for(until.saturating_sub(world.elapsed()));
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.rng.below(to.saturating_sub(from) + 1))
    }

    fn later(&mut self, world: &World, after: Duration, mend: Mend) {
        self.made += 1;
        let due = world.elapsed() + after;
        self.spans.push((world.elapsed(), due));
        self.mends.insert((due, self.made), mend);
    }

    fn strike(&mut self, world: &mut World) {
        match self.plan.fault(&mut self.rng) {
            Fault::PowerLoss => {
                if let Some(replica) = self.replica(world) {
                    self.cut_power(world, &replica);
                    let after = self.millis(50, 8_000);
                    self.later(world, after, Mend::Start(replica));
                }
            }
            Fault::Blackout => self.blackout(world),
            Fault::Kill => {
                if let Some(replica) = self.replica(world) {
                    self.kill(world, &replica);
                    let after = self.millis(50, 4_000);
                    self.later(world, after, Mend::Start(replica));
                }
            }
            Fault::HandOver => self.hand_over(world),
            Fault::Partition => self.partition(world),
            Fault::Silence => self.silence(world),
            Fault::Hold => self.hold(world),
            Fault::ProxyDeath => self.death(world, "proxy-"),
            Fault::ClientDeath => self.death(world, "apps-"),
            Fault::SlowDisk => self.slow_disk(world),
            Fault::FullDisk => self.full_disk(world),
        }
    }

    /// One that runs and has room: often the master.
    fn replica(&mut self, world: &World) -> Option<String> {
        let is_master_wanted = self.rng.below(1_000) < self.plan.master_per_mille;
        let masters: Vec<String> = world.masters().into_values().collect();
        let at = if masters.len() > 1 { index(&mut self.rng, masters.len()) } else { 0 };
        let master = masters.into_iter().nth(at).filter(|_| is_master_wanted);
        let runs = |name: &String| !self.down.contains(name) && !self.full.contains(name);
        let running: Vec<String> = world.replica_names().into_iter().filter(runs).collect();
        if running.is_empty() {
            return None;
        }
        let drawn = running[index(&mut self.rng, running.len())].clone();
        Some(master.filter(|name| running.contains(name)).unwrap_or(drawn))
    }

    /// Some of the other hosts, at least one.
    fn some_others(&mut self, world: &World, name: &str) -> Vec<String> {
        let mut others = world.host_names();
        others.retain(|other| other != name);
        let all = others.clone();
        others.retain(|_| self.rng.below(3) > 0);
        if others.is_empty() { all } else { others }
    }

    fn cut_power(&mut self, world: &mut World, name: &str) {
        let is_torn = self.rng.below(1_000) < self.plan.torn_per_mille;
        let torn = if is_torn { index(&mut self.rng, 1_001) } else { 0 };
        self.counts.crashes += 1;
        self.counts.torn += u64::from(is_torn);
        world.tell(&format!("{name} loses its power, {torn} of 1000 unsynced records stay"));
        world.cut_power_torn(name, torn);
        self.down.insert(name.to_owned());
    }

    fn kill(&mut self, world: &mut World, name: &str) {
        self.counts.crashes += 1;
        world.tell(&format!("{name} is killed"));
        world.kill(name);
        self.down.insert(name.to_owned());
    }

    fn blackout(&mut self, world: &mut World) {
        let cells = world.map().cells.len();
        let only = if cells > 1 { index(&mut self.rng, cells + 1) } else { cells };
        for replica in world.replica_names() {
            let is_struck = only == cells || world.place_of_cell(&replica) == Some(only);
            if is_struck && !self.down.contains(&replica) {
                self.cut_power(world, &replica);
                let after = self.millis(500, 4_000);
                self.later(world, after, Mend::Start(replica));
                let pause = self.millis(0, 30);
                world.run_for(pause);
            }
        }
    }

    fn hand_over(&mut self, world: &mut World) {
        let Some(replica) = self.replica(world) else { return };
        self.counts.hand_overs += 1;
        world.tell(&format!("{replica} is told to end"));
        world.stop(&replica);
        self.down.insert(replica.clone());
        let after = self.millis(100, 4_000);
        self.later(world, after, Mend::Start(replica));
    }

    fn partition(&mut self, world: &mut World) {
        let Some(replica) = self.replica(world) else { return };
        let others = self.some_others(world, &replica);
        self.counts.cuts += 1;
        world.tell(&format!("{replica} is cut off from {others:?}"));
        world.cut_off(&replica, &others);
        let after = self.millis(300, 12_000);
        self.later(world, after, Mend::Links(replica));
    }

    fn silence(&mut self, world: &mut World) {
        let hosts = world.host_names();
        let from = match self.replica(world) {
            Some(replica) if self.rng.below(2) == 0 => replica,
            _ => hosts[index(&mut self.rng, hosts.len())].clone(),
        };
        let others = self.some_others(world, &from);
        self.counts.cuts += 1;
        world.tell(&format!("{from} is not heard by {others:?}"));
        world.silence(&from, &others);
        let after = self.millis(300, 10_000);
        self.later(world, after, Mend::Links(from));
    }

    fn hold(&mut self, world: &mut World) {
        let hosts = world.host_names();
        let one = hosts[index(&mut self.rng, hosts.len())].clone();
        let other = hosts[index(&mut self.rng, hosts.len())].clone();
        if one == other {
            return;
        }
        self.counts.cuts += 1;
        world.tell(&format!("messages wait between {one} and {other}"));
        world.hold(&one, &other);
        let after = self.millis(100, 4_000);
        self.later(world, after, Mend::Release(one, other));
    }

    fn death(&mut self, world: &mut World, kind: &str) {
        let is_up = |name: &String| name.starts_with(kind) && !self.down.contains(name);
        let hosts: Vec<String> = world.host_names().into_iter().filter(is_up).collect();
        if hosts.is_empty() {
            return;
        }
        let name = hosts[index(&mut self.rng, hosts.len())].clone();
        if self.rng.below(2) == 0 {
            self.kill(world, &name);
        } else {
            self.cut_power(world, &name);
        }
        if kind == "apps-" {
            let at = world.now();
            world.journal.host_died(&name, at, self.plan.lock_delay);
        }
        let after = self.millis(100, 10_000);
        self.later(world, after, Mend::Start(name));
    }

    fn slow_disk(&mut self, world: &mut World) {
        let Some(replica) = self.replica(world) else { return };
        let delay = self.millis(1, 400);
        self.counts.disk_faults += 1;
        world.tell(&format!("the disk of {replica} needs {delay:?}"));
        world.slow_disk(&replica, delay);
        let after = self.millis(500, 8_000);
        self.later(world, after, Mend::Fast(replica));
    }

    fn full_disk(&mut self, world: &mut World) {
        let Some(replica) = self.replica(world) else { return };
        self.counts.disk_faults += 1;
        world.tell(&format!("the disk of {replica} is full"));
        world.fill_disk(&replica);
        self.full.insert(replica.clone());
        let after = self.millis(500, 8_000);
        self.later(world, after, Mend::Room(replica));
    }

    fn mend(&mut self, world: &mut World, mend: Mend) {
        world.tell(&format!("{mend:?}"));
        match mend {
            Mend::Start(name) => {
                if !world.is_replica(&name) || !world.has_stopped(&name) {
                    // Told to end, it may be at it still.
                    world.kill(&name);
                }
                self.start(world, &name);
            }
            Mend::Links(name) => world.mend(&name),
            Mend::Release(one, other) => world.release(&one, &other),
            Mend::Fast(replica) => world.slow_disk(&replica, Duration::ZERO),
            Mend::Room(replica) => self.make_room(world, &replica),
        }
    }

    fn start(&mut self, world: &mut World, name: &str) {
        if self.full.remove(name) {
            world.make_room(name);
        }
        world.start(name);
        self.down.remove(name);
    }

    /// P-STOP: a replica whose log could not be written is out of service, whatever becomes of its disk.
    fn make_room(&mut self, world: &mut World, replica: &str) {
        if self.down.contains(replica) || !self.full.remove(replica) {
            // It lost its power meanwhile, and gets room when it is started.
            return;
        }
        if world.must_stop(replica) {
            let end = world.elapsed() + STOP_MAX;
            while !world.has_stopped(replica) && world.elapsed() < end {
                world.step();
            }
            if !world.has_stopped(replica) {
                self.broken.push(format!("P-STOP: {replica} goes on although its log could not be written"));
            }
        }
        world.make_room(replica);
        if world.has_stopped(replica) {
            self.counts.left_service += 1;
            self.start(world, replica);
        } else if world.has_failed(replica) {
            // It will stop as soon as it waits for a write; its operator does not wait for that.
            world.kill(replica);
            self.start(world, replica);
        }
    }
}
