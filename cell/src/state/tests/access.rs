//! P-ACL: who may do what, decided when a write is applied.

use hasp_proto::crossing::{Evidence, Membership, Need};

use super::*;

const D: &str = "/ls/dev/d";
const F: &str = "/ls/dev/d/f";

/// A directory, and a file in it with a handle 1 of session 1; everybody reads, `ops` (alice) writes, `chiefs`
/// (carol) changes the ACL names.
fn world() -> World {
    let mut world = World::new();
    world.session(1, Role::Client);
    assert!(matches!(world.put(1, "/ls/dev/acl/ops", "alice\n"), Outcome::Created { .. }));
    assert!(matches!(world.put(1, "/ls/dev/acl/chiefs", "carol\n"), Outcome::Created { .. }));
    let guarded = |create: &mut Create| create.acls = Some(acls("everyone", "ops", "chiefs"));
    created(&world.write(own(1), create_with(D, NodeKind::Directory, guarded)));
    created(&world.write(who(1, "alice"), create(F, NodeKind::File)));
    world
}

fn set_acl(holder: Holder, acls: AclNames) -> Write {
    Write::SetAcl { holder, acls, if_generation: None }
}

#[track_caller]
fn assert_denied(outcome: &Outcome, detail: &str) {
    assert_failed(outcome, &ErrorCode::PermissionDenied, detail);
}

#[test]
fn every_change_needs_the_access_that_its_acl_gives_and_no_other_will_do() {
    let handle = |world: &World| world.handle(F, 1);
    let by_writers: [fn(Holder) -> Write; 3] = [
        |holder| set(holder, "x"),
        |holder| Write::Acquire { holder, mode: LockMode::Shared },
        |holder| Write::Delete { holder },
    ];
    for (place, write) in by_writers.into_iter().enumerate() {
        for denied in ["carol", "bob", "admin", "ops", "everyone", "*", ""] {
            let mut world = world();
            let outcome = world.write(who(1, denied), write(handle(&world)));
            assert_denied(&outcome, "who may write /ls/dev/d/f is in the ACL \"ops\", which does not list");
        }
        let mut world = world();
        let outcome = world.write(who(1, "alice"), write(handle(&world)));
        assert!(!matches!(outcome, Outcome::Failed(_)), "write {place}: {outcome:?}");
    }
    let mut world = world();
    for denied in ["alice", "bob", "admin"] {
        let outcome = world.write(who(1, denied), set_acl(handle(&world), acls("ops", "ops", "ops")));
        assert_denied(&outcome, "who may change the ACL names of /ls/dev/d/f is in the ACL \"chiefs\"");
    }
    let outcome = world.write(who(1, "carol"), set_acl(handle(&world), acls("ops", "ops", "ops")));
    assert!(matches!(outcome, Outcome::AclSet { .. }), "{outcome:?}");
}

#[test]
fn creating_needs_write_access_to_the_directory() {
    let mut world = world();
    let open_to_all = |create: &mut Create| create.acls = Some(acls("everyone", "everyone", "everyone"));

    let denied = world.write(who(1, "bob"), create_with("/ls/dev/d/g", NodeKind::File, open_to_all));
    let allowed = world.write(who(1, "alice"), create_with("/ls/dev/d/g", NodeKind::File, open_to_all));

    assert_denied(&denied, "who may write /ls/dev/d is in the ACL \"ops\", which does not list \"bob\"");
    created(&allowed);
    let holder = world.handle("/ls/dev/d/g", 1);
    assert!(
        matches!(world.write(who(1, "bob"), set(holder, "x")), Outcome::Written { .. }),
        "its own decide"
    );
}

