//! The library from end to end, against a host of a few lines, over pipes and with virtual time.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod calls;
mod host;
mod kept;
mod names;

use std::sync::Arc;
use std::time::Duration;

use hasp_client::{
    CONTENTS_BYTES_MAX, CellName, Client, ConnectError, ConnectOptions, Env, Epoch, ErrorCode, LockMode,
    OpenOptions, SessionEvent,
};
use hasp_proto::id::Sequence;
use hasp_proto::stream::{Down, News};
use host::{ADDRESS, Host, Manner, position};

/// Longer than anything takes but leases.
const SOON: Duration = Duration::from_millis(100);

async fn connected() -> (Env, Arc<Host>, Client) {
    let env = Env::in_memory(1);
    let host = Host::start(&env, Manner::Kind).await;
    // The host of these tests counts what it is asked.
    let options = ConnectOptions { follows_list: false, ..ConnectOptions::new([ADDRESS]) };
    let client = Client::connect(options, &env.child("client")).await.expect("welcomed");
    (env, host, client)
}

async fn soon() {
    tokio::time::sleep(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_is_opened_written_and_read() {
    let (_env, host, client) = connected().await;

    let opened = client.open("/ls/local/f", OpenOptions::create_file("")).await.unwrap();
    let written = opened.handle.set_contents("hello", None).await.unwrap();
    let read = opened.handle.get_contents_and_stat().await.unwrap();

    assert!(opened.created);
    assert_eq!(opened.handle.name().as_str(), "/ls/dev/f", "the host's own name for it");
    assert_eq!(written.content_generation.0, 2);
    assert_eq!(&read.contents[..], b"hello");
    assert_eq!(read.position, position());
    assert_eq!(host.heard(), ["hello", "open", "set_contents", "get_contents_and_stat"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_its_code_and_position() {
    let (_env, _host, client) = connected().await;

    let error = client.open("/ls/dev/missing", OpenOptions::read()).await.unwrap_err();

    assert_eq!(error.code, ErrorCode::NotFound);
    assert_eq!(error.position, position());
}

#[tokio::test(start_paused = true)]
async fn bad_names_and_large_contents_are_not_sent() {
    let (_env, host, client) = connected().await;
    let handle = client.open("/ls/dev/f", OpenOptions::write()).await.unwrap().handle;

    let name = client.open("/ls//f", OpenOptions::read()).await.unwrap_err();
    let large = handle.set_contents(vec![0; CONTENTS_BYTES_MAX + 1], None).await.unwrap_err();

    assert_eq!(name.code, ErrorCode::InvalidName);
    assert_eq!(large.code, ErrorCode::TooLarge);
    assert_eq!(host.heard(), ["hello", "open"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_acquire_is_cancelled_and_a_late_grant_released() {
    let (_env, host, client) = connected().await;
    let handle = client.open("/ls/dev/f", OpenOptions::write()).await.unwrap().handle;

    let acquiring = tokio::time::timeout(SOON, handle.acquire(LockMode::Exclusive)).await;
    assert!(acquiring.is_err(), "nobody granted it");
    soon().await;
    assert_eq!(host.heard()[2..], ["acquire", "cancel"]);
    host.grant();
    soon().await;

    assert_eq!(host.heard()[2..], ["acquire", "cancel", "release"]);
}

#[tokio::test(start_paused = true)]
async fn a_granted_lock_is_kept_until_the_last_clone_of_the_handle_goes() {
    let (_env, host, client) = connected().await;
    let handle = client.open("/ls/dev/f", OpenOptions::write()).await.unwrap().handle;

    let clone = handle.clone();
    let (acquired, ()) = tokio::join!(clone.acquire(LockMode::Exclusive), async {
        soon().await;
        host.grant();
    });
    drop(clone);
    soon().await;
    assert_eq!(acquired.unwrap().lock_generation.0, 9);
    assert_eq!(host.heard()[2..], ["acquire"]);
    drop(handle);
    soon().await;

    assert_eq!(host.heard()[2..], ["acquire", "close"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_client_has_told_its_host_and_can_do_no_more() {
    let (_env, host, client) = connected().await;
    let mut events = client.events();
    let handle = client.open("/ls/dev/f", OpenOptions::read()).await.unwrap().handle;

    client.close().await;

    assert_eq!(host.heard().last().unwrap(), "end");
    assert!(client.is_over());
    assert_eq!(handle.get_stat().await.unwrap_err().code, ErrorCode::SessionExpired);
    assert_eq!(events.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_client_says_good_bye_and_leaves_nothing_behind() {
    let env = Env::in_memory(1);
    let host = Host::start(&env, Manner::Kind).await;
    let own = env.child("client");
    let client = Client::connect(ConnectOptions::new([ADDRESS]), &own).await.expect("welcomed");
    let handle = client.open("/ls/dev/f", OpenOptions::read()).await.unwrap().handle;

    drop(client);
    soon().await;
    assert_ne!(host.heard().last().unwrap(), "end", "a handle still needs the session");
    drop(handle);
    soon().await;

    assert_eq!(host.heard()[2..], ["close", "end"]);
    assert_eq!(own.tasks.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_made_again_and_the_call_asked_again() {
    let (_env, host, client) = connected().await;
    let handle = client.open("/ls/dev/f", OpenOptions::write()).await.unwrap().handle;

    let (acquired, ()) = tokio::join!(handle.acquire(LockMode::Shared), async {
        soon().await;
        host.hang_up();
        tokio::time::sleep(Duration::from_secs(3)).await;
        host.grant();
    });

    assert!(acquired.is_ok());
    assert_eq!(host.heard()[2..], ["acquire", "resume", "acquire"]);
}

#[tokio::test(start_paused = true)]
async fn news_jeopardy_and_expiry_are_told() {
    let (_env, host, client) = connected().await;
    let mut events = client.events();

    let item = News::FailOver { cell: CellName::new("a"), epoch: Epoch(2) };
    host.say(Down::News { sequence: Sequence(1), item });

    let fail_over = SessionEvent::FailOver { cell: CellName::new("a"), epoch: Epoch(2) };
    assert_eq!(events.next().await, Some(fail_over));
    soon().await;
    assert_eq!(host.heard(), ["hello", "acknowledge"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_host_a_call_blocks_through_jeopardy_and_fails_with_the_session() {
    let env = Env::in_memory(1);
    let servers = env.child("servers");
    let _host = Host::start(&servers, Manner::Kind).await;
    let client =
        Client::connect(ConnectOptions::new([ADDRESS]), &env.child("client")).await.expect("welcomed");
    let handle = client.open("/ls/dev/f", OpenOptions::read()).await.unwrap().handle;
    let mut events = client.events();

    servers.tasks.abort();
    let error = handle.get_stat().await.unwrap_err();

    assert_eq!(error.code, ErrorCode::SessionExpired);
    let waited = env.clock.now().as_micros() / 1_000_000;
    assert!((56..=58).contains(&waited), "12 s / 1.01 and 45 s of grace: {waited}");
    assert_eq!(events.next().await, Some(SessionEvent::Jeopardy { cell: None }));
    assert!(matches!(events.next().await, Some(SessionEvent::Expired(_))));
    assert_eq!(events.next().await, None);
    assert!(client.is_over());
}

#[tokio::test(start_paused = true)]
async fn keep_alives_are_counted() {
    let (_env, _host, client) = connected().await;

    assert_eq!(client.keep_alives_sent(), 1, "one is always outstanding");
    assert!(client.session_id().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_refuses_and_one_that_is_silent_are_told_apart() {
    for manner in [Manner::Refusing, Manner::Silent] {
        let env = Env::in_memory(1);
        let _host = Host::start(&env, manner).await;

        let error = Client::connect(ConnectOptions::new([ADDRESS]), &env).await.err().unwrap();

        match manner {
            Manner::Refusing => assert!(
                matches!(&error, ConnectError::Refused(why) if why.code == ErrorCode::Unauthenticated)
            ),
            Manner::Silent | Manner::Kind => assert!(matches!(error, ConnectError::Unreachable(_))),
        }
    }
}
