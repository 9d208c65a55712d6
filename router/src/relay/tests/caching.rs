//! What a proxy answers by itself, what it lets its clients keep, and what it waits for before a cell may
//! change that.

use std::time::Duration;

use bytes::Bytes;
use hasp_proto::client::{Ask, Event};
use hasp_proto::error::ErrorCode;
use hasp_proto::handle::{HandleKey, HandleToken};
use hasp_proto::id::{CellName, RequestNumber};
use hasp_proto::item::{Item, ItemKind, ItemKinds};
use hasp_proto::lease::{Ceiling, LeaseTerms};
use hasp_proto::limits::{HANDLES_PER_CLIENT, NEWS_PER_SESSION};
use hasp_proto::machine::Core as _;
use hasp_proto::name::Name;
use hasp_proto::node::NodeKind;
use hasp_proto::request::{Answer, Create, Op, Open, Reply, Use};
use hasp_proto::sequencer::SequencerToken;
use hasp_proto::server::ServerCore;
use hasp_proto::stream::News;
use hasp_proto::time::Time;

use super::super::{Input, Phase};
use super::world::World;
use super::{A, B, code, is_lost, open, opened};

const ACL: &str = "/ls/dev/acl/staff";

fn name(text: &str) -> Name {
    Name::parse(text).expect("good")
}

pub(super) fn for_reading(world: &mut World, client: usize, name: &str) -> HandleToken {
    match world.ask(client, open(name, Use::Read)) {
        Some(Answer { result: Ok(Reply::Opened { handle, .. }), .. }) => handle,
        other => panic!("not opened: {other:?}"),
    }
}

pub(super) fn read(handle: &HandleToken) -> Op {
    Op::GetContentsAndStat(handle.clone())
}

pub(super) fn put(handle: &HandleToken, contents: &str) -> Op {
    let contents = Bytes::copy_from_slice(contents.as_bytes());
    Op::SetContents { handle: handle.clone(), contents, if_generation: None }
}

/// What a file says, to that client, at this moment.
pub(super) fn contents(world: &mut World, client: usize, handle: &HandleToken) -> (String, Answer) {
    let answer = world.ask(client, read(handle)).expect("answered");
    let Ok(Reply::Contents { contents, .. }) = &answer.result else { panic!("contents: {answer:?}") };
    (String::from_utf8(contents.to_vec()).expect("text"), answer)
}

pub(super) fn reads_at(world: &World, cell: &str) -> usize {
    world.cells[cell].ops().iter().filter(|op| op.starts_with("get")).count()
}

/// A client that has read the file, and so may keep it.
pub(super) fn cacher(world: &mut World, relay: &str, file: &str) -> (usize, HandleToken) {
    let client = world.add_client(&[relay]);
    let handle = for_reading(world, client, file);
    let (_, answer) = contents(world, client, &handle);
    assert_eq!(answer.caches, ItemKinds::of([ItemKind::Data, ItemKind::Lock, ItemKind::Acl]));
    let now = world.now;
    assert!(world.clients[client].cached(now, file).is_some());
    (client, handle)
}

