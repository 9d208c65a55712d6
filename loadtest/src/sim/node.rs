//! Who takes part in a world, and how each of them is.

use std::collections::VecDeque;
use std::fmt;

use super::clock::{Clock, Moment};
use super::happening::Happening;
use super::plan::REPLICAS;

/// Who.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeId {
    /// A replica: three of each cell, one cell after the other.
    Replica(usize),
    /// A proxy.
    Proxy(usize),
    /// An application.
    Client(usize),
}

impl NodeId {
    /// A number of its own.
    pub const fn number(self) -> u64 {
        match self {
            Self::Replica(index) => index as u64,
            Self::Proxy(index) => 1_000 + index as u64,
            Self::Client(index) => 2_000 + index as u64,
        }
    }

    /// Where it listens.
    pub fn address(self) -> String {
        self.to_string()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Replica(index) => {
                let cell = char::from(b'a' + u8::try_from(index / REPLICAS).expect("few cells"));
                format!("{cell}{}", index % REPLICAS + 1)
            }
            Self::Proxy(index) => format!("p{}", index + 1),
            Self::Client(index) => format!("c{}", index + 1),
        };
        f.pad(&text)
    }
}

/// How a node is.
#[derive(Debug)]
pub struct Life {
    /// What it goes by.
    pub clock: Clock,
    /// It runs.
    pub is_up: bool,
    /// It does nothing until then.
    pub paused_until: Option<Moment>,
    /// How often it has started.
    pub number: u64,
    /// What came while it was paused.
    pub backlog: VecDeque<Happening>,
    /// When its machine is woken next.
    pub wake_at: Option<Moment>,
}
