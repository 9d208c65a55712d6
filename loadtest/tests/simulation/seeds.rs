//! Which seeds a scenario is run with.

use std::panic::AssertUnwindSafe;

use hasp_loadtest::full::telling::log_if_asked;

/// Runs a scenario with each of its usual seeds, or with those that `HASP_SIM_SEEDS` says (`7` or `0..30`).
pub fn for_seeds(usual: impl IntoIterator<Item = u64>, scenario: impl Fn(u64)) {
    log_if_asked();
    let mut failed = Vec::new();
    for seed in asked().unwrap_or_else(|| usual.into_iter().collect()) {
        // All seeds are tried: which of them fail says more than the first.
        if std::panic::catch_unwind(AssertUnwindSafe(|| scenario(seed))).is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "failing seeds: {failed:?}");
}

fn asked() -> Option<Vec<u64>> {
    let text = std::env::var("HASP_SIM_SEEDS").ok()?;
    let number = |text: &str| text.parse::<u64>().expect("HASP_SIM_SEEDS is N or N..M");
    Some(match text.split_once("..") {
        Some((from, to)) => (number(from)..number(to)).collect(),
        None => vec![number(&text)],
    })
}
