//! Where everything is in a world: which machines there are, which cell owns which names, and where applications keep
//! what they work on.

use std::time::Duration;

use hasp_proto::id::CellName;
use hasp_proto::lease::LeaseTerms;
use hasp_proto::name::Name;
use hasp_proto::partition::{PartitionMap, Prefix};

use super::clients::{LOCK, REPLACED};
use super::users::{DIRECTORY, GUARDED, WALLED};

const PORT: u16 = 7000;
/// Replicas of the second cell.
const SECOND_REPLICAS: usize = 3;
/// The rule of the second cell's own names.
const SECOND: (&str, &str) = ("/ls/dev/b", "b");

/// How many machines of each kind, and their limits.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Replicas of the first cell.
    pub replicas: usize,
    /// What a second cell has, if there is one.
    pub spread: Spread,
    /// Whether an operator moves names from cell to cell while clients work on them.
    pub has_moves: bool,
    /// Proxies before them, or before the upper proxies.
    pub proxies: usize,
    /// Proxies that the others are behind, if there are any.
    pub upper: usize,
    /// Whether applications know of the upper proxies, too.
    pub is_upper_known: bool,
    /// Log entries between snapshots.
    pub snapshot_after: u64,
    /// Log entries kept behind a snapshot.
    pub keep_after_snapshot: u64,
    /// What proxies grant.
    pub proxy_lease: Duration,
}

/// How the names are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spread {
    /// There is one cell.
    One,
    /// What is in the directory of names is in a second cell, and the directory itself in the first.
    Prefix,
    /// In the directory of names there are directories, whose children a ring spreads over two cells.
    Ring,
}

impl Shape {
    /// So many machines. Few entries between snapshots, so that snapshots and cut logs are common, and so few behind them
    /// that a replica that was away for a while needs the snapshot.
    pub fn of(replicas: usize, proxies: usize) -> Self {
        let proxy_lease = LeaseTerms::default().lease;
        Self {
            replicas,
            spread: Spread::One,
            has_moves: false,
            proxies,
            upper: 0,
            is_upper_known: false,
            snapshot_after: 50,
            keep_after_snapshot: 20,
            proxy_lease,
        }
    }

    /// Replicas by cell: `replica-1` and so on of cell `a`, `replica-b-1` and so on of cell `b`.
    pub fn cells(&self) -> Vec<(CellName, Vec<String>)> {
        let names = |prefix: &str, count| (1..=count).map(|id| format!("{prefix}{id}")).collect();
        let mut cells = vec![(CellName::new("a"), names("replica-", self.replicas))];
        if self.spread != Spread::One {
            cells.push((CellName::new("b"), names("replica-b-", SECOND_REPLICAS)));
        }
        cells
    }

    /// The proxies that are not before others.
    pub fn lower_proxies(&self) -> Vec<String> {
        (1..=self.proxies).map(|at| format!("proxy-{at}")).collect()
    }

    /// The proxies that are before the others.
    pub fn upper_proxies(&self) -> Vec<String> {
        (1..=self.upper).map(|at| format!("proxy-upper-{at}")).collect()
    }

    /// Proxies that applications know.
    pub fn known_proxies(&self) -> Vec<String> {
        let upper = if self.is_upper_known { self.upper_proxies() } else { Vec::new() };
        self.lower_proxies().into_iter().chain(upper).collect()
    }

    /// Which cell owns what.
    pub fn map(&self) -> PartitionMap {
        let addresses = |names: Vec<String>| names.iter().map(|name| address(name)).collect();
        let cells = self.cells().into_iter().map(|(cell, names)| (cell, addresses(names))).collect();
        let home = ("/ls/dev", "a");
        let rules = match self.spread {
            Spread::One => vec![home],
            Spread::Prefix => vec![home, SECOND, (DIRECTORY, "b")],
            Spread::Ring => vec![home, SECOND, ("/ls/dev/names/*", "a b")],
        };
        PartitionMap::new(1, "dev", rules, cells).expect("a good map")
    }

    /// Where applications keep what is about the lock, and what they replace.
    pub const fn places(&self) -> Places {
        let (guarded, lock) = ("/ls/dev/b/guarded", "/ls/dev/b/lock");
        match self.spread {
            // All that can.
            Spread::Prefix | Spread::Ring if self.has_moves => {
                Places { replaced: "/ls/dev/b/replaced", guarded, lock, walled: "/ls/dev/b/walled" }
            }
            Spread::One => Places { replaced: REPLACED, guarded: GUARDED, lock: LOCK, walled: WALLED },
            Spread::Prefix => {
                let replaced = "/ls/dev/b/replaced";
                Places { replaced, guarded: GUARDED, lock: LOCK, walled: WALLED }
            }
            Spread::Ring => Places { replaced: REPLACED, guarded, lock, walled: "/ls/dev/b/walled" },
        }
    }

    /// Whether what an ACL guards is not always in the cell of the ACL.
    pub const fn is_acl_elsewhere(&self) -> bool {
        self.has_moves || matches!(self.spread, Spread::Ring)
    }

    /// What an operator moves, where one does.
    pub fn movable(&self) -> Vec<Prefix> {
        let names = Name::parse(DIRECTORY).expect("a good name");
        let second = Prefix::Below(Name::parse(SECOND.0).expect("a good name"));
        match self.spread {
            Spread::Prefix if self.has_moves => vec![second, Prefix::Below(names)],
            Spread::Ring if self.has_moves => vec![second, Prefix::Ring(names)],
            Spread::One | Spread::Prefix | Spread::Ring => Vec::new(),
        }
    }

    /// The directories in which names come and go.
    pub fn directories(&self) -> Vec<String> {
        match self.spread {
            Spread::One | Spread::Prefix => vec![DIRECTORY.to_owned()],
            Spread::Ring => {
                let ring = RING.iter().map(|component| format!("{DIRECTORY}/{component}"));
                std::iter::once(DIRECTORY.to_owned()).chain(ring).collect()
            }
        }
    }
}

/// Names of files that are elsewhere in other worlds.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Clients replace it whatever it holds.
    pub replaced: &'static str,
    /// Written by the holder of the lock, under its sequencer.
    pub guarded: &'static str,
    /// Clients contend for it.
    pub lock: &'static str,
    /// An ACL says who may read it.
    pub walled: &'static str,
}

/// Directories on the ring, which come and go themselves.
pub const RING: [&str; 4] = ["d0", "d1", "d2", "d3"];

/// Where a host listens.
pub fn address(host: &str) -> String {
    format!("{host}:{PORT}")
}

/// Where a host of that port listens, on all that it has.
pub fn listen() -> String {
    format!("0.0.0.0:{PORT}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_of_two_cells_has_directories_whose_children_are_elsewhere() {
        for (spread, is_across) in [(Spread::One, false), (Spread::Prefix, true), (Spread::Ring, true)] {
            let shape = Shape { spread, ..Shape::of(3, 1) };
            let map = shape.map();
            let names: Vec<Name> =
                shape.directories().iter().map(|text| Name::parse(text).expect("a good name")).collect();

            let across = names.iter().filter(|name| map.owner(name) != map.children_owner(name)).count();
            assert_eq!(across > 0, is_across, "{spread:?}: {across}");
            if spread == Spread::Ring {
                assert!(across < names.len(), "all of the ring is in the second cell");
            }
        }
    }
}
