//! The partition map: which cell owns which names (rules `route-1` and `route-2`, design §2).
//!
//! Cells, routers, proxies and client libraries all decide ownership here and nowhere else.

mod cell_ring;
mod change;
mod draft;
mod standing;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::acl::ACL_DIRECTORY;
use crate::id::CellName;
use crate::name::Name;
pub use cell_ring::CellRing;
pub use change::Change;
use change::Coming;
pub(crate) use draft::Draft;
pub use draft::{MapError, Prefix};
pub use standing::{GIVEN_UP, Standing};
pub use text::PARTITIONS_FILE;

/// Who owns what: a list of rules, prefix to cell or to a ring of cells, and where the cells are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMap {
    /// Grows with every change.
    pub version: u64,
    /// The namespace whose names the rules divide.
    pub namespace: String,
    /// Prefix -> cell that owns every node strictly below it, unless a longer prefix says otherwise.
    /// The namespace's root is always among them; its cell is the home cell.
    rules: BTreeMap<Name, CellName>,
    /// Directory -> cells over which the directories directly below it are spread: each one's children, and what
    /// is below those, are all in one cell.
    rings: BTreeMap<Name, CellRing>,
    /// Cell -> `host:port` of each replica.
    pub cells: BTreeMap<CellName, Vec<String>>,
    /// What is about to become of it.
    coming: Option<Arc<Coming>>,
}

/// A [`Prefix`] that is a map's own.
#[derive(Clone, Copy)]
enum Covering<'a> {
    Below(&'a Name),
    Ring(&'a Name),
}

impl PartitionMap {
    /// Checks and builds a map. `rules` are pairs of prefix and cell name; a prefix that ends in `/*` is a ring rule,
    /// and goes with the names of its cells, separated by blanks or commas.
    ///
    /// # Errors
    /// The first rule that is wrong, and how.
    pub fn new<'a>(
        version: u64,
        namespace: &str,
        rules: impl IntoIterator<Item = (&'a str, &'a str)>,
        cells: BTreeMap<CellName, Vec<String>>,
    ) -> Result<Self, MapError> {
        let mut draft = Draft::new(namespace, cells)?;
        for (prefix, cells) in rules {
            draft.add(&Prefix::parse(prefix)?, listed(cells))?;
        }
        draft.finish(version)
    }

    /// The plain rules, by prefix.
    pub fn rules(&self) -> impl Iterator<Item = (&Name, &CellName)> {
        self.rules.iter()
    }

    /// The ring rules, by the directory whose directories they spread.
    pub fn rings(&self) -> impl Iterator<Item = (&Name, &CellRing)> {
        self.rings.iter()
    }

    /// The cell that owns the node `name`; `None` for names of other namespaces.
    ///
    /// The rule of a prefix covers what is strictly below it; the prefix itself belongs to its
    /// parent's rule (`route-1`). The root of the namespace belongs to its own.
    pub fn owner(&self, name: &Name) -> Option<&CellName> {
        let mut above = name.ancestry().skip(1).peekable();
        if above.peek().is_none() { self.rules.get(name) } else { Some(self.rule_of(above)?.1) }
    }

    /// The cell that owns the children of the directory `name`: its listing and its emptiness.
    pub fn children_owner(&self, name: &Name) -> Option<&CellName> {
        Some(self.rule_of(name.ancestry())?.1)
    }

    /// The prefix of the rule that says who owns the children of the directory `name`.
    pub fn children_rule(&self, name: &Name) -> Option<Prefix> {
        let (prefix, _) = self.rule_of(name.ancestry())?;
        Some(match prefix {
            Covering::Below(directory) => Prefix::Below(directory.clone()),
            Covering::Ring(directory) => Prefix::Ring(directory.clone()),
        })
    }

    /// The rule of the longest prefix among some directory and those above it, and its cell there. At each, its own rule
    /// goes before the ring that it is on (`route-2`).
    fn rule_of<'n>(&self, mut ancestry: impl Iterator<Item = &'n str>) -> Option<(Covering<'_>, &CellName)> {
        let mut directory = ancestry.next()?;
        loop {
            if let Some((name, cell)) = self.rules.get_key_value(directory) {
                return Some((Covering::Below(name), cell));
            }
            let above = ancestry.next()?;
            if let Some((name, ring)) = self.rings.get_key_value(above) {
                return Some((Covering::Ring(name), ring.cell_of(directory)));
            }
            directory = above;
        }
    }

    /// Whether the directory `name` may have its node in one cell and its children in another: it has a rule of its
    /// own, or is on a ring.
    pub fn is_boundary(&self, name: &Name) -> bool {
        let has_ring = |above: &str| self.rings.contains_key(above);
        name.ancestry().nth(1).is_some_and(|above| self.rules.contains_key(name) || has_ring(above))
    }

    /// Whether there is a rule for exactly this directory, plain or for the directories below it. Such a directory
    /// stays.
    pub fn has_rule(&self, name: &Name) -> bool {
        self.rules.contains_key(name) || self.rings.contains_key(name)
    }

    /// The directories that the rules speak of, and all above them: those nearest to the root first. They are there
    /// from the beginning.
    pub fn directories(&self) -> Vec<Name> {
        let named = self.rules.keys().chain(self.rings.keys());
        let mut directories: Vec<Name> =
            named.flat_map(|name| std::iter::successors(Some(name.clone()), Name::parent)).collect();
        directories.sort_unstable_by(|a, b| (a.depth(), a).cmp(&(b.depth(), b)));
        directories.dedup();
        directories
    }

    /// The cell that holds the namespace's ACLs and map.
    pub fn home(&self) -> &CellName {
        self.rules.get(format!("/ls/{}", self.namespace).as_str()).expect("checked when the map was made")
    }

    /// The cell that holds the namespace's ACL files: the home cell, unless a rule says otherwise.
    pub fn acl_owner(&self) -> &CellName {
        let directory = Name::parse(&format!("/ls/{}/{ACL_DIRECTORY}", self.namespace));
        directory.ok().and_then(|directory| self.children_owner(&directory)).unwrap_or(self.home())
    }

    /// The same rules and cells, without the addresses.
    pub fn without_addresses(&self) -> Self {
        let cells = self.cells.keys().map(|cell| (cell.clone(), Vec::new())).collect();
        self.with_cells(&cells)
    }

    /// The same rules, with these cells.
    pub fn with_cells(&self, cells: &BTreeMap<CellName, Vec<String>>) -> Self {
        let coming = self.coming.as_ref().map(|coming| Arc::new(coming.with_cells(cells)));
        Self { cells: cells.clone(), coming, ..self.clone() }
    }
}

/// The names in a list, between blanks and commas.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
