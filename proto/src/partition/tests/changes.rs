//! `move-1`: the change of one rule, and what it moves.

use super::*;
use crate::error::ErrorCode;

/// `jobs` is `b`'s but for what is below `jobs/home`, and below `users` directories are spread.
fn before() -> PartitionMap {
    map_of(&[
        ("/ls/dev", "a"),
        ("/ls/dev/jobs", "b"),
        ("/ls/dev/jobs/home", "a"),
        ("/ls/dev/users/*", "a b"),
        ("/ls/dev/users/root", "d"),
    ])
}

fn change(prefix: &str, cells: &[&str]) -> Change {
    let prefix = Prefix::parse(prefix).expect("a good prefix");
    Change { prefix, cells: cells.iter().map(|cell| CellName::new(cell)).collect() }
}

fn changing(map: &PartitionMap, prefix: &str, cells: &[&str]) -> PartitionMap {
    map.changing(change(prefix, cells)).expect("a good change")
}

/// As `a>b b>c`.
fn journeys(map: &PartitionMap) -> String {
    let pairs: Vec<_> = map.journeys().iter().map(|(from, to)| format!("{from}>{to}")).collect();
    pairs.join(" ")
}

/// `moves` and `moves_children`, for each name.
fn check_moves(map: &PartitionMap, expected: &[(&str, bool, bool)]) {
    for (text, node, children) in expected {
        let name = name(text);
        assert_eq!((map.moves(&name), map.moves_children(&name)), (*node, *children), "{text}");
    }
}

fn rules_of(map: &PartitionMap) -> Vec<String> {
    let plain = map.rules().map(|(name, cell)| format!("{name} {cell}"));
    plain.chain(map.rings().map(|(name, ring)| format!("{name}/* {ring}"))).collect()
}

#[test]
fn a_change_holds_once_it_is_done() {
    let map = changing(&before(), "/ls/dev/x", &["c"]);
    let after = map.after().expect("it is under way");

    assert_eq!((map.version, after.version), (2, 3));
    assert_eq!(map.change(), Some(&change("/ls/dev/x", &["c"])));
    assert_eq!(rules_of(&map), rules_of(&before()));
    assert_eq!(map.owner(&name("/ls/dev/x/f")).map(CellName::as_str), Some("a"));
    assert_eq!(after.owner(&name("/ls/dev/x/f")).map(CellName::as_str), Some("c"));
    assert_eq!((after.change(), after.after()), (None, None));
    assert_eq!(after.cells, map.cells);
}

#[test]
fn a_change_that_is_given_up_leaves_the_rules() {
    let given_up = changing(&before(), "/ls/dev/x", &["c"]).unchanged();

    assert_eq!(given_up, PartitionMap { version: 3, ..before() });
}

#[test]
fn nothing_moves_without_a_change() {
    let map = before();

    assert_eq!((map.change(), map.after(), journeys(&map).as_str()), (None, None, ""));
    check_moves(&map, &[("/ls/dev/jobs", false, false), ("/ls/other/f", false, false)]);
}

#[test]
fn a_new_rule_takes_what_is_below_it() {
    let map = changing(&before(), "/ls/dev/x", &["c"]);

    assert_eq!(journeys(&map), "a>c");
    check_moves(
        &map,
        &[
            ("/ls/dev", false, false),
            ("/ls/dev/x", false, true),
            ("/ls/dev/x/f", true, true),
            ("/ls/dev/x/d/f", true, true),
            ("/ls/dev/xy/f", false, false),
            ("/ls/dev/jobs/f", false, false),
            ("/ls/other/x/f", false, false),
        ],
    );
}

#[test]
fn a_rule_above_others_takes_what_they_do_not_have() {
    let map = changing(&before(), "/ls/dev/users", &["c"]);

    assert_eq!(journeys(&map), "a>c");
    check_moves(
        &map,
        &[
            ("/ls/dev/users", false, true),
            ("/ls/dev/users/u1", true, false),
            ("/ls/dev/users/u1/f", false, false),
            ("/ls/dev/users/root", true, false),
            ("/ls/dev/users/root/f", false, false),
        ],
    );
}

#[test]
fn a_rule_that_gets_another_cell_moves_all_but_its_exceptions() {
    let map = changing(&before(), "/ls/dev/jobs", &["c"]);

    assert_eq!(journeys(&map), "b>c");
    check_moves(
        &map,
        &[
            ("/ls/dev/jobs", false, true),
            ("/ls/dev/jobs/f", true, true),
            ("/ls/dev/jobs/home", true, false),
            ("/ls/dev/jobs/home/f", false, false),
        ],
    );
}

