//! The map as text.

use proptest::prelude::*;

use super::*;
use crate::error::ErrorCode;

const TEXT: &str = r#"# of this site
version 7

/ls/dev  a
/ls/dev/users/*   a,b   # two of them
/ls/dev/a#b b
"/ls/dev/a b/\"c\\" b
"/ls/dev/a b/*" b  a

cell a 127.0.0.1:7001,127.0.0.1:7002 # here
cell b
"#;

#[test]
fn a_map_is_read_and_written() {
    let map = PartitionMap::parse(TEXT.as_bytes()).expect("good");

    assert_eq!((map.version, map.namespace.as_str(), map.home().as_str()), (7, "dev", "a"));
    let written = r#"version 7

/ls/dev              a
"/ls/dev/a b/\"c\\"  b
"/ls/dev/a b/*"      a b
/ls/dev/a#b          b
/ls/dev/users/*      a b

cell a 127.0.0.1:7001,127.0.0.1:7002
cell b
"#;
    assert_eq!(map.to_text(), written);
    assert_eq!(PartitionMap::parse(written.as_bytes()), Ok(map.clone()));
    let file = map.to_file();
    assert!(file.starts_with("# Which cell") && file.ends_with("\n\ncell a\ncell b\n"), "{file}");
    assert_eq!(PartitionMap::parse(file.as_bytes()), Ok(map.without_addresses()));
}

#[test]
fn a_mistake_is_told_with_its_line() {
    let check = |text: &[u8], wanted: &str| {
        let error = PartitionMap::parse(text).expect_err("bad");
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert!(error.detail.contains(wanted), "{error}");
    };
    let good = "version 1\n/ls/dev a\ncell a\n";
    assert!(PartitionMap::parse(good.as_bytes()).is_ok());
    let check_more = |more: &str, wanted: &str| check(format!("{good}{more}").as_bytes(), wanted);

    check_more("/ls/dev/x c", "line 4: partition rule /ls/dev/x: cell c is not among the cells");
    check_more("/ls/dev/x/* a c", "line 4: partition rule /ls/dev/x/*: cell c is not among");
    check_more("\n/ls/dev a", "line 5: partition rule /ls/dev is given twice");
    check_more("/ls/dev/* a\n/ls/dev/* a", "line 5: partition rule /ls/dev/* is given twice");
    check_more("/ls/dev/* a a", "line 4: partition rule /ls/dev/*: cell a is named twice");
    check_more("/ls/dev/x a b\ncell b", "line 4: partition rule /ls/dev/x: 2 cells; only");
    check_more("/ls/dev/x", "line 4: partition rule /ls/dev/x: no cell");
    check_more("/ls/dev/x/ a", "line 4: partition rule \"/ls/dev/x/\": component 4 is empty");
    check_more("/etc a", "line 4: partition rule \"/etc\": a name begins with /ls/");
    check_more("/ls/prod/x a", "line 4: partition rule /ls/prod/x: not in namespace dev");
    check_more("cell a", "line 4: cell a is listed twice");
    check_more("cell A", "line 4: \"A\" is not a cell name");
    check_more("cell", "line 4: a cell without a name");
    check_more("cell b h:1,h", "line 4: cell b: \"h\" is not HOST:PORT");
    check_more("version 2", "line 4: a second version");
    check_more("version -1", "line 4: version -1: not a number");
    check_more("version", "line 4: a version is one number");
    check_more("move /ls/dev b", "line 4: \"move\" is neither a name nor one of the words");
    check_more("\"/ls/dev/x a", "line 4: a quote that does not end");
    check_more("\"/ls/dev/x\"a", "line 4: no blank behind a quote");
    check_more("next", "line 4: which rule is next?");
    check_more("next x b", "line 4: partition rule \"x\": a name begins with /ls/");
    check_more("next /ls/dev/x", "line 4: no cell; \"-\" if the rule is to go");
    check_more("next /ls/dev/x ,", "line 4: no cell; \"-\" if the rule is to go");
    check_more("next /ls/dev/x - a", "line 4: partition rule /ls/dev/x: cell - is not among the cells");
    check_more("next /ls/dev/x c", "line 4: partition rule /ls/dev/x: cell c is not among the cells");
    check_more("next /ls/dev/x a b\ncell b", "line 4: partition rule /ls/dev/x: 2 cells; only");
    check_more("next /ls/dev/x/* a a", "line 4: partition rule /ls/dev/x/*: cell a is named twice");
    check_more("\nnext /ls/dev/x -", "line 5: partition rule /ls/dev/x: the change changes nothing");
    check_more("next /ls/dev -", "line 4: partition rule /ls/dev: the home cell has");
    check_more("next /ls/prod/x a", "line 4: partition rule /ls/prod/x: not in namespace dev");
    check_more("next /ls/dev/x a\nnext /ls/dev/x a", "line 5: a second line \"next\": one change at a time");
    let last = format!("version {}\n/ls/dev a\ncell a\nnext /ls/dev/x a", u64::MAX);
    check(last.as_bytes(), "line 4: there is no version after the partition map's");
    check(b"version 1\n\xff", "line 2: not UTF-8");
    check(b"/ls/dev a\ncell a", "no line \"version N\"");
    check(b"version 1", "no line with a rule");
    check(b"version 1\n/ls/dev/x a\ncell a", "no partition rule for /ls/dev, the root");
}

/// Where it stands does not matter, nor whether it is aligned.
#[test]
fn a_change_is_read_and_written() {
    let check = |line: &str, written: &str| {
        let text = format!("{TEXT}{line} # soon\n");
        let map = PartitionMap::parse(text.as_bytes()).expect("good");
        let before = PartitionMap::parse(TEXT.as_bytes()).expect("good");
        let (text, blank) = (map.to_text(), "\n\n");

        let mut paragraphs = before.to_text().split(blank).map(str::to_owned).collect::<Vec<_>>();
        paragraphs.insert(2, written.to_owned());
        assert_eq!(text, paragraphs.join(blank));
        assert_eq!(PartitionMap::parse(text.as_bytes()), Ok(map.clone()));
        assert_eq!(PartitionMap::parse(map.to_file().as_bytes()), Ok(map.without_addresses()));
    };
    check("next /ls/dev/x b", "next /ls/dev/x  b");
    check(" next   /ls/dev/users/*   b", "next /ls/dev/users/*  b");
    check("next /ls/dev/x/* b , a", "next /ls/dev/x/*  b a");
    check("next /ls/dev/a#b -", "next /ls/dev/a#b  -");
    check(r#"next "/ls/dev/a b/\"c\\" -"#, r#"next "/ls/dev/a b/\"c\\"  -"#);
    check(r#"next "/ls/dev/a b/*" a"#, r#"next "/ls/dev/a b/*"  a"#);
    check(r#"next "/ls/dev/x" b"#, "next /ls/dev/x  b");

    let first = format!("next /ls/dev/x b\n{TEXT}");
    assert!(PartitionMap::parse(first.as_bytes()).expect("good").change().is_some());
}

fn arbitrary_map() -> impl Strategy<Value = PartitionMap> {
    let component = "[a-z #\"\\\\*\u{a0}-]{1,5}";
    let directory = proptest::collection::vec(component, 0..4)
        .prop_map(|parts| parts.iter().fold("/ls/dev".to_owned(), |above, part| format!("{above}/{part}")));
    let rule = (directory, prop_oneof!["[abcd]", Just(String::new())], "[abcd]{1,4}");
    (any::<u64>(), proptest::collection::vec(rule, 0..8)).prop_map(|(version, rules)| {
        let mut draft = Draft::new("dev", cells()).expect("cells");
        draft.add(&Prefix::Below(name("/ls/dev")), ["a"]).expect("the root");
        for (directory, cell, ring) in rules {
            // What is refused is left out.
            let _ = match (Name::parse(&directory), cell.as_str()) {
                (Ok(name), "") => {
                    draft.add(&Prefix::Ring(name), ring.split("").filter(|cell| !cell.is_empty()))
                }
                (Ok(name), cell) => draft.add(&Prefix::Below(name), [cell]),
                (Err(_), _) => Ok(()),
            };
        }
        draft.finish(version).expect("it has a root")
    })
}

/// With one of its own rules, or of another's, on its way somewhere else.
fn arbitrary_changing_map() -> impl Strategy<Value = PartitionMap> {
    let cells = proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..4).prop_shuffle();
    (arbitrary_map(), arbitrary_map(), any::<proptest::sample::Index>(), cells).prop_map(
        |(map, other, place, cells)| {
            let rules = |map: &PartitionMap| {
                let plain = map.rules().map(|(name, _)| Prefix::Below(name.clone())).collect::<Vec<_>>();
                let rings = map.rings().map(|(name, _)| Prefix::Ring(name.clone())).collect::<Vec<_>>();
                [plain, rings].concat()
            };
            let prefixes = [rules(&map), rules(&other)].concat();
            let cells = cells.into_iter().map(CellName::new).collect();
            let change = Change { prefix: place.get(&prefixes).clone(), cells };
            // What is refused is left out.
            map.changing(change).unwrap_or(map)
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(map in arbitrary_map()) {
        prop_assert_eq!(PartitionMap::parse(map.to_text().as_bytes()), Ok(map));
    }

    #[test]
    fn what_is_written_of_a_change_is_read_again(map in arbitrary_changing_map()) {
        prop_assert_eq!(PartitionMap::parse(map.to_text().as_bytes()), Ok(map));
    }

    #[test]
    fn reading_never_panics(text in "(version 1|/ls/dev(/[a*]){0,2}|cell|next|-| |[abc\"\\\\#,:1]|\n){0,30}") {
        if let Ok(map) = PartitionMap::parse(text.as_bytes()) {
            prop_assert_eq!(PartitionMap::parse(map.to_text().as_bytes()), Ok(map));
        }
    }
}
