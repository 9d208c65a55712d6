//! What a server needs from the world, as one value: clock, network, disk, randomness, tasks.
//!
//! Everything that runs is built from an [`Env`] and its configuration, so a test gives each of
//! many servers in one process a world of its own.

use std::io;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::disk::{Disk, FileDisk};
use crate::rng::Seeds;
use crate::tasks::Tasks;
use crate::transport::{TcpTransport, Transport};

/// The world of one server, or of one client library. Cheap to clone; clones share the world.
#[derive(Clone)]
pub struct Env {
    /// Where time is read.
    pub clock: Arc<dyn Clock>,
    /// How others are reached.
    pub transport: Arc<dyn Transport>,
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// Where random streams come from.
    pub seeds: Seeds,
    /// Where tasks are started, and stopped.
    pub tasks: Tasks,
}

impl Env {
    /// The real world.
    ///
    /// # Errors
    /// If the system has no entropy to give.
    pub fn system() -> io::Result<Self> {
        Ok(Self {
            clock: Arc::new(SystemClock),
            transport: Arc::new(TcpTransport::new()),
            disk: Arc::new(FileDisk),
            seeds: Seeds::from_os()?,
            tasks: Tasks::new(),
        })
    }

    /// The same world for one of several servers: streams of its own under `label`, and a scope of
    /// tasks that can be stopped alone.
    pub fn child(&self, label: &str) -> Self {
        Self { seeds: self.seeds.child(label), tasks: self.tasks.child(), ..self.clone() }
    }
}

#[cfg(any(test, feature = "sim"))]
impl Env {
    /// A world in memory for tests: tokio's clock, pipes, a disk of its own, a seed.
    ///
    /// Replace single fields for a simulated network or a shared one.
    pub fn in_memory(seed: u64) -> Self {
        Self {
            clock: Arc::new(crate::clock::TokioClock::new()),
            transport: Arc::new(crate::transport::PipeTransport::new()),
            disk: Arc::new(crate::disk::MemDisk::new()),
            seeds: Seeds::from_seed(seed),
            tasks: Tasks::new(),
        }
    }
}
