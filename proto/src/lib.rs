//! The Hasp protocol: names, leases, messages, and the pure machines of both ends.
//!
//! Nothing in this crate reads a clock, draws a random number, opens a socket or knows of an
//! async runtime. Time comes in as [`time::Time`], everything else as inputs of a
//! [`machine::Core`]; what should be done comes out as outputs. `cargo xtask tidy` enforces it.

pub mod acl;
pub mod client;
pub mod convert;
pub mod crossing;
pub mod deadlines;
pub mod error;
pub mod event;
pub mod handle;
pub mod hosts;
pub mod id;
pub mod item;
pub mod lease;
pub mod limits;
pub mod machine;
pub mod name;
pub mod node;
#[cfg(test)]
mod pair;
pub mod partition;
pub mod position;
pub mod rate;
pub mod request;
pub mod ring;
pub mod sequencer;
pub mod server;
pub mod stream;
pub mod time;
pub mod trace;
pub mod wire;
