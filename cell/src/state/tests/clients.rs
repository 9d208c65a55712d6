//! Sessions and the clients behind proxies: `proxy-1` to `proxy-4`, P-TAKE.

use LockMode::Exclusive;

use super::*;

const PROXY: u8 = 101;
const OTHER: u8 = 102;

/// Two proxies, direct client 1, a file.
fn world() -> World {
    let mut world = World::new();
    world.session(PROXY, Role::Proxy);
    world.session(OTHER, Role::Router);
    world.session(1, Role::Client);
    world.file(1, FILE);
    world
}

/// Client 7 behind the proxy holds the file's lock under claim 1, all answers settled.
fn world_with_holder() -> World {
    let mut world = world();
    assert_acquired(&world.acquire(through(7, PROXY, 1), FILE, 1, Exclusive));
    settle(&mut world, 7);
    world
}

fn settle(world: &mut World, session: u8) {
    let below = RequestNumber(world.numbers[&session] + 1);
    world.run(Command::Settle(vec![(id(session), below)]));
}

fn end_client(world: &mut World, session: u8, via: u8, claim: u64, cause: EndCause) -> Outcome {
    world.run(Command::EndClient { session: id(session), via: id(via), claim: Claim(claim), cause })
}

fn is_held(world: &World) -> bool {
    world.node(FILE).lock.mode().is_some()
}

fn orphans(world: &World) -> Vec<(SessionId, u64)> {
    world.state.orphans().collect()
}

#[test]
fn creating_a_session_again_keeps_it() {
    let mut world = world();
    assert_acquired(&world.acquire(own(1), FILE, 1, Exclusive));
    let before = world.state.session(id(1)).cloned();

    assert_eq!(world.session(2, Role::Client), Outcome::SessionCreated { existed: false });
    assert_eq!(world.session(1, Role::Proxy), Outcome::SessionCreated { existed: true });

    assert_eq!(world.state.session(id(1)).cloned(), before);
    assert!(is_held(&world));
}

#[test]
fn who_has_no_session_cannot_write() {
    let mut world = world();
    let write = |world: &mut World, speaker| {
        let holder = world.handle(FILE, 1);
        world.write(speaker, set(holder, "x"))
    };

    assert_failed(&write(&mut world, own(2)), &ErrorCode::SessionExpired, "is over");
    for speaker in [through(7, 99, 1), through(7, 1, 1)] {
        // Its speaker's misfortune is not the client's end.
        assert_failed(&write(&mut world, speaker), &ErrorCode::Unavailable, "is over");
    }
    assert!(matches!(write(&mut world, through(7, OTHER, 1)), Outcome::Written { .. }), "a router may");
    world.end(1, EndCause::Closed);
    assert_failed(&write(&mut world, own(1)), &ErrorCode::SessionExpired, "is over");
    assert!(world.state.client(id(2)).is_none());
}

#[test]
fn of_a_client_behind_a_proxy_only_locks_and_unsettled_answers_are_known() {
    let mut world = world();

    assert_acquired(&world.acquire(through(7, PROXY, 1), FILE, 1, Exclusive));
    settle(&mut world, 7);
    assert!(world.state.client(id(7)).is_some(), "it holds a lock");
    let holder = world.handle(FILE, 1);
    world.write(through(7, PROXY, 1), Write::Release { holder });
    assert!(world.state.client(id(7)).is_some(), "it may ask again");
    settle(&mut world, 7);
    assert!(world.lingers(7));
    world.forget();

    assert!(world.state.client(id(7)).is_none());
    assert!(world.state.client(id(1)).is_some(), "a direct client's stays");
}

#[test]
fn nothing_hangs_on_a_client_behind_a_proxy_when_others_delete_its_lock() {
    let mut world = world_with_holder();

    let holder = world.handle(FILE, 1);
    world.write(own(1), Write::Delete { holder });

    assert!(world.lingers(7));
}

#[test]
fn a_client_behind_a_proxy_that_deletes_its_own_lock_is_remembered_for_the_answer() {
    let mut world = world_with_holder();
    let write = Write::Delete { holder: world.handle(FILE, 1) };

    assert_eq!(world.write_as(through(7, PROXY, 1), 9, 9, write.clone()), Outcome::Deleted);

    assert_eq!(world.write_as(through(7, PROXY, 1), 9, 9, write), Outcome::Deleted);
}

