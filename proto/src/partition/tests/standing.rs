//! What is said of a change by the map that came after it.

use crate::id::CellName;
use crate::partition::{Change, GIVEN_UP, PartitionMap, Prefix, Standing};

fn map() -> PartitionMap {
    let cells = ["a", "b", "c"].map(|cell| (CellName::new(cell), vec![])).into();
    let rules = [("/ls/dev", "a"), ("/ls/dev/jobs", "b"), ("/ls/dev/users/*", "a b")];
    PartitionMap::new(4, "dev", rules, cells).expect("a good map")
}

fn changed(map: &PartitionMap, prefix: &str, cells: &[&str]) -> PartitionMap {
    let prefix = Prefix::parse(prefix).expect("a good prefix");
    let cells = cells.iter().map(|cell| CellName::new(cell)).collect();
    map.changing(Change { prefix, cells }).expect("a good change")
}

#[test]
fn a_change_stands_as_the_file_says() {
    let changing = changed(&map(), "/ls/dev/jobs", &["c"]);
    let after = changing.after().expect("it is under way");
    let check = |contents: &str, expected: Standing| {
        assert_eq!(Standing::of(&changing, contents.as_bytes()), Ok(expected), "{contents}");
    };
    let given_up = |why: &str| Standing::GivenUp(why.to_owned());
    let no = changing.unchanged().to_file();

    check(&map().to_file(), Standing::Moving);
    check(&changing.to_file(), Standing::Moving);
    check(&after.to_file(), Standing::Done(6));
    check(&no, given_up("nobody says why"));
    check(&format!("# ours\n{GIVEN_UP}cell c is full\n{no}"), given_up("cell c is full"));
}

/// Whoever was away for a while sees what others have done since.
#[test]
fn a_change_that_others_followed_stands_by_its_rule() {
    let changing = changed(&map(), "/ls/dev/jobs", &["c"]);
    let check = |next: &PartitionMap, expected: Standing| {
        assert_eq!(Standing::of(&changing, next.to_file().as_bytes()), Ok(expected));
    };
    let done = changing.after().expect("it is under way");
    let given_up = changing.unchanged();
    let overtaken = || Standing::GivenUp("the map has changed again since, see version 7".into());

    check(&changed(done, "/ls/dev/x", &["b"]), Standing::Done(7));
    check(&changed(done, "/ls/dev/jobs", &["a"]), Standing::Done(7));
    check(&changed(&given_up, "/ls/dev/x", &["b"]), overtaken());
    check(&changed(&given_up, "/ls/dev/jobs", &[]), overtaken());
}

#[test]
fn a_rule_that_goes_is_gone_when_it_is_done() {
    let changing = changed(&map(), "/ls/dev/users/*", &[]);
    let after = changing.after().expect("it is under way");
    let check = |map: &PartitionMap, expected: Standing| {
        assert_eq!(Standing::of(&changing, map.to_file().as_bytes()), Ok(expected));
    };

    check(after, Standing::Done(6));
    check(&changing.unchanged(), Standing::GivenUp("nobody says why".into()));
    check(&changed(after, "/ls/dev/x", &["b"]), Standing::Done(7));
}

#[test]
fn a_file_that_holds_no_map_is_refused() {
    let error = Standing::of(&changed(&map(), "/ls/dev/jobs", &[]), b"v").expect_err("no map");

    assert!(error.to_string().starts_with("InvalidArgument: partition map: line 1"), "{error}");
}
