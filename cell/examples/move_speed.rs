//! What the steps of a move cost one replica: the log's commands applied to two cells' states, one after another, without
//! log, network and clients.
//!
//! `cargo run --release -p hasp-cell --example move_speed -- NODES ROUNDS`: a prefix of so many nodes goes to and fro so
//! often; the median of each step, and of all of them.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "it measures real time, and ends where it fails"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hasp_cell::state::{
    ClientWrite, Command, Create, CreateSession, Genesis, LogEntry, Outcome, State, Write,
};
use hasp_proto::crossing::CrossOp;
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Claim, RequestNumber, SessionId, SessionKey};
use hasp_proto::name::Name;
use hasp_proto::node::NodeKind;
use hasp_proto::partition::{Change, PartitionMap, Prefix};
use hasp_proto::request::Use;
use hasp_proto::stream::Role;

const CELLS: [&str; 2] = ["a", "b"];
const PREFIX: &str = "/ls/dev/p";
const NODES_PER_DIRECTORY: usize = 100;
const CONTENTS: &[u8] = &[b'x'; 40];

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().unwrap());
    let (nodes, rounds) = (arguments.next().unwrap_or(10_000), arguments.next().unwrap_or(40));
    let cells: BTreeMap<_, _> = CELLS.iter().map(|cell| (CellName::new(cell), vec![])).collect();
    let map = PartitionMap::new(1, "dev", [("/ls/dev", CELLS[0])], cells).unwrap();
    let mut states = CELLS.map(|cell| founded(cell, &map));
    seed(&mut states[0], nodes);

    let mut steps: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let mut map = map;
    for round in 0..rounds {
        let (from, to) = (round % 2, 1 - round % 2);
        map = go(&mut states, &map, from, to, &mut steps);
    }
    assert!(states.iter().map(State::node_count).sum::<usize>() >= nodes);
    println!("{nodes} nodes, {rounds} times; ms at the median");
    for (step, times) in &mut steps {
        times.sort_unstable();
        println!("{step:>24} {:8.2}", times[times.len() / 2].as_secs_f64() * 1e3);
    }
}

fn founded(cell: &str, map: &PartitionMap) -> State {
    let handle_key = HandleKey::new(Bytes::copy_from_slice(&[cell.as_bytes()[0]; 32]));
    let genesis = Genesis { cell: CellName::new(cell), map: map.clone(), handle_key };
    let mut state = State::default();
    apply(&mut state, Command::MasterEpoch { replica: 1, genesis: Some(genesis) });
    let (principal, advertise) = ("admin".into(), String::new());
    let create =
        CreateSession { session: session(), role: Role::Client, principal, advertise, claim: Claim(0) };
    apply(&mut state, Command::CreateSession(create));
    state
}

fn session() -> SessionId {
    SessionKey::new([7; 16]).id()
}

fn apply(state: &mut State, command: Command) -> Outcome {
    let entry = LogEntry { epoch: state.epoch(), commands: vec![command] };
    state.apply(&entry).remove(0).outcome
}

/// All nodes, in directories of some each.
fn seed(state: &mut State, nodes: usize) {
    let mut number = 0;
    let mut make = |text: &str, kind: NodeKind| {
        number += 1;
        let write = Write::Create(Create {
            name: Name::parse(text).unwrap(),
            must: true,
            kind,
            contents: if kind == NodeKind::File { Bytes::from_static(CONTENTS) } else { Bytes::new() },
            ephemeral: false,
            acls: None,
            r#use: Use::Read,
            relative_to: None,
        });
        let outcome = apply(
            state,
            Command::ClientWrite(ClientWrite {
                session: session(),
                via: None,
                claim: Claim(0),
                number: RequestNumber(number),
                settled_below: RequestNumber(number),
                principal: "admin".into(),
                guard: None,
                evidence: None,
                write,
            }),
        );
        assert!(matches!(outcome, Outcome::Created { created: true, .. }), "{text}: {outcome:?}");
    };
    make(PREFIX, NodeKind::Directory);
    for node in 0..nodes {
        let directory = format!("{PREFIX}/d{}", node / NODES_PER_DIRECTORY);
        if node % NODES_PER_DIRECTORY == 0 {
            make(&directory, NodeKind::Directory);
        }
        make(&format!("{directory}/n{node}"), NodeKind::File);
    }
}

/// One move; gives the map afterwards.
fn go(
    states: &mut [State; 2],
    map: &PartitionMap,
    from: usize,
    to: usize,
    steps: &mut BTreeMap<&str, Vec<Duration>>,
) -> PartitionMap {
    let change = Change { prefix: Prefix::parse(PREFIX).unwrap(), cells: vec![CellName::new(CELLS[to])] };
    let changing = map.changing(change).unwrap();
    let after = changing.after().unwrap().clone();
    let version = changing.version;
    let mut whole = Duration::ZERO;
    let mut step = |name: &'static str, state: &mut State, ops: Vec<CrossOp>| {
        let began = Instant::now();
        for op in ops {
            let outcome = apply(state, Command::Cross(op));
            assert_eq!(outcome, Outcome::Noted, "{name}");
        }
        whole += began.elapsed();
        steps.entry(name).or_default().push(began.elapsed());
    };
    for state in &mut *states {
        step("adopt: begun", state, vec![CrossOp::Adopt(changing.clone())]);
    }
    step("pack", &mut states[from], vec![CrossOp::Pack { version }]);
    let (from_cell, to_cell) = (CellName::new(CELLS[from]), CellName::new(CELLS[to]));
    let (_, parts) = states[from].export(version, &to_cell, 0).unwrap();
    let import = |part| {
        let (data, _) = states[from].export(version, &to_cell, part).unwrap();
        CrossOp::Import { version, from: from_cell.clone(), part, parts, data }
    };
    let imports: Vec<_> = (0..parts).map(import).collect();
    step("import", &mut states[to], imports);
    step("adopt: unpack", &mut states[to], vec![CrossOp::Adopt(after.clone())]);
    step("adopt: forget", &mut states[from], vec![CrossOp::Adopt(after.clone())]);
    steps.entry("all").or_default().push(whole);
    after
}
