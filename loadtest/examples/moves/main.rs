//! A prefix goes back and forth between two cells while clients use it: how long a move takes, how long it holds
//! anybody up, and that nobody loses anything.
//!
//! Two cells of three replicas and two proxies are child processes. Each client writes a file of its own below the
//! prefix, reads and watches the next one's, takes a lock that five share, and holds another all the time. Some more
//! write in directories of both cells that stay where they are. An administrator writes the change into the partition
//! map, waits for its end, and some time later writes the next.
//!
//! A move lasts from that write until the map says that it is done. Its *pause* is the longest operation below the
//! prefix that was under way in that time or shortly after.

mod clients;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use hasp_client::{CellName, Client, Env, OpenOptions};
use hasp_loadtest::bench::{
    Bench, Cpu, CpuWindow, Figures, Span, Yardstick, during_and_between, longest_overlapping,
};
use hasp_loadtest::measure::{Latencies, Summary};
use hasp_loadtest::mover::Mover;
use hasp_loadtest::moves::{quantile, sorted};
use hasp_loadtest::options::OPEN_FILES_SLACK;
use hasp_loadtest::procfs::{raise_open_files, usage};
use hasp_loadtest::system::{NAMESPACE, SystemSpec};
use hasp_proto::partition::{Change, Prefix};
use tokio::task::JoinSet;

use clients::{
    CLIENTS_PER_LOCK, Scene, Told, Worked, connect_all, elsewhere, next, prefix, told, write_elsewhere,
};

/// Until somebody is connected.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one move may take.
const MOVE_DEADLINE: Duration = Duration::from_secs(60);
/// Operations under way so long after the end of a move still count for its pause.
const AFTERMATH: Duration = Duration::from_millis(200);
/// How long the last events may take.
const LAST_EVENTS: Duration = Duration::from_secs(3);
/// Before the first move.
const WARM_UP: Duration = Duration::from_secs(5);
/// Nodes being written at a time.
const SEEDING: usize = 64;
/// Nodes in a directory.
const NODES_PER_DIRECTORY: u32 = 100;
/// Clients that write elsewhere, half of them in each cell.
const ELSEWHERE: usize = 8;
/// From one write of such a client to its next.
const ELSEWHERE_PERIOD: Duration = Duration::from_millis(200);

