//! Builds and runs the simulators of `hasp-loadtest`: of messages, and with `--full` of the full stack.

mod full;

use std::path::Path;
use std::process::Command;

use clap::Parser as _;

/// Runs worlds; optimized, but with the checks of arithmetic that tests have.
///
/// # Errors
/// If a promise was broken in a world; what replays it was printed.
pub fn run(root: &Path, args: &[String]) -> anyhow::Result<()> {
    if args.iter().any(|arg| arg == "--full") {
        return full::Full::parse_from(["cargo xtask sim".to_owned()].iter().chain(args)).run(root);
    }
    simulator(root, "hasp-sim", args)
}

/// Builds one of the programs of `hasp-loadtest` that search for broken promises, and runs it.
///
/// # Errors
/// If it found one.
pub fn simulator(root: &Path, program: &str, args: &[String]) -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["run", "--quiet", "--package", "hasp-loadtest", "--profile", "checked"]);
    // Both with the features of both: what they share is built once.
    cargo.args(["--features", "sim,model", "--bin", program, "--"]).args(args);
    super::run(cargo.current_dir(root))
}
