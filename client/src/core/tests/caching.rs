//! What is answered without asking the host, and when it is not.

use std::time::Duration;

use hasp_proto::event::EventKind;
use hasp_proto::id::{Epoch, Generation, Instance};
use hasp_proto::item::{ItemKind, ItemKinds};
use hasp_proto::node::{AclNames, Child, Stat};
use hasp_proto::request::{Open, Use};
use hasp_proto::stream::News;

use super::super::*;
use super::world::{ME, World, at, contents, item, name, stat, t};

const F: &str = "/ls/dev/f";

/// A world in which a file was read and may be kept.
fn having_read() -> (World, HandleNumber) {
    let mut world = World::new();
    let handle = world.open(F, Use::Read);
    world.read(handle);
    world.answer_to_cache(11, contents("hello"));
    (world, handle)
}

#[test]
fn what_was_read_is_not_asked_again_until_it_is_invalidated() {
    let (mut world, handle) = having_read();
    assert!(world.asked.iter().all(|request| request.caches), "the host is told that it would be kept");

    let hit = world.read(handle);
    assert_eq!(world.text(hit), Some("hello"));
    assert_eq!(world.count("get_contents_and_stat"), 1);
    world.invalidate(item(F, ItemKind::Data), 11);
    let miss = world.read(handle);

    assert_eq!(world.text(miss), None);
    assert_eq!(world.count("get_contents_and_stat"), 2);
}

#[test]
fn what_was_read_is_shown_and_hidden_before_its_invalidation_is_acknowledged() {
    for (subject, kind) in [(F, ItemKind::Data), (F, ItemKind::Lock), ("/ls/dev/acl/everyone", ItemKind::Acl)]
    {
        let (mut world, _) = having_read();
        let shown = &world.shown[&name(F)];
        assert_eq!((&shown.contents[..], shown.instance), (&b"hello"[..], Instance(4)));
        world.log.clear();

        world.invalidate(item(subject, kind), 11);

        assert_eq!(world.log[..2], [format!("hide {F}"), "acknowledge 1".into()], "{kind:?}");
    }
}

#[test]
fn what_does_not_concern_a_file_leaves_it_shown_and_is_acknowledged() {
    let (mut world, _) = having_read();
    world.log.clear();

    world.invalidate(item("/ls/dev/g", ItemKind::Data), 11);
    world.invalidate(item(F, ItemKind::Listing), 11);
    world.invalidate(item("/ls/dev/acl/others", ItemKind::Acl), 11);

    assert_eq!(world.log, ["acknowledge 1", "acknowledge 2", "acknowledge 3"]);
    assert!(world.shown.contains_key(&name(F)));
}

#[test]
fn an_answer_that_raced_with_an_invalidation_is_handed_out_and_not_kept() {
    let mut world = World::new();
    let handle = world.open(F, Use::Read);

    let raced = world.read(handle);
    world.invalidate(item(F, ItemKind::Data), 11);
    world.answer_to_cache(12, contents("old"));
    assert_eq!(world.text(raced), Some("old"));
    world.read(handle);

    assert_eq!(world.count("get_contents_and_stat"), 2);
    assert!(world.shown.is_empty());
}

#[test]
fn nothing_is_kept_of_an_answer_that_does_not_allow_it() {
    let mut world = World::new();
    let handle = world.open(F, Use::Read);
    world.read(handle);
    let number = world.asked.last().unwrap().number;
    world.answer_at(number, 11, ItemKinds::of([ItemKind::Lock]), contents("hello"));

    let invalidated = world.read(handle);

    // The metadata was kept at the open, the contents were not.
    assert_eq!(world.text(invalidated), None);
    assert_eq!(world.count("get_contents_and_stat"), 2);
}

