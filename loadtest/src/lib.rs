//! The load test: thousands of real client sessions against a real system, measured and checked.
//!
//! ```text
//! run ── system: cells and proxies as child processes      (processes, system, status)
//!     ├─ crew: workers as child processes, for each phase   (crew, job)
//!     │    worker ── fleet: the clients, their ramp         (fleet, seeding)
//!     │           ├─ load: open-loop operations, checked    (workload, load, ops, check, measure)
//!     │           ├─ visits: sessions that come and go      (churn, visits)
//!     │           └─ audit: locks and writes seen by others (audit)
//!     ├─ faults, mover: what is done to servers and map    (faults, moves, mover)
//!     ├─ capacity: ever more clients, until something bends (capacity)
//!     └─ report                                             (window, points, report, page)
//! ```
//!
//! The first phase, the *baseline*, has clients straight at the masters; the second has them at
//! proxies. Both are measured in the same way, so the reduction that the report states compares two
//! measurements. Everything started here is stopped here, by process id.
//!
//! Beside it, [`bench`] is what the benchmarks in `examples/` share, `sim` runs the protocol's machines
//! in simulated worlds, and `full` whole systems.

pub mod bench;
pub mod capacity;
pub mod check;
pub mod churn;
pub mod crew;
pub mod faults;
#[cfg(feature = "full")]
pub mod full;
pub mod job;
pub mod measure;
#[cfg(feature = "model")]
pub mod model;
pub mod mover;
pub mod moves;
pub mod options;
pub mod page;
pub mod points;
pub mod ports;
pub mod processes;
pub mod procfs;
pub mod progress;
pub mod report;
pub mod series;
#[cfg(feature = "sim")]
pub mod sim;
pub mod status;
pub mod system;
pub mod tree;
pub mod window;
pub mod workload;

mod audit;
mod fleet;
mod interrupt;
mod load;
mod ops;
mod run;
mod seeding;
mod visits;
mod worker;

pub use interrupt::interrupted;
pub use options::LoadtestOptions;
pub use run::{Outcome, run};
pub use worker::worker;