#[test]
fn what_one_client_has_read_is_answered_to_others_without_asking_the_cell() {
    let mut world = World::new(&["p"]);
    cacher(&mut world, "p", A);
    let asked = world.cells["a"].ops().len();

    let (second, handle) = cacher(&mut world, "p", A);

    assert_eq!(world.cells["a"].ops().len(), asked, "neither the open nor the read");
    let body = HandleKey::new(Bytes::from_static(&[1; 32])).open(&handle).expect("as the cell makes them");
    assert_eq!((body.session, body.opened_by), (world.clients[second].session(), RequestNumber(1)));
    assert_eq!((body.name, body.r#use), (name(A), Use::Read));
    world.cell("a").holds = true;
    let dir = for_reading(&mut world, second, A);
    assert!(world.ask(second, Op::GetStat(dir.clone())).is_some_and(|answer| answer.result.is_ok()));
    assert_eq!(world.ask(second, Op::ReadDir(dir)), None, "that was not read before");
}

#[test]
fn a_listing_and_an_absence_are_answered_too_and_fall_with_what_changes_them() {
    let mut world = World::new(&["p"]);
    world.cell("a").absent.insert(name(A));
    let (one, two) = (world.add_client(&["p"]), world.add_client(&["p"]));
    let list = |world: &mut World, client| {
        let dir = for_reading(world, client, "/ls/dev");
        let answer = world.ask(client, Op::ReadDir(dir)).expect("answered");
        let Ok(Reply::Children { children, .. }) = answer.result else { panic!("a listing") };
        (children.len(), answer.caches)
    };
    assert_eq!(list(&mut world, one), (0, ItemKinds::of([ItemKind::Listing, ItemKind::Acl])));
    assert_eq!(code(world.ask(one, open(A, Use::Read)).as_ref()), Some(ErrorCode::NotFound));
    let asked = world.cells["a"].ops().len();

    assert_eq!(list(&mut world, two).0, 0);
    let absent = world.ask(two, open(A, Use::WriteAndLock)).expect("answered");
    assert_eq!(
        (code(Some(&absent)), absent.caches),
        (Some(ErrorCode::NotFound), ItemKinds::of([ItemKind::Absence]))
    );
    assert_eq!(world.cells["a"].ops().len(), asked);

    let acls = None;
    let create = Create { must: true, kind: NodeKind::File, contents: Bytes::new(), ephemeral: false, acls };
    let made = Op::Open(Open { create: Some(create), ..Open::existing(name(A), Use::WriteAndLock) });
    let Some(Answer { result: Ok(Reply::Opened { handle, created: true, .. }), .. }) = world.ask(one, made)
    else {
        panic!("created")
    };
    world.ask(one, put(&handle, "x"));
    assert!(world.ask(two, open(A, Use::Read)).is_some_and(|answer| answer.result.is_ok()));
    assert_eq!(list(&mut world, two).0, 1);
}

#[test]
fn a_write_is_seen_by_whoever_reads_after_it_through_any_proxy() {
    let mut world = World::new(&["p", "q"]);
    let (one, at_p) = cacher(&mut world, "p", A);
    let (two, at_q) = cacher(&mut world, "q", A);
    let writer = world.add_client(&["q"]);
    let handle = opened(&mut world, writer, A);

    for round in 0..3 {
        let text = format!("{round}");
        assert!(world.ask(writer, put(&handle, &text)).is_some_and(|answer| answer.result.is_ok()));
        let now = world.now;
        assert_eq!(world.clients[one].cached(now, A), None);
        assert_eq!(contents(&mut world, one, &at_p).0, text);
        assert_eq!(contents(&mut world, two, &at_q).0, text);
    }
}

#[test]
fn a_change_waits_until_every_client_below_has_dropped_its_copy() {
    let mut world = World::new(&["p"]);
    let (deaf, handle) = cacher(&mut world, "p", A);
    let (other, _) = cacher(&mut world, "p", A);
    let writer = world.add_client(&["p"]);
    let to_write = opened(&mut world, writer, A);
    world.clients[deaf].is_deaf = true;

    let ticket = world.submit(writer, put(&to_write, "new"));
    world.run_for(1_000);
    assert_eq!(world.clients[writer].answer(ticket), None, "one has not acknowledged");
    assert_eq!(world.relays["p"].status().rounds, 1);
    let now = world.now;
    assert_eq!(world.clients[other].cached(now, A), None);
    let others = for_reading(&mut world, other, A);
    let (before, answer) = contents(&mut world, other, &others);
    assert_eq!((&*before, answer.caches.contains(ItemKind::Data)), ("", false), "answered, not to be kept");

    assert!(world.clients[deaf].cached(now, A).is_some(), "it goes on using its copy");
    world.undeafen(deaf);
    world.run_for(100);
    assert!(world.clients[writer].answer(ticket).is_some());
    assert_eq!(contents(&mut world, deaf, &handle).0, "new");
    assert_eq!(world.relays["p"].status().rounds, 0);
}

#[test]
fn a_client_that_is_gone_holds_up_a_change_until_its_cache_lease_has_ended_and_no_longer() {
    let mut world = World::new(&["p"]);
    let (gone, _) = cacher(&mut world, "p", A);
    let writer = world.add_client(&["p"]);
    let handle = opened(&mut world, writer, A);
    world.freeze(gone);
    let session = world.clients[gone].session();
    let at_host = world.relays["p"].server.cache_end(session).expect("known");
    let (_, at_holder) = world.clients[gone].core.lease_ends().next().expect("one session");

    let ticket = world.submit(writer, put(&handle, "new"));
    world.run_until(at_host - Duration::from_millis(50));
    assert_eq!(world.clients[writer].answer(ticket), None, "it may still use its copy");
    world.run_until(at_host + Duration::from_millis(50));
    assert_eq!(world.relays["p"].status().rounds, 0, "the cell hears that no copy is left");
    world.run_for(200);

    assert!(world.clients[writer].answer(ticket).is_some());
    let committed = world.cells["a"].commits.last().expect("done").0;
    assert!(committed >= at_holder.cache, "P-LEASE: {committed:?} {at_holder:?}");
    world.run_for(20_000);
    let mut holders = world.relays["p"].sources.values().flat_map(|source| source.cachers.sessions());
    assert!(!holders.any(|holder| holder == session), "and nothing is left of it");
}

#[test]
fn a_write_is_told_once_however_many_clients_cache_the_file() {
    let mut world = World::new(&["p"]);
    let readers: Vec<_> = (0..3).map(|_| cacher(&mut world, "p", A)).collect();
    let writer = world.add_client(&["p"]);
    let to_write = opened(&mut world, writer, A);

    world.ask(writer, put(&to_write, "one"));
    assert_eq!(world.relays["p"].status().upstream_invalidations, 1);

    world.ask(writer, put(&to_write, "two"));
    assert_eq!(world.relays["p"].status().upstream_invalidations, 1, "nobody has read it since");
    for (reader, handle) in &readers {
        contents(&mut world, *reader, handle);
    }
    world.ask(writer, put(&to_write, "three"));
    assert_eq!(world.relays["p"].status().upstream_invalidations, 2);
}

#[test]
fn fan_outs_are_timed_from_the_cells_word_to_the_last_acknowledgement() {
    let mut world = World::new(&["p"]);
    let (slow, _) = cacher(&mut world, "p", A);
    let writer = world.add_client(&["p"]);
    let handle = opened(&mut world, writer, A);
    world.fanned_out.clear();
    let before = world.relays["p"].status();
    world.clients[slow].is_deaf = true;

    world.submit(writer, put(&handle, "new"));
    world.run_for(1_000);
    assert_eq!(world.fanned_out, [], "one has not acknowledged");
    world.undeafen(slow);
    world.run_for(100);

    let [took] = world.fanned_out[..] else { panic!("one write: {:?}", world.fanned_out) };
    assert!((Duration::from_millis(950)..Duration::from_millis(1_100)).contains(&took), "{took:?}");
    let after = world.relays["p"].status();
    assert_eq!(after.invalidations, before.invalidations + 1);
}

#[test]
fn what_could_not_be_answered_from_the_cache_and_what_fell_out_of_it_is_counted() {
    let mut world = World::with_cache(&["p"], Some(2_000));
    let client = world.add_client(&["p"]);

    let handle = for_reading(&mut world, client, A);
    contents(&mut world, client, &handle);
    contents(&mut world, client, &handle);
    let first = world.relays["p"].status();
    for other in 0..20 {
        for_reading(&mut world, client, &format!("/ls/dev/other{other}"));
    }

    assert_eq!((first.misses, first.hits, first.evictions), (2, 1, 0), "opened, read, read again");
    let after = world.relays["p"].status();
    assert_eq!(after.misses, 22);
    assert!(after.evictions > 0 && after.cache_bytes <= 2_000, "{after:?}");
}

#[test]
fn a_client_that_comes_back_in_a_round_is_told_again() {
    let mut world = World::new(&["p"]);
    let (lost, handle) = cacher(&mut world, "p", A);
    let writer = world.add_client(&["p"]);
    let to_write = opened(&mut world, writer, A);
    world.freeze(lost);
    let ticket = world.submit(writer, put(&to_write, "new"));
    world.run_for(500);
    assert_eq!(world.clients[writer].answer(ticket), None);

    world.break_links(lost);
    world.thaw(lost);
    world.run_for(500);

    assert!(world.clients[writer].answer(ticket).is_some());
    assert_eq!(contents(&mut world, lost, &handle).0, "new");
    assert_eq!(world.clients[lost].saw(|event| matches!(event, Event::News(_, News::Invalidate { .. }))), 1);
}

#[test]
fn an_answer_whose_item_was_invalidated_while_it_was_asked_is_kept_by_nobody() {
    let mut world = World::new(&["p"]);
    let (client, handle) = cacher(&mut world, "p", A);
    let writer = world.add_client(&["p"]);
    let to_write = opened(&mut world, writer, A);
    world.ask(writer, put(&to_write, "one"));
    world.cell("a").holds = true;
    let ticket = world.submit(client, read(&handle));
    world.run_for(50);
    let session = world.relays["p"].upstream.sessions().next().expect("at a").session;
    let item = Item::new(name(A), ItemKind::Data);
    let floor = world.cells["a"].position();
    let now = world.now;

    world.cell("a").core.tell(now, session, News::Invalidate { items: vec![item], floor });
    world.run_for(50);
    world.cell("a").answer_held();
    world.run_for(50);

    let answer = world.clients[client].answer(ticket).cloned().expect("answered");
    assert!(!answer.caches.contains(ItemKind::Data), "{answer:?}");
    let before = reads_at(&world, "a");
    contents(&mut world, client, &handle);
    assert_eq!(reads_at(&world, "a"), before + 1, "not kept here either");
}

#[test]
fn hits_are_answered_with_the_latest_position_heard_so_that_nobody_goes_back() {
    let mut world = World::new(&["p"]);
    let client = world.add_client(&["p"]);
    world.clients[client].caches = false;
    let (x, y) = (for_reading(&mut world, client, A), opened(&mut world, client, "/ls/dev/y"));
    contents(&mut world, client, &x);
    let written = world.ask(client, put(&y, "1")).and_then(|answer| answer.position).expect("written");
    let asked = reads_at(&world, "a");

    let (_, answer) = contents(&mut world, client, &x);

    assert_eq!(reads_at(&world, "a"), asked, "a hit");
    assert_eq!(answer.position, Some(written), "though it was read before");
    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Welcomed { .. })), 1, "P-MONO");
}

