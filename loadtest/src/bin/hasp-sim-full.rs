//! Runs one world of the full stack, drawn from its seed, and says what came of it: `cargo xtask sim --full` starts a
//! process of this for each world.
//!
//! All that libraries would draw from the system, or read from its clocks, comes from the seed and from simulated time,
//! for the whole process: so one process, one world.

use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use hasp_loadtest::full::{swarm, telling};
use mad_turmoil::time::SimClocksGuard;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// What panicked, also in tasks whose owners do not look.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// One world of the full stack, drawn from a seed.
#[derive(Parser)]
struct Cli {
    /// The seed
    #[arg(long)]
    seed: u64,
    /// Print all that happens, a line each
    #[arg(long)]
    story: bool,
    /// How long things go wrong, in seconds, instead of what the seed says
    #[arg(long)]
    trouble: Option<u64>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(cli.seed));
    let _simulated = SimClocksGuard::init();
    telling::log_if_asked();
    std::panic::set_hook(Box::new(note_panic));
    let mut verdict = swarm::run(cli.seed, cli.trouble.map(Duration::from_secs));
    verdict.broken.append(&mut PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    if cli.story {
        for line in &verdict.story {
            println!("{line}");
        }
    }
    println!("{}", serde_json::to_string(&verdict).expect("plain numbers and text"));
    if verdict.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn note_panic(panic: &PanicHookInfo<'_>) {
    let at = turmoil::sim_elapsed().unwrap_or_default();
    let told = format!("{:.3}: {panic}", at.as_secs_f64()).replace('\n', " ");
    eprintln!("{told}");
    PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(told);
}
