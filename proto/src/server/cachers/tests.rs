//! What a change has to wait for, and what may be cached meanwhile.

use super::*;
use crate::item::ItemKind;
use crate::name::Name;

const S1: SessionId = SessionId([1; 16]);
const S2: SessionId = SessionId([2; 16]);
const R1: RoundId = RoundId(1);
const R2: RoundId = RoundId(2);

fn data(component: &str) -> Item {
    Item::new(Name::parse(&format!("/ls/dev/{component}")).expect("good"), ItemKind::Data)
}

/// Sessions 1 and 2 may cache `f`.
fn cached() -> Cachers {
    let mut cachers = Cachers::default();
    assert!(cachers.register(S1, &data("f")));
    assert!(cachers.register(S2, &data("f")));
    cachers
}

/// Begins a round and notes that everybody was told, with news 1.
fn begin(cachers: &mut Cachers, round: RoundId, item: &Item) -> Vec<SessionId> {
    let tell = cachers.begin(round, vec![item.clone()]);
    let sessions = tell.keys().copied().collect();
    for (session, items) in tell {
        cachers.told(session, Sequence(round.0), items);
    }
    cachers.check_invariants();
    sessions
}

#[test]
fn a_change_that_nobody_caches_waits_for_nobody() {
    let mut cachers = cached();

    assert!(begin(&mut cachers, R1, &data("other")).is_empty());

    assert!(cachers.is_ready(R1));
}

#[test]
fn a_change_waits_for_all_who_may_hold_the_item() {
    let mut cachers = cached();
    assert_eq!(begin(&mut cachers, R1, &data("f")), [S1, S2]);

    assert_eq!(cachers.acknowledged(S1, Sequence(1)), []);
    assert!(!cachers.is_ready(R1));
    assert_eq!(cachers.acknowledged(S2, Sequence(9)), [], "of something else");
    assert_eq!(cachers.acknowledged(S2, Sequence(1)), [R1]);

    assert!(cachers.is_ready(R1));
}

#[test]
fn nothing_is_cached_from_the_invalidation_until_the_change_is_done() {
    let mut cachers = cached();
    begin(&mut cachers, R1, &data("f"));
    assert!(!cachers.register(S1, &data("f")));
    cachers.acknowledged(S1, Sequence(1));
    cachers.acknowledged(S2, Sequence(1));
    assert!(!cachers.register(S1, &data("f")), "acknowledged is not done");

    cachers.finish(R1);

    assert!(cachers.register(S1, &data("f")));
    cachers.check_invariants();
}

#[test]
fn a_second_change_waits_for_the_first_ones_cachers_too() {
    let mut cachers = cached();
    begin(&mut cachers, R1, &data("f"));

    assert!(begin(&mut cachers, R2, &data("f")).is_empty(), "they have been told");
    assert!(!cachers.is_ready(R2), "but they may hold the item still");
    cachers.acknowledged(S1, Sequence(1));
    assert_eq!(cachers.acknowledged(S2, Sequence(1)), [R1, R2]);

    cachers.finish(R1);
    assert!(!cachers.register(S1, &data("f")), "the second is not done");
}

#[test]
fn a_round_that_was_given_up_leaves_its_cachers_to_be_waited_for() {
    let mut cachers = cached();
    begin(&mut cachers, R1, &data("f"));
    cachers.finish(R1);

    begin(&mut cachers, R2, &data("f"));

    assert!(!cachers.is_ready(R2));
    cachers.gone(S1);
    assert_eq!(cachers.gone(S2), [R2]);
}

#[test]
fn a_session_without_a_cache_lease_holds_up_nothing() {
    let mut cachers = cached();
    begin(&mut cachers, R1, &data("f"));
    cachers.acknowledged(S1, Sequence(1));

    assert_eq!(cachers.gone(S2), [R1]);

    cachers.finish(R1);
    assert_eq!(cachers.registrations(), 0);
    cachers.check_invariants();
}

#[test]
fn a_session_that_could_not_be_told_is_gone() {
    let mut cachers = cached();
    cachers.begin(R1, vec![data("f")]);

    cachers.gone(S1);

    assert_eq!(cachers.gone(S2), [R1]);
}

