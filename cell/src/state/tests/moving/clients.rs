//! `move-3`: what is remembered of clients goes along, and who was lost meanwhile is not forgotten.

use super::*;

/// Client 5 holds the lock of [`P_FILE`] and has an ephemeral node open; all of it is on its way.
fn packed() -> Cells {
    let mut cells = filled();
    cells.begin("/ls/dev/p b");
    cells.carry_all();
    cells
}

fn orphans(world: &World) -> Vec<(SessionId, u64)> {
    world.state.orphans().collect()
}

/// At which claim the cell knows client 5, through the router.
fn known_at(cells: &mut Cells, cell: &str, claim: u64) {
    let claim = Command::ClaimClient { session: id(5), via: id(ROUTER), claim: Claim(claim) };
    assert_eq!(cells.of(cell).run(claim), Outcome::Noted);
}

#[test]
fn an_answer_given_at_the_source_is_repeated_at_the_destination_with_its_first_position() {
    let mut cells = filled();
    let make = || create("/ls/dev/p/once", NodeKind::File);
    let first = cells.a().write_as(client(), 77, 0, make());
    let position = cells.a().state.position();
    let beside = || create("/ls/dev/q/once", NodeKind::File);
    created(&cells.a().write_as(client(), 78, 0, beside()));

    cells.move_all("/ls/dev/p b");

    let entry = LogEntry { epoch: Epoch(1), commands: vec![client_write(client(), 77, 0, make())] };
    let again = cells.b().state.apply(&entry).remove(0);
    assert_eq!(again, AppliedOutcome { position: position.clone(), outcome: first }, "P-ONCE");
    check_snapshot(&cells.b().state);
    assert_eq!(cells.b().kept(5, 78), None, "what it was about has not moved");
    cells.move_all("/ls/dev/p -");
    let kept = cells.a().state.answered(id(5), RequestNumber(77)).expect("kept").position.clone();
    assert_eq!(kept, position, "and there and back");
}

#[test]
fn an_answer_that_is_settled_at_either_cell_does_not_come_back() {
    let mut cells = filled();
    created(&cells.a().write_as(client(), 77, 0, create("/ls/dev/p/x", NodeKind::File)));
    created(&cells.a().write_as(client(), 78, 0, create("/ls/dev/p/y", NodeKind::File)));
    known_at(&mut cells, "b", 1);
    assert_eq!(
        cells.b().write_as(client(), 79, 78, create("/ls/dev/q/z", NodeKind::File)).code(),
        wrong_cell()
    );

    cells.move_all("/ls/dev/p b");

    assert_eq!(cells.b().kept(5, 77), None);
    assert!(cells.b().kept(5, 78).is_some());
    let again = cells.b().write_as(client(), 77, 0, create("/ls/dev/p/x", NodeKind::File));
    assert_failed(&again, &ErrorCode::InvalidArgument, "was settled before");
}

fn wrong_cell() -> Option<ErrorCode> {
    Some(ErrorCode::WrongCell { map_version: 1 })
}

impl Outcome {
    fn code(&self) -> Option<ErrorCode> {
        if let Self::Failed(error) = self { Some(error.code.clone()) } else { None }
    }
}

#[test]
fn a_refusal_since_another_cell_has_the_node_is_no_answer_to_be_repeated() {
    let mut cells = filled();
    let make = || create("/ls/dev/p/x", NodeKind::File);
    assert_eq!(cells.b().write_as(client(), 77, 0, make()).code(), wrong_cell(), "asked too early");

    cells.move_all("/ls/dev/p b");
    created(&cells.b().write_as(client(), 77, 0, make()));
    let late = cells.a().write_as(client(), 78, 0, create("/ls/dev/p/y", NodeKind::File));
    assert_eq!(late.code(), Some(ErrorCode::WrongCell { map_version: 3 }), "asked too late");
    created(&cells.b().write_as(client(), 78, 0, create("/ls/dev/p/y", NodeKind::File)));
    cells.move_all("/ls/dev/p -");

    created(&cells.a().write_as(client(), 78, 0, create("/ls/dev/p/y", NodeKind::File)));
}

#[test]
fn a_client_that_ended_at_the_destination_loses_its_lock_with_its_delay() {
    let mut cells = packed();
    known_at(&mut cells, "b", 1);
    cells.b().run(end_client(5, EndCause::Failed));

    cells.done();

    let lock = &cells.b().node(P_FILE).lock;
    assert_eq!((lock.mode(), lock.is_delayed()), (None, true), "P-DELAY");
    let abandoned: Vec<_> = cells.b().state.abandoned().map(|(name, _)| name).collect();
    assert_eq!(abandoned, [name("/ls/dev/p/t")], "nobody has it open any more");
    assert_eq!(orphans(cells.b()), []);
}