#[test]
fn nothing_hangs_on_a_client_behind_a_proxy_whose_write_was_not_done() {
    let mut world = world_with_holder();

    assert_eq!(world.acquire(through(8, PROXY, 1), FILE, 1, Exclusive), Outcome::LockHeld);

    assert!(world.lingers(8));
}

#[test]
fn a_newer_claim_moves_the_client_and_the_older_is_refused() {
    let mut world = world_with_holder();
    let generation = world.lock_generation(FILE);
    let holder = world.handle(FILE, 1);
    let write = set(holder, "x");

    let same_claim_elsewhere = world.write(through(7, OTHER, 1), write.clone());
    let newer = world.write(through(7, OTHER, 2), write.clone());
    let zombie = world.write(through(7, PROXY, 1), write.clone());
    let zombie_end = end_client(&mut world, 7, PROXY, 1, EndCause::Failed);

    assert_failed(&same_claim_elsewhere, &ErrorCode::SessionMoved, "claim 1");
    assert!(matches!(newer, Outcome::Written { .. }));
    assert_failed(&zombie, &ErrorCode::SessionMoved, "under claim 2");
    assert_failed(&zombie_end, &ErrorCode::SessionMoved, "under claim 2");
    assert!(is_held(&world));
    assert_eq!(world.lock_generation(FILE), generation, "a move changes no generation");
    assert!(
        matches!(world.write(through(7, OTHER, 3), write), Outcome::Written { .. }),
        "the same proxy may renew"
    );
}

#[test]
fn a_proxy_that_had_to_begin_a_new_session_goes_on_for_its_clients() {
    let mut world = world_with_holder();
    let write = set(world.handle(FILE, 1), "x");
    world.end(PROXY, EndCause::Failed);

    assert!(matches!(world.write(through(7, OTHER, 1), write), Outcome::Written { .. }), "the same claim");

    assert!(is_held(&world));
    assert_eq!(world.state.client(id(7)).expect("known").orphaned_at, None);
}

#[test]
fn a_refused_write_of_an_older_claim_settles_nothing() {
    let mut world = world();
    let write = set(world.handle(FILE, 1), "x");
    let first = world.write_as(through(7, OTHER, 2), 1, 0, write.clone());
    let index = world.state.index();

    let zombie = world.write_as(through(7, PROXY, 1), 2, 2, write);

    assert_failed(&zombie, &ErrorCode::SessionMoved, "claim 1");
    assert_eq!(world.kept(7, 1), Some((index, first)));
}

#[test]
fn the_clients_of_a_lost_proxy_are_orphaned_and_keep_their_locks() {
    for cause in [EndCause::Failed, EndCause::Closed] {
        let mut world = world_with_holder();

        let outcome = world.end(PROXY, cause);

        assert_eq!(outcome, Outcome::SessionEnded { unlocked: vec![] });
        assert_eq!(orphans(&world), [(id(7), world.state.index())]);
        assert!(is_held(&world));
        assert_eq!(world.delays(), []);
    }
}

#[test]
fn an_orphan_that_is_claimed_in_time_keeps_its_locks_for_good() {
    let mut world = world_with_holder();
    world.end(PROXY, EndCause::Failed);
    let orphaned_at = world.state.index();

    let holder = world.handle(FILE, 1);
    world.write(through(7, OTHER, 2), set(holder, "x"));
    let late = world.run(Command::OrphanEnd { session: id(7), orphaned_at });

    assert_eq!(late, Outcome::Noted);
    assert_eq!(orphans(&world), []);
    assert!(is_held(&world));
}

#[test]
fn an_orphan_that_nobody_claims_loses_its_locks_with_their_delay() {
    let mut world = world_with_holder();
    world.end(PROXY, EndCause::Failed);
    let orphaned_at = world.state.index();

    let wrong_mark = world.run(Command::OrphanEnd { session: id(7), orphaned_at: orphaned_at - 1 });
    assert!(is_held(&world));
    let ended = world.run(Command::OrphanEnd { session: id(7), orphaned_at });

    assert_eq!(wrong_mark, Outcome::Noted);
    assert_eq!(ended, Outcome::ClientEnded { unlocked: vec![name(FILE)] });
    assert_eq!(world.delays(), [(FILE.into(), world.state.index())]);
    assert!(world.lingers(7));
}

