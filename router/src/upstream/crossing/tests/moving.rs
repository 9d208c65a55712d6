//! A router that moves what a change of the map concerns. What is below [`D`] goes from `c` to `p`; the home cell is `h`.

use hasp_proto::crossing::Chore;

use super::chores::chore;
use super::following::{changed, changing, file};
use super::*;

const NOTED: Result<Reply, Error> = Ok(Reply::Noted);

fn begin(played: &mut Played) {
    chore(played, t(1), "h", Chore::Move(2));
}

/// The mover reads the map, and hears this.
fn read(played: &mut Played, result: Result<Reply, Error>) {
    let reads = std::mem::take(&mut played.map_reads);
    let (_, mut own): (Vec<_>, Vec<_>) = reads.into_iter().partition(|request| request.caches);
    assert_eq!(own.len(), 1, "{own:?}");
    played.answer(t(2), "h", &own.remove(0), result);
}

/// The next step, which goes to that cell, and what comes of it.
fn step(played: &mut Played, cell: &str, result: Result<Reply, Error>) -> CrossOp {
    let op = cross(&played.reply(t(3), cell, result));
    assert!(played.requests.values().flatten().count() <= 1, "one after the other: {:?}", played.requests);
    op
}

/// The same of the first of those that are under way at that cell.
fn first_at(played: &mut Played, cell: &str, result: Result<Reply, Error>) -> CrossOp {
    let mut requests = played.take_all(cell);
    let first = requests.remove(0);
    if !requests.is_empty() {
        played.requests.insert(cell.into(), requests);
    }
    played.answer(t(3), cell, &first, result);
    cross(&first)
}

fn part(number: u64) -> Result<Reply, Error> {
    part_of(2, number)
}

fn part_of(parts: u64, number: u64) -> Result<Reply, Error> {
    Ok(Reply::Parcel { data: content(number), parts })
}

fn content(number: u64) -> Bytes {
    Bytes::from(format!("part {number}"))
}

fn export(part: u64) -> CrossOp {
    CrossOp::Export { version: 2, to: CellName::new("p"), part }
}

fn import(part: u64) -> CrossOp {
    CrossOp::Import { version: 2, from: CellName::new("c"), part, parts: 2, data: content(part) }
}

fn adopt(map: &PartitionMap) -> CrossOp {
    CrossOp::Adopt(map.without_addresses())
}

fn is_at_rest(played: &Played) -> bool {
    played.requests.is_empty() && !played.map_reads.iter().any(|request| !request.caches)
}

/// All steps up to this one, which is under way at that cell then.
fn up_to_pack() -> Played {
    let mut played = Played::new();
    begin(&mut played);
    read(&mut played, file(&changing()));
    step(&mut played, "c", NOTED);
    step(&mut played, "p", NOTED);
    played
}

#[test]
fn a_move_is_done_step_by_step() {
    let mut played = Played::new();
    begin(&mut played);
    read(&mut played, file(&changing()));

    assert_eq!(step(&mut played, "c", NOTED), adopt(&changing()));
    assert_eq!(
        step(&mut played, "p", NOTED),
        adopt(&changing()),
        "all that are concerned, before it is packed"
    );
    assert_eq!(step(&mut played, "c", NOTED), CrossOp::Pack { version: 2 });
    assert_eq!(first_at(&mut played, "c", part(0)), export(0));
    assert_eq!(first_at(&mut played, "c", part(1)), export(1), "while the one before is imported");
    assert_eq!(first_at(&mut played, "p", NOTED), import(0));
    assert_eq!(step(&mut played, "p", NOTED), import(1));
    assert_eq!(step(&mut played, "h", NOTED), CrossOp::Finish { version: 2 }, "not before all is there");
    read(&mut played, file(&changed()));
    assert_eq!(step(&mut played, "p", NOTED), adopt(&changed()), "clients wait for this one");
    assert_eq!(played.core.map().expect("routed here").version, 3, "it need not be read once more");
    assert_eq!(step(&mut played, "c", NOTED), adopt(&changed()));
    assert_eq!(step(&mut played, "h", NOTED), CrossOp::Announced { version: 3 });
    assert!(is_at_rest(&played));
}

