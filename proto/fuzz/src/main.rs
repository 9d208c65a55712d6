//! `cargo xtask fuzz`: looks for inputs that break a target, and puts those that do into the corpus.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use hasp_fuzz::campaign::{Campaign, Crash, cut_short, run};
use hasp_fuzz::{Target, all, corpus, find, seeds};

/// Looks for inputs that break what reads them.
#[derive(Parser)]
struct Cli {
    /// How long each target is tried
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Of the generator: the same seed and corpus give the same inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Put the inputs that brought a target somewhere new into its corpus, this many at most
    #[arg(long, default_value_t = 0)]
    keep: usize,
    /// Write the inputs that the corpus begins with, and try nothing
    #[arg(long)]
    write_seeds: bool,
    /// Say what each input of the corpus leads to, and try nothing
    #[arg(long)]
    show: bool,
    /// Only this target
    target: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let targets: Vec<&'static Target> = match &cli.target {
        Some(name) => vec![find(name).with_context(|| {
            let names: Vec<_> = all().iter().map(|target| target.name).collect();
            format!("{name} is no target; there are {}", names.join(", "))
        })?],
        None => all().iter().collect(),
    };
    if cli.write_seeds {
        return targets.into_iter().try_for_each(write_seeds);
    }
    if cli.show {
        return targets.into_iter().try_for_each(show);
    }
    // Targets panic by the thousand while a crash is cut short; what they said is kept with the crash.
    std::panic::set_hook(Box::new(|_| {}));
    let mut broken = 0;
    for target in targets {
        if let Err(crash) = fuzz(target, &cli)? {
            broken += 1;
            let crash = cut_short(target, crash);
            let path = corpus::write(target, &corpus::input_of(&crash))?;
            println!("{}: BROKEN: {}\n  saved as {}", target.name, crash.message, path.display());
        }
    }
    if broken > 0 {
        bail!("{broken} targets are broken; cargo test -p hasp-fuzz says so until they are not");
    }
    Ok(())
}

fn write_seeds(target: &'static Target) -> anyhow::Result<()> {
    for seed in seeds::of(target) {
        corpus::write(target, &seed)?;
    }
    Ok(())
}

fn show(target: &'static Target) -> anyhow::Result<()> {
    for input in corpus::read(target)? {
        let name = format!("{}/{}", target.name, input.name);
        match run(target, &input.bytes) {
            Ok(verdict) => {
                println!("{name}: {} {}", if verdict.taken { "taken" } else { "refused" }, verdict.trail)
            }
            Err(crash) => println!("{name}: BROKEN: {}", crash.message),
        }
    }
    Ok(())
}

/// Tries a target for as long as was asked.
#[allow(
    clippy::disallowed_methods,
    reason = "how long to go on is the user's time, and decides nothing else"
)]
fn fuzz(target: &'static Target, cli: &Cli) -> anyhow::Result<Result<(), Crash>> {
    let inputs = corpus::read(target)?;
    let known = inputs.len();
    let mut campaign =
        match Campaign::new(target, inputs.into_iter().map(|input| input.bytes).collect(), cli.seed) {
            Ok(campaign) => campaign,
            Err(crash) => return Ok(Err(crash)),
        };
    let until = Instant::now() + Duration::from_secs(cli.seconds);
    let mut tried = 0_u64;
    while Instant::now() < until {
        for _ in 0..64 {
            if let Err(crash) = campaign.step() {
                return Ok(Err(crash));
            }
        }
        tried += 64;
    }
    let found = campaign.discoveries();
    for input in found.iter().take(cli.keep) {
        let name = format!("found-{:016x}", hasp_proto::node::checksum(input));
        corpus::write(target, &corpus::Input { name, bytes: input.clone() })?;
    }
    println!("{}: {known} in the corpus, {tried} tried, {} somewhere new", target.name, found.len());
    Ok(Ok(()))
}