#[test]
fn a_client_orphaned_twice_is_not_ended_by_the_first_window() {
    let mut world = world_with_holder();
    world.end(PROXY, EndCause::Failed);
    let first = world.state.index();
    let holder = world.handle(FILE, 1);
    world.write(through(7, OTHER, 2), set(holder, "x"));
    world.end(OTHER, EndCause::Failed);

    assert_eq!(world.run(Command::OrphanEnd { session: id(7), orphaned_at: first }), Outcome::Noted);

    assert!(is_held(&world));
}

#[test]
fn answers_survive_the_loss_of_the_proxy() {
    let mut world = world();
    let write = set(world.handle(FILE, 1), "x");
    let first = world.write_as(through(7, PROXY, 1), 1, 0, write.clone());
    world.end(PROXY, EndCause::Failed);

    let again = world.write_as(through(7, OTHER, 2), 1, 0, write);

    assert_eq!(again, first);
}

#[test]
fn a_proxy_says_how_its_client_ended() {
    for (cause, delays) in [(EndCause::Closed, 0), (EndCause::Failed, 1)] {
        let mut world = world_with_holder();

        let outcome = end_client(&mut world, 7, PROXY, 1, cause);

        assert_eq!(outcome, Outcome::ClientEnded { unlocked: vec![name(FILE)] });
        assert_eq!(world.delays().len(), delays);
        assert!(world.lingers(7));
    }
}

#[test]
fn only_a_proxy_with_a_session_ends_a_client() {
    let mut world = world_with_holder();

    for via in [99, 1] {
        let outcome = end_client(&mut world, 7, via, 9, EndCause::Closed);
        assert_failed(&outcome, &ErrorCode::Unavailable, "is over");
    }

    assert!(is_held(&world));
    let unknown = end_client(&mut world, 8, PROXY, 1, EndCause::Closed);
    assert_eq!(unknown, Outcome::ClientEnded { unlocked: vec![] });
}

#[test]
fn a_client_that_moves_from_a_proxy_to_the_master_takes_its_locks_along() {
    let mut world = world_with_holder();

    world.run(create_session(7, Role::Client, 2));
    let zombie = end_client(&mut world, 7, PROXY, 1, EndCause::Failed);
    world.end(PROXY, EndCause::Failed);

    assert_failed(&zombie, &ErrorCode::SessionMoved, "under claim 2");
    assert_eq!(orphans(&world), []);
    assert!(is_held(&world));
    assert_eq!(world.end(7, EndCause::Closed), Outcome::SessionEnded { unlocked: vec![name(FILE)] });
}

#[test]
fn an_outdated_hello_takes_nothing_from_the_proxy() {
    let mut world = world();
    assert_acquired(&world.acquire(through(7, PROXY, 5), FILE, 1, Exclusive));

    world.run(create_session(7, Role::Client, 4));
    let outcome = world.end(7, EndCause::Failed);

    assert_eq!(outcome, Outcome::SessionEnded { unlocked: vec![] });
    assert!(is_held(&world));
}

#[test]
fn a_client_that_moves_from_the_master_to_a_proxy_outlives_its_own_session() {
    let mut world = world();
    assert_acquired(&world.acquire(own(1), FILE, 1, Exclusive));
    let holder = world.handle(FILE, 1);
    world.write(through(1, PROXY, 2), set(holder.clone(), "x"));

    let zombie = world.write(own(1), set(holder, "y"));
    let outcome = world.end(1, EndCause::Failed);

    assert_failed(&zombie, &ErrorCode::SessionMoved, "claim 1");
    assert_eq!(outcome, Outcome::SessionEnded { unlocked: vec![] });
    assert!(is_held(&world));
    world.end(PROXY, EndCause::Failed);
    assert_eq!(orphans(&world).len(), 1);
}

