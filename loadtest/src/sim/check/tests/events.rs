//! Of `events`.

use hasp_client::{HandleEvent, LossCause};
use hasp_proto::event::{EventKind, EventMask, NodeEvent};
use hasp_proto::node::LockMode;

use super::*;
use crate::sim::check::events::facts;
use crate::sim::history::{Heard, Watch};

/// What only the checker of events finds: what was written here nobody has asked for.
fn found(history: History, calls: Vec<Asked>) -> Vec<String> {
    found_by(crate::sim::check::events::check, history, calls)
}

fn event(index: u64) -> NodeEvent {
    NodeEvent {
        kind: EventKind::ContentsModified,
        name: name(FILE),
        instance: Instance(1),
        child: None,
        to: None,
        position: at(index),
    }
}

fn happened(index: u64) -> HandleEvent {
    HandleEvent::Happened(event(index))
}

const LOST: HandleEvent = HandleEvent::EventsLost(LossCause::Host);

/// A handle opened at index 10 and open to the end, that is told these things at these moments.
fn watched(told: EventMask, heard: impl IntoIterator<Item = (u64, HandleEvent)>) -> History {
    let mut history = file();
    history.watches.push(Watch {
        client: 3,
        life: 1,
        name: name(FILE),
        instance: Instance(1),
        told,
        opened: Moment(15),
        position: at(10),
        is_exact: true,
        ended: None,
    });
    let heard = heard.into_iter().map(|(at, event)| Heard { watch: 0, at: Moment(at), event });
    history.heard.extend(heard);
    history
}

fn told(heard: impl IntoIterator<Item = (u64, HandleEvent)>) -> History {
    watched(EventMask::of([EventKind::ContentsModified]), heard)
}

#[test]
fn who_hears_of_every_change_once_and_in_order_has_nothing_to_complain_of() {
    assert_eq!(found(told([(21, happened(20)), (31, happened(30))]), Vec::new()), Vec::<String>::new());
}

#[test]
fn an_event_of_what_never_happened_or_not_yet_is_seen() {
    finds(told([(26, happened(25))]), Vec::new(), "which was done: never");
    finds(told([(19, happened(20)), (31, happened(30))]), Vec::new(), "which was done:   0.000020");
}

#[test]
fn an_event_that_nobody_asked_for_is_seen() {
    let other = watched(EventMask::of([EventKind::LockAcquired]), [(21, happened(20))]);

    finds(other, Vec::new(), "did not ask for it");
}

#[test]
fn events_out_of_order_or_told_twice_are_seen() {
    finds(told([(31, happened(30)), (32, happened(20))]), Vec::new(), "after NodeEvent");
    finds(told([(21, happened(20)), (22, happened(20)), (31, happened(30))]), Vec::new(), "a second time");
}

#[test]
fn an_event_that_is_missing_is_seen() {
    finds(told([(31, happened(30))]), Vec::new(), "was never told of Fact { index: 20");
    finds(told([(21, happened(20))]), Vec::new(), "was never told of Fact { index: 30");
}

#[test]
fn what_may_have_been_lost_may_be_missing_and_what_came_after_a_look_may_not() {
    let lost = || told([(21, LOST), (31, happened(30))]);
    assert_eq!(found(lost(), Vec::new()), Vec::<String>::new());
    assert_eq!(found(told([(21, happened(20)), (31, LOST)]), Vec::new()), Vec::<String>::new());

    let looks = read(3, (23, 24), 20, 20, "b");
    assert_eq!(found(told([(16, LOST), (31, happened(30))]), vec![looks.clone()]), Vec::<String>::new());
    finds(told([(16, LOST)]), vec![looks], "was never told of Fact { index: 30");
}

#[test]
fn what_was_told_after_a_change_hides_no_loss_of_an_earlier_one() {
    finds(told([(31, happened(30)), (32, LOST)]), Vec::new(), "was never told of Fact { index: 20");
}

#[test]
fn a_closed_handle_need_not_hear_the_last_events() {
    let mut closed = told([]);
    closed.watches[0].ended = Some(Moment(18));

    assert_eq!(found(closed, Vec::new()), Vec::<String>::new());
}

#[test]
fn a_read_that_does_not_show_what_somebody_was_told_before_it_began_is_seen() {
    let heard = || told([(21, happened(20)), (31, happened(30))]);

    assert_eq!(found(heard(), vec![read(1, (20, 25), 19, 10, "a")]), Vec::<String>::new(), "it had begun");

    finds(heard(), vec![read(1, (22, 25), 19, 10, "a")], "P-EVENT: Read of");
}

#[test]
fn a_conflict_needs_somebody_who_wants_the_lock() {
    let conflict = NodeEvent { kind: EventKind::LockConflict, ..event(30) };
    let heard =
        || watched(EventMask::of([EventKind::LockConflict]), [(21, HandleEvent::Happened(conflict.clone()))]);
    let wants = |client| {
        let reply = Reply::Acquired { lock_generation: Generation(1) };
        asked(client, What::Acquire(LockMode::Exclusive), (19, 40), 30, reply)
    };

    assert_eq!(found(heard(), vec![wants(1)]), Vec::<String>::new());

    finds(heard(), vec![wants(3)], "nobody wanted the lock");
}

#[test]
fn a_handle_on_a_node_that_is_gone_is_told_so() {
    let told = |is_gone: bool| {
        let mut history = watched(EventMask::of([EventKind::HandleInvalid]), []);
        let gone = Version { index: 40, at: Moment(40), node: None, has_moved: false };
        let versions =
            history.truths.get_mut(&CellName::new("a")).unwrap().versions.get_mut(&name(FILE)).unwrap();
        versions.extend(is_gone.then_some(gone));
        history
    };

    assert_eq!(found(told(false), Vec::new()), Vec::<String>::new());

    finds(told(true), Vec::new(), "was never told that it is gone since index 40");
}

#[test]
fn what_is_told_follows_from_what_became_of_nodes() {
    let directory = vec![Version { node: version(5, "").node, index: 5, at: Moment(5), has_moved: false }];
    let gone = Version { index: 30, at: Moment(30), node: None, has_moved: false };
    let child = vec![version(10, "a"), version(20, "b"), gone];
    let history = history_of([("/ls/dev/d", directory), ("/ls/dev/d/c0", child)]);

    let facts = facts(&history.truths[&CellName::new("a")]);

    let kinds: Vec<_> = facts.iter().map(|fact| (fact.index, fact.kind, fact.child.as_deref())).collect();
    assert_eq!(
        kinds,
        [
            (10, EventKind::ChildAdded, Some("c0")),
            (20, EventKind::ContentsModified, None),
            (20, EventKind::ChildModified, Some("c0")),
            (30, EventKind::HandleInvalid, None),
            (30, EventKind::ChildRemoved, Some("c0")),
        ]
    );
}

#[test]
fn after_a_loss_events_may_be_told_again_from_the_beginning() {
    let again =
        told([(21, happened(20)), (31, happened(30)), (32, LOST), (33, happened(20)), (34, happened(30))]);

    assert_eq!(found(again, Vec::new()), Vec::<String>::new());
}
