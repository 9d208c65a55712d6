//! Who owns what, and which rules make a map.

mod changes;
mod rings;
mod standing;
mod text;

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a good name")
}

fn cells() -> BTreeMap<CellName, Vec<String>> {
    ["a", "b", "c", "d"].map(|cell| (CellName::new(cell), vec![])).into()
}

fn map_of(rules: &[(&str, &str)]) -> PartitionMap {
    PartitionMap::new(1, "dev", rules.iter().copied(), cells()).expect("a good map")
}

fn map() -> PartitionMap {
    map_of(&[("/ls/dev", "a"), ("/ls/dev/x", "b"), ("/ls/dev/x/y", "a")])
}

#[test]
fn the_longest_prefix_above_a_name_owns_it() {
    let check = |text: &str, cell: &str| {
        assert_eq!(map().owner(&name(text)).map(CellName::as_str), Some(cell), "{text}");
    };
    check("/ls/dev", "a");
    check("/ls/dev/x", "a");
    check("/ls/dev/x/f", "b");
    check("/ls/dev/x/y", "b");
    check("/ls/dev/x/y/f", "a");
    check("/ls/dev/xy/f", "a");
}

#[test]
fn the_rule_of_a_directorys_children_is_that_of_the_longest_prefix() {
    let map = map_of(&[("/ls/dev", "a"), ("/ls/dev/x", "b"), ("/ls/dev/u/*", "a b"), ("/ls/dev/u/r", "c")]);
    let check = |directory: &str, prefix: Option<&str>| {
        let found = map.children_rule(&name(directory)).map(|prefix| prefix.to_string());
        assert_eq!(found.as_deref(), prefix, "{directory}");
    };
    check("/ls/dev", Some("/ls/dev"));
    check("/ls/dev/x", Some("/ls/dev/x"));
    check("/ls/dev/x/d", Some("/ls/dev/x"));
    check("/ls/dev/u", Some("/ls/dev"));
    check("/ls/dev/u/d/e", Some("/ls/dev/u/*"));
    check("/ls/dev/u/r/e", Some("/ls/dev/u/r"));
    check("/ls/other", None);
}

#[test]
fn a_directory_with_a_rule_has_two_homes() {
    let x = name("/ls/dev/x");

    assert_eq!(map().owner(&x).map(CellName::as_str), Some("a"));
    assert_eq!(map().children_owner(&x).map(CellName::as_str), Some("b"));
    assert!(map().is_boundary(&x) && map().has_rule(&x));
    assert!(!map().is_boundary(&name("/ls/dev")) && map().has_rule(&name("/ls/dev")));
    assert!(!map().is_boundary(&name("/ls/dev/x/f")) && !map().has_rule(&name("/ls/dev/x/f")));
}

#[test]
fn names_of_other_namespaces_have_no_owner() {
    assert_eq!(map().owner(&name("/ls/other/f")), None);
    assert_eq!(map().owner(&name("/ls/other")), None);
    assert_eq!(map().children_owner(&name("/ls/other")), None);
}

#[test]
fn bad_rules_are_refused_with_the_rule() {
    let check = |rules: &[(&'static str, &'static str)], message: &str| {
        let error = PartitionMap::new(1, "dev", rules.iter().copied(), cells()).expect_err("bad");
        assert!(error.to_string().contains(message), "{error}");
    };
    check(&[("/ls/dev/x", "a")], "no partition rule for /ls/dev");
    check(&[("/ls/dev/*", "a b")], "no partition rule for /ls/dev");
    check(&[("/ls/dev", "e")], "cell e is not among");
    check(&[("/ls/dev", "a b")], "/ls/dev: 2 cells; only a prefix that ends in /*");
    check(&[("/ls/dev", "")], "/ls/dev: no cell");
    check(&[("/ls/dev", "a"), ("/ls/dev", "b")], "twice");
    check(&[("/ls/dev", "a"), ("/ls/prod/x", "b")], "not in namespace dev");
    check(&[("dev", "a")], "begins with /ls/");
    check(&[("/ls/dev", "a"), ("/ls/dev/*", " , ")], "/ls/dev/*: no cell");
    check(&[("/ls/dev", "a"), ("/ls/dev/*", "a,e")], "/ls/dev/*: cell e is not among");
    check(&[("/ls/dev", "a"), ("/ls/dev/*", "a b, a")], "/ls/dev/*: cell a is named twice");
    check(&[("/ls/dev", "a"), ("/ls/dev/*", "a"), ("/ls/dev/*", "b")], "/ls/dev/* is given twice");
    check(&[("/ls/dev", "a"), ("/ls/prod/*", "b")], "/ls/prod/*: not in namespace dev");
    check(&[("/ls/dev", "a"), ("/*", "b")], "\"/*\": a name begins with /ls/");
}

#[test]
fn a_map_that_would_be_no_file_is_refused() {
    let prefixes: Vec<String> = (0..30_000).map(|number| format!("/ls/dev/d{number}")).collect();
    let map = |count: usize| {
        let rules = prefixes[..count].iter().map(|prefix| (prefix.as_str(), "a"));
        PartitionMap::new(1, "dev", rules.chain([("/ls/dev", "a")]), cells())
    };

    assert!(map(10_000).is_ok());
    let error = map(30_000).expect_err("too large").to_string();
    assert!(error.contains("bytes as a file, the limit is 262144"), "{error}");
}
