//! Snapshots give back the same state, and nothing else passes for one.

use hasp_proto::wire::log::v1 as log;
use hasp_proto::wire::log::v1::snapshot_record::Record;
use prost::Message as _;

use super::*;

/// Something of everything.
fn world() -> World {
    let mut world = World::of("b", &[("/ls/dev", "a"), ("/ls/dev/x", "b")]);
    world.session(101, Role::Proxy);
    world.session(102, Role::Router);
    world.session(1, Role::Client);
    world.session(2, Role::Client);
    world.directory(1, "/ls/dev/x/d");
    for file in ["/ls/dev/x/d/f", "/ls/dev/x/g", "/ls/dev/x/h"] {
        world.file(1, file);
        let holder = world.handle(file, 1);
        world.write(own(1), set(holder, file));
    }
    world.acquire(own(1), "/ls/dev/x/g", 1, LockMode::Shared);
    world.acquire(own(2), "/ls/dev/x/g", 1, LockMode::Shared);
    world.acquire(through(7, 101, 1), "/ls/dev/x/h", 1, LockMode::Exclusive);
    world.end(2, EndCause::Failed);
    world.end(101, EndCause::Failed);
    world.write(own(1), create("/ls/dev/x/g", NodeKind::File));
    let holder = world.handle("/ls/dev/x/d/f", 1);
    world.write(own(1), Write::Delete { holder: holder.clone() });
    world.write(own(1), Write::CloseHandle { holder });
    for (speaker, text) in [(own(1), "/ls/dev/x/e"), (through(8, 102, 1), "/ls/dev/x/abandoned")] {
        world.write(speaker, create_with(text, NodeKind::Directory, |create| create.ephemeral = true));
    }
    world.file(1, "/ls/dev/x/e/f");
    let (session, via, cause) = (id(8), id(102), EndCause::Closed);
    world.run(Command::EndClient { session, via, claim: Claim(1), cause });
    let holder = world.handle("/ls/dev/x/h", 1);
    let acls = acls("everyone", "everyone", "missing");
    world.write(who(1, "admin"), Write::SetAcl { holder, acls, if_generation: None });
    world.run(Command::RaiseLeaseMax(Duration::from_secs(30)));
    world
}

#[test]
fn a_state_comes_back_from_its_snapshot_as_it_was() {
    let spread = World::of("b", &[("/ls/dev", "a"), ("/ls/dev/users/*", "a b"), ("/ls/dev/users/0/q", "a")]);
    for state in [State::default(), World::new().state, world().state, spread.state] {
        let restored = State::from_snapshot(state.write_snapshot().into_iter()).expect("a good snapshot");

        restored.check_invariants();
        assert!(restored == state);
        assert_eq!(restored.checksum(), state.checksum());
        assert_eq!(restored.write_snapshot(), state.write_snapshot());
    }
}

#[test]
fn the_checksum_tells_states_apart() {
    let mut world = world();
    let before = world.state.checksum();
    assert_eq!(world.state.checksum(), before);

    let holder = world.handle("/ls/dev/x/h", 1);
    world.write(own(1), set(holder, "y"));

    assert_ne!(world.state.checksum(), before);
}

#[test]
fn a_clone_does_not_move_with_its_original() {
    let mut world = world();
    let (clone, checksum) = (world.state.clone(), world.state.checksum());

    let holder = world.handle("/ls/dev/x/h", 1);
    world.write(own(1), set(holder.clone(), "y"));
    world.write(own(1), Write::Delete { holder });
    world.end(1, EndCause::Failed);

    assert_eq!(clone.checksum(), checksum);
    clone.check_invariants();
}

#[test]
fn records_that_are_no_whole_snapshot_are_refused() {
    let records = world().state.write_snapshot();
    let read = |records: &[Bytes]| State::from_snapshot(records.iter().cloned());

    assert!(matches!(read(&[]), Err(SnapshotError::Header)));
    assert!(matches!(read(&records[1..]), Err(SnapshotError::Header)));
    assert!(matches!(read(&records[..records.len() - 1]), Err(SnapshotError::Count { .. })));
    let mut twice = records.clone();
    twice.push(records[0].clone());
    assert!(matches!(read(&twice), Err(SnapshotError::Record(_))));
    let mut nonsense = records.clone();
    nonsense[1] = Bytes::from_static(b"nonsense");
    assert!(matches!(read(&nonsense), Err(SnapshotError::Record(_))));
    assert!(read(&records).is_ok());
}

#[test]
fn a_snapshot_with_damaged_contents_is_refused() {
    let mut records = world().state.write_snapshot();
    let text: &[u8] = b"/ls/dev/x/h";
    let damaged = records.iter_mut().rev().find(|record| record.windows(text.len()).any(|at| at == text));

    let record = damaged.expect("the node of that name");
    let mut bytes = record.to_vec();
    let place = bytes.windows(text.len()).rposition(|at| at == text).expect("its contents are its name");
    bytes[place + 1] ^= 1;
    *record = bytes.into();

    assert!(matches!(State::from_snapshot(records.into_iter()), Err(SnapshotError::Record(_))));
}

