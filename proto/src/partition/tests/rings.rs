//! `route-2`: directories that are spread over cells.

use super::*;

/// `/ls/dev` is `a`'s; below `users` directories are spread, but for `/ls/dev/users/root`; below `/ls/dev/users/deep`
/// they are spread again.
fn ringed() -> PartitionMap {
    map_of(&[
        ("/ls/dev", "a"),
        ("/ls/dev/users/*", "b, c"),
        ("/ls/dev/users/root", "d"),
        ("/ls/dev/users/deep/*", "b c d"),
        ("/ls/dev/users/u1/own", "d"),
    ])
}

fn owner(map: &PartitionMap, text: &str) -> String {
    map.owner(&name(text)).expect("an owner").to_string()
}

#[test]
fn what_is_below_a_directory_on_a_ring_is_in_one_cell_and_the_directory_itself_with_its_parent() {
    let map = ringed();
    let check = |text: &str, cell: &str| assert_eq!(owner(&map, text), cell, "{text}");

    check("/ls/dev/users", "a");
    check("/ls/dev/users/u1", "a");
    check("/ls/dev/users/u1/f", "c");
    check("/ls/dev/users/u1/d/e/f", "c");
    check("/ls/dev/users/eve", "a");
    check("/ls/dev/users/eve/f", "b");
    check("/ls/dev/users2/u1/f", "a");
}

#[test]
fn a_rule_of_a_directorys_own_goes_before_the_ring_that_it_is_on() {
    let map = ringed();
    let check = |text: &str, cell: &str| assert_eq!(owner(&map, text), cell, "{text}");

    check("/ls/dev/users/root", "a");
    check("/ls/dev/users/root/f", "d");
    check("/ls/dev/users/u1/own", "c");
    check("/ls/dev/users/u1/own/f", "d");
}

#[test]
fn a_ring_below_a_ring_spreads_anew() {
    let map = ringed();
    let deep = map.children_owner(&name("/ls/dev/users/deep")).expect("an owner").to_string();
    let mut seen = std::collections::BTreeSet::new();

    for number in 0..20 {
        assert_eq!(owner(&map, &format!("/ls/dev/users/deep/d{number}")), deep);
        seen.insert(owner(&map, &format!("/ls/dev/users/deep/d{number}/f")));
    }

    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["b", "c", "d"]);
}

#[test]
fn every_directory_on_a_ring_is_a_boundary_and_the_one_above_it_has_a_rule() {
    let map = ringed();
    let check = |text: &str, is_boundary: bool, has_rule: bool| {
        assert_eq!(
            (map.is_boundary(&name(text)), map.has_rule(&name(text))),
            (is_boundary, has_rule),
            "{text}"
        );
    };
    check("/ls/dev", false, true);
    check("/ls/dev/users", false, true);
    check("/ls/dev/users/u1", true, false);
    check("/ls/dev/users/u1/f", false, false);
    check("/ls/dev/users/root", true, true);
    check("/ls/dev/users/deep", true, true);
    check("/ls/dev/users/deep/d", true, false);
    check("/ls/dev/jobs", false, false);
}

#[test]
fn the_directories_of_the_rules_come_from_the_root_down() {
    let directories = ringed().directories();

    let texts: Vec<&str> = directories.iter().map(Name::as_str).collect();
    let below = ["/ls/dev/users/deep", "/ls/dev/users/root", "/ls/dev/users/u1", "/ls/dev/users/u1/own"];
    assert_eq!(texts, [&["/ls/dev", "/ls/dev/users"], &below[..]].concat());
}

#[test]
fn rings_are_listed_with_their_cells_and_two_maps_with_the_same_rules_are_equal() {
    let map = ringed();

    let rings: Vec<_> = map.rings().map(|(name, ring)| (name.to_string(), ring.to_string())).collect();
    let expected = [("/ls/dev/users", "b c"), ("/ls/dev/users/deep", "b c d")];
    assert_eq!(rings, expected.map(|(name, cells)| (name.to_owned(), cells.to_owned())));
    let _ = owner(&map, "/ls/dev/users/u1/f");
    assert_eq!(map, ringed(), "whether or not a ring has been used");
    let other = map_of(&[("/ls/dev", "a"), ("/ls/dev/users/*", "c b")]);
    assert_eq!(other, map_of(&[("/ls/dev", "a"), ("/ls/dev/users/*", "b c")]));
    assert_ne!(other, map_of(&[("/ls/dev", "a"), ("/ls/dev/users/*", "b")]));
}

