//! Of `durable` and `tree`: the states of replicas.

use hasp_cell::state::{Command, Genesis, LogEntry, State};
use hasp_proto::handle::HandleKey;
use hasp_proto::partition::PartitionMap;

use super::*;
use crate::sim::check::{durable, tree};

/// The state of a cell that has begun, and that did these things since.
pub fn state(commands: &[Command]) -> State {
    let cells = ["a", "b"].map(|cell| (CellName::new(cell), vec![])).into();
    let genesis = Genesis {
        cell: CellName::new("a"),
        map: PartitionMap::new(1, "dev", [("/ls/dev", "a"), ("/ls/dev/b", "b")], cells).unwrap(),
        handle_key: HandleKey::new(Bytes::from_static(&[9; 32])),
    };
    let begin = Command::MasterEpoch { replica: 1, genesis: Some(genesis) };
    let mut state = State::default();
    state.apply(&LogEntry { epoch: Epoch(0), commands: vec![begin] });
    state.apply(&LogEntry { epoch: Epoch(1), commands: commands.to_vec() });
    state
}

fn same(states: &[&State]) -> Vec<String> {
    let mut findings = Findings::default();
    durable::check_states(states, &mut findings);
    findings.broken
}

#[test]
fn replicas_that_differ_at_the_end_are_seen() {
    let (one, other, ahead) = (state(&[]), state(&[]), state(&[Command::TakeChecksum]));

    assert!(same(&[&one, &other]).is_empty());

    assert!(
        same(&[&one, &other, &ahead])[0]
            .contains("replicas differ at the end: one is at a/1/1, another at a/1/2")
    );
}

#[test]
fn a_tree_in_order_is_right() {
    let mut findings = Findings::default();

    tree::check(&state(&[]), &mut findings);

    assert_eq!(findings.broken, Vec::<String>::new());
    assert!(findings.checks > 10, "{} things were looked at", findings.checks);
}

#[test]
fn a_node_without_a_directory_of_another_cell_or_that_nobody_has_open_is_seen() {
    let file = tree::Seen { name: name(FILE), is_file: true, has_children: false, is_left: false };
    let seen = |nodes: Vec<tree::Seen>, count| {
        let mut findings = Findings::default();
        tree::check_nodes(&state(&[]), &nodes, count, &mut findings);
        findings.broken
    };
    assert_eq!(seen(vec![file.clone()], 1), Vec::<String>::new());

    assert!(
        seen(vec![file.clone()], 2)[0].contains("there are 2 nodes, of which 1 have a directory above them")
    );

    let foreign = tree::Seen { name: name("/ls/dev/b/f"), ..file.clone() };
    assert!(seen(vec![foreign], 1)[0].contains("which belongs to"));

    let parent = tree::Seen { has_children: true, ..file.clone() };
    assert!(seen(vec![parent], 1)[0].contains("has children"));

    let left = tree::Seen { is_left: true, ..file };
    assert!(seen(vec![left], 1)[0].contains("is open to nobody"));
}
