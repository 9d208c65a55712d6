//! A node: contents, metadata, lock. What changes it is decided in `writes`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use hasp_proto::id::{Generation, Instance};
use hasp_proto::node::{AclNames, NodeKind, Stat, checksum};

use super::lock::Lock;

/// A file or directory.
///
/// *Invariant*: no generation is below the instance number, and none is above the cell's last stamp.
#[derive(Clone, PartialEq)]
pub struct Node {
    /// Which of the nodes that bore this name.
    pub instance: Instance,
    /// File or directory.
    pub kind: NodeKind,
    /// All of a file's bytes; none for a directory.
    pub contents: Bytes,
    /// Of the contents, as in [`Stat`].
    pub checksum: u64,
    /// A new stamp with each write of the contents.
    pub content_generation: Generation,
    /// A new stamp each time the lock turns from free to held (`lock-3`).
    pub lock_generation: Generation,
    /// A new stamp with each write of the ACL names.
    pub acl_generation: Generation,
    /// Goes when its last handle does.
    pub ephemeral: bool,
    /// Shared with the parent from which they were inherited.
    pub acls: Arc<AclNames>,
    /// The node's lock.
    pub lock: Lock,
}

impl Node {
    /// A permanent node that begins with `stamp`: its instance number and its three generations.
    pub fn new(stamp: u64, kind: NodeKind, contents: Bytes, acls: Arc<AclNames>) -> Self {
        Self {
            instance: Instance(stamp),
            kind,
            checksum: checksum(&contents),
            contents,
            content_generation: Generation(stamp),
            lock_generation: Generation(stamp),
            acl_generation: Generation(stamp),
            ephemeral: false,
            acls,
            lock: Lock::default(),
        }
    }

    /// Its metadata, as clients see it.
    pub fn stat(&self) -> Stat {
        Stat {
            kind: self.kind,
            instance: self.instance,
            content_generation: self.content_generation,
            lock_generation: self.lock_generation,
            acl_generation: self.acl_generation,
            checksum: self.checksum,
            length: self.contents.len() as u64,
            ephemeral: self.ephemeral,
            acls: (*self.acls).clone(),
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance, kind, content_generation, lock_generation, lock, .. } = self;
        write!(f, "{kind:?} #{instance} content {content_generation} lock {lock_generation} {lock:?}")
    }
}