#[test]
fn a_client_that_comes_from_elsewhere_is_asked_for_above_until_this_host_has_seen_as_much() {
    let mut world = World::new(&["p", "q"]);
    for relay in ["p", "q"] {
        cacher(&mut world, relay, A);
    }
    let mover = world.add_client(&["p", "q"]);
    world.clients[mover].caches = false;
    let (x, y) = (for_reading(&mut world, mover, A), opened(&mut world, mover, "/ls/dev/y"));
    world.ask(mover, put(&y, "1"));
    let asked = reads_at(&world, "a");

    world.break_links(mover);
    world.run_for(1_000);
    let (_, answer) = contents(&mut world, mover, &x);
    assert_eq!(reads_at(&world, "a"), asked + 1);
    assert_eq!(answer.position, Some(world.cells["a"].position()));
    contents(&mut world, mover, &x);

    assert_eq!(reads_at(&world, "a"), asked + 1, "once is enough");
    assert_eq!(world.clients[mover].saw(|event| matches!(event, Event::Welcomed { .. })), 2);
}

#[test]
fn a_client_that_was_elsewhere_drops_its_cache_also_where_it_is_known() {
    let mut world = World::new(&["p", "q"]);
    let mover = world.add_client(&["p", "q"]);
    let handle = for_reading(&mut world, mover, A);
    world.break_links(mover); // To the other, and
    world.run_for(1_000);
    contents(&mut world, mover, &handle);
    world.break_links(mover); // back, to one that knows the session but not what it cached since.
    world.run_for(1_000);

    let now = world.now;
    assert_eq!(world.clients[mover].cached(now, A), None);
    let resumed: Vec<_> = world.clients[mover]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Welcomed { resumed, .. } => Some(*resumed),
            _ => None,
        })
        .collect();
    assert_eq!(resumed, [false, false, false]);
}

