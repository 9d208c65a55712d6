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
    /// What was broken in it: a promise, or that everybody gets on.
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
        900_475,
        "P-TREE",
        "a directory was deleted while its children were on their way to another cell: it seemed to have none",
    ),
    with_proxies(
        901_030,
        "P-ACL",
        "a directory got other ACL names while its children were on their way to another cell, which went by the old ones",
    ),
    with_proxies(
        3_132_789_129,
        "P-EVENT",
        "a relay said late that a client was gone, and what the next one listened to for it by then was forgotten",
    ),
    with_proxies(
        820_148,
        "P-EVENT",
        "that a directory is gone was told while another cell was asked to tell of its children: nobody heard of it",
    ),
    with_proxies(
        830_715,
        "P-ACL",
        "a directory was said to be open as of a later position, where its client was not allowed to have it",
    ),
    with_proxies(
        830_781,
        "progress",
        "a step in another cell was asked under its request's own number, and met the answer that was kept: for ever",
    ),
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
    with_proxies(
        800_021,
        "progress",
        "the word of a cell that it has given a client up reached the proxy below another as \"try again\", for ever",
    ),
    with_proxies(
        800_067,
        "P-EVENT",
        "what a lower proxy said late of a client that was at the upper one by then ended that client's subscriptions",
    ),
    with_proxies(
        800_448,
        "P-LEASE",
        "behind one host for two cells, leases below were extended before the second cell's lapse was dealt with",
    ),
    with_proxies(
        800_701,
        "P-LEASE",
        "a proxy answered a claim as noted although it had no session with the cell, and the client was ended there",
    ),
    with_proxies(
        800_840,
        "P-EVENT",
        "the end of a session that a client had left at an upper proxy ended the subscriptions that it had through a lower one",
    ),
    with_proxies(
        2_357_683_853,
        "P-EVENT",
        "who opened a node that was gone in a state that was ahead ended what others were still to hear of it",
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

            assert_eq!(verdict.broken, [""; 0], "seed {seed} broke {promise}: {showed}");
        }
    }
}
