//! Relays behind relays: `p` and `q` hold their sessions with `u` or `v`, which hold theirs with the cells.

use std::time::Duration;

use hasp_proto::client::Event;
use hasp_proto::error::ErrorCode;
use hasp_proto::event::EventKind;
use hasp_proto::limits::{CLAIM_WINDOW, LEASE_MAX};
use hasp_proto::node::LockMode;
use hasp_proto::request::{EndCause, Op, Reply, Use};
use hasp_proto::stream::News;
use hasp_proto::time::Time;

use super::caching::{cacher, contents, for_reading, put, reads_at};
use super::events::{happens_at, heard, listening};
use super::world::{World, t};
use super::{A, B, is_lost, open, opened, write};

fn world() -> World {
    World::layered(&["u", "v"], &["p", "q"])
}

/// The relay of the upper layer that this one holds its session with.
fn above(world: &World, relay: &str) -> String {
    let mut hosts = world.relays[relay].upstream.sessions().filter_map(|held| held.host.map(str::to_owned));
    hosts.next().expect("it has a host")
}

/// The relay that a client holds its session with.
fn host_of(world: &World, client: usize) -> String {
    let mut hosts = world.clients[client].core.sessions().filter_map(|held| held.host.map(str::to_owned));
    hosts.next().expect("it has a host")
}

/// Has a client hold its session with one of two hosts that it can go to.
fn steer(world: &mut World, client: usize, to: &str, from: &str) {
    if host_of(world, client) == from {
        world.silence(from);
        world.break_links(client);
        world.run_for(5_000);
        world.unsilence(from);
        world.run_for(3_000);
    }
    assert_eq!(host_of(world, client), to);
}

fn other(upper: &str) -> &'static str {
    if upper == "u" { "v" } else { "u" }
}

fn is_jeopardy_or_end(event: &Event) -> bool {
    matches!(event, Event::Jeopardy | Event::Expired(_))
}

#[test]
fn a_file_that_all_clients_read_costs_the_cell_one_open_and_one_read_for_each_upper_relay() {
    let mut world = World::layered(&["u"], &["p", "q"]);
    for client in 0..20 {
        let relay = ["p", "q"][client % 2];
        cacher(&mut world, relay, A);
    }

    let ops = world.cells["a"].ops();
    let count = |of: &str| ops.iter().filter(|op| **op == of).count();
    assert_eq!((count("open"), count("get_contents_and_stat")), (1, 1), "{ops:?}");
    assert_eq!(world.cells["a"].core.session_count(), 1);
    assert_eq!(world.relays["u"].status().sessions, 2, "one for each relay below");
}

#[test]
fn a_change_waits_until_every_client_below_both_layers_has_dropped_its_copy() {
    let mut world = world();
    let (deaf, _) = cacher(&mut world, "p", A);
    let (reader, for_read) = cacher(&mut world, "q", A);
    let writer = world.add_client(&["q"]);
    let handle = opened(&mut world, writer, A);
    world.clients[deaf].is_deaf = true;

    let ticket = world.submit(writer, put(&handle, "new"));
    world.run_for(1_000);
    assert_eq!(world.clients[writer].answer(ticket), None, "cache-4");
    world.undeafen(deaf);
    world.run_for(200);

    assert!(world.clients[writer].answer(ticket).is_some_and(|answer| answer.result.is_ok()));
    assert_eq!(contents(&mut world, reader, &for_read).0, "new");
}

