use hasp_proto::partition::Standing;

use super::*;

fn map() -> PartitionMap {
    let cells = ["a", "b", "c"].map(|cell| (CellName::new(cell), vec![])).into();
    let rules = [("/ls/dev", "a"), ("/ls/dev/jobs", "b"), ("/ls/dev/users/*", "a b")];
    PartitionMap::new(4, "dev", rules, cells).expect("a good map")
}

fn prefix(text: &str) -> Prefix {
    parse_prefix(text).expect("a good prefix")
}

fn to(text: &str, cells: &[&str]) -> Change {
    Change { prefix: prefix(text), cells: cells.iter().map(|cell| CellName::new(cell)).collect() }
}

fn over(wish: &Wish) -> PartitionMap {
    wish.over(&map()).expect("a good wish")
}

#[test]
fn each_wish_is_a_change_of_one_rule() {
    let check = |wish: Wish, change: Change| {
        let changing = over(&wish);
        assert_eq!((changing.version, changing.change()), (5, Some(&change)), "{wish:?}");
    };
    check(Wish::Split(to("/ls/dev/x", &["b"])), to("/ls/dev/x", &["b"]));
    check(Wish::Split(to("/ls/dev/x/*", &["a", "c"])), to("/ls/dev/x/*", &["a", "c"]));
    check(Wish::Split(to("/ls/dev/users", &["c"])), to("/ls/dev/users", &["c"]));
    check(Wish::Move(to("/ls/dev/jobs", &["c"])), to("/ls/dev/jobs", &["c"]));
    check(Wish::Move(to("/ls/dev/users/*", &["c"])), to("/ls/dev/users/*", &["c"]));
    check(Wish::Merge(prefix("/ls/dev/jobs")), to("/ls/dev/jobs", &[]));
    check(Wish::Merge(prefix("/ls/dev/users/*")), to("/ls/dev/users/*", &[]));
}

#[test]
fn the_namespace_that_is_served_has_its_own_name_in_the_map() {
    let check = |wish: Wish, change: Change| {
        assert_eq!(over(&wish).change(), Some(&change));
    };
    check(Wish::Split(to("/ls/local/x", &["b"])), to("/ls/dev/x", &["b"]));
    check(Wish::Split(to("/ls/local/x/*", &["a", "c"])), to("/ls/dev/x/*", &["a", "c"]));
    check(Wish::Merge(prefix("/ls/local/jobs")), to("/ls/dev/jobs", &[]));
}

#[test]
fn a_wish_that_does_not_fit_the_map_is_refused() {
    let check = |wish: Wish, text: &str| {
        assert_eq!(wish.over(&map()), Err(Failure::Refused(text.to_owned())), "{wish:?}");
    };
    check(
        Wish::Split(to("/ls/dev/jobs", &["c"])),
        "AlreadyExists: /ls/dev/jobs has a rule; its cells change with partition move",
    );
    check(
        Wish::Split(to("/ls/dev/users/*", &["c"])),
        "AlreadyExists: /ls/dev/users/* has a rule; its cells change with partition move",
    );
    check(
        Wish::Move(to("/ls/dev/users", &["c"])),
        "NotFound: /ls/dev/users has no rule; one is made with partition split",
    );
    check(Wish::Merge(prefix("/ls/dev/x")), "NotFound: /ls/dev/x has no rule");
    check(
        Wish::Split(to("/ls/dev/x", &["d"])),
        "InvalidArgument: partition rule /ls/dev/x: cell d is not among the cells",
    );
    check(
        Wish::Move(to("/ls/dev/jobs", &["b"])),
        "InvalidArgument: partition rule /ls/dev/jobs: the change changes nothing",
    );
    check(
        Wish::Merge(prefix("/ls/dev")),
        "InvalidArgument: partition rule /ls/dev: the home cell has the namespace's ACLs and map, and they do \
         not move",
    );
    check(
        Wish::Split(to("/ls/prod/x", &["b"])),
        "InvalidArgument: partition rule /ls/prod/x: not in namespace dev",
    );
    let under_way = over(&Wish::Merge(prefix("/ls/dev/jobs")));
    let text = "InvalidArgument: partition rule /ls/dev/jobs is changing: one change at a time";
    for wish in [Wish::Split(to("/ls/dev/x", &["b"])), Wish::Merge(prefix("/ls/dev/x"))] {
        assert_eq!(wish.over(&under_way), Err(Failure::Refused(text.to_owned())));
    }
}

#[test]
fn what_no_map_can_have_is_wrong_usage() {
    let failure = parse_prefix("/etc").expect_err("bad");
    assert_eq!(failure.code(), 2);
    assert!(failure.to_string().starts_with("InvalidName: partition rule \"/etc\": a name begins with"));

    assert_eq!(parse_cell("eu1"), Ok(CellName::new("eu1")));
    for bad in ["", "A", "a b"] {
        assert!(parse_cell(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_change_is_given_up_with_a_remark() {
    let changing = over(&Wish::Split(to("/ls/dev/x", &["c"])));

    let (given_up, contents) = give_up(&changing).expect("one is under way");

    assert_eq!(given_up.version, 6);
    let expected = "\
# given up: by hasp partition undo
# Which cell has which nodes: PREFIX CELL, everything strictly below the prefix;
# PREFIX/* CELL CELL..., the directories below it spread over the cells, each with all that is below it.
version 6

/ls/dev          a
/ls/dev/jobs     b
/ls/dev/users/*  a b

cell a
cell b
cell c
";
    assert_eq!(contents, expected);
    assert_eq!(changing.check_written(&read_map(contents.as_bytes()).expect("a map")), Ok(()));
    let standing = Standing::GivenUp("by hasp partition undo".into());
    assert_eq!(Standing::of(&changing, contents.as_bytes()), Ok(standing));
    let none = "NotFound: no change of the partition map is under way";
    assert_eq!(give_up(&map()), Err(Failure::Refused(none.to_owned())));
}
