//! Chores of the project: `cargo xtask ci | fix | tidy | fuzz [TARGET] | sim ARGS | model ARGS | check-report FILE`.
#![allow(clippy::disallowed_methods, reason = "a chore reads the real tree, never a simulated one")]

mod model;
mod report;
mod sim;
mod tidy;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};

/// Chores of the project.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Everything that a change must pass
    Ci,
    /// Format the code and apply what the lints suggest
    Fix,
    /// Check what compilers do not: purity, edges between crates, sizes, words
    Tidy,
    /// Look for inputs that break what reads them, and put those that do into the corpus
    Fuzz {
        /// How long each target is tried
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Of the generator: the same seed and corpus give the same inputs
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Only this target
        target: Option<String>,
    },
    /// Run the protocol's machines in simulated worlds, each drawn from a seed
    Sim {
        /// For the simulator: `--help` shows them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Search the models of the protocol, state by state
    Model {
        /// For the search: `--help` shows them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Check the JSON report of a load test
    CheckReport {
        /// The file
        file: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let root = root()?;
    match Cli::parse().chore {
        Chore::Ci => run(Command::new("bash").arg(".ci/run").current_dir(&root)),
        Chore::Fix => {
            let clippy =
                ["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets"];
            run(Command::new("cargo").args(clippy).current_dir(&root))?;
            run(Command::new("cargo").args(["fmt", "--all"]).current_dir(&root))
        }
        Chore::Tidy => tidy::check(&root),
        Chore::Fuzz { seconds, seed, target } => {
            // Optimized, but with the checks of arithmetic that tests have.
            let mut fuzz = Command::new("cargo");
            fuzz.args(["run", "--quiet", "--package", "hasp-fuzz", "--profile", "checked", "--"]);
            fuzz.args([format!("--seconds={seconds}"), format!("--seed={seed}")]).args(target);
            run(fuzz.current_dir(&root))
        }
        Chore::Sim { args } => sim::run(&root, &args),
        Chore::Model { args } => model::run(&root, &args),
        Chore::CheckReport { file } => report::check(&file),
    }
}

fn root() -> anyhow::Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().context("find the workspace")?;
    Ok(root.to_owned())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
