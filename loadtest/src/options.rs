//! What a load test is asked to do, and how many processes that takes.
//!
//! Pure.

mod mode;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};

use crate::faults::Fault;
use crate::workload::{Mix, Rates};

pub use mode::Mode;

/// Open files that a process keeps for everything but its clients' connections: short-lived
/// sessions, logs, other servers.
pub const OPEN_FILES_SLACK: usize = 512;

/// Sessions opened per second at most, over all workers.
const RAMP_PER_S_MAX: f64 = 2_000.0;

/// A ramp takes at least this long, one KeepAlive period: so KeepAlives are spread evenly, and a
/// count over any window is fair.
const RAMP_MIN: Duration = Duration::from_secs(8);

/// From one fault to the next, and after the last, at least.
const SECONDS_PER_FAULT: Duration = Duration::from_secs(5);

/// The most baseline clients unless asked for.
const BASELINE_CLIENTS: usize = 3_000;

/// What to do. [`LoadtestOptions::default`] is what the command does without flags.
#[derive(Clone, Debug)]
pub struct LoadtestOptions {
    /// What is to be found out.
    pub mode: Mode,
    /// Clients through proxies; in search of the greatest number, where it ends.
    pub clients: usize,
    /// Numbers of clients to be measured one after another, each greater than the one before and `clients` the last;
    /// none: only `clients`. For clients that stay.
    pub sizes: Vec<usize>,
    /// By how many clients the load grows in search of the greatest number; `None`: in ten steps.
    pub step: Option<usize>,
    /// In that search, the latency that 99 of 100 operations must not exceed.
    pub latency_max: Duration,
    /// Sessions that come each second, and as many that go, beside those that stay; `None`: one for a hundred clients.
    pub churn_per_s: Option<f64>,
    /// How long each of these stays.
    pub churn_stay: Duration,
    /// Proxies to start.
    pub proxies: usize,
    /// Proxies to start between those and the cells; 0: each proxy has a session with each cell.
    pub upper_proxies: usize,
    /// Cells to start.
    pub cells: usize,
    /// Replicas of each cell.
    pub replicas: usize,
    /// All directories are on a ring, spread over the cells, with their nodes in the first.
    pub ring: bool,
    /// How long each measurement lasts.
    pub duration: Duration,
    /// Clients straight at the masters, for the baseline; `None` is the smaller of `clients` and
    /// 3,000 if they are to stay and else none, and 0 leaves it out.
    pub baseline_clients: Option<usize>,
    /// Clients that share a connection.
    pub sessions_per_connection: usize,
    /// Which operations; `None` is the paper's table.
    pub mix: Option<Mix>,
    /// Operations per second and client; `None` is [what is usual](Mix::usual_total) with the mix. With
    /// 0 there are only KeepAlives, and no checks: what they alone cost.
    pub rate: Option<f64>,
    /// Proxies that run already; none are started then, and no cells.
    pub targets: Vec<String>,
    /// Where the report is written as JSON.
    pub json: Option<PathBuf>,
    /// Where the report is written as a page for browsers.
    pub page: Option<PathBuf>,
    /// What is done to the servers under load, one after another.
    pub faults: Vec<Fault>,
    /// For everything left to chance.
    pub seed: u64,
    /// The `hasp` command to start servers and workers with; `None` is the running program.
    pub binary: Option<PathBuf>,
}

impl Default for LoadtestOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Hold,
            clients: 3_000,
            sizes: Vec::new(),
            step: None,
            latency_max: Duration::from_secs(1),
            churn_per_s: None,
            churn_stay: Duration::from_secs(5),
            proxies: 3,
            upper_proxies: 0,
            cells: 2,
            replicas: 3,
            ring: false,
            duration: Duration::from_secs(30),
            baseline_clients: None,
            sessions_per_connection: 1,
            mix: None,
            rate: None,
            targets: Vec::new(),
            json: None,
            page: None,
            faults: Vec::new(),
            seed: 1,
            binary: None,
        }
    }
}

