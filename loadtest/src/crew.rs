//! The workers of one phase: started, told when to begin and end, and listened to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hasp_proto::time::Time;
use hasp_rt::env::Env;
use tokio::sync::mpsc;

use crate::job::{Finished, Job, Order, Progress, Ramped, Said};
use crate::measure::Latencies;
use crate::processes::{Process, Processes, Spec, stop_all};
use crate::window::{Member, Role};

/// Words of all workers waiting to be heard.
const WORDS: usize = 1_024;
/// How long a worker may be silent: it says something every half second.
const SILENCE: Duration = Duration::from_secs(60);

/// The workers of one phase.
pub struct Crew {
    env: Env,
    workers: Vec<Worker>,
    /// Of operations that nobody asked for yet.
    recent: Latencies,
    said: mpsc::Receiver<Word>,
    /// For workers that join.
    said_in: mpsc::Sender<Word>,
}

/// What a worker said, by its place among the workers.
type Word = (usize, anyhow::Result<Said>);

struct Worker {
    process: Process,
    latest: Progress,
    has_begun: bool,
    ramped: Option<Ramped>,
    finished: Option<Finished>,
}

/// How all workers together stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrewProgress {
    /// Sums of what each said last.
    pub all: Progress,
    /// Since the phase began, by the clock of the load test.
    pub at: Time,
}

impl Crew {
    /// Starts a worker for each of these jobs.
    ///
    /// # Errors
    /// One cannot be started or does not take its job.
    pub async fn start(env: &Env, processes: &Processes, phase: &str, jobs: &[Job]) -> anyhow::Result<Self> {
        let (said_in, said) = mpsc::channel(WORDS);
        let recent = Latencies::new();
        let mut crew = Self { env: env.clone(), workers: Vec::new(), recent, said, said_in };
        crew.join(processes, phase, jobs).await?;
        Ok(crew)
    }

