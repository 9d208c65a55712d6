//! What load a cell bears, for its operators: what the master measured, and what the nodes weigh, by rule and by
//! directory. Nodes are counted when somebody asks, in one walk of them all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hasp_proto::name::Name;
use hasp_proto::partition::{PartitionMap, Prefix};
use hasp_proto::wire::admin::v1;

use crate::master::{Measured, Rates};
use crate::state::State;

/// The hottest directories are told one by one, so many.
const HOTTEST_MAX: usize = 64;

/// After so many nodes others are let run.
const NODES_AT_ONCE: usize = 10_000;

/// Nodes and the bytes of their contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    nodes: u64,
    bytes: u64,
}

impl Weight {
    const fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
    }
}

/// What is told.
struct Census<'a> {
    map: &'a PartitionMap,
    /// By the text of the prefix.
    rules: BTreeMap<String, (Weight, Rates)>,
    directories: BTreeMap<Name, (Weight, Rates)>,
    others: Rates,
    /// For how long it was counted.
    over: Duration,
}

/// Puts together what was measured and what the nodes weigh.
pub(super) async fn report(state: &State, map: &PartitionMap, measured: Measured) -> v1::Load {
    let mut census = Census::of(map, measured);
    let mut nodes = state.nodes().peekable();
    let mut walked = 0;
    while let Some((name, node)) = nodes.next() {
        let directory = name.parent();
        let mut weight = Weight { nodes: 1, bytes: node.contents.len() as u64 };
        while let Some((_, node)) = nodes.next_if(|(other, _)| is_beside(other, directory.as_ref())) {
            weight.add(Weight { nodes: 1, bytes: node.contents.len() as u64 });
        }
        census.weigh(&directory.unwrap_or_else(|| name.clone()), weight);
        walked += weight.nodes as usize;
        if walked >= NODES_AT_ONCE {
            walked = 0;
            tokio::task::yield_now().await;
        }
    }
    census.to_wire()
}

/// Whether a node is in that directory, too.
fn is_beside(name: &Name, directory: Option<&Name>) -> bool {
    directory.is_some_and(|directory| name.ancestry().nth(1) == Some(directory.as_str()))
}

impl<'a> Census<'a> {
    /// The hottest directories, and those above them up to where their rule ends.
    fn of(map: &'a PartitionMap, measured: Measured) -> Self {
        let mut rules = BTreeMap::<String, (Weight, Rates)>::new();
        let mut others = measured.others;
        for (directory, rates) in &measured.directories {
            match map.children_rule(directory) {
                Some(prefix) => rules.entry(prefix.to_string()).or_default().1.add(*rates),
                None => others.add(*rates),
            }
        }
        let mut hottest: Vec<_> = measured.directories.iter().collect();
        hottest.sort_by(|(_, a), (_, b)| b.total().total_cmp(&a.total()));
        hottest.truncate(HOTTEST_MAX);
        let told: BTreeSet<Name> = hottest.into_iter().flat_map(|(name, _)| covered(map, name)).collect();
        let rates = |name: &Name| measured.directories.get(name).copied().unwrap_or_default();
        let directories = told.into_iter().map(|name| (name.clone(), (Weight::default(), rates(&name))));
        Self { map, rules, directories: directories.collect(), others, over: measured.over }
    }

    /// Adds what is directly in a directory.
    fn weigh(&mut self, directory: &Name, weight: Weight) {
        if let Some(prefix) = self.map.children_rule(directory) {
            self.rules.entry(prefix.to_string()).or_default().0.add(weight);
        }
        for name in covered(self.map, directory) {
            if let Some((below, _)) = self.directories.get_mut(&name) {
                below.add(weight);
            }
        }
    }

    fn to_wire(&self) -> v1::Load {
        let rule = |(prefix, (weight, rates)): (&String, &(Weight, Rates))| v1::RuleLoad {
            prefix: prefix.clone(),
            nodes: weight.nodes,
            bytes: weight.bytes,
            reads_per_s: rates.reads,
            writes_per_s: rates.writes,
        };
        let directory = |(name, (weight, rates)): (&Name, &(Weight, Rates))| v1::DirectoryLoad {
            name: name.to_string(),
            nodes: weight.nodes,
            bytes: weight.bytes,
            reads_per_s: rates.reads,
            writes_per_s: rates.writes,
        };
        v1::Load {
            rules: self.rules.iter().map(rule).collect(),
            directories: self.directories.iter().map(directory).collect(),
            other_reads_per_s: self.others.reads,
            other_writes_per_s: self.others.writes,
            map_version: self.map.version,
            measured_s: self.over.as_secs_f64(),
        }
    }
}

