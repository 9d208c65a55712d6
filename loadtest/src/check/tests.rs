use hasp_proto::id::{CellName, Epoch, Generation, Instance};
use hasp_proto::node::{AclNames, NodeKind};

use super::*;

fn stat(content: u64, checksum: u64, lock: u64) -> Stat {
    Stat {
        kind: NodeKind::File,
        instance: Instance(1),
        content_generation: Generation(content),
        lock_generation: Generation(lock),
        acl_generation: Generation(1),
        checksum,
        length: 0,
        ephemeral: false,
        acls: AclNames::default(),
    }
}

fn at(cell: &str, epoch: u64, index: u64) -> Position {
    Position { cell: CellName::new(cell), epoch: Epoch(epoch), index }
}

fn kind(result: Result<(), Violation>) -> ViolationKind {
    result.expect_err("a violation").kind
}

#[test]
fn a_read_older_than_a_write_completed_before_it_began_is_stale() {
    let mut floor = FileFloor::default();
    let before = floor.mark();
    floor.written(before, 5, 50).expect("fine");

    assert_eq!(floor.read(before, &stat(4, 40, 0)), Ok(()), "it began before the write was complete");
    assert_eq!(kind(floor.read(floor.mark(), &stat(4, 40, 0))), ViolationKind::StaleRead);
    assert_eq!(floor.read(floor.mark(), &stat(5, 50, 0)), Ok(()));
    assert_eq!(floor.read(floor.mark(), &stat(6, 60, 0)), Ok(()));
}

#[test]
fn a_write_gets_a_generation_above_all_that_was_complete() {
    let mut floor = FileFloor::default();
    floor.read(floor.mark(), &stat(5, 50, 0)).expect("fine");

    assert_eq!(kind(floor.written(floor.mark(), 5, 51)), ViolationKind::StaleRead);
    assert_eq!(floor.written(floor.mark(), 6, 60), Ok(()));
}

#[test]
fn one_generation_has_one_contents() {
    let mut floor = FileFloor::default();
    floor.written(floor.mark(), 5, 50).expect("fine");

    assert_eq!(kind(floor.read(floor.mark(), &stat(5, 51, 0))), ViolationKind::WrongContents);
}

#[test]
fn lock_generations_only_grow_and_each_acquisition_has_its_own() {
    let mut floor = FileFloor::default();
    floor.acquired(floor.mark(), 3).expect("fine");

    assert_eq!(kind(floor.acquired(floor.mark(), 3)), ViolationKind::LockGenerationBack);
    assert_eq!(kind(floor.read(floor.mark(), &stat(1, 1, 2))), ViolationKind::LockGenerationBack);
    assert_eq!(floor.read(floor.mark(), &stat(1, 1, 3)), Ok(()));
    assert_eq!(floor.acquired(floor.mark(), 4), Ok(()));
}

#[test]
fn a_session_never_sees_a_cell_go_back_but_cells_are_apart() {
    let mut floor = SessionFloor::default();
    let first = floor.mark();
    floor.seen(&first, &at("a", 2, 10)).expect("fine");
    let second = floor.mark();

    assert_eq!(floor.seen(&second, &at("b", 1, 1)), Ok(()));
    assert_eq!(floor.seen(&second, &at("a", 2, 10)), Ok(()));
    assert_eq!(floor.seen(&second, &at("a", 3, 9)), Ok(()), "a later epoch is later");
    assert_eq!(kind(floor.seen(&second, &at("a", 1, 11))), ViolationKind::PositionBack);
    assert_eq!(floor.seen(&first, &at("a", 1, 5)), Ok(()), "it began before anything was seen");
}

#[test]
fn a_second_holder_in_the_process_is_noticed_and_the_first_named() {
    let holder = Holder::default();

    assert_eq!(holder.enter(0), Ok(()));
    assert_eq!(holder.enter(7), Err(0));
    holder.leave(0);
    assert_eq!(holder.enter(1), Err(7), "leaving does not clear another's entry");
    holder.leave(1);
    assert_eq!(holder.enter(2), Ok(()));
}

#[test]
fn a_holder_that_finds_a_later_acquisition_is_not_alone() {
    let found = Entry { lock_generation: 9, holder: "1.4".into(), entries: 3 };

    assert_eq!(found.next(8, "0.2").expect_err("not alone").kind, ViolationKind::TwoHolders);
    assert_eq!(found.next(9, "0.2").expect_err("not alone").kind, ViolationKind::TwoHolders);
    let mine = found.next(10, "0.2").expect("alone");
    assert_eq!(mine, Entry { lock_generation: 10, holder: "0.2".into(), entries: 4 });
    assert_eq!(mine.disturbed(&found).kind, ViolationKind::LateWrite);
    assert_eq!(mine.disturbed(&mine).kind, ViolationKind::LostOrRepeatedWrite);
    let later = Entry { lock_generation: 11, ..found };
    assert_eq!(mine.disturbed(&later).kind, ViolationKind::TwoHolders);
}

#[test]
fn an_entry_survives_its_file() {
    let entry = Entry { lock_generation: 10, holder: "worker 0 client 2".into(), entries: 4 };

    assert_eq!(Entry::parse(entry.contents().as_bytes()), Some(entry));
    assert_eq!(Entry::parse(b""), Some(Entry::default()));
    assert_eq!(Entry::parse(b"x 1 y"), None);
    assert_eq!(Entry::parse(&[0xff, 0xfe]), None);
}

#[test]
fn violations_count_all_and_keep_the_first_few() {
    let mut all = Violations::default();
    for number in 0..20 {
        all.add(ViolationKind::StaleRead.because(number.to_string()));
    }
    let mut merged = Violations::default();
    merged.add(ViolationKind::TwoHolders.because("first"));
    merged.merge(all);

    assert_eq!(merged.count, 21);
    assert_eq!(merged.examples.len(), 8);
    assert_eq!(merged.examples[0].kind, ViolationKind::TwoHolders);
}