#[test]
fn a_copy_is_shown_only_to_principals_that_the_cell_let_see_it() {
    let mut world = World::new(&["p"]);
    let admin = world.add_client(&["p"]);
    let acl = opened(&mut world, admin, ACL);
    world.ask(admin, put(&acl, "alice"));
    let (alice, handle) = cacher(&mut world, "p", A);
    let bob = world.add_client_of("bob", &["p"]);

    let refused = world.ask(bob, open(A, Use::Read));
    assert_eq!(code(refused.as_ref()), Some(ErrorCode::PermissionDenied));

    world.ask(admin, put(&acl, "bob"));
    let now = world.now;
    assert_eq!(world.clients[alice].cached(now, A), None, "the decision fell");
    assert_eq!(code(world.ask(alice, read(&handle)).as_ref()), Some(ErrorCode::PermissionDenied), "at once");
    let bobs = for_reading(&mut world, bob, A);
    assert_eq!(contents(&mut world, bob, &bobs).0, "");
}

#[test]
fn a_guarded_read_and_a_forged_handle_are_the_cells_business() {
    let mut world = World::new(&["p"]);
    let (client, handle) = cacher(&mut world, "p", A);
    let before = reads_at(&world, "a");

    let mut forged = handle.as_bytes().to_vec();
    *forged.last_mut().expect("not empty") ^= 1;
    world.ask(client, read(&HandleToken::new(forged.into())));
    assert_eq!(reads_at(&world, "a"), before + 1, "a forged one");
    let now = world.now;
    let guard = Some(SequencerToken::new(Bytes::from_static(b"s")));
    world.clients[client].core.submit(now, Ask { guard, ..read(&handle).into() });
    world.run_for(100);
    assert_eq!(reads_at(&world, "a"), before + 2, "a guarded one");
}

