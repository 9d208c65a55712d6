//! What is kept between calls, from end to end: what was read, handles, sessions.

use std::time::Duration;

use hasp_client::{Client, ConnectOptions, Env, OpenOptions};
use hasp_proto::item::{Item, ItemKind};
use hasp_proto::stream::News;

use crate::host::{ADDRESS, Host, Manner, position};
use crate::{connected, soon};

const F: &str = "/ls/dev/f";

fn invalidation() -> News {
    let items = vec![Item::new(hasp_client::Name::parse(F).unwrap(), ItemKind::Data)];
    News::Invalidate { items, floor: position().unwrap() }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_read_is_read_without_a_message_until_it_is_invalidated() {
    let (_env, host, client) = connected().await;
    host.let_cache();
    let handle = client.open(F, OpenOptions::write()).await.unwrap().handle;
    handle.set_contents("hello", None).await.unwrap();

    for _ in 0..3 {
        let read = handle.get_contents_and_stat().await.unwrap();
        assert_eq!((&read.contents[..], read.position), (&b"hello"[..], position()));
        assert_eq!(handle.get_stat().await.unwrap().stat, read.stat);
    }
    assert_eq!(host.heard()[2..], ["set_contents", "get_contents_and_stat"]);
    host.tell(invalidation());
    soon().await;
    handle.get_contents_and_stat().await.unwrap();

    assert_eq!(host.heard()[4..], ["acknowledge", "get_contents_and_stat"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_handle_that_is_not_to_be_used_is_not_answered_from_what_is_kept() {
    let (_env, host, client) = connected().await;
    host.let_cache();
    let handle = client.open(F, OpenOptions::write()).await.unwrap().handle;
    handle.get_contents_and_stat().await.unwrap();
    let sequencer = handle.get_sequencer().await.unwrap();

    handle.set_sequencer(&sequencer);
    handle.get_contents_and_stat().await.unwrap();
    assert_eq!(host.heard().last().unwrap(), "get_contents_and_stat guarded");
    handle.clear_sequencer();
    handle.poison();
    assert!(handle.get_contents_and_stat().await.is_err());
    handle.close().await.unwrap();

    assert!(handle.get_contents_and_stat().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn after_the_session_nothing_that_was_kept_is_served() {
    let (_env, host, client) = connected().await;
    host.let_cache();
    let handle = client.open(F, OpenOptions::read()).await.unwrap().handle;
    handle.get_contents_and_stat().await.unwrap();

    client.close().await;

    assert!(handle.get_contents_and_stat().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn with_the_cache_switched_off_every_read_is_asked() {
    let env = Env::in_memory(1);
    let host = Host::start(&env, Manner::Kind).await;
    host.let_cache();
    let options = ConnectOptions { cache: false, ..ConnectOptions::new([ADDRESS]) };
    let client = Client::connect(options, &env.child("client")).await.expect("welcomed");
    let handle = client.open(F, OpenOptions::read()).await.unwrap().handle;

    handle.get_contents_and_stat().await.unwrap();
    handle.get_contents_and_stat().await.unwrap();

    assert_eq!(host.heard()[2..], ["get_contents_and_stat", "get_contents_and_stat"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_opened_again_costs_no_message() {
    let (_env, host, client) = connected().await;
    host.let_cache();

    for _ in 0..3 {
        let handle = client.open(F, OpenOptions::read()).await.unwrap().handle;
        handle.get_contents_and_stat().await.unwrap();
        handle.close().await.unwrap();
    }
    assert_eq!(host.heard()[1..], ["open", "get_contents_and_stat"]);
    host.tell(invalidation());
    soon().await;

    assert_eq!(host.heard()[3..], ["close", "acknowledge"]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_ended_and_another_begun_by_the_next_call() {
    let (env, host, client) = connected().await;
    let mut events = client.events();
    client.open(F, OpenOptions::read()).await.unwrap().handle.close().await.unwrap();
    let first = client.session_id();

    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(host.heard().last().unwrap(), "end");
    assert_eq!(client.session_id(), None);
    assert!(!client.is_over());
    let silence = tokio::time::timeout(Duration::from_secs(600), events.next()).await;
    assert!(silence.is_err(), "nothing is told of it, nor does anything happen");
    let heard = host.heard().len();
    let handle = client.open(F, OpenOptions::read()).await.unwrap().handle;

    assert_eq!(host.heard()[heard..], ["hello", "open"]);
    assert_ne!(client.session_id(), first);
    let passed = env.clock.now();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(env.clock.now() > passed);
    assert!(!host.heard()[heard..].contains(&"end".to_owned()), "a handle needs it");
    drop(handle);
    client.close().await;
    assert_eq!(events.next().await, None, "the end of all");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_to_stay_stays() {
    let env = Env::in_memory(1);
    let host = Host::start(&env, Manner::Kind).await;
    let options = ConnectOptions { ends_idle: false, ..ConnectOptions::new([ADDRESS]) };
    let client = Client::connect(options, &env.child("client")).await.expect("welcomed");

    tokio::time::sleep(Duration::from_secs(300)).await;

    assert!(!host.heard().contains(&"end".to_owned()));
    assert!(client.session_id().is_some());
}
