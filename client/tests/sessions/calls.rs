//! The calls besides reading and writing, from end to end.

use std::time::Duration;

use hasp_client::{
    AclNames, CellName, Epoch, ErrorCode, EventKind, EventMask, HandleEvent, LockMode, LossCause, NodeEvent,
    OpenOptions,
};
use hasp_proto::id::Instance;
use hasp_proto::stream::News;

use crate::host::position;
use crate::{connected, soon};

const F: &str = "/ls/dev/f";

#[tokio::test(start_paused = true)]
async fn acl_names_are_replaced() {
    let (_env, host, client) = connected().await;
    let handle = client.open(F, OpenOptions::change_acl()).await.unwrap().handle;

    let set = handle.set_acl(AclNames::default(), None).await.unwrap();

    assert_eq!(set.acl_generation.0, 3);
    assert_eq!(set.position, position());
    assert_eq!(host.heard()[1..], ["open", "set_acl"]);
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_that_is_set_guards_what_follows_but_not_what_is_given_up() {
    let (_env, host, client) = connected().await;
    let handle = client.open(F, OpenOptions::write()).await.unwrap().handle;
    let sequencer = handle.get_sequencer().await.unwrap();
    assert_eq!((sequencer.lock_generation().0, sequencer.mode()), (9, LockMode::Exclusive));

    handle.set_sequencer(&sequencer);
    handle.set_contents("x", None).await.unwrap();
    handle.open("a", OpenOptions::read()).await.unwrap();
    handle.release().await.unwrap();
    handle.clear_sequencer();
    handle.set_contents("y", None).await.unwrap();

    assert_eq!(
        host.heard()[2..],
        [
            "get_sequencer",
            "set_contents guarded",
            "open guarded relative",
            "close",
            "release",
            "set_contents"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_close_is_never_guarded() {
    let (_env, host, client) = connected().await;
    let handle = client.open(F, OpenOptions::write()).await.unwrap().handle;
    let sequencer = handle.get_sequencer().await.unwrap();
    handle.set_sequencer(&sequencer);

    handle.close().await.unwrap();

    assert_eq!(host.heard().last().unwrap(), "close");
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_is_checked_by_its_cell() {
    let (_env, _host, client) = connected().await;
    let handle = client.open(F, OpenOptions::write()).await.unwrap().handle;
    let sequencer = handle.get_sequencer().await.unwrap();

    let read = sequencer.to_string().parse().expect("its own text");

    assert_eq!(client.check_sequencer(&read).await.map(|done| done.position), Ok(position()));
}

#[tokio::test(start_paused = true)]
async fn names_are_opened_relative_to_a_directory_or_to_the_root() {
    let (_env, host, client) = connected().await;
    let directory = client.open("/ls/local/d", OpenOptions::read()).await.unwrap().handle;

    let below = directory.open("a/b", OpenOptions::read()).await.unwrap().handle;
    let at_root = client.root().open("c", OpenOptions::create_file("").ephemeral()).await.unwrap().handle;
    let outside = directory.open("../x", OpenOptions::read()).await.unwrap_err();

    assert_eq!(below.name().as_str(), "/ls/dev/d/a/b");
    assert_eq!(at_root.name().as_str(), "/ls/dev/c");
    assert_eq!(outside.code, ErrorCode::InvalidName);
    assert_eq!(host.heard()[1..], ["open", "open relative", "open ephemeral"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_calls_under_way_and_no_others() {
    let (_env, host, client) = connected().await;
    let handle = client.open(F, OpenOptions::write()).await.unwrap().handle;

    let (acquired, ()) = tokio::join!(handle.acquire(LockMode::Exclusive), async {
        soon().await;
        handle.cancel();
    });
    let later = handle.get_stat().await;

    assert_eq!(acquired.unwrap_err().code, ErrorCode::Cancelled);
    assert!(later.is_ok());
    assert_eq!(host.heard()[2..], ["acquire", "cancel", "get_stat"]);
}

#[tokio::test(start_paused = true)]
async fn poison_ends_all_calls_and_leaves_the_handle_open_and_its_lock_held() {
    let (_env, host, client) = connected().await;
    let handle = client.open(F, OpenOptions::write()).await.unwrap().handle;
    let (_, ()) = tokio::join!(handle.acquire(LockMode::Exclusive), async {
        soon().await;
        host.grant();
    });

    let (acquired, ()) = tokio::join!(handle.acquire(LockMode::Exclusive), async {
        soon().await;
        handle.poison();
    });
    let later = handle.clone().get_stat().await;
    soon().await;

    assert_eq!(acquired.unwrap_err().code, ErrorCode::Cancelled);
    assert_eq!(later.unwrap_err().code, ErrorCode::Cancelled);
    assert_eq!(host.heard()[2..], ["acquire", "acquire", "cancel"], "neither released nor closed");
    assert!(handle.close().await.is_ok(), "that works");
    assert_eq!(host.heard().last().unwrap(), "close");
}

#[tokio::test(start_paused = true)]
async fn a_closed_handle_is_good_for_nothing() {
    let (_env, host, client) = connected().await;
    let handle = client.open(F, OpenOptions::write()).await.unwrap().handle;

    handle.close().await.unwrap();
    let late = handle.get_stat().await;
    let again = handle.close().await;
    drop(handle);
    soon().await;

    assert_eq!(late.unwrap_err().code, ErrorCode::StaleHandle);
    assert!(again.is_ok());
    assert_eq!(host.heard()[2..], ["close"]);
}

fn modified() -> NodeEvent {
    NodeEvent {
        kind: EventKind::ContentsModified,
        name: F.parse_name(),
        instance: Instance(4),
        child: None,
        to: None,
        position: position().unwrap(),
    }
}

trait ParseName {
    fn parse_name(&self) -> hasp_client::Name;
}

impl ParseName for str {
    fn parse_name(&self) -> hasp_client::Name {
        hasp_client::Name::parse(self).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_a_node_reach_who_listens_at_its_handle_also_from_before_it_listened() {
    let (_env, host, client) = connected().await;
    let mask = EventMask::of([EventKind::ContentsModified]);
    let handle = client.open(F, OpenOptions::read().events(mask)).await.unwrap().handle;

    host.tell(News::Event(modified()));
    soon().await;
    let mut events = handle.events();
    assert_eq!(events.next().await, Some(HandleEvent::Happened(modified())));
    let fail_over = News::FailOver { cell: CellName::new("a"), epoch: Epoch(2) };
    host.tell(fail_over);
    let lost = LossCause::FailOver { cell: CellName::new("a"), epoch: Epoch(2) };
    assert_eq!(events.next().await, Some(HandleEvent::EventsLost(lost)));
    handle.close().await.unwrap();

    assert_eq!(events.next().await, None);
    assert_eq!(host.heard()[2..], ["acknowledge", "refresh", "acknowledge", "close"]);
}

#[tokio::test(start_paused = true)]
async fn who_listens_at_a_handle_learns_of_the_end_of_the_session() {
    let (_env, _host, client) = connected().await;
    let mask = EventMask::of([EventKind::ContentsModified]);
    let handle = client.open(F, OpenOptions::read().events(mask)).await.unwrap().handle;
    let mut events = handle.events();

    client.close().await;

    let last = events.next().await;
    assert!(matches!(last, Some(HandleEvent::Invalid(error)) if error.code == ErrorCode::SessionExpired));
    assert_eq!(events.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_released_lock_is_kept_until_somebody_else_wants_it() {
    let (_env, host, client) = connected().await;
    let handle = client.open(F, OpenOptions::write().cache_lock()).await.unwrap().handle;
    let (first, ()) = tokio::join!(handle.acquire(LockMode::Exclusive), async {
        soon().await;
        host.grant();
    });
    handle.release().await.unwrap();

    let again = handle.acquire(LockMode::Exclusive).await.unwrap();
    handle.release().await.unwrap();
    assert_eq!(again, first.unwrap());
    assert_eq!(host.heard()[2..], ["acquire"]);
    let to =
        hasp_proto::event::HandleId { session: host.session(), opened_by: hasp_proto::id::RequestNumber(1) };
    host.tell(News::Event(NodeEvent { kind: EventKind::LockConflict, to: Some(to), ..modified() }));
    tokio::time::sleep(Duration::from_secs(1)).await;

    assert_eq!(host.heard()[2..], ["acquire", "release", "acknowledge"]);
}
