//! `hasp watch`, against a small system, and against a cell that is killed.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "cli_dev/one_cell.rs"]
mod one_cell;
#[path = "cli_dev/system.rs"]
mod system;

use one_cell::OneCell;
use serde_json::json;
use system::Dev;

#[tokio::test]
async fn events_are_told_as_they_happen() {
    let dev = Dev::start_small().await;

    a_file_tells_of_writes_and_locks(&dev).await;
    a_directory_tells_of_the_children_that_were_asked_for(&dev).await;
    json_has_the_state_after_each_event(&dev).await;
    text_has_the_state_on_lines_of_its_own(&dev).await;
    the_end_of_the_node_ends_the_watch(&dev).await;
    a_reader_that_has_gone_ends_the_watch(&dev).await;
    what_cannot_be_watched_is_refused(&dev).await;

    dev.stop("TERM").await;
}

async fn a_file_tells_of_writes_and_locks(dev: &Dev) {
    dev.run("put /ls/dev/f 1").await.ok();
    let mut watch = dev.spawn_saying("watch /ls/dev/f", "watching /ls/dev/f").await;

    dev.run("put /ls/dev/f 2").await.ok();
    dev.run("lock /ls/dev/f -- true").await.ok();

    assert_eq!(watch.line().await, "contents-modified /ls/dev/f");
    assert_eq!(watch.line().await, "lock-acquired /ls/dev/f");
    watch.signal("INT");
    assert_eq!(watch.code().await, 0);
}

async fn a_directory_tells_of_the_children_that_were_asked_for(dev: &Dev) {
    dev.run("mkdir /ls/dev/d").await.ok();
    let all = "watch /ls/local/d";
    let some = "watch --events child-added,child-removed /ls/dev/d";
    let mut all = dev.spawn_saying(all, "watching /ls/dev/d").await;
    let mut some = dev.spawn_saying(some, "watching /ls/dev/d").await;

    dev.run("put /ls/dev/d/x 1").await.ok();
    dev.run("put /ls/dev/d/x 2").await.ok();
    dev.run("rm /ls/dev/d/x").await.ok();

    for expected in ["added", "modified", "removed"] {
        assert_eq!(all.line().await, format!("child-{expected} /ls/dev/d child=x"));
    }
    for expected in ["added", "removed"] {
        assert_eq!(some.line().await, format!("child-{expected} /ls/dev/d child=x"));
    }
    for mut watch in [all, some] {
        watch.signal("TERM");
        assert_eq!(watch.code().await, 0);
    }
}

async fn json_has_the_state_after_each_event(dev: &Dev) {
    dev.run("put /ls/dev/state 1").await.ok();
    let mut watch = dev.spawn("watch --json --cat /ls/dev/state").await;
    let first = watch.object().await;

    dev.run("put /ls/dev/state 2").await.ok();
    let second = watch.object().await;

    assert_eq!((&first["event"], &first["name"]), (&json!("watching"), &json!("/ls/dev/state")));
    assert_eq!(first["file"]["contents"], "1");
    assert_eq!(second["event"], "contents-modified");
    assert_eq!(second["instance"], first["instance"]);
    assert_eq!(second["file"]["contents"], "2", "a read after the event shows it");
    assert_eq!(second["position"]["cell"], "a");
    let index = |object: &serde_json::Value| object["position"]["index"].as_u64().unwrap();
    assert!(index(&second) > index(&first));
}

async fn text_has_the_state_on_lines_of_its_own(dev: &Dev) {
    dev.run("mkdir /ls/dev/dir").await.ok();
    let mut directory = dev.spawn_saying("watch --cat /ls/dev/dir", "watching /ls/dev/dir").await;
    let mut file = dev.spawn_saying("watch --cat /ls/dev/state", "watching /ls/dev/state").await;

    dev.run("put /ls/dev/dir/x 1").await.ok();

    assert_eq!(directory.line().await, "child-added /ls/dev/dir child=x");
    assert_eq!(directory.line().await, "x");
    assert_eq!(file.line().await, "2");
}

async fn the_end_of_the_node_ends_the_watch(dev: &Dev) {
    dev.run("put /ls/dev/short 1").await.ok();
    let options = ["", "--events contents-modified "];
    let mut watches = Vec::new();
    for options in options {
        let line = format!("watch {options}/ls/dev/short");
        watches.push(dev.spawn_saying(&line, "watching /ls/dev/short").await);
    }

    dev.run("rm /ls/dev/short").await.ok();
    dev.run("put /ls/dev/short again").await.ok();

    for mut watch in watches {
        assert_eq!(watch.line().await, "handle-invalid /ls/dev/short");
        assert_eq!(watch.code().await, 1);
    }
}

async fn a_reader_that_has_gone_ends_the_watch(dev: &Dev) {
    dev.run("put /ls/dev/unread 1").await.ok();
    let mut watch = dev.spawn_saying("watch /ls/dev/unread", "watching /ls/dev/unread").await;
    watch.stop_reading();

    dev.run("put /ls/dev/unread 2").await.ok();

    assert_eq!(watch.code().await, 0);
}

async fn what_cannot_be_watched_is_refused(dev: &Dev) {
    dev.run("watch /ls/dev/missing").await.refused("NotFound");
    dev.run("put --principal admin /ls/dev/acl/nobody nobody").await.ok();
    dev.run("put --read-acl nobody /ls/dev/hidden v").await.ok();
    dev.run("watch /ls/dev/hidden").await.refused("PermissionDenied");
}

#[tokio::test]
async fn a_fail_over_is_told_and_the_watch_goes_on() {
    let mut cell = OneCell::start().await;
    cell.run("put /ls/dev/f 1").await;
    let mut watch = cell.spawn("watch --json --cat --events contents-modified /ls/dev/f");
    let watching = watch.object().await;
    assert_eq!(watching["event"], "watching");

    cell.fail_over().await;

    // The master may be met again before it says that it is another one.
    let mut fail_over = watch.object().await;
    while fail_over["event"] == "events-lost" {
        fail_over = watch.object().await;
    }
    assert_eq!((&fail_over["event"], &fail_over["cell"]), (&json!("fail-over"), &json!("a")));
    assert!(fail_over["epoch"].as_u64() > watching["position"]["epoch"].as_u64());
    assert_eq!(fail_over["file"]["contents"], "1", "it looks again");
    cell.run("put /ls/dev/f 2").await;
    while watch.object().await["file"]["contents"] != "2" {}
    watch.signal("INT");
    assert_eq!(watch.code().await, 0);
}
