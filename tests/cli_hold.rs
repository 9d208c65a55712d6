//! `hasp put --hold`: files that are there for as long as somebody holds them, against a small system.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "cli_dev/system.rs"]
mod system;

use system::Dev;

#[tokio::test]
async fn a_file_that_is_held_goes_with_its_holder() {
    let dev = Dev::start_small().await;
    dev.run("mkdir /ls/dev/who").await.ok();

    it_is_there_while_it_is_held(&dev).await;
    it_stays_while_anybody_holds_it(&dev).await;
    its_holder_ends_when_somebody_deletes_it(&dev).await;
    a_permanent_file_is_not_taken_for_one_that_goes(&dev).await;
    generations_and_acls_are_heeded(&dev).await;

    dev.stop("TERM").await;
}

async fn it_is_there_while_it_is_held(dev: &Dev) {
    let mut watch = dev.spawn_saying("watch /ls/dev/who", "watching /ls/dev/who").await;

    let mut holder = dev.spawn_saying("put --hold /ls/local/who/me here", "holding /ls/dev/who/me").await;
    assert_eq!(watch.line().await, "child-added /ls/dev/who child=me");
    assert_eq!(dev.run("stat --json /ls/dev/who/me").await.json()["ephemeral"], true);
    assert_eq!(dev.run("cat /ls/dev/who/me").await.ok(), b"here");
    holder.signal("INT");
    assert_eq!(holder.code().await, 0);

    assert_eq!(watch.line().await, "child-removed /ls/dev/who child=me");
    dev.run("stat /ls/dev/who/me").await.refused("NotFound");
}

async fn it_stays_while_anybody_holds_it(dev: &Dev) {
    let mut one = dev.spawn_saying("put --hold /ls/dev/who/all 1", "holding /ls/dev/who/all").await;
    let mut two = dev.spawn("put --hold --json /ls/dev/who/all 2").await;
    let told = two.object().await;
    assert_eq!((told["created"].as_bool(), told["length"].as_u64()), (Some(false), Some(1)));

    one.signal("TERM");
    assert_eq!(one.code().await, 0);
    assert_eq!(dev.run("cat /ls/dev/who/all").await.ok(), b"2");

    let mut watch =
        dev.spawn_saying("watch --events child-removed /ls/dev/who", "watching /ls/dev/who").await;
    two.signal("TERM");
    assert_eq!(two.code().await, 0);
    assert_eq!(watch.line().await, "child-removed /ls/dev/who child=all");
}

async fn its_holder_ends_when_somebody_deletes_it(dev: &Dev) {
    let mut holder = dev.spawn_saying("put --hold /ls/dev/who/me here", "holding /ls/dev/who/me").await;

    dev.run("rm /ls/dev/who/me").await.ok();

    assert_eq!(holder.code().await, 1, "there is nothing left to hold");
}

async fn a_permanent_file_is_not_taken_for_one_that_goes(dev: &Dev) {
    dev.run("put /ls/dev/who/stays v").await.ok();

    dev.run("put --hold /ls/dev/who/stays w").await.refused("AlreadyExists");

    assert_eq!(dev.run("cat /ls/dev/who/stays").await.ok(), b"v");
}

async fn generations_and_acls_are_heeded(dev: &Dev) {
    let line = "put --hold --if-generation 0 --write-acl admin /ls/dev/who/guarded v";
    let mut holder = dev.spawn_saying(line, "holding /ls/dev/who/guarded").await;

    dev.run("put --hold --if-generation 0 /ls/dev/who/guarded w").await.refused("GenerationMismatch");
    dev.run("put --hold /ls/dev/who/guarded w").await.refused("PermissionDenied");

    let stat = dev.run("stat --json /ls/dev/who/guarded").await.json();
    assert_eq!((stat["ephemeral"].as_bool(), stat["acls"]["write"].as_str()), (Some(true), Some("admin")));
    holder.signal("TERM");
    assert_eq!(holder.code().await, 0);
}