/// Moves a prefix back and forth between two cells under load.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start the servers with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// Nodes below the prefix, those that clients use included.
    #[arg(long, default_value_t = 10_000)]
    nodes: u32,
    /// Clients that use the prefix, each with a session and a connection.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..))]
    clients: u32,
    /// Operations per second of each.
    #[arg(long, default_value_t = 2.0)]
    rate: f64,
    /// How often the prefix moves.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    moves: u32,
    /// From the end of a move until the next begins.
    #[arg(long, default_value_t = 1_000)]
    gap_ms: u64,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Flags {
    fn validate(&self, open_files: usize) -> anyhow::Result<()> {
        ensure!((0.01..=1_000.0).contains(&self.rate), "--rate must be from 0.01 to 1000");
        let room = open_files.saturating_sub(OPEN_FILES_SLACK);
        ensure!(
            self.clients as usize <= room,
            "--clients must be at most {room}: a process may open {open_files} files (ulimit -n)"
        );
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    flags.validate(raise_open_files())?;
    let spec = SystemSpec::cells(2).behind(2);
    Bench::run(flags.hasp.clone(), &spec, async |bench| test(bench, &flags).await).await
}

async fn test(bench: &mut Bench, flags: &Flags) -> anyhow::Result<()> {
    let env = bench.env.clone();
    let bare = Yardstick::take(&env, bench.processes.logs()).await?;
    let targets = bench.system.proxy_addresses();
    let scene = Scene::new(&env, &targets, flags.clients).await?;
    let nodes = seed(&scene, flags).await?;
    println!("{nodes} nodes below {}", prefix());
    let connected = connect_all(&scene, flags.clients).await?;
    println!("{} clients connected", connected.len());

    let (mut working, mut writing) = (JoinSet::new(), JoinSet::new());
    for client in connected {
        working.spawn(client.work(scene.clone(), Duration::from_secs_f64(1.0 / flags.rate)));
    }
    for number in 0..ELSEWHERE {
        let name = format!("{}/f{number}", elsewhere()[number % 2]);
        writing.spawn(write_elsewhere(scene.clone(), scene.connect().await?, name, ELSEWHERE_PERIOD));
    }
    env.clock.sleep(WARM_UP).await;
    let mover = Mover::connect(&env, targets, NAMESPACE).await?;
    let (window, own_before, began) = (CpuWindow::of_servers(&bench.system), own_cpu_s(), env.clock.now());
    let moves = move_back_and_forth(&env, &mover, flags).await;
    let whole = Span { began, ended: env.clock.now() };
    let (cpu, own_cpu) = (window.end(), own_cpu_s() - own_before);
    scene.end();
    let (mut worked, mut others) = (Vec::new(), Vec::new());
    let ending = async {
        while let Some(client) = next(&mut working).await? {
            worked.push(client);
        }
        while let Some(spans) = next(&mut writing).await? {
            others.extend(spans);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, ending).await.context("wait for the last operations: no answer")??;
    // Whatever clients saw is of interest, most of all if a move failed.
    for failure in scene.found.failures().iter() {
        println!("FAILED: {failure}");
    }
    let moves = moves?;
    env.clock.sleep(LAST_EVENTS).await;
    let mut locks_lost = 0_u64;
    for client in &worked {
        locks_lost += u64::from(!client.keeps_lock().await?);
    }

    let told = told(&worked, &windows(&moves));
    let result = Outcome { nodes, moves, whole, worked, others, told, locks_lost, cpu, own_cpu };
    let mut figures = result.figures(flags, &scene);
    bare.mean(Yardstick::take(&env, bench.processes.logs()).await?).note(&mut figures);
    figures.publish(flags.json.as_deref())?;
    result.judge(&scene)
}

/// When operations count for the pauses of these moves.
fn windows(moves: &[Span]) -> Vec<Span> {
    moves.iter().map(|one| one.and(AFTERMATH)).collect()
}

/// CPU time of this process, which has all the clients.
fn own_cpu_s() -> f64 {
    usage(std::process::id()).unwrap_or_default().cpu_s
}

/// One move after another; gives when each began and ended.
async fn move_back_and_forth(env: &Env, mover: &Mover, flags: &Flags) -> anyhow::Result<Vec<Span>> {
    let prefix = Prefix::parse(&prefix())?;
    let mut moves = Vec::new();
    for number in 1..=flags.moves {
        let to = if number % 2 == 1 { "b" } else { "a" };
        let change = || Change { prefix: prefix.clone(), cells: vec![CellName::new(to)] };
        let moved = mover.change(|_| Ok(change()), MOVE_DEADLINE, |_| {}).await;
        let moved = moved.with_context(|| format!("move number {number}, to {to}"))?;
        moves.push(Span { began: moved.began, ended: moved.ended });
        if number % 10 == 0 || flags.moves < 10 {
            let last = moved.ended.saturating_since(moved.began);
            println!("{number} moves, the last one took {:.2} s", last.as_secs_f64());
        }
        env.clock.sleep(Duration::from_millis(flags.gap_ms)).await;
    }
    Ok(moves)
}

/// What came of it.
struct Outcome {
    nodes: u64,
    moves: Vec<Span>,
    /// From before the first move until after the last.
    whole: Span,
    worked: Vec<Worked>,
    /// Writes elsewhere.
    others: Vec<Span>,
    told: Told,
    locks_lost: u64,
    cpu: Cpu,
    own_cpu: f64,
}

impl Outcome {
    fn figures(&self, flags: &Flags, scene: &Scene) -> Figures {
        let setting = format!(
            "{} nodes, {} clients with {} operations/s each at 2 proxies, 2 cells of 3 replicas, fsync on; {} moves, \
             {} ms between them",
            self.nodes,
            flags.clients,
            flags.rate,
            self.moves.len(),
            flags.gap_ms
        );
        let mut figures = Figures::new("moves", setting);
        self.durations(&mut figures);
        self.losses(&mut figures, scene);
        self.cpu(&mut figures);
        figures
    }

    fn durations(&self, figures: &mut Figures) {
        let took = sorted(self.moves.iter().map(|one| one.lasted().as_secs_f64()));
        let of = |values: &[f64], share| quantile(values, share).unwrap_or(f64::NAN);
        figures.note("move_p50_s", "change written until done, p50, s", of(&took, 0.5));
        figures.note("move_p99_s", "  p99, s", of(&took, 0.99));
        figures.note("move_max_s", "  the longest, s", of(&took, 1.0));
        let windows = windows(&self.moves);
        let operations: Vec<Span> =
            self.worked.iter().flat_map(|client| client.operations.iter().copied()).collect();
        let pauses = longest_overlapping(&windows, &operations);
        let pauses = sorted(pauses.iter().map(|pause| pause.as_secs_f64() * 1e3));
        figures.note("pause_p50_ms", "pause (longest operation below the prefix), p50, ms", of(&pauses, 0.5));
        figures.note("pause_p99_ms", "  p99, ms", of(&pauses, 0.99));
        figures.note("pause_max_ms", "  the longest, ms", of(&pauses, 1.0));
        let seconds = self.whole.lasted().as_secs_f64();
        let within = operations.iter().filter(|one| one.overlaps(self.whole)).count() as f64;
        figures.note("operations_per_s", "operations/s below the prefix", within / seconds);
        let [during, between] = during_and_between(&windows, &operations);
        latencies(figures, "operation_during", "  operation while it moves", &during);
        latencies(figures, "operation_between", "  operation between moves", &between);
        let [during, between] = during_and_between(&windows, &self.others);
        latencies(figures, "elsewhere_during", "write elsewhere, while the prefix moves", &during);
        latencies(figures, "elsewhere_between", "write elsewhere, between moves", &between);
    }

    fn losses(&self, figures: &mut Figures, scene: &Scene) {
        let load = |count: &AtomicU64| count.load(Ordering::Acquire) as f64;
        let found = &scene.found;
        figures.at_most(0.0, "errors", "operations that failed", load(&found.errors));
        figures.at_most(0.0, "sessions_lost", "sessions lost", load(&found.sessions_lost));
        figures.note("jeopardies", "times a session was in jeopardy", load(&found.jeopardies));
        figures.at_most(0.0, "locks_lost", "locks lost that were held all the time", self.locks_lost as f64);
        figures.at_most(0.0, "two_holders", "locks with two holders at once", load(&found.two_holders));
        let fallen = "acquisitions whose generation did not grow";
        figures.at_most(0.0, "generations_fallen", fallen, load(&found.generations_fallen));
        figures.at_most(0.0, "stale_reads", "reads older than a complete write", load(&found.stale_reads));
        let Told { writes, heard, fail_overs, other_losses, missing, repeated } = self.told;
        figures.note("writes", "writes to watched files", writes as f64);
        figures.note("events_heard", "  events that came", heard as f64);
        figures.note("events_fail_over", "  losses announced with a fail-over", fail_overs as f64);
        figures.note("events_lost", "  losses announced for other reasons", other_losses as f64);
        let unannounced = "  events missing of writes outside of moves";
        figures.at_most(0.0, "events_missing", unannounced, missing as f64);
        figures.note("events_repeated", "  events told again", repeated as f64);
    }

    fn cpu(&self, figures: &mut Figures) {
        let seconds = self.whole.lasted().as_secs_f64();
        for (key, label, prefix) in [
            ("cpu_cell_a", "CPU of cell a, all replicas, cores", "cell-a"),
            ("cpu_cell_b", "  of cell b", "cell-b"),
            ("cpu_proxies", "  of both proxies", "proxy"),
        ] {
            figures.note(key, label, self.cpu.total_s(prefix) / seconds);
        }
        figures.note("cpu_clients", "  of all clients", self.own_cpu / seconds);
    }

    /// Fails if anybody lost anything.
    fn judge(&self, scene: &Scene) -> anyhow::Result<()> {
        let found = &scene.found;
        let counts = [
            (&found.errors, "operations failed"),
            (&found.sessions_lost, "sessions were lost"),
            (&found.two_holders, "locks had two holders at once"),
            (&found.generations_fallen, "acquisitions had a generation that did not grow"),
            (&found.stale_reads, "reads were stale"),
        ];
        for (count, what) in counts {
            let count = count.load(Ordering::Acquire);
            ensure!(count == 0, "{count} {what}: {}", found.failures().join("; "));
        }
        ensure!(self.locks_lost == 0, "{} locks were lost", self.locks_lost);
        ensure!(self.told.missing == 0, "{} events were lost without a word", self.told.missing);
        Ok(())
    }
}

fn latencies(figures: &mut Figures, key: &str, label: &str, latencies: &Latencies) {
    let Summary { count, p50_us, p99_us, max_us } = latencies.summary();
    let ms = |micros: u64| if count == 0 { f64::NAN } else { micros as f64 / 1e3 };
    figures.note(format!("{key}_p50_ms"), format!("{label}, p50, ms"), ms(p50_us));
    figures.note(format!("{key}_p99_ms"), "    p99, ms".to_owned(), ms(p99_us));
    figures.note(format!("{key}_max_ms"), "    the longest, ms".to_owned(), ms(max_us));
}

/// Creates all nodes; gives how many are below the prefix.
async fn seed(scene: &Arc<Scene>, flags: &Flags) -> anyhow::Result<u64> {
    let (client, prefix) = (scene.connect().await?, prefix());
    let others = elsewhere();
    let groups = flags.clients.div_ceil(CLIENTS_PER_LOCK);
    let own = (0..flags.clients).flat_map(|n| [format!("files/f{n}"), format!("locks/k{n}")]);
    let mut files: Vec<String> = own.chain((0..groups).map(|n| format!("locks/s{n}"))).collect();
    // With the directories, of which there is one more for each hundred.
    let left = u64::from(flags.nodes).saturating_sub(files.len() as u64 + 2);
    let directories = left.div_ceil(u64::from(NODES_PER_DIRECTORY) + 1);
    let more = (0..left - directories).map(|n| format!("d{}/n{n}", n / u64::from(NODES_PER_DIRECTORY)));
    files.extend(more);
    let named = (0..directories).map(|n| format!("{prefix}/d{n}"));
    let fixed = [prefix.clone(), format!("{prefix}/files"), format!("{prefix}/locks")];
    for directory in fixed.into_iter().chain(others).chain(named) {
        let opened = client.open(&directory, OpenOptions::create_directory()).await;
        opened.with_context(|| format!("create {directory}"))?;
    }
    let (mut seeding, nodes) = (JoinSet::new(), files.len() as u64 + directories + 2);
    for file in files {
        if seeding.len() >= SEEDING {
            next(&mut seeding).await?;
        }
        seeding.spawn(create(client.clone(), format!("{prefix}/{file}")));
    }
    while next(&mut seeding).await?.is_some() {}
    client.close().await;
    Ok(nodes)
}

async fn create(client: Client, name: String) -> anyhow::Result<()> {
    let opened = client.open(&name, OpenOptions::create_file("contents of a small file")).await;
    let handle = opened.with_context(|| format!("create {name}"))?.handle;
    handle.close().await.with_context(|| format!("close {name}"))?;
    Ok(())
}
