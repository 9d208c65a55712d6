//! Worlds of the full stack: a process for each, since all that a world draws and all its clocks are the process's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use serde_json::Value;

/// Worlds of fewer seeds may all be quiet ones.
const TELLING_SEEDS: u64 = 20;
/// What must not be missing where there are enough worlds.
const NEEDED: [&str; 19] = [
    "crashes",
    "cuts",
    "hand_overs",
    "disk_faults",
    "elections",
    "writes",
    "guarded",
    "cached_reads",
    "locks",
    "across",
    "directories_across",
    "layered",
    "shared",
    "events",
    "let_in",
    "shut_out",
    "moves",
    "moves_in_trouble",
    "locks_moved",
];

/// For how many seconds there is trouble in the world that is told twice.
const TROUBLE_TO_REPEAT: &str = "6";

/// Whole systems on a simulated network, each drawn from a seed, each in a process of its own
#[derive(Parser)]
pub(super) struct Full {
    /// These, and not messages only
    #[arg(long)]
    full: bool,
    /// One world: all that happens in it, and what was broken
    #[arg(long)]
    seed: Option<u64>,
    /// So many worlds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Begin no world after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// Worlds at a time
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

/// What came of all worlds.
#[derive(Default)]
struct Sum {
    counts: BTreeMap<String, u64>,
    broken: Vec<u64>,
}

impl Sum {
    fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }
}

impl Full {
    /// Builds what runs a world, and runs worlds.
    ///
    /// # Errors
    /// If a promise was broken in one, or one tells another story the second time.
    pub(super) fn run(&self, root: &Path) -> anyhow::Result<()> {
        let program = build(root)?;
        if let Some(seed) = self.seed {
            let mut world = Command::new(&program);
            return crate::run(world.args(["--seed", &seed.to_string(), "--story"]));
        }
        check_repeatable(&program, self.from)?;
        let begun = Instant::now();
        let limit = self.minutes.map(|minutes| Duration::from_secs(60 * minutes));
        let next = AtomicU64::new(self.from);
        let sum: Mutex<Sum> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        let is_late = limit.is_some_and(|limit| begun.elapsed() > limit);
                        if seed >= self.from + self.seeds || is_late {
                            return;
                        }
                        let verdict = world(&program, seed);
                        take(&mut sum.lock().expect("nobody panics with it"), seed, verdict);
                    }
                });
            }
        });
        report(&sum.into_inner().expect("nobody panics with it"), begun.elapsed())
    }
}

fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "build",
        "--quiet",
        "--package",
        "hasp-loadtest",
        "--features",
        "repeatable",
        "--bin",
        "hasp-sim-full",
    ]);
    cargo.args(["--profile", "checked", "--message-format", "json-render-diagnostics"]);
    let built = cargo.current_dir(root).stderr(Stdio::inherit()).output().context("run cargo build")?;
    if !built.status.success() {
        bail!("hasp-sim-full is not built: {}", built.status);
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    let mut programs = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message["executable"].as_str()?))
    });
    programs.next_back().context("find hasp-sim-full")
}

/// The same seed tells the same story byte for byte, and another seed another.
fn check_repeatable(program: &Path, seed: u64) -> anyhow::Result<()> {
    let story = |seed: u64| {
        let mut world = Command::new(program);
        world.args(["--seed", &seed.to_string(), "--story", "--trouble", TROUBLE_TO_REPEAT]);
        anyhow::Ok(String::from_utf8(world.env_remove("RUST_LOG").output().context("start a world")?.stdout)?)
    };
    let (once, again) = (story(seed)?, story(seed)?);
    let lines = once.lines().zip(again.lines());
    if let Some((at, (one, other))) = (1..).zip(lines).find(|(_, (one, other))| one != other) {
        bail!("seed {seed} tells two stories; line {at}:\n{one}\n{other}");
    }
    let is_telling = once.lines().count() > 100 && once != story(seed + 1)?;
    if once.len() != again.len() || !is_telling {
        bail!("seed {seed} tells too little, or not the same twice");
    }
    Ok(())
}

/// What its process says of that seed's world; one that ends without a word has failed.
fn world(program: &Path, seed: u64) -> anyhow::Result<Value> {
    let mut world = Command::new(program);
    let done = world.args(["--seed", &seed.to_string()]).output().context("start a world")?;
    let said = String::from_utf8_lossy(&done.stdout);
    let verdict = said.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    match verdict {
        Some(verdict) if verdict["broken"].as_array().is_some_and(Vec::is_empty) == done.status.success() => {
            Ok(verdict)
        }
        _ => {
            let complaint = String::from_utf8_lossy(&done.stderr);
            let first = complaint.lines().find(|line| !line.is_empty()).unwrap_or_default();
            bail!("the simulator ended with {}, without a verdict: {first}", done.status)
        }
    }
}

fn take(sum: &mut Sum, seed: u64, verdict: anyhow::Result<Value>) {
    let broken = match verdict {
        Ok(verdict) => {
            for (what, count) in verdict["counts"].as_object().into_iter().flatten() {
                *sum.counts.entry(what.clone()).or_default() += count.as_u64().unwrap_or_default();
            }
            let broken = verdict["broken"].as_array().and_then(|broken| broken.first());
            broken.map(|broken| broken.as_str().unwrap_or_default().to_owned())
        }
        Err(error) => Some(error.to_string()),
    };
    if let Some(broken) = broken {
        println!("seed {seed}: {broken}");
        sum.broken.push(seed);
    }
}

fn report(sum: &Sum, took: Duration) -> anyhow::Result<()> {
    let counts: Vec<String> = sum.counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    println!("{} worlds in {:.1} s: {}", sum.count("worlds"), took.as_secs_f64(), counts.join(", "));
    for seed in &sum.broken {
        println!("replay with: cargo xtask sim --full --seed {seed}");
    }
    if !sum.broken.is_empty() {
        bail!("{} worlds with broken promises", sum.broken.len());
    }
    let worlds = sum.count("worlds");
    let missing = NEEDED.iter().find(|what| sum.count(what) == 0);
    match missing.filter(|_| worlds >= TELLING_SEEDS) {
        _ if worlds == 0 => bail!("no world was run"),
        Some(what) => bail!("too little happened for this to mean anything: no {what}"),
        None => Ok(()),
    }
}
