//! One of the clients: reads and writes at a low rate, whatever happens to the master, and checks
//! what it gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hasp_client::{Client, Epoch, ErrorCode, Generation, Handle, Position};
use hasp_loadtest::check::{ViolationKind, Violations};
use hasp_proto::time::Time;
use hasp_rt::env::Env;

/// What all clients share.
pub struct Shared {
    pub env: Env,
    /// Of each client's reads, and of each client's writes.
    pub pause: Duration,
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    /// By client: the generation of its file that a completed write is known to have made.
    pub written: Vec<AtomicU64>,
    /// Epoch of the master to be killed.
    pub old_epoch: AtomicU64,
    /// It is gone.
    pub is_gone: AtomicBool,
    pub is_over: AtomicBool,
}

impl Shared {
    pub fn new(env: &Env, clients: usize, pause: Duration) -> Arc<Self> {
        Arc::new(Self {
            env: env.clone(),
            pause,
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            written: (0..clients).map(|_| AtomicU64::new(0)).collect(),
            old_epoch: AtomicU64::new(0),
            is_gone: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        })
    }

    /// Whether an answer shows the state of a master after the one that is gone.
    fn is_from_successor(&self, position: Option<&Position>) -> bool {
        let old_epoch = Epoch(self.old_epoch.load(Ordering::Acquire));
        self.is_gone() && position.is_some_and(|position| position.epoch > old_epoch)
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Clients do not all act at the same moment.
    async fn wait_turn(&self, number: usize) {
        self.env.clock.sleep(self.pause * u32::try_from(number % 100).unwrap_or(0) / 100).await;
    }
}

/// What either half of a client brings back.
#[derive(Default)]
pub struct Outcome {
    /// When it was first answered by the new master.
    pub resumed: Option<Time>,
    pub violations: Violations,
    pub error: Option<String>,
}

/// The half that writes the client's own file.
pub struct Writer {
    pub number: usize,
    pub client: Client,
    pub handle: Handle,
    /// The last value acknowledged, and its generation.
    pub value: u64,
    pub generation: Generation,
    /// A later value of which nobody knows whether it was written.
    pub unknown: Option<u64>,
    pub outcome: Outcome,
}

/// What a client's file holds after so many writes.
pub fn value_of(number: usize, value: u64) -> String {
    format!("client {number} value {value}")
}

impl Writer {
    /// Writes until it is told to stop, every write a new value; half of them on condition of the
    /// generation before.
    pub async fn write_on(mut self, shared: Arc<Shared>) -> Self {
        shared.wait_turn(self.number).await;
        while !shared.is_over() && self.outcome.error.is_none() {
            let was_gone = shared.is_gone();
            if let Some(position) = self.write_next(&shared).await
                && self.outcome.resumed.is_none()
                && (was_gone || shared.is_from_successor(position.as_ref()))
            {
                self.outcome.resumed = Some(shared.env.clock.now());
            }
            shared.env.clock.sleep(shared.pause).await;
        }
        self
    }

    async fn write_next(&mut self, shared: &Shared) -> Option<Option<Position>> {
        let value = self.value + 1;
        let condition = value.is_multiple_of(2).then_some(self.generation);
        match self.handle.set_contents(value_of(self.number, value), condition).await {
            Ok(written) => {
                if written.previous_generation != self.generation {
                    let (found, known) = (written.previous_generation, self.generation);
                    let why = format!("client {}: generation {found} replaced, not {known}", self.number);
                    self.outcome.violations.add(ViolationKind::LostOrRepeatedWrite.because(why));
                }
                (self.value, self.generation) = (value, written.content_generation);
                shared.written[self.number].store(self.generation.0, Ordering::Release);
                shared.writes.fetch_add(1, Ordering::Relaxed);
                Some(written.position)
            }
            Err(error) => {
                if error.code == ErrorCode::GenerationMismatch {
                    let why = format!("client {}: value {value} refused, nobody else writes", self.number);
                    self.outcome.violations.add(ViolationKind::LostOrRepeatedWrite.because(why));
                } else {
                    self.unknown = Some(value);
                }
                self.outcome.error = Some(format!("client {}: value {value}: {error}", self.number));
                None
            }
        }
    }
}

/// The half that reads another client's file.
pub struct Reader {
    pub number: usize,
    /// Whose file.
    pub of: usize,
    pub handle: Handle,
    pub outcome: Outcome,
}

impl Reader {
    /// Reads until it is told to stop; no read may show less than a write that completed before it
    /// began.
    pub async fn read_on(mut self, shared: Arc<Shared>) -> Self {
        shared.wait_turn(self.number + 50).await;
        while !shared.is_over() && self.outcome.error.is_none() {
            let floor = Generation(shared.written[self.of].load(Ordering::Acquire));
            match self.handle.get_contents_and_stat().await {
                Ok(read) => {
                    shared.reads.fetch_add(1, Ordering::Relaxed);
                    let found = read.stat.content_generation;
                    if found < floor {
                        let why =
                            format!("{}: read generation {found}, {floor} was written", self.handle.name());
                        self.outcome.violations.add(ViolationKind::StaleRead.because(why));
                    }
                    if self.outcome.resumed.is_none() && shared.is_from_successor(read.position.as_ref()) {
                        self.outcome.resumed = Some(shared.env.clock.now());
                    }
                }
                Err(error) => {
                    self.outcome.error = Some(format!("read of {}: {error}", self.handle.name()));
                }
            }
            shared.env.clock.sleep(shared.pause).await;
        }
        self
    }
}
