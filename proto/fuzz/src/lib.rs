//! Fuzzing of everything that reads bytes it did not write: from peers, from disks, from operators.
//!
//! A *target* is a plain function of bytes: it must not panic, and what it takes must survive being written and read
//! again. A *campaign* mutates the inputs of a *corpus* with a seeded generator, so every run can be repeated, and
//! keeps the inputs that bring a target somewhere new. The corpus is part of the tree: `cargo test` replays all of
//! it and tries a bounded number of fresh inputs, `cargo xtask fuzz` goes on for as long as it is told.
//!
//! ```text
//!   corpus ──▶ campaign ── mutate ──▶ target ──▶ verdict ── somewhere new ──▶ campaign's pool
//!      ▲                                └─ panic ──▶ crash, cut short ──┐
//!      └────────────────────────────────────────────────────────────────┘
//! ```

pub mod campaign;
pub mod corpus;
mod mutate;
mod protobuf;
pub mod seeds;
pub mod target;
mod targets;

pub use target::{Target, Verdict, all, find};
