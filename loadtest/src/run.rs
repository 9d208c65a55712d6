//! The load test from start to end: what is started, in which order, and that all of it is stopped.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real processes of a real machine are watched here, never simulated ones"
)]

mod capacity;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hasp_rt::env::Env;
use tempfile::TempDir;

use crate::churn::{Churn, ChurnReport, Visits};
use crate::crew::{Crew, CrewProgress};
use crate::faults::{Fault, Faults, Saboteur};
use crate::interrupt::interrupted;
use crate::job::{Finished, Job, Order, Ramped};
use crate::measure::{Latencies, OpStats, Summary};
use crate::mover::Moves;
use crate::moves::{MoveRecord, MovesReport};
use crate::options::{LoadtestOptions, Mode, shares};
use crate::page;
use crate::processes::{Ended, Processes};
use crate::procfs;
use crate::progress::Progress;
use crate::report::{Phase, Report, Setting};
use crate::seeding;
use crate::series::{self, Series};
use crate::status::StatusReader;
use crate::system::{System, SystemSpec, cell_roots, spread_roots};
use crate::tree::TreeSpec;
use crate::visits;
use crate::window::{Member, Role, Snapshot, Window, WorkerShare};

/// Between the ramp and the measurement: what the ramp left behind comes to rest.
const SETTLE: Duration = Duration::from_secs(2);
/// Beyond what its rate makes it take, a ramp may take this long,
const RAMP_SLACK: Duration = Duration::from_secs(60);
/// and so much longer for each client: where they share a busy machine, those that are there slow the others down.
const RAMP_SLACK_PER_CLIENT: Duration = Duration::from_millis(2);
/// How long operations under way, and the ends of sessions, may take after the measurement.
const FINISH: Duration = Duration::from_secs(120);
/// How long the tasks of a load test that is over may take to end.
const DRAIN: Duration = Duration::from_secs(5);

/// What came of a load test.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was found. Prints as tables for people.
    pub report: Report,
    /// The same for browsers, if that was asked for.
    page: Option<String>,
}

impl Outcome {
    /// No session was lost, no check failed, no operation failed.
    pub fn is_success(&self) -> bool {
        self.report.faults().is_empty()
    }
}

/// Runs a load test and stops everything that it started.
///
/// Shows its progress on standard error. Writes the report as JSON where the options say, and
/// leaves printing it to the caller.
///
/// # Errors
/// What is asked for cannot be, something could not be started, or a process ended by itself. The
/// logs are kept then, and named. A load test that ran and found faults is no error.
pub async fn run(options: LoadtestOptions, env: Env) -> anyhow::Result<Outcome> {
    let open_files = procfs::raise_open_files();
    options.validate(open_files)?;
    for path in options.json.iter().chain(&options.page) {
        // Found out now, not when all is measured. What it has is kept until then.
        let opened = File::options().create(true).append(true).open(path);
        opened.with_context(|| format!("write report {}", path.display()))?;
    }
    let home =
        tempfile::Builder::new().prefix("hasp-loadtest-").tempdir().context("make a temporary directory")?;
    let env = env.child("loadtest");
    let binary =
        options.binary.clone().map_or_else(std::env::current_exe, Ok).context("find my own program")?;
    let (processes, ended) = Processes::new(env.clone(), binary, home.path().to_owned());
    let progress = Progress::on_stderr();
    let test = Test {
        options: &options,
        env: &env,
        processes: &processes,
        progress: &progress,
        open_files,
        home: &home,
    };
    let result = test.supervised(ended).await;
    progress.finish();
    // Kills what is left, as after a failure.
    env.tasks.abort();
    if let Err(unfinished) = env.tasks.drain(DRAIN).await {
        tracing::warn!(%unfinished, "stop the load test");
    }
    match result {
        Ok(outcome) => {
            write(options.json.as_ref(), || outcome.report.to_json() + "\n")?;
            write(options.page.as_ref(), || outcome.page.clone().unwrap_or_default())?;
            Ok(outcome)
        }
        Err(error) if error.is::<Interrupted>() => Err(error),
        Err(error) => {
            let kept: PathBuf = home.keep();
            Err(error
                .context(format!("the load test did not run to its end; logs are in {}", kept.display())))
        }
    }
}

fn write(path: Option<&PathBuf>, report: impl FnOnce() -> String) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, report()).with_context(|| format!("write report {}", path.display()))
}

/// The user had enough: nothing to look into, so no logs are kept.
#[derive(Debug)]
struct Interrupted(&'static str);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the load test was stopped by {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// A load test under way.
struct Test<'a> {
    options: &'a LoadtestOptions,
    env: &'a Env,
    processes: &'a Processes,
    progress: &'a Progress,
    open_files: usize,
    home: &'a TempDir,
}

