//! What must hold of a world, one file per promise. It goes by what applications asked and were told, in true
//! time, and by what was committed; of the machines only what they believe of their leases is looked at.

pub mod acl;
pub mod bounded;
pub mod delay;
pub mod durable;
pub mod events;
pub mod generations;
pub mod handles;
pub mod leases;
pub mod locks;
pub mod once;
pub mod order;
pub mod reads;
#[cfg(test)]
mod tests;
pub mod tree;

use std::collections::{BTreeMap, BTreeSet};

use super::history::{History, Version};
use super::script;
use super::world::World;

/// What was broken, in words, and how many things were compared.
#[derive(Debug, Default)]
pub struct Findings {
    /// Each in words.
    pub broken: Vec<String>,
    /// Comparisons.
    pub checks: u64,
}

impl Findings {
    /// Something had to be so.
    pub fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds {
            self.broken.push(what());
        }
    }
}

/// Of a history alone.
pub fn history(history: &History) -> Findings {
    let mut findings = Findings::default();
    reads::check(history, &mut findings);
    order::check(history, &mut findings);
    durable::check(history, &mut findings);
    once::check(history, &mut findings);
    locks::check(history, &mut findings);
    generations::check(history, &mut findings);
    handles::check(history, &mut findings);
    delay::check(history, &mut findings);
    events::check(history, &mut findings);
    acl::check(history, &mut findings);
    findings
}

/// At the end of a world.
pub fn everything(world: &mut World) {
    let mut findings = history(&world.history);
    durable::check_replicas(world, &mut findings);
    tree::check_end(world, &mut findings);
    bounded::check(world, &mut findings);
    world.counts.checks += findings.checks;
    world.broken.extend(findings.broken);
    count(world);
}

/// What only the logs tell.
fn count(world: &mut World) {
    for truth in world.history.truths.values() {
        world.counts.locks_lost += truth.locks.lost.len() as u64;
        let mut holders = BTreeMap::new();
        for taken in &truth.locks.taken {
            let before = holders.insert(&taken.name, taken.session);
            world.counts.hand_overs += u64::from(before.is_some_and(|before| before != taken.session));
        }
        let nodes = truth.versions.values().flatten().filter_map(|version| version.node.as_ref());
        let ephemeral: BTreeSet<_> =
            nodes.filter(|(stat, _)| stat.ephemeral).map(|(stat, _)| stat.instance).collect();
        world.counts.ephemeral += ephemeral.len() as u64;
        for (name, versions) in &truth.versions {
            let has_gone = |version: &&Version| version.has_moved && version.node.is_none();
            world.counts.moved += versions.iter().filter(has_gone).count() as u64;
            let is_there = |version: &&Version| version.node.is_some();
            let instances = versions.iter().filter_map(|version| version.node.as_ref());
            let instances: BTreeSet<_> = instances.map(|(stat, _)| stat.instance).collect();
            let parent = name.parent().filter(script::is_spread);
            if parent.is_some_and(|parent| world.map.owner(&parent) != world.map.owner(name)) {
                world.counts.split_children += instances.len() as u64;
            }
            if script::is_spread(name) && world.map.children_owner(name) != world.map.owner(name) {
                let gone = versions.len() - versions.iter().filter(is_there).count();
                world.counts.split_deletions += gone as u64;
            }
        }
    }
}