    /// Starts more workers, which have not begun.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn join(&mut self, processes: &Processes, phase: &str, jobs: &[Job]) -> anyhow::Result<()> {
        for job in jobs {
            let index = self.workers.len();
            let name = format!("worker-{phase}-{}", index + 1);
            let mut process = processes.start(&Spec::new(name, ["loadtest-worker"]))?;
            process.must_run()?;
            process.tell(&serde_json::to_string(job).context("write job")?).await?;
            let lines = process.take_lines().context("listen to a worker")?;
            let words = hear(index, process.name().to_owned(), lines, self.said_in.clone());
            self.env.tasks.spawn("worker-words", words);
            let latest = Progress::default();
            self.workers.push(Worker { process, latest, has_begun: false, ramped: None, finished: None });
        }
        Ok(())
    }

    /// How many workers there are.
    pub const fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The worker processes, to look at.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.workers.iter().map(|worker| Member {
            role: Role::Worker,
            name: worker.process.name().to_owned(),
            pid: Some(worker.process.pid()),
            address: None,
        })
    }

    /// Waits until all clients have their sessions; `show` is called with every news.
    ///
    /// # Errors
    /// A worker failed, or it takes longer than `deadline`.
    pub async fn ramped(
        &mut self,
        deadline: Duration,
        mut show: impl FnMut(&CrewProgress),
    ) -> anyhow::Result<Vec<Ramped>> {
        if !self.ramp_ends(deadline, &mut show).await? {
            let opened = self.progress().all.sessions.opened;
            bail!("only {opened} sessions were opened within {deadline:?}");
        }
        Ok(self.ramps(0))
    }

    /// Waits until all clients have their sessions; `false` if they have not within `deadline`.
    ///
    /// # Errors
    /// A worker failed.
    pub async fn ramp_ends(
        &mut self,
        deadline: Duration,
        mut show: impl FnMut(&CrewProgress),
    ) -> anyhow::Result<bool> {
        let until = self.env.clock.now() + deadline;
        while self.workers.iter().any(|worker| worker.ramped.is_none()) {
            if !self.hear_until(until).await? {
                return Ok(false);
            }
            show(&self.progress());
        }
        Ok(true)
    }

    /// How the ramps of all workers but the first went.
    pub fn ramps(&self, first: usize) -> Vec<Ramped> {
        self.workers.iter().skip(first).filter_map(|worker| worker.ramped.clone()).collect()
    }

    /// Kills all workers but the first, which did not get on.
    ///
    /// # Errors
    /// One would not go.
    pub async fn dismiss(&mut self, first: usize) -> anyhow::Result<()> {
        for mut worker in self.workers.drain(first.min(self.workers.len())..) {
            worker.process.kill().await?;
        }
        Ok(())
    }

    /// Tells all workers something; to begin only those that have not.
    ///
    /// # Errors
    /// One does not listen.
    pub async fn order(&mut self, order: Order) -> anyhow::Result<()> {
        let line = serde_json::to_string(&order).context("write order")?;
        for worker in &mut self.workers {
            match order {
                Order::Begin if std::mem::replace(&mut worker.has_begun, true) => continue,
                Order::Begin => {}
                Order::End => worker.process.may_end(),
            }
            worker.process.tell(&line).await?;
        }
        Ok(())
    }

    /// Listens for `duration`; `show` is called with every news.
    ///
    /// # Errors
    /// A worker failed.
    pub async fn listen(
        &mut self,
        duration: Duration,
        mut show: impl FnMut(&CrewProgress),
    ) -> anyhow::Result<()> {
        let until = self.env.clock.now() + duration;
        while self.hear_until(until).await? {
            show(&self.progress());
        }
        Ok(())
    }

    /// Waits, after [`Order::End`], until every worker has said what it measured and is gone. By
    /// process id.
    ///
    /// # Errors
    /// A worker failed, or it takes longer than `deadline`.
    pub async fn finished(mut self, deadline: Duration) -> anyhow::Result<BTreeMap<u32, Finished>> {
        let until = self.env.clock.now() + deadline;
        while self.workers.iter().any(|worker| worker.finished.is_none()) {
            if !self.hear_until(until).await? {
                let late = self.workers.iter().find(|worker| worker.finished.is_none());
                let late = late.map_or_else(String::new, |worker| {
                    format!("{}; its log ends:\n{}", worker.process.name(), worker.process.log_tail())
                });
                bail!("no result within {deadline:?} from {late}");
            }
        }
        for worker in &mut self.workers {
            let left = until.saturating_since(self.env.clock.now());
            worker.process.exited(left).await;
        }
        stop_all(self.workers.iter_mut().map(|worker| &mut worker.process)).await?;
        let results = self.workers.into_iter();
        Ok(results.filter_map(|worker| Some((worker.process.pid(), worker.finished?))).collect())
    }

    /// Hears one word; `false` if the time was over before there was one.
    async fn hear_until(&mut self, until: Time) -> anyhow::Result<bool> {
        let left = until.saturating_since(self.env.clock.now());
        if left.is_zero() {
            return Ok(false);
        }
        let Ok(word) = tokio::time::timeout(left.min(SILENCE), self.said.recv()).await else {
            if left > SILENCE {
                bail!("the workers said nothing for {SILENCE:?}");
            }
            return Ok(false);
        };
        let Some((index, said)) = word else { bail!("the workers are gone") };
        // What somebody still says who was dismissed is nobody's business.
        let Some(worker) = self.workers.get_mut(index) else { return Ok(true) };
        match said {
            Ok(Said::Progress(progress)) => worker.latest = progress,
            Ok(Said::Recent(pairs)) => self.recent.merge(&Latencies::from_pairs(&pairs)),
            Ok(Said::Ramped(ramped)) => worker.ramped = Some(ramped),
            Ok(Said::Finished(finished)) => worker.finished = Some(*finished),
            // Its end is told only after all it said was heard.
            Err(_) if worker.finished.is_some() => {}
            Err(error) => {
                worker.process.exited(Duration::from_secs(1)).await;
                return Err(error.context(format!("its log ends:\n{}", worker.process.log_tail())));
            }
        }
        Ok(true)
    }

    /// Latencies of the operations that were done since this was asked last.
    pub fn take_recent(&mut self) -> Latencies {
        self.recent.take()
    }

    /// How all of them stand.
    pub fn progress(&self) -> CrewProgress {
        let mut all = Progress::default();
        for worker in &self.workers {
            all.sessions.add(worker.latest.sessions);
            all.connected += worker.latest.connected;
            all.ops += worker.latest.ops;
            all.errors += worker.latest.errors;
            all.violations += worker.latest.violations;
        }
        CrewProgress { all, at: self.env.clock.now() }
    }
}

/// Passes on what a worker says, until its output ends.
async fn hear(
    index: usize,
    name: String,
    mut lines: mpsc::Receiver<String>,
    said: mpsc::Sender<(usize, anyhow::Result<Said>)>,
) {
    while let Some(line) = lines.recv().await {
        let word = serde_json::from_str(&line).with_context(|| format!("understand {name}: {line:?}"));
        if said.send((index, word)).await.is_err() {
            return;
        }
    }
    let gone = Err(anyhow::anyhow!("{name} said no more"));
    let _ = said.send((index, gone)).await;
}
