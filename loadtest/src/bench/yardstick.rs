//! What the bare machine does in the same run: figures of a service mean little without them on a
//! machine that is shared.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the real machine is what is measured here"
)]

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use hasp_rt::clock::Clock;
use hasp_rt::env::Env;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::Figures;
use crate::measure::Latencies;

/// Steps of the loop.
const STEPS: u64 = 100_000_000;
/// Messages there and back.
const ROUND_TRIPS: usize = 3_000;
/// Of each message, in bytes.
const MESSAGE: usize = 128;
/// Writes that are synced.
const SYNCS: usize = 200;
/// Of each, in bytes.
const WRITE: usize = 4_096;

/// What the bare machine does, taken while nothing else of the benchmark runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yardstick {
    /// One step of a loop that only counts, in nanoseconds: 1 / clock rate and what others steal of it.
    pub step_ns: f64,
    /// A message over a TCP connection of the loopback and back, median in microseconds.
    pub round_trip_us: f64,
    /// Appending 4 KiB to a file and syncing it, median in microseconds.
    pub sync_us: f64,
}

impl Yardstick {
    /// Takes about a second. Files are written below `directory`, on the disk that is of interest.
    ///
    /// # Errors
    /// The file or the connection fails.
    pub async fn take(env: &Env, directory: &Path) -> anyhow::Result<Self> {
        let clock = &*env.clock;
        Ok(Self {
            step_ns: step_ns(clock),
            round_trip_us: round_trip_us(clock).await.context("send to oneself")?,
            sync_us: sync_us(clock, directory).context("sync a file")?,
        })
    }

    /// Halfway between this and another.
    #[must_use]
    pub fn mean(self, other: Self) -> Self {
        Self {
            step_ns: f64::midpoint(self.step_ns, other.step_ns),
            round_trip_us: f64::midpoint(self.round_trip_us, other.round_trip_us),
            sync_us: f64::midpoint(self.sync_us, other.sync_us),
        }
    }

    /// Adds it to a benchmark's figures.
    pub fn note(&self, figures: &mut Figures) {
        figures.note("bare_step_ns", "bare machine: step of a counting loop, ns", self.step_ns);
        figures.note(
            "bare_round_trip_us",
            "bare machine: 128 B over loopback and back, us",
            self.round_trip_us,
        );
        figures.note("bare_sync_us", "bare machine: 4 KiB appended and synced, us", self.sync_us);
    }
}

fn step_ns(clock: &dyn Clock) -> f64 {
    let began = clock.now();
    let mut state = black_box(1_u64);
    for step in 0..STEPS {
        // Each step waits for the one before, and no compiler finds a shorter way.
        state = (state ^ (state << 13) ^ (state >> 7)).wrapping_add(step);
    }
    black_box(state);
    clock.now().saturating_since(began).as_secs_f64() * 1e9 / STEPS as f64
}

async fn round_trip_us(clock: &dyn Clock) -> std::io::Result<f64> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let answering = async {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut message = [0; MESSAGE];
        for _ in 0..ROUND_TRIPS {
            stream.read_exact(&mut message).await?;
            stream.write_all(&message).await?;
        }
        std::io::Result::Ok(())
    };
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut message, mut latencies) = ([0; MESSAGE], Latencies::new());
        for _ in 0..ROUND_TRIPS {
            let began = clock.now();
            stream.write_all(&message).await?;
            stream.read_exact(&mut message).await?;
            latencies.record(clock.now().saturating_since(began));
        }
        std::io::Result::Ok(latencies.summary().p50_us as f64)
    };
    let (answered, median) = tokio::join!(answering, asking);
    answered.and(median)
}

fn sync_us(clock: &dyn Clock, directory: &Path) -> std::io::Result<f64> {
    let path = directory.join("yardstick");
    let mut file = File::create(&path)?;
    let mut latencies = Latencies::new();
    for _ in 0..SYNCS {
        let began = clock.now();
        file.write_all(&[b'y'; WRITE])?;
        file.sync_data()?;
        latencies.record(clock.now().saturating_since(began));
    }
    std::fs::remove_file(&path)?;
    Ok(latencies.summary().p50_us as f64)
}
