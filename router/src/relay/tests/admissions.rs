//! Sessions that come from elsewhere: `proxy-4`, `proxy-5`, P-LEASE.

use super::*;

fn welcomes(world: &World, client: usize) -> usize {
    world.clients[client].saw(|event| matches!(event, Event::Welcomed { .. }))
}

/// How often a cell heard that the client failed from who speaks for it under that claim.
fn ends_under(world: &World, cell: &str, client: usize, claim: u64) -> usize {
    let asked = world.asked(cell, client);
    let ends = asked.iter().filter(|(_, it)| it.op == Op::EndClient(EndCause::Failed));
    ends.filter(|(_, it)| it.on_behalf.as_ref().is_some_and(|client| client.claim.0 == claim)).count()
}

fn ends(world: &World, cell: &str, client: usize) -> usize {
    world.asked(cell, client).iter().filter(|(_, it)| it.op == Op::EndClient(EndCause::Failed)).count()
}

/// A client of proxy `p` or `q` that has opened a file in each cell, and what it held breaks.
fn world_with_mover() -> (World, usize) {
    let mut world = World::new(&["p", "q"]);
    let client = world.add_client(&["p", "q"]);
    opened(&mut world, client, A);
    opened(&mut world, client, B);
    world.run_for(500);
    (world, client)
}

#[test]
fn a_session_from_elsewhere_is_promised_nothing_before_every_cell_has_noted_its_claim() {
    let (mut world, client) = world_with_mover();
    for cell in ["a", "b"] {
        world.cell(cell).holds = true;
    }

    world.break_links(client);
    world.run_for(1_000);
    assert_eq!(welcomes(&world, client), 1, "nobody has noted it");
    world.cell("a").answer_held();
    world.run_for(1_000);
    assert_eq!(welcomes(&world, client), 1, "one has");
    world.cell("b").answer_held();
    world.run_for(100);

    assert_eq!(welcomes(&world, client), 2);
    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Jeopardy)), 0);
    let claims = world.asked("a", client).iter().filter(|(_, it)| it.op == Op::Claim).count();
    assert_eq!(claims, 1);
    let taken_over: u64 = world.relays.values().map(|relay| relay.status().sessions_taken_over).sum();
    assert_eq!(taken_over, 1);
}

#[test]
fn a_session_that_begins_waits_for_nobody() {
    let mut world = World::new(&["p"]);
    for cell in ["a", "b"] {
        world.cell(cell).holds = true;
    }

    let client = world.add_client(&["p"]);
    world.run_for(100);

    assert_eq!(welcomes(&world, client), 1);
}

#[test]
fn however_often_a_session_comes_back_its_newest_claim_is_noted_and_one_at_a_time_is_under_way() {
    let (mut world, client) = world_with_mover();
    world.cell("a").holds = true;

    for _ in 0..5 {
        world.break_links(client);
        world.run_for(1_500);
    }
    let claims = world.cell("a").held.iter().filter(|(_, it)| it.op == Op::Claim).count();
    assert!(claims <= 2, "one from each proxy: {claims}");
    world.cell("a").holds = false;
    world.cell("a").answer_held();
    world.run_for(10_000);

    assert_eq!(welcomes(&world, client), 2);
    let asked = world.asked("a", client);
    let claims = asked.iter().filter(|(_, it)| it.op == Op::Claim);
    let newest = claims.filter_map(|(_, it)| it.on_behalf.as_ref()).map(|it| it.claim).max();
    let relays = world.relays.values();
    let speaks: Vec<_> = relays.filter_map(|it| it.server.holder(world.clients[client].session())).collect();
    assert!(speaks.iter().any(|holder| Some(holder.claim) == newest), "{newest:?} {speaks:?}");
}

