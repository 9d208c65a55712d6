//! Which prefix of the load moves next and where to, and what came of the moves.
//!
//! Pure.

use anyhow::{Context as _, bail, ensure};
use hasp_proto::id::CellName;
use hasp_proto::name::Name;
use hasp_proto::partition::{Change, PartitionMap, Prefix};
use hasp_rt::rng::Rng;
use serde::Serialize;

use crate::window::round;

/// The next change of one rule, for one of these directories. What is below it moves: from a directory without a rule
/// to another cell, and with one to another cell or back to where it would be without.
///
/// # Errors
/// Another change is under way, or there is no cell to move anything to.
pub fn next_change(map: &PartitionMap, directories: &[Name], rng: &mut Rng) -> anyhow::Result<Change> {
    if let Some(other) = map.change() {
        bail!("the rule for {} is changing", other.prefix);
    }
    let has_rule = |name: &&Name| map.rules().any(|(of, _)| of == *name);
    let (ruled, free): (Vec<_>, Vec<_>) = directories.iter().partition(has_rule);
    // Half of the moves go on with what has moved, or few would ever be moved twice.
    let goes_on = free.is_empty() || (!ruled.is_empty() && rng.below(2) == 0);
    let name = pick(if goes_on { &ruled } else { &free }, rng).context("move one of no directories")?;
    let now = map.children_owner(name).context("move what is in no cell")?;
    let others: Vec<&CellName> = map.cells.keys().filter(|cell| *cell != now).collect();
    let to = pick(&others, rng).context("move to another cell: there is only one")?;
    let prefix = Prefix::Below((*name).clone());
    if goes_on {
        let merge = Change { prefix: prefix.clone(), cells: Vec::new() };
        let merged = map.changing(merge.clone())?;
        let is_way_back = merged.after().and_then(|after| after.children_owner(name)) == Some(*to);
        if is_way_back && rng.below(2) == 0 {
            return Ok(merge);
        }
    }
    Ok(Change { prefix, cells: vec![(*to).clone()] })
}

fn pick<'a, T>(among: &'a [T], rng: &mut Rng) -> Option<&'a T> {
    if among.is_empty() { None } else { among.get(rng.below(among.len() as u64) as usize) }
}

/// What kind of change it is: `split`, `move` or `merge`, as its command is called.
pub fn kind_of(map: &PartitionMap, change: &Change) -> &'static str {
    match (map.cells_of(&change.prefix).is_empty(), change.cells.is_empty()) {
        (_, true) => "merge",
        (true, false) => "split",
        (false, false) => "move",
    }
}

/// One move, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MoveRecord {
    /// When it was asked for, since the load began.
    pub at_s: f64,
    /// `split`, `move` or `merge`; empty if it was not even begun.
    pub kind: String,
    /// What moved.
    pub prefix: String,
    /// From which cell.
    pub from: String,
    /// To which one.
    pub to: String,
    /// From the writing of the change until the map said that it was done.
    pub seconds: Option<f64>,
    /// Longest time between two acknowledged writes to a file below the prefix.
    pub pause_ms: Option<f64>,
    /// Why it failed.
    pub failure: Option<String>,
}

impl MoveRecord {
    /// For people.
    pub fn text(&self) -> String {
        let Self { kind, prefix, from, to, seconds, .. } = self;
        let what =
            if kind.is_empty() { "a move".to_owned() } else { format!("{kind} of {prefix}, {from} to {to}") };
        match (&self.failure, seconds) {
            (Some(why), _) => format!("{what}: {why}"),
            (None, seconds) => format!("{what}: done after {:.2} s", seconds.unwrap_or_default()),
        }
    }
}

/// All moves of a load test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MovesReport {
    /// How many were asked for.
    pub asked: usize,
    /// How many were done.
    pub done: usize,
    /// Nodes below each prefix, when the load began.
    pub nodes: usize,
    /// How long those that were done took: half of them not longer.
    pub seconds_p50: Option<f64>,
    /// The longest.
    pub seconds_max: Option<f64>,
    /// Their pauses: half of them not longer.
    pub pause_ms_p50: Option<f64>,
    /// The longest.
    pub pause_ms_max: Option<f64>,
    /// Each, in their order.
    pub moves: Vec<MoveRecord>,
}