#[test]
fn no_lease_outlives_any_lease_above_it_and_caches_do_not_lapse() {
    let mut world = world();
    for relay in ["p", "q", "p"] {
        cacher(&mut world, relay, A);
    }
    world.check = |world| {
        let least = |relay: &str| {
            let ends = world.relays[relay].upstream.sessions().map(|held| held.ends);
            ends.reduce(|a, b| hasp_proto::lease::LeaseEnds {
                session: a.session.min(b.session),
                cache: a.cache.min(b.cache),
            })
        };
        for relay in ["p", "q"] {
            let Some(own) = least(relay) else { continue };
            let hosts = world.relays[relay].upstream.sessions().filter_map(|held| held.host);
            for up in hosts.filter_map(least) {
                assert!(own.cache <= world.now || own.cache < up.cache, "lease-1: {own:?} {up:?}");
                assert!(own.session < up.session + CLAIM_WINDOW, "lease-2: {own:?} {up:?}");
            }
            for client in &world.clients {
                let at = client.core.sessions().find_map(|held| held.host);
                for (_, ends) in client.core.lease_ends().filter(|_| at == Some(relay)) {
                    assert!(ends.cache <= world.now || ends.cache < own.cache, "lease-1: {ends:?} {own:?}");
                    assert!(
                        ends.session <= world.now || ends.session < own.session,
                        "lease-2: {ends:?} {own:?}"
                    );
                }
            }
        }
    };

    world.run_until(t(120_000));

    for client in &world.clients {
        assert_eq!(client.saw(|event| *event == Event::CacheLapsed), 1, "only before the first lease: ka-5");
    }
    let sent = world.relays["p"].status().upstream_keepalives;
    assert!((13..=17).contains(&sent), "one session, one KeepAlive in eight seconds: {sent}");

    world.silence("u");
    world.silence("v");
    world.run_for(45_000);
    let is_served = |ends: hasp_proto::lease::LeaseEnds| ends.session > t(165_000);
    assert!(
        world.clients[0].core.lease_ends().all(|(_, ends)| is_served(ends)),
        "on the word of the upper layer"
    );
    world.run_for(60_000);
    assert_eq!(world.clients[0].saw(|event| *event == Event::Jeopardy), 1);
}

#[test]
fn a_lapse_is_dealt_with_for_every_cell_behind_the_host_above_before_leases_below_are_extended() {
    let mut world = World::layered(&["u"], &["p"]);
    let clients = [A, B].map(|name| cacher(&mut world, "p", name).0);
    world.run_for(20_000);
    let kept = world.relays["p"].status().registrations;
    assert!(kept > 0);

    // The lease that would have been in time comes at the moment at which the one before ends.
    world.cut("p", "u");
    let end = world.relays["p"].upstream.sessions().map(|held| held.ends.cache).min().expect("it has one");
    world.run_until(Time::from_micros(end.as_micros() - 1));
    world.now = end;
    world.mend();

    assert_eq!(world.relays["p"].status().registrations, 0, "of either cell");
    world.run_for(100);
    for client in clients {
        assert!(world.clients[client].core.lease_ends().all(|(_, ends)| ends.cache > world.now));
    }
}

#[test]
fn a_client_goes_on_when_the_upper_relay_dies_and_its_lock_with_it() {
    let mut world = world();
    let (holder, reader) = (world.add_client(&["p"]), world.add_client(&["p"]));
    let (first, opener) = (world.add_client(&["p"]), world.add_client(&["p"]));
    let handle = opened(&mut world, holder, A);
    assert!(
        matches!(world.ask(holder, Op::TryAcquire(handle.clone(), LockMode::Exclusive)), Some(it) if it.result.is_ok())
    );
    for_reading(&mut world, first, A);
    let file = for_reading(&mut world, reader, A);
    contents(&mut world, reader, &file);
    for_reading(&mut world, opener, B);
    let dead = above(&world, "p");

    world.kill(&dead);
    world.run_for(5_000);

    assert_eq!(above(&world, "p"), other(&dead));
    let claims: Vec<_> =
        world.asked("a", holder).iter().map(|(_, it)| it.on_behalf.as_ref().map(|it| it.claim.0)).collect();
    assert_eq!(claims.last(), Some(&Some(2)), "it came again and was claimed: {claims:?}");
    for client in [holder, opener] {
        assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Welcomed { .. })), 2);
    }
    assert_eq!(
        world.clients[reader].saw(|event| matches!(event, Event::Welcomed { .. })),
        1,
        "it left nothing"
    );
    assert_eq!(
        world.clients[reader].saw(|event| matches!(event, Event::News(_, News::FailOver { .. }))),
        2,
        "of both cells"
    );

    world.run_for(200_000);
    for client in [holder, reader] {
        assert_eq!(world.clients[client].saw(is_jeopardy_or_end), 0);
    }
    assert!(!world.cells["a"].ops().contains(&"end_client"), "nobody is given up");
    assert!(world.ask(holder, Op::Release(handle)).is_some_and(|answer| answer.result.is_ok()));
}