#[test]
fn without_a_cache_everything_is_asked() {
    let mut world = World::with(&CoreOptions {
        principal: ME.into(),
        cache_bytes: None,
        ends_idle: true,
        follows: Vec::new(),
    });
    let handle = world.open(F, Use::Read);

    for _ in 0..2 {
        world.read(handle);
        world.answer_to_cache(11, contents("hello"));
    }

    assert_eq!(world.count("get_contents_and_stat"), 2);
    assert!(world.asked.iter().all(|request| !request.caches));
    assert!(world.shown.is_empty());
}

#[test]
fn a_guarded_call_is_asked_and_not_kept() {
    let (mut world, handle) = having_read();
    let guard = Some(hasp_proto::sequencer::SequencerToken::new(bytes::Bytes::from_static(b"s")));

    let call = Call { guard: guard.clone(), ..world.on(handle, Op::GetContentsAndStat) };
    world.ask(call);

    let request = world.asked.last().unwrap();
    assert_eq!(world.count("get_contents_and_stat"), 2);
    assert_eq!((&request.guard, request.caches), (&guard, false));
}

#[test]
fn nothing_is_served_without_a_valid_cache_lease() {
    let (mut world, handle) = having_read();
    // 12 s by the host's clock are a little less by that of the holder.
    world.now = t(11_881);
    let valid = world.read(handle);
    assert_eq!(world.text(valid), Some("hello"));
    world.now = t(11_882);

    let over = world.read(handle);

    assert_eq!(world.text(over), None);
    assert_eq!(world.count("get_contents_and_stat"), 2);
}

#[test]
fn a_lease_that_is_extended_in_time_goes_on_and_one_with_a_gap_begins_anew_with_nothing() {
    let (mut world, handle) = having_read();
    let first = world.cache_lease.expect("granted");
    world.now = t(8_000);
    world.extend();
    assert!(world.cache_lease.expect("granted") > first);
    assert!(world.shown.contains_key(&name(F)), "there was no gap");

    world.now = t(8_000 + 11_900);
    world.extend();

    assert!(world.shown.is_empty());
    world.read(handle);
    assert_eq!(world.count("get_contents_and_stat"), 2);
    world.answer_to_cache(12, contents("hello"));
    let hit = world.read(handle);
    assert_eq!(world.text(hit), Some("hello"), "under the new lease");
}

#[test]
fn jeopardy_ends_everything_that_is_kept() {
    let (mut world, handle) = having_read();
    world.welcomes = false;

    world.wait_until(t(13_000));

    assert!(world.shown.is_empty());
    assert_eq!(world.cache_lease, None);
    let call = world.read(handle);
    assert_eq!(world.result(call), None, "it waits");
}

#[test]
fn a_fail_over_ends_what_is_kept_of_its_cell_and_what_its_former_master_says_is_not_kept() {
    let (mut world, handle) = having_read();
    let raced = world.ask(world.on(handle, Op::ReadDir));
    let fail_over = News::FailOver { cell: CellName::new("a"), epoch: Epoch(2) };
    world.tell(fail_over);

    let reply = Reply::Children { children: Vec::new(), acls: AclNames::default() };
    world.answer_to_cache(20, Ok(reply));
    assert!(world.result(raced).is_some());

    assert!(world.shown.is_empty());
    world.read(handle);
    world.ask(world.on(handle, Op::ReadDir));
    assert_eq!((world.count("get_contents_and_stat"), world.count("read_dir")), (2, 2));
    world.answer_to_cache(30, Ok(Reply::Children { children: Vec::new(), acls: AclNames::default() }));
    world.ask(world.on(handle, Op::ReadDir));
    assert_eq!(world.count("read_dir"), 3, "that was the former master's word");
}

#[test]
fn a_fail_over_of_another_cell_takes_nothing_away() {
    let (mut world, handle) = having_read();

    world.tell(News::FailOver { cell: CellName::new("b"), epoch: Epoch(2) });

    let hit = world.read(handle);
    assert_eq!(world.text(hit), Some("hello"));
    assert!(world.shown.contains_key(&name(F)));
}