impl MovesReport {
    /// Of these, of so many nodes each; `None` if there were none.
    pub fn new(moves: &[MoveRecord], nodes: usize) -> Option<Self> {
        let done = || moves.iter().filter(|one| one.failure.is_none());
        let seconds = sorted(done().filter_map(|one| one.seconds));
        let pauses = sorted(done().filter_map(|one| one.pause_ms));
        let longest = |values: &[f64]| values.last().copied().map(round);
        (!moves.is_empty()).then(|| Self {
            asked: moves.len(),
            done: done().count(),
            nodes,
            seconds_p50: quantile(&seconds, 0.5).map(round),
            seconds_max: longest(&seconds),
            pause_ms_p50: quantile(&pauses, 0.5).map(round),
            pause_ms_max: longest(&pauses),
            moves: moves.to_vec(),
        })
    }
}

/// Why a load test with these moves is no success.
pub fn failures(moves: &[MoveRecord]) -> Vec<String> {
    let failed: Vec<_> = moves.iter().filter(|one| one.failure.is_some()).map(MoveRecord::text).collect();
    let count = (!failed.is_empty()).then(|| format!("{} of {} moves failed", failed.len(), moves.len()));
    count.into_iter().chain(failed).collect()
}

/// In order.
pub fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The value that this share of some sorted values does not exceed; `None` of none.
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// The directories that may move, of these names.
///
/// # Errors
/// One is no name.
pub fn directories(names: &[String]) -> anyhow::Result<Vec<Name>> {
    ensure!(!names.is_empty(), "no directory to move");
    names.iter().map(|name| Name::parse(name).with_context(|| format!("move {name}"))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hasp_rt::rng::Seeds;

    use super::*;

    fn map(cells: &[&str]) -> PartitionMap {
        let known = cells.iter().map(|cell| (CellName::new(cell), vec![])).collect();
        let ring = cells.join(" ");
        let rules = [("/ls/load", "a"), ("/ls/load/spread/*", ring.as_str())];
        PartitionMap::new(1, "load", rules, known).expect("a good map")
    }

    fn roots() -> Vec<Name> {
        directories(&["/ls/load/spread/0".into(), "/ls/load/spread/1".into()]).expect("names")
    }

    #[test]
    fn every_move_moves_something_and_all_kinds_come() {
        for cells in [&["a", "b"][..], &["a", "b", "c"]] {
            let (mut map, mut rng) = (map(cells), Seeds::from_seed(3).stream("moves"));
            let mut kinds = BTreeSet::new();

            for _ in 0..60 {
                let change = next_change(&map, &roots(), &mut rng).expect("there is another cell");
                kinds.insert(kind_of(&map, &change));
                let changing = map.changing(change.clone()).expect("a good change");
                assert!(changing.moves_children(change.prefix.name()), "{change:?}");
                assert!(next_change(&changing, &roots(), &mut rng).is_err(), "one at a time");
                map = changing.after().expect("it is under way").clone();
            }

            assert_eq!(kinds, BTreeSet::from(["merge", "move", "split"]));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_moves_and_one_cell_none() {
        let draw = || next_change(&map(&["a", "b"]), &roots(), &mut Seeds::from_seed(3).stream("moves")).ok();
        assert!(draw().is_some());
        assert_eq!(draw(), draw());

        let alone = next_change(&map(&["a"]), &roots(), &mut Seeds::from_seed(3).stream("moves"));
        assert!(alone.expect_err("refused").to_string().contains("only one"));
        assert!(directories(&[]).is_err());
    }

    #[test]
    fn moves_that_failed_count_in_no_quantile() {
        let one = |seconds: f64| MoveRecord {
            kind: "split".into(),
            prefix: "/ls/load/x".into(),
            from: "a".into(),
            to: "b".into(),
            seconds: Some(seconds),
            pause_ms: Some(seconds * 100.0),
            ..MoveRecord::default()
        };
        let failed = MoveRecord { failure: Some("given up: cell b is full".into()), ..one(30.0) };
        let moves = [one(0.3), failed, one(0.1), one(0.2)];

        let report = MovesReport::new(&moves, 40).expect("there are moves");

        assert_eq!((report.asked, report.done), (4, 3));
        assert_eq!((report.seconds_p50, report.seconds_max), (Some(0.2), Some(0.3)));
        assert_eq!((report.pause_ms_p50, report.pause_ms_max), (Some(20.0), Some(30.0)));
        assert_eq!(
            failures(&moves),
            ["1 of 4 moves failed", "split of /ls/load/x, a to b: given up: cell b is full"]
        );
        assert_eq!((MovesReport::new(&[], 40), failures(&moves[..1])), (None, vec![]));
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values = sorted([3.0, 1.0, 2.0, 4.0]);

        assert_eq!(
            [0.0, 0.5, 0.51, 0.99, 1.0].map(|share| quantile(&values, share)),
            [1.0, 2.0, 3.0, 4.0, 4.0].map(Some)
        );
        assert_eq!(quantile(&[], 0.5), None);
    }
}
