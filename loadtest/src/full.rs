//! The whole system in one process: replicas, proxies and client libraries with their real HTTP/2, gRPC and Raft, on
//! turmoil's network and in its time, under crashes, power losses, partitions and disks that fail.
//!
//! ```text
//! swarm ── plan      what kind of world, drawn from the seed
//!   ├─ layout        which machines, and which cell has what
//!   ├─ world         machines, their disks, the network between them
//!   ├─ faults        what goes wrong, and how it is mended
//!   ├─ users         what applications do; they note all of it in the journal
//!   ├─ operator      moves what they work on from cell to cell meanwhile
//!   └─ history, lives, relocation     what must hold of what they were told
//! ```
//!
//! Hand-made scenarios in `tests/simulation` use the same world, clients and checks. A run of one seed says the same,
//! byte for byte, if its process draws nothing from the system: see `hasp-sim-full`.

pub mod clients;
pub mod faults;
pub mod history;
pub mod journal;
pub mod layout;
pub mod lives;
mod machines;
pub mod operator;
pub mod plan;
pub mod relocation;
pub mod swarm;
pub mod telling;
pub mod users;
pub mod verdict;
pub mod world;
