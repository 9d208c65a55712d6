//! Runs simulated worlds, each drawn from a seed, and says which promises were broken.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use hasp_loadtest::sim::random::Random;
use hasp_loadtest::sim::{self, Counts, Mutant, Setting, Verdict, regressions};
use hasp_proto::time::Time;
use hasp_rt::clock::{Clock as _, SystemClock};

/// Seeds that each mistake gets to be seen.
const MUTANT_SEEDS: u64 = 20;
/// Fewer worlds than that may be without faults or cached reads.
const FEW: u64 = 20;
/// Fresh seeds are drawn below this, so that they can be said.
const FRESH_BELOW: u64 = 1_000_000_000_000;

/// Simulated worlds, each drawn from a seed.
#[derive(Parser)]
struct Cli {
    /// One world: its story, and what was broken
    #[arg(long)]
    seed: Option<u64>,
    /// So many worlds [default: 100, or without a bound if --minutes is given]
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Begin somewhere else each time
    #[arg(long, conflicts_with_all = ["seed", "from", "mutants"])]
    fresh: bool,
    /// Begin no world after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// No proxies: all clients straight at the masters
    #[arg(long)]
    direct: bool,
    /// Show that mistakes which are made on purpose are seen
    #[arg(long)]
    mutants: bool,
    /// Make the mistake of that name, or that number from 0
    #[arg(long)]
    mutant: Option<String>,
    /// The worlds of that mistake, without making it
    #[arg(long, requires = "mutant")]
    without: bool,
    /// So many sessions through two layers of proxies, with nothing that goes wrong
    #[arg(long, conflicts_with_all = ["seed", "seeds", "mutants"])]
    crowd: Option<usize>,
    /// Worlds at a time
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    let setting = match setting(&cli) {
        Ok(setting) => setting,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if let Some(sessions) = cli.crowd {
        return exit(show_crowd(sessions));
    }
    if cli.fresh {
        cli.from = fresh_seed(SystemClock.now());
        let bound = cli.minutes.map(|minutes| format!(" --minutes {minutes}")).unwrap_or_default();
        println!(
            "fresh worlds; the same again: cargo xtask sim{}{bound} --from {}",
            flags(setting),
            cli.from
        );
    }
    if let Some(seed) = cli.seed {
        return exit(tell(&sim::run(seed, setting, true)));
    }
    // What a panic says is told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    exit(if cli.mutants { show_mutants(cli.from, cli.threads) } else { run_many(&cli, setting) })
}

/// Whether all was as it should be.
fn show_crowd(sessions: usize) -> bool {
    if sessions == 0 {
        eprintln!("a crowd of nobody shows nothing");
        return false;
    }
    let found = sim::crowd::run(sessions);
    println!("{found}");
    found.broken.iter().take(20).for_each(|broken| println!("broken: {broken}"));
    found.broken.is_empty()
}

fn exit(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn setting(cli: &Cli) -> Result<Setting, String> {
    let Some(wanted) = &cli.mutant else {
        return Ok(Setting { is_direct: cli.direct, ..Setting::default() });
    };
    let is_wanted = |(at, mutant): &(usize, Mutant)| {
        *wanted == at.to_string() || wanted.eq_ignore_ascii_case(&format!("{mutant:?}"))
    };
    let found = Mutant::ALL.into_iter().enumerate().find(is_wanted);
    let (_, mutant) =
        found.ok_or_else(|| format!("no such mistake: {wanted}; there are {:?}", Mutant::ALL))?;
    Ok(if cli.without { Setting::without(mutant) } else { Setting::for_mutant(mutant) })
}

/// Some seed, far from those of other moments.
fn fresh_seed(now: Time) -> u64 {
    1 + Random::new(now.as_micros()).draw() % FRESH_BELOW
}

/// What replays worlds of that setting.
fn flags(setting: Setting) -> String {
    match (setting.mutant, setting.stage) {
        (Some(mutant), _) => format!(" --mutant {mutant:?}"),
        (None, Some(stage)) => format!(" --mutant {stage:?} --without"),
        (None, None) if setting.is_direct => " --direct".to_owned(),
        (None, None) => String::new(),
    }
}

fn tell(verdict: &Verdict) -> bool {
    for line in &verdict.story {
        println!("{line}");
    }
    println!("seed {}: {:?}, fingerprint {:016x}", verdict.seed, verdict.counts, verdict.fingerprint);
    for broken in &verdict.broken {
        println!("broken: {broken}");
    }
    verdict.broken.is_empty()
}

/// Does the same on so many threads until each has come to its end.
fn on_threads(count: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..count.max(1) {
            scope.spawn(&work);
        }
    });
}

