//! A run, told in the protocol's words: one line for what happened to whom, when. Kept only if somebody wants to
//! read it; a fingerprint of it is kept always.

use std::fmt;

use super::clock::Moment;
use super::world::NodeId;

/// The story so far.
#[derive(Debug)]
pub struct Story {
    lines: Option<Vec<String>>,
    fingerprint: u64,
}

impl Story {
    /// A story that is told, or only fingerprinted.
    pub fn new(is_told: bool) -> Self {
        Self { lines: is_told.then(Vec::new), fingerprint: 0xcbf2_9ce4_8422_2325 }
    }

    /// Something happened.
    pub fn tell(&mut self, at: Moment, node: NodeId, what: fmt::Arguments<'_>) {
        self.mix(at.0);
        self.mix(node.number());
        self.remark(at, node, what);
    }

    /// What costs too much to put into words if nobody reads them; no part of the fingerprint.
    pub fn remark(&mut self, at: Moment, node: NodeId, what: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{at} {node:<4} {what}"));
        }
    }

    /// Whether lines are kept.
    pub const fn is_told(&self) -> bool {
        self.lines.is_some()
    }

    /// The lines, if they were kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }

    /// Differs if anything happened at another time or to another node.
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    const fn mix(&mut self, value: u64) {
        self.fingerprint = (self.fingerprint ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}
