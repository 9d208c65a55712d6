//! The partition map: which cell owns which names (rules `route-1`, design §2).
//!
//! Cells, routers, proxies and client libraries all decide ownership here and nowhere else.

use std::collections::BTreeMap;

use crate::id::CellName;
use crate::name::Name;

/// Who owns what: a list of rules, prefix to cell, and where the cells are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMap {
    /// Grows with every change.
    pub version: u64,
    /// The namespace whose names the rules divide.
    pub namespace: String,
    /// Prefix -> cell that owns every node strictly below it, unless a longer prefix says otherwise.
    /// The namespace's root is always among them; its cell is the home cell.
    rules: BTreeMap<Name, CellName>,
    /// Cell -> `host:port` of each replica.
    pub cells: BTreeMap<CellName, Vec<String>>,
}

/// Why some rules make no map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// A prefix that is not a name.
    #[error("partition rule {prefix:?}: {source}")]
    Prefix {
        /// The text given.
        prefix: String,
        /// What is wrong with it.
        source: crate::name::NameError,
    },
    /// A prefix of another namespace.
    #[error("partition rule {0}: not in namespace {1}")]
    OtherNamespace(Name, String),
    /// Two rules for one prefix.
    #[error("partition rule {0} is given twice")]
    Twice(Name),
    /// A rule names a cell that is not listed.
    #[error("partition rule {0}: cell {1} is not among the cells")]
    UnknownCell(Name, CellName),
    /// No rule for the namespace's root.
    #[error("no partition rule for {0}, the root of the namespace")]
    NoRoot(String),
    /// Not a cell name.
    #[error("{0:?} is not a cell name: 1 to 63 lower-case letters, digits and hyphens")]
    CellName(String),
}

impl PartitionMap {
    /// Checks and builds a map. `rules` are pairs of prefix and cell name.
    ///
    /// # Errors
    /// The first rule that is wrong, and how.
    pub fn new<'a>(
        version: u64,
        namespace: &str,
        rules: impl IntoIterator<Item = (&'a str, &'a str)>,
        cells: BTreeMap<CellName, Vec<String>>,
    ) -> Result<Self, MapError> {
        if let Some(bad) = cells.keys().find(|cell| !CellName::is_valid(cell.as_str())) {
            return Err(MapError::CellName(bad.to_string()));
        }
        let mut checked = BTreeMap::new();
        for (prefix, cell) in rules {
            let cell = CellName::new(cell);
            let name =
                Name::parse(prefix).map_err(|source| MapError::Prefix { prefix: prefix.into(), source })?;
            if name.namespace() != namespace {
                return Err(MapError::OtherNamespace(name, namespace.into()));
            }
            if !cells.contains_key(&cell) {
                return Err(MapError::UnknownCell(name, cell));
            }
            if checked.insert(name.clone(), cell).is_some() {
                return Err(MapError::Twice(name));
            }
        }
        let root = format!("/ls/{namespace}");
        if !checked.contains_key(root.as_str()) {
            return Err(MapError::NoRoot(root));
        }
        Ok(Self { version, namespace: namespace.into(), rules: checked, cells })
    }

    /// The rules, by prefix.
    pub fn rules(&self) -> impl Iterator<Item = (&Name, &CellName)> {
        self.rules.iter()
    }

    /// The cell that owns the node `name`; `None` for names of other namespaces.
    ///
    /// The rule of a prefix covers what is strictly below it; the prefix itself belongs to its
    /// parent's rule (`route-1`). The root of the namespace belongs to its own.
    pub fn owner(&self, name: &Name) -> Option<&CellName> {
        match name.parent() {
            Some(parent) => self.children_owner(&parent),
            None => self.rules.get(name),
        }
    }

    /// The cell that owns the children of the directory `name`: its listing and its emptiness.
    pub fn children_owner(&self, name: &Name) -> Option<&CellName> {
        let mut at = Some(name.clone());
        while let Some(prefix) = at {
            if let Some(cell) = self.rules.get(&prefix) {
                return Some(cell);
            }
            at = prefix.parent();
        }
        None
    }

    /// Whether the directory `name` has its node in one cell and its children in another's rule.
    pub fn is_boundary(&self, name: &Name) -> bool {
        name.parent().is_some() && self.rules.contains_key(name)
    }

    /// The cell that holds the namespace's ACLs and map.
    pub fn home(&self) -> &CellName {
        self.rules.get(format!("/ls/{}", self.namespace).as_str()).expect("checked when the map was made")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> BTreeMap<CellName, Vec<String>> {
        ["a", "b"].map(|cell| (CellName::new(cell), vec![])).into()
    }

    fn map() -> PartitionMap {
        PartitionMap::new(1, "dev", [("/ls/dev", "a"), ("/ls/dev/x", "b"), ("/ls/dev/x/y", "a")], cells())
            .expect("a good map")
    }

    #[test]
    fn the_longest_prefix_above_a_name_owns_it() {
        let check = |name: &str, cell: &str| {
            let name = Name::parse(name).expect("good");
            assert_eq!(map().owner(&name).map(CellName::as_str), Some(cell), "{name}");
        };
        check("/ls/dev", "a");
        check("/ls/dev/x", "a");
        check("/ls/dev/x/f", "b");
        check("/ls/dev/x/y", "b");
        check("/ls/dev/x/y/f", "a");
        check("/ls/dev/xy/f", "a");
    }

    #[test]
    fn a_directory_with_a_rule_has_two_homes() {
        let x = Name::parse("/ls/dev/x").expect("good");

        assert_eq!(map().owner(&x).map(CellName::as_str), Some("a"));
        assert_eq!(map().children_owner(&x).map(CellName::as_str), Some("b"));
        assert!(map().is_boundary(&x));
        assert!(!map().is_boundary(&Name::parse("/ls/dev").expect("good")));
    }

    #[test]
    fn names_of_other_namespaces_have_no_owner() {
        assert_eq!(map().owner(&Name::parse("/ls/other/f").expect("good")), None);
    }

    #[test]
    fn bad_rules_are_refused_with_the_rule() {
        let check = |rules: &[(&'static str, &'static str)], message: &str| {
            let error = PartitionMap::new(1, "dev", rules.iter().copied(), cells()).expect_err("bad");
            assert!(error.to_string().contains(message), "{error}");
        };
        check(&[("/ls/dev/x", "a")], "no partition rule for /ls/dev");
        check(&[("/ls/dev", "c")], "cell c is not among");
        check(&[("/ls/dev", "a"), ("/ls/dev", "b")], "twice");
        check(&[("/ls/dev", "a"), ("/ls/prod/x", "b")], "not in namespace dev");
        check(&[("dev", "a")], "begins with /ls/");
    }
}