#[test]
fn a_router_keeps_nothing_and_lets_nobody_keep_anything() {
    let mut world = World::with_cache(&["r"], None);
    let (one, two) = (world.add_client(&["r"]), world.add_client(&["r"]));

    for client in [one, two] {
        let handle = for_reading(&mut world, client, A);
        assert_eq!(contents(&mut world, client, &handle).1.caches, ItemKinds::NONE);
    }

    assert_eq!(reads_at(&world, "a"), 2);
    assert!(world.cells["a"].seen.iter().all(|(_, request)| !request.caches));
}

#[test]
fn a_fail_over_is_acknowledged_when_nobody_below_holds_what_an_earlier_master_let_be_cached() {
    let mut world = World::new(&["p"]);
    let (deaf, handle) = cacher(&mut world, "p", A);
    let (_, in_b) = cacher(&mut world, "p", B);
    let idle = world.add_client(&["p"]);
    let writer = world.add_client(&["p"]);
    let to_write = opened(&mut world, writer, A);
    world.clients[deaf].is_deaf = true;
    world.clients[idle].is_deaf = true;

    let now = world.now;
    world.cell("a").fail_over(now);
    world.run_for(500);
    let ticket = world.submit(writer, put(&to_write, "new"));
    world.run_for(1_000);
    assert_eq!(world.clients[writer].answer(ticket), None, "one may hold what the old master let it keep");
    let reads_of_b = reads_at(&world, "b");
    for_reading(&mut world, writer, B);
    assert_eq!((reads_at(&world, "b"), in_b.claimed_body().is_some()), (reads_of_b, true), "b is as it was");

    world.undeafen(deaf);
    world.run_for(200);
    assert!(world.clients[writer].answer(ticket).is_some(), "who holds nothing is not waited for");
    assert_eq!(contents(&mut world, deaf, &handle).0, "new");
}

