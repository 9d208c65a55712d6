//! The order in which a session tries its hosts: that of their places on a ring, beginning at its own.

use std::fmt;
use std::sync::{Arc, OnceLock};

use hasp_proto::ring::Ring;

/// Points on the ring for each host: 14% over the mean for the fullest of three.
const POINTS_PER_HOST: usize = 100;

/// Hosts of which any will do, and their ring, made once for all that share the list. A clone is the same list.
#[derive(Clone)]
pub struct HostList(Arc<Listed>);

struct Listed {
    members: Vec<String>,
    ring: OnceLock<Ring<String>>,
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
            several => {
                let ring = self.0.ring.get_or_init(|| Ring::new(several.iter().cloned(), POINTS_PER_HOST));
                ring.candidates(key).cloned().collect()
            }
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
}
