//! When a file is found, and with which position.

use hasp_proto::id::{Epoch, Generation};
use hasp_proto::node::{AclNames, NodeKind};
use hasp_rt::clock::{Clock, TokioClock};

use super::*;

fn name() -> Name {
    Name::parse("/ls/dev/f").unwrap()
}

fn at(index: u64) -> Position {
    Position { cell: CellName::new("a"), epoch: Epoch(1), index }
}

fn shown(contents: &'static [u8]) -> Shown {
    let stat = Stat {
        kind: NodeKind::File,
        instance: Instance(4),
        content_generation: Generation(1),
        lock_generation: Generation(1),
        acl_generation: Generation(1),
        checksum: 0,
        length: contents.len() as u64,
        ephemeral: false,
        acls: AclNames::default(),
    };
    Shown {
        name: name(),
        instance: Instance(4),
        contents: Bytes::from_static(contents),
        stat,
        position: at(5),
        cell: None,
        used: Used::default(),
    }
}

/// Views with a lease, and one of them that somebody looks at.
struct World {
    views: Views,
    view: Arc<View>,
    seen: Arc<Seen>,
    clock: TokioClock,
}

impl World {
    fn new() -> Self {
        let views = Views::default();
        let (view, seen) = views.of(&name(), &CellName::new("a"));
        views.set_cache_lease(None, Some(Time::from_millis(1_000)));
        Self { views, view, seen, clock: TokioClock::new() }
    }

    fn find(&self) -> Option<Found> {
        self.view.find(Instance(4), &self.seen, &self.clock)
    }

    async fn pass(&self, millis: u64) {
        self.clock.sleep_until(Time::from_millis(millis)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_is_found_while_it_is_shown() {
    let world = World::new();
    assert_eq!(world.find(), None);

    let file = shown(b"hello");
    world.views.show(file.clone());
    let found = world.find().expect("shown");
    assert_eq!((&found.contents[..], &found.stat, &found.position), (&b"hello"[..], &file.stat, &at(5)));
    assert!(file.used.take(), "the core learns that it was used");
    world.views.hide(&name());

    assert_eq!(world.find(), None);
    assert!(!file.used.take());
}

#[tokio::test(start_paused = true)]
async fn a_file_is_not_found_by_who_opened_another_node_of_its_name() {
    let world = World::new();
    world.views.show(shown(b"hello"));

    assert_eq!(world.view.find(Instance(3), &world.seen, &world.clock), None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_found_once_the_lease_is_over() {
    let world = World::new();
    world.views.show(shown(b"hello"));

    world.pass(999).await;
    assert!(world.find().is_some());
    world.pass(1_000).await;

    assert_eq!(world.find(), None);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_extended_in_time_goes_on() {
    let world = World::new();
    world.views.show(shown(b"hello"));

    world.views.set_cache_lease(None, Some(Time::from_millis(2_000)));
    world.pass(1_500).await;

    assert!(world.find().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_found_under_a_lease_that_is_over_is_not_valid_under_the_next() {
    let world = World::new();
    world.views.show(shown(b"hello"));

    // Who has just found the file is not hindered by its being hidden.
    let found = world.view.file.load_full().expect("shown");
    world.views.hide(&name());
    world.views.set_cache_lease(None, None);
    world.views.set_cache_lease(None, Some(Time::from_millis(9_000)));

    assert!(!found.term.is_valid_at(Time::from_millis(0)));
    world.views.show(shown(b"new"));
    assert!(world.find().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_another_session_is_of_no_use() {
    let world = World::new();
    let elsewhere = Some(CellName::new("b"));
    world.views.set_cache_lease(elsewhere.clone(), Some(Time::from_millis(10)));
    world.views.show(Shown { cell: elsewhere, ..shown(b"hello") });
    assert!(world.find().is_some());

    world.pass(10).await;

    assert_eq!(world.find(), None, "though the other one lasts");
    world.views.show(Shown { cell: Some(CellName::new("c")), ..shown(b"hello") });
    assert_eq!(world.find(), None, "there is none");
}

#[tokio::test(start_paused = true)]
async fn a_file_is_found_at_the_latest_position_that_was_seen() {
    let world = World::new();
    world.views.show(shown(b"hello"));

    world.views.saw(&at(9));
    world.views.saw(&at(7));
    world.views.saw(&Position { cell: CellName::new("b"), ..at(50) });

    assert_eq!(world.find().map(|found| found.position), Some(at(9)));
}

#[tokio::test(start_paused = true)]
async fn handles_on_one_name_look_at_the_same_and_nobodys_views_go() {
    let world = World::new();
    let (again, _) = world.views.of(&name(), &CellName::new("a"));
    assert!(Arc::ptr_eq(&world.view, &again));

    for number in 0..100 {
        world.views.of(&Name::parse(&format!("/ls/dev/{number}")).unwrap(), &CellName::new("a"));
    }

    assert!(world.views.state().views.len() < 40);
    world.views.show(shown(b"hello"));
    assert!(world.find().is_some(), "those in use stay");
}
