//! What is shown, byte for byte: scripts rely on it.

use hasp_client::{Generation, Instance};
use serde_json::{Value, json};

use super::*;

fn stat(kind: NodeKind, length: u64) -> Stat {
    Stat {
        kind,
        instance: Instance(7),
        content_generation: Generation(12),
        lock_generation: Generation(3),
        acl_generation: Generation(1),
        checksum: 0xab,
        length,
        ephemeral: false,
        acls: AclNames::default(),
    }
}

fn object(serialize: &impl Serialize) -> Value {
    serde_json::from_str(&json_line(serialize).unwrap()).unwrap()
}

#[test]
fn a_stat_as_json_has_every_field_of_the_contract() {
    let name = Name::parse("/ls/dev/f").unwrap();

    let shown = object(&NamedStat::new(&name, &stat(NodeKind::File, 5)));

    let expected = json!({
        "name": "/ls/dev/f", "kind": "file", "instance": 7, "content_generation": 12,
        "lock_generation": 3, "acl_generation": 1, "checksum": "00000000000000ab", "length": 5,
        "ephemeral": false, "acls": {"read": "everyone", "write": "everyone", "change": "admin"},
    });
    assert_eq!(shown, expected);
}

#[test]
fn a_stat_for_people_is_aligned() {
    let name = Name::parse("/ls/dev/d").unwrap();
    let stat = stat(NodeKind::Directory, 0);

    let shown = NamedStat::new(&name, &stat).lines();

    assert!(shown.starts_with("name                /ls/dev/d\nkind                directory\n"), "{shown}");
    assert_eq!(shown.lines().count(), 12);
}

#[test]
fn text_is_shown_as_text_and_other_bytes_as_base64() {
    let name = Name::parse("/ls/dev/f").unwrap();
    let stat = stat(NodeKind::File, 2);

    let text = object(&File::new(&name, "ü".as_bytes(), &stat));
    let bytes = object(&File::new(&name, &[0xff, 0xfe], &stat));

    assert_eq!(text["contents"], "ü");
    assert_eq!(text["stat"]["length"], 2);
    assert_eq!(bytes["contents_base64"], "//4=");
    assert_eq!(bytes.get("contents"), None);
}

#[test]
fn a_listing_marks_directories() {
    let name = Name::parse("/ls/dev").unwrap();
    let child = |component: &str, kind| Child { component: component.into(), stat: stat(kind, 5) };
    let children = [child("a b", NodeKind::File), child("d", NodeKind::Directory)];

    let listing = Listing::new(&name, &children);

    assert_eq!(listing.short(), "a b\nd/\n");
    let long: Vec<_> = listing.long().lines().map(str::to_owned).collect();
    assert_eq!(long[0], "KIND       INSTANCE  CONTENT  ACL  LENGTH  READ      WRITE     CHANGE  NAME");
    assert_eq!(long[1], "file       7         12       1    5       everyone  everyone  admin   a b");
    assert_eq!(long[2], "directory  7         12       1    5       everyone  everyone  admin   d/");
    let shown = object(&listing);
    assert_eq!(shown["name"], "/ls/dev");
    assert_eq!(shown["children"][1]["component"], "d");
    assert_eq!(shown["children"][1]["kind"], "directory");
    assert_eq!(shown["children"][1].get("lock_generation"), None, "listings do not have it");
}

#[test]
fn an_ephemeral_child_has_a_star() {
    let directory = Name::parse("/ls/dev").unwrap();
    let ephemeral = Stat { ephemeral: true, ..stat(NodeKind::File, 5) };
    let children = [Child { component: "f".into(), stat: ephemeral }];

    let long = Listing::new(&directory, &children).long();

    assert!(long.lines().nth(1).is_some_and(|line| line.starts_with("file* ")), "{long}");
}