#[test]
fn a_read_asked_before_a_fail_over_and_answered_after_it_is_not_kept() {
    let mut world = World::new(&["p"]);
    let client = world.add_client(&["p"]);
    let handle = for_reading(&mut world, client, A);
    world.cell("a").holds = true;
    let ticket = world.submit(client, read(&handle));
    world.run_for(50);

    let now = world.now;
    world.cell("a").fail_over(now);
    world.run_for(500);
    world.cell("a").answer_held();
    world.run_for(500);

    let answer = world.clients[client].answer(ticket).cloned().expect("asked again and answered");
    assert_eq!(answer.caches, ItemKinds::NONE);
    let before = reads_at(&world, "a");
    contents(&mut world, client, &handle);
    contents(&mut world, client, &handle);
    assert_eq!(reads_at(&world, "a"), before + 1, "the next is kept");
}

#[test]
fn nothing_is_answered_from_the_cache_once_its_lease_is_over_and_nothing_of_it_survives() {
    let mut world = World::new(&["p"]);
    let (client, handle) = cacher(&mut world, "p", A);
    world.clients[client].caches = false;
    let end = world.relays["p"].upstream.cache_end(&CellName::new("a")).expect("a lease");
    world.silence("a");
    world.run_until(end - Duration::from_millis(100));
    let ticket = world.submit(client, read(&handle));
    world.run_for(50);
    assert!(world.clients[client].answer(ticket).is_some(), "until then it is");
    world.run_until(end);
    let late = world.submit(client, read(&handle));
    world.run_for(1_000);
    assert_eq!(world.clients[client].answer(late), None, "lease-3");
    world.unsilence("a");
    world.run_for(8_000);

    let before = reads_at(&world, "a");
    contents(&mut world, client, &handle);
    assert_eq!(reads_at(&world, "a"), before + 1, "what was kept under the lease that ended is gone");
}

#[test]
fn while_a_read_is_under_way_others_like_it_wait_for_one_that_is_asked_after_they_came() {
    let mut world = World::new(&["p"]);
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let client = world.add_client(&["p"]);
            (client, for_reading(&mut world, client, A))
        })
        .collect();
    world.cell("a").holds = true;
    let tickets: Vec<_> =
        readers.iter().map(|(client, handle)| (*client, world.submit(*client, read(handle)))).collect();
    world.run_for(50);
    assert_eq!((reads_at(&world, "a"), world.relays["p"].status().reads_shared), (1, 19));

    world.cell("a").refuses = Some(("get_contents_and_stat", ErrorCode::TooLarge));
    world.cell("a").answer_held();
    world.run_for(4); // The answer is not there yet.
    world.cell("a").refuses = None;
    world.run_for(100);

    assert_eq!(reads_at(&world, "a"), 2, "one more for all that came while the first was under way");
    let answers: Vec<_> =
        tickets.iter().map(|(client, ticket)| world.clients[*client].answer(*ticket)).collect();
    assert_eq!(code(answers[0]), Some(ErrorCode::TooLarge), "the first has its own");
    for answer in &answers[1..] {
        assert!(answer.is_some_and(|answer| answer.result.is_ok()), "and nobody else: {answer:?}");
    }
}

