//! Thousands of clients of a benchmark, in worker processes: those of the load test, at the proxies of the system
//! that is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::bench::Bench;
use crate::check::Violations;
use crate::crew::{Crew, CrewProgress};
use crate::job::{Checks, Finished, Job, Order, Progress, Sessions};
use crate::measure::{OpStats, Summary};
use crate::options::{LoadtestOptions, shares};
use crate::procfs::raise_open_files;
use crate::seeding;
use crate::status::StatusReader;
use crate::system::cell_roots;
use crate::tree::TreeSpec;
use crate::workload::Rates;

/// Beyond what its rate makes it take, a ramp may take this long.
const RAMP_SLACK: Duration = Duration::from_secs(120);
/// How long operations under way, and the ends of sessions, may take.
const FINISH: Duration = Duration::from_secs(120);
/// How long sessions may take to stand elsewhere: beyond the longest lease and its grace period they are lost.
const STANDING: Duration = Duration::from_secs(120);
/// Between two looks at who stands where.
const LOOK: Duration = Duration::from_millis(100);

/// Clients that have their sessions.
pub struct Crowd {
    crew: Crew,
    clients: usize,
}

/// How many have a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Sessions that the proxies have: of a client that left one of them two, for a while.
    pub at_proxies: u64,
    /// Clients that speak with a proxy.
    pub connected: u64,
    /// Clients that have lost their sessions.
    pub lost: u64,
}

impl Standing {
    const fn is_all(self, clients: u64) -> bool {
        self.at_proxies >= clients && self.connected + self.lost >= clients
    }
}

/// What became of them.
#[derive(Debug, Default)]
pub struct Fate {
    /// Of the clients.
    pub sessions: Sessions,
    /// Operations done.
    pub ops: u64,
    /// Operations and checks that failed for want of a good answer.
    pub errors: u64,
    /// Why, for the first few.
    pub failures: Vec<String>,
    /// Of all operations together.
    pub latency: Summary,
    /// What the checks did.
    pub checks: Checks,
    /// What the checks found.
    pub violations: Violations,
}

impl Crowd {
    /// Writes the files that they use, gets each client its session at one of the proxies, and lets them begin with their
    /// operations.
    ///
    /// # Errors
    /// The service is not reached, a worker failed, or a client has no session.
    pub async fn begin(bench: &Bench, clients: usize, rates: Rates) -> anyhow::Result<Self> {
        let targets = bench.system.proxy_addresses();
        let roots = cell_roots(bench.system.cells.len());
        let tree = TreeSpec::new(roots.iter().map(|root| format!("{root}/crowd")).collect(), clients);
        seeding::plant(&bench.env, &targets, &tree, 1, |_| {}).await?;
        let options = LoadtestOptions::default();
        let workers = options.workers(clients, 1, raise_open_files());
        let ramp_per_s = options.ramp_per_s(clients);
        let job = |(worker, (first_client, clients))| Job {
            worker,
            first_client,
            clients,
            targets: targets.clone(),
            tree: tree.clone(),
            rates,
            churn: None,
            ramp_per_s: ramp_per_s / workers as f64,
            sessions_per_connection: 1,
            seed: 1,
        };
        let jobs: Vec<_> = shares(clients, workers).into_iter().enumerate().map(job).collect();
        let mut crew = Crew::start(&bench.env, &bench.processes, "crowd", &jobs).await?;
        let deadline = Duration::from_secs_f64(clients as f64 / ramp_per_s) + RAMP_SLACK;
        crew.ramped(deadline, |_| {}).await?;
        let opened = crew.progress().all.sessions.opened;
        ensure!(opened == clients as u64, "only {opened} of {clients} clients have a session");
        crew.order(Order::Begin).await?;
        Ok(Self { crew, clients })
    }

    /// Listens to the workers for so long; gives how they stand then.
    ///
    /// # Errors
    /// A worker failed.
    pub async fn listen(&mut self, duration: Duration) -> anyhow::Result<CrewProgress> {
        self.crew.listen(duration, |_| {}).await?;
        Ok(self.crew.progress())
    }

