//! What has become of a change, by the map that came after it. Whoever wrote a change into the map file and waits for
//! its end decides so.

use super::{PartitionMap, Prefix};
use crate::error::Error;
use crate::id::CellName;

/// How the remark in the map file begins with which a change is given up.
pub const GIVEN_UP: &str = "# given up: ";

/// What has become of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is under way.
    Moving,
    /// It is done, in this version or an earlier one.
    Done(u64),
    /// It did not happen: why not.
    GivenUp(String),
}

impl Standing {
    /// Of the change that was under way in one map, by the contents of the map file.
    ///
    /// # Errors
    /// `InvalidArgument`: the file holds no map.
    pub fn of(changing: &PartitionMap, contents: &[u8]) -> Result<Self, Error> {
        let map = PartitionMap::parse(contents)?;
        let (Some(after), Some(change)) = (changing.after(), changing.change()) else {
            return Ok(Self::Done(map.version));
        };
        if map.version <= changing.version {
            return Ok(Self::Moving);
        }
        if map.version == after.version {
            let is_done = map.rules().eq(after.rules()) && map.rings().eq(after.rings());
            return Ok(if is_done { Self::Done(map.version) } else { Self::GivenUp(reason(contents)) });
        }
        // Others went on from there: what can be seen is whether the rule is as it was to be.
        let is_as_wanted = map.cells_of(&change.prefix) == after.cells_of(&change.prefix);
        let overtaken = || format!("the map has changed again since, see version {}", map.version);
        Ok(if is_as_wanted { Self::Done(map.version) } else { Self::GivenUp(overtaken()) })
    }
}

impl PartitionMap {
    /// The cells of the rule for exactly this prefix; none: there is no such rule.
    pub fn cells_of(&self, prefix: &Prefix) -> Vec<CellName> {
        match prefix {
            Prefix::Below(name) => self.rules.get(name).cloned().into_iter().collect(),
            Prefix::Ring(name) => self.rings.get(name).map(|ring| ring.cells().to_vec()).unwrap_or_default(),
        }
    }
}

/// Why the change was given up that was under way in the version before.
fn reason(contents: &[u8]) -> String {
    let contents = String::from_utf8_lossy(contents);
    let told = contents.lines().find_map(|line| line.strip_prefix(GIVEN_UP));
    told.unwrap_or("nobody says why").trim().to_owned()
}