#[test]
fn what_a_rule_that_goes_had_falls_to_the_one_above() {
    let map = changing(&before(), "/ls/dev/jobs", &[]);

    assert_eq!(journeys(&map), "b>a");
    assert!(!map.after().expect("it is under way").has_rule(&name("/ls/dev/jobs")));
    check_moves(
        &map,
        &[
            ("/ls/dev/jobs", false, true),
            ("/ls/dev/jobs/f", true, true),
            ("/ls/dev/jobs/home", true, false),
            ("/ls/dev/jobs/home/f", false, false),
        ],
    );
}

#[test]
fn what_a_rule_below_a_ring_had_falls_to_the_ring() {
    let map = changing(&before(), "/ls/dev/users/root", &[]);
    let on_ring = before();
    let on_ring = on_ring.rings.get("/ls/dev/users").expect("a ring").cell_of("/ls/dev/users/root");

    assert_eq!(journeys(&map), format!("d>{on_ring}"));
    check_moves(&map, &[("/ls/dev/users/root", false, true), ("/ls/dev/users/root/f", true, true)]);
}

#[test]
fn a_rule_that_says_what_held_without_it_moves_nothing() {
    let map = changing(&before(), "/ls/dev/x", &["a"]);

    assert_eq!(journeys(&map), "");
    check_moves(&map, &[("/ls/dev/x", false, false), ("/ls/dev/x/f", false, false)]);
    assert!(map.after().expect("it is under way").has_rule(&name("/ls/dev/x")));
}

/// Those of the golden table, by their cells on rings of two, of three and of four.
#[test]
fn a_cell_that_joins_a_ring_takes_its_share() {
    let map = changing(&before(), "/ls/dev/users/*", &["c", "b", "a"]);

    assert_eq!(journeys(&map), "a>c b>c");
    check_moves(
        &map,
        &[
            ("/ls/dev/users", false, false),
            ("/ls/dev/users/u0", false, true),
            ("/ls/dev/users/u0/f", true, true),
            ("/ls/dev/users/u0/d/f", true, true),
            ("/ls/dev/users/u1/f", true, true),
            ("/ls/dev/users/u4", false, false),
            ("/ls/dev/users/u4/f", false, false),
            ("/ls/dev/users/u7/f", false, false),
            ("/ls/dev/users/root/f", false, false),
        ],
    );
}

#[test]
fn a_cell_that_leaves_a_ring_gives_all_that_it_has_there() {
    let of_three = map_of(&[("/ls/dev", "a"), ("/ls/dev/users/*", "a b c")]);
    let map = changing(&of_three, "/ls/dev/users/*", &["a", "b"]);

    assert_eq!(journeys(&map), "c>a c>b");
    check_moves(
        &map,
        &[
            ("/ls/dev/users/u0", false, true),
            ("/ls/dev/users/u0/f", true, true),
            ("/ls/dev/users/u4", false, false),
            ("/ls/dev/users/u4/f", false, false),
        ],
    );
}

#[test]
fn one_cell_of_a_ring_for_another_moves_things_between_those_that_stay_too() {
    let map = changing(&before(), "/ls/dev/users/*", &["b", "c"]);
    assert_eq!(journeys(&map), "a>b a>c b>c");

    let map = changing(&before(), "/ls/dev/users/*", &["c", "d"]);
    assert_eq!(journeys(&map), "a>c a>d b>c b>d");
}

#[test]
fn a_directory_whose_directories_are_to_be_spread_keeps_its_own_children() {
    let map = changing(&before(), "/ls/dev/jobs/*", &["a", "b", "c"]);

    assert_eq!(journeys(&map), "b>a b>c");
    let cells = ["u0", "u1", "u2"].map(|directory| {
        let after = map.after().expect("it is under way");
        after.children_owner(&name(&format!("/ls/dev/jobs/{directory}"))).expect("an owner").clone()
    });
    for (directory, cell) in ["u0", "u1", "u2"].iter().zip(cells) {
        let is_moved = cell.as_str() != "b";
        let directory = format!("/ls/dev/jobs/{directory}");
        check_moves(&map, &[(&directory, false, is_moved), (&format!("{directory}/f"), is_moved, is_moved)]);
    }
    check_moves(&map, &[("/ls/dev/jobs", false, false), ("/ls/dev/jobs/home/f", false, false)]);
}

#[test]
fn a_ring_that_goes_gives_everything_to_the_rule_above() {
    let map = changing(&before(), "/ls/dev/users/*", &[]);

    assert_eq!(journeys(&map), "b>a");
    check_moves(
        &map,
        &[
            ("/ls/dev/users/u4", false, true),
            ("/ls/dev/users/u4/f", true, true),
            ("/ls/dev/users/u7/f", false, false),
        ],
    );
}

