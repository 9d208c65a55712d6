//! What becomes of the partition map: decided from the map as it is, without asking anybody.

use hasp_client::CellName;
use hasp_proto::partition::{Change, GIVEN_UP, MapError, PartitionMap, Prefix};

use crate::exit::Failure;

/// Stands for the namespace that is served.
pub const LOCAL: &str = "local";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A rule where there is none.
    Split(Change),
    /// Other cells for a rule.
    Move(Change),
    /// No rule where there is one.
    Merge(Prefix),
}

impl Wish {
    /// Of which prefix.
    pub const fn prefix(&self) -> &Prefix {
        match self {
            Self::Split(change) | Self::Move(change) => &change.prefix,
            Self::Merge(prefix) => prefix,
        }
    }

    /// The map with that change under way.
    ///
    /// # Errors
    /// Refused: another is under way, there is a rule or none, or the service would not take the change either.
    pub fn over(&self, map: &PartitionMap) -> Result<PartitionMap, Failure> {
        if let Some(other) = map.change() {
            return Err(refused(&MapError::IsChanging(other.prefix.clone())));
        }
        let prefix = in_namespace(self.prefix(), map).map_err(|error| refused(&error))?;
        let cells = match (self, !map.cells_of(&prefix).is_empty()) {
            (Self::Split(_), true) => {
                let text =
                    format!("AlreadyExists: {prefix} has a rule; its cells change with partition move");
                return Err(Failure::Refused(text));
            }
            (Self::Move(_), false) => {
                let text = format!("NotFound: {prefix} has no rule; one is made with partition split");
                return Err(Failure::Refused(text));
            }
            (Self::Merge(_), false) => {
                return Err(Failure::Refused(format!("NotFound: {prefix} has no rule")));
            }
            (Self::Split(change), false) | (Self::Move(change), true) => change.cells.clone(),
            (Self::Merge(_), true) => Vec::new(),
        };
        map.changing(Change { prefix, cells }).map_err(|error| refused(&error))
    }
}

/// Reads what a rule is for.
///
/// # Errors
/// Wrong usage, with what is wrong with it.
pub fn parse_prefix(text: &str) -> Result<Prefix, Failure> {
    Prefix::parse(text).map_err(|error| Failure::Usage(format!("InvalidName: {error}")))
}

/// Checks the name of a cell.
///
/// # Errors
/// What is expected.
pub fn parse_cell(text: &str) -> Result<CellName, String> {
    if CellName::is_valid(text) {
        Ok(CellName::new(text))
    } else {
        Err("a cell's name is 1 to 63 lower-case letters, digits and hyphens".into())
    }
}

/// The map with the change that is under way given up, and the contents of the file that say so.
///
/// # Errors
/// Refused: none is.
pub fn give_up(map: &PartitionMap) -> Result<(PartitionMap, String), Failure> {
    if map.change().is_none() {
        return Err(Failure::Refused("NotFound: no change of the partition map is under way".into()));
    }
    let given_up = map.unchanged();
    let contents = format!("{GIVEN_UP}by hasp partition undo\n{}", given_up.to_file());
    Ok((given_up, contents))
}

/// The map that a file holds.
///
/// # Errors
/// Refused: none.
pub fn read_map(contents: &[u8]) -> Result<PartitionMap, Failure> {
    PartitionMap::parse(contents).map_err(|error| Failure::Refused(error.to_string()))
}

/// What is wrong with a change.
pub fn refused(error: &MapError) -> Failure {
    Failure::Refused(format!("InvalidArgument: {error}"))
}

/// The same, with the namespace's own name.
fn in_namespace(prefix: &Prefix, map: &PartitionMap) -> Result<Prefix, MapError> {
    if prefix.name().namespace() != LOCAL {
        return Ok(prefix.clone());
    }
    let text = prefix.to_string();
    let below = text.strip_prefix("/ls/").and_then(|rest| rest.strip_prefix(LOCAL)).unwrap_or_default();
    Prefix::parse(&format!("/ls/{}{below}", map.namespace))
}

#[cfg(test)]
mod tests;
