//! The order in which a session tries its hosts, and later the spreading of directories over cells
//! (`route-2`): consistent hashing that every process agrees on for ever.
//!
//! The hash is XXH3-64 with seed 0 over explicit bytes. Std's own way to feed values to a hasher
//! promises the same bytes neither across releases nor across platforms, so it is not used.

use std::hash::{Hash, Hasher};

use std::fmt;
use std::sync::{Arc, OnceLock};

use consistent_hash::{Node, RingHash, StaticHashRing};
use xxhash_rust::xxh3::Xxh3;

/// Points on the ring for each member: 14% over the mean for the fullest of three.
const POINTS_PER_MEMBER: usize = 100;

/// Members at their places on a ring. Worth keeping if many keys are looked up.
pub struct Ring {
    ring: StaticHashRing<'static, Key, (), Xxh3Ring>,
}

impl Ring {
    /// Puts the members on their places. Their order does not matter, and twice is as good as once.
    pub fn new(members: &[String]) -> Self {
        let mut distinct: Vec<&String> = members.iter().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let nodes = distinct
            .into_iter()
            .map(|member| Node::new(Key(member.as_bytes().into())).quantity(POINTS_PER_MEMBER));
        Self { ring: StaticHashRing::new(Xxh3Ring, nodes) }
    }

    /// All members, the one that is to be tried first for `key` in front.
    pub fn candidates(&self, key: &[u8]) -> Vec<String> {
        let key = Key(key.into());
        let candidates = self.ring.calc_candidates(&key);
        candidates.map(|node| String::from_utf8_lossy(&node.key.0).into_owned()).collect()
    }
}

/// Hosts of which any will do, and their ring, made once for all that share the list. A clone is the same list.
#[derive(Clone)]
pub struct HostList(Arc<Listed>);

struct Listed {
    members: Vec<String>,
    ring: OnceLock<Ring>,
}

impl HostList {
    /// Their addresses, as they were given.
    pub fn members(&self) -> &[String] {
        &self.0.members
    }

    /// The members in the order in which the session with these id bytes tries them.
    pub fn candidates(&self, key: &[u8]) -> Vec<String> {
        match self.members() {
            [] | [_] => self.members().to_vec(),
            several => self.0.ring.get_or_init(|| Ring::new(several)).candidates(key),
        }
    }
}

impl From<Vec<String>> for HostList {
    fn from(members: Vec<String>) -> Self {
        Self(Arc::new(Listed { members, ring: OnceLock::new() }))
    }
}

impl PartialEq for HostList {
    fn eq(&self, other: &Self) -> bool {
        self.members() == other.members()
    }
}

impl fmt::Debug for HostList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.members().fmt(f)
    }
}

/// Bytes that hash as themselves and nothing else.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key(Box<[u8]>);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

struct Xxh3Ring;

impl RingHash for Xxh3Ring {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        let mut hasher = Xxh3::new();
        item.hash(&mut hasher);
        hasher.digest()
    }

    /// The member's bytes, then the point's number as 8 bytes, the highest first.
    fn hash_vnode<K: Hash>(&self, member: &K, point: usize) -> u64 {
        let mut hasher = Xxh3::new();
        member.hash(&mut hasher);
        hasher.update(&(point as u64).to_be_bytes());
        hasher.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(key: &[u8], members: &[String]) -> Vec<String> {
        HostList::from(members.to_vec()).candidates(key)
    }

    fn proxies(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("proxy-{name}:7000")).collect()
    }

    #[test]
    fn the_order_is_fixed_for_ever() {
        let check = |key: &[u8], order: &[&str]| {
            assert_eq!(candidates(key, &proxies(&["1", "2", "3", "4"])), proxies(order), "{key:?}");
        };

        check(&[0; 16], &["3", "2", "4", "1"]);
        check(&[1; 16], &["4", "3", "1", "2"]);
        check(&[2; 16], &["4", "3", "2", "1"]);
        check(b"0123456789abcdef", &["2", "3", "1", "4"]);
    }

    #[test]
    fn the_order_does_not_depend_on_how_the_members_are_listed() {
        let listed = candidates(b"key", &proxies(&["1", "2", "3"]));

        assert_eq!(candidates(b"key", &proxies(&["3", "1", "2", "1"])), listed);
        assert_eq!(candidates(b"key", &[]), proxies(&[]));
        assert_eq!(candidates(b"key", &proxies(&["1"])), proxies(&["1"]));
    }

    #[test]
    fn who_loses_a_member_goes_to_the_next_and_nobody_else_moves() {
        let (all, fewer) =
            (Ring::new(&proxies(&["1", "2", "3", "4"])), Ring::new(&proxies(&["1", "2", "4"])));
        let lost = &proxies(&["3"])[0];

        for key in 0..1_000_u64 {
            let before = all.candidates(&key.to_be_bytes());
            let expected: Vec<_> = before.iter().filter(|member| *member != lost).cloned().collect();
            assert_eq!(fewer.candidates(&key.to_be_bytes()), expected);
        }
    }

    #[test]
    fn the_keys_are_spread_evenly() {
        let ring = Ring::new(&proxies(&["1", "2", "3"]));
        let mut counts = std::collections::BTreeMap::<String, u32>::new();

        for key in 0..30_000_u64 {
            *counts.entry(ring.candidates(&key.to_be_bytes()).swap_remove(0)).or_default() += 1;
        }

        assert!(counts.values().all(|count| (8_000..12_500).contains(count)), "{counts:?}");
    }
}
