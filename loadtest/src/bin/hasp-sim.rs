//! Runs simulated worlds, each drawn from a seed, and says which promises were broken.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use hasp_loadtest::sim::{self, Counts, Mutant, Setting, Verdict};
use hasp_rt::clock::{Clock as _, SystemClock};

/// Seeds that each mistake gets to be seen.
const MUTANT_SEEDS: u64 = 20;

/// Simulated worlds, each drawn from a seed.
#[derive(Parser)]
struct Cli {
    /// One world: its story, and what was broken
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
    /// No proxies: all clients straight at the masters
    #[arg(long)]
    direct: bool,
    /// Show that mistakes which are made on purpose are seen
    #[arg(long)]
    mutants: bool,
    /// Make the mistake of that number, from 0
    #[arg(long)]
    mutant: Option<usize>,
    /// Worlds at a time
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What a panic says is told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let mutant = cli.mutant.and_then(|at| Mutant::ALL.get(at).copied());
    let setting = mutant.map_or(Setting { mutant: None, is_direct: cli.direct }, Setting::for_mutant);
    let is_good = if cli.mutants {
        show_mutants(cli.from)
    } else if let Some(seed) = cli.seed {
        let _ = std::panic::take_hook();
        tell(&sim::run(seed, setting, true))
    } else {
        run_many(&cli, setting)
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A world that must not panic.
fn guarded(seed: u64, setting: Setting) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| sim::run(seed, setting, false))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let broken = vec![format!("panic: {}", text.unwrap_or_default())];
        Verdict { seed, broken, counts: Counts::default(), fingerprint: 0, story: Vec::new() }
    })
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

fn run_many(cli: &Cli, setting: Setting) -> bool {
    let clock = SystemClock;
    let begun = clock.now();
    let limit = cli.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let next = AtomicU64::new(cli.from);
    let all: Mutex<(Counts, Vec<Verdict>)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..cli.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let is_late = limit.is_some_and(|limit| clock.now().saturating_since(begun) > limit);
                    if seed >= cli.from + cli.seeds || is_late {
                        return;
                    }
                    let verdict = guarded(seed, setting);
                    let mut all = all.lock().expect("nobody panics with it");
                    all.0.add(&verdict.counts);
                    if !verdict.broken.is_empty() {
                        println!("seed {seed}: {}", verdict.broken[0]);
                        all.1.push(verdict);
                    }
                }
            });
        }
    });
    let (counts, broken) = all.into_inner().expect("nobody panics with it");
    println!(
        "{} worlds in {:.1} s: {} crashes, {} other faults, {} elections, {} answers, {} acknowledged writes, {} cached \
         reads, {} locks, {} checks",
        counts.worlds,
        clock.now().saturating_since(begun).as_secs_f64(),
        counts.crashes,
        counts.other_faults,
        counts.elections,
        counts.answers,
        counts.writes,
        counts.cached_reads,
        counts.locks,
        counts.checks
    );
    for verdict in &broken {
        let direct = if setting.is_direct { " --direct" } else { "" };
        println!("replay with: cargo xtask sim{direct} --seed {}", verdict.seed);
    }
    let has_gone_wrong = cli.seeds < 20 || counts.crashes > 0 && counts.other_faults > 0;
    let has_worked = counts.answers > 100 * counts.worlds.max(1) && counts.cached_reads > 0 || cli.seeds < 20;
    if broken.is_empty() && !(has_gone_wrong && has_worked) {
        println!("too little happened for this to mean anything");
    }
    broken.is_empty() && has_gone_wrong && has_worked
}

fn show_mutants(from: u64) -> bool {
    let mut survivors = 0;
    for mutant in Mutant::ALL {
        let seen = (from..from + MUTANT_SEEDS).find_map(|seed| {
            let verdict = guarded(seed, Setting::for_mutant(mutant));
            verdict.broken.into_iter().next().map(|broken| (seed, broken))
        });
        match seen {
            Some((seed, broken)) => println!("{mutant:?} seen with seed {seed}: {broken}"),
            None => {
                survivors += 1;
                println!("{mutant:?} SURVIVES {MUTANT_SEEDS} seeds");
            }
        }
    }
    survivors == 0
}
