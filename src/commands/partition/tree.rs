//! The rules of a partition map as a tree: each below the rule that it makes an exception to.

use std::iter::Peekable;

use hasp_client::{CellName, Name};
use hasp_proto::partition::{PartitionMap, Prefix};

use crate::format::columns;

/// What stands above the columns.
const HEAD: [&str; 6] = ["PREFIX", "CELL", "NODES", "BYTES", "READS/S", "WRITES/S"];

/// A rule, with its cells, and those below it.
struct Branch {
    /// What its prefix says beyond that of the rule above.
    label: String,
    cells: Lines,
    below: Vec<Branch>,
}

/// What is said of each cell of a rule, its name first: a line for each.
type Lines = Vec<Vec<String>>;

/// A line for each cell of each rule, with what is known of it there: nodes, bytes, reads and writes per second.
pub fn draw(map: &PartitionMap, known: impl Fn(&Prefix, &CellName) -> Vec<String>) -> String {
    let lines = |prefix: Prefix, cells: &[CellName]| {
        let line = |cell: &CellName| [vec![cell.to_string()], known(&prefix, cell)].concat();
        let lines: Lines = cells.iter().map(line).collect();
        (prefix, lines)
    };
    let plain =
        map.rules().map(|(name, cell)| lines(Prefix::Below(name.clone()), std::slice::from_ref(cell)));
    let rings = map.rings().map(|(name, ring)| lines(Prefix::Ring(name.clone()), ring.cells()));
    let mut rules: Vec<_> = plain.chain(rings).collect();
    rules.sort_by_cached_key(|(prefix, _)| components(prefix));
    let mut rules = rules.into_iter().peekable();
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    while let Some((prefix, cells)) = rules.next() {
        let below = branches(&mut rules, &prefix);
        rows.extend(rows_of(prefix.to_string(), if below.is_empty() { "" } else { "│" }, cells));
        add_rows(below, "", &mut rows);
    }
    columns(&rows)
}

/// The first of a rule's rows has its prefix, the others what goes on below it.
fn rows_of(first: String, others: &str, cells: Lines) -> impl Iterator<Item = Vec<String>> {
    let labels = std::iter::once(first).chain(std::iter::repeat(others.to_owned()));
    labels.zip(cells).map(|(label, cells)| [vec![label], cells].concat())
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
fn branches(rules: &mut Peekable<impl Iterator<Item = (Prefix, Lines)>>, above: &Prefix) -> Vec<Branch> {
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

fn add_rows(branches: Vec<Branch>, indent: &str, rows: &mut Lines) {
    let count = branches.len();
    for (place, Branch { label, cells, below }) in branches.into_iter().enumerate() {
        let is_last = place + 1 == count;
        let (own, under) = if is_last { ("└── ", "    ") } else { ("├── ", "│   ") };
        let under = format!("{indent}{under}");
        let others = if below.is_empty() { under.clone() } else { format!("{under}│") };
        rows.extend(rows_of(format!("{indent}{own}{label}"), others.trim_end(), cells));
        add_rows(below, &under, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_stands_below_the_one_that_it_is_an_exception_to() {
        let cells = ["a", "b", "c", "d"].map(|cell| (CellName::new(cell), vec![])).into();
        let rules = [
            ("/ls/dev", "a"),
            ("/ls/dev/jobs", "b"),
            ("/ls/dev/jobs/x/y", "c"),
            ("/ls/dev/jobs-old", "c"),
            ("/ls/dev/jobs/*", "a b"),
            ("/ls/dev/users/*", "a b c"),
            ("/ls/dev/users/root", "a"),
            ("/ls/dev/users/root/*", "c"),
            ("/ls/dev/zoo/*", "b d"),
        ];
        let map = PartitionMap::new(1, "dev", rules, cells).expect("a good map");

        let expected = "\
PREFIX           CELL  NODES  BYTES  READS/S  WRITES/S
/ls/dev          a     7
├── jobs         b     12
│   └── *        a     14
│       │        b     14
│       └── x/y  c     16
├── jobs-old     c     16
├── users/*      a     15
│   │            b     15
│   │            c     15
│   └── root     a     18
│       └── *    c     20
└── zoo/*        b     13
                 d     13
";
        assert_eq!(draw(&map, |prefix, _| vec![prefix.to_string().len().to_string()]), expected);
    }
}
