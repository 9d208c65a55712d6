//! The rules of a partition map as a tree: each below the rule that it makes an exception to.

use std::iter::Peekable;

use hasp_client::Name;
use hasp_proto::partition::{PartitionMap, Prefix};

use crate::format::columns;

/// A rule, with its cells, and those below it.
struct Branch {
    /// What its prefix says beyond that of the rule above.
    label: String,
    cells: String,
    below: Vec<Branch>,
}

/// One rule a line, with its cells.
pub fn draw(map: &PartitionMap) -> String {
    let plain = map.rules().map(|(name, cell)| (Prefix::Below(name.clone()), cell.to_string()));
    let rings = map.rings().map(|(name, ring)| (Prefix::Ring(name.clone()), ring.to_string()));
    let mut rules: Vec<_> = plain.chain(rings).collect();
    rules.sort_by_cached_key(|(prefix, _)| components(prefix));
    let mut rules = rules.into_iter().peekable();
    let mut rows = vec![vec!["PREFIX".to_owned(), "CELLS".to_owned()]];
    while let Some((prefix, cells)) = rules.next() {
        rows.push(vec![prefix.to_string(), cells]);
        add_rows(&branches(&mut rules, &prefix), "", &mut rows);
    }
    columns(&rows)
}

/// What to sort by so that rules stand behind the one that they are exceptions to: components one by one, and a ring
/// before all that is below its directory.
fn components(prefix: &Prefix) -> Vec<String> {
    let ring = match prefix {
        Prefix::Below(_) => None,
        Prefix::Ring(_) => Some(""),
    };
    prefix.name().as_str().split('/').skip(1).chain(ring).map(str::to_owned).collect()
}

/// Takes the rules that are exceptions to this one.
fn branches(rules: &mut Peekable<impl Iterator<Item = (Prefix, String)>>, above: &Prefix) -> Vec<Branch> {
    let mut taken = Vec::new();
    while let Some((prefix, cells)) = rules.next_if(|(prefix, _)| is_within(prefix, above)) {
        let label = label(&prefix, above.name());
        let below = branches(rules, &prefix);
        taken.push(Branch { label, cells, below });
    }
    taken
}

fn is_within(prefix: &Prefix, above: &Prefix) -> bool {
    match above {
        Prefix::Below(directory) => {
            prefix.name().is_below(directory) || *prefix == Prefix::Ring(directory.clone())
        }
        Prefix::Ring(directory) => prefix.name().is_below(directory),
    }
}

fn label(prefix: &Prefix, above: &Name) -> String {
    let text = prefix.to_string();
    text.strip_prefix(above.as_str()).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&text).to_owned()
}

fn add_rows(branches: &[Branch], indent: &str, rows: &mut Vec<Vec<String>>) {
    for (place, Branch { label, cells, below }) in branches.iter().enumerate() {
        let is_last = place + 1 == branches.len();
        let (own, under) = if is_last { ("└── ", "    ") } else { ("├── ", "│   ") };
        rows.push(vec![format!("{indent}{own}{label}"), cells.clone()]);
        add_rows(below, &format!("{indent}{under}"), rows);
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::id::CellName;

    use super::*;

    #[test]
    fn a_rule_stands_below_the_one_that_it_is_an_exception_to() {
        let cells = ["a", "b", "c"].map(|cell| (CellName::new(cell), vec![])).into();
        let rules = [
            ("/ls/dev", "a"),
            ("/ls/dev/jobs", "b"),
            ("/ls/dev/jobs/x/y", "c"),
            ("/ls/dev/jobs-old", "c"),
            ("/ls/dev/jobs/*", "a b"),
            ("/ls/dev/users/*", "a b c"),
            ("/ls/dev/users/root", "a"),
            ("/ls/dev/users/root/*", "c"),
            ("/ls/dev/zoo/*", "b"),
        ];
        let map = PartitionMap::new(1, "dev", rules, cells).expect("a good map");

        let expected = "\
PREFIX           CELLS
/ls/dev          a
├── jobs         b
│   └── *        a b
│       └── x/y  c
├── jobs-old     c
├── users/*      a b c
│   └── root     a
│       └── *    c
└── zoo/*        b
";
        assert_eq!(draw(&map), expected);
    }
}