/// What moves goes one of the journeys, and each of them is made by something.
#[test]
fn journeys_are_those_that_are_made() {
    let of_three = map_of(&[("/ls/dev", "a"), ("/ls/dev/jobs", "b"), ("/ls/dev/users/*", "a b c")]);
    let users: Vec<_> = (0..1_000).map(|number| name(&format!("/ls/dev/users/u{number}/f"))).collect();
    let jobs: Vec<_> = (0..1_000).map(|number| name(&format!("/ls/dev/jobs/j{number}/f"))).collect();
    let check = |prefix: &str, cells: &[&str]| {
        let map = changing(&of_three, prefix, cells);
        let after = map.after().expect("it is under way");
        let owner = |map: &PartitionMap, name: &Name| map.owner(name).expect("an owner").clone();
        let moved = users.iter().chain(&jobs).filter(|name| map.moves(name));
        let made: std::collections::BTreeSet<_> =
            moved.map(|name| (owner(&map, name), owner(after, name))).collect();
        assert_eq!(map.journeys(), made, "{prefix} {cells:?}");
    };
    check("/ls/dev/users/*", &["a", "b", "c", "d"]);
    check("/ls/dev/users/*", &["a", "d"]);
    check("/ls/dev/users/*", &["b"]);
    check("/ls/dev/users/*", &["d"]);
    check("/ls/dev/users/*", &[]);
    check("/ls/dev/jobs/*", &["c", "d"]);
    check("/ls/dev/jobs/*", &["b"]);
    check("/ls/dev/jobs", &["d"]);
    check("/ls/dev/jobs", &[]);
}

#[test]
fn a_change_that_cannot_be_is_refused() {
    let check = |prefix: &str, cells: &[&str], expected: MapError| {
        assert_eq!(before().changing(change(prefix, cells)), Err(expected), "{prefix} {cells:?}");
    };
    let prefix = |text: &str| Prefix::parse(text).expect("a good prefix");
    let cell = CellName::new;

    let same: [(&str, &[&str]); 5] = [
        ("/ls/dev/jobs", &["b"]),
        ("/ls/dev/users/*", &["b", "a"]),
        ("/ls/dev/x", &[]),
        ("/ls/dev/x/*", &[]),
        ("/ls/prod/x", &[]),
    ];
    for (text, cells) in same {
        check(text, cells, MapError::NothingChanges(prefix(text)));
    }
    let home: [(&str, &[&str]); 8] = [
        ("/ls/dev", &["b"]),
        ("/ls/dev", &["a"]),
        ("/ls/dev", &[]),
        ("/ls/dev/acl", &["b"]),
        ("/ls/dev/.hasp", &["b"]),
        ("/ls/dev/*", &["b"]),
        ("/ls/dev/*", &["c"]),
        ("/ls/dev/*", &["b", "c", "d"]),
    ];
    for (text, cells) in home {
        check(text, cells, MapError::HomeStays(prefix(text)));
    }
    check("/ls/dev/x", &["e"], MapError::UnknownCell(prefix("/ls/dev/x"), cell("e")));
    check("/ls/dev/jobs", &["e"], MapError::UnknownCell(prefix("/ls/dev/jobs"), cell("e")));
    check("/ls/dev/users/*", &["a", "e"], MapError::UnknownCell(prefix("/ls/dev/users/*"), cell("e")));
    check("/ls/dev/x", &["a", "b"], MapError::SeveralCells(prefix("/ls/dev/x"), 2));
    check("/ls/dev/x/*", &["b", "b"], MapError::CellTwice(prefix("/ls/dev/x/*"), cell("b")));
    check("/ls/prod/x", &["b"], MapError::OtherNamespace(prefix("/ls/prod/x"), "dev".into()));
}

#[test]
fn a_ring_of_the_roots_directories_leaves_out_those_of_the_home_cell() {
    let with_rules = map_of(&[("/ls/dev", "a"), ("/ls/dev/acl", "a"), ("/ls/dev/.hasp", "a")]);

    let map = changing(&with_rules, "/ls/dev/*", &["b", "c"]);
    assert_eq!(journeys(&map), "a>b a>c");
    check_moves(
        &map,
        &[
            ("/ls/dev/x/f", true, true),
            ("/ls/dev/acl/admin", false, false),
            ("/ls/dev/.hasp/partitions", false, false),
        ],
    );
    for directory in ["/ls/dev/acl", "/ls/dev/.hasp"] {
        let prefix = Prefix::parse(directory).expect("good");
        assert_eq!(with_rules.changing(change(directory, &["b"])), Err(MapError::HomeStays(prefix.clone())));
        let ringed = PartitionMap { version: 9, ..map.after().expect("it is under way").clone() };
        assert_eq!(ringed.changing(change(directory, &[])), Err(MapError::HomeStays(prefix)));
    }
    let elsewhere = map_of(&[("/ls/dev", "a"), ("/ls/dev/acl", "b")]);
    let refused = elsewhere.changing(change("/ls/dev/acl", &[])).expect_err("the ACLs stay where they are");
    assert_eq!(
        refused.to_string(),
        "partition rule /ls/dev/acl: the home cell has the namespace's ACLs and map, and they do not move"
    );
}

