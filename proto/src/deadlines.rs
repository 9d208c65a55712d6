//! Many deadlines, one per key, earliest first.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Time;

/// At most one deadline for each key.
#[derive(Clone, Debug)]
pub struct Deadlines<K> {
    by_time: BTreeSet<(Time, K)>,
    by_key: BTreeMap<K, Time>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Sets, moves or clears the deadline of `key`.
    pub fn set(&mut self, key: K, at: Option<Time>) {
        let old = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.by_time.remove(&(old, key));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }

    /// The deadline of `key`.
    pub fn get(&self, key: K) -> Option<Time> {
        self.by_key.get(&key).copied()
    }

    /// The earliest deadline.
    pub fn first(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the key with the earliest deadline out if that has come.
    pub fn pop_due(&mut self, now: Time) -> Option<K> {
        let (at, key) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.pop_first();
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::t;

    #[test]
    fn keys_come_due_in_order_of_their_latest_deadline() {
        let mut deadlines = Deadlines::default();
        deadlines.set("a", Some(t(30)));
        deadlines.set("b", Some(t(20)));
        deadlines.set("a", Some(t(10)));
        deadlines.set("c", Some(t(5)));
        deadlines.set("c", None);

        assert_eq!(deadlines.first(), Some(t(10)));
        assert_eq!(deadlines.pop_due(t(9)), None);
        assert_eq!(deadlines.pop_due(t(20)), Some("a"));
        assert_eq!(deadlines.pop_due(t(20)), Some("b"));
        assert_eq!(deadlines.pop_due(t(20)), None);
        assert_eq!(deadlines.first(), None);
    }
}
