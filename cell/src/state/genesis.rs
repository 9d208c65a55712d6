//! What a cell's first entry puts into its tree.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, NodeKind};

use super::access::{ADMIN, EVERYONE};
use super::command::Genesis;
use super::node::Node;
use super::system::Places;
use super::tree::{RootRecord, Tree};
use super::writes::next;

/// Makes the directories that the partition map needs: of every prefix with a rule, the directory and
/// those above it, as far as this cell owns them; and a root record where it owns only the children
/// (`route-3`). So no directory at a boundary is ever missing. Then the directory of the ACLs with the two that
/// everything goes back to, and the system's own, all to be changed by `admin` only.
pub fn plant(genesis: &Genesis, tree: &mut Tree, stamp: &mut u64) {
    let acls = Arc::new(AclNames::default());
    let places = Places::of(genesis);
    for (prefix, cell) in genesis.map.rules() {
        if *cell == genesis.cell && !owns(genesis, prefix) {
            let is_system = *prefix == places.acls || *prefix == places.system;
            let acls = if is_system { system_acls() } else { acls.clone() };
            tree.insert_root(prefix, RootRecord { acls });
        }
    }
    for (_, name) in directories(genesis) {
        if owns(genesis, &name) {
            let node = Node::new(next(stamp), NodeKind::Directory, Bytes::new(), acls.clone());
            tree.insert(&name, node);
        }
    }
    plant_system(genesis, places, tree, stamp);
}

fn plant_system(genesis: &Genesis, places: Places, tree: &mut Tree, stamp: &mut u64) {
    let Places { acls: acl_directory, system, .. } = places;
    let file = |acl: &str| acl_directory.child(acl).expect("there is room for these two");
    let nodes = [
        (acl_directory.clone(), NodeKind::Directory, &b""[..]),
        (file(EVERYONE), NodeKind::File, b"*\n"),
        (file(ADMIN), NodeKind::File, b"admin\n"),
        (system, NodeKind::Directory, b""),
    ];
    let acls = system_acls();
    for (name, kind, contents) in nodes {
        if !owns(genesis, &name) {
            continue;
        }
        let is_there = tree.get(&name).map(|node| node.instance);
        match is_there.and_then(|instance| tree.get_mut(&name, instance)) {
            // A rule of the map has put it there.
            Some(node) => node.acls = acls.clone(),
            None => {
                tree.insert(&name, Node::new(next(stamp), kind, Bytes::from_static(contents), acls.clone()))
            }
        }
    }
}

/// Everybody may read, `admin` may do the rest.
fn system_acls() -> Arc<AclNames> {
    Arc::new(AclNames { write: ADMIN.into(), ..AclNames::default() })
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