#[test]
fn a_client_that_one_cell_has_given_up_is_turned_away_and_ended_at_the_others_when_its_lease_is_over() {
    let (mut world, client) = world_with_mover();
    world.cell("a").refuses = Some(("claim", ErrorCode::SessionExpired));
    world.break_links(client);
    let claimed = world.now;

    world.run_until(claimed + CLAIM_WINDOW - Duration::from_secs(2));
    assert_eq!(welcomes(&world, client), 1);
    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Expired(_))), 1);
    let newest = |world: &World, cell: &str| {
        let asked = world.asked(cell, client);
        let ends = asked.iter().filter(|(_, it)| it.op == Op::EndClient(EndCause::Failed));
        ends.filter_map(|(_, it)| Some(it.on_behalf.clone()?.claim.0)).max()
    };
    assert_eq!(newest(&world, "b"), Some(1), "the word of the proxy that it had left");
    world.run_for(10_000);

    assert_eq!(newest(&world, "b"), Some(2));
}

#[test]
fn a_cell_with_which_there_is_no_session_is_not_waited_for_and_its_loss_is_told() {
    let (mut world, client) = world_with_mover();
    let first = world.relays.iter().find(|(_, it)| it.status().sessions == 1).expect("one has it").0.clone();
    let next = if first == "p" { "q" } else { "p" };
    world.cut(next, "b");
    world.run_for(80_000); // The other proxy's session there is over, and no other begins.
    let lost = |world: &World| world.clients[client].saw(|event| is_lost(event, "b"));
    assert_eq!(lost(&world), 0);

    world.break_links(client);
    world.run_for(5_000);

    assert_eq!((welcomes(&world, client), lost(&world)), (2, 1));
    let events = &world.clients[client].events;
    let at = |wanted: fn(&Event) -> bool| events.iter().rposition(wanted).expect("told");
    let (told, welcomed) =
        (at(|event| is_lost(event, "b")), at(|event| matches!(event, Event::Welcomed { .. })));
    assert!(told < welcomed, "before it counts on what it is promised");
}

/// A client that was let in by a proxy without a session at cell `b`, to which the way is free from here on.
fn let_in_without_a_cell() -> (World, usize) {
    let (mut world, client) = world_with_mover();
    let first = world.relays.iter().find(|(_, it)| it.status().sessions == 1).expect("one has it").0.clone();
    let next = if first == "p" { "q" } else { "p" };
    world.cut(next, "b");
    world.run_for(80_000);
    world.break_links(client);
    world.run_for(5_000);
    assert_eq!(welcomes(&world, client), 2);
    world.mend();
    (world, client)
}

#[test]
fn a_lost_cell_hears_who_speaks_for_a_client_before_anything_else_of_it() {
    let (mut world, client) = let_in_without_a_cell();
    world.submit(client, open(B, Use::Read));

    world.run_for(20_000);

    let asked = world.asked("b", client);
    let since = asked.iter().filter(|(_, it)| it.on_behalf.as_ref().is_some_and(|client| client.claim.0 > 1));
    let asked: Vec<_> = since.map(|(_, it)| it.op.name()).collect();
    assert_eq!(asked, ["claim", "open"]);
}

#[test]
fn the_end_of_a_client_is_told_to_a_lost_cell_too_where_it_was_claimed_later() {
    let (mut world, client) = let_in_without_a_cell();
    world.run_for(20_000);
    let now = world.now;
    world.clients[client].core.end(now);
    world.run_for(1_000);

    let asked = world.asked("b", client);
    let since = asked.iter().filter(|(_, it)| it.on_behalf.as_ref().is_some_and(|client| client.claim.0 > 1));
    let asked: Vec<_> = since.map(|(_, it)| it.op.name()).collect();
    assert_eq!(asked, ["claim", "end_client"]);
}

#[test]
fn a_client_that_a_lost_cell_has_given_up_is_told_so_when_the_cell_is_back() {
    let (mut world, client) = let_in_without_a_cell();
    world.cell("b").refuses = Some(("claim", ErrorCode::SessionExpired));
    let ends = |world: &World| ends_under(world, "a", client, 2);
    let is_told = |world: &World| world.clients[client].saw(|event| matches!(event, Event::Expired(_))) == 1;

    let patience = world.now + Duration::from_secs(60);
    while !is_told(&world) && world.now < patience {
        world.run_for(100);
    }
    assert!(is_told(&world));
    assert_eq!(ends(&world), 0, "it may not have heard it");
    world.run_for(80_000);

    assert_eq!(ends(&world), 1, "its lease is over");
}