impl LoadtestOptions {
    /// Whether all directories are on a ring.
    pub fn has_ring(&self) -> bool {
        self.ring || self.mix.is_some_and(|mix| mix.is_partitioned())
    }

    /// Clients of the baseline; 0 if there is none.
    pub fn baseline_clients(&self) -> usize {
        self.baseline_clients.unwrap_or_else(|| match self.mode {
            Mode::Hold => self.clients.min(BASELINE_CLIENTS),
            Mode::Churn | Mode::Capacity => 0,
        })
    }

    /// Checks what is asked against itself and against the limit of open files of a process.
    ///
    /// # Errors
    /// The first thing that cannot be, and what would help.
    pub fn validate(&self, open_files: usize) -> anyhow::Result<()> {
        ensure!(self.clients > 0, "--clients must be at least 1");
        ensure!(self.sessions_per_connection > 0, "--sessions-per-connection must be at least 1");
        ensure!(self.duration >= Duration::from_secs(1), "--duration must be at least 1s");
        ensure!(self.duration <= Duration::from_secs(86_400), "--duration must be at most a day");
        if let Some(rate) = self.rate {
            ensure!((0.0..=10_000.0).contains(&rate), "--rate must be from 0 to 10000 operations per second");
        }
        ensure!(
            open_files > OPEN_FILES_SLACK,
            "the limit of open files is {open_files}: raise it (ulimit -n)"
        );
        self.check_mode()?;
        self.check_faults()?;
        ensure!(
            !self.has_ring() || self.targets.is_empty(),
            "--ring and --mix partitioned need cells of its own, not those of --target"
        );
        if !self.targets.is_empty() {
            ensure!(
                self.upper_proxies == 0,
                "--upper-proxies needs servers of its own, not those of --target"
            );
            return Ok(());
        }
        ensure!((1..=26).contains(&self.cells), "--cells must be from 1 to 26");
        ensure!((1..=7).contains(&self.replicas), "--replicas must be from 1 to 7");
        ensure!(
            self.upper_proxies == 0 || self.proxies > 0,
            "--upper-proxies needs --proxies 1 or more, which are behind them"
        );
        ensure!((1..=1_000).contains(&self.proxies), "--proxies must be from 1 to 1000");
        ensure!(self.upper_proxies <= 1_000, "--upper-proxies must be from 0 to 1000");
        self.check_servers(open_files - OPEN_FILES_SLACK)
    }

