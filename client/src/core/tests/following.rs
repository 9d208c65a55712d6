//! Which hosts a client tries, by what the namespace says of them.

use std::time::Duration;

use hasp_proto::item::ItemKind;

use super::world::*;
use super::*;

const LIST: &str = "/ls/dev/.hasp/proxies";

fn world() -> World {
    let mut world = World::following(&["p:1", "p:2"]);
    world.wait_until(world.now + Duration::from_secs(6));
    world
}

/// Answers what is asked of the list, as a host that lets it be kept, or not.
fn say(world: &mut World, text: &'static str, is_kept: bool) {
    assert_eq!(world.last(), "open");
    world.answer_open();
    assert_eq!(world.last(), "get_contents_and_stat");
    if is_kept {
        world.answer_to_cache(10, contents(text));
    } else {
        world.answer_last(contents(text));
    }
    assert_eq!(world.last(), "close");
    world.answer_last(Ok(Reply::Closed));
}

/// The addresses that it tries when it is left without a host, in their order.
fn tried(world: &mut World) -> Vec<String> {
    world.connects.clear();
    world.is_cut_off = true;
    world.lose_connection();
    let until = world.now + Duration::from_secs(10);
    world.wait_until(until);
    let mut tried = world.connects.clone();
    tried.sort();
    tried.dedup();
    tried
}

#[test]
fn a_client_tries_the_hosts_that_the_list_names() {
    let mut world = world();
    say(&mut world, "p:1\np:3\np:4 # new\n", true);

    assert_eq!(tried(&mut world), ["p:1", "p:3", "p:4"]);
}

#[test]
fn without_a_list_it_tries_those_that_it_was_given() {
    let mut world = world();
    assert_eq!(world.last(), "open");
    world.answer_last(Err(ErrorCode::NotFound));

    assert_eq!(tried(&mut world), ["p:1", "p:2"]);
}

#[test]
fn an_empty_list_names_those_that_were_given() {
    let mut world = world();
    say(&mut world, "p:9", true);
    world.invalidate(item(LIST, ItemKind::Data), 9);
    world.wait_until(world.now + Duration::from_secs(6));
    say(&mut world, "# nobody yet", true);

    assert_eq!(tried(&mut world), ["p:1", "p:2"]);
}

#[test]
fn a_change_is_read_within_some_seconds_and_until_it_may_be_kept() {
    let mut world = world();
    say(&mut world, "p:1", true);
    let asked = world.count("open");
    world.wait_until(world.now + Duration::from_secs(30));
    assert_eq!(world.count("open"), asked, "nobody asks while nothing changes");

    world.invalidate(item(LIST, ItemKind::Data), 9);
    world.wait_until(world.now + Duration::from_secs(6));
    say(&mut world, "p:1", false);
    assert_eq!(world.count("open"), asked + 1);
    world.wait_until(world.now + Duration::from_secs(2));
    say(&mut world, "p:5", true);

    assert_eq!(tried(&mut world), ["p:5"]);
}

#[test]
fn a_change_of_something_else_is_none_of_its_business() {
    let mut world = world();
    say(&mut world, "p:1", true);
    let asked = world.count("open");

    world.invalidate(item("/ls/dev/f", ItemKind::Data), 9);
    world.invalidate(item(LIST, ItemKind::Lock), 10);
    world.wait_until(world.now + Duration::from_secs(20));

    assert_eq!(world.count("open"), asked);
}

#[test]
fn what_names_stand_for_counts_until_there_is_a_list() {
    let mut world = world();
    world.input(Input::Hosts(vec!["p:7".into()]));
    assert_eq!(tried(&mut world), ["p:7"]);

    let mut world = self::world();
    say(&mut world, "p:3", true);
    world.input(Input::Hosts(vec!["p:7".into()]));
    assert_eq!(tried(&mut world), ["p:3"]);
}

#[test]
fn following_does_not_keep_an_idle_session_alive_nor_begin_one() {
    let mut world = world();
    say(&mut world, "p:1", true);
    world.wait_until(world.now + Duration::from_secs(120));
    assert_eq!(world.sessions.len(), 1);
    let asked = world.count("open");

    world.wait_until(world.now + Duration::from_secs(600));

    assert_eq!((world.sessions.len(), world.count("open")), (1, asked), "it rests");
}
