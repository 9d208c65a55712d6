//! What a cell's first entry puts into its tree.

use std::sync::Arc;

use bytes::Bytes;
use hasp_proto::acl::{ADMIN, EVERYONE};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, NodeKind};

use super::command::Genesis;
use super::node::Node;
use super::roots::RootRecord;
use super::system::Places;
use super::tree::Tree;
use super::writes::next;

/// Makes the directories that the partition map needs: of every rule, plain or ring, the directory and
/// those above it, as far as this cell owns them; and a root record where it owns only the children
/// (`route-3`). So no directory that a rule speaks of is ever missing. Then the directory of the ACLs with the two that
/// everything goes back to, and the system's own with the map, all to be changed by `admin` only.
pub fn plant(genesis: &Genesis, tree: &mut Tree, stamp: &mut u64) {
    let acls = Arc::new(AclNames::default());
    let places = Places::of(genesis);
    let directories = genesis.map.directories();
    for name in directories.iter().chain([&places.acls, &places.system]) {
        if genesis.map.children_owner(name) == Some(&genesis.cell) && !owns(genesis, name) {
            let is_system = *name == places.acls || *name == places.system;
            let acls = if is_system { system_acls() } else { acls.clone() };
            tree.roots_mut().insert(name, RootRecord::of_a_rule(acls));
        }
    }
    for name in directories {
        if owns(genesis, &name) {
            let node = Node::new(next(stamp), NodeKind::Directory, Bytes::new(), acls.clone());
            tree.insert(&name, node);
        }
    }
    plant_system(genesis, places, tree, stamp);
}

fn plant_system(genesis: &Genesis, places: Places, tree: &mut Tree, stamp: &mut u64) {
    let Places { acls: acl_directory, system, partitions, .. } = places;
    let file = |acl: &str| acl_directory.child(acl).expect("there is room for these two");
    let nodes = [
        (acl_directory.clone(), NodeKind::Directory, Bytes::new()),
        (file(EVERYONE), NodeKind::File, Bytes::from_static(b"*\n")),
        (file(ADMIN), NodeKind::File, Bytes::from_static(b"admin\n")),
        (system, NodeKind::Directory, Bytes::new()),
        (partitions, NodeKind::File, genesis.map.to_file().into()),
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
            None => tree.insert(&name, Node::new(next(stamp), kind, contents, acls.clone())),
        }
    }
}

/// Everybody may read, `admin` may do the rest.
fn system_acls() -> Arc<AclNames> {
    Arc::new(AclNames { write: ADMIN.into(), ..AclNames::default() })
}

fn owns(genesis: &Genesis, name: &Name) -> bool {
    genesis.map.owner(name) == Some(&genesis.cell)
}