/// Whom the load is for.
struct Site {
    /// Servers, to look at.
    servers: Vec<Member>,
    /// Addresses of all proxies.
    proxies: Vec<String>,
    /// Addresses of all replicas; empty if they are not known.
    replicas: Vec<String>,
    tree: TreeSpec,
    setting: Setting,
}

/// What is done to a system under load.
struct Faulty<'a> {
    system: &'a mut System,
    faults: Faults,
    /// Does the moves among them.
    moves: Option<Moves>,
}

/// What one phase does.
#[derive(Clone, Copy)]
struct Load<'a> {
    name: &'static str,
    /// Addresses of the clients' hosts.
    targets: &'a [String],
    clients: usize,
    /// Of each client.
    connections: usize,
    /// Those that come and go besides.
    churn: Option<Churn>,
}

/// Who does a load: workers beside others, that have numbers of their own.
#[derive(Clone, Copy)]
struct Staff {
    workers: usize,
    first_worker: usize,
    first_client: usize,
    /// Those of others too, and of those to come: the rates follow from them.
    all_clients: usize,
}

impl Test<'_> {
    /// Runs until it is done, a child fails, or the user has enough.
    async fn supervised(&self, mut ended: Ended) -> anyhow::Result<Outcome> {
        let mut system = None;
        let result = tokio::select! {
            biased;
            result = self.work(&mut system) => result,
            why = ended.unasked() => Err(why),
            signal = interrupted() => Err(Interrupted(signal).into()),
        };
        self.progress.step("stopping everything");
        let stopped = match (&result, &mut system) {
            // Proxies first, so that they can say good-bye.
            (Ok(_), Some(system)) => system.stop().await,
            _ => self.processes.stop_left().await,
        };
        let outcome = result?;
        stopped?;
        Ok(outcome)
    }

    async fn work(&self, system: &mut Option<System>) -> anyhow::Result<Outcome> {
        let site = if self.options.targets.is_empty() {
            self.start_system(system).await?
        } else {
            self.find_system().await?
        };
        self.seed(&site).await?;
        let mut baselines = self.baselines(&site).await?;
        let mut others = Vec::new();
        let main = if self.options.mode == Mode::Capacity {
            self.capacity(&site).await?
        } else {
            let mut sizes = self.options.sizes();
            let last = sizes.pop().unwrap_or(self.options.clients);
            for clients in sizes {
                others.push(self.phase(&site, self.through_proxies(&site, clients), None).await?);
            }
            let faulty = self.faulty(&site, system.as_mut())?;
            self.phase(&site, self.through_proxies(&site, last), faulty).await?
        };
        let baseline = baselines.pop();
        baselines.append(&mut others);
        let others = baselines;
        if !self.options.targets.is_empty() {
            self.progress.step("deleting the files");
            seeding::uproot(self.env, &site.proxies, &site.tree).await?;
        }
        let report = Report::new(&site.setting, &main, baseline.as_ref()).with_others(&others);
        let page = self.options.page.is_some().then(|| page::page(&report, &main));
        Ok(Outcome { report, page })
    }

    /// What is to be done under load, if there is a system to do it to.
    fn faulty<'s>(&self, site: &Site, system: Option<&'s mut System>) -> anyhow::Result<Option<Faulty<'s>>> {
        let Some(system) = system else { return Ok(None) };
        let Self { options, env, .. } = self;
        let faults = Faults::over(options.duration, &options.faults);
        let moves = options.faults.contains(&Fault::Move);
        let moves = moves.then(|| Moves::start(env, &site.proxies, &site.tree, options.seed)).transpose()?;
        Ok(Some(Faulty { system, faults, moves }))
    }

    fn through_proxies<'s>(&self, site: &'s Site, clients: usize) -> Load<'s> {
        let churn = self.options.churn();
        Load { name: "proxies", targets: &site.proxies, clients, connections: 1, churn }
    }

    /// Clients straight at the masters, as many as are wanted, one number after another.
    async fn baselines(&self, site: &Site) -> anyhow::Result<Vec<Phase>> {
        let mut baselines = Vec::new();
        if site.replicas.is_empty() {
            return Ok(baselines);
        }
        for clients in self.options.baseline_sizes() {
            let (targets, connections) = (&site.replicas, site.tree.cells());
            let load = Load { name: "baseline", targets, clients, connections, churn: None };
            let phase = self.phase(site, load, None).await?;
            baselines.push(Phase { is_baseline: true, ..phase });
        }
        Ok(baselines)
    }

    async fn start_system(&self, place: &mut Option<System>) -> anyhow::Result<Site> {
        let LoadtestOptions { clients, cells, replicas, proxies, upper_proxies, .. } = *self.options;
        let ring = self.options.has_ring();
        let spec = SystemSpec { cells, replicas, proxies, upper_proxies, has_ring: ring };
        let roots = if ring { spread_roots(cells) } else { cell_roots(cells) };
        let upper = if upper_proxies > 0 { format!(" behind {upper_proxies}") } else { String::new() };
        self.progress
            .step(&format!("starting {cells} cells of {replicas} replicas, and {proxies} proxies{upper}"));
        let system = System::start(self.env, self.processes, &spec, self.home.path()).await?;
        let system = place.insert(system);
        Ok(Site {
            servers: system.members(),
            proxies: system.proxy_addresses(),
            replicas: system.replica_addresses(),
            tree: self.tree(&roots, clients),
            setting: self.setting(&spec),
        })
    }

    /// Asks the proxies given what is behind them.
    async fn find_system(&self) -> anyhow::Result<Site> {
        self.progress.step("asking the proxies what is behind them");
        let mut reader = StatusReader::new(self.env.clone());
        let proxies = self.options.targets.clone();
        let answers = reader.ask_all(&proxies).await;
        ensure!(!answers.is_empty(), "none of {} answers", proxies.join(", "));
        let prefixes: BTreeMap<_, _> = answers.values().flat_map(|status| status.prefixes.clone()).collect();
        ensure!(!prefixes.is_empty(), "{} do not say which names they serve", proxies.join(", "));
        let above: BTreeSet<_> = answers.values().flat_map(|status| status.upstream.clone()).collect();
        let above: Vec<_> = above.into_iter().filter(|address| !proxies.contains(address)).collect();
        let upper = reader.ask_all(&above).await;
        let cells: BTreeMap<_, _> = answers.into_values().flat_map(|status| status.cells).collect();
        let replicas: Vec<_> = cells.values().flatten().cloned().collect();
        let reached = reader.ask_all(&replicas).await;
        let member = |role: Role, address: &String| Member {
            role,
            name: address.clone(),
            pid: None,
            address: Some(address.clone()),
        };
        let mut servers: Vec<_> = reached.keys().map(|address| member(Role::Replica, address)).collect();
        servers.extend(upper.keys().map(|address| member(Role::UpperProxy, address)));
        servers.extend(proxies.iter().map(|address| member(Role::Proxy, address)));
        let per_cell = cells.values().map(Vec::len).max().unwrap_or(0);
        let prefixes: Vec<_> = prefixes.into_values().collect();
        let spec = SystemSpec {
            cells: cells.len(),
            replicas: per_cell,
            proxies: proxies.len(),
            upper_proxies: upper.len(),
            has_ring: false,
        };
        Ok(Site {
            servers,
            setting: self.setting(&spec),
            replicas: reached.into_keys().collect(),
            tree: self.tree(&prefixes, self.options.clients),
            proxies,
        })
    }

    /// Below each of these directories, one in each cell.
    fn tree(&self, prefixes: &[String], clients: usize) -> TreeSpec {
        // On a ring the root is the directory that has its children elsewhere.
        let between = if self.options.has_ring() { '-' } else { '/' };
        let roots = prefixes.iter().map(|prefix| format!("{prefix}{between}loadtest-{}", self.options.seed));
        TreeSpec::new(roots.collect(), clients.max(self.options.baseline_clients()))
    }

    fn setting(&self, spec: &SystemSpec) -> Setting {
        let SystemSpec { cells, replicas, proxies, upper_proxies, .. } = *spec;
        Setting {
            proxies,
            upper_proxies,
            cells,
            replicas,
            seed: self.options.seed,
            rates: self.options.rates(self.options.clients),
            is_raised: self.options.mix.is_none() && self.options.rate.is_none(),
        }
    }

    async fn seed(&self, site: &Site) -> anyhow::Result<()> {
        let total = site.tree.places().count() as u64;
        self.progress.step(&format!("writing {total} files"));
        let show =
            |done: u64| self.progress.at(self.env.clock.now(), done, total, &format!("{done} files written"));
        seeding::plant(self.env, &site.proxies, &site.tree, self.options.seed, show).await
    }

    /// Ramp, hold, end; with faults, if there is a system to do them to.
    async fn phase(&self, site: &Site, load: Load<'_>, faulty: Option<Faulty<'_>>) -> anyhow::Result<Phase> {
        let Load { name, clients, .. } = load;
        let jobs = self.jobs(site, load);
        let count = jobs.len();
        self.progress.step(&format!("{name}: opening {clients} sessions from {count} processes"));
        let mut crew = Crew::start(self.env, self.processes, name, &jobs).await?;
        let ramp_takes = Duration::from_secs_f64(clients as f64 / self.options.ramp_per_s(clients));
        let slack = RAMP_SLACK + RAMP_SLACK_PER_CLIENT * u32::try_from(clients).unwrap_or(u32::MAX);
        let ramped = crew.ramped(ramp_takes + slack, |progress| self.show_ramp(progress, clients)).await?;
        crew.listen(SETTLE, |_| {}).await?;
        let hold = self.options.duration;
        self.progress.step(&format!("{name}: load for {hold:?}"));
        let members: Vec<_> = site.servers.iter().cloned().chain(crew.members()).collect();
        let mut reader = StatusReader::new(self.env.clone());
        let before = Snapshot::take(self.env, &mut reader, &members).await;
        crew.order(Order::Begin).await?;
        let (series, moves) = self.hold(&mut crew, &mut reader, (&members, before.clone()), faulty).await?;
        let after = Snapshot::take(self.env, &mut reader, &members).await;
        crew.order(Order::End).await?;
        self.progress.step(&format!("{name}: ending {clients} sessions"));
        let finished = crew.finished(FINISH).await?;
        let mut phase = Phase { clients, ..Phase::default() };
        (phase.ramp_seconds, phase.ramp) = together(ramped);
        let (visits, seconds) = complete(&mut phase, &Window::new(members, before, after), finished)?;
        if let Some(churn) = load.churn {
            let left_behind = visits::left_behind(self.env, load.targets, &site.tree).await?;
            phase.churn = Some(ChurnReport::new(churn, seconds, &visits, left_behind));
            phase.visit_failures = visits.failures().to_vec();
        }
        phase.remarks.extend(series.remarks());
        phase.series = series;
        phase.moves = MovesReport::new(&moves, site.tree.nodes_below_a_root());
        Ok(phase)
    }

    /// The load goes on for as long as was asked for: looks at everybody again and again, and does what is to be done to
    /// the servers.
    async fn hold(
        &self,
        crew: &mut Crew,
        reader: &mut StatusReader,
        (members, mut before): (&[Member], Snapshot),
        faulty: Option<Faulty<'_>>,
    ) -> anyhow::Result<(Series, Vec<MoveRecord>)> {
        let hold = self.options.duration;
        let began = self.env.clock.now();
        let (mut system, mut faults, mut moves) = match faulty {
            Some(Faulty { system, faults, moves }) => (Some(system), faults, moves),
            None => (None, Faults::default(), None),
        };
        let (mut series, mut moved) = (Series::default(), Vec::new());
        let mut word = crew.progress();
        let mut look_at = series::step(hold);
        loop {
            let passed = self.env.clock.now().saturating_since(began);
            if passed >= hold {
                break;
            }
            let next = faults.next_at().map_or(look_at, |at| at.min(look_at)).min(hold);
            let show = |progress: &CrewProgress| {
                self.show_load(progress, progress.at.saturating_since(began), hold);
            };
            crew.listen(next.saturating_sub(passed), show).await?;
            let passed = self.env.clock.now().saturating_since(began);
            if passed >= look_at {
                let members = with_new_ids(members, system.as_deref());
                let after = Snapshot::take(self.env, reader, &members).await;
                let words = [std::mem::replace(&mut word, crew.progress()), word];
                series.add(passed, &Window::new(members, before, after.clone()), words, &crew.take_recent());
                before = after;
                look_at = passed + series::step(hold);
            }
            if let Some(system) = system.as_deref_mut()
                && let Some(deed) = faults.take_due(passed)
            {
                let mut saboteur = self.saboteur(system, moves.as_mut());
                let what = saboteur.act(&mut faults, passed, deed).await?;
                self.progress.step(&what);
                series.mark(passed, what);
            }
            while let Some(ended) = moves.as_mut().and_then(Moves::take_ended) {
                series.mark(passed, self.show_move(&ended));
                moved.push(ended);
            }
        }
        if let Some(system) = system {
            for victim in faults.take_restarts() {
                self.saboteur(system, None).restart(victim).await?;
            }
        }
        if let Some(mut moves) = moves {
            while let Some(ended) = moves.ended().await {
                series.mark(self.env.clock.now().saturating_since(began), self.show_move(&ended));
                moved.push(ended);
            }
        }
        Ok((series, moved))
    }

    const fn saboteur<'s>(&'s self, system: &'s mut System, moves: Option<&'s mut Moves>) -> Saboteur<'s> {
        Saboteur { env: self.env, processes: self.processes, system, moves }
    }

    fn show_move(&self, ended: &MoveRecord) -> String {
        let what = ended.text();
        self.progress.step(&what);
        what
    }

    fn jobs(&self, site: &Site, load: Load<'_>) -> Vec<Job> {
        let Load { clients, connections, churn, .. } = load;
        let at_once = clients + churn.map_or(0, Churn::at_once);
        let workers = self.options.workers(at_once, connections, self.open_files).min(clients);
        self.shared_out(site, load, Staff { workers, first_worker: 0, first_client: 0, all_clients: clients })
    }

    /// The load as jobs of so many workers.
    fn shared_out(&self, site: &Site, load: Load<'_>, staff: Staff) -> Vec<Job> {
        let Staff { workers, first_worker, first_client, all_clients } = staff;
        let ramp_per_s = self.options.ramp_per_s(load.clients) / workers as f64;
        let job = |(worker, (first, clients))| Job {
            worker: first_worker + worker,
            first_client: first_client + first,
            clients,
            targets: load.targets.to_vec(),
            tree: site.tree.clone(),
            rates: self.options.rates(all_clients),
            churn: load.churn.map(|churn| churn.share(worker, workers)),
            ramp_per_s,
            sessions_per_connection: self.options.sessions_per_connection,
            seed: self.options.seed,
        };
        shares(load.clients, workers).into_iter().enumerate().map(job).collect()
    }

    fn show_ramp(&self, progress: &CrewProgress, clients: usize) {
        let opened = progress.all.sessions.opened;
        let text = format!("{opened} of {clients} sessions open");
        self.progress.at(progress.at, opened, clients as u64, &text);
    }

    fn show_load(&self, progress: &CrewProgress, passed: Duration, hold: Duration) {
        let all = progress.all;
        let text = format!(
            "{} s of {} s: {} operations, {} errors, {} sessions lost, {} in jeopardy, {} checks failed",
            passed.as_secs(),
            hold.as_secs(),
            all.ops,
            all.errors,
            all.sessions.lost,
            all.sessions.jeopardy,
            all.violations
        );
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.progress.at(progress.at, millis(passed), millis(hold), &text);
    }
}