    /// Whether there is somebody to do things to, time to do them in, and somebody else left meanwhile.
    fn check_faults(&self) -> anyhow::Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        ensure!(self.targets.is_empty(), "--faults needs servers of its own, not those of --target");
        for fault in &self.faults {
            let (is_possible, what) = match fault {
                Fault::ProxyKill | Fault::ProxyRestart => {
                    (self.proxies >= 2, "--proxies 2 or more, so that clients have somewhere to go")
                }
                Fault::UpperProxyKill => (
                    self.upper_proxies >= 2,
                    "--upper-proxies 2 or more, so that the proxies behind them have somewhere to go",
                ),
                Fault::MasterKill | Fault::MasterRestart => {
                    (self.replicas >= 3, "--replicas 3 or more, so that there is another master")
                }
                Fault::Move => (self.cells >= 2, "--cells 2 or more, so that there is a cell to move to"),
            };
            ensure!(is_possible, "--faults {}: needs {what}", fault.name());
        }
        let needed = SECONDS_PER_FAULT * u32::try_from(self.faults.len() + 1).unwrap_or(u32::MAX);
        ensure!(
            self.duration >= needed,
            "--faults: {} of them need --duration {}s or more, so that each is over before the next",
            self.faults.len(),
            needed.as_secs()
        );
        Ok(())
    }

    /// Whether every server can hold its connections.
    fn check_servers(&self, room: usize) -> anyhow::Result<()> {
        let connections = |clients: usize| clients.div_ceil(self.sessions_per_connection);
        // Clients choose their proxy by hash, so one may get some more than its share.
        let at_a_proxy = connections(self.clients_at_once()).div_ceil(self.proxies) * 11 / 10;
        if at_a_proxy > room {
            let needed = (connections(self.clients_at_once()) * 11 / 10).div_ceil(room);
            bail!(
                "{} proxies would have {at_a_proxy} connections each, and the limit of open files leaves {room}: \
                 --proxies {needed} would do, or --sessions-per-connection",
                self.proxies
            );
        }
        // All of them, if the other upper ones die.
        ensure!(
            self.upper_proxies == 0 || self.proxies <= room,
            "an upper proxy may have a connection of each of {} proxies, and the limit of open files leaves {room}: raise it \
             (ulimit -n)",
            self.proxies
        );
        let at_a_master = connections(self.baseline_clients());
        ensure!(
            at_a_master <= room,
            "the masters would have {at_a_master} connections each in the baseline, and the limit of open files \
             leaves {room}: --baseline-clients {room} would do"
        );
        Ok(())
    }

    /// How many worker processes `clients` clients with `connections` connections each take.
    ///
    /// At least two, so that what the checks share between processes is checked.
    pub fn workers(&self, clients: usize, connections: usize, open_files: usize) -> usize {
        self.processes(clients, connections, open_files).max(2).min(clients)
    }

    /// The same, where there are others beside.
    pub fn processes(&self, clients: usize, connections: usize, open_files: usize) -> usize {
        let room = open_files.saturating_sub(OPEN_FILES_SLACK).max(1);
        (clients * connections).div_ceil(self.sessions_per_connection).div_ceil(room)
    }

    /// Operations per second and client when there are `clients` clients.
    pub fn rates(&self, clients: usize) -> Rates {
        match (&self.mix, self.rate) {
            (None, None) => Rates::paper(clients),
            (mix, rate) => {
                let mix = mix.unwrap_or_else(Mix::paper);
                Rates::of_mix(&mix, rate.unwrap_or_else(|| mix.usual_total()))
            }
        }
    }

    /// Sessions to be opened per second when there are `clients` clients.
    pub fn ramp_per_s(&self, clients: usize) -> f64 {
        (clients as f64 / RAMP_MIN.as_secs_f64()).clamp(1.0, RAMP_PER_S_MAX)
    }
}