#[test]
fn an_error_at_any_step_before_the_end_leaves_it_to_the_next() {
    let good: [(&str, Result<Reply, Error>); 8] = [
        ("c", NOTED),
        ("p", NOTED),
        ("c", NOTED),
        ("c", part(0)),
        ("p", NOTED),
        ("c", part(1)),
        ("p", NOTED),
        ("h", NOTED),
    ];
    for fails in 0..good.len() {
        let mut played = Played::new();
        begin(&mut played);
        read(&mut played, file(&changing()));
        for (cell, result) in &good[..fails] {
            first_at(&mut played, cell, result.clone());
        }

        first_at(&mut played, good[fails].0, error(ErrorCode::InvalidArgument));

        // What was asked with it is answered to nobody.
        let others: Vec<_> = played.requests.keys().cloned().collect();
        assert!(others.len() <= usize::from(fails == 4 || fails == 5), "after step {fails}: {others:?}");
        for cell in others {
            first_at(&mut played, &cell, NOTED);
        }
        assert!(is_at_rest(&played), "after step {fails}: {:?}", played.requests);
        begin(&mut played);
        read(&mut played, file(&changing()));
        assert_eq!(step(&mut played, "c", NOTED), adopt(&changing()), "from the beginning");
    }
    let mut played = Played::new();
    begin(&mut played);
    read(&mut played, error(ErrorCode::InvalidArgument));
    assert!(is_at_rest(&played));
}

#[test]
fn who_is_at_it_does_not_begin_again() {
    let mut played = up_to_pack();
    begin(&mut played);
    assert!(played.map_reads.iter().all(|request| request.caches));
    assert_eq!(step(&mut played, "c", NOTED), CrossOp::Pack { version: 2 });
    assert_eq!(step(&mut played, "c", part_of(1, 0)), export(0));

    chore(&mut played, t(1), "h", Chore::Announce(3));
    let late = played.take("p");
    read(&mut played, file(&changed()));
    played.answer(t(3), "p", &late, NOTED);

    let mut told: Vec<_> =
        ["c", "p"].into_iter().filter(|cell| played.requests.contains_key(*cell)).collect();
    assert_eq!(told.len(), 1, "what came late moves nothing: {:?}", played.requests);
    let first = told.remove(0);
    assert_eq!(step(&mut played, first, NOTED), adopt(&changed()));
}

#[test]
fn four_parts_at_most_are_on_their_way_into_a_log() {
    const PARTS: u64 = 7;
    let mut played = up_to_pack();
    step(&mut played, "c", NOTED);
    for number in 0..4 {
        assert_eq!(first_at(&mut played, "c", part_of(PARTS, number)), export(number));
    }
    assert!(!played.requests.contains_key("c"), "four are being imported");
    for number in 4..PARTS {
        let CrossOp::Import { part, .. } = first_at(&mut played, "p", NOTED) else { panic!("an import") };
        assert_eq!(part, number - 4, "in their order");
        assert_eq!(first_at(&mut played, "c", part_of(PARTS, number)), export(number));
        assert!(!played.requests.contains_key("c"));
    }
    for number in PARTS - 4..PARTS {
        assert!(!played.requests.contains_key("h"), "part {number} is not there");
        let CrossOp::Import { part, .. } = first_at(&mut played, "p", NOTED) else { panic!("an import") };
        assert_eq!(part, number);
    }
    assert_eq!(step(&mut played, "h", NOTED), CrossOp::Finish { version: 2 });
}

#[test]
fn what_cannot_move_at_all_is_given_up() {
    let mut played = up_to_pack();

    step(&mut played, "c", Err(ErrorCode::QuotaExceeded.because("too many nodes")));

    let give_up = CrossOp::GiveUp { version: 2, why: "too many nodes".into() };
    assert_eq!(step(&mut played, "h", NOTED), give_up);
    let unchanged = changing().unchanged();
    read(&mut played, file(&unchanged));
    assert_eq!(step(&mut played, "p", NOTED), adopt(&unchanged));
    assert_eq!(step(&mut played, "c", NOTED), adopt(&unchanged));
    assert_eq!(step(&mut played, "h", NOTED), CrossOp::Announced { version: 3 });
    assert!(is_at_rest(&played));
}

#[test]
fn a_map_that_not_all_could_be_told_of_is_not_said_to_be_known() {
    let mut played = Played::new();
    chore(&mut played, t(1), "h", Chore::Announce(3));
    read(&mut played, file(&changed()));

    assert_eq!(step(&mut played, "c", error(ErrorCode::InvalidArgument)), adopt(&changed()));
    assert_eq!(step(&mut played, "p", NOTED), adopt(&changed()), "others are told all the same");
    assert!(is_at_rest(&played));

    chore(&mut played, t(1), "h", Chore::Announce(3));
    read(&mut played, file(&changed()));
    for cell in ["c", "p"] {
        assert_eq!(step(&mut played, cell, NOTED), adopt(&changed()));
    }
    assert_eq!(step(&mut played, "h", NOTED), CrossOp::Announced { version: 3 });
}