#[test]
fn an_upper_relay_that_cannot_reach_the_lower_one_does_not_end_clients_that_went_on() {
    let mut world = world();
    let holder = world.add_client(&["p"]);
    let handle = opened(&mut world, holder, A);
    world.ask(holder, Op::TryAcquire(handle.clone(), LockMode::Exclusive));
    let lost = above(&world, "p");

    world.cut("p", &lost);
    world.run_until(world.now + Duration::from_secs(400));

    assert_eq!(above(&world, "p"), other(&lost));
    assert_eq!(world.clients[holder].saw(is_jeopardy_or_end), 0);
    let session = world.clients[holder].session();
    let ends = world.cells["a"].seen.iter().filter(|(_, it)| {
        matches!(it.op, Op::EndClient(_))
            && it.on_behalf.as_ref().is_some_and(|it| it.session == session && it.claim.0 > 1)
    });
    assert_eq!(ends.count(), 0, "under its old claim at the most");
}

#[test]
fn the_end_of_a_client_is_told_to_the_cells_through_both_layers() {
    let mut world = world();
    let client = world.add_client(&["p"]);
    let handle = opened(&mut world, client, A);
    world.ask(client, write(&handle));
    let now = world.now;
    world.clients[client].core.end(now);
    world.run_for(500);

    let session = world.cells["a"].seen.iter().rev().find_map(|(_, it)| match it.op {
        Op::EndClient(cause) => Some((it.on_behalf.clone().expect("for it").session, cause)),
        _ => None,
    });
    assert_eq!(session.map(|(_, cause)| cause), Some(EndCause::Closed));
}

#[test]
fn a_client_that_comes_from_elsewhere_is_shown_what_the_cell_says_not_what_a_relay_has_kept() {
    let mut world = world();
    let mover = world.add_client(&["p", "q"]);
    cacher(&mut world, "p", A);
    cacher(&mut world, "q", A);
    let file = for_reading(&mut world, mover, A);
    contents(&mut world, mover, &file);
    let left = host_of(&world, mover);
    world.kill(&left);
    world.run_for(2_000);

    let before = reads_at(&world, "a");
    contents(&mut world, mover, &file);
    assert_eq!(reads_at(&world, "a"), before + 1, "P-MONO, past the copies of both layers");
    world.clients[mover].caches = false;
    contents(&mut world, mover, &file);
    assert_eq!(reads_at(&world, "a"), before + 1, "from here on a copy will do");
}

#[test]
fn the_loss_of_a_cell_above_is_told_to_those_below_who_used_it() {
    let mut world = World::layered(&["u"], &["p"]);
    let (one, two) = (world.add_client(&["p"]), world.add_client(&["p"]));
    opened(&mut world, one, B);
    opened(&mut world, two, A);

    world.cut("u", "b");
    world.run_for(60_000);
    world.mend();
    world.run_for(2_000);

    assert_eq!(world.clients[one].saw(|event| is_lost(event, "b")), 1);
    assert_eq!(world.clients[two].saw(|event| is_lost(event, "b")), 0);
    assert!(
        matches!(world.ask(two, open(A, Use::Read)), Some(it) if matches!(it.result, Ok(Reply::Opened { .. })))
    );
    assert!(matches!(world.ask(one, open(B, Use::Read)), Some(it) if it.result.is_ok()), "it is rejoined");
}

#[test]
fn a_client_that_a_cell_has_given_up_hears_of_it_through_both_layers() {
    let mut world = world();
    let client = world.add_client(&["p"]);
    let handle = opened(&mut world, client, A);
    world.cell("a").refuses = Some(("set_contents", ErrorCode::SessionExpired));

    world.submit(client, write(&handle));
    world.run_for(1_000);

    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Expired(_))), 1);
    assert_eq!(world.relays["p"].upstream.sessions().count(), 1, "and nobody else is meant");
}

#[test]
fn what_a_lower_relay_says_late_of_a_client_that_is_at_the_upper_one_itself_changes_nothing() {
    let mut world = World::layered(&["u"], &["p"]);
    let client = world.add_client(&["p", "u"]);
    steer(&mut world, client, "p", "u");
    listening(&mut world, client, &[EventKind::ContentsModified]);
    world.silence("p");
    world.break_links(client);
    world.run_for(3_000);
    let handle = listening(&mut world, client, &[EventKind::ContentsModified]);
    assert_eq!(host_of(&world, client), "u");

    world.unsilence("p");
    world.run_for(30_000); // Its session at the lower relay has run out, which says so.
    let before = heard(&world, client);
    happens_at(&mut world, "u", A, EventKind::ContentsModified, None);

    assert_eq!(heard(&world, client), before + 1);
    assert!(world.ask(client, Op::Close(handle)).is_some_and(|answer| answer.result.is_ok()));
}

