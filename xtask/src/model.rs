//! Builds and runs the search of the protocol's models in `hasp-loadtest`.

use std::path::Path;

/// Optimized, but with the checks of arithmetic that tests have.
///
/// # Errors
/// If a promise was broken, or something was left out and not missed; the way to it was printed.
pub fn run(root: &Path, args: &[String]) -> anyhow::Result<()> {
    super::sim::simulator(root, "hasp-model", args)
}