#[test]
fn a_host_that_does_not_know_the_session_cannot_tell_of_changes() {
    let (mut world, handle) = having_read();
    world.resumes = false;
    world.lose_connection();
    world.wait_until(t(1_000));

    assert!(world.shown.is_empty());
    assert!(world.cache_lease.is_some(), "its own lease is as good as any");
    world.read(handle);
    assert_eq!(world.count("get_contents_and_stat"), 2);
}

#[test]
fn a_host_that_knows_the_session_finds_it_as_it_was() {
    let (mut world, handle) = having_read();
    world.lose_connection();
    world.wait_until(t(1_000));

    let hit = world.read(handle);

    assert_eq!(world.text(hit), Some("hello"));
}

#[test]
fn what_is_kept_is_shown_at_the_latest_position_that_was_seen() {
    let (mut world, handle) = having_read();
    let other = world.open("/ls/dev/g", Use::Read);
    world.read(other);
    world.answer_to_cache(30, contents("other"));

    let hit = world.read(handle);

    assert_eq!(world.text(hit), Some("hello"));
    assert_eq!(world.result(hit).unwrap().position, Some(at(30)), "P-MONO");
}

#[test]
fn metadata_and_listings_are_kept_too() {
    let mut world = World::new();
    let handle = world.open(F, Use::Read);
    let stated = world.ask(world.on(handle, Op::GetStat));
    assert_eq!(world.result(stated).unwrap().result, Ok(Reply::Stat(stat())), "the open brought it");

    let child = Child { component: "c".into(), stat: stat() };
    let reply = Reply::Children { children: vec![child], acls: AclNames::default() };
    world.ask(world.on(handle, Op::ReadDir));
    world.answer_to_cache(11, Ok(reply.clone()));
    let listed = world.ask(world.on(handle, Op::ReadDir));

    assert_eq!(world.result(listed).unwrap().result, Ok(reply));
    assert_eq!((world.count("get_stat"), world.count("read_dir")), (0, 1));
}

#[test]
fn that_there_is_no_such_node_is_kept_under_both_its_names() {
    let mut world = World::new();
    let missing = |world: &mut World, text: &str| {
        let call = world.ask(Op::Open(Open::existing(name(text), Use::Read)).into());
        (call, world.asked.len())
    };
    world.open("/ls/local/f", Use::Read);

    let (_, asked) = missing(&mut world, "/ls/dev/missing");
    world.answer_to_cache(11, Err(ErrorCode::NotFound));
    let (again, asked_again) = missing(&mut world, "/ls/local/missing");

    assert_eq!(world.code(again), Some(ErrorCode::NotFound));
    assert_eq!(asked_again, asked);
    let create =
        Open { create: Some(create()), ..Open::existing(name("/ls/dev/missing"), Use::WriteAndLock) };
    world.ask(Op::Open(create).into());
    assert_eq!(world.asked.len(), asked + 1, "to create it the cell is asked");
    world.invalidate(item("/ls/dev/missing", ItemKind::Absence), 11);
    let (_, asked_after) = missing(&mut world, "/ls/dev/missing");
    assert_eq!(asked_after, asked + 2);
}

fn create() -> hasp_proto::request::Create {
    hasp_proto::request::Create {
        must: false,
        kind: hasp_proto::node::NodeKind::File,
        contents: bytes::Bytes::new(),
        ephemeral: false,
        acls: None,
    }
}

#[test]
fn invalidations_are_applied_before_the_events_that_came_with_them_are_told() {
    let (mut world, _) = having_read();
    let listener = world.open_with_events(F, &[EventKind::ContentsModified]);
    world.log.clear();

    let event = world.news(News::Event(super::world::happened(EventKind::ContentsModified, 12)));
    let invalidation = News::Invalidate { items: vec![item(F, ItemKind::Data)], floor: at(11) };
    let invalidation = world.news(invalidation);
    world.receive(vec![event, invalidation]);

    let tell = format!("tell {}", listener.0);
    let expected = [format!("hide {F}"), "acknowledge 2".into(), tell, "acknowledge 1".into()];
    let log: Vec<_> = world.log.iter().filter(|line| *line != "close").cloned().collect();
    assert_eq!(log, expected, "cache-6");
}