#[test]
fn after_a_fail_over_every_change_waits_for_every_session() {
    let mut cachers = Cachers::default();
    cachers.suspect(S1, Sequence(1));
    cachers.suspect(S2, Sequence(1));
    begin(&mut cachers, R1, &data("f"));
    assert!(!cachers.is_ready(R1));

    assert_eq!(cachers.acknowledged(S1, Sequence(1)), []);
    assert_eq!(cachers.gone(S2), [R1]);
}

#[test]
fn when_everything_is_void_all_who_may_hold_anything_are_waited_for_once() {
    let mut cachers = cached();
    begin(&mut cachers, R1, &data("f"));
    cachers.acknowledged(S2, Sequence(1));
    assert!(cachers.register(S2, &data("g")));
    assert_eq!(cachers.items(), [data("g")]);

    let holders = cachers.begin_all(R2);
    assert_eq!(holders, BTreeSet::from([S1, S2]), "one has not acknowledged, the other holds another item");
    holders.into_iter().for_each(|session| cachers.suspect(session, Sequence(7)));

    assert!(!cachers.is_ready(R2));
    assert!(cachers.register(S2, &data("h")), "what is kept from here on is another matter");
    assert_eq!(cachers.acknowledged(S1, Sequence(7)), []);
    assert_eq!(cachers.acknowledged(S2, Sequence(7)), [R2], "the earlier round has its own acknowledgement");
    assert_eq!(cachers.acknowledged(S1, Sequence(1)), [R1]);
    cachers.finish(R2);
    assert_eq!((cachers.registrations(), cachers.sessions().collect::<Vec<_>>()), (1, vec![S2]));
    cachers.check_invariants();
}

proptest::proptest! {
    /// Whatever happens, in whatever order: no item is held by anybody when its change is ready.
    #[test]
    fn nobody_holds_what_is_ready_to_change(steps in proptest::collection::vec((0u8..6, 0u8..3, 0u8..3), 0..80)) {
        let mut cachers = Cachers::default();
        let mut sequence = 0;
        let mut round = 0;
        let mut open = Vec::new();
        let mut unacknowledged = Vec::new();
        // What sessions believe they may use.
        let mut believed = BTreeSet::new();
        for (step, session, item) in steps {
            let (id, item) = (SessionId([session; 16]), data(&item.to_string()));
            match step {
                0 | 1 => {
                    if cachers.register(id, &item) {
                        believed.insert((id, item));
                    }
                }
                2 => {
                    round += 1;
                    for (told, items) in cachers.begin(RoundId(round), vec![item.clone()]) {
                        sequence += 1;
                        cachers.told(told, Sequence(sequence), items.clone());
                        unacknowledged.push((told, Sequence(sequence), items));
                    }
                    open.push((RoundId(round), item));
                }
                3 => {
                    if let Some((told, news, items)) = unacknowledged.pop() {
                        believed.retain(|(holder, held)| *holder != told || !items.contains(held));
                        cachers.acknowledged(told, news);
                    }
                }
                4 => {
                    believed.retain(|(holder, _)| *holder != id);
                    unacknowledged.retain(|(told, _, _)| *told != id);
                    cachers.gone(id);
                }
                _ => {
                    if let Some(place) = open.iter().position(|(round, _)| cachers.is_ready(*round)) {
                        cachers.finish(open.remove(place).0);
                    }
                }
            }
            cachers.check_invariants();
            for (round, item) in &open {
                if cachers.is_ready(*round) {
                    proptest::prop_assert!(believed.iter().all(|(_, held)| held != item));
                }
            }
        }
    }
}

#[test]
fn an_item_counts_as_long_as_somebody_may_hold_it_though_it_is_changing() {
    let mut cachers = cached();
    assert!(cachers.register(S1, &data("g")));
    begin(&mut cachers, R1, &data("f"));

    assert_eq!(cachers.items_held(), [data("g"), data("f")]);
    cachers.acknowledged(S1, Sequence(1));
    assert_eq!(cachers.items_held(), [data("g"), data("f")]);
    cachers.acknowledged(S2, Sequence(1));

    assert_eq!(cachers.items_held(), [data("g")], "it is about to change, and nobody has it");
}
