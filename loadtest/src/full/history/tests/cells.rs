//! Histories of what moves from cell to cell.

use super::*;

fn of_b(index: u64) -> Position {
    Position { cell: CellName::new("b"), ..at(index) }
}

/// The same, answered by the other cell.
fn by_b(mut operation: Operation, index: u64) -> Operation {
    match &mut operation.end {
        Some((_, Answer::Read { position, .. } | Answer::Written { position, .. })) => {
            *position = of_b(index)
        }
        end => panic!("{end:?} has no position"),
    }
    operation
}

#[test]
fn a_chain_goes_on_in_another_cell_and_is_later_where_it_was_before() {
    let chain = |back| {
        let there = by_b(write(10, 15, "y", 2, 3), 1);
        vec![write(0, 5, "x", 1, 2), there, moved(write(20, 25, "z", 3, 4), back)]
    };
    check(check_generations_chain(&chain(21)), None);
    check(check_generations_chain(&chain(20)), Some("2 was written at a/1/20, and 4 at a/1/20"));

    let lost = vec![write(0, 5, "x", 1, 2), by_b(write(10, 15, "y", 1, 3), 1)];
    check(check_generations_chain(&lost), Some("the acknowledged 2 was lost"));
    let again = vec![write(0, 5, "x", 1, 2), by_b(write(10, 15, "y", 1, 2), 1)];
    check(check_generations_chain(&again), Some("two writes"));
}

#[test]
fn what_is_seen_in_one_cell_binds_the_other_by_time_alone() {
    let beside = vec![write(0, 50, "x", 1, 2), by_b(read(2, 0, 5, "w", 1), 90)];
    check(check_read_your_writes(&beside), None);

    let stale = vec![write(0, 5, "x", 1, 2), by_b(read(2, 6, 9, "w", 1), 90)];
    check(check_read_your_writes(&stale), Some("client 2 began at 6 ms and was answered generation 1"));
}

#[test]
fn a_lock_goes_along_with_its_holder_and_is_nobody_elses_meanwhile() {
    let one = hold(1, 1, 0, 50, HoldEnd::Released(of_b(3)));
    let next = |granted, position| Hold { position, ..hold(2, 2, granted, 70, HoldEnd::Open) };
    check(check_holders(&[one.clone(), next(60, of_b(4))]), None);
    check(check_holders(&[one.clone(), next(60, of_b(3))]), Some("released at b/1/3, acquired at b/1/3"));
    check(check_holders(&[one.clone(), next(40, of_b(4))]), Some("held until 50 ms, granted at 40 ms"));
    assert_eq!(carried(&[one.clone(), next(60, of_b(4))]), 1);

    let there = Hold { position: of_b(5), ..hold(2, 2, 60, 70, HoldEnd::Open) };
    let back = |index| Hold { position: at(index), ..hold(3, 3, 80, 90, HoldEnd::Open) };
    check(check_holders(&[one.clone(), there.clone(), back(11)]), None);
    check(check_holders(&[one, there, back(10)]), Some("acquired at a/1/10 and a/1/10"));
}

#[test]
fn nothing_is_written_in_another_cell_under_an_acquisition_that_is_over() {
    let guarded = |begun| {
        let mut operation = by_b(write(begun, begun + 5, "x", 1, 2), 1);
        operation.call = Call::Write { contents: "x".into(), guard: Some(7) };
        vec![operation]
    };
    let holds = [hold_at(7, 10), hold_at(8, 20)];

    check(check_guarded(&guarded(20), &holds), None);
    check(check_guarded(&guarded(21), &holds), Some("generation 8 was acquired"));
}

#[test]
fn who_is_told_of_what_has_moved_hears_first_that_something_may_be_missing() {
    let history = vec![
        write(0, 5, "x", 1, 2),
        by_b(write(10, 15, "y", 2, 3), 7),
        by_b(write(20, 25, "z", 3, 4), 8),
        by_b(read(2, 40, 41, "y", 3), 7),
    ];
    let watch = |begun, told: Vec<Told>| {
        let told = told.into_iter().zip(30..).map(|(told, moment)| (Moment(moment), told)).collect();
        vec![Watch { client: 2, file: "f", begun: Moment(begun), told }]
    };
    let (here, there) = (|| Told::Modified(at(20)), |index| Told::Modified(of_b(index)));
    check(check_events(&history, &watch(8, vec![here(), Told::Lost, there(7)])), None);
    check(check_events(&history, &watch(8, vec![here(), there(7)])), Some("has moved in between"));
    check(check_events(&history, &watch(8, vec![there(8)])), Some("at first, and not of b/1/7"));
    let first = [history[1].clone(), write(20, 25, "z", 3, 4)];
    check(check_events(&first, &watch(8, vec![Told::Modified(at(40))])), Some("at first, and not of b/1/7"));

    let shown = vec![by_b(write(0, 5, "x", 1, 2), 9), read(2, 40, 41, "", 1)];
    check(check_events(&shown, &watch(8, vec![there(9)])), Some("was told of b/1/9 at 30 ms, then"));

    let [late] = &watch(8, vec![here()])[..] else { unreachable!("one watch") };
    assert!(!late.is_up_to_date(&history, Moment(26)));
    let [told] = &watch(8, vec![here(), Told::Lost])[..] else { unreachable!("one watch") };
    assert!(told.is_up_to_date(&history, Moment(26)));
}
