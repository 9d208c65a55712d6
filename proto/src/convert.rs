//! Wire and log messages to domain types and back, once, at the edge.
//!
//! Encoding cannot fail. Decoding takes nothing on trust: whatever a peer may send that the
//! domain types cannot say is a [`Malformed`], with what and where.

mod crossing;
mod news;
mod node;
pub mod request;
mod stream;

pub use node::{map_from_wire, map_to_wire};

/// A message that decodes as protobuf but says nothing this protocol knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {what}")]
pub struct Malformed {
    /// Which part of which message.
    pub what: &'static str,
}

/// Shorthand for the error.
pub const fn malformed(what: &'static str) -> Malformed {
    Malformed { what }
}
