//! Whole replicas over an in-memory network and memory disks, in paused time.

mod cuts;
mod founding;
mod leading;
mod partitions;
mod rebuilding;
mod snapshots;
mod standing;
mod swarm;
mod votes;
mod world;
mod write_loss;

pub use cuts::Cuts;
pub use world::{Items, address};
