//! What a cell's first entry puts into its tree.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, NodeKind};

use super::command::Genesis;
use super::node::Node;
use super::tree::{RootRecord, Tree};
use super::writes::next;

/// Makes the directories that the partition map needs: of every prefix with a rule, the directory and
/// those above it, as far as this cell owns them; and a root record where it owns only the children
/// (`route-3`). So no directory at a boundary is ever missing.
pub fn plant(genesis: &Genesis, tree: &mut Tree, stamp: &mut u64) {
    let acls = Arc::new(AclNames::default());
    for (prefix, cell) in genesis.map.rules() {
        if *cell == genesis.cell && !owns(genesis, prefix) {
            tree.insert_root(prefix, RootRecord { acls: acls.clone() });
        }
    }
    for (_, name) in directories(genesis) {
        if owns(genesis, &name) {
            let node = Node::new(next(stamp), NodeKind::Directory, Bytes::new(), acls.clone());
            tree.insert(&name, node);
        }
    }
}

/// The prefixes of the map and all directories above them, those nearest the root first.
fn directories(genesis: &Genesis) -> BTreeSet<(usize, Name)> {
    let mut names = BTreeSet::new();
    for (prefix, _) in genesis.map.rules() {
        let chain = std::iter::successors(Some(prefix.clone()), Name::parent);
        names.extend(chain.map(|name| (name.depth(), name)));
    }
    names
}

fn owns(genesis: &Genesis, name: &Name) -> bool {
    genesis.map.owner(name) == Some(&genesis.cell)
}