#[test]
fn finding_a_node_needs_the_access_of_its_use() {
    for (r#use, allowed, denied) in [
        (Use::Read, "bob", None),
        (Use::WriteAndLock, "alice", Some("carol")),
        (Use::ChangeAcl, "carol", Some("alice")),
    ] {
        let mut world = world();
        let find = create_with(F, NodeKind::File, |create| (create.must, create.r#use) = (false, r#use));

        let found = world.write(who(1, allowed), find.clone());
        assert!(matches!(found, Outcome::Created { created: false, .. }), "{found:?}");
        if let Some(denied) = denied {
            assert_denied(&world.write(who(1, denied), find), "/ls/dev/d/f");
        }
    }
}

#[test]
fn what_ends_a_hold_is_never_denied() {
    let mut world = world();
    assert_acquired(
        &world
            .write(who(1, "alice"), Write::Acquire { holder: world.handle(F, 1), mode: LockMode::Exclusive }),
    );
    world.put(1, "/ls/dev/acl/ops", "# nobody\n");

    let again = world.acquire(who(1, "alice"), F, 1, LockMode::Exclusive);
    assert_denied(&again, "does not list \"alice\"");
    let holder = world.handle(F, 1);
    assert_eq!(world.write(who(1, "alice"), Write::Release { holder: holder.clone() }), Outcome::Released);
    assert_eq!(world.write(who(1, "alice"), Write::CloseHandle { holder }), Outcome::Closed);
}

#[test]
fn a_revocation_is_in_force_for_what_comes_after_it_in_the_log() {
    let mut world = world();
    let (acl, file) = (world.handle("/ls/dev/acl/ops", 1), world.handle(F, 1));
    let entry = LogEntry {
        epoch: Epoch(1),
        commands: vec![
            client_write(who(1, "alice"), 101, 0, set(file.clone(), "before")),
            client_write(who(1, "admin"), 102, 0, set(acl.clone(), "bob\n")),
            client_write(who(1, "alice"), 103, 0, set(file.clone(), "after")),
            client_write(who(1, "bob"), 104, 0, set(file, "bob")),
        ],
    };

    let outcomes = world.apply(entry);

    assert!(matches!(outcomes[0], Outcome::Written { .. }));
    assert!(matches!(outcomes[1], Outcome::Written { .. }));
    assert_denied(&outcomes[2], "does not list \"alice\"");
    assert!(matches!(outcomes[3], Outcome::Written { .. }));
    assert_eq!(world.node(F).contents, "bob");
}

#[test]
fn an_acl_without_a_file_denies_until_there_is_one_and_again_when_it_is_gone() {
    let mut world = world();
    let check = |world: &World| {
        let may = world.state.check_access(&name(FILE), Who::alone("alice"), Access::Write);
        may.map_err(Refusal::into_error)
    };
    created(&world.write(
        own(1),
        create_with(FILE, NodeKind::File, |create| {
            create.acls = Some(acls("everyone", "new", "admin"));
        }),
    ));

    let denied = check(&world).expect_err("no file");
    assert_eq!(denied.code, ErrorCode::PermissionDenied);
    assert!(denied.detail.contains("\"new\", which does not exist"), "{denied}");
    world.put(1, "/ls/dev/acl/new", "alice\n");
    assert_eq!(check(&world), Ok(()));
    assert_eq!(world.delete(who(1, "admin"), "/ls/dev/acl/new", 1), Outcome::Deleted);
    assert!(check(&world).is_err());
}

#[test]
fn only_files_right_in_the_directory_are_acls() {
    let mut world = world();
    let admin = who(1, "admin");
    created(&world.write(admin, create("/ls/dev/acl/dir", NodeKind::Directory)));
    world.put(1, "/ls/dev/acl/dir/ops", "no\0principal");
    world.put(1, "/ls/dev/acl/dir/deep", "*");
    created(&world.write(own(1), create("/ls/dev/d2", NodeKind::Directory)));
    world.put(1, "/ls/dev/d2/acl", "*");

    for acl in ["dir", "deep", "dir/deep", "acl", ""] {
        let text = format!("/ls/dev/x{}", acl.len());
        let guarded = Node::new(1, NodeKind::File, Bytes::new(), acls("admin", acl, "admin").into());
        world.state.tree.insert(&name(&text), guarded);
        assert!(world.state.check_access(&name(&text), Who::alone("alice"), Access::Write).is_err(), "{acl}");
    }
}

#[test]
fn an_acl_that_cannot_be_read_is_refused_and_the_old_one_stays() {
    let mut world = world();

    let refused = world.put(1, "/ls/dev/acl/ops", "alice\nb\0b\n");
    let refused_new = world.put(1, "/ls/dev/acl/new", "\u{7f}");

    assert_failed(&refused, &ErrorCode::InvalidArgument, "ACL, line 2");
    assert_failed(&refused_new, &ErrorCode::InvalidArgument, "ACL, line 1");
    assert_eq!(world.node("/ls/dev/acl/ops").contents, "alice\n");
    assert!(world.state.node(&name("/ls/dev/acl/new")).is_none());
    assert_eq!(world.state.check_access(&name(F), Who::alone("alice"), Access::Write), Ok(()));
}

#[test]
fn nobody_can_take_the_acls_away_that_everything_goes_back_to() {
    let mut world = world();

    for text in ["/ls/dev/acl", "/ls/dev/acl/admin", "/ls/dev/acl/everyone"] {
        assert_denied(&world.delete(who(1, "admin"), text, 1), "cannot be deleted");
        assert_denied(&world.delete(who(1, "alice"), text, 1), "\"admin\", which does not list");
    }
    let empty = world.put(1, "/ls/dev/acl/admin", "# nobody\n");
    assert_failed(&empty, &ErrorCode::InvalidArgument, "without a principal");
    assert!(matches!(world.put(1, "/ls/dev/acl/admin", "admin\nroot"), Outcome::Written { .. }));
    assert_eq!(world.delete(who(1, "root"), "/ls/dev/acl/chiefs", 1), Outcome::Deleted);
    world.put(1, "/ls/dev/.hasp/proxies", "");
    let deleted = world.delete(who(1, "root"), "/ls/dev/.hasp/proxies", 1);
    assert_eq!(deleted, Outcome::Deleted, "an ordinary node");
}

#[test]
fn who_may_change_the_acl_names_of_these_stays_with_admin() {
    let mut world = world();
    let admin = who(1, "admin");

    for text in ["/ls/dev/acl", "/ls/dev/acl/admin", "/ls/dev/acl/everyone"] {
        let holder = world.handle(text, 1);
        let refused = world.write(admin, set_acl(holder.clone(), acls("admin", "admin", "ops")));
        assert_denied(&refused, "stays in the ACL \"admin\"");
        let locked = world.write(admin, set_acl(holder.clone(), acls("missing", "missing", "admin")));
        assert!(matches!(locked, Outcome::AclSet { .. }), "{locked:?}");
        let unlocked = world.write(admin, set_acl(holder, acls("everyone", "ops", "admin")));
        assert!(matches!(unlocked, Outcome::AclSet { .. }), "{unlocked:?}");
    }
    created(&world.write(who(1, "alice"), create("/ls/dev/acl/by_ops", NodeKind::File)));
}

#[test]
fn everyone_lets_everybody_in_whatever_is_tried() {
    let mut world = world();

    let refused = world.put(1, "/ls/dev/acl/everyone", "alice\n");
    assert_failed(&refused, &ErrorCode::InvalidArgument, "lets everybody in, in every cell");
    assert!(matches!(world.put(1, "/ls/dev/acl/everyone", "# all\n*\n"), Outcome::Written { .. }));
    created(&world.write(who(1, "bob"), create(FILE, NodeKind::File)));
}

#[test]
fn acl_names_are_replaced_together_under_a_new_generation_if_the_old_is_as_expected() {
    let mut world = world();
    let before = world.node(F).stat();
    let set_if = |world: &mut World, generation: Generation, acls: AclNames| {
        let holder = world.handle(F, 1);
        world.write(who(1, "carol"), Write::SetAcl { holder, acls, if_generation: Some(generation) })
    };

    let outcome = set_if(&mut world, before.acl_generation, acls("ops", "everyone", "chiefs"));
    let late = set_if(&mut world, before.acl_generation, acls("a", "b", "c"));

    let Outcome::AclSet { acl_generation } = outcome else { panic!("{outcome:?}") };
    assert!(acl_generation > before.acl_generation);
    let detail = format!("ACL generation is {acl_generation}, not {}", before.acl_generation);
    assert_failed(&late, &ErrorCode::GenerationMismatch, &detail);
    let after = world.node(F).stat();
    assert_eq!((after.acls, after.acl_generation), (acls("ops", "everyone", "chiefs"), acl_generation));
    assert_eq!(after.content_generation, before.content_generation);
    assert_eq!(*world.node(D).acls, acls("everyone", "ops", "chiefs"), "the directory's stay");
    let next = set_if(&mut world, acl_generation, acls("everyone", "ops", "chiefs"));
    assert!(matches!(next, Outcome::AclSet { .. }));
}

#[test]
fn an_acl_name_is_one_component_and_its_file_need_not_exist() {
    let mut world = world();
    let longest = "x".repeat(255);
    let longer = "x".repeat(256);

    for bad in ["", ".", "..", "a/b", "a\nb", &longer] {
        for acls in [acls(bad, "ops", "ops"), acls("ops", bad, "ops"), acls("ops", "ops", bad)] {
            let write = set_acl(world.handle(F, 1), acls.clone());
            assert_failed(&world.write(who(1, "carol"), write), &ErrorCode::InvalidArgument, "ACL name");
            let create = create_with(FILE, NodeKind::File, |create| create.acls = Some(acls));
            assert_failed(&world.write(own(1), create), &ErrorCode::InvalidArgument, "ACL name");
        }
    }
    let write = set_acl(world.handle(F, 1), acls("missing", &longest, "a b"));
    assert!(matches!(world.write(who(1, "carol"), write), Outcome::AclSet { .. }));
}

#[test]
fn a_cell_without_the_acl_files_knows_everyone_and_needs_to_be_told_of_the_rest() {
    let mut b = World::of("b", &[("/ls/dev", "a"), ("/ls/dev/x", "b")]);
    b.session(1, Role::Client);
    for (file, acl) in [("/ls/dev/x/e", "everyone"), ("/ls/dev/x/a", "admin"), ("/ls/dev/x/o", "ops")] {
        let guarded = |create: &mut Create| create.acls = Some(acls("admin", acl, "admin"));
        created(&b.write(own(1), create_with(file, NodeKind::File, guarded)));
    }
    let evidence = evidence([("ops", true), ("admin", false)]);
    let may = |principal: &str, file: &str, evidence: Option<&Evidence>| {
        b.state.check_access(&name(file), Who { principal, evidence }, Access::Write)
    };

    assert_eq!(may("anybody", "/ls/dev/x/e", None), Ok(()));
    for (file, acl) in [("/ls/dev/x/a", "admin"), ("/ls/dev/x/o", "ops")] {
        for principal in ["alice", "admin", "ops"] {
            assert_eq!(may(principal, file, None), Err(Refusal::Need(Need::Acl(acl.into()))), "{principal}");
        }
    }
    assert_eq!(may("alice", "/ls/dev/x/o", Some(&evidence)), Ok(()), "whoever it is said of");
    let denied = may("admin", "/ls/dev/x/a", Some(&evidence)).expect_err("denied").into_error();
    assert_eq!(denied.code, ErrorCode::PermissionDenied);
    assert!(denied.detail.contains("\"admin\", which does not list \"admin\""), "{denied}");
    assert_eq!(may("anybody", "/ls/dev/x/missing", None), Ok(()), "what is not there denies nothing");
    assert_eq!(may("anybody", "/ls/dev/x", None), Ok(()), "of a root record");
}

#[test]
fn the_cell_that_holds_the_acl_files_goes_by_them_whatever_others_say() {
    let mut world = world();
    let says_so = |speaker: Speaker, write| {
        let Command::ClientWrite(write) = client_write(speaker, 500, 0, write) else { unreachable!() };
        Command::ClientWrite(ClientWrite { evidence: Some(Box::new(evidence([("ops", true)]))), ..write })
    };
    let write = says_so(who(1, "bob"), set(world.handle(F, 1), "x"));

    assert_denied(&world.run(write), "\"ops\", which does not list \"bob\"");
}

#[test]
fn a_write_that_needs_another_cells_acl_is_not_done_nor_its_answer_kept_until_it_is_told_of_it() {
    let mut b = World::of("b", &[("/ls/dev", "a"), ("/ls/dev/x", "b")]);
    b.session(1, Role::Client);
    b.session(9, Role::Proxy);
    let guarded = |create: &mut Create| create.acls = Some(acls("everyone", "ops", "admin"));
    created(&b.write(own(1), create_with("/ls/dev/x/f", NodeKind::File, guarded)));
    let write = client_write(through(2, 9, 1), 7, 0, set(b.handle("/ls/dev/x/f", 1), "x"));
    let told = |is_member| {
        let Command::ClientWrite(write) = write.clone() else { unreachable!() };
        Command::ClientWrite(ClientWrite {
            evidence: Some(Box::new(evidence([("ops", is_member)]))),
            ..write
        })
    };

    assert_eq!(b.run(write.clone()), Outcome::Needs(Need::Acl("ops".into())));
    assert_eq!(b.kept(2, 7), None, "it is asked again with the same number");
    assert_denied(&b.run(told(false)), "does not list");
    assert_denied(&b.run(told(true)), "does not list");
    let Command::ClientWrite(other) = told(true) else { unreachable!() };
    let other = ClientWrite { number: RequestNumber(8), ..other };
    assert!(matches!(b.run(Command::ClientWrite(other)), Outcome::Written { .. }));
}

fn evidence<const N: usize>(memberships: [(&str, bool); N]) -> Evidence {
    let membership = |(acl, is_member): (&str, bool)| Membership { acl: acl.into(), is_member };
    Evidence { memberships: memberships.map(membership).into(), ..Evidence::default() }
}

#[test]
fn the_file_of_an_acl_is_known_to_every_cell_of_the_namespace() {
    let b = World::of("b", &[("/ls/dev", "a"), ("/ls/dev/x", "b")]);

    for state in [&World::new().state, &b.state] {
        assert_eq!(state.acl_file("ops"), Some(name("/ls/dev/acl/ops")));
        assert_eq!(state.acl_file("a/b"), None);
        assert_eq!(state.acl_file(""), None);
    }
    assert_eq!(State::default().acl_file("ops"), None);
}

#[test]
fn a_node_that_is_gone_is_found_out_before_its_acl_is_looked_at() {
    let mut world = world();
    let holder = world.handle(F, 1);
    world.delete(who(1, "alice"), F, 1);

    assert_failed(&world.write(who(1, "bob"), set(holder, "x")), &ErrorCode::StaleHandle, "is gone");
}
