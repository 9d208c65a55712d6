//! What is known of a node besides its contents (design §4.2, paper §2.3).

use crate::id::{Generation, Instance};

/// File or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeKind {
    /// Holds bytes.
    File,
    /// Holds nodes.
    Directory,
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    /// Together with other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// Names of the ACL files that guard a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AclNames {
    /// Who may read.
    pub read: String,
    /// Who may write and lock.
    pub write: String,
    /// Who may change these names.
    pub change: String,
}

impl Default for AclNames {
    /// Those of a namespace's root, from which everything below inherits.
    fn default() -> Self {
        Self { read: "everyone".into(), write: "everyone".into(), change: "admin".into() }
    }
}

/// A node's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// File or directory.
    pub kind: NodeKind,
    /// Greater than that of every earlier node of this name.
    pub instance: Instance,
    /// Grows when the contents are written.
    pub content_generation: Generation,
    /// Grows when the lock turns from free to held, and only then.
    pub lock_generation: Generation,
    /// Grows when the ACL names are written.
    pub acl_generation: Generation,
    /// XXH3-64 of the contents, seed 0; to compare files, not to trust them.
    pub checksum: u64,
    /// Bytes of contents; 0 for a directory.
    pub length: u64,
    /// Goes when its last handle does.
    pub ephemeral: bool,
    /// Who may do what.
    pub acls: AclNames,
}

/// A child in a directory's listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its last component.
    pub component: String,
    /// Its metadata.
    pub stat: Stat,
}

/// The checksum that [`Stat`] carries.
pub fn checksum(contents: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(contents)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_fixed_for_ever() {
        assert_eq!(super::checksum(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(super::checksum(b"hasp"), super::checksum(&[104, 97, 115, 112]));
    }
}
