//! The order of sequencers, forgetting, and what runs under them.

use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Instance};
use hasp_proto::node::LockMode;
use hasp_proto::sequencer::SequencerBody;

use super::*;

fn name(lock: &str) -> Name {
    Name::parse(&format!("/ls/dev/{lock}")).unwrap()
}

fn body(lock: &str, generation: u64) -> SequencerBody {
    SequencerBody {
        cell: CellName::new("a"),
        name: name(lock),
        instance: Instance(2),
        mode: LockMode::Exclusive,
        lock_generation: Generation(generation),
    }
}

fn sealed(body: &SequencerBody) -> Sequencer {
    Sequencer::new(HandleKey::new(vec![7; 32].into()).seal_sequencer(body)).unwrap()
}

fn shown(lock: &str, generation: u64) -> Sequencer {
    sealed(&body(lock, generation))
}

/// Shows it, and forgets that it was there as soon as there is no room.
fn show(ledger: &mut Ledger, shown: &Sequencer) -> Result<Standing, Refused> {
    let standing = ledger.compare(shown);
    ledger.pin(shown.name()).unwrap();
    let admitted = ledger.admit(shown);
    ledger.unpin(shown.name());
    ledger.check_invariants();
    assert_eq!(admitted.err(), standing.err());
    standing
}

#[test]
fn an_older_sequencer_is_refused_with_the_newest_generation_and_the_same_is_not() {
    let mut ledger = Ledger::new(10);

    assert_eq!(show(&mut ledger, &shown("x", 5)), Ok(Standing::First));
    assert_eq!(show(&mut ledger, &shown("x", 5)), Ok(Standing::Known));
    assert_eq!(show(&mut ledger, &shown("x", 7)), Ok(Standing::Newer));
    assert_eq!(show(&mut ledger, &shown("x", 5)), Err(Refused::Outdated(Generation(7))));
    assert_eq!(show(&mut ledger, &shown("x", 6)), Err(Refused::Outdated(Generation(7))), "never seen");
    assert_eq!(show(&mut ledger, &shown("x", 7)), Ok(Standing::Known));
    assert_eq!(show(&mut ledger, &shown("y", 1)), Ok(Standing::First), "another lock");
}

#[test]
fn what_cannot_be_true_together_with_what_was_seen_is_refused() {
    let mut ledger = Ledger::new(10);
    show(&mut ledger, &shown("x", 5)).unwrap();
    let mut refused = |change: &dyn Fn(&mut SequencerBody)| {
        let mut body = body("x", 5);
        change(&mut body);
        assert_eq!(show(&mut ledger, &sealed(&body)), Err(Refused::Contradictory(Generation(5))));
    };

    refused(&|body| body.mode = LockMode::Shared);
    refused(&|body| body.instance = Instance(3));
    refused(&|body| (body.instance, body.lock_generation) = (Instance(1), Generation(6)));
    let recreated = SequencerBody { instance: Instance(6), ..body("x", 7) };
    assert_eq!(show(&mut ledger, &sealed(&recreated)), Ok(Standing::Newer));
}

#[test]
fn the_same_acquisition_in_other_bytes_is_not_taken_for_the_one_that_is_known() {
    let mut ledger = Ledger::new(10);
    show(&mut ledger, &shown("x", 5)).unwrap();
    let forged = HandleKey::new(vec![8; 32].into()).seal_sequencer(&body("x", 5));
    let forged = Sequencer::new(forged).unwrap();
    let moved = sealed(&SequencerBody { cell: CellName::new("b"), ..body("x", 5) });

    assert_eq!(ledger.compare(&forged), Ok(Standing::Newer));
    assert_eq!(ledger.compare(&moved), Ok(Standing::Newer));
}

#[test]
fn forgetting_a_lock_lets_nothing_older_in() {
    let mut ledger = Ledger::new(2);
    show(&mut ledger, &shown("old", 9)).unwrap();
    show(&mut ledger, &shown("y", 3)).unwrap();
    show(&mut ledger, &shown("y", 3)).unwrap();

    assert_eq!(show(&mut ledger, &shown("z", 4)), Ok(Standing::First), "it takes the place of the oldest");

    for generation in 1..=9 {
        assert_eq!(ledger.compare(&shown("old", generation)), Ok(Standing::Forgotten), "{generation}");
    }
    assert_eq!(ledger.compare(&shown("old", 10)), Ok(Standing::First));
    assert_eq!(ledger.compare(&shown("y", 3)), Ok(Standing::Known), "used since, so not the oldest");
    assert_eq!(ledger.compare(&shown("y", 2)), Err(Refused::Outdated(Generation(3))));
}