#[test]
fn a_client_that_ended_at_the_source_meanwhile_is_lost_at_the_destination_after_the_claim_window() {
    let mut cells = packed();
    cells.a().run(end_client(5, EndCause::Closed));

    cells.done();

    let index = cells.b().state.index();
    assert_eq!(orphans(cells.b()), [(id(5), index)], "nobody speaks for it there");
    assert_eq!(cells.b().node(P_FILE).lock.mode(), Some(LockMode::Exclusive));
    let ended = cells.b().run(Command::OrphanEnd { session: id(5), orphaned_at: index });
    assert_eq!(ended, Outcome::ClientEnded { unlocked: vec![name(P_FILE)] });
    assert_eq!(cells.b().delays().len(), 1);
}

#[test]
fn a_client_that_ended_at_the_source_meanwhile_loses_its_lock_when_the_change_is_given_up() {
    let mut cells = packed();
    cells.a().run(end_client(5, EndCause::Failed));

    cells.undone();

    let lock = &cells.a().node(P_FILE).lock;
    assert_eq!((lock.mode(), lock.is_delayed()), (None, true), "P-DELAY");
    assert_eq!(cells.a().state.abandoned().count(), 1);
}

#[test]
fn only_who_is_not_heard_under_its_claim_has_to_speak_up_at_the_destination() {
    let check = |claim: Option<u64>, is_orphan: bool| {
        let mut cells = packed();
        if let Some(claim) = claim {
            known_at(&mut cells, "b", claim);
        }
        cells.done();
        assert_eq!(orphans(cells.b()).len(), usize::from(is_orphan), "{claim:?}");
        assert_eq!(cells.b().node(P_FILE).lock.holder_count(), 1);
        known_at(&mut cells, "b", 2);
        assert_eq!(orphans(cells.b()), []);
        check_snapshot(&cells.b().state);
    };

    check(None, true);
    check(Some(1), false);
    check(Some(2), false);
    let mut cells = filled();
    known_at(&mut cells, "a", 2);
    known_at(&mut cells, "b", 1);
    cells.move_all("/ls/dev/p b");
    assert_eq!(orphans(cells.b()).len(), 1, "heard under an older claim");
    let old = Command::ClaimClient { session: id(5), via: id(ROUTER), claim: Claim(1) };
    assert!(matches!(cells.b().run(old), Outcome::Failed(_)), "which does not count any more");
    known_at(&mut cells, "b", 2);
    assert_eq!(orphans(cells.b()), []);
}

#[test]
fn a_client_whose_session_at_the_destination_ends_before_the_parcel_is_unpacked_is_orphaned_as_ever() {
    let mut cells = packed();
    known_at(&mut cells, "b", 1);
    cells.b().end(ROUTER, EndCause::Failed);

    cells.done();

    assert_eq!(orphans(cells.b()).len(), 1, "proxy-3");
    assert_eq!(cells.b().node(P_FILE).lock.holder_count(), 1);
}

#[test]
fn who_has_nothing_but_what_is_packed_is_not_forgotten_before_it_is_known_where_that_goes() {
    let mut cells = filled();
    let settled = vec![(id(5), RequestNumber(1_000))];
    cells.a().run(Command::Settle(settled));
    cells.begin("/ls/dev/p b");
    cells.carry_all();

    cells.a().forget();
    cells.undone();

    assert_eq!(orphans(cells.a()), [], "it is there, and nobody asks it to say so");
    assert_eq!(cells.a().node(P_FILE).lock.holder_count(), 1);
    let holder = cells.a().handle(P_FILE, 1);
    assert_eq!(cells.a().write_as(client(), 2_000, 2_000, Write::Release { holder }), Outcome::Released);
}

#[test]
fn a_direct_session_at_the_destination_that_was_heard_under_an_older_claim_is_orphaned_too() {
    let mut cells = filled();
    cells.b().run(create_session(7, Role::Client, 2));
    assert_acquired(&cells.acquire("a", through(7, ROUTER, 3), P_DEEP, 1));

    cells.move_all("/ls/dev/p b");

    assert_eq!(cells.b().node(P_DEEP).lock.holder_count(), 1);
    assert!(orphans(cells.b()).iter().any(|(session, _)| *session == id(7)));
    cells.b().run(create_session(7, Role::Client, 3));
    assert!(orphans(cells.b()).iter().all(|(session, _)| *session != id(7)));
}

#[test]
fn what_a_client_without_a_router_holds_stays() {
    let mut cells = filled();
    cells.a().run(create_session(7, Role::Client, 1));
    assert_acquired(&cells.acquire("a", own(7), P_DEEP, 1));
    cells.begin("/ls/dev/p b");

    assert_failed(&cells.pack("a"), &ErrorCode::LockHeld, "holds /ls/dev/p/d/e/f, and could not follow");

    let handle = cells.a().handle(P_DEEP, 1);
    assert_eq!(cells.write("a", own(7), Write::Release { holder: handle }), Outcome::Released);
    assert_eq!(cells.pack("a"), Outcome::Noted);
}
