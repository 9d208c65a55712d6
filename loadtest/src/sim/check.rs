//! What must hold of a world, one file per promise. None of it looks into the machines: it goes by what applications
//! asked and were told, in true time, and by what was committed.

pub mod bounded;
pub mod durable;
pub mod generations;
pub mod leases;
pub mod locks;
pub mod once;
pub mod order;
pub mod reads;
#[cfg(test)]
mod tests;

use super::history::History;
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
    findings
}

/// At the end of a world.
pub fn everything(world: &mut World) {
    let mut findings = history(&world.history);
    durable::check_replicas(world, &mut findings);
    bounded::check(world, &mut findings);
    world.counts.checks += findings.checks;
    world.broken.extend(findings.broken);
}
