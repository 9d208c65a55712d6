//! Relays behind relays: `p` and `q` hold their sessions with `u` or `v`, which hold theirs with the cells.

use std::time::Duration;

use hasp_proto::client::Event;
use hasp_proto::error::ErrorCode;
use hasp_proto::event::EventKind;
use hasp_proto::limits::CLAIM_WINDOW;
use hasp_proto::node::LockMode;
use hasp_proto::request::{EndCause, Op, Reply, Use};
use hasp_proto::stream::News;

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
fn a_client_goes_on_when_the_upper_relay_dies_and_its_lock_with_it() {
    let mut world = world();
    let (holder, reader) = (world.add_client(&["p"]), world.add_client(&["p"]));
    let handle = opened(&mut world, holder, A);
    assert!(
        matches!(world.ask(holder, Op::TryAcquire(handle.clone(), LockMode::Exclusive)), Some(it) if it.result.is_ok())
    );
    let file = for_reading(&mut world, reader, A);
    contents(&mut world, reader, &file);
    let dead = above(&world, "p");

    world.kill(&dead);
    world.run_for(5_000);

    assert_eq!(above(&world, "p"), other(&dead));
    let claims: Vec<_> =
        world.asked("a", holder).iter().map(|(_, it)| it.on_behalf.as_ref().map(|it| it.claim.0)).collect();
    assert_eq!(claims.last(), Some(&Some(2)), "it came again and was claimed: {claims:?}");
    assert_eq!(world.clients[holder].saw(|event| matches!(event, Event::Welcomed { .. })), 2);
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
    let left = world.clients[mover].core.sessions().find_map(|held| held.host.map(str::to_owned));
    world.kill(&left.expect("it has a host"));
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
    if world.relays["p"].status().sessions == 0 {
        world.silence("u");
        world.break_links(client);
        world.run_for(5_000);
        world.unsilence("u");
        world.run_for(3_000);
    }
    assert_eq!(world.relays["p"].status().sessions, 1);
    listening(&mut world, client, &[EventKind::ContentsModified]);
    world.silence("p");
    world.break_links(client);
    world.run_for(3_000);
    let handle = listening(&mut world, client, &[EventKind::ContentsModified]);
    let at = world.clients[client].core.sessions().find_map(|held| held.host.map(str::to_owned));
    assert_eq!(at.as_deref(), Some("u"));

    world.unsilence("p");
    world.run_for(30_000); // Its session at the lower relay has run out, which says so.
    let before = heard(&world, client);
    happens_at(&mut world, "u", EventKind::ContentsModified, None);

    assert_eq!(heard(&world, client), before + 1);
    assert!(world.ask(client, Op::Close(handle)).is_some_and(|answer| answer.result.is_ok()));
}

#[test]
fn a_cell_that_the_upper_relay_has_lost_is_told_to_a_client_that_comes_to_a_lower_one_and_claimed_later() {
    let mut world = World::layered(&["u"], &["p", "q"]);
    let client = world.add_client(&["p", "q"]);
    opened(&mut world, client, B);
    world.cut("u", "b");
    world.run_for(80_000); // Its session there is over, and no other begins.
    let lost = |world: &World| world.clients[client].saw(|event| is_lost(event, "b"));
    assert_eq!(lost(&world), 1, "it was told when that was so");

    let host = world.clients[client].core.sessions().find_map(|held| held.host.map(str::to_owned));
    world.kill(&host.expect("it has a host"));
    world.run_for(5_000);
    assert_eq!(lost(&world), 2, "and again with the Welcome");
    world.mend();
    world.run_for(5_000);
    world.ask(client, open(B, Use::Read));

    let asked = world.asked("b", client);
    let since = asked.iter().filter(|(_, it)| it.on_behalf.as_ref().is_some_and(|client| client.claim.0 > 1));
    assert_eq!(since.map(|(_, it)| it.op.name()).collect::<Vec<_>>(), ["claim", "open"]);
}

#[test]
fn the_end_of_a_session_that_a_client_left_at_the_upper_relay_takes_nothing_from_it_at_the_lower_one() {
    let mut world = World::layered(&["u"], &["p"]);
    let client = world.add_client(&["p", "u"]);
    if world.relays["u"].status().sessions == 1 {
        world.silence("p");
        world.break_links(client);
        world.run_for(5_000);
        world.unsilence("p");
        world.run_for(3_000);
    }
    assert_eq!(world.relays["u"].status().sessions, 2, "the relay's and the client's");
    listening(&mut world, client, &[EventKind::ContentsModified]);
    world.cut_client(client, "u");
    world.run_for(5_000);
    let at = world.clients[client].core.sessions().find_map(|held| held.host.map(str::to_owned));
    assert_eq!(at.as_deref(), Some("p"));
    listening(&mut world, client, &[EventKind::ContentsModified]);

    world.run_for(30_000);
    assert_eq!(world.relays["u"].status().sessions, 1, "the one that it left has run out");
    let before = heard(&world, client);
    happens_at(&mut world, "u", EventKind::ContentsModified, None);

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
