//! P-STOP: replicas compare their states through the log.

use super::*;

fn take(world: &mut World) -> (u64, u64) {
    match world.run(Command::TakeChecksum) {
        Outcome::ChecksumTaken { index, checksum } => (index, checksum),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_note_is_of_the_state_before_the_command() {
    let mut world = World::new();
    let before = (world.state.index() + 1, world.state.checksum());

    assert_eq!(take(&mut world), before);
}

#[test]
fn replicas_that_agree_go_on_and_one_that_differs_says_so() {
    let (mut ours, mut theirs) = (World::new(), World::new());
    theirs.state.tree.insert(
        &name(FILE),
        Node::new(1, NodeKind::File, Bytes::from_static(b"a flipped bit"), AclNames::default().into()),
    );
    let (index, checksum) = take(&mut theirs);
    let (_, own) = take(&mut ours);
    let compare = Command::CompareChecksum { index, checksum };

    assert_eq!(theirs.run(compare.clone()), Outcome::Noted);
    assert_eq!(ours.run(compare), Outcome::Diverged { index, ours: own, theirs: checksum });
}

#[test]
fn what_happens_between_the_note_and_its_comparison_does_not_matter() {
    let mut world = World::new();
    let (index, checksum) = take(&mut world);

    world.session(1, Role::Client);
    world.file(1, FILE);

    assert_eq!(world.run(Command::CompareChecksum { index, checksum }), Outcome::Noted);
    let wrong = world.run(Command::CompareChecksum { index, checksum: checksum ^ 1 });
    assert!(matches!(wrong, Outcome::Diverged { .. }));
}

#[test]
fn a_replica_without_a_note_of_that_command_compares_nothing() {
    let mut world = World::new();
    let (index, checksum) = take(&mut world);
    let wrong = Command::CompareChecksum { index, checksum: checksum ^ 1 };

    let mut resumed =
        State::from_snapshot(world.state.write_snapshot().into_iter()).expect("a good snapshot");
    let entry = LogEntry { epoch: Epoch(1), commands: vec![wrong.clone()] };
    assert_eq!(resumed.apply(&entry)[0].outcome, Outcome::Noted, "it began later");

    let (newer, _) = take(&mut world);
    assert!(newer > index);
    assert_eq!(world.run(wrong), Outcome::Noted, "only the newest is kept");
}

#[test]
fn the_note_is_no_part_of_the_state() {
    let mut world = World::new();
    let mut without = world.state.clone();

    take(&mut world);
    without.index += 1;

    assert!(without == world.state);
    assert_eq!(without.checksum(), world.state.checksum());
    assert_eq!(without.write_snapshot(), world.state.write_snapshot());
}

#[test]
fn comparisons_of_another_epoch_are_rejected() {
    let mut world = World::new();
    let (index, checksum) = take(&mut world);
    world.run(Command::MasterEpoch { replica: 2, genesis: None });

    let compare = Command::CompareChecksum { index, checksum: checksum ^ 1 };
    let late = LogEntry { epoch: Epoch(1), commands: vec![compare] };

    assert!(matches!(world.apply(late)[0], Outcome::Rejected(_)));
}
