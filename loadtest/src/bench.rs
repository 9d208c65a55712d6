//! What the benchmarks in `examples/` share: a system to measure, the machine's own figures beside
//! it, and a table with targets.

mod belief;
mod cpu;
mod crowd;
mod figures;
mod metrics;
mod session;
mod spans;
mod steady;
mod yardstick;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use hasp_rt::env::Env;
use tempfile::TempDir;

use crate::interrupted;
use crate::processes::{Ended, Processes};
use crate::procfs::raise_open_files;
use crate::status::StatusReader;
use crate::system::{Server, System, SystemSpec};

pub use cpu::{Cpu, CpuWindow};
pub use crowd::{Crowd, Fate, Standing};
pub use figures::Figures;
pub use metrics::Scrape;
pub use session::{BareSession, Connector};
pub use spans::{Span, during_and_between, longest_overlapping};
pub use steady::Rate;
pub use yardstick::Yardstick;

/// How long what was started may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// A system under measurement, alone with its benchmark.
pub struct Bench {
    /// The benchmark's own world.
    pub env: Env,
    /// Starts children of the `hasp` program.
    pub processes: Processes,
    /// What is measured.
    pub system: System,
}

impl Bench {
    /// Starts a system of child processes of the program `hasp`, lets `work` measure it, and stops it.
    ///
    /// If that fails, the directory with the servers' logs is kept, and the error names it.
    ///
    /// # Errors
    /// Those of `work`; a server ended by itself or could not be started; somebody wants it to stop.
    pub async fn run<T>(
        hasp: PathBuf,
        spec: &SystemSpec,
        work: impl AsyncFnOnce(&mut Bench) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        raise_open_files();
        let env = Env::system().context("look at the world")?;
        let home = tempfile::tempdir().context("make a temporary directory")?;
        let (processes, mut ended) = Processes::new(env.clone(), hasp, home.path().to_owned());
        let result = async {
            let starting = System::start(&env, &processes, spec, home.path());
            let system = until_stopped(starting, &mut ended).await?;
            let mut bench = Bench { env: env.clone(), processes, system };
            let measured = until_stopped(work(&mut bench), &mut ended).await;
            // Who ends from here on, ends because of that.
            let stopped = bench.system.stop().await;
            let left = bench.processes.stop_left().await;
            measured.and_then(|measured| stopped.and(left).map(|()| measured))
        }
        .await;
        env.tasks.abort();
        let drained = env.tasks.drain(DRAIN_DEADLINE).await.context("stop everything");
        keep_on_error(result.and_then(|measured| drained.map(|()| measured)), home)
    }

    /// The master of a cell, as its replicas say.
    ///
    /// # Errors
    /// There is no such cell, or no replica says that it is the master.
    pub async fn master(&self, cell: &str) -> anyhow::Result<(usize, &Server)> {
        let mut reader = StatusReader::new(self.env.clone());
        let servers = self.system.cells.get(cell).with_context(|| format!("find cell {cell}"))?;
        let addresses: Vec<_> = servers.iter().map(|server| server.address.clone()).collect();
        let answers = reader.ask_all(&addresses).await;
        let is_master = |server: &&Server| answers.get(&server.address).is_some_and(|s| s.is_master());
        let master = servers.iter().position(|server| is_master(&server));
        let index = master.with_context(|| format!("find the master of cell {cell}: nobody says it is"))?;
        Ok((index, &servers[index]))
    }
}

/// Fails too if a child ends by itself, or somebody wants the benchmark to stop.
async fn until_stopped<T>(
    measuring: impl Future<Output = anyhow::Result<T>>,
    ended: &mut Ended,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        result = measuring => result,
        why = ended.unasked() => Err(why),
        signal = interrupted() => Err(anyhow::anyhow!("stopped by {signal}")),
    }
}

fn keep_on_error<T>(result: anyhow::Result<T>, home: TempDir) -> anyhow::Result<T> {
    result.map_err(|error| {
        let kept = home.keep();
        error.context(format!("logs are in {}", kept.display()))
    })
}