#[test]
fn the_floor_does_not_sink_when_something_smaller_is_forgotten() {
    let mut ledger = Ledger::new(1);
    show(&mut ledger, &shown("x", 9)).unwrap();
    show(&mut ledger, &shown("y", 12)).unwrap();
    let sink = sealed(&SequencerBody { instance: Instance(1), ..body("x", 4) });
    ledger.pin(sink.name()).unwrap();
    ledger.admit(&sink).unwrap();
    ledger.unpin(sink.name());

    show(&mut ledger, &shown("z", 13)).unwrap();

    assert_eq!(ledger.compare(&shown("y", 12)), Ok(Standing::Forgotten));
    assert_eq!(ledger.compare(&shown("y", 13)), Ok(Standing::First));
}

#[test]
fn what_is_asked_about_is_not_forgotten_meanwhile() {
    let mut ledger = Ledger::new(1);
    let (late, newer) = (shown("x", 5), shown("x", 6));
    ledger.pin(&name("x")).unwrap();
    show(&mut ledger, &newer).unwrap();

    assert_eq!(ledger.pin(&name("y")), Err(Full));
    assert_eq!(ledger.admit(&late), Err(Refused::Outdated(Generation(6))), "the cell's yes came too late");

    ledger.unpin(&name("x"));
    assert_eq!(ledger.pin(&name("y")), Ok(()));
    ledger.check_invariants();
}

#[test]
fn a_lock_that_nothing_was_accepted_for_takes_no_room() {
    let mut ledger = Ledger::new(1);
    ledger.pin(&name("x")).unwrap();
    ledger.unpin(&name("x"));
    ledger.check_invariants();

    assert_eq!(ledger.compare(&shown("x", 1)), Ok(Standing::First));
    assert_eq!(show(&mut ledger, &shown("y", 1)), Ok(Standing::First));
}

#[test]
fn newer_work_starts_when_all_older_work_has_ended() {
    let mut ledger = Ledger::new(10);
    let (old, new) = (shown("x", 5), shown("x", 6));
    let admit = |ledger: &mut Ledger, shown: &Sequencer| {
        ledger.pin(&name("x")).unwrap();
        ledger.admit(shown).unwrap();
    };
    admit(&mut ledger, &old);
    admit(&mut ledger, &old);
    assert_eq!(ledger.start(&old), Ok(Start::Now));
    assert_eq!(ledger.start(&old), Ok(Start::Now), "together with its like");
    ledger.pin(&name("x")).unwrap();
    ledger.admit(&old).unwrap();

    admit(&mut ledger, &new);

    assert_eq!(ledger.start(&new), Ok(Start::AfterOlder));
    assert_eq!(ledger.start(&old), Err(Refused::Outdated(Generation(6))), "no more of the old");
    ledger.finish(&name("x"));
    assert_eq!(ledger.start(&new), Ok(Start::AfterOlder), "one is left");
    ledger.finish(&name("x"));
    assert_eq!(ledger.start(&new), Ok(Start::Now));
    ledger.check_invariants();
}

/// What is accepted never goes back, however few locks are remembered: against a model that forgets nothing.
#[test]
fn no_schedule_gets_an_older_sequencer_accepted() {
    for seed in 0..50_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut ledger = Ledger::new(2);
        let mut model: BTreeMap<Name, Generation> = BTreeMap::new();
        for _ in 0..200 {
            let shown = shown(["p", "q", "r", "s"][usize::try_from(draw(4)).unwrap()], draw(30));
            match ledger.compare(&shown) {
                // A fence without a cell to ask refuses these.
                Ok(Standing::Forgotten) => continue,
                Ok(Standing::Known | Standing::Newer | Standing::First) => {
                    show(&mut ledger, &shown).unwrap();
                    let newest = model.entry(shown.name().clone()).or_default();
                    assert!(shown.lock_generation() >= *newest, "seed {seed}");
                    *newest = shown.lock_generation();
                }
                Err(Refused::Outdated(newest)) => assert_eq!(Some(&newest), model.get(shown.name())),
                Err(Refused::Contradictory(_)) => panic!("seed {seed}: all have one instance and mode"),
            }
        }
    }
}
