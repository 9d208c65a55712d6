//! Deleting a directory that is in two cells while somebody creates in it, again and again, under kills.
//!
//! Starts two cells of three replicas and two proxies as child processes. A ring spreads what is below the directories in
//! one directory over both cells; only directories whose node is in one cell and whose children are in the other are used.
//! In each round somebody makes such a directory; then a first client creates a file in it while a second one deletes it,
//! each after a pause of its own so that all orders come about, through proxies that each of them picks. Meanwhile proxies
//! and masters are killed in turn and started again.
//!
//! After each round a third client looks, with no cache: never may both have succeeded, and whatever they were told, no
//! file may be there without its directory (`route-3`, `route-4`). Then the name must be of use again: the directory is
//! made anew if it is gone, it must be as empty or full as it is to be, and must go when it is deleted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use hasp_client::{CallError, Client, ConnectOptions, ErrorCode, Handle, OpenOptions, Service};
use hasp_loadtest::bench::{Bench, Figures};
use hasp_loadtest::faults::{Fault, Faults, Saboteur};
use hasp_loadtest::system::{NAMESPACE, RING, SystemSpec};
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_rt::env::Env;
use tokio::task::JoinSet;

/// How long the service may take to be reached.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the two wait at most before they ask, in steps of [`STEP`].
const STEPS: u64 = 8;
/// About what a message takes.
const STEP: Duration = Duration::from_micros(400);
/// The kills that there may be at most.
const KILLS_MAX: u32 = 10_000;

/// Races creations in directories of two cells against the deletion of those.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start the servers with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// Races in all.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Races at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    at_once: u64,
    /// From one kill to the next; proxies and masters in turn. 0: none.
    #[arg(long, default_value_t = 10)]
    kill_seconds: u64,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let spec = SystemSpec { has_ring: true, ..SystemSpec::cells(2).behind(2) };
    let figures = Bench::run(flags.hasp.clone(), &spec, async |bench| race(bench, &flags).await).await?;
    figures.publish(flags.json.as_deref())
}

async fn race(bench: &mut Bench, flags: &Flags) -> anyhow::Result<Figures> {
    let env = bench.env.clone();
    let targets = bench.system.proxy_addresses();
    let service = Service::locate(&targets, PATIENCE, &env).await.context("find the service")?;
    let map = read_map(&connect(&service, &targets, &env).await?).await?;
    let shared =
        Arc::new(Shared { env: env.clone(), map, counts: Counts::default(), left: flags.rounds.into() });
    let mut racing = JoinSet::new();
    for track in 0..flags.at_once {
        let [creator, deleter, onlooker] = [
            connect(&service, &targets, &env).await?,
            connect(&service, &targets, &env).await?,
            connect(&service, &targets, &env).await?,
        ];
        racing.spawn(Track { number: track, creator, deleter, onlooker, shared: shared.clone() }.run());
    }
    let began = env.clock.now();
    let kills = until_raced(bench, flags, &mut racing, &shared.left).await?;
    let seconds = env.clock.now().saturating_since(began).as_secs_f64();

    let setting = format!(
        "two cells of 3 replicas, 2 proxies; {} rounds, {} at once; a kill each {} s",
        flags.rounds, flags.at_once, flags.kill_seconds
    );
    let counts = &shared.counts;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let mut figures = Figures::new("delete_races", setting);
    figures.note("rounds", "rounds", flags.rounds as f64);
    figures.note("created", "  the file was created, the directory stayed", count(&counts.created));
    figures.note("deleted", "  the directory went, no file was created", count(&counts.deleted));
    figures.note("neither", "  neither", count(&counts.neither));
    figures.at_most(0.0, "both", "  both succeeded", count(&counts.both));
    figures.at_most(0.0, "orphans", "files without their directory", count(&counts.orphans));
    figures.note("unsure", "calls that could not be done, or may have been", count(&counts.unsure));
    figures.note("kills", "proxies and masters killed", kills as f64);
    figures.note("rounds_per_s", "rounds/s", flags.rounds as f64 / seconds);
    ensure!(count(&counts.created) > 0.0 && count(&counts.deleted) > 0.0, "one side always won:\n{figures}");
    Ok(figures)
}

