//! How far leases downstream may reach: within those upstream (`lease-1`, `lease-2`).
//!
//! ```text
//! cell:   not counted -- welcomed --> counted -- session expired, its users told --> not counted
//! ```
//!
//! A cell that is not counted binds nobody: nothing of it is promised to anyone downstream. While no
//! cell counts, nothing is granted.

use std::time::Duration;

use hasp_proto::client::Status;
use hasp_proto::lease::Ceiling;

use crate::upstream::Held;

/// The tightest ceiling below the sessions that stand. `margin` is kept off both leases. Only cells keep what is left
/// there for a claim window.
pub(super) fn ceiling<'a>(sessions: impl Iterator<Item = Held<'a>>, margin: Duration) -> Ceiling {
    let below = |held: Held<'_>| match held.cell {
        Some(_) => Ceiling::below(held.ends, margin),
        None => Ceiling::within(held.ends, margin),
    };
    sessions
        .filter(|held| matches!(held.status, Status::Safe | Status::Jeopardy))
        .map(below)
        .reduce(Ceiling::and)
        .unwrap_or(Ceiling::Closed)
}

#[cfg(test)]
mod tests {
    use hasp_proto::id::{CellName, SessionKey};
    use hasp_proto::lease::LeaseEnds;
    use hasp_proto::time::Time;

    use super::*;

    #[test]
    fn the_cell_whose_lease_ends_first_binds_and_those_without_a_session_do_not() {
        let cell = CellName::new("a");
        let held = |status: Status, millis: u64| {
            let end = Time::from_millis(millis);
            let ends = LeaseEnds { session: end, cache: end };
            Held { cell: Some(&cell), session: SessionKey::new([1; 16]).id(), status, ends, host: None }
        };
        let check = |sessions: &[Held<'_>], cache_end: Option<u64>| {
            let expected = cache_end.map_or(Ceiling::Closed, |millis| {
                let end = Time::from_millis(millis);
                Ceiling::below(LeaseEnds { session: end, cache: end }, Duration::from_millis(500))
            });
            assert_eq!(ceiling(sessions.iter().copied(), Duration::from_millis(500)), expected);
        };

        check(&[], None);
        check(&[held(Status::New, 0)], None);
        check(&[held(Status::Safe, 9_000), held(Status::Safe, 12_000)], Some(9_000));
        check(&[held(Status::Safe, 12_000), held(Status::Safe, 9_000)], Some(9_000));
        check(&[held(Status::Safe, 12_000), held(Status::Jeopardy, 3_000)], Some(3_000));
        check(&[held(Status::Safe, 12_000), held(Status::New, 0), held(Status::Over, 1)], Some(12_000));
    }

    #[test]
    fn below_a_host_that_is_no_cell_there_is_no_claim_window_to_add() {
        let ends = LeaseEnds { session: Time::from_millis(60_000), cache: Time::from_millis(12_000) };
        let session = SessionKey::new([1; 16]).id();
        let held = Held { cell: None, session, status: Status::Safe, ends, host: None };

        let expected = LeaseEnds { session: Time::from_millis(59_500), cache: Time::from_millis(11_500) };
        assert_eq!(ceiling([held].into_iter(), Duration::from_millis(500)), Ceiling::Upstream(expected));
    }
}
