//! Whole systems in one thread, in simulated time: the machines of cells, proxies and applications as they run in
//! production, over a network, clocks and logs that are drawn from one seed, and whatever can go wrong with them.
//!
//! ```text
//! world ── plan, schedule, clock, random, network    true time, and what the nodes know of it
//!   ├─ cell     MasterCore and State, over log       replicas; elections, leases, commits
//!   ├─ proxy    RelayCore and its view
//!   ├─ client   the library's core, a script         what applications do
//!   ├─ faults                                        crashes, pauses, cuts, resets, hand-overs
//!   ├─ mutants, mischief, scenarios                  mistakes on purpose, and worlds in which they show
//!   └─ history ── check/*                            one file per promise
//! ```
//!
//! The same seed gives the same story, byte for byte.

pub mod cell;
pub mod check;
pub mod client;
pub mod clock;
pub mod crowd;
pub mod driving;
pub mod faults;
pub mod guard;
pub mod happening;
pub mod history;
pub mod lives;
pub mod lock_log;
pub mod log;
pub mod mischief;
pub mod mutants;
pub mod network;
pub mod node;
pub mod plan;
pub mod proxy;
pub mod random;
pub mod regressions;
pub mod scenarios;
pub mod schedule;
pub mod script;
pub mod story;
pub mod verdict;
pub mod wires;
pub mod world;

pub use guard::guarded;
pub use mutants::Mutant;
pub use plan::Setting;
pub use verdict::{Counts, Verdict};
pub use world::run;