#[test]
fn whoever_shares_a_read_shares_its_principal_and_has_a_handle_of_its_own() {
    let mut world = World::new(&["p"]);
    let alice: Vec<_> = (0..3).map(|_| world.add_client(&["p"])).collect();
    let bob = world.add_client_of("bob", &["p"]);
    world.cell("a").holds = true;

    let tickets: Vec<_> = alice.iter().map(|client| world.submit(*client, open(A, Use::Read))).collect();
    let bobs = world.submit(bob, open(A, Use::Read));
    world.run_for(50);
    assert_eq!(world.cells["a"].ops(), ["open", "open"], "one for each principal");
    world.cell("a").refuses = Some(("open", ErrorCode::PermissionDenied));
    world.cell("a").answer_held();
    world.run_for(4);
    world.cell("a").refuses = None;
    world.run_for(100);

    assert_eq!(code(world.clients[bob].answer(bobs)), Some(ErrorCode::PermissionDenied));
    for (client, ticket) in alice.iter().zip(tickets).skip(1) {
        let Some(Answer { result: Ok(Reply::Opened { handle, .. }), .. }) =
            world.clients[*client].answer(ticket)
        else {
            panic!("opened")
        };
        assert_eq!(handle.claimed_body().expect("good").session, world.clients[*client].session());
    }
}

#[test]
fn a_cell_that_forgets_the_session_leaves_no_copy_in_use_below_beyond_what_it_had_promised() {
    let mut world = World::new(&["p"]);
    let (deaf, _) = cacher(&mut world, "p", A);
    world.clients[deaf].is_deaf = true;
    let promised = world.relays["p"].upstream.cache_end(&CellName::new("a")).expect("a lease");

    world.cell("a").core.stop(&ErrorCode::SessionExpired.because("too much news left unacknowledged"));
    world.cell("a").core.set_ceiling(Time::ZERO, Ceiling::Master);
    world.run_for(500);
    assert_eq!(world.clients[deaf].saw(|event| is_lost(event, "a")), 1);
    let session = world.clients[deaf].session();
    while world.now < promised {
        let end = world.relays["p"].server.cache_end(session).expect("it stands");
        assert!(end < promised, "lease-1: {end:?} {promised:?}");
        world.run_for(500);
    }

    world.undeafen(deaf);
    world.run_for(10_000);
    let end = world.relays["p"].server.cache_end(session).expect("it stands");
    assert!(end > world.now, "once the old copies are gone there are leases again");
}

#[test]
fn nobody_may_keep_what_a_cell_says_under_a_lease_that_reaches_beyond_the_cells() {
    let mut world = World::new(&["p"]);
    let gone = ErrorCode::SessionExpired.because("unknown here");
    let now = world.now;
    world.cell("b").core.stop(&gone);
    world.silence("b");
    world.run_for(50);
    let client = world.add_client(&["p"]); // Its lease is bound by cell a alone.
    let short = LeaseTerms { lease: Duration::from_secs(3) };
    world.cell("b").core = ServerCore::new(short);
    world.cell("b").core.set_ceiling(now, Ceiling::Master);
    world.unsilence("b");
    world.run_for(2_500);
    let b = CellName::new("b");
    let own = world.relays["p"].upstream.cache_end(&b).expect("welcomed again");
    let session = world.clients[client].session();
    assert!(world.relays["p"].server.cache_end(session).expect("known") > own);

    let in_b = for_reading(&mut world, client, B);
    assert_eq!(contents(&mut world, client, &in_b).1.caches, ItemKinds::NONE, "lease-1");

    let in_a = for_reading(&mut world, client, A);
    assert!(!contents(&mut world, client, &in_a).1.caches.is_empty());
}

#[test]
fn copies_of_a_session_that_was_ended_for_its_news_count_until_its_cache_lease_ends() {
    let mut world = World::new(&["p"]);
    let (deaf, _) = cacher(&mut world, "p", A);
    let writer = world.add_client(&["p"]);
    let handle = opened(&mut world, writer, A);
    world.freeze(deaf);
    let session = world.clients[deaf].session();
    let end = world.relays["p"].server.cache_end(session).expect("known");
    let now = world.now;
    let relay = world.relays.get_mut("p").expect("there");
    for _ in 0..=NEWS_PER_SESSION {
        relay.server.tell(now, session, News::CellLost { cell: CellName::new("b") });
    }
    relay.handle_timeout(now);

    let ticket = world.submit(writer, put(&handle, "new"));
    world.run_until(end - Duration::from_millis(50));
    assert_eq!(world.relays["p"].status().sessions, 1, "the session is over");
    assert_eq!(world.clients[writer].answer(ticket), None, "its holder does not know that yet");
    world.run_until(end + Duration::from_millis(50));

    assert!(world.clients[writer].answer(ticket).is_some());
}

