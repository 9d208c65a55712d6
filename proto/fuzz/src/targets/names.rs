//! Names of nodes, and the map that says which cell has them.

use hasp_proto::limits::{COMPONENTS_MAX, NAME_BYTES_MAX};
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;

use crate::target::Verdict;

/// Text that claims to be a partition map.
pub fn partition_file(bytes: &[u8]) -> Verdict {
    let map = match PartitionMap::parse(bytes) {
        Ok(map) => map,
        Err(error) => return Verdict::refused(error.detail),
    };
    assert_eq!(
        PartitionMap::parse(map.to_text().as_bytes()).as_ref(),
        Ok(&map),
        "a map is read as it was written"
    );
    assert_eq!(PartitionMap::parse(map.to_file().as_bytes()).as_ref(), Ok(&map.without_addresses()));
    for directory in map.directories() {
        assert!(map.owner(&directory).is_some() && map.children_owner(&directory).is_some(), "{directory}");
    }
    let rings = map.rings().count();
    Verdict::taken(format!("a map with {} rings", if rings < 2 { "few" } else { "many" }))
}

/// Text that claims to be a name.
pub fn name(bytes: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(bytes) else { return Verdict::refused("not text") };
    let name = match Name::parse(text) {
        Ok(name) => name,
        Err(error) => return Verdict::refused(error.to_string()),
    };
    assert_eq!(name.as_str(), text, "a name is its text, byte for byte");
    assert!(text.len() <= NAME_BYTES_MAX && name.depth() <= COMPONENTS_MAX, "within the limits");
    assert!(!name.namespace().is_empty() && !name.component().is_empty());
    let below = name.child("x");
    assert_eq!(below.is_ok(), text.len() + 2 <= NAME_BYTES_MAX && name.depth() < COMPONENTS_MAX, "{below:?}");
    if let Ok(below) = below {
        assert_eq!(below.parent().as_ref(), Some(&name));
        assert!(below.is_below(&name) && !name.is_below(&below) && !name.is_below(&name));
    }
    let Some(parent) = name.parent() else {
        assert_eq!(name.depth(), 2, "only a namespace's root is without a parent");
        return Verdict::taken("a namespace");
    };
    assert_eq!(Name::parse(parent.as_str()).as_ref(), Ok(&parent), "the parent of a name is one");
    assert_eq!(parent.child(name.component()).as_ref(), Ok(&name));
    assert!(name.is_below(&parent));
    Verdict::taken(format!("a name of {} components", if name.depth() < 8 { "few" } else { "many" }))
}
