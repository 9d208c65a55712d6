//! P-TREE: every node has a directory above it, and is of the cell that has it; what nobody has open any more and was to
//! go with its last handle is gone, or is about to go.

use std::collections::{BTreeMap, BTreeSet};

use hasp_cell::state::{Node, State};
use hasp_proto::crossing::Chore;
use hasp_proto::name::Name;
use hasp_proto::node::NodeKind;

use super::super::world::{REPLICAS, World};
use super::Findings;

/// What matters of a node.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its name.
    pub name: Name,
    /// It has contents.
    pub is_file: bool,
    /// It has children in its cell.
    pub has_children: bool,
    /// It was to go with its last handle, which is gone, and it is not about to go.
    pub is_left: bool,
}

/// What holds at any time of what a replica has applied.
pub fn check(state: &State, findings: &mut Findings) {
    let abandoned: BTreeSet<_> = state.abandoned().chain(state.left_elsewhere()).collect();
    let seen = |(name, node): &(Name, &Node)| {
        let has_children = state.has_children(name);
        let is_open =
            !node.handles.is_empty() && node.handles.iter().all(|it| state.client(it.session).is_some());
        let is_due = has_children || abandoned.contains(&(name.clone(), node.instance));
        let is_left = node.ephemeral && !is_open && !is_due;
        Seen { name: name.clone(), is_file: node.kind == NodeKind::File, has_children, is_left }
    };
    let nodes: Vec<Seen> = nodes(state).iter().map(seen).collect();
    check_nodes(state, &nodes, state.node_count(), findings);
    state.check_invariants();
}

/// What holds of the nodes that have a directory above them, of so many that there are.
pub fn check_nodes(state: &State, nodes: &[Seen], count: usize, findings: &mut Findings) {
    let Some(genesis) = state.genesis() else { return };
    let at = state.position();
    findings.expect(nodes.len() == count, || {
        let found = nodes.len();
        format!("P-TREE: at {at} there are {count} nodes, of which {found} have a directory above them")
    });
    for Seen { name, is_file, has_children, is_left } in nodes {
        let owner = state.map().owner(name);
        findings.expect(owner == Some(&genesis.cell), || {
            format!("P-TREE: at {at} there is {name}, which belongs to {owner:?}")
        });
        findings
            .expect(!is_file || !has_children, || format!("P-TREE: at {at} the file {name} has children"));
        findings.expect(!is_left, || {
            format!("P-TREE: at {at} the ephemeral {name} is open to nobody and not about to go")
        });
    }
}

/// Looks at one of a world's replicas, whatever it is doing: at another one each time.
pub fn check_any(world: &mut World) {
    let mut findings = Findings::default();
    let at = world.history.asked.len() / REPLICAS % world.replicas.len();
    check(&world.replicas[at].state, &mut findings);
    world.counts.checks += findings.checks;
    findings.broken.into_iter().for_each(|what| world.break_promise(what));
}

/// No child is ever without its directory, though that is in another cell: not even for a moment, by what was committed
/// in both. To be looked at whenever something was.
pub fn check_across(world: &World, findings: &mut Findings) {
    for (cell, truth) in &world.history.truths {
        for (directory, root) in truth.state.roots() {
            let truths = || world.history.truths.values().filter(|it| it.state.genesis().is_some());
            // On its way, it is in no cell.
            let is_packed = truths().any(|it| it.state.has_packed() && it.state.map().moves(directory));
            let there = truths().find_map(|it| it.state.node(directory)).map(|node| node.instance);
            let child = truth.state.children(directory).next().map(|(name, _)| name);
            let is_of_rule = truth.state.map().has_rule(directory);
            findings.expect(is_of_rule || is_packed || child.is_none() || there == Some(root.instance), || {
                format!(
                    "P-TREE: {} is in cell {cell}, below {directory} of instance {}, of which {there:?} is there",
                    child.expect("there is one"),
                    root.instance
                )
            });
        }
    }
}

/// At the end of a world: whatever was about to go is gone.
pub fn check_end(world: &World, findings: &mut Findings) {
    for replica in world.replicas.iter().step_by(REPLICAS) {
        check(&replica.state, findings);
        let abandoned: Vec<_> = replica.state.abandoned().collect();
        findings.expect(abandoned.is_empty(), || {
            let at = replica.state.position();
            format!("P-TREE: at the end, {at}, nobody has {abandoned:?} open, and they are there")
        });
        for (name, _) in replica.state.left_elsewhere() {
            let has_children = world.history.truths.values().any(|truth| truth.state.has_children(&name));
            findings.expect(has_children, || {
                format!("P-TREE: at the end nobody has {name} open, it has no children, and it is there")
            });
        }
        let chores: Vec<_> = replica.state.chores().into_iter().filter(is_unfinished).collect();
        findings.expect(chores.is_empty(), || format!("route-4: at the end {chores:?} is left behind"));
    }
    check_across(world, findings);
}

/// Whether something is half done. An ephemeral directory with children stays.
fn is_unfinished(chore: &Chore) -> bool {
    match chore {
        Chore::End { .. } => false,
        Chore::Unseal { .. } | Chore::Propagate { .. } | Chore::Move(_) | Chore::Announce(_) => true,
    }
}

/// The directories that a cell begins with, and all that is below them.
fn nodes(state: &State) -> Vec<(Name, &Node)> {
    if state.genesis().is_none() {
        return Vec::new();
    }
    let map = state.map();
    let mut directories: BTreeSet<Name> =
        map.directories().into_iter().chain(state.roots().map(|(name, _)| name.clone())).collect();
    let mut nodes = BTreeMap::new();
    while let Some(directory) = directories.pop_first() {
        for (name, node) in state.children(&directory) {
            if node.kind == NodeKind::Directory {
                directories.insert(name.clone());
            }
            nodes.insert(name.clone(), node);
        }
        nodes.extend(state.node(&directory).map(|node| (directory, node)));
    }
    nodes.into_iter().collect()
}