/// A client that was let in by a relay whose host above has no session at cell `b`, to which the way is free from here on.
fn let_in_without_a_cell() -> (World, usize) {
    let mut world = World::layered(&["u"], &["p", "q"]);
    let client = world.add_client(&["p", "q"]);
    opened(&mut world, client, B);
    world.cut("u", "b");
    world.run_for(80_000); // Its session there is over, and no other begins.
    let lost = |world: &World| world.clients[client].saw(|event| is_lost(event, "b"));
    assert_eq!(lost(&world), 1, "it was told when that was so");

    let host = host_of(&world, client);
    world.kill(&host);
    world.run_for(5_000);
    assert_eq!(lost(&world), 2, "and again with the Welcome");
    world.mend();
    (world, client)
}

#[test]
fn a_cell_that_the_upper_relay_has_lost_is_told_to_a_client_that_comes_to_a_lower_one_and_claimed_later() {
    let (mut world, client) = let_in_without_a_cell();
    world.run_for(5_000);
    world.ask(client, open(B, Use::Read));

    let asked = world.asked("b", client);
    let since = asked.iter().filter(|(_, it)| it.on_behalf.as_ref().is_some_and(|client| client.claim.0 > 1));
    assert_eq!(since.map(|(_, it)| it.op.name()).collect::<Vec<_>>(), ["claim", "open"]);
}

#[test]
fn a_client_that_a_lost_cell_has_given_up_hears_of_it_through_both_layers_whatever_it_asks() {
    let (mut world, client) = let_in_without_a_cell();
    world.cell("b").holds = true;
    world.run_for(10_000);
    assert_eq!(world.asked("b", client).last().map(|(_, it)| it.op.name()), Some("claim"));
    world.break_links(client);
    world.run_for(2_000); // It goes on where it was, under its next claim.
    assert!(world.ask(client, open(A, Use::WriteAndLock)).is_some_and(|answer| answer.result.is_ok()));

    world.cell("b").refuses = Some(("claim", ErrorCode::SessionExpired));
    world.cell("b").answer_held();
    world.cell("b").refuses = None; // It remembers those that are over for two minutes.
    world.run_for(2_000);
    let over = |world: &World| world.clients[client].saw(|event| matches!(event, Event::Expired(_)));
    assert_eq!(over(&world), 0);

    world.submit(client, open(A, Use::WriteAndLock));
    world.run_for(1_000);

    assert_eq!(over(&world), 1);
    assert_eq!(world.relays["u"].status().sessions, 2, "and nobody else is meant");
}

#[test]
fn a_client_that_a_lost_cell_knows_elsewhere_is_refused_by_nobody_else() {
    let (mut world, client) = let_in_without_a_cell();
    world.cell("b").refuses = Some(("claim", ErrorCode::SessionMoved));
    world.run_for(20_000);
    world.cell("b").refuses = None;

    let answer = world.ask(client, open(B, Use::WriteAndLock));

    assert!(answer.is_some_and(|answer| answer.result.is_ok()), "it may have heard of it too early");
}

#[test]
fn the_end_of_a_session_that_a_client_left_at_the_upper_relay_takes_nothing_from_it_at_the_lower_one() {
    let mut world = World::layered(&["u"], &["p"]);
    let client = world.add_client(&["p", "u"]);
    steer(&mut world, client, "u", "p");
    assert_eq!(world.relays["u"].status().sessions, 2, "the relay's and the client's");
    listening(&mut world, client, &[EventKind::ContentsModified]);
    world.cut_client(client, "u");
    world.run_for(5_000);
    assert_eq!(host_of(&world, client), "p");
    listening(&mut world, client, &[EventKind::ContentsModified]);

    world.run_for(30_000);
    assert_eq!(world.relays["u"].status().sessions, 1, "the one that it left has run out");
    let before = heard(&world, client);
    happens_at(&mut world, "u", A, EventKind::ContentsModified, None);

    assert_eq!(heard(&world, client), before + 1);
}