#[test]
fn one_change_at_a_time() {
    let map = changing(&before(), "/ls/dev/jobs", &["c"]);

    let refused = map.changing(change("/ls/dev/x", &["c"])).expect_err("another is under way");

    assert_eq!(refused, MapError::IsChanging(Prefix::parse("/ls/dev/jobs").expect("good")));
    assert_eq!(refused.to_string(), "partition rule /ls/dev/jobs is changing: one change at a time");
}

#[test]
fn a_map_of_the_last_version_stays() {
    let change = change("/ls/dev/x", &["b"]);
    let version = |version| PartitionMap { version, ..before() };

    assert_eq!(version(u64::MAX).changing(change.clone()), Err(MapError::LastVersion));
    assert_eq!(version(u64::MAX - 1).changing(change.clone()), Err(MapError::LastVersion));
    assert!(version(u64::MAX - 2).changing(change).is_ok());
}

/// The rules fit, and so do those after the rule has gone; but not the line that says so.
#[test]
fn a_change_that_would_not_fit_into_the_file_is_refused() {
    let prefix = |number: usize| format!("/ls/dev/{number:0>220}");
    let names: Vec<String> = (0..2_000).map(prefix).collect();
    let map = |count: usize| {
        let rules = names[..count].iter().map(|prefix| (prefix.as_str(), "b"));
        PartitionMap::new(1, "dev", rules.chain([("/ls/dev", "a")]), cells())
    };
    let counts: Vec<usize> = (0..2_000).collect();
    let count = counts.partition_point(|count| map(*count).is_ok()) - 1;

    let refused = map(count).expect("it fits").changing(change(&names[0], &[])).expect_err("too large");

    assert!(matches!(refused, MapError::TooLarge(_)), "{refused}");
    assert!(map(count - 1).expect("it fits").changing(change(&names[0], &[])).is_ok());
}

#[test]
fn a_change_has_the_addresses_of_its_map() {
    let map = changing(&before(), "/ls/dev/x", &["c"]);
    let addresses: BTreeMap<_, _> =
        map.cells.keys().map(|cell| (cell.clone(), vec![format!("{cell}:1")])).collect();

    let with = map.with_cells(&addresses);

    assert_eq!(with.after().expect("it is under way").cells, addresses);
    assert_eq!(with.change(), map.change());
    assert_eq!(with.without_addresses(), map);
}

#[test]
fn what_is_written_begins_a_change_or_gives_it_up() {
    let changing = changing(&before(), "/ls/dev/x", &["c"]);

    assert_eq!(before().check_written(&changing), Ok(()));
    assert_eq!(changing.check_written(&changing.unchanged()), Ok(()));
}

#[test]
fn any_other_map_that_is_written_is_refused() {
    let check = |map: &PartitionMap, next: &PartitionMap, why: &str| {
        let error = map.check_written(next).expect_err("refused");
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert_eq!(error.detail, format!("partition map: {why}"));
    };
    let changing = changing(&before(), "/ls/dev/x", &["c"]);
    let after = changing.after().expect("it is under way");
    let version = |map: &PartitionMap, version| PartitionMap { version, ..map.clone() };

    check(&before(), &version(&changing, 1), "version 1: the one after that of now is 2");
    check(&before(), &version(&changing, 3), "version 3: the one after that of now is 2");
    check(&changing, &version(&before(), 2), "version 2: the one after that of now is 3");

    let cells = "the cells are configured with each server, without addresses here";
    let other = PartitionMap { namespace: "prod".into(), ..changing.clone() };
    check(&before(), &other, cells);
    let addresses = changing.cells.keys().map(|cell| (cell.clone(), vec!["h:1".to_owned()])).collect();
    check(&before(), &changing.with_cells(&addresses), cells);
    let fewer = changing.cells.clone().into_iter().take(3).collect();
    check(&before(), &changing.with_cells(&fewer), cells);

    let rules = "the rules change by a line \"next PREFIX CELL\", not at once";
    check(&before(), &version(after, 2), rules);
    check(&changing, after, rules);
    let rings = PartitionMap { rings: BTreeMap::new(), ..changing.clone() };
    check(&before(), &rings, rules);

    check(&before(), &version(&before(), 2), "nothing is different");
    let other = before().changing(change("/ls/dev/y", &["c"])).expect("a good change");
    let one = "the rule for /ls/dev/x is changing: one change at a time";
    check(&changing, &version(&other, 3), one);
    check(&changing, &version(&changing, 3), one);
}
