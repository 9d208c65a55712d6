//! `lease-5`: the longest lease is in the state, so that a new master knows what its predecessor may have granted.

use hasp_proto::limits::{LEASE, LEASE_MAX};

use super::*;

#[test]
fn the_longest_lease_only_grows_from_the_usual_to_the_limit() {
    let mut world = World::new();
    assert_eq!(State::default().lease_max(), LEASE);
    let mut raised_to = |lease_max| {
        assert_eq!(world.run(Command::RaiseLeaseMax(lease_max)), Outcome::Noted);
        let resumed =
            State::from_snapshot(world.state.write_snapshot().into_iter()).expect("a good snapshot");
        assert_eq!(resumed.lease_max(), world.state.lease_max());
        world.state.lease_max()
    };

    assert_eq!(raised_to(LEASE / 2), LEASE);
    assert_eq!(raised_to(LEASE * 2), LEASE * 2);
    assert_eq!(raised_to(LEASE), LEASE * 2, "never less");
    assert_eq!(raised_to(LEASE_MAX + Duration::from_secs(1)), LEASE_MAX);
    assert_eq!(raised_to(Duration::MAX), LEASE_MAX);
}

#[test]
fn a_new_master_finds_the_longest_lease_as_it_was() {
    let mut world = World::new();
    world.run(Command::RaiseLeaseMax(LEASE * 3));

    world.run(Command::MasterEpoch { replica: 2, genesis: None });

    assert_eq!(world.state.lease_max(), LEASE * 3);
    let late = LogEntry { epoch: Epoch(1), commands: vec![Command::RaiseLeaseMax(LEASE * 4)] };
    assert!(matches!(world.apply(late)[0], Outcome::Rejected(_)));
    assert_eq!(world.state.lease_max(), LEASE * 3);
}
