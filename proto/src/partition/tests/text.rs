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
    check_more("move /ls/dev b", "line 4: \"move\" is neither a name nor the word");
    check_more("\"/ls/dev/x a", "line 4: a quote that does not end");
    check_more("\"/ls/dev/x\"a", "line 4: no blank behind a quote");
    check(b"version 1\n\xff", "line 2: not UTF-8");
    check(b"/ls/dev a\ncell a", "no line \"version N\"");
    check(b"version 1", "no line with a rule");
    check(b"version 1\n/ls/dev/x a\ncell a", "no partition rule for /ls/dev, the root");
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

proptest! {
    #[test]
    fn what_is_written_is_read_again(map in arbitrary_map()) {
        prop_assert_eq!(PartitionMap::parse(map.to_text().as_bytes()), Ok(map));
    }

    #[test]
    fn reading_never_panics(text in "(version 1|/ls/dev(/[a*]){0,2}|cell| |[abc\"\\\\#,:1]|\n){0,30}") {
        if let Ok(map) = PartitionMap::parse(text.as_bytes()) {
            prop_assert_eq!(PartitionMap::parse(map.to_text().as_bytes()), Ok(map));
        }
    }
}