#[test]
fn what_does_not_fit_is_shown_no_more() {
    let options =
        CoreOptions { principal: ME.into(), cache_bytes: Some(3_000), ends_idle: true, follows: Vec::new() };
    let mut world = World::with(&options);
    let first = world.open(F, Use::Read);
    world.read(first);
    world.answer_to_cache(11, contents("hello"));
    assert!(world.shown.contains_key(&name(F)));

    for number in 0..4 {
        let handle = world.open(&format!("/ls/dev/{number}"), Use::Read);
        world.read(handle);
        world.answer_to_cache(11, contents("hello"));
    }

    assert!(!world.shown.contains_key(&name(F)));
    assert!(world.shown.contains_key(&name("/ls/dev/3")));
}

#[test]
fn what_is_looked_at_elsewhere_stays_longer() {
    let options =
        CoreOptions { principal: ME.into(), cache_bytes: Some(3_000), ends_idle: true, follows: Vec::new() };
    let mut world = World::with(&options);
    let first = world.open(F, Use::Read);
    world.read(first);
    world.answer_to_cache(11, contents("hello"));

    for number in 0..8 {
        world.shown[&name(F)].used.mark();
        let handle = world.open(&format!("/ls/dev/{number}"), Use::Read);
        world.read(handle);
        world.answer_to_cache(11, contents("hello"));
    }

    assert!(world.shown.contains_key(&name(F)));
}

#[test]
fn a_lock_that_changes_hands_costs_a_question_and_not_the_contents() {
    let (mut world, handle) = having_read();
    world.invalidate(item(F, ItemKind::Lock), 11);

    world.ask(world.on(handle, Op::GetStat));
    let held = Stat { lock_generation: Generation(9), ..stat() };
    world.answer_to_cache(13, Ok(Reply::Stat(held)));
    let hit = world.read(handle);

    assert_eq!(world.text(hit), Some("hello"));
    assert_eq!(world.count("get_contents_and_stat"), 1);
}

#[test]
fn each_cell_has_a_lease_of_its_own_and_what_ends_with_it() {
    let mut world = World::with_cells();
    let [here, there] = ["/ls/local/f", "/ls/dev/b/f"].map(|name| {
        let handle = world.open(name, Use::Read);
        world.read(handle);
        world.answer_to_cache(11, contents("hello"));
        handle
    });
    assert_eq!(world.sessions.len(), 2);
    world.welcomes = false;

    // The last connection is that of cell b, whose lease goes on.
    let link = world.link.clone();
    for seconds in [4, 8, 12] {
        world.wait_until(t(seconds * 1_000));
        world.link.clone_from(&link);
        world.extend();
    }

    let lost = world.read(here);
    assert_eq!(world.result(lost), None, "in jeopardy");
    let hit = world.read(there);
    assert_eq!(world.text(hit), Some("hello"));
    let shown: Vec<_> = world.shown.keys().map(Name::as_str).collect();
    assert_eq!(shown, ["/ls/dev/b/f"]);
    assert_eq!(world.shown[&name("/ls/dev/b/f")].cell, Some(CellName::new("b")));
}

#[test]
fn the_lease_that_counts_is_the_cache_lease() {
    let mut world = World::new();
    world.lease = Duration::from_secs(6);
    let handle = world.open(F, Use::Read);
    world.read(handle);
    world.answer_to_cache(11, contents("hello"));
    assert_eq!(world.core.upstream().sessions().count(), 1);

    world.now = t(1_000);
    world.extend();

    assert!(world.cache_lease > Some(t(11_000)), "time-3: a shorter grant takes nothing away");
}
