//! The steps of a move: in their order, again, too late, too early, and undone.

use hasp_proto::limits::{CONTENTS_BYTES_MAX, MOVE_BYTES_MAX};

use super::*;

#[test]
fn what_is_packed_is_nobodys_until_all_is_decided_and_everything_else_is_served() {
    let mut cells = filled();
    let file = cells.a().handle(P_FILE, 1);
    cells.write_change("/ls/dev/p b");
    created(&cells.write("a", client(), create("/ls/dev/p/early", NodeKind::File)));
    let unaware = cells.write("b", client(), create("/ls/dev/p/x", NodeKind::File));
    assert_failed(&unaware, &ErrorCode::WrongCell { map_version: 1 }, "belongs to cell a");
    cells.adopt_all();
    created(&cells.write("a", client(), create("/ls/dev/p/still", NodeKind::File)));
    assert_eq!(cells.write("b", client(), create("/ls/dev/p/x", NodeKind::File)), goes(2));

    cells.pack("a");
    let check = |cells: &mut Cells| {
        for cell in ["a", "b"] {
            assert_eq!(cells.write(cell, client(), create("/ls/dev/p/x", NodeKind::File)), goes(2), "{cell}");
            assert_eq!(cells.write(cell, client(), create("/ls/dev/p/d/x", NodeKind::File)), goes(2));
            let writes = [
                set(file.clone(), "x"),
                Write::Delete { holder: file.clone() },
                Write::Acquire { holder: file.clone(), mode: LockMode::Exclusive },
                Write::Release { holder: file.clone() },
                Write::CloseHandle { holder: file.clone() },
                Write::OpenEphemeral { holder: file.clone(), r#use: Use::Read },
            ];
            for write in writes {
                assert_eq!(cells.write(cell, client(), write.clone()), goes(2), "{cell}: {write:?}");
            }
            let state = &cells.of(cell).state;
            assert_eq!(state.check_cell(&file.name), Err(Need::Map(2).into()), "reads");
            assert_eq!(state.check_children_cell(&name(P)), Err(Need::Map(2).into()), "listings");
            assert!(state.children(&name(P)).next().is_none());
        }
        assert_eq!(cells.a().state.check_cell(&name(P)), Ok(()), "the directory itself stays");
        let beside = cells.a().handle("/ls/dev/q/f", 1);
        let written = cells.write("a", client(), set(beside, "x"));
        assert!(matches!(written, Outcome::Written { .. }), "{written:?}");
    };
    check(&mut cells);
    cells.carry("a", "b");
    check(&mut cells);

    assert!(matches!(cells.finish(), Outcome::Written { .. }));
    let late = cells.write("a", client(), set(file.clone(), "x"));
    assert_failed(&late, &ErrorCode::WrongCell { map_version: 3 }, "belongs to cell b");
    assert_eq!(cells.write("b", client(), set(file.clone(), "x")), goes(2), "it has not heard");
    cells.adopt("b");
    assert!(matches!(cells.write("b", client(), set(file, "x")), Outcome::Written { .. }));
}

#[test]
fn whether_a_sequencer_stands_whose_node_is_packed_is_not_known() {
    let mut cells = filled();
    let (instance, lock_generation) = (cells.a().node(P_FILE).instance, cells.a().lock_generation(P_FILE));
    let guard = Guard { name: name(P_FILE), instance, mode: LockMode::Exclusive, lock_generation };
    let write = |number| {
        let write = client_write(client(), number, 0, create("/ls/dev/p/guarded", NodeKind::File));
        let Command::ClientWrite(write) = write else { unreachable!("that is what it is") };
        Command::ClientWrite(ClientWrite { guard: Some(guard.clone()), ..write })
    };
    cells.begin("/ls/dev/p b");
    cells.carry_all();

    assert_eq!(cells.a().run(write(800)), goes(2));
    cells.finish();
    let late = cells.a().run(write(800));
    assert_failed(&late, &ErrorCode::WrongCell { map_version: 3 }, "belongs to cell b");
    cells.announce();

    created(&cells.b().run(write(800)));
}

#[test]
fn what_was_packed_is_back_as_it_was_when_the_change_is_given_up() {
    let mut cells = filled();
    let before = (cells.seen("a", P), cells.seen("a", "/ls/dev/q"), cells.a().state.roots().count());
    cells.begin("/ls/dev/p b");
    cells.carry_all();

    cells.undone();

    let after = (cells.seen("a", P), cells.seen("a", "/ls/dev/q"), cells.a().state.roots().count());
    assert_eq!(after, before);
    assert!(cells.seen("b", P).is_empty() && cells.b().state.roots().count() == 0);
    assert_eq!(cells.b().state.client(id(5)), None, "it knows nothing of the clients either");
    let text = cells.a().node(PARTITIONS).contents.clone();
    let text = std::str::from_utf8(&text).expect("text");
    assert!(text.starts_with("# given up: for a test\n") && !text.contains("next"), "{text}");
    assert_eq!(PartitionMap::parse(text.as_bytes()).as_ref(), Ok(cells.b().state.map()));
    assert_acquired(&cells.acquire("a", client(), P_FILE, 1));
    cells.move_all("/ls/dev/p b");
    assert_eq!(cells.seen("b", P), before.0, "the next try is another");
}

#[test]
fn whoever_writes_the_file_without_the_change_gives_it_up_too() {
    let mut cells = filled();
    let before = cells.seen("a", P);
    cells.begin("/ls/dev/p b");
    cells.pack("a");

    let text = cells.a().state.map().unchanged().to_text();
    let written = cells.a().put(1, PARTITIONS, &text);

    assert!(matches!(written, Outcome::Written { .. }), "{written:?}");
    assert_eq!(cells.seen("a", P), before);
    assert_eq!(cells.a().state.chores(), [Chore::Announce(3)].into());
}

#[test]
fn the_home_cell_tells_what_is_left_to_do_until_all_know_the_map() {
    let mut cells = filled();
    assert!(cells.a().state.chores().is_empty());
    cells.write_change("/ls/dev/p b");
    assert_eq!(cells.a().state.chores(), [Chore::Move(2)].into());
    cells.adopt_all();
    assert!(cells.b().state.chores().is_empty());
    cells.carry_all();
    cells.finish();
    assert_eq!(cells.a().state.chores(), [Chore::Announce(3)].into());
    let refused = cells.write_change("/ls/dev/q b");
    assert_failed(&refused, &ErrorCode::Unavailable, "not every cell goes by version 3");

    assert_eq!(cells.cross("a", CrossOp::Announced { version: 2 }), Outcome::Noted);
    assert_eq!(cells.a().state.chores(), [Chore::Announce(3)].into(), "that was about another");
    cells.announce();

    assert!(matches!(cells.write_change("/ls/dev/q b"), Outcome::Written { .. }));
    assert_eq!(cells.cross("a", CrossOp::Announced { version: 4 }), Outcome::Noted);
    assert_eq!(cells.a().state.chores(), [Chore::Move(4)].into());
}

#[test]
fn steps_that_are_asked_again_change_nothing() {
    let mut cells = filled();
    cells.begin("/ls/dev/p b");
    let checks = |cells: &mut Cells, again: &mut dyn FnMut(&mut Cells) -> Outcome| {
        let before: Vec<_> = ["a", "b"].map(|cell| cells.of(cell).state.clone()).into();
        assert_eq!(again(cells), Outcome::Noted);
        for (cell, before) in ["a", "b"].into_iter().zip(before) {
            let now = &cells.of(cell).state;
            assert!(now.tree == before.tree && now.clients == before.clients && now.moving == before.moving);
            assert_eq!(now.stamp, before.stamp);
        }
    };

    checks(&mut cells, &mut |cells| cells.adopt("b"));
    cells.pack("a");
    checks(&mut cells, &mut |cells| cells.pack("a"));
    checks(&mut cells, &mut |cells| cells.adopt("a"));
    cells.carry("a", "b");
    checks(&mut cells, &mut |cells| cells.import("a", "b", 0));
    cells.finish();
    checks(&mut cells, &mut |cells| cells.cross("a", CrossOp::Finish { version: 2 }));
    cells.adopt("b");
    checks(&mut cells, &mut |cells| cells.adopt("b"));
    let old = PartitionMap::parse(cells.b().state.genesis().expect("founded").map.to_text().as_bytes());
    let old = old.expect("good");
    checks(&mut cells, &mut |cells| cells.cross("b", CrossOp::Adopt(old.clone())));
    cells.announce();
    checks(&mut cells, &mut |cells| cells.cross("a", CrossOp::Announced { version: 3 }));
}

#[test]
fn steps_out_of_their_order_are_refused() {
    let mut cells = filled();
    let wrong = |map_version| ErrorCode::WrongCell { map_version };
    let none = "no change of version 1 is under way";
    assert_failed(&cells.pack("a"), &wrong(1), none);
    assert_failed(&cells.finish(), &wrong(1), none);
    assert_failed(&cells.give_up(), &wrong(1), none);
    cells.write_change("/ls/dev/p b");
    assert_failed(&cells.pack("b"), &wrong(1), "no change of version 2");
    cells.adopt_all();
    for op in [CrossOp::Finish { version: 2 }, CrossOp::GiveUp { version: 2, why: String::new() }] {
        assert_failed(&cells.cross("b", op), &wrong(2), "cell a decides on the partition map");
    }
    let export = |cells: &mut Cells, to: &str, part| {
        cells.a().state.export(2, &CellName::new(to), part).expect_err("not there").code
    };
    assert_eq!(export(&mut cells, "b", 0), ErrorCode::NotFound, "nothing is packed");
    assert_failed(&cells.finish(), &ErrorCode::InvalidArgument, "has not packed");
    assert!(!cells.seen("a", P).is_empty());

    cells.pack("a");
    assert_eq!(export(&mut cells, "a", 0), ErrorCode::NotFound);
    assert_eq!(export(&mut cells, "b", 7), ErrorCode::NotFound);
    assert!(cells.a().state.export(1, &CellName::new("b"), 0).is_err());
    cells.carry("a", "b");
    cells.finish();
    let late = CrossOp::GiveUp { version: 2, why: "late".into() };
    assert_failed(&cells.cross("a", late), &wrong(3), "no change of version 2 is under way");
    assert_failed(&cells.cross("a", CrossOp::Pack { version: 2 }), &wrong(3), "no change of version 2");
    cells.adopt_all();
    let (from, data) = (CellName::new("a"), Bytes::new());
    let late = CrossOp::Import { version: 2, from, part: 0, parts: 1, data };
    assert_failed(&cells.cross("b", late), &wrong(3), "no change of version 2 is under way");
}

#[test]
fn a_map_that_does_not_follow_the_one_with_the_change_is_refused() {
    let mut cells = filled();
    let rules = |version, rules: &[(&str, &str)], names: &[&str]| {
        let named = names.iter().map(|cell| (CellName::new(cell), vec![])).collect();
        PartitionMap::new(version, "dev", rules.iter().copied(), named).expect("good")
    };
    cells.begin("/ls/dev/p b");
    cells.carry_all();
    let moved: &[(&str, &str)] = &[("/ls/dev", "a"), ("/ls/dev/p", "b")];
    let other: &[(&str, &str)] = &[("/ls/dev", "a"), ("/ls/dev/q", "b")];
    let invalid = ErrorCode::InvalidArgument;
    let undecided = "does not say what became of the change";
    let check = |cells: &mut Cells, map, detail: &str| {
        let before = cells.b().state.moving.clone();
        assert_failed(&cells.cross("b", CrossOp::Adopt(map)), &invalid, detail);
        assert!(cells.b().state.moving == before);
    };

    check(&mut cells, rules(4, moved, &["a", "b"]), undecided);
    check(&mut cells, rules(3, other, &["a", "b"]), undecided);
    let still = rules(2, ONE, &["a", "b"]).changing(cells.a().state.map().change().expect("one").clone());
    check(&mut cells, still.expect("good"), undecided);
    check(&mut cells, rules(3, moved, &["a", "b", "c"]), "of other cells or of another namespace");
    assert_eq!(cells.cross("b", CrossOp::Adopt(rules(3, moved, &["a", "b"]))), Outcome::Noted);
}

#[test]
fn nothing_is_taken_in_half_or_damaged_or_from_strangers() {
    let mut cells = Cells::named(&["a", "b", "c"], ONE);
    cells.create("a", P, NodeKind::Directory);
    let big = Bytes::from(vec![7; CONTENTS_BYTES_MAX]);
    for file in ["f", "g", "h"] {
        let big = big.clone();
        let make = create_with(&format!("{P}/{file}"), NodeKind::File, |create| create.contents = big);
        created(&cells.write("a", client(), make));
    }
    let before = cells.seen("a", P);
    cells.begin("/ls/dev/p b");
    cells.pack("a");
    let (data, parts) = cells.export("a", "b", 0);
    assert!(parts >= 3, "{parts}");
    let from = |from: &str, part, parts, data: &Bytes| CrossOp::Import {
        version: 2,
        from: CellName::new(from),
        part,
        parts,
        data: data.clone(),
    };
    let invalid = ErrorCode::InvalidArgument;

    let mut damaged = data.to_vec();
    *damaged.last_mut().expect("long") ^= 1;
    for damaged in [Bytes::from(damaged), data.slice(..data.len() - 1), Bytes::from_static(b"nonsense")] {
        let outcome = cells.cross("b", from("a", 0, parts, &damaged));
        assert!(matches!(&outcome, Outcome::Failed(error) if error.code == invalid), "{outcome:?}");
    }
    assert_failed(&cells.cross("b", from("a", 1, parts, &data)), &invalid, "part 1 of");
    assert_failed(&cells.cross("b", from("a", 0, 0, &data)), &invalid, "part 0 of 0");
    assert_failed(&cells.cross("b", from("c", 0, parts, &data)), &invalid, "nothing moves here from cell c");
    assert_failed(&cells.cross("c", from("a", 0, parts, &data)), &invalid, "nothing moves here from cell a");
    assert_eq!(cells.import("a", "b", 0), Outcome::Noted);
    assert_failed(&cells.cross("b", from("a", 1, parts + 1, &data)), &invalid, "of which there are 1 here");
    for part in 1..parts - 1 {
        assert_eq!(cells.import("a", "b", part), Outcome::Noted);
    }
    let after = cells.a().state.map().after().expect("a change").clone();
    let early = cells.cross("b", CrossOp::Adopt(after));
    assert_failed(&early, &invalid, "not all has come that moves here from cell a");
    assert!(cells.seen("b", P).is_empty(), "not even a part of it");
    assert_eq!(cells.import("a", "b", parts - 1), Outcome::Noted);
    cells.done();
    assert_eq!(cells.seen("b", P), before);
}

#[test]
fn more_than_can_move_at_once_is_not_packed_and_stays_in_use() {
    let mut cells = Cells::new(ONE);
    cells.create("a", P, NodeKind::Directory);
    let big = Bytes::from(vec![0; CONTENTS_BYTES_MAX]);
    let count = MOVE_BYTES_MAX / CONTENTS_BYTES_MAX;
    let command = |number| {
        let file = format!("{P}/{number}");
        let make = create_with(&file, NodeKind::File, |create| create.contents = big.clone());
        client_write(client(), 1_000 + number as u64, 0, make)
    };
    let commands: Vec<_> = (0..count).map(command).collect();
    let outcomes = cells.a().state.apply(&LogEntry { epoch: Epoch(1), commands });
    assert!(outcomes.iter().all(|applied| matches!(applied.outcome, Outcome::Created { created: true, .. })));
    cells.put("a", "/ls/dev/p/one-more", "x");
    cells.begin("/ls/dev/p b");

    assert_failed(&cells.pack("a"), &ErrorCode::QuotaExceeded, "move directories below first");

    assert_eq!(cells.seen("a", P).len(), count + 1);
    let holder = cells.a().handle("/ls/dev/p/one-more", 1);
    assert_eq!(cells.write("a", client(), Write::Delete { holder }), Outcome::Deleted, "it is served");
    assert_eq!(cells.pack("a"), Outcome::Noted, "so much is not too much");
}

#[test]
fn a_cell_from_which_nothing_goes_packs_nothing() {
    let mut cells = filled();
    cells.begin("/ls/dev/p b");

    assert_eq!(cells.pack("b"), Outcome::Noted);

    assert!(!cells.b().state.has_packed());
}

#[test]
fn cells_that_nodes_came_from_leave_the_keys_of_their_handles() {
    let mut cells = Cells::named(&["a", "b", "c"], &[("/ls/dev", "a"), ("/ls/dev/p", "b")]);
    let keys = |cells: &mut Cells, cell: &str| {
        cells.of(cell).state.moving.keys().map(|(cell, _)| cell.to_string()).collect::<Vec<_>>()
    };
    cells.begin("/ls/dev/p c");
    cells.carry_all();
    assert_eq!(keys(&mut cells, "c"), [""; 0]);
    cells.done();
    assert_eq!((keys(&mut cells, "a"), keys(&mut cells, "b")), (vec![], vec![]));
    assert_eq!(keys(&mut cells, "c"), ["b"]);

    cells.move_all("/ls/dev/p a");
    assert_eq!(keys(&mut cells, "a"), ["b", "c"], "handles made at b are still around");
    let key = cells.a().state.moving.keys().next().map(|(_, key)| key.clone());
    assert_eq!(key, cells.b().state.genesis().map(|genesis| genesis.handle_key.clone()));
}