/// Kills and restarts servers until all rounds are over; gives how many were killed.
async fn until_raced(
    bench: &mut Bench,
    flags: &Flags,
    racing: &mut JoinSet<anyhow::Result<()>>,
    left: &AtomicU64,
) -> anyhow::Result<usize> {
    let Bench { env, processes, system } = bench;
    let in_turn = [Fault::ProxyKill, Fault::MasterKill];
    let kills: Vec<_> = in_turn.into_iter().cycle().take(KILLS_MAX as usize).collect();
    let whole = Duration::from_secs(flags.kill_seconds) * (KILLS_MAX + 1);
    let mut faults = if flags.kill_seconds == 0 { Faults::default() } else { Faults::over(whole, &kills) };
    let (began, mut killed) = (env.clock.now(), 0);
    let mut saboteur = Saboteur { env, processes, system, moves: None };
    loop {
        let due = faults.next_at().map(|at| began + at);
        let waiting = async {
            match due {
                Some(at) => env.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = racing.join_next() => match done {
                Some(done) => done.context("join a race")??,
                None => break,
            },
            () = waiting => {
                let passed = env.clock.now().saturating_since(began);
                if let Some(deed) = faults.take_due(passed) {
                    let what = saboteur.act(&mut faults, passed, deed).await?;
                    killed += usize::from(what.ends_with("killed"));
                    let rounds = flags.rounds - left.load(Ordering::Relaxed);
                    println!("{:6.1} s: {rounds} rounds; {what}", passed.as_secs_f64());
                }
            }
        }
    }
    for victim in faults.take_restarts() {
        saboteur.restart(victim).await?;
    }
    Ok(killed)
}

async fn connect(service: &Service, targets: &[String], env: &Env) -> anyhow::Result<Client> {
    let options = ConnectOptions { cache: false, ..ConnectOptions::new(targets.to_vec()) };
    Client::join(service, options, env).await.context("connect")
}

async fn read_map(client: &Client) -> anyhow::Result<PartitionMap> {
    let name = format!("/ls/{NAMESPACE}/.hasp/partitions");
    let opened = client.open(&name, OpenOptions::read()).await.with_context(|| format!("open {name}"))?;
    let read = opened.handle.get_contents_and_stat().await.with_context(|| format!("read {name}"))?;
    Ok(PartitionMap::parse(&read.contents)?)
}

/// What all races share.
struct Shared {
    env: Env,
    map: PartitionMap,
    counts: Counts,
    /// Rounds that nobody has begun.
    left: AtomicU64,
}

/// How rounds ended.
#[derive(Default)]
struct Counts {
    created: AtomicU64,
    deleted: AtomicU64,
    neither: AtomicU64,
    both: AtomicU64,
    orphans: AtomicU64,
    unsure: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Whether there is something of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    directory: bool,
    file: bool,
}

/// One race after the other.
struct Track {
    number: u64,
    creator: Client,
    deleter: Client,
    onlooker: Client,
    shared: Arc<Shared>,
}

impl Track {
    async fn run(self) -> anyhow::Result<()> {
        let mut names = (0_u64..).map(|number| format!("{RING}/{}-{number}", self.number));
        let mut round = self.number;
        while self
            .shared
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
        {
            let directory = self.next_split(&mut names)?;
            self.round(&directory, round).await.with_context(|| format!("round of {directory}"))?;
            round += 1;
        }
        Ok(())
    }

    /// The next name of a directory whose children are in another cell than its node.
    fn next_split(&self, names: &mut impl Iterator<Item = String>) -> anyhow::Result<String> {
        for text in names {
            let name = Name::parse(&text)?;
            if self.shared.map.owner(&name) != self.shared.map.children_owner(&name) {
                return Ok(text);
            }
        }
        bail!("no name is left")
    }

    async fn round(&self, directory: &str, round: u64) -> anyhow::Result<()> {
        let file = format!("{directory}/file");
        let made = make(&self.deleter, directory).await?;
        let (before_create, before_delete) = (round % STEPS, round / STEPS % STEPS);
        let pause = |steps: u64| self.shared.env.clock.sleep(STEP * u32::try_from(steps).unwrap_or(0));
        let creating = async {
            pause(before_create).await;
            self.creator.open(&file, OpenOptions::create_file("here").must_create()).await.map(drop)
        };
        let deleting = async {
            pause(before_delete).await;
            made.delete().await.map(drop)
        };
        let (created, deleted) = tokio::join!(creating, deleting);
        let seen = self.look(directory, &file).await?;
        self.judge(&created, &deleted, seen)?;
        self.use_again(directory, &file, seen).await
    }

    async fn look(&self, directory: &str, file: &str) -> anyhow::Result<Seen> {
        // The file first: while nobody is at work, a directory that is seen later was there before.
        let file = is_there(&self.onlooker, file).await?;
        Ok(Seen { file, directory: is_there(&self.onlooker, directory).await? })
    }

    fn judge(
        &self,
        created: &Result<(), CallError>,
        deleted: &Result<(), CallError>,
        seen: Seen,
    ) -> anyhow::Result<()> {
        let counts = &self.shared.counts;
        for result in [created, deleted] {
            match result.as_ref().map_err(|error| &error.code) {
                Ok(()) | Err(ErrorCode::NotFound | ErrorCode::NotEmpty) => {}
                Err(ErrorCode::Unavailable) => add(&counts.unsure),
                Err(_) => bail!("created: {created:?}, deleted: {deleted:?}"),
            }
        }
        if seen.file && !seen.directory {
            add(&counts.orphans);
        }
        match (created.is_ok(), deleted.is_ok()) {
            (true, true) => add(&counts.both),
            (true, false) => add(&counts.created),
            (false, true) => add(&counts.deleted),
            (false, false) => add(&counts.neither),
        }
        let is_true = (created.is_err() || seen.file) && (deleted.is_err() || !seen.directory);
        ensure!(is_true, "created: {created:?}, deleted: {deleted:?}, but there is {seen:?}");
        Ok(())
    }

    /// Whoever won, the name is like any other afterwards.
    async fn use_again(&self, directory: &str, file: &str, seen: Seen) -> anyhow::Result<()> {
        let made = if seen.directory {
            self.onlooker.open(directory, OpenOptions::write()).await.context("open it again")?.handle
        } else {
            make(&self.onlooker, directory).await.context("once more")?
        };
        let children = made.read_dir().await.context("list it")?.children;
        ensure!(children.len() == usize::from(seen.file), "{seen:?}, but it lists {children:?}");
        if seen.file {
            let opened = self.onlooker.open(file, OpenOptions::write()).await.context("open the file")?;
            opened.handle.delete().await.context("delete the file")?;
        }
        made.delete().await.context("delete it in the end")?;
        let after = self.look(directory, file).await?;
        ensure!(after == Seen { directory: false, file: false }, "all was deleted, but there is {after:?}");
        Ok(())
    }
}

async fn make(client: &Client, directory: &str) -> anyhow::Result<Handle> {
    let options = OpenOptions::create_directory().must_create();
    Ok(client.open(directory, options).await.with_context(|| format!("make {directory}"))?.handle)
}

async fn is_there(client: &Client, name: &str) -> anyhow::Result<bool> {
    match client.open(name, OpenOptions::read()).await {
        Ok(opened) => {
            opened.handle.close().await.with_context(|| format!("close {name}"))?;
            Ok(true)
        }
        Err(error) if error.code == ErrorCode::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look for {name}")),
    }
}
