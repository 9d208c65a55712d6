//! Which changes of the partition map would spread the load better: decided from the map and from what the cells
//! say, without asking anybody.
//!
//! Step by step something is taken from the most loaded cell: a directory gets a rule of its own, a rule gets
//! another cell, or a rule goes so that the one above holds. Of all such changes the one is taken after which the cells are most alike;
//! of equals the one that moves least. It ends when none lowers the load of that cell enough.

use std::collections::BTreeMap;

use hasp_client::{CellName, Name};
use hasp_proto::acl::ACL_DIRECTORY;
use hasp_proto::limits::{MOVE_BYTES_MAX, MOVE_NODES_MAX};
use hasp_proto::partition::{Change, PartitionMap, Prefix};

use super::load::{Loads, Part};
use super::plan::Wish;

/// A write costs a cell as much as so many reads: it goes through the log of every replica.
pub const WRITE_WEIGHT: f64 = 4.0;

/// As many changes are proposed at once. What they do to the load is better measured than thought.
const PROPOSALS_MAX: usize = 4;

/// Where the namespace's own files are.
const SYSTEM_DIRECTORIES: [&str; 2] = [ACL_DIRECTORY, ".hasp"];

/// What is worth doing.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// By which part of its load the most loaded cell is relieved at least.
    pub gain_min: f64,
    /// A cell with less load than this is not relieved.
    pub load_min: f64,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// What to ask for.
    pub wish: Wish,
    /// From which cell something goes.
    pub from: CellName,
    /// To which.
    pub to: CellName,
    /// How many nodes.
    pub nodes: u64,
    /// With so many bytes of contents.
    pub bytes: u64,
    /// And so much load.
    pub load: f64,
}

/// What is proposed, and what the load of each cell is before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// As measured.
    pub before: BTreeMap<CellName, f64>,
    /// If the changes do what is expected of them.
    pub after: BTreeMap<CellName, f64>,
    /// One after another.
    pub proposals: Vec<Proposal>,
}

/// A piece of load that moves as one.
#[derive(Clone, Debug)]
struct Unit {
    cell: CellName,
    /// It is with the children of this directory. None: it stays where it is.
    directory: Option<Name>,
    load: f64,
}

/// Where everything would be after some of the changes.
struct Planner<'a> {
    map: PartitionMap,
    loads: &'a Loads,
    units: Vec<Unit>,
    /// What has been dealt with.
    changed: Vec<Name>,
}

/// A change that is possible, and what would come of it.
struct Candidate {
    proposal: Proposal,
    after: PartitionMap,
    units: Vec<Unit>,
    /// How unlike the cells are in load.
    spread: f64,
}

/// What some requests cost a cell, in reads per second.
pub fn cost(part: &Part) -> f64 {
    WRITE_WEIGHT.mul_add(part.writes_per_s, part.reads_per_s)
}

/// Proposes changes of a map of which none is under way, for cells that all say what load they bear.
pub fn plan(map: &PartitionMap, loads: &Loads, thresholds: Thresholds) -> Plan {
    let mut planner = Planner { map: map.clone(), loads, units: units(map, loads), changed: Vec::new() };
    let before = by_cell(map, &planner.units);
    let mut proposals = Vec::new();
    while proposals.len() < PROPOSALS_MAX
        && let Some(candidate) = planner.best(thresholds)
    {
        planner.changed.push(candidate.proposal.wish.prefix().name().clone());
        (planner.map, planner.units) = (candidate.after, candidate.units);
        proposals.push(candidate.proposal);
    }
    Plan { before, after: by_cell(map, &planner.units), proposals }
}

impl Plan {
    /// What every cell would have if all had the same.
    pub fn mean(&self) -> f64 {
        self.before.values().sum::<f64>() / self.before.len().max(1) as f64
    }

    /// The most loaded cell as measured.
    pub fn most_loaded(&self) -> Option<(&CellName, f64)> {
        most_loaded(&self.before)
    }
}

/// The first of those with the greatest load.
fn most_loaded(loads: &BTreeMap<CellName, f64>) -> Option<(&CellName, f64)> {
    let greatest = loads.values().copied().max_by(f64::total_cmp)?;
    loads.iter().map(|(cell, load)| (cell, *load)).find(|(_, load)| *load >= greatest)
}

/// The load of each directory that is told one by one, and what is left of each rule and of each cell.
fn units(map: &PartitionMap, loads: &Loads) -> Vec<Unit> {
    let mut units = Vec::new();
    for (cell, load) in &loads.0 {
        let mut rules: BTreeMap<&str, f64> =
            load.rules.iter().map(|(prefix, part)| (prefix.as_str(), cost(part))).collect();
        let unit =
            |directory: Option<&Name>, load| Unit { cell: cell.clone(), directory: directory.cloned(), load };
        for (name, part) in &load.directories {
            if let Some(prefix) = map.children_rule(name)
                && let Some(rest) = rules.get_mut(prefix.to_string().as_str())
            {
                *rest -= cost(part);
            }
            units.push(unit(Some(name), cost(part)));
        }
        for (text, rest) in rules {
            let prefix = Prefix::parse(text).ok();
            let directory = prefix.as_ref().and_then(|prefix| match prefix {
                Prefix::Below(name) => Some(name),
                Prefix::Ring(_) => None,
            });
            units.push(unit(directory, rest.max(0.0)));
        }
        units.push(unit(None, cost(&load.others)));
    }
    units
}