fn run_many(cli: &Cli, setting: Setting) -> bool {
    let clock = SystemClock;
    let begun = clock.now();
    let limit = cli.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let seeds = cli.seeds.unwrap_or(if limit.is_some() { u64::MAX - cli.from } else { 100 });
    // Worlds that have shown something come first.
    let known = if setting.stage.is_none() { regressions::ALL } else { &[] };
    let (next_known, next) = (AtomicUsize::new(0), AtomicU64::new(cli.from));
    let all: Mutex<(Counts, Vec<(Setting, Verdict)>)> = Mutex::default();
    on_threads(cli.threads, || {
        loop {
            let known = known.get(next_known.fetch_add(1, Ordering::Relaxed));
            let (seed, setting) = match known {
                Some(known) => (known.seed, known.setting),
                None => (next.fetch_add(1, Ordering::Relaxed), setting),
            };
            let is_late = limit.is_some_and(|limit| clock.now().saturating_since(begun) > limit);
            if known.is_none() && (seed >= cli.from + seeds || is_late) {
                return;
            }
            let verdict = sim::guarded(seed, setting);
            let mut all = all.lock().expect("nobody panics with it");
            all.0.add(&verdict.counts);
            if !verdict.broken.is_empty() {
                println!("seed {seed}{}: {}", flags(setting), verdict.broken[0]);
                all.1.push((setting, verdict));
            }
        }
    });
    let (counts, broken) = all.into_inner().expect("nobody panics with it");
    let seconds = clock.now().saturating_since(begun).as_secs_f64();
    println!("{} worlds in {seconds:.1} s: {counts}", counts.worlds);
    for (setting, verdict) in &broken {
        println!("replay with: cargo xtask sim{} --seed {}", flags(*setting), verdict.seed);
    }
    if !broken.is_empty() {
        println!("{} of {} worlds broke a promise", broken.len(), counts.worlds.max(broken.len() as u64));
        return false;
    }
    let too_little = too_little(&counts);
    if !too_little.is_empty() {
        println!("too little happened for this to mean anything: {}", too_little.join(", "));
    }
    too_little.is_empty()
}

/// What many worlds must not be without.
fn too_little(counts: &Counts) -> Vec<String> {
    if counts.worlds == 0 {
        return vec!["no worlds".to_owned()];
    }
    let needed = [
        (counts.crashes, "crashes"),
        (counts.other_faults, "other faults"),
        (counts.elections, "elections"),
        (counts.writes, "writes"),
        (counts.cached_reads, "cached reads"),
        (counts.locks, "locks"),
    ];
    let missing = needed.into_iter().filter(|(count, _)| *count == 0 && counts.worlds >= FEW);
    missing.map(|(_, what)| format!("no {what}")).chain(counts.too_few()).collect()
}

/// What came of a mistake.
struct Shown {
    seeds: u64,
    seen: Option<(u64, String)>,
}

fn show_mutants(from: u64, threads: usize) -> bool {
    let next = AtomicUsize::new(0);
    let shown: Mutex<Vec<Option<Shown>>> = Mutex::new(Mutant::ALL.map(|_| None).into_iter().collect());
    on_threads(threads, || {
        while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = show_mutant(*mutant, from);
            let at = Mutant::ALL.iter().position(|other| other == mutant).expect("one of all");
            shown.lock().expect("nobody panics with it")[at] = Some(result);
        }
    });
    let mut survivors = 0;
    println!("{:<24} {:<8} {:>5}  seen by", "mistake", "promise", "seeds");
    for (mutant, shown) in Mutant::ALL.into_iter().zip(shown.into_inner().expect("nobody panics with it")) {
        let Shown { seeds, seen } = shown.expect("each was tried");
        let told = match seen {
            Some((seed, broken)) => format!("seed {seed}: {broken}"),
            None => {
                survivors += 1;
                "nothing: it SURVIVES".to_owned()
            }
        };
        println!("{:<24} {:<8} {seeds:>5}  {told}", format!("{mutant:?}"), mutant.promise());
    }
    println!("{} of {} mistakes seen", Mutant::ALL.len() - survivors, Mutant::ALL.len());
    survivors == 0
}

fn show_mutant(mutant: Mutant, from: u64) -> Shown {
    let seen = |seed| {
        let made = sim::guarded(seed, Setting::for_mutant(mutant));
        mutant.seen_in(&made, || sim::guarded(seed, Setting::without(mutant)))
    };
    let found = (from..from + MUTANT_SEEDS).find_map(|seed| Some((seed, seen(seed)?)));
    let seeds = found.as_ref().map_or(MUTANT_SEEDS, |(seed, _)| seed - from + 1);
    Shown { seeds, seen: found }
}
