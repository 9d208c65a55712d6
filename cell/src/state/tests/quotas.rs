//! Quotas: what would exceed one is refused, the rest is not.

use hasp_proto::limits::CONTENTS_BYTES_MAX;

use super::*;

const QUOTAS: &str = "/ls/dev/.hasp/quotas";
const D: &str = "/ls/dev/d";

/// A directory under the given quotas.
fn world(quotas: &'static str) -> World {
    let mut world = World::new();
    world.session(1, Role::Client);
    world.directory(1, D);
    let outcome = world.put(1, QUOTAS, quotas);
    assert!(matches!(outcome, Outcome::Created { created: true, .. }), "{outcome:?}");
    world
}

fn create_full(text: &str, bytes: usize) -> Write {
    create_with(text, NodeKind::File, |create| create.contents = vec![b'x'; bytes].into())
}

fn set_full(world: &mut World, text: &str, bytes: usize) -> Outcome {
    let write = Write::SetContents {
        holder: world.handle(text, 1),
        contents: vec![b'x'; bytes].into(),
        if_generation: None,
    };
    world.write(own(1), write)
}

#[track_caller]
fn assert_exceeded(outcome: &Outcome, detail: &str) {
    assert_failed(outcome, &ErrorCode::QuotaExceeded, detail);
}

#[test]
fn nodes_below_a_prefix_are_bounded_and_deleting_makes_room() {
    let mut world = world("/ls/dev/d nodes=2");
    world.directory(1, "/ls/dev/d/d");
    world.file(1, "/ls/dev/d/d/f");

    let refused = world.write(own(1), create("/ls/dev/d/d/g", NodeKind::File));
    assert_exceeded(&refused, "below /ls/dev/d there are 2 nodes and one more, the quota is 2");
    assert!(world.state.node(&name("/ls/dev/d/d/g")).is_none());
    world.file(1, "/ls/dev/e");
    let found =
        world.write(own(1), create_with("/ls/dev/d/d/f", NodeKind::File, |create| create.must = false));
    assert!(matches!(found, Outcome::Created { created: false, .. }), "what is there needs no room");

    world.delete(own(1), "/ls/dev/d/d/f", 1);
    world.file(1, "/ls/dev/d/g");
}

#[test]
fn bytes_below_a_prefix_are_bounded_and_shrinking_is_always_allowed() {
    let mut world = world("/ls/dev/d bytes=100");
    created(&world.write(own(1), create_full("/ls/dev/d/f", 60)));

    assert_exceeded(&world.write(own(1), create_full("/ls/dev/d/g", 41)), "60 bytes and 41 more");
    created(&world.write(own(1), create_full("/ls/dev/d/g", 40)));
    assert_exceeded(&set_full(&mut world, "/ls/dev/d/f", 61), "100 bytes and 1 more, the quota is 100");
    world.file(1, "/ls/dev/d/empty");

    world.put(1, QUOTAS, "/ls/dev/d bytes=10");
    assert!(
        matches!(set_full(&mut world, "/ls/dev/d/f", 60), Outcome::Written { .. }),
        "no more than before"
    );
    assert!(matches!(set_full(&mut world, "/ls/dev/d/f", 11), Outcome::Written { .. }), "less");
    assert_exceeded(&set_full(&mut world, "/ls/dev/d/f", 12), "51 bytes and 1 more, the quota is 10");
    assert_eq!(world.delete(own(1), "/ls/dev/d/g", 1), Outcome::Deleted);
    assert_exceeded(&set_full(&mut world, "/ls/dev/d/f", 12), "11 bytes and 1 more");
}

#[test]
fn every_quota_above_counts() {
    let mut world = world("/ls/dev/d nodes=9 bytes=9\n/ls/dev nodes=9 bytes=800\n/ls/dev/d/d nodes=1");
    world.directory(1, "/ls/dev/d/d");

    world.file(1, "/ls/dev/d/d/f");
    let inner = world.write(own(1), create("/ls/dev/d/d/g", NodeKind::File));
    assert_exceeded(&inner, "below /ls/dev/d/d there are 1 nodes");
    assert_exceeded(&set_full(&mut world, "/ls/dev/d/d/f", 10), "below /ls/dev/d there are 0 bytes");
    // The system's own six and these three are nine.
    let outer = world.write(own(1), create("/ls/dev/x", NodeKind::File));
    assert_exceeded(&outer, "below /ls/dev there are 9 nodes");
}