/// Directory -> cell on a ring of two, of three and of four. Never to be changed: where they were, nodes would not be
/// found.
const GOLDEN: [(&str, &str); 24] = [
    ("/ls/dev/users/u0", "bcc"),
    ("/ls/dev/users/u1", "acc"),
    ("/ls/dev/users/u2", "acd"),
    ("/ls/dev/users/u3", "acc"),
    ("/ls/dev/users/u4", "bbd"),
    ("/ls/dev/users/u5", "bcd"),
    ("/ls/dev/users/u6", "bcc"),
    ("/ls/dev/users/u7", "aaa"),
    ("/ls/dev/users/u8", "acd"),
    ("/ls/dev/users/u9", "bcc"),
    ("/ls/dev/users/u10", "bbb"),
    ("/ls/dev/users/u11", "bbb"),
    ("/ls/dev/users/alice", "acc"),
    ("/ls/dev/users/bob", "acc"),
    ("/ls/dev/users/carol", "bbb"),
    ("/ls/dev/users/dave", "aad"),
    ("/ls/dev/users/a b", "acc"),
    ("/ls/dev/users/ü", "bbb"),
    ("/ls/dev/users/x.y", "aaa"),
    ("/ls/dev/users/0", "bbd"),
    ("/ls/dev/users/_", "bcd"),
    ("/ls/dev/users/Zoe", "bbb"),
    ("/ls/dev/users/zoe", "bbd"),
    ("/ls/dev/users/a-rather-long-name-for-a-directory-on-a-ring", "bcc"),
];

#[test]
fn the_cell_of_a_directory_is_fixed_for_ever() {
    let rings =
        ["a b", "a b c", "a b c d"].map(|cells| map_of(&[("/ls/dev", "a"), ("/ls/dev/users/*", cells)]));
    let cells_of = |directory: &str| -> String {
        rings.iter().map(|map| map.children_owner(&name(directory)).expect("an owner").as_str()).collect()
    };

    let found = GOLDEN.map(|(directory, _)| (directory, cells_of(directory)));

    assert_eq!(found, GOLDEN.map(|(directory, cells)| (directory, cells.to_owned())));
    // A point more or less on a ring moves few directories: enough of them to see that, as one number.
    let many: String = (0..10_000).map(|number| cells_of(&format!("/ls/dev/users/u{number}"))).collect();
    assert_eq!(xxhash_rust::xxh3::xxh3_64(many.as_bytes()), 0xfc1c_ffc9_de7d_bd74);
}

#[test]
fn a_new_cell_takes_its_share_and_nothing_else_moves() {
    const DIRECTORIES: usize = 10_000;
    let names = ["a b", "a b c", "a b c d"];
    let maps = names.map(|cells| map_of(&[("/ls/dev", "a"), ("/ls/dev/users/*", cells)]));
    let directories: Vec<Name> =
        (0..DIRECTORIES).map(|number| name(&format!("/ls/dev/users/u{number}"))).collect();

    for (pair, (cells, new)) in maps.windows(2).zip([(3, "c"), (4, "d")]) {
        let owners =
            |directory| [&pair[0], &pair[1]].map(|map| map.children_owner(directory).expect("an owner"));
        let moved: Vec<_> =
            directories.iter().map(owners).filter(|[before, after]| before != after).collect();

        assert!(moved.iter().all(|[_, after]| after.as_str() == new), "only to the new one");
        let ideal = DIRECTORIES / cells;
        assert!(moved.len().abs_diff(ideal) < ideal / 8, "{} of {ideal}", moved.len());
    }
}