/// Divides `clients` as evenly as can be: first client and number of clients of each worker.
pub fn shares(clients: usize, workers: usize) -> Vec<(usize, usize)> {
    let bound = |worker: usize| clients * worker / workers;
    (0..workers).map(|worker| (bound(worker), bound(worker + 1) - bound(worker))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{FLOOR_PER_S, OpKind};

    fn refused(change: impl FnOnce(&mut LoadtestOptions), message: &str) {
        let mut options = LoadtestOptions::default();
        change(&mut options);
        let error = options.validate(20_000).expect_err("refused").to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn the_default_is_good_and_its_neighbours_are_refused() {
        assert!(LoadtestOptions::default().validate(20_000).is_ok());

        refused(|options| options.clients = 0, "--clients");
        refused(|options| options.cells = 27, "--cells");
        refused(|options| options.replicas = 0, "--replicas");
        refused(|options| options.proxies = 0, "--proxies");
        refused(
            |options| (options.upper_proxies, options.proxies) = (1, 0),
            "--upper-proxies needs --proxies 1 or more",
        );
        refused(|options| options.upper_proxies = 1_001, "--upper-proxies must be");
        refused(
            |options| (options.upper_proxies, options.targets) = (1, vec!["h:1".into()]),
            "--upper-proxies needs servers of its own",
        );
        refused(|options| options.duration = Duration::ZERO, "--duration");
        refused(|options| options.rate = Some(f64::NAN), "--rate");
        refused(|options| options.sessions_per_connection = 0, "--sessions-per-connection");
    }

    #[test]
    fn more_clients_than_the_servers_may_have_files_are_refused_with_a_way_out() {
        refused(|options| options.clients = 90_000, "--proxies 6");
        refused(|options| options.baseline_clients = Some(20_000), "--baseline-clients 19488");

        let options = LoadtestOptions { clients: 90_000, proxies: 6, ..LoadtestOptions::default() };
        assert!(options.validate(20_000).is_ok());
    }

    #[test]
    fn faults_need_servers_of_ones_own_and_others_that_go_on_and_time() {
        let faulty = |options: &mut LoadtestOptions| {
            (options.faults, options.upper_proxies) = (Fault::ALL.to_vec(), 2);
            options.duration = Duration::from_secs(35);
        };

        refused(
            |options| (options.faults, options.targets) = (vec![Fault::ProxyKill], vec!["h:1".into()]),
            "--target",
        );
        refused(|options| (options.faults, options.proxies) = (vec![Fault::ProxyKill], 1), "--proxies 2");
        refused(
            |options| (options.faults, options.upper_proxies) = (vec![Fault::UpperProxyKill], 1),
            "--upper-proxies 2",
        );
        refused(|options| (options.faults, options.replicas) = (vec![Fault::MasterKill], 1), "--replicas 3");
        refused(
            |options| (options.faults, options.cells) = (vec![Fault::Move], 1),
            "--faults move: needs --cells 2",
        );
        refused(
            |options| {
                faulty(options);
                options.duration = Duration::from_secs(34);
            },
            "--duration 35s",
        );
        let mut options = LoadtestOptions::default();
        faulty(&mut options);
        assert!(options.validate(20_000).is_ok());
    }

    #[test]
    fn workers_follow_from_the_limit_of_open_files() {
        let options = LoadtestOptions::default();

        assert_eq!(options.workers(90_000, 1, 20_000), 5);
        assert_eq!(options.workers(3_000, 2, 20_000), 2);
        assert_eq!(options.workers(1, 1, 20_000), 1);
        assert_eq!((options.processes(19_488, 1, 20_000), options.processes(19_489, 1, 20_000)), (1, 2));
        let shared = LoadtestOptions { sessions_per_connection: 100, ..options };
        assert_eq!(shared.workers(90_000, 1, 1_024), 2);
    }

    #[test]
    fn shares_cover_all_clients_once() {
        assert_eq!(shares(10, 3), [(0, 3), (3, 3), (6, 4)]);
        assert_eq!(shares(1, 1), [(0, 1)]);
    }

    #[test]
    fn the_baseline_is_the_smaller_of_the_clients_and_3000_unless_given() {
        let of = |clients, baseline_clients| {
            LoadtestOptions { clients, baseline_clients, ..LoadtestOptions::default() }.baseline_clients()
        };

        assert_eq!((of(90_000, None), of(500, None), of(500, Some(0))), (3_000, 500, 0));
    }

    #[test]
    fn a_mix_or_a_rate_given_is_taken_as_it_is() {
        let given = LoadtestOptions { rate: Some(1.0), ..LoadtestOptions::default() };

        assert!((given.rates(3_000).total() - 1.0).abs() < 1e-9);
        let acquire = LoadtestOptions::default().rates(3_000).of(OpKind::Acquire);
        assert!((acquire * 3_000.0 - FLOOR_PER_S).abs() < 1e-9);
    }

    #[test]
    fn the_partitioned_mix_has_a_ring_and_a_rate_of_its_own() {
        let mix = Some("partitioned".parse().expect("a mix"));
        let options = LoadtestOptions { mix, ..LoadtestOptions::default() };

        assert!(options.has_ring() && !LoadtestOptions::default().has_ring());
        assert!(options.rates(3_000).total() > Rates::paper_total());
        let given = LoadtestOptions { rate: Some(1.0), ..options };
        assert!((given.rates(3_000).total() - 1.0).abs() < 1e-9);
        refused(|options| (options.mix, options.targets) = (mix, vec!["h:1".into()]), "--mix partitioned");
    }

    #[test]
    fn a_ramp_takes_a_keep_alive_period_or_longer() {
        let options = LoadtestOptions::default();

        assert_eq!(options.ramp_per_s(3_000), 375.0);
        assert_eq!(options.ramp_per_s(90_000), 2_000.0);
        assert_eq!(options.ramp_per_s(2), 1.0);
    }
}
