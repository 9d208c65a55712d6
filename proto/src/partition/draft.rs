//! A map while its rules are put together and checked, whether they come from a configuration, a message or a file.

use std::collections::BTreeMap;
use std::fmt;

use super::{CellRing, Change, PartitionMap};
use crate::id::CellName;
use crate::limits::CONTENTS_BYTES_MAX;
use crate::name::{Name, NameError};

/// How the prefix of a ring rule ends, as text.
const RING: &str = "/*";
/// So a directory of this name cannot have a plain rule.
const STAR: &str = "*";

/// What a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Every node strictly below the directory.
    Below(Name),
    /// Every node strictly below a directory that is directly below this one. As text it ends in `/*`.
    Ring(Name),
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
        source: NameError,
    },
    /// A plain rule for a directory that is called `*`.
    #[error("partition rule {0}: a directory called * can have no rule of its own")]
    Star(Name),
    /// A prefix of another namespace.
    #[error("partition rule {0}: not in namespace {1}")]
    OtherNamespace(Prefix, String),
    /// Two rules for one prefix.
    #[error("partition rule {0} is given twice")]
    Twice(Prefix),
    /// A rule names a cell that is not listed.
    #[error("partition rule {0}: cell {1} is not among the cells")]
    UnknownCell(Prefix, CellName),
    /// A rule without a cell.
    #[error("partition rule {0}: no cell")]
    NoCell(Prefix),
    /// A plain rule with several cells.
    #[error("partition rule {0}: {1} cells; only a prefix that ends in /* is spread over several")]
    SeveralCells(Prefix, usize),
    /// A ring rule names a cell twice.
    #[error("partition rule {0}: cell {1} is named twice")]
    CellTwice(Prefix, CellName),
    /// No rule for the namespace's root.
    #[error("no partition rule for {0}, the root of the namespace")]
    NoRoot(String),
    /// Not a cell name.
    #[error("{0:?} is not a cell name: 1 to 63 lower-case letters, digits and hyphens")]
    CellName(String),
    /// A change after which everything would be where it is.
    #[error("partition rule {0}: the change changes nothing")]
    NothingChanges(Prefix),
    /// A change of what does not move.
    #[error("partition rule {0}: the home cell has the namespace's ACLs and map, and they do not move")]
    HomeStays(Prefix),
    /// A second change before the first has come to its end.
    #[error("partition rule {0} is changing: one change at a time")]
    IsChanging(Prefix),
    /// A change of a map with the greatest number there is.
    #[error("there is no version after the partition map's")]
    LastVersion,
    /// Too many rules, or too long ones: the map is a file, too.
    #[error("the partition map takes {0} bytes as a file, the limit is {CONTENTS_BYTES_MAX}")]
    TooLarge(usize),
}

impl Prefix {
    /// Reads it as text.
    ///
    /// # Errors
    /// The directory's name is none.
    pub fn parse(text: &str) -> Result<Self, MapError> {
        let checked =
            |name| Name::parse(name).map_err(|source| MapError::Prefix { prefix: text.into(), source });
        match text.strip_suffix(RING) {
            Some(directory) => checked(directory).map(Self::Ring),
            None => checked(text).map(Self::Below),
        }
    }

    /// The directory.
    pub const fn name(&self) -> &Name {
        match self {
            Self::Below(name) | Self::Ring(name) => name,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(name) => name.fmt(f),
            Self::Ring(name) => write!(f, "{name}{RING}"),
        }
    }
}

/// A map that lacks rules yet.
pub(crate) struct Draft {
    namespace: String,
    rules: BTreeMap<Name, CellName>,
    rings: BTreeMap<Name, CellRing>,
    cells: BTreeMap<CellName, Vec<String>>,
}

impl Draft {
    /// Without a rule.
    ///
    /// # Errors
    /// The name of a cell is none.
    pub(crate) fn new(namespace: &str, cells: BTreeMap<CellName, Vec<String>>) -> Result<Self, MapError> {
        match cells.keys().find(|cell| !CellName::is_valid(cell.as_str())) {
            Some(bad) => Err(MapError::CellName(bad.to_string())),
            None => Ok(Self {
                namespace: namespace.into(),
                rules: BTreeMap::new(),
                rings: BTreeMap::new(),
                cells,
            }),
        }
    }

    /// With the rules of a map.
    pub(super) fn of(map: &PartitionMap) -> Self {
        let PartitionMap { namespace, rules, rings, cells, .. } = map.clone();
        Self { namespace, rules, rings, cells }
    }

    /// Takes the rule of that prefix out; whether there was one.
    pub(super) fn remove(&mut self, prefix: &Prefix) -> bool {
        match prefix {
            Prefix::Below(name) => self.rules.remove(name).is_some(),
            Prefix::Ring(name) => self.rings.remove(name).is_some(),
        }
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// What is wrong with it, or that there is one for this prefix already.
    pub(crate) fn add<'a>(
        &mut self,
        prefix: &Prefix,
        cells: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), MapError> {
        if prefix.name().namespace() != self.namespace {
            return Err(MapError::OtherNamespace(prefix.clone(), self.namespace.clone()));
        }
        let mut cells = self.known(prefix, cells)?;
        let is_new = match prefix {
            Prefix::Below(name) if name.component() == STAR => return Err(MapError::Star(name.clone())),
            Prefix::Below(_) if cells.len() > 1 => {
                return Err(MapError::SeveralCells(prefix.clone(), cells.len()));
            }
            Prefix::Below(name) => self.rules.insert(name.clone(), cells.swap_remove(0)).is_none(),
            Prefix::Ring(name) => self.rings.insert(name.clone(), CellRing::new(cells)).is_none(),
        };
        if is_new { Ok(()) } else { Err(MapError::Twice(prefix.clone())) }
    }

    /// The cells of a rule: at least one, each listed, each once.
    fn known<'a>(
        &self,
        prefix: &Prefix,
        cells: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<CellName>, MapError> {
        let mut known = Vec::new();
        for cell in cells.into_iter().map(CellName::new) {
            if !self.cells.contains_key(&cell) {
                return Err(MapError::UnknownCell(prefix.clone(), cell));
            }
            known.push(cell);
        }
        let mut sorted: Vec<&CellName> = known.iter().collect();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(MapError::CellTwice(prefix.clone(), twice[0].clone()));
        }
        if known.is_empty() { Err(MapError::NoCell(prefix.clone())) } else { Ok(known) }
    }

    /// The map with these rules, of which one is about to change.
    ///
    /// # Errors
    /// As [`Draft::finish`]; or what is wrong with the change.
    pub(crate) fn finish_changing(
        self,
        version: u64,
        change: Option<Change>,
    ) -> Result<PartitionMap, MapError> {
        let map = self.finish(version)?;
        match change {
            Some(change) => map.with_coming(change),
            None => Ok(map),
        }
    }

    /// The map with these rules.
    ///
    /// # Errors
    /// There is none for the root, or there are too many.
    pub(crate) fn finish(self, version: u64) -> Result<PartitionMap, MapError> {
        let Self { namespace, rules, rings, cells } = self;
        let root = format!("/ls/{namespace}");
        if !rules.contains_key(root.as_str()) {
            return Err(MapError::NoRoot(root));
        }
        PartitionMap { version, namespace, rules, rings, cells, coming: None }.fits()
    }
}

impl PartitionMap {
    /// The same, if there is room for it in the file.
    pub(super) fn fits(self) -> Result<Self, MapError> {
        match self.to_file().len() {
            bytes if bytes > CONTENTS_BYTES_MAX => Err(MapError::TooLarge(bytes)),
            _ => Ok(self),
        }
    }
}
