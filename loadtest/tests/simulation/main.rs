//! The whole system in one process: replicas, proxies and client libraries with their real HTTP/2, gRPC and Raft, on
//! turmoil's network and in its time, under crashes, power losses and partitions.
//!
//! Each scenario makes trouble first, then lets everything recover, then checks what the clients were told
//! ([`history`]) and that all of them get answers again. A seed decides the faults, their times and the load.
//!
//! ```text
//! HASP_SIM_SEEDS=0..30 cargo test -p hasp-loadtest --test simulation      other seeds than the usual few
//! HASP_SIM_SEEDS=7 RUST_LOG=hasp=debug ... -- --nocapture NAME            one seed, with what the servers say
//! ```

mod crashes;
mod hand_over;
mod locks;
mod partitions;
mod proxies;
mod seeds;

use hasp_loadtest::full::{clients, history, journal, world};
