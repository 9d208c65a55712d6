//! Sequencers, ACLs, ephemeral nodes, handles and limits, as a client meets them.

use hasp_proto::limits::{HANDLES_PER_CLIENT, LOCK_WAITS_PER_CLIENT};
use hasp_proto::node::{AclNames, NodeKind};
use hasp_proto::request::Create;
use hasp_proto::sequencer::SequencerToken;

use super::*;

fn sequencer(world: &mut World, connection: u64, handle: &HandleToken) -> SequencerToken {
    match world.call(connection, Op::GetSequencer(handle.clone())) {
        Ok(Reply::Sequencer(token)) => token,
        other => panic!("{other:?}"),
    }
}

/// Asks under the condition that an acquisition stands.
fn guarded(world: &mut World, connection: u64, guard: &SequencerToken, op: Op) -> Result<Reply, ErrorCode> {
    let number = world.numbers.entry(connection).or_default();
    *number += 1;
    let number = *number;
    let request = Request {
        number: RequestNumber(number),
        settled_below: RequestNumber(0),
        on_behalf: None,
        guard: Some(guard.clone()),
        caches: false,
        trace: None,
        op,
    };
    world.input(Input::Received(ConnectionId(connection), vec![Up::Request(request)]));
    world.commit();
    world.answer(connection, number).expect("an answer")
}

fn ephemeral(at: &str) -> Op {
    Op::Open(Open {
        create: Some(Create {
            must: false,
            kind: NodeKind::File,
            contents: Bytes::new(),
            ephemeral: true,
            acls: None,
        }),
        ..Open::existing(name(at), Use::WriteAndLock)
    })
}

fn handle_of(reply: Result<Reply, ErrorCode>) -> HandleToken {
    match reply {
        Ok(Reply::Opened { handle, .. }) => handle,
        other => panic!("{other:?}"),
    }
}

fn admin(world: &mut World, connection: u64) {
    let mut hello = hello(u8::try_from(connection).expect("few"), Role::Client);
    hello.principal = "admin".into();
    world.connect(connection, hello);
}

#[test]
fn a_sequencer_is_valid_exactly_while_its_acquisition_stands() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let handle = world.open(1, "/ls/dev/f");
    assert_eq!(world.call(1, Op::GetSequencer(handle.clone())), Err(ErrorCode::LockNotHeld));
    world.call(1, LOCK(&handle)).expect("locked");
    let token = sequencer(&mut world, 1, &handle);
    let check = |world: &mut World| world.call(2, Op::CheckSequencer(token.clone()));
    assert_eq!(check(&mut world), Ok(Reply::SequencerStands));

    world.call(1, Op::Release(handle.clone())).expect("released");
    assert_eq!(check(&mut world), Err(ErrorCode::SequencerInvalid), "released");
    world.call(1, LOCK(&handle)).expect("locked again");
    assert_eq!(check(&mut world), Err(ErrorCode::SequencerInvalid), "another acquisition");
    world.call(1, Op::Delete(handle)).expect("deleted");
    let again = world.open(1, "/ls/dev/f");
    world.call(1, LOCK(&again)).expect("locked");
    assert_eq!(check(&mut world), Err(ErrorCode::SequencerInvalid), "another node");
}

#[test]
fn a_forged_sequencer_is_refused() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    world.call(1, LOCK(&handle)).expect("locked");
    let token = sequencer(&mut world, 1, &handle);

    for place in 0..token.as_bytes().len() {
        let mut bytes = token.as_bytes().to_vec();
        bytes[place] ^= 1;
        let forged = SequencerToken::new(bytes.into());
        assert_eq!(world.call(1, Op::CheckSequencer(forged)), Err(ErrorCode::SequencerInvalid));
    }
    let as_handle = HandleToken::new(token.as_bytes().clone());
    assert_eq!(world.call(1, Op::GetStat(as_handle)), Err(ErrorCode::StaleHandle));
    let as_sequencer = SequencerToken::new(handle.as_bytes().clone());
    assert_eq!(world.call(1, Op::CheckSequencer(as_sequencer)), Err(ErrorCode::SequencerInvalid));
}

