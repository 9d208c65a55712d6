//! One replica of a cell: the replicated state, the master's soft state, and what keeps them.
//!
//! [`state`] and [`master`] are pure: they decide. [`replica`] is Raft, disk and network: it moves
//! entries. [`service`] is the server around them. `cargo xtask tidy` keeps clocks, randomness and async runtimes out of the pure parts.

mod machine;
pub mod master;
pub mod replica;
pub mod service;
pub mod state;