#[test]
fn that_a_lost_cell_has_given_a_client_up_counts_though_it_came_again_meanwhile() {
    let (mut world, client) = let_in_without_a_cell();
    world.cell("b").holds = true;
    world.run_for(10_000);
    assert_eq!(world.asked("b", client).last().map(|(_, it)| it.op.name()), Some("claim"));
    let at = world.clients[client].core.sessions().find_map(|held| held.host.map(str::to_owned));
    world.cut_client(client, if at.as_deref() == Some("p") { "q" } else { "p" });
    world.run_for(5_000);
    assert_eq!(welcomes(&world, client), 3);

    world.cell("b").refuses = Some(("claim", ErrorCode::SessionExpired));
    world.cell("b").answer_held();
    world.run_for(2_000);

    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Expired(_))), 1);
}

#[test]
fn a_client_that_a_cell_knows_under_the_same_claim_elsewhere_comes_again_with_the_next() {
    let (mut world, client) = world_with_mover();
    world.cell("a").refuses = Some(("claim", ErrorCode::SessionMoved));
    world.break_links(client);
    world.run_for(100);
    world.cell("a").refuses = None;

    world.run_for(5_000);

    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Jeopardy | Event::Expired(_))), 0);
    assert_eq!(welcomes(&world, client), 2);
}

#[test]
fn nor_does_the_word_of_a_lost_cell_that_it_speaks_elsewhere_cost_a_client_its_session() {
    let (mut world, client) = let_in_without_a_cell();
    world.cell("b").refuses = Some(("claim", ErrorCode::SessionMoved));
    let before = world.asked("b", client).len();
    let patience = world.now + Duration::from_secs(60);
    while world.asked("b", client).len() == before && world.now < patience {
        world.run_for(10);
    }
    world.cell("b").refuses = None;
    world.run_for(5_000);

    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Jeopardy | Event::Expired(_))), 0);
    let claims: Vec<_> = world.asked("b", client)[before..]
        .iter()
        .map(|(_, it)| (it.op.name(), it.on_behalf.as_ref().map(|it| it.claim.0)))
        .collect();
    assert_eq!(claims, [("claim", Some(2)), ("claim", Some(3))]);
    assert_eq!(welcomes(&world, client), 3);
}

#[test]
fn a_client_that_was_claimed_and_did_not_come_is_ended_like_an_orphan() {
    let (mut world, client) = world_with_mover();
    for cell in ["a", "b"] {
        world.cell(cell).holds = true;
    }
    world.break_links(client);
    world.run_for(500);
    world.freeze(client); // It never hears that it was let in, nor says anything.
    world.break_links(client);
    for cell in ["a", "b"] {
        world.cell(cell).holds = false;
        world.cell(cell).answer_held();
    }
    let claimed = world.now;

    world.run_until(claimed + CLAIM_WINDOW - Duration::from_secs(2));
    let claims = |world: &World| {
        let asked = world.asked("a", client);
        asked
            .iter()
            .filter(|(_, it)| it.op == Op::Claim)
            .filter_map(|(_, it)| Some(it.on_behalf.clone()?.claim))
            .max()
    };
    let newest = claims(&world);
    let ended = |world: &World, cell: &str| {
        let asked = world.asked(cell, client);
        let ends = asked.iter().filter(|(_, it)| it.op == Op::EndClient(EndCause::Failed));
        ends.filter(|(_, it)| it.on_behalf.as_ref().map(|it| it.claim) == newest).count()
    };
    assert_eq!(ended(&world, "a"), 0, "within the claim window");
    world.run_for(10_000);

    assert_eq!((ended(&world, "a"), ended(&world, "b")), (1, 1));
}

#[test]
fn a_client_that_moved_and_did_nothing_since_is_ended_where_it_was_before() {
    let (mut world, client) = world_with_mover();
    world.break_links(client);
    world.run_for(1_000);
    assert_eq!(welcomes(&world, client), 2);
    let before = ends(&world, "a", client);

    let now = world.now;
    world.clients[client].core.end(now);
    world.run_for(1_000);

    let closed =
        world.asked("a", client).iter().filter(|(_, it)| it.op == Op::EndClient(EndCause::Closed)).count();
    assert_eq!((closed, before), (1, 0));
}
