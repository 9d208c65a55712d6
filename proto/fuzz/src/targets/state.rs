//! The replicated state: log entries, what they do to it, and snapshots of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use hasp_cell::state::{Command, CreateSession, Genesis, LogEntry, Outcome, State};
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Claim, SessionId};
use hasp_proto::partition::PartitionMap;
use hasp_proto::stream::Role;

use crate::protobuf::{Message, Value};
use crate::target::{Verdict, variant};

/// A client of the cell in which entries are applied, and what it is called.
pub const CLIENT: SessionId = SessionId([1; 16]);
/// A proxy.
pub const PROXY: SessionId = SessionId([2; 16]);
/// Somebody who may change everything.
pub const ADMIN: SessionId = SessionId([3; 16]);

/// The bytes of a log entry.
pub fn entry(bytes: &[u8]) -> Verdict {
    match LogEntry::decode(bytes) {
        Ok(entry) => {
            let again = LogEntry::decode(&entry.encode());
            assert_eq!(again.ok(), Some(entry.clone()), "an entry is read as it was written");
            let kinds = entry.commands.iter().map(|command| format!("{};", variant(command)));
            Verdict::taken(kinds.collect::<String>())
        }
        Err(error) => Verdict::refused(error.to_string()),
    }
}

/// A cell with a client, a proxy and an administrator, which owns a part of its namespace.
pub fn cell() -> State {
    let cells =
        BTreeMap::from([(CellName::new("a"), vec!["a:1".into()]), (CellName::new("b"), vec!["b:1".into()])]);
    let map = PartitionMap::new(1, "dev", [("/ls/dev", "a"), ("/ls/dev/b", "b")], cells).expect("a map");
    let key = HandleKey::new(Bytes::from_static(b"a key of thirty-two known bytes."));
    let genesis = Genesis { cell: CellName::new("a"), map, handle_key: key };
    let mut state = State::default();
    let mut apply = |command| {
        let entry = LogEntry { epoch: state.epoch(), commands: vec![command] };
        let applied = state.apply(&entry);
        assert!(!matches!(applied[0].outcome, Outcome::Rejected(_) | Outcome::Failed(_)), "{applied:?}");
    };
    apply(Command::MasterEpoch { replica: 1, genesis: Some(genesis) });
    for (session, role, principal) in
        [(CLIENT, Role::Client, "someone"), (PROXY, Role::Proxy, "proxy"), (ADMIN, Role::Client, "admin")]
    {
        let (principal, advertise) = (principal.to_owned(), String::new());
        apply(Command::CreateSession(CreateSession { session, role, principal, advertise, claim: Claim(1) }));
    }
    state
}

/// Entries, applied one after the other; those that are none are left out.
pub fn apply(bytes: &[u8]) -> Verdict {
    let Some(entries) = Message::parse(bytes) else { return Verdict::refused("no entries") };
    let mut state = cell();
    let mut trail = String::new();
    let mut taken = true;
    for field in entries.0 {
        let entry = match field.value {
            Value::Bytes(bytes) => LogEntry::decode(&bytes).ok(),
            Value::Varint(_) | Value::Fixed32(_) | Value::Fixed64(_) => None,
        };
        let Some(entry) = entry else {
            taken = false;
            continue;
        };
        let before = state.index();
        let applied = state.apply(&entry);
        assert_eq!(applied.len(), entry.commands.len(), "one outcome for each command");
        assert_eq!(
            state.index(),
            before + entry.commands.len() as u64,
            "every command has a place of its own"
        );
        state.check_invariants();
        for applied in applied {
            trail.push_str(&kind_of(&applied.outcome));
        }
    }
    check_snapshot(&state);
    Verdict { taken, ..Verdict::taken(trail) }
}

fn kind_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(error) => format!("{};", error.code),
        Outcome::Rejected(why) => format!("{};", variant(why)),
        other => format!("{};", variant(other)),
    }
}

/// The state that the records of its snapshot say is the same, and goes on in the same way.
pub fn check_snapshot(state: &State) {
    let records = state.write_snapshot();
    let mut again = State::from_snapshot(records.iter().cloned()).expect("we wrote it");
    again.check_invariants();
    assert_eq!(again.write_snapshot(), records, "a snapshot says all of the state");
    assert_eq!(again.checksum(), state.checksum());
    let (entry, mut state) =
        (LogEntry { epoch: state.epoch(), commands: vec![Command::TakeChecksum] }, state.clone());
    assert_eq!(again.apply(&entry), state.apply(&entry), "both go on in the same way");
}

/// The records of a snapshot.
pub fn snapshot(bytes: &[u8]) -> Verdict {
    let Some(records) = Message::parse(bytes) else { return Verdict::refused("no records") };
    let records = records.0.into_iter().filter_map(|field| match field.value {
        Value::Bytes(bytes) => Some(Bytes::from(bytes)),
        Value::Varint(_) | Value::Fixed32(_) | Value::Fixed64(_) => None,
    });
    match State::from_snapshot(records) {
        Ok(state) => {
            let written = state.write_snapshot();
            let again = State::from_snapshot(written.iter().cloned()).expect("we wrote it");
            assert_eq!(again.write_snapshot(), written, "a snapshot is read as it was written");
            Verdict::taken("a snapshot")
        }
        Err(error) => Verdict::refused(error.to_string()),
    }
}