#[test]
fn answers_of_a_snapshot_without_their_positions_have_that_of_the_snapshot() {
    let mut world = World::new();
    world.session(1, Role::Client);
    world.file(1, FILE);
    world.session(2, Role::Client);
    let without_positions = |bytes: Bytes| {
        let mut record = log::SnapshotRecord::decode(bytes).expect("a good record");
        if let Some(Record::Client(client)) = &mut record.record {
            client.answers.iter_mut().for_each(|answer| (answer.epoch, answer.index) = (0, 0));
        }
        Bytes::from(record.encode_to_vec())
    };

    let older = world.state.write_snapshot().into_iter().map(without_positions);
    let restored = State::from_snapshot(older).expect("a good snapshot");

    let kept = restored.answered(id(1), RequestNumber(1)).expect("kept");
    assert_eq!(kept.position, world.state.position());
    assert_ne!(world.kept(1, 1).expect("kept").0, world.state.index());
    restored.check_invariants();
}

#[test]
fn a_snapshot_that_makes_no_sense_is_refused() {
    let mut world = World::new();
    world.session(1, Role::Client);
    world.file(1, FILE);
    let refused = |text: &str, change: fn(&mut log::SnapshotNode)| {
        let change_node = |bytes: Bytes| {
            let mut record = log::SnapshotRecord::decode(bytes).expect("a good record");
            if let Some(Record::Node(node)) = &mut record.record
                && node.name == text
            {
                change(node);
            }
            Bytes::from(record.encode_to_vec())
        };
        let records = world.state.write_snapshot().into_iter().map(change_node);
        matches!(State::from_snapshot(records), Err(SnapshotError::Record(_)))
    };
    let handle = |node: &mut log::SnapshotNode| {
        node.handles = vec![log::SnapshotHandle { session: id(1).to_bytes(), opened_by: 1 }];
    };
    let contents = |node: &mut log::SnapshotNode| {
        node.contents = Bytes::from_static(b"\xff");
        node.stat.as_mut().expect("there").checksum = hasp_proto::node::checksum(b"\xff");
    };

    assert!(refused(FILE, handle), "a handle on record of a permanent node");
    assert!(refused("/ls/dev/acl/everyone", contents), "an ACL that cannot be read");
    assert!(!refused("/ls/dev/none", contents));
    assert!(!refused(FILE, contents));
}

#[test]
fn every_part_of_an_entry_comes_back_from_its_bytes() {
    let holder = World::new().handle("/ls/dev", 7);
    let guard = Guard {
        name: name(FILE),
        instance: Instance(3),
        mode: LockMode::Shared,
        lock_generation: Generation(4),
    };
    let create = create_with(FILE, NodeKind::Directory, |create| {
        (create.ephemeral, create.r#use) = (true, Use::ChangeAcl);
        create.acls = Some(acls("r", "w", "c"));
        create.relative_to = Some((name("/ls/dev"), Instance(2)));
    });
    let set_acl =
        |if_generation| Write::SetAcl { holder: holder.clone(), acls: acls("r", "w", "c"), if_generation };
    let open = |r#use| Write::OpenEphemeral { holder: holder.clone(), r#use };
    let uses = [Use::Read, Use::WriteAndLock, Use::ChangeAcl];
    let writes = [create, set_acl(None), set_acl(Some(Generation(0)))].into_iter().chain(uses.map(open));
    let commands = writes.map(|write| match client_write(own(1), 1, 0, write) {
        Command::ClientWrite(write) => {
            Command::ClientWrite(ClientWrite { guard: Some(guard.clone()), ..write })
        }
        other => other,
    });
    let others = [
        Command::Reap { name: name(FILE), instance: Instance(9) },
        Command::RaiseLeaseMax(Duration::from_micros(12_345_678)),
        Command::TakeChecksum,
        Command::CompareChecksum { index: 5, checksum: u64::MAX },
        Command::ClaimClient { session: id(1), via: id(2), claim: Claim(3) },
    ];
    let entry = LogEntry { epoch: Epoch(1), commands: commands.chain(others).collect() };

    assert_eq!(LogEntry::decode(&entry.encode()).expect("a good entry"), entry);
}

#[test]
fn bytes_that_are_no_entry_are_refused() {
    assert!(LogEntry::decode(b"nonsense").is_err());
    let good = LogEntry { epoch: Epoch(1), commands: vec![create_session(1, Role::Client, 1)] }.encode();
    assert!(LogEntry::decode(&good).is_ok());
    assert!(LogEntry::decode(&good[..good.len() - 1]).is_err());
}