#[test]
fn a_guarded_request_fails_once_the_acquisition_is_gone_also_between_asking_and_applying() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let (lock, file) = (world.open(1, "/ls/dev/lock"), world.open(2, "/ls/dev/f"));
    world.call(1, LOCK(&lock)).expect("locked");
    let token = sequencer(&mut world, 1, &lock);
    assert!(guarded(&mut world, 2, &token, set(&file, "x")).is_ok());
    assert!(guarded(&mut world, 2, &token, Op::GetStat(file.clone())).is_ok());

    world.ask(1, Op::Release(lock)); // Proposed, not applied.
    let between = guarded(&mut world, 2, &token, set(&file, "y"));

    assert_eq!(between, Err(ErrorCode::SequencerInvalid));
    assert_eq!(guarded(&mut world, 2, &token, Op::GetStat(file)), Err(ErrorCode::SequencerInvalid));
}

#[test]
fn a_revocation_holds_for_handles_that_are_open() {
    let mut world = World::serving();
    world.client(1);
    admin(&mut world, 2);
    let handle = world.open(1, "/ls/dev/f");
    let changing = handle_of(world.call(2, Op::Open(Open::existing(name("/ls/dev/f"), Use::ChangeAcl))));
    let acls =
        |read: &str, write: &str| AclNames { read: read.into(), write: write.into(), change: "admin".into() };
    let set_acl = |acls| Op::SetAcl { handle: changing.clone(), acls, if_generation: None };

    world.call(2, set_acl(acls("everyone", "admin"))).expect("changed");
    assert_eq!(world.call(1, set(&handle, "x")), Err(ErrorCode::PermissionDenied));
    assert_eq!(world.call(1, LOCK(&handle)), Err(ErrorCode::PermissionDenied));
    assert!(world.call(1, Op::GetStat(handle.clone())).is_ok());
    world.call(2, set_acl(acls("missing", "admin"))).expect("changed");
    assert_eq!(world.call(1, Op::GetStat(handle)), Err(ErrorCode::PermissionDenied), "no such ACL file");
    assert_eq!(world.call(1, reading("/ls/dev/f")), Err(ErrorCode::PermissionDenied));
}

#[test]
fn changing_an_acl_file_takes_effect_for_all_that_it_guards() {
    let mut world = World::serving();
    world.client(1);
    admin(&mut world, 2);
    let handle = world.open(1, "/ls/dev/f");
    let acl = handle_of(world.call(2, create("/ls/dev/acl/ops")));
    let changing = handle_of(world.call(2, Op::Open(Open::existing(name("/ls/dev/f"), Use::ChangeAcl))));
    let acls = AclNames { read: "everyone".into(), write: "ops".into(), change: "admin".into() };
    world.call(2, Op::SetAcl { handle: changing, acls, if_generation: None }).expect("changed");

    world.call(2, set(&acl, "admin\nbob\n")).expect("written");
    assert_eq!(world.call(1, set(&handle, "x")), Err(ErrorCode::PermissionDenied));
    world.call(2, set(&acl, "alice\n")).expect("written");

    assert!(world.call(1, set(&handle, "x")).is_ok());
    assert_eq!(
        world.call(1, Op::Open(Open::existing(name("/ls/dev/acl/ops"), Use::WriteAndLock))),
        Err(ErrorCode::PermissionDenied),
        "only admin writes ACLs"
    );
}

#[test]
fn an_ephemeral_node_goes_when_its_last_handle_does() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let first = handle_of(world.call(1, ephemeral("/ls/dev/e")));
    let second = handle_of(world.call(2, reading("/ls/dev/e")));

    world.call(1, Op::Close(first)).expect("closed");
    assert!(world.call(2, Op::GetStat(second.clone())).is_ok(), "still open");
    world.call(2, Op::Close(second)).expect("closed");
    world.commit();

    assert_eq!(world.call(1, reading("/ls/dev/e")), Err(ErrorCode::NotFound));
}

#[test]
fn an_ephemeral_node_goes_with_the_sessions_that_had_it_open_and_tells_of_it() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    world.call(1, ephemeral("/ls/dev/e")).expect("created");
    let events = hasp_proto::event::EventMask::ALL;
    world.call(2, Op::Open(Open { events, ..Open::existing(name("/ls/dev"), Use::Read) })).expect("listens");

    world.keep_alive(2);
    world.pass(Duration::from_secs(9));
    world.keep_alive(2);
    world.pass(Duration::from_secs(4));

    assert_eq!(world.events(2), ["child-removed /ls/dev e"]);
    assert_eq!(world.state.node_count(), World::serving().state.node_count());
}

