//! Builds and runs the message-level simulator of `hasp-loadtest`.

use std::path::Path;
use std::process::Command;

/// Optimized, but with the checks of arithmetic that tests have.
///
/// # Errors
/// If a promise was broken in a world; what replays it was printed.
pub fn run(root: &Path, args: &[String]) -> anyhow::Result<()> {
    let mut sim = Command::new("cargo");
    sim.args(["run", "--quiet", "--package", "hasp-loadtest", "--features", "sim", "--bin", "hasp-sim"]);
    sim.args(["--profile", "checked", "--"]).args(args);
    super::run(sim.current_dir(root))
}