#[test]
fn three_layers_deep_a_client_is_claimed_when_a_relay_in_the_middle_goes_to_another_host() {
    let mut world = World::three_layers();
    world.run_for(2_000);
    let holder = world.add_client(&["p"]);
    let handle = opened(&mut world, holder, A);
    world.ask(holder, Op::TryAcquire(handle.clone(), LockMode::Exclusive));
    let lost = above(&world, "m");

    world.cut("m", &lost); // It lives on, and speaks for the client until it hears otherwise.
    world.run_for(70_000); // A relay's session lease is a minute.

    assert_eq!(above(&world, "m"), other(&lost));
    let claims: Vec<_> =
        world.asked("a", holder).iter().map(|(_, it)| it.on_behalf.clone().map(|it| it.claim.0)).collect();
    assert_eq!(claims.last(), Some(&Some(2)), "{claims:?}");
    world.run_for(300_000);
    assert_eq!(world.clients[holder].saw(is_jeopardy_or_end), 0);
    assert!(world.ask(holder, Op::Release(handle)).is_some_and(|answer| answer.result.is_ok()));
}

#[test]
fn a_client_that_is_being_claimed_when_the_upper_relay_dies_comes_again_and_lives() {
    let mut world = world();
    let client = world.add_client(&["p", "q"]);
    let handle = opened(&mut world, client, A);
    world.ask(client, Op::TryAcquire(handle.clone(), LockMode::Exclusive));
    let left = host_of(&world, client);
    let next = if left == "p" { "q" } else { "p" };
    let dead = above(&world, next);
    world.cell("a").holds = true;
    world.cut_client(client, &left);
    world.run_for(1_000);
    let last = |world: &World, cell: &str| {
        let (via, request) = world.asked(cell, client).last().cloned().expect("asked");
        (via, request.op.name(), request.on_behalf.expect("for it").claim.0)
    };
    let (before, op, claim) = last(&world, "b");
    assert_eq!((op, claim), ("claim", 2), "noted there, and not yet at the other cell");

    world.kill(&dead);
    world.cell("a").answer_held();
    world.run_for(5_000);

    // The same claim went to the cells again, which have not seen the end of the dead relay.
    assert_eq!(world.clients[client].saw(is_jeopardy_or_end), 0);
    assert_eq!(host_of(&world, client), next);
    let (via, op, claim) = last(&world, "b");
    assert_eq!((op, claim), ("claim", 3), "proxy-4");
    assert_ne!(via, before);
    assert!(world.ask(client, Op::Release(handle)).is_some_and(|answer| answer.result.is_ok()));
}

/// Relays `p` and `q` behind different hosts above, and a client that can go to both and is at the first that is returned.
fn apart() -> (World, usize, String, String) {
    let mut world = world();
    if above(&world, "p") == above(&world, "q") {
        let taken = above(&world, "q");
        world.cut("q", &taken);
        world.run_for(80_000);
    }
    assert_ne!(above(&world, "p"), above(&world, "q"));
    let client = world.add_client(&["p", "q"]);
    let at = host_of(&world, client);
    let next = if at == "p" { "q" } else { "p" };
    (world, client, at, next.to_owned())
}

/// How often a cell heard that the client failed, under that claim.
fn ends_under(world: &World, cell: &str, client: usize, claim: u64) -> usize {
    let asked = world.asked(cell, client);
    let ends = asked.iter().filter(|(_, it)| it.op == Op::EndClient(EndCause::Failed));
    ends.filter(|(_, it)| it.on_behalf.as_ref().is_some_and(|it| it.claim.0 == claim)).count()
}

#[test]
fn a_client_that_was_claimed_through_two_layers_and_dies_with_its_relay_is_ended_though_it_asked_nothing() {
    let (mut world, client, first, next) = apart();
    let handle = opened(&mut world, client, A);
    world.ask(client, Op::TryAcquire(handle, LockMode::Exclusive));
    world.cut_client(client, &first);
    world.run_for(3_000);
    assert_eq!(host_of(&world, client), next);

    world.freeze(client);
    world.kill(&next);
    let dead = world.now;

    world.run_until(dead + CLAIM_WINDOW);
    assert_eq!(ends_under(&world, "a", client, 2), 0, "its relay could still come back");
    world.run_until(dead + LEASE_MAX + CLAIM_WINDOW + Duration::from_secs(2));
    assert_eq!((ends_under(&world, "a", client, 2), ends_under(&world, "b", client, 2)), (1, 1));
}
