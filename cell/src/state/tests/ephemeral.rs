//! Ephemeral nodes: kept by open handles, gone with the last of them.

use hasp_proto::limits::HANDLES_PER_CLIENT;

use super::*;

const D: &str = "/ls/dev/d";
const F: &str = "/ls/dev/d/f";
const PROXY: u8 = 101;
const OTHER: u8 = 102;

/// Direct clients 1 and 2, two proxies.
fn world() -> World {
    let mut world = World::new();
    for session in [1, 2] {
        world.session(session, Role::Client);
    }
    for proxy in [PROXY, OTHER] {
        world.session(proxy, Role::Proxy);
    }
    world
}

/// Makes an ephemeral node; returns the number of the request, which is that of the handle.
fn ephemeral(world: &mut World, by: Speaker, text: &str, kind: NodeKind) -> u64 {
    let outcome = world.write(by, create_with(text, kind, |create| create.ephemeral = true));
    assert!(matches!(outcome, Outcome::Created { created: true, .. }), "{outcome:?}");
    assert!(world.node(text).stat().ephemeral);
    world.numbers[&by.session]
}

/// Opens it; returns the number of the handle.
fn open(world: &mut World, by: Speaker, text: &str) -> u64 {
    let number = world.numbers.get(&by.session).map_or(1, |number| number + 1);
    let holder = world.handle(text, number);
    let outcome = world.write(by, Write::OpenEphemeral { holder, r#use: Use::Read });
    assert!(matches!(outcome, Outcome::Created { created: false, .. }), "{outcome:?}");
    number
}

fn close(world: &mut World, by: Speaker, text: &str, opened_by: u64) {
    let holder = world.handle(text, opened_by);
    assert_eq!(world.write(by, Write::CloseHandle { holder }), Outcome::Closed);
}

fn reap(world: &mut World, text: &str) -> bool {
    let instance = world.handle(text, 0).instance;
    match world.run(Command::Reap { name: name(text), instance }) {
        Outcome::Reaped { deleted } => deleted,
        other => panic!("{other:?}"),
    }
}

fn abandoned(world: &World) -> Vec<String> {
    world.state.abandoned().map(|(name, _)| name.to_string()).collect()
}

fn keeps(world: &World, session: u8, text: &str, opened_by: u64) -> bool {
    let handle = HolderId { session: id(session), opened_by: RequestNumber(opened_by) };
    world.state.keeps_open(&name(text), handle)
}

fn settle(world: &mut World, session: u8) {
    let below = RequestNumber(world.numbers[&session] + 1);
    world.run(Command::Settle(vec![(id(session), below)]));
}

#[test]
fn an_ephemeral_node_stays_until_its_last_handle_is_closed() {
    let mut world = world();
    let first = ephemeral(&mut world, own(1), FILE, NodeKind::File);
    let second = open(&mut world, own(2), FILE);
    let third = open(&mut world, own(2), FILE);
    assert!(keeps(&world, 1, FILE, first) && keeps(&world, 2, FILE, second) && keeps(&world, 2, FILE, third));

    close(&mut world, own(1), FILE, first);
    close(&mut world, own(2), FILE, second);
    assert!(!keeps(&world, 1, FILE, first) && !keeps(&world, 2, FILE, second));
    assert_eq!(abandoned(&world), Vec::<String>::new());
    assert!(!reap(&mut world, FILE));
    close(&mut world, own(2), FILE, third);

    assert_eq!(abandoned(&world), [FILE]);
    assert!(reap(&mut world, FILE));
    assert!(world.state.node(&name(FILE)).is_none());
    assert_eq!(abandoned(&world), Vec::<String>::new());
}

#[test]
fn closing_a_handle_that_is_not_on_record_closes_no_other() {
    let mut world = world();
    let first = ephemeral(&mut world, own(1), FILE, NodeKind::File);

    close(&mut world, own(1), FILE, first + 1);
    close(&mut world, own(2), FILE, first);
    let earlier = Holder { instance: Instance(1), ..world.handle(FILE, first) };
    world.write(own(1), Write::CloseHandle { holder: earlier });

    assert!(keeps(&world, 1, FILE, first));
}

#[test]
fn permanent_nodes_have_no_handles_on_record_and_are_never_reaped() {
    let mut world = world();
    world.file(1, FILE);
    let opened_by = open(&mut world, own(2), FILE);

    assert!(!keeps(&world, 2, FILE, opened_by));
    assert_eq!(abandoned(&world), Vec::<String>::new());
    assert!(!reap(&mut world, FILE));
    assert!(world.state.node(&name(FILE)).is_some());
}

#[test]
fn finding_an_ephemeral_node_opens_it_and_finding_a_permanent_one_does_not_make_it_ephemeral() {
    let mut world = world();
    let first = ephemeral(&mut world, own(1), FILE, NodeKind::File);
    world.file(1, "/ls/dev/p");
    let may = |text: &str, ephemeral| {
        create_with(text, NodeKind::File, |create| (create.must, create.ephemeral) = (false, ephemeral))
    };

    world.write(own(2), may(FILE, false));
    assert!(keeps(&world, 2, FILE, 1));
    close(&mut world, own(1), FILE, first);
    assert_eq!(abandoned(&world), Vec::<String>::new());

    let found = world.write(own(2), may("/ls/dev/p", true));
    assert!(matches!(found, Outcome::Created { created: false, .. }));
    assert!(!world.node("/ls/dev/p").ephemeral && !keeps(&world, 2, "/ls/dev/p", 3));
}

#[test]
fn opening_an_abandoned_node_in_time_keeps_it() {
    let mut world = world();
    let first = ephemeral(&mut world, own(1), FILE, NodeKind::File);
    close(&mut world, own(1), FILE, first);
    assert_eq!(abandoned(&world), [FILE]);

    open(&mut world, own(2), FILE);

    assert_eq!(abandoned(&world), Vec::<String>::new());
    assert!(!reap(&mut world, FILE));
}

#[test]
fn only_the_instance_that_was_abandoned_is_reaped() {
    let mut world = world();
    let first = ephemeral(&mut world, own(1), FILE, NodeKind::File);
    close(&mut world, own(1), FILE, first);
    let instance = world.node(FILE).instance;
    assert!(reap(&mut world, FILE));
    let second = ephemeral(&mut world, own(1), FILE, NodeKind::File);
    close(&mut world, own(1), FILE, second);

    let late = world.run(Command::Reap { name: name(FILE), instance });

    assert_eq!(late, Outcome::Reaped { deleted: false });
    assert_eq!(abandoned(&world), [FILE]);
}

#[test]
fn a_directory_stays_until_its_children_are_gone_and_then_goes_in_its_turn() {
    let mut world = world();
    let directory = ephemeral(&mut world, own(1), D, NodeKind::Directory);
    let file = ephemeral(&mut world, own(2), F, NodeKind::File);

    close(&mut world, own(1), D, directory);
    assert!(!reap(&mut world, D));
    close(&mut world, own(2), F, file);
    assert_eq!(abandoned(&world), [F]);
    assert!(!reap(&mut world, D));
    assert!(reap(&mut world, F));

    assert_eq!(abandoned(&world), [D]);
    assert!(reap(&mut world, D));
}

#[test]
fn a_permanent_child_keeps_an_ephemeral_directory_until_it_is_deleted() {
    let mut world = world();
    let directory = ephemeral(&mut world, own(1), D, NodeKind::Directory);
    close(&mut world, own(1), D, directory);
    assert_eq!(abandoned(&world), [D]);

    world.file(2, F);
    assert_eq!(abandoned(&world), Vec::<String>::new());
    assert!(!reap(&mut world, D));
    world.delete(own(2), F, 1);

    assert_eq!(abandoned(&world), [D]);
}

#[test]
fn a_session_that_ends_however_takes_its_handles_along() {
    for cause in [EndCause::Closed, EndCause::Failed] {
        let mut world = world();
        ephemeral(&mut world, own(1), FILE, NodeKind::File);
        ephemeral(&mut world, own(1), D, NodeKind::Directory);
        open(&mut world, own(2), D);

        world.end(1, cause);

        assert_eq!(abandoned(&world), [FILE], "at once: no lock-delay keeps a node");
    }
}

#[test]
fn a_client_behind_a_proxy_is_known_as_long_as_it_has_an_ephemeral_node_open() {
    let mut world = world();
    let opened_by = ephemeral(&mut world, through(7, PROXY, 1), FILE, NodeKind::File);
    settle(&mut world, 7);
    assert!(world.state.client(id(7)).is_some_and(|record| !record.is_idle()));

    close(&mut world, through(7, PROXY, 1), FILE, opened_by);
    settle(&mut world, 7);

    assert!(world.lingers(7));
    assert_eq!(abandoned(&world), [FILE]);
}

#[test]
fn a_proxy_that_says_its_client_is_gone_gives_up_its_nodes() {
    let mut world = world();
    ephemeral(&mut world, through(7, PROXY, 1), FILE, NodeKind::File);

    let (session, via, cause) = (id(7), id(PROXY), EndCause::Failed);
    world.run(Command::EndClient { session, via, claim: Claim(1), cause });

    assert_eq!(abandoned(&world), [FILE]);
    assert!(world.lingers(7));
}

#[test]
fn the_loss_of_a_proxy_leaves_ephemeral_nodes_until_the_claim_window_is_over() {
    let mut world = world();
    let opened_by = ephemeral(&mut world, through(7, PROXY, 1), FILE, NodeKind::File);
    ephemeral(&mut world, through(8, PROXY, 1), D, NodeKind::Directory);
    for client in [7, 8] {
        settle(&mut world, client);
    }

    world.end(PROXY, EndCause::Failed);
    let orphaned_at = world.state.index();
    assert_eq!(abandoned(&world), Vec::<String>::new());
    world.run(Command::ClaimClient { session: id(7), via: id(OTHER), claim: Claim(2) });
    for client in [7, 8] {
        world.run(Command::OrphanEnd { session: id(client), orphaned_at });
    }

    assert_eq!(abandoned(&world), [D], "of the one that nobody claimed");
    assert!(keeps(&world, 7, FILE, opened_by));
    close(&mut world, through(7, OTHER, 2), FILE, opened_by);
    assert_eq!(abandoned(&world), [D, FILE]);
}

#[test]
fn deleting_an_ephemeral_node_takes_it_off_all_records() {
    let mut world = world();
    let first = ephemeral(&mut world, own(1), FILE, NodeKind::File);
    open(&mut world, through(7, PROXY, 1), FILE);
    settle(&mut world, 7);

    assert_eq!(world.delete(own(1), FILE, first), Outcome::Deleted);

    assert!(world.lingers(7));
    assert_eq!(world.state.client(id(1)).expect("known").opens().count(), 0);
    assert_eq!(abandoned(&world), Vec::<String>::new());
}

#[test]
fn a_closed_handle_on_an_ephemeral_node_does_nothing_any_more() {
    let mut world = world();
    let first = ephemeral(&mut world, own(1), FILE, NodeKind::File);
    open(&mut world, own(2), FILE);
    close(&mut world, own(1), FILE, first);

    let holder = world.handle(FILE, first);
    for write in [
        set(holder.clone(), "x"),
        Write::Acquire { holder: holder.clone(), mode: LockMode::Shared },
        Write::SetAcl { holder: holder.clone(), acls: AclNames::default(), if_generation: None },
        Write::Delete { holder },
    ] {
        assert_failed(&world.write(who(1, "admin"), write), &ErrorCode::StaleHandle, "is closed");
    }
}

#[test]
fn opening_needs_the_access_of_its_use() {
    let mut world = world();
    ephemeral(&mut world, own(1), FILE, NodeKind::File);
    let mut opened = |r#use, principal, number| {
        let holder = world.handle(FILE, number);
        let outcome = world.write(who(2, principal), Write::OpenEphemeral { holder, r#use });
        (outcome, keeps(&world, 2, FILE, number))
    };

    let (denied, is_kept) = opened(Use::ChangeAcl, "somebody", 1);
    assert_failed(&denied, &ErrorCode::PermissionDenied, "change the ACL names of /ls/dev/f");
    assert!(!is_kept);
    assert!(opened(Use::ChangeAcl, "admin", 2).1);
    assert!(opened(Use::WriteAndLock, "somebody", 3).1);
}

#[test]
fn opening_what_has_gone_since_finds_nothing() {
    let mut world = world();
    let first = ephemeral(&mut world, own(1), FILE, NodeKind::File);
    let holder = world.handle(FILE, 1);
    close(&mut world, own(1), FILE, first);
    reap(&mut world, FILE);
    let gone = Write::OpenEphemeral { holder, r#use: Use::Read };

    assert_failed(&world.write(own(2), gone.clone()), &ErrorCode::NotFound, FILE);
    ephemeral(&mut world, own(1), FILE, NodeKind::File);
    assert_failed(&world.write(own(2), gone), &ErrorCode::NotFound, FILE);
}

#[test]
fn asking_again_for_what_was_opened_neither_opens_twice_nor_opens_again_what_was_closed() {
    let mut world = world();
    let write = create_with(FILE, NodeKind::File, |create| create.ephemeral = true);
    let first = world.write_as(own(1), 1, 0, write.clone());
    assert_eq!(world.write_as(own(1), 1, 0, write.clone()), first);
    assert_eq!(world.node(FILE).handles.size(), 1);

    let holder = world.handle(FILE, 1);
    world.write_as(own(1), 2, 0, Write::CloseHandle { holder });
    assert_eq!(world.write_as(own(1), 1, 0, write), first, "P-ONCE");

    assert_eq!(abandoned(&world), [FILE]);
}

#[test]
fn one_client_may_have_so_many_ephemeral_nodes_open_and_no_more() {
    let mut world = World::new();
    world.session(1, Role::Client);
    world.session(2, Role::Client);
    let write = create_with(FILE, NodeKind::File, |create| create.ephemeral = true);
    let most = u64::try_from(HANDLES_PER_CLIENT).expect("fits");
    let open = |world: &World, session, number| {
        let write = Write::OpenEphemeral { holder: world.handle(FILE, number), r#use: Use::Read };
        client_write(own(session), number, number, write)
    };
    world.run(client_write(own(1), 1, 0, write));
    let commands = (2..=most).map(|number| open(&world, 1, number)).collect();
    let outcomes = world.apply(LogEntry { epoch: Epoch(1), commands });
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Created { .. })));

    let refused = world.run(open(&world, 1, most + 1));
    assert_failed(&refused, &ErrorCode::QuotaExceeded, "8192 handles");
    let other = create_with("/ls/dev/g", NodeKind::File, |create| create.ephemeral = true);
    let refused = world.run(client_write(own(1), most + 2, 0, other));
    assert_failed(&refused, &ErrorCode::QuotaExceeded, "8192 handles");
    assert!(world.state.node(&name("/ls/dev/g")).is_none());
    assert!(matches!(world.run(open(&world, 2, 1)), Outcome::Created { .. }), "others may");

    let holder = world.handle(FILE, 7);
    world.run(client_write(own(1), most + 3, 0, Write::CloseHandle { holder }));
    assert!(matches!(world.run(open(&world, 1, most + 4)), Outcome::Created { .. }));
}