fn by_cell(map: &PartitionMap, units: &[Unit]) -> BTreeMap<CellName, f64> {
    let mut loads: BTreeMap<_, _> = map.cells.keys().map(|cell| (cell.clone(), 0.0)).collect();
    for unit in units {
        *loads.entry(unit.cell.clone()).or_default() += unit.load;
    }
    loads
}

impl Planner<'_> {
    /// The best that can be done for the most loaded cell, if it is worth it.
    fn best(&self, thresholds: Thresholds) -> Option<Candidate> {
        let loads = by_cell(&self.map, &self.units);
        let (from, load) = most_loaded(&loads)?;
        if load <= 0.0 || load < thresholds.load_min {
            return None;
        }
        let load_max = load * (1.0 - thresholds.gain_min);
        let targets = loads.keys().filter(|cell| *cell != from);
        let candidates = targets.flat_map(|to| {
            let wishes = self.splits(from, to).into_iter().chain(self.moves(from, to));
            wishes.filter_map(|(wish, part)| self.candidate(wish, part, from, to, load_max))
        });
        // The first of equals: by cell, splits before moves, by name.
        candidates.min_by(|a, b| {
            let nodes = |candidate: &Candidate| candidate.proposal.nodes;
            a.spread.total_cmp(&b.spread).then_with(|| nodes(a).cmp(&nodes(b)))
        })
    }

    /// New rules for directories of that cell in which anything is.
    fn splits(&self, from: &CellName, to: &CellName) -> Vec<(Wish, Part)> {
        let Some(load) = self.loads.0.get(from) else { return Vec::new() };
        let is_possible = |name: &Name, part: &Part| {
            part.nodes > 0
                && self.map.cells_of(&Prefix::Below(name.clone())).is_empty()
                && self.map.children_owner(name) == Some(from)
        };
        let directories = load.directories.iter().filter(|(name, part)| is_possible(name, part));
        directories.map(|(name, part)| (Wish::Split(change(name, to)), *part)).collect()
    }

    /// Another cell for plain rules of that cell; no rule where that one above has the right cell.
    fn moves(&self, from: &CellName, to: &CellName) -> Vec<(Wish, Part)> {
        let Some(load) = self.loads.0.get(from) else { return Vec::new() };
        let rules = self.map.rules().filter(|(name, cell)| *cell == from && name.parent().is_some());
        let wish = |(name, _): (&Name, &CellName)| {
            let prefix = Prefix::Below(name.clone());
            let part = load.rules.get(&prefix.to_string()).copied()?;
            let merged = Change { prefix: prefix.clone(), cells: Vec::new() };
            let after = self.map.changing(merged).ok()?;
            let goes_there = after.after().and_then(|after| after.children_owner(name)) == Some(to);
            Some((if goes_there { Wish::Merge(prefix) } else { Wish::Move(change(name, to)) }, part))
        };
        rules.filter_map(wish).collect()
    }

    /// What would come of a change, if it may be made, and takes the load of neither cell above that.
    fn candidate(
        &self,
        wish: Wish,
        part: Part,
        from: &CellName,
        to: &CellName,
        load_max: f64,
    ) -> Option<Candidate> {
        let name = wish.prefix().name();
        let is_near = |other: &Name| other == name || other.is_below(name) || name.is_below(other);
        let is_small = part.nodes <= MOVE_NODES_MAX as u64 && part.bytes <= MOVE_BYTES_MAX as u64;
        if !is_small || self.is_system(name) || self.changed.iter().any(is_near) {
            return None;
        }
        let after = wish.over(&self.map).ok()?.after()?.clone();
        let mut units = self.units.clone();
        let mut load = 0.0;
        for unit in &mut units {
            let Some(directory) = &unit.directory else { continue };
            let goes = unit.cell == *from && self.map.children_owner(directory) == Some(from);
            if goes && after.children_owner(directory) == Some(to) {
                unit.cell = to.clone();
                load += unit.load;
            }
        }
        let loads = by_cell(&self.map, &units);
        if [from, to].iter().any(|cell| loads[*cell] > load_max) {
            return None;
        }
        let Part { nodes, bytes, .. } = part;
        let proposal = Proposal { wish, from: from.clone(), to: to.clone(), nodes, bytes, load };
        Some(Candidate { proposal, after, units, spread: spread(&loads) })
    }

    /// Whether the namespace's own files are there, or would go along.
    fn is_system(&self, name: &Name) -> bool {
        SYSTEM_DIRECTORIES.iter().any(|directory| {
            let own = Name::parse(&format!("/ls/{}/{directory}", self.map.namespace));
            own.is_ok_and(|own| own == *name || name.is_below(&own) || own.is_below(name))
        })
    }
}

fn change(name: &Name, to: &CellName) -> Change {
    Change { prefix: Prefix::Below(name.clone()), cells: vec![to.clone()] }
}

/// How far the cells are from having the same load; with as many digits as the order of summing does not change.
fn spread(loads: &BTreeMap<CellName, f64>) -> f64 {
    let total: f64 = loads.values().sum();
    let squares: f64 = loads.values().map(|load| (load / total).powi(2)).sum();
    (squares * 1e9).round()
}

#[cfg(test)]
mod tests;