/// A directory and those above it for whose children the same rule is; none in another namespace.
fn covered(map: &PartitionMap, directory: &Name) -> Vec<Name> {
    let top = match map.children_rule(directory) {
        Some(Prefix::Below(name)) => name.depth(),
        // The directory that is on the ring.
        Some(Prefix::Ring(name)) => name.depth() + 1,
        None => return Vec::new(),
    };
    std::iter::successors(Some(directory.clone()), Name::parent)
        .take_while(|name| name.depth() >= top)
        .collect()
}

#[cfg(test)]
mod tests {
    use hasp_proto::id::CellName;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a good name")
    }

    fn map() -> PartitionMap {
        let cells = ["a", "b"].map(|cell| (CellName::new(cell), vec![])).into();
        let rules = [("/ls/dev", "a"), ("/ls/dev/x/y", "a"), ("/ls/dev/users/*", "a b")];
        PartitionMap::new(1, "dev", rules, cells).expect("a good map")
    }

    fn measured(of: &[(&str, f64, f64)]) -> Measured {
        let rates =
            |(text, reads, writes): &(&str, f64, f64)| (name(text), Rates { reads: *reads, writes: *writes });
        let (others, over) = (Rates { reads: 1.0, writes: 2.0 }, Duration::from_millis(2_500));
        Measured { directories: of.iter().map(rates).collect(), others, over }
    }

    #[test]
    fn weights_and_rates_go_to_the_rule_and_to_the_directories_above() {
        let map = map();
        let of = [("/ls/dev/x/d", 3.0, 1.0), ("/ls/dev/x/y/z", 5.0, 0.0), ("/ls/dev/users/u/d", 0.0, 7.0)];
        let mut census = Census::of(&map, measured(&of));
        for (directory, nodes) in [("/ls/dev", 2), ("/ls/dev/x", 3), ("/ls/dev/x/d", 4), ("/ls/dev/x/y", 5)] {
            census.weigh(&name(directory), Weight { nodes, bytes: 10 * nodes });
        }
        census.weigh(&name("/ls/dev/users/u/d"), Weight { nodes: 6, bytes: 0 });

        let load = census.to_wire();
        let rules: Vec<_> =
            load.rules.iter().map(|it| (&*it.prefix, it.nodes, it.reads_per_s, it.writes_per_s)).collect();
        let expected =
            [("/ls/dev", 9, 3.0, 1.0), ("/ls/dev/users/*", 6, 0.0, 7.0), ("/ls/dev/x/y", 5, 5.0, 0.0)];
        assert_eq!(rules, expected);
        let directories: Vec<_> = load.directories.iter().map(|it| (&*it.name, it.nodes)).collect();
        let expected = [
            ("/ls/dev", 9),
            ("/ls/dev/users/u", 6),
            ("/ls/dev/users/u/d", 6),
            ("/ls/dev/x", 7),
            ("/ls/dev/x/d", 4),
            ("/ls/dev/x/y", 5),
            ("/ls/dev/x/y/z", 0),
        ];
        assert_eq!(directories, expected);
        assert_eq!((load.other_reads_per_s, load.other_writes_per_s), (1.0, 2.0));
        assert_eq!((load.map_version, load.measured_s), (1, 2.5));
    }

    #[test]
    fn only_the_hottest_directories_are_told() {
        let names: Vec<_> = (0..500).map(|number| format!("/ls/dev/d{number}")).collect();
        let of: Vec<_> =
            names.iter().zip(0..).map(|(name, rate)| (name.as_str(), f64::from(rate), 0.0)).collect();
        let map = map();
        let load = Census::of(&map, measured(&of)).to_wire();

        assert_eq!(load.directories.len(), HOTTEST_MAX + 1, "and the root");
        assert!(load.directories.iter().any(|it| it.name == "/ls/dev/d499"));
        assert_eq!(load.rules[0].reads_per_s, 499.0 * 500.0 / 2.0);
    }
}
