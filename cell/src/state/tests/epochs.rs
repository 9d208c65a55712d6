//! `fail-1`: entries of another mastership do nothing.

use super::*;

#[test]
fn the_first_entry_of_a_cell_needs_a_genesis() {
    let mut state = State::default();
    let entry = |command| LogEntry { epoch: Epoch(0), commands: vec![command] };

    let too_early = state.apply(&entry(create_session(1, Role::Client, 1)));
    let without = state.apply(&entry(Command::MasterEpoch { replica: 1, genesis: None }));
    let with = state
        .apply(&entry(Command::MasterEpoch { replica: 1, genesis: Some(genesis("a", &[("/ls/dev", "a")])) }));

    assert_eq!(only_outcomes(too_early), [Outcome::Rejected(Rejection::NoGenesis)]);
    assert_eq!(only_outcomes(without), [Outcome::Rejected(Rejection::NoGenesis)]);
    assert_eq!(only_outcomes(with), [Outcome::EpochBegun(Epoch(1))]);
    assert_eq!((state.master(), state.index()), (Some(1), 3));
}

#[test]
fn a_later_genesis_is_ignored() {
    let mut world = World::new();

    let outcome =
        world.run(Command::MasterEpoch { replica: 2, genesis: Some(genesis("b", &[("/ls/dev", "b")])) });

    assert_eq!(outcome, Outcome::EpochBegun(Epoch(2)));
    assert_eq!(world.state.master(), Some(2));
    assert_eq!(world.state.position().to_string(), "a/2/2");
}

#[test]
fn an_entry_of_another_epoch_is_rejected_whole_and_still_counted() {
    let mut world = World::new();
    world.session(1, Role::Client);
    let before = world.state.clone();
    let write = client_write(own(1), 1, 0, create(FILE, NodeKind::File));

    for epoch in [Epoch(0), Epoch(2)] {
        let outcomes = world.apply(LogEntry { epoch, commands: vec![write.clone(), write.clone()] });
        assert_eq!(outcomes, vec![Outcome::Rejected(Rejection::WrongEpoch { current: Epoch(1) }); 2]);
    }

    assert_eq!(world.state.node_count(), before.node_count());
    assert_eq!(world.state.index(), before.index() + 4);
    assert_eq!(world.state.answered(id(1), RequestNumber(1)), None);
    created(&world.run(write));
}

#[test]
fn of_two_masters_that_end_the_same_epoch_the_first_wins() {
    let mut world = World::new();
    let begin = |replica| LogEntry {
        epoch: Epoch(1),
        commands: vec![Command::MasterEpoch { replica, genesis: None }],
    };

    assert_eq!(world.apply(begin(2)), [Outcome::EpochBegun(Epoch(2))]);
    assert_eq!(world.apply(begin(3)), [Outcome::Rejected(Rejection::WrongEpoch { current: Epoch(2) })]);

    assert_eq!(world.state.master(), Some(2));
}

#[test]
fn what_follows_the_end_of_an_epoch_in_one_entry_belongs_to_the_old_epoch() {
    let mut world = World::new();

    let commands =
        vec![Command::MasterEpoch { replica: 2, genesis: None }, create_session(1, Role::Client, 1)];
    let outcomes = world.apply(LogEntry { epoch: Epoch(1), commands });

    assert_eq!(outcomes[1], Outcome::Rejected(Rejection::WrongEpoch { current: Epoch(2) }));
    assert!(world.state.session(id(1)).is_none());
}
