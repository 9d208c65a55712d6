//! Who hears what, and what a slow listener hears instead.

use hasp_proto::id::Instance;
use hasp_proto::name::Name;

use super::*;

fn event(index: u64) -> HandleEvent {
    HandleEvent::Happened(NodeEvent {
        kind: EventKind::ContentsModified,
        name: Name::parse("/ls/dev/f").unwrap(),
        instance: Instance(4),
        child: None,
        to: None,
        position: Position { cell: CellName::new("a"), epoch: Epoch(1), index },
    })
}

fn invalid() -> HandleEvent {
    HandleEvent::Invalid(CallError::local(ErrorCode::StaleHandle, "deleted"))
}

#[tokio::test]
async fn the_first_listener_hears_what_was_told_before_it_listened_and_others_what_is_told_after() {
    let teller = Teller::new();
    teller.tell(&event(1));
    let mut first = teller.listen();
    let mut second = teller.listen();

    teller.tell(&event(2));

    assert_eq!(first.next().await, Some(event(1)));
    assert_eq!(first.next().await, Some(event(2)));
    assert_eq!(second.next().await, Some(event(2)));
}

#[tokio::test(start_paused = true)]
async fn a_listener_waits_for_the_next_event() {
    let teller = Teller::new();
    let mut listener = teller.listen();

    let (heard, ()) = tokio::join!(listener.next(), async {
        tokio::task::yield_now().await;
        teller.tell(&event(1));
    });

    assert_eq!(heard, Some(event(1)));
}

#[tokio::test]
async fn a_slow_listener_is_told_to_look_again_and_then_hears_what_follows() {
    let teller = Teller::new();
    let mut listener = teller.listen();

    for index in 0..=EVENTS_MAX as u64 {
        teller.tell(&event(index));
    }

    assert_eq!(listener.next().await, Some(HandleEvent::EventsLost(LossCause::Slow)));
    assert_eq!(listener.next().await, Some(event(EVENTS_MAX as u64)));
}

#[tokio::test]
async fn a_listener_with_room_for_all_loses_none() {
    let teller = Teller::new();
    let mut listener = teller.listen();

    for index in 0..EVENTS_MAX as u64 {
        teller.tell(&event(index));
    }

    for index in 0..EVENTS_MAX as u64 {
        assert_eq!(listener.next().await, Some(event(index)));
    }
}

#[tokio::test]
async fn nothing_follows_once_the_handle_is_invalid_for_early_and_late_listeners_alike() {
    let teller = Teller::new();
    let mut early = teller.listen();
    teller.tell(&invalid());
    teller.tell(&event(2));
    teller.end();
    let mut late = teller.listen();

    for listener in [&mut early, &mut late] {
        assert_eq!(listener.next().await, Some(invalid()));
        assert_eq!(listener.next().await, None);
    }
}

#[tokio::test]
async fn a_closed_handle_tells_what_it_had_to_tell_and_then_nothing() {
    let teller = Teller::new();
    let mut listener = teller.listen();
    teller.tell(&event(1));

    teller.end();

    assert_eq!(listener.next().await, Some(event(1)));
    assert_eq!(listener.next().await, None);
    assert_eq!(teller.listen().next().await, None);
}
