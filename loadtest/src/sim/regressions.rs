//! Worlds that have shown something once, and that every run of many worlds begins with.
//!
//! A seed tells its story only as long as worlds are drawn as they were: what one showed is kept, too, as a test of the
//! lowest machine that shows it. A seed that tells another story is a seed like any other.

use super::plan::Setting;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regression {
    /// Of the world.
    pub seed: u64,
    /// What else is asked of it.
    pub setting: Setting,
    /// The promise that was broken in it.
    pub promise: &'static str,
    /// What it showed.
    pub showed: &'static str,
}

const fn with_proxies(seed: u64, promise: &'static str, showed: &'static str) -> Regression {
    let setting = Setting { mutant: None, stage: None, is_direct: false };
    Regression { seed, setting, promise, showed }
}

/// All of them.
pub const ALL: &[Regression] = &[
    with_proxies(
        185,
        "P-LIN",
        "a client that changed proxies went on believing in the cache lease of the first, for what it cached through the \
         second",
    ),
    with_proxies(
        501_755,
        "P-LEASE",
        "a client was welcomed by a proxy without a session at one cell, and believed for a moment in what it had there",
    ),
    with_proxies(
        618_322,
        "P-LEASE",
        "a proxy ended a client that counted on the longer lease of the proxy before",
    ),
    with_proxies(
        714_962,
        "P-EVENT",
        "a client was let in without one of its cells, was ended there by its old proxy, and its new subscriptions with it",
    ),
    with_proxies(
        707_302,
        "P-LEASE",
        "a proxy ended a client at all cells as soon as it heard that one of them had given it up, before the client did",
    ),
];

#[cfg(test)]
mod tests {
    use super::super::run;
    use super::*;

    #[test]
    fn what_worlds_have_shown_once_they_do_not_show_again() {
        for Regression { seed, setting, promise, showed } in ALL {
            let verdict = run(*seed, *setting, false);

            let again = verdict.broken.iter().find(|broken| broken.contains(&format!("{promise}:")));
            assert_eq!(again, None, "seed {seed} showed: {showed}");
        }
    }
}