    /// Waits until the proxies have a session for each client, and each client that has not lost its own speaks with one of
    /// them; gives how long that took.
    ///
    /// A session that a proxy has welcomed is safe: its lease is that proxy's. A client may have been with two of them, of
    /// which one does not know yet that it is gone. `show` is called with every look.
    ///
    /// # Errors
    /// Not within two minutes, or a worker failed.
    pub async fn all_stand(
        &mut self,
        bench: &Bench,
        mut show: impl FnMut(Duration, Standing),
    ) -> anyhow::Result<Duration> {
        let clock = &bench.env.clock;
        let began = clock.now();
        let mut reader = StatusReader::new(bench.env.clone());
        let proxies = bench.system.proxy_addresses();
        loop {
            let answers = reader.ask_all(&proxies).await;
            let passed = clock.now().saturating_since(began);
            let Progress { connected, sessions, .. } = self.crew.progress().all;
            let at_proxies = answers.values().map(|status| status.sessions).sum();
            let standing = Standing { at_proxies, connected, lost: sessions.lost };
            show(passed, standing);
            if standing.is_all(self.clients as u64) {
                return Ok(passed);
            }
            ensure!(passed < STANDING, "of {} clients after {STANDING:?}: {standing:?}", self.clients);
            self.listen(LOOK).await?;
        }
    }

    /// KeepAlives that the proxies have received, by their addresses, each since it was started.
    pub async fn keep_alives(bench: &Bench, reader: &mut StatusReader) -> BTreeMap<String, u64> {
        let answers = reader.ask_all(&bench.system.proxy_addresses()).await;
        answers.into_iter().map(|(address, status)| (address, status.keep_alives)).collect()
    }

    /// Ends the load, then the sessions.
    ///
    /// # Errors
    /// A worker failed.
    pub async fn end(mut self) -> anyhow::Result<Fate> {
        self.crew.order(Order::End).await?;
        Fate::of(self.crew.finished(FINISH).await?.into_values())
    }
}

impl Fate {
    fn of(finished: impl Iterator<Item = Finished>) -> anyhow::Result<Self> {
        let (mut fate, mut ops) = (Self::default(), OpStats::default());
        let mut late_writes = Violations::default();
        for finished in finished {
            fate.sessions.add(finished.sessions);
            fate.checks.add(finished.checks);
            fate.violations.merge(finished.violations);
            late_writes.merge(finished.late_writes);
            ops.merge(&finished.ops).context("add up what the workers did")?;
        }
        // A late write is explained by a write of which nobody learned what became of it.
        if fate.checks.unknown_writes == 0 {
            fate.violations.merge(late_writes);
        }
        fate.ops = ops.count();
        fate.errors = ops.errors() + fate.checks.errors;
        fate.failures = ops.failures().to_vec();
        fate.latency = ops.all().summary();
        Ok(fate)
    }

    /// Fails if a session was lost, or anything else went wrong that may not.
    ///
    /// # Errors
    /// All of it, for people.
    pub fn judge(&self) -> anyhow::Result<()> {
        let mut faults = self.failures.clone();
        faults.extend(self.violations.examples.iter().map(ToString::to_string));
        let faults = faults.join("; ");
        ensure!(self.sessions.lost == 0, "{} sessions were lost: {faults}", self.sessions.lost);
        ensure!(self.violations.count == 0, "{} checks failed: {faults}", self.violations.count);
        ensure!(self.errors == 0, "{} operations failed: {faults}", self.errors);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::ViolationKind;

    fn judged(change: impl FnOnce(&mut Fate)) -> Result<(), String> {
        let mut fate = Fate::default();
        change(&mut fate);
        fate.judge().map_err(|error| error.to_string())
    }

    #[test]
    fn a_crowd_fares_well_unless_a_session_a_check_or_an_operation_failed() {
        assert_eq!(judged(|fate| fate.sessions.jeopardy = 3), Ok(()), "reported, and no failure by itself");

        let lost = judged(|fate| fate.sessions.lost = 2).expect_err("lost");
        assert!(lost.starts_with("2 sessions were lost"), "{lost}");
        let violated = judged(|fate| fate.violations.add(ViolationKind::StaleRead.because("4 after 5")));
        assert!(violated.expect_err("violated").contains("4 after 5"));
        let failed = judged(|fate| (fate.errors, fate.failures) = (1, vec!["open: no answer".into()]));
        assert_eq!(failed, Err("1 operations failed: open: no answer".into()));
    }
}