#[test]
fn nodes_that_were_there_before_count_and_so_does_what_goes_by_itself() {
    let mut world = World::new();
    world.session(1, Role::Client);
    world.session(2, Role::Client);
    world.directory(1, D);
    world.write(own(2), create_with("/ls/dev/d/e", NodeKind::File, |create| create.ephemeral = true));
    world.put(1, QUOTAS, "/ls/dev/d nodes=1");

    assert_exceeded(&world.write(own(1), create("/ls/dev/d/f", NodeKind::File)), "1 nodes");
    world.end(2, EndCause::Closed);
    let instance = world.node("/ls/dev/d/e").instance;
    world.run(Command::Reap { name: name("/ls/dev/d/e"), instance });

    world.file(1, "/ls/dev/d/f");
}

#[test]
fn quotas_that_cannot_be_read_are_refused_and_the_old_ones_stay() {
    let mut world = world("/ls/dev/d nodes=0");

    let refused = world.put(1, QUOTAS, "/ls/dev/d nodes=5\n/ls/dev/e nodes=many\n");

    assert_failed(&refused, &ErrorCode::InvalidArgument, "quotas, line 2: nodes=many");
    assert_exceeded(&world.write(own(1), create("/ls/dev/d/f", NodeKind::File)), "the quota is 0");
}

#[test]
fn without_the_file_there_are_no_quotas() {
    let mut world = world("/ls/dev/d nodes=0 bytes=0");
    assert_exceeded(&world.write(own(1), create("/ls/dev/d/f", NodeKind::File)), "the quota is 0");

    assert_eq!(world.delete(who(1, "admin"), QUOTAS, 1), Outcome::Deleted);

    created(&world.write(own(1), create_full("/ls/dev/d/f", CONTENTS_BYTES_MAX)));
}

#[test]
fn the_file_itself_can_be_written_when_everything_is_used_up() {
    let mut world = world("/ls/dev nodes=0 bytes=0");
    assert_exceeded(&world.write(own(1), create(FILE, NodeKind::File)), "below /ls/dev");

    let grown = world.put(1, QUOTAS, "/ls/dev nodes=1000 bytes=1000");
    assert!(matches!(grown, Outcome::Written { .. }), "{grown:?}");
    world.file(1, FILE);

    world.put(1, QUOTAS, "/ls/dev nodes=0");
    assert_eq!(world.delete(who(1, "admin"), QUOTAS, 1), Outcome::Deleted);
    world.put(1, QUOTAS, "/ls/dev nodes=0");
    assert_exceeded(&world.write(own(1), create("/ls/dev/g", NodeKind::File)), "below /ls/dev");
}

#[test]
fn only_admin_sets_quotas() {
    let mut world = world("/ls/dev/d nodes=0");

    let holder = world.handle(QUOTAS, 1);
    let outcome = world.write(own(1), set(holder, ""));

    assert_failed(&outcome, &ErrorCode::PermissionDenied, "\"admin\"");
}

#[test]
fn a_cell_that_does_not_own_the_file_has_no_quotas() {
    let mut b = World::of("b", &[("/ls/dev", "a"), ("/ls/dev/x", "b")]);
    b.session(1, Role::Client);

    let outcome = b.put(1, QUOTAS, "/ls/dev/x nodes=0");

    assert_failed(&outcome, &ErrorCode::WrongCell { map_version: 1 }, "belongs to cell a");
    b.file(1, "/ls/dev/x/f");
}

#[test]
fn usage_is_counted_anew_from_a_snapshot() {
    let mut world = world("/ls/dev/d nodes=1 bytes=10");
    created(&world.write(own(1), create_full("/ls/dev/d/f", 10)));

    world.state = State::from_snapshot(world.state.write_snapshot().into_iter()).expect("a good snapshot");

    assert_exceeded(&world.write(own(1), create("/ls/dev/d/g", NodeKind::File)), "1 nodes");
    assert_exceeded(&set_full(&mut world, "/ls/dev/d/f", 11), "10 bytes");
}