#[test]
fn a_client_with_a_session_of_its_own_falls_back_to_it_when_its_proxy_goes() {
    let mut world = world();
    let holder = world.handle(FILE, 1);
    world.write(through(1, PROXY, 2), set(holder.clone(), "x"));
    settle(&mut world, 1);

    world.end(PROXY, EndCause::Failed);

    assert_eq!(orphans(&world), [], "it holds nothing that a claim window would be for");
    let newer = Speaker { claim: 3, ..own(1) };
    assert!(matches!(world.write(newer, set(holder, "y")), Outcome::Written { .. }));
}

#[test]
fn a_client_that_was_given_up_does_not_come_back_until_that_is_forgotten() {
    let give_up: [fn(&mut World); 4] = [
        |world| drop(end_client(world, 7, PROXY, 1, EndCause::Failed)),
        |world| drop(end_client(world, 7, PROXY, 1, EndCause::Closed)),
        |world| {
            world.end(PROXY, EndCause::Failed);
            let orphaned_at = world.state.index();
            world.run(Command::OrphanEnd { session: id(7), orphaned_at });
        },
        |world| {
            world.run(create_session(7, Role::Client, 2));
            world.end(7, EndCause::Failed);
        },
    ];
    for give_up in give_up {
        let mut world = world_with_holder();
        let claim = |world: &mut World| {
            world.run(Command::ClaimClient { session: id(7), via: id(OTHER), claim: Claim(9) })
        };
        give_up(&mut world);
        let write = set(world.handle(FILE, 1), "x");

        assert_failed(&claim(&mut world), &ErrorCode::SessionExpired, "given up");
        assert_failed(&world.write(through(7, OTHER, 9), write), &ErrorCode::SessionExpired, "given up");
        assert_failed(
            &end_client(&mut world, 7, OTHER, 9, EndCause::Failed),
            &ErrorCode::SessionExpired,
            "up",
        );
        assert_failed(&world.run(create_session(7, Role::Client, 9)), &ErrorCode::SessionExpired, "is over");
        let resumed =
            State::from_snapshot(world.state.write_snapshot().into_iter()).expect("a good snapshot");
        assert!(resumed == world.state, "a snapshot remembers it");

        world.forget();
        assert_eq!(claim(&mut world), Outcome::Noted);
    }
}

#[test]
fn what_an_older_speaker_says_late_is_refused_though_nothing_hangs_on_the_client() {
    let mut world = world();
    let write = set(world.handle(FILE, 1), "x");
    world.run(Command::ClaimClient { session: id(7), via: id(OTHER), claim: Claim(2) });
    assert!(world.lingers(7));

    let zombie = world.write_as(through(7, PROXY, 1), 1, 0, write.clone());
    let done = world.write_as(through(7, OTHER, 2), 1, 0, write.clone());
    world.run(Command::Settle(vec![(id(7), RequestNumber(2))]));
    assert!(world.lingers(7));
    let again = world.write_as(through(7, PROXY, 1), 1, 0, write.clone());
    let again_here = world.write_as(through(7, OTHER, 2), 1, 0, write);

    assert_failed(&zombie, &ErrorCode::SessionMoved, "claim 1");
    assert!(matches!(done, Outcome::Written { .. }));
    assert_failed(&again, &ErrorCode::SessionMoved, "claim 1");
    assert_failed(&again_here, &ErrorCode::InvalidArgument, "settled before");
}

#[test]
fn only_what_lingers_long_enough_is_forgotten() {
    let mut world = world();
    let write = set(world.handle(FILE, 1), "x");
    world.write_as(through(7, PROXY, 1), 1, 0, write.clone());
    world.write_as(through(8, PROXY, 1), 1, 0, write.clone());
    world.run(Command::Settle(vec![(id(7), RequestNumber(2))]));
    let since = world.state.index();
    world.run(Command::Settle(vec![(id(8), RequestNumber(2))]));

    assert!(world.state.has_lingered(since) && !world.state.has_lingered(since - 1));
    world.run(Command::Forget { since });
    assert!(world.state.client(id(7)).is_none() && world.lingers(8), "only what lingers since then");

    world.write_as(through(8, PROXY, 1), 2, 0, write);
    world.forget();
    assert!(world.state.client(id(8)).is_some(), "something hangs on it again");
    assert!(world.state.client(id(1)).is_some(), "it has a session of its own");
}
