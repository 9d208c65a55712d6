//! Files that others read: the cell takes nothing that they could not.

use super::*;

const PROXIES: &str = "/ls/dev/.hasp/proxies";
const PARTITIONS: &str = "/ls/dev/.hasp/partitions";

fn partitions(world: &World) -> String {
    let node = world.state.node(&name(PARTITIONS)).expect("planted");
    String::from_utf8(node.contents.to_vec()).expect("text")
}

#[test]
fn a_list_of_proxies_that_cannot_be_read_is_refused_and_the_old_one_stays() {
    let mut world = World::new();
    world.session(1, Role::Client);
    let refused = world.put(1, PROXIES, "p1\n");
    assert_failed(&refused, &ErrorCode::InvalidArgument, "list of proxies: line 1: \"p1\" is not HOST:PORT");
    assert!(world.state.node(&name(PROXIES)).is_none());
    let outcome = world.put(1, PROXIES, "p1:7001\n");
    assert!(matches!(outcome, Outcome::Created { created: true, .. }), "{outcome:?}");

    let refused = world.put(1, PROXIES, "p1:7001\np2\n");
    assert_failed(&refused, &ErrorCode::InvalidArgument, "list of proxies: line 2: \"p2\" is not HOST:PORT");
    let contents = world.state.node(&name(PROXIES)).map(|node| node.contents.clone());
    assert_eq!(contents.as_deref(), Some(&b"p1:7001\n"[..]));

    let taken = world.put(1, PROXIES, "p1:7001\np2:7001\n");
    assert!(!matches!(taken, Outcome::Failed(_)), "{taken:?}");
}

#[test]
fn the_map_of_the_founding_is_a_file_without_addresses() {
    let world = World::of("a", &[("/ls/dev", "a"), ("/ls/dev/x", "b"), ("/ls/dev/users/*", "a b")]);

    let text = partitions(&world);

    let rules =
        "version 1\n\n/ls/dev          a\n/ls/dev/users/*  a b\n/ls/dev/x        b\n\ncell a\ncell b\n";
    assert!(text.starts_with("# ") && text.ends_with(rules), "{text}");
    let map = world.state.genesis().expect("founded").map.clone();
    assert_eq!(PartitionMap::parse(text.as_bytes()), Ok(map.without_addresses()));
}

#[test]
fn the_file_of_the_map_takes_remarks_and_one_change_at_a_time_and_no_other_map() {
    let mut world = World::of("a", &[("/ls/dev", "a"), ("/ls/dev/x", "b"), ("/ls/dev/users/*", "a b")]);
    world.session(1, Role::Client);
    let planted = partitions(&world);
    let put = |world: &mut World, text: &str| world.put(1, PARTITIONS, text);
    let check = |world: &mut World, text: &str, detail: &str| {
        let before = (partitions(world), world.state.map().clone());
        assert_failed(&put(world, text), &ErrorCode::InvalidArgument, detail);
        assert_eq!((partitions(world), world.state.map().clone()), before);
    };
    let second = planted.replace("version 1", "version 2");

    let at_once = "the rules change by a line \"next PREFIX CELL\", not at once";
    check(&mut world, &second.replace("/ls/dev/x        b", "/ls/dev/x a"), at_once);
    check(&mut world, &second.replace("/users/*  a b", "/users/* b"), at_once);
    check(&mut world, &second, "nothing is different");
    check(&mut world, &(planted.clone() + "next /ls/dev/y b\n"), "version 1: the one after that of now is 2");
    let third = planted.replace("version 1", "version 3") + "next /ls/dev/y b\n";
    check(&mut world, &third, "version 3: the one after that of now is 2");
    let configured = "the cells are configured with each server";
    check(&mut world, &(second.clone() + "next /ls/dev/y b\ncell c\n"), configured);
    check(&mut world, &(second.replace("cell b", "cell b h:1") + "next /ls/dev/y b\n"), configured);
    check(&mut world, &second.replace("/ls/dev", "/ls/prod"), configured);
    check(
        &mut world,
        &planted.replace("/x        b", "/x c"),
        "partition map: line 7: partition rule /ls/dev/x: cell c",
    );
    check(&mut world, "", "no line \"version N\"");

    let remarked = "# ours\n".to_owned() + &planted.replace("a b\n", "b, a # both\n");
    let taken = put(&mut world, &remarked);
    assert!(matches!(taken, Outcome::Written { .. }), "{taken:?}");
    assert_eq!(partitions(&world), remarked);
    assert_eq!(world.state.map().version, 1);

    let changing = second + "next /ls/dev/y b\n";
    let taken = put(&mut world, &changing);
    assert!(matches!(taken, Outcome::Written { .. }), "{taken:?}");
    assert_eq!(partitions(&world), changing);
    assert_eq!(*world.state.map(), PartitionMap::parse(changing.as_bytes()).expect("good"));
    let other = planted.replace("version 1", "version 3") + "next /ls/dev/z b\n";
    check(&mut world, &other, "the rule for /ls/dev/y is changing: one change at a time");
}

#[test]
fn the_file_of_the_map_stays_and_its_keeper_too() {
    let mut world = World::new();
    world.session(1, Role::Client);

    let holder = world.handle(PARTITIONS, 1);
    let refused = world.write(who(1, "admin"), Write::Delete { holder });
    assert_failed(&refused, &ErrorCode::PermissionDenied, "/ls/dev/.hasp/partitions cannot be deleted");

    let holder = world.handle(PARTITIONS, 2);
    let acls = acls("everyone", "everyone", "everyone");
    let refused = world.write(who(1, "admin"), Write::SetAcl { holder, acls, if_generation: None });
    assert_failed(&refused, &ErrorCode::PermissionDenied, "stays in the ACL \"admin\"");
}