/// These, with the process ids that servers have by now.
fn with_new_ids(members: &[Member], system: Option<&System>) -> Vec<Member> {
    let now = system.map(System::members).unwrap_or_default();
    let by_now =
        |member: &Member| now.iter().find(|other| other.name == member.name).unwrap_or(member).clone();
    members.iter().map(by_now).collect()
}

/// How long the ramps of several workers took together, and how long each session.
fn together(ramps: Vec<Ramped>) -> (f64, Summary) {
    let seconds = ramps.iter().map(|ramped| ramped.seconds).fold(0.0, f64::max);
    let pairs: Vec<_> = ramps.into_iter().flat_map(|ramped| ramped.latencies).collect();
    (seconds, Latencies::from_pairs(&pairs).summary())
}

/// Adds up what the workers measured and what happened in the window; gives what came of those that came and went, and
/// within how many seconds.
fn complete(
    phase: &mut Phase,
    window: &Window,
    finished: BTreeMap<u32, Finished>,
) -> anyhow::Result<(Visits, f64)> {
    let (mut visits, mut seconds) = (Visits::default(), 0.0_f64);
    let mut ops = OpStats::default();
    let mut shares = BTreeMap::new();
    let mut late_writes = crate::check::Violations::default();
    for (pid, finished) in finished {
        let alive = finished.sessions.opened.saturating_sub(finished.sessions.lost);
        shares.insert(pid, WorkerShare { sessions: alive, keep_alives: finished.keep_alives_sent });
        phase.sessions.add(finished.sessions);
        phase.sent_per_s += finished.keep_alives_sent as f64 / finished.seconds.max(f64::EPSILON);
        ops.merge(&finished.ops)?;
        visits.merge(&finished.visits);
        seconds = seconds.max(finished.seconds);
        phase.checks.add(finished.checks);
        phase.violations.merge(finished.violations);
        late_writes.merge(finished.late_writes);
    }
    // A late write is explained by a write of which nobody learned what became of it.
    if phase.checks.unknown_writes == 0 {
        phase.violations.merge(late_writes);
    }
    phase.ops = ops;
    phase.seconds = window.seconds();
    phase.at_proxies_per_s = window.at_proxies_per_s();
    phase.at_upper_proxies_per_s = window.at_upper_proxies_per_s();
    phase.at_masters_per_s = window.at_masters_per_s();
    phase.processes = window.processes(&shares);
    phase.remarks = window.remarks();
    Ok((visits, seconds))
}
