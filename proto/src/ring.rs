//! Members at their places on a hash ring: consistent hashing that every process agrees on for ever. It spreads
//! directories over cells (`route-2`) and sessions over hosts.
//!
//! The hash is XXH3-64 with seed 0 over explicit bytes. Std's own way to feed values to a hasher
//! promises the same bytes neither across releases nor across platforms, so it is not used.

use std::hash::{Hash, Hasher};

use consistent_hash::{Node, RingHash, StaticHashRing};
use xxhash_rust::xxh3::Xxh3;

/// Members at their places on a ring. Worth keeping if many keys are looked up.
pub struct Ring<M: 'static> {
    ring: StaticHashRing<'static, Member<M>, (), Xxh3Ring>,
}

impl<M: AsRef<str> + Ord> Ring<M> {
    /// Puts the members on their places, `points` for each. Their order does not matter, and twice is as good as once.
    ///
    /// How many points there are is part of what all processes agree on: other points are another ring.
    pub fn new(members: impl IntoIterator<Item = M>, points: usize) -> Self {
        let mut distinct: Vec<M> = members.into_iter().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let nodes = distinct.into_iter().map(|member| Node::new(Member(member)).quantity(points));
        Self { ring: StaticHashRing::new(Xxh3Ring, nodes) }
    }

    /// All members, the one whose place is nearest to that of `key` in front.
    pub fn candidates<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = &'a M> + use<'a, M> {
        self.ring.calc_candidates(&Key(key)).map(|node| &node.key.0)
    }

    /// The first of them; `None` on an empty ring.
    pub fn first(&self, key: &[u8]) -> Option<&M> {
        self.candidates(key).next()
    }
}

/// Bytes that hash as themselves and nothing else.
struct Key<'a>(&'a [u8]);

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

/// A member, which hashes as the bytes of its name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Member<M>(M);

impl<M: AsRef<str>> Hash for Member<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_ref().as_bytes());
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

    fn ring(names: &[&str]) -> Ring<String> {
        Ring::new(names.iter().map(|name| (*name).to_owned()), 100)
    }

    #[test]
    fn twice_is_as_good_as_once_and_the_order_does_not_matter() {
        let order = |ring: &Ring<String>| ring.candidates(b"key").cloned().collect::<Vec<_>>();
        let listed = order(&ring(&["1", "2", "3"]));

        assert_eq!(order(&ring(&["3", "1", "2", "1"])), listed);
        assert_eq!(ring(&["3", "1", "2"]).first(b"key"), listed.first());
        assert_eq!(ring(&[]).first(b"key"), None);
    }

    #[test]
    fn who_loses_a_member_goes_to_the_next_and_nobody_else_moves() {
        let (all, fewer) = (ring(&["1", "2", "3", "4"]), ring(&["1", "2", "4"]));

        for key in (0..1_000_u64).map(u64::to_be_bytes) {
            let expected: Vec<_> = all.candidates(&key).filter(|member| *member != "3").collect();
            assert_eq!(fewer.candidates(&key).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn the_keys_are_spread_evenly() {
        let ring = ring(&["proxy-1:7000", "proxy-2:7000", "proxy-3:7000"]);
        let mut counts = std::collections::BTreeMap::<&str, u32>::new();

        for key in (0..30_000_u64).map(u64::to_be_bytes) {
            *counts.entry(ring.first(&key).expect("three")).or_default() += 1;
        }

        assert!(counts.values().all(|count| (8_000..12_500).contains(count)), "{counts:?}");
    }
}