#[test]
fn a_relay_that_stops_lets_no_client_use_what_the_cell_may_change_by_that() {
    let mut world = World::new(&["p", "q"]);
    let (deaf, _) = cacher(&mut world, "p", A);
    let writer = world.add_client(&["q"]);
    let handle = opened(&mut world, writer, A);
    world.clients[deaf].is_deaf = true;
    let session = world.clients[deaf].session();
    let end = world.relays["p"].server.cache_end(session).expect("known");

    let now = world.now;
    world.relays.get_mut("p").expect("there").handle(now, Input::Stop);
    let ticket = world.submit(writer, put(&handle, "new"));
    world.run_until(end - Duration::from_millis(50));
    assert_eq!(world.relays["p"].status().sessions, 0, "sent elsewhere after a while");
    assert!(world.clients[deaf].cached(world.now - Duration::from_secs(1), A).is_some());
    assert_eq!(world.clients[writer].answer(ticket), None);
    world.run_until(end + Duration::from_millis(500));

    assert!(world.clients[writer].answer(ticket).is_some());
    assert_eq!(world.relays["p"].phase(), Phase::Stopped);
}

#[test]
fn a_relay_whose_clients_have_dropped_their_copies_stops_at_once() {
    let mut world = World::new(&["p"]);
    let (client, _) = cacher(&mut world, "p", A);

    let now = world.now;
    world.relays.get_mut("p").expect("there").handle(now, Input::Stop);
    world.run_for(100);

    assert_eq!(world.relays["p"].phase(), Phase::Stopped);
    assert_eq!(world.clients[client].cached(now, A), None);
}

#[test]
fn closing_a_handle_of_which_nothing_is_on_record_asks_nobody() {
    let mut world = World::new(&["p"]);
    let (client, handle) = cacher(&mut world, "p", A);
    let before = world.cells["a"].ops().len();

    let closed = world.ask(client, Op::Close(handle)).map(|answer| answer.result);
    assert_eq!((closed, world.cells["a"].ops().len()), (Some(Ok(Reply::Closed)), before));
    let to_write = opened(&mut world, client, A);
    world.ask(client, Op::Close(to_write));
    assert_eq!(world.cells["a"].ops().last(), Some(&"close"), "a lock may hang on that");
}

#[test]
fn a_client_has_so_many_handles_and_gets_others_when_it_closes_some() {
    let mut world = World::new(&["p"]);
    let (client, first) = cacher(&mut world, "p", A);
    for _ in 1..HANDLES_PER_CLIENT {
        world.submit(client, open(A, Use::Read));
        world.run_for(1);
    }
    world.run_for(100);

    let over = world.ask(client, open(A, Use::Read));
    assert_eq!(code(over.as_ref()), Some(ErrorCode::QuotaExceeded));
    world.ask(client, Op::Close(first));
    assert!(world.ask(client, open(A, Use::Read)).is_some_and(|answer| answer.result.is_ok()));
    let other = world.add_client(&["p"]);
    assert!(world.ask(other, open(A, Use::Read)).is_some_and(|answer| answer.result.is_ok()), "of others");
}

#[test]
fn names_in_the_local_namespace_are_cached_under_their_own() {
    let mut world = World::new(&["p"]);
    let (client, _) = cacher(&mut world, "p", A);
    let before = world.cells["a"].ops().len();

    let handle = for_reading(&mut world, client, "/ls/local/x");

    assert_eq!(handle.claimed_body().map(|body| body.name), Some(name(A)));
    assert_eq!(world.cells["a"].ops().len(), before);
}
