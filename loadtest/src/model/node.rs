//! Who is who in a world.

use std::fmt;

/// A node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeId {
    /// Of the only cell.
    Replica(usize),
    /// Between applications and the cell.
    Proxy(usize),
    /// An application.
    Client(usize),
}

impl NodeId {
    /// Where it listens.
    pub fn address(self) -> String {
        self.to_string()
    }

    /// Who listens there.
    pub fn at(address: &str) -> Option<Self> {
        let index = |number: &str| number.parse::<usize>().ok()?.checked_sub(1);
        match address.split_at_checked(1)? {
            ("m", number) => index(number).map(Self::Replica),
            ("p", number) => index(number).map(Self::Proxy),
            _ => None,
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(index) => write!(f, "m{}", index + 1),
            Self::Proxy(index) => write!(f, "p{}", index + 1),
            Self::Client(index) => write!(f, "c{}", index + 1),
        }
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
