//! The only shared code that knows tokio: it carries bytes and time to and from the pure machines.
//!
//! Everything impure is handed down as a value ([`env::Env`]), so that any number of servers run in
//! one process, and the same code runs on real sockets, disks and clocks or in a simulation.
//! Nothing here decides a protocol rule. The list of modules is closed: what fits none of them
//! belongs to the crate that needs it.

pub mod admin;
pub mod clock;
pub mod disk;
pub mod driver;
pub mod env;
pub mod outbox;
pub mod rng;
pub mod rpc;
pub mod tasks;
pub mod telemetry;
pub mod transport;