#[test]
fn a_closed_handle_is_good_for_nothing_and_closing_it_again_harmless() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    world.call(1, Op::Close(handle.clone())).expect("closed");

    assert_eq!(world.call(1, Op::GetStat(handle.clone())), Err(ErrorCode::StaleHandle));
    assert_eq!(world.call(1, LOCK(&handle)), Err(ErrorCode::StaleHandle));
    assert_eq!(world.call(1, Op::Close(handle)), Ok(Reply::Closed));
}

#[test]
fn a_handle_of_an_earlier_master_is_honoured_until_it_is_closed() {
    let mut world = World::serving();
    world.client(1);
    let handle = world.open(1, "/ls/dev/f");
    world.elect();
    world.commit();
    world.connect(
        11,
        Hello {
            known_since: Some(Claim(1)),
            claim: Claim(2),
            next_request: RequestNumber(100),
            ..hello(1, Role::Client)
        },
    );
    world.numbers.insert(11, 100);

    assert!(world.call(11, Op::GetStat(handle.clone())).is_ok(), "rebuilt");
    world.call(11, Op::Close(handle.clone())).expect("closed");

    assert_eq!(world.call(11, Op::GetStat(handle)), Err(ErrorCode::StaleHandle), "not rebuilt again");
}

#[test]
fn a_name_relative_to_a_directory_needs_that_very_directory() {
    let mut world = World::serving();
    world.client(1);
    let mkdir = |at: &str| {
        let Op::Open(mut open) = create(at) else { unreachable!() };
        open.create.as_mut().expect("creates").kind = NodeKind::Directory;
        Op::Open(open)
    };
    let directory = handle_of(world.call(1, mkdir("/ls/dev/d")));
    let relative = |at: &str| {
        let Op::Open(open) = create(at) else { unreachable!() };
        Op::Open(Open { relative_to: Some(directory.clone()), ..open })
    };
    let file = handle_of(world.call(1, relative("/ls/dev/d/f")));
    assert_eq!(world.call(1, relative("/ls/dev/other")), Err(ErrorCode::InvalidArgument));

    world.call(1, Op::Delete(file)).expect("deleted");
    world.call(1, Op::Delete(directory.clone())).expect("deleted");
    world.call(1, mkdir("/ls/dev/d")).expect("made again");

    assert_eq!(world.call(1, relative("/ls/dev/d/f")), Err(ErrorCode::StaleHandle));
}

#[test]
fn an_absent_file_is_looked_for_ever_more_slowly() {
    let mut world = World::serving();
    world.client(1);
    for _ in 0..8 {
        assert_eq!(world.call(1, reading("/ls/dev/f")), Err(ErrorCode::NotFound));
    }
    let number = world.ask(1, reading("/ls/dev/f"));
    assert_eq!(world.answer(1, number), None, "kept back");

    world.pass(Duration::from_millis(50));
    assert_eq!(world.answer(1, number), Some(Err(ErrorCode::NotFound)));
    let number = world.ask(1, reading("/ls/dev/f"));
    world.client(2);
    world.open(2, "/ls/dev/f");
    world.pass(Duration::from_millis(100));

    assert!(matches!(world.answer(1, number), Some(Ok(Reply::Opened { .. }))), "it is there by now");
}

#[test]
fn handles_and_waits_for_locks_are_limited_per_session() {
    let mut world = World::serving();
    world.client(1);
    world.client(2);
    let held = world.open(2, "/ls/dev/f");
    world.call(2, LOCK(&held)).expect("locked");
    let waits: Vec<_> = (0..LOCK_WAITS_PER_CLIENT).map(|_| world.open(1, "/ls/dev/f")).collect();
    let waiting: Vec<_> = waits.iter().map(|handle| world.ask(1, LOCK(handle))).collect();
    world.commit();
    assert!(waiting.iter().all(|number| world.answer(1, *number).is_none()), "all wait");
    let one_more = world.open(1, "/ls/dev/f");
    assert_eq!(world.call(1, LOCK(&one_more)), Err(ErrorCode::QuotaExceeded));

    for _ in LOCK_WAITS_PER_CLIENT + 1..HANDLES_PER_CLIENT {
        world.ask(1, reading("/ls/dev/f"));
    }
    assert_eq!(world.call(1, reading("/ls/dev/f")), Err(ErrorCode::QuotaExceeded));
    world.call(1, Op::Close(one_more)).expect("closed");
    assert!(world.call(1, reading("/ls/dev/f")).is_ok());
}
