//! A node: contents, metadata, lock. What changes it is decided in `writes`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use hasp_proto::id::{Generation, Instance};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, NodeKind, Stat, checksum};
use rpds::RedBlackTreeSetSync;

use super::lock::{HolderId, Lock};

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
    /// The handles that keep an ephemeral node in being; none of a permanent one are on record.
    pub handles: RedBlackTreeSetSync<HolderId>,
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
            handles: RedBlackTreeSetSync::new_sync(),
            acls,
            lock: Lock::default(),
        }
    }

    /// Other contents, under a new stamp.
    pub fn set_contents(&mut self, contents: Bytes, stamp: u64) {
        self.checksum = checksum(&contents);
        self.contents = contents;
        self.content_generation = Generation(stamp);
    }

    /// Whether it is ephemeral and nobody has it open.
    pub fn is_unopened(&self) -> bool {
        self.ephemeral && self.handles.is_empty()
    }

    /// Whether the handle may be in use: of a permanent node that is not on record.
    pub fn may_be_open(&self, handle: HolderId) -> bool {
        !self.ephemeral || self.handles.contains(&handle)
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

    /// What must always hold of one node.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self, name: &Name) {
        self.lock.check_invariants();
        assert!(
            self.ephemeral || self.handles.is_empty(),
            "{name}: handles only on record of ephemeral nodes"
        );
        for (holder, _) in self.lock.holders() {
            assert!(self.may_be_open(holder), "{name}: who holds the lock of an ephemeral node has it open");
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance, kind, content_generation, lock_generation, lock, .. } = self;
        write!(f, "{kind:?} #{instance} content {content_generation} lock {lock_generation} {lock:?}")
    }
}
