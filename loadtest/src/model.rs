//! The protocol as models that stateright searches state by state, over the machines that run in production.
//!
//! ```text
//! search ── stateright: every order of actions, within bounds
//!   ├─ fills                             a cache and the table of its master, over a network without order
//!   ├─ directories ─┬─ crossing          a directory with its node in one cell and its children in another
//!   ├─ moves ───────'                    what is below a directory moves to another cell
//!   └─ protocol ── plan, action          which actions there are, and how many
//!        └─ world ── cell, proxy, client, wiring
//! ```
//!
//! A [`Plan`] says what a world is made of and how much may happen in it. Everything else is open: what arrives when, what
//! breaks, how long things take, who leads. An [`Omission`] leaves out a part of the protocol; each must show.

pub mod action;
pub mod crossing;
pub mod directories;
pub mod fills;
pub mod hashed;
pub mod history;
pub mod memo;
pub mod moves;
pub mod node;
pub mod omission;
pub mod plan;
pub mod protocol;
pub mod search;
pub mod time;
pub mod wires;
pub mod world;

mod cell;
mod client;
mod proxy;
#[cfg(test)]
mod tests;
mod wiring;

use std::hash::{DefaultHasher, Hash, Hasher};

pub use directories::Directories;
pub use fills::Fills;
pub use moves::Moves;
pub use omission::Omission;
pub use plan::{Bounds, Plan};
pub use protocol::Protocol;
pub use search::{Found, Limits, Order, search, search_widely};

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
