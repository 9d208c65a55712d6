//! Of `locks`: exclusion, and what is done under sequencers.

use hasp_proto::node::LockMode;

use super::*;
use crate::sim::check::locks::{Believed, check_together};

const LOCK: &str = "/ls/dev/l0";

fn held(client: usize, mode: LockMode) -> Believed {
    Believed { name: name(LOCK), client, mode, lock_generation: 5 }
}

fn together(held: &[Believed]) -> Vec<String> {
    let mut findings = Findings::default();
    check_together(held, &mut findings);
    findings.broken
}

#[test]
fn two_holders_of_whom_one_is_exclusive_are_seen() {
    use LockMode::{Exclusive, Shared};
    let elsewhere = Believed { name: name(FILE), ..held(2, Exclusive) };

    assert!(together(&[held(0, Shared), held(1, Shared), elsewhere]).is_empty());

    for (one, other) in [(Shared, Exclusive), (Exclusive, Shared), (Exclusive, Exclusive)] {
        let broken = together(&[held(0, one), held(1, other)]);
        assert!(broken[0].contains("P-LOCK: /ls/dev/l0 is held by c1"), "{broken:?}");
    }
}

/// A lock of that generation from each of these indices on.
fn lock(generations: &[(u64, u64)]) -> Vec<Version> {
    let version = |(index, lock_generation): &(u64, u64)| {
        let stat = Stat { lock_generation: Generation(*lock_generation), ..stat(1) };
        Version { index: *index, at: Moment(*index), node: Some((stat, Bytes::new())), has_moved: false }
    };
    generations.iter().map(version).collect()
}

#[test]
fn a_write_under_a_sequencer_of_an_acquisition_that_is_over_is_seen() {
    let guarded = |index| {
        let write = write(0, (index - 5, index), index, "a");
        let contents = Bytes::from_static(b"a");
        Asked { what: What::Guarded { contents, lock: name(LOCK), lock_generation: 11 }, ..write }
    };
    let file = |index| vec![Version { index, ..version(index, "a") }];
    let locks = || lock(&[(5, 1), (11, 11), (25, 25)]);

    let in_time = history_of([(LOCK, locks()), (FILE, file(20))]);
    assert_eq!(found(in_time, vec![guarded(20)]), Vec::<String>::new());

    finds(history_of([(LOCK, locks()), (FILE, file(30))]), vec![guarded(30)], "P-SEQ: Guarded");
}
