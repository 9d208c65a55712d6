//! The whole contract of the client commands, against a system that `hasp dev` runs.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "cli_dev/system.rs"]
mod system;

use std::time::Duration;

use serde_json::{Value, json};
use system::{Dev, Ran};

#[tokio::test]
async fn the_commands_keep_their_contract() {
    let dev = Dev::start(&["--cells", "2", "--replicas", "3", "--proxies", "3"]).await;

    files_are_written_and_read(&dev).await;
    generations_are_compared(&dev).await;
    directories_are_made_listed_and_removed(&dev).await;
    refusals_exit_with_1_and_their_name(&dev).await;
    locks_are_held_while_a_command_runs(&dev).await;
    a_lock_ends_with_its_command(&dev).await;
    every_address_serves(&dev).await;
    the_status_shows_every_server(&dev).await;
    the_admin_port_answers(&dev).await;

    dev.stop("TERM").await;
}

#[tokio::test]
async fn a_small_system_leaves_on_an_interrupt() {
    let dev = Dev::start_small().await;
    dev.run("put /ls/dev/f v").await.ok();

    dev.stop("INT").await;
}

#[tokio::test]
async fn the_partition_map_is_shown_with_its_rings() {
    let small = ["--cells", "2", "--replicas", "1", "--proxies", "1"];
    let rules = ["--partition", "/ls/dev/logs=b", "--partition", "/ls/dev/users/*=b,a"];
    let dev = Dev::start(&[&small[..], &rules].concat()).await;

    for address in [dev.connect[0].clone(), master_of(&dev, "b").await] {
        let shown = dev.run(&format!("partition show --json --connect {address}")).await.json();
        assert_eq!((&shown["namespace"], &shown["version"]), (&json!("dev"), &json!(1)));
        let rules = json!([{"prefix": "/ls/dev", "cell": "a"}, {"prefix": "/ls/dev/logs", "cell": "b"}]);
        assert_eq!(shown["rules"], rules);
        assert_eq!(shown["rings"], json!([{"directory": "/ls/dev/users", "cells": ["a", "b"]}]));
        for (place, (cell, nodes)) in [("a", 8), ("b", 0)].into_iter().enumerate() {
            let known = &shown["cells"][place];
            assert_eq!((&known["name"], &known["nodes"]), (&json!(cell), &json!(nodes)), "{shown}");
            assert!(known["master"].is_string() && known["sessions"].is_u64(), "{shown}");
        }
    }
    let plain = String::from_utf8(dev.run("partition show").await.ok()).unwrap();
    for line in
        ["/ls/dev      a     8 ", "├── logs     b     0 ", "└── users/*  a     0 ", "             b     0 "]
    {
        assert!(plain.contains(&format!("\n{line}")), "{plain}");
    }

    let file = "/ls/dev/.hasp/partitions";
    let text = String::from_utf8(dev.run(&format!("cat {file}")).await.ok()).unwrap();
    assert!(text.contains("\n/ls/dev/users/*  a b\n"), "{text}");
    let other = text.replace("a b", "b");
    let admin = "--principal admin";
    dev.run_with(&format!("put {admin} {file}"), other.as_bytes()).await.refused("InvalidArgument");
    dev.run_with(&format!("put {admin} {file}"), (text + "# ours\n").as_bytes()).await.ok();
    dev.run(&format!("put {file} v")).await.refused("PermissionDenied");
    dev.run(&format!("rm {admin} {file}")).await.refused("PermissionDenied");
    dev.run("rm /ls/dev/users").await.refused("NotEmpty");

    dev.stop("TERM").await;
}

async fn master_of(dev: &Dev, cell: &str) -> String {
    let status = dev.run("status --json").await.json();
    let cells = status["cells"].as_array().unwrap();
    cells.iter().find(|it| it["name"] == cell).unwrap()["master"].as_str().unwrap().to_owned()
}

async fn files_are_written_and_read(dev: &Dev) {
    let created = dev.run("put --json /ls/dev/f hello").await.json();
    assert_eq!(created["created"], true);
    assert_eq!(created["name"], "/ls/dev/f");
    let first = created["content_generation"].as_u64().unwrap();
    assert_eq!(dev.run("cat /ls/dev/f").await.ok(), b"hello");

    let written = dev.run_with("put --json /ls/dev/f", &[0xff, 0x00, 0x0a]).await.json();
    assert_eq!(written["created"], false);
    assert_eq!(written["previous_generation"], first);
    assert!(written["content_generation"].as_u64().unwrap() > first);
    assert_eq!(dev.run("cat /ls/dev/f").await.ok(), [0xff, 0x00, 0x0a]);
    assert_eq!(dev.run("cat --json /ls/dev/f").await.json()["contents_base64"], "/wAK");

    dev.run_with("put /ls/local/f -", b"from stdin").await.ok();
    let read = dev.run("cat --json /ls/local/f").await.json();
    assert_eq!(read["contents"], "from stdin");
    assert_eq!(read["stat"]["length"], 10);

    let large = vec![b'x'; 256 * 1024];
    dev.run_with("put /ls/dev/large", &large).await.ok();
    assert_eq!(dev.run("cat /ls/dev/large").await.ok(), large);

    let stat = dev.run("stat --json /ls/dev/f").await.json();
    let keys: Vec<_> = stat.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "acl_generation",
        "acls",
        "checksum",
        "content_generation",
        "ephemeral",
        "instance",
        "kind",
        "length",
        "lock_generation",
        "name",
    ];
    assert_eq!(keys, expected);
    assert_eq!(stat["kind"], "file");
    assert_eq!(stat["checksum"].as_str().unwrap().len(), 16);
    assert_eq!(stat["ephemeral"], false);
    assert_eq!(stat["acls"], json!({"read": "everyone", "write": "everyone", "change": "admin"}));
    let plain = String::from_utf8(dev.run("stat /ls/dev/f").await.ok()).unwrap();
    assert!(plain.contains("length              10\n"), "{plain}");
}

async fn generations_are_compared(dev: &Dev) {
    let created = dev.run("put --json --if-generation 0 /ls/dev/cas 1").await.json();
    assert_eq!(created["created"], true);
    let generation = created["content_generation"].as_u64().unwrap();

    let written = dev.run(&format!("put --json --if-generation {generation} /ls/dev/cas 2")).await.json();
    assert!(written["content_generation"].as_u64().unwrap() > generation);
    dev.run(&format!("put --if-generation {generation} /ls/dev/cas 3")).await.refused("GenerationMismatch");
    dev.run("put --if-generation 0 /ls/dev/cas 3").await.refused("GenerationMismatch");
    dev.run("put --if-generation 5 /ls/dev/no-such-file 3").await.refused("GenerationMismatch");
    assert_eq!(dev.run("cat /ls/dev/cas").await.ok(), b"2");
}

async fn directories_are_made_listed_and_removed(dev: &Dev) {
    assert_eq!(dev.run("mkdir --json /ls/dev/d").await.json()["created"], true);
    dev.run("mkdir /ls/dev/d").await.refused("AlreadyExists");
    assert_eq!(dev.run("mkdir -p --json /ls/dev/d").await.json()["created"], false);
    dev.run("mkdir -p /ls/dev/d/e/g").await.ok();
    dev.run("put /ls/dev/d/f v").await.ok();

    assert_eq!(dev.run("ls /ls/dev/d").await.ok(), b"e/\nf\n");
    let long = String::from_utf8(dev.run("ls -l /ls/dev/d").await.ok()).unwrap();
    assert_eq!(long.lines().count(), 3, "{long}");
    let listing = dev.run("ls --json /ls/dev/d").await.json();
    assert_eq!(listing["children"][0]["component"], "e");
    assert_eq!(listing["children"][0]["kind"], "directory");
    assert_eq!(listing["children"][1]["length"], 1);
    assert_eq!(listing["children"][1].get("lock_generation"), None, "listings do not know it");

    dev.run("rm /ls/dev/d").await.refused("NotEmpty");
    for name in ["/ls/dev/d/e/g", "/ls/dev/d/e", "/ls/dev/d/f", "/ls/dev/d"] {
        dev.run(&format!("rm {name}")).await.ok();
    }
    dev.run("stat /ls/dev/d").await.refused("NotFound");
}

async fn refusals_exit_with_1_and_their_name(dev: &Dev) {
    for line in ["cat /ls/dev/missing", "ls /ls/dev/missing", "rm /ls/dev/missing", "put /ls/dev/missing/f v"]
    {
        dev.run(line).await.refused("NotFound");
    }
    dev.run("cat /ls/elsewhere/f").await.refused("NotFound");
    dev.run("ls /ls/dev/f").await.refused("NotADirectory");
    dev.run("put /ls/dev/f/below v").await.refused("NotADirectory");
    dev.run("mkdir -p /ls/dev/f/below").await.refused("NotADirectory");
}

async fn locks_are_held_while_a_command_runs(dev: &Dev) {
    assert_eq!(dev.run("lock /ls/dev/lock -- sh -c exit${IFS}7").await.code, 7);
    assert_eq!(dev.run("lock /ls/dev/lock -- /no/such/program").await.code, 127);
    let first = generation(dev.run("lock /ls/dev/lock -- printenv HASP_LOCK_GENERATION").await);
    let second = generation(dev.run("lock --shared /ls/dev/lock -- printenv HASP_LOCK_GENERATION").await);
    assert!(second > first, "{second} after {first}");

    let mut holder = dev.spawn("lock /ls/dev/lock -- sh -c echo${IFS}held;read${IFS}line").await;
    assert_eq!(holder.line().await, "held");
    dev.run("lock --try /ls/dev/lock -- true").await.refused("LockHeld");
    dev.run("lock --try --shared /ls/dev/lock -- true").await.refused("LockHeld");
    let mut waiter = dev.spawn("lock /ls/dev/lock -- echo mine").await;
    assert!(!waiter.ends_within(Duration::from_millis(300)).await, "it waits");
    holder.write(b"go\n").await;
    assert_eq!(holder.code().await, 0);
    assert_eq!(waiter.line().await, "mine");
    assert_eq!(waiter.code().await, 0);

    let mut reader = dev.spawn("lock --shared /ls/dev/lock -- sh -c echo${IFS}held;read${IFS}line").await;
    assert_eq!(reader.line().await, "held");
    dev.run("lock --try --shared /ls/dev/lock -- true").await.ok();
    dev.run("lock --try /ls/dev/lock -- true").await.refused("LockHeld");
    reader.write(b"go\n").await;
    assert_eq!(reader.code().await, 0);
}

/// The number that the command printed.
fn generation(ran: Ran) -> u64 {
    String::from_utf8(ran.ok()).unwrap().trim().parse().unwrap()
}

async fn a_lock_ends_with_its_command(dev: &Dev) {
    let mut holder = dev.spawn("lock /ls/dev/lock -- sh -c echo${IFS}held;sleep${IFS}60").await;
    assert_eq!(holder.line().await, "held");
    holder.signal("TERM");
    assert_eq!(holder.code().await, 128 + 15, "the signal reached the command");
    dev.run("lock --try /ls/dev/lock -- true").await.ok();

    let mut holder = dev.spawn("lock /ls/dev/lock -- sh -c echo${IFS}held;read${IFS}line").await;
    assert_eq!(holder.line().await, "held");
    let mut waiter = dev.spawn("lock /ls/dev/lock -- echo mine").await;
    assert!(!waiter.ends_within(Duration::from_millis(300)).await, "it waits");
    waiter.signal("INT");
    assert_eq!(waiter.code().await, 128 + 2, "it gave up");
    holder.write(b"go\n").await;
    assert_eq!(holder.code().await, 0);
    dev.run("lock --try /ls/dev/lock -- true").await.ok();
}

async fn every_address_serves(dev: &Dev) {
    for address in &dev.connect {
        assert_eq!(dev.run(&format!("cat --connect {address} /ls/dev/cas")).await.ok(), b"2", "{address}");
    }
    let status = dev.run("status --json").await.json();
    for replica in replicas(&status) {
        let address = replica["address"].as_str().unwrap();
        assert_eq!(dev.run(&format!("cat --connect {address} /ls/dev/cas")).await.ok(), b"2", "{replica}");
    }
}

async fn the_status_shows_every_server(dev: &Dev) {
    let status = dev.run("status --json").await.json();

    let cells = status["cells"].as_array().unwrap();
    assert_eq!(cells.iter().map(|cell| cell["name"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    for cell in cells {
        assert!(cell["epoch"].as_u64().unwrap() >= 1, "{status}");
        assert!(cell["sessions"].as_u64().unwrap() >= 3, "one for each proxy: {cell}");
        assert!(cell["keepalives_per_s"].is_number(), "{cell}");
        let masters =
            cell["replicas"].as_array().unwrap().iter().filter(|replica| replica["state"] == "master");
        let masters: Vec<_> = masters.map(|master| &master["address"]).collect();
        assert_eq!(masters, [&cell["master"]]);
    }
    assert_eq!(replicas(&status).len(), 6);
    for replica in replicas(&status) {
        assert!(replica["id"].is_u64() && replica["applied"].as_u64().unwrap() > 0, "{replica}");
    }
    let proxies = status["proxies"].as_array().unwrap();
    assert_eq!(proxies.len(), 3, "{status}");
    for proxy in proxies {
        assert_eq!(proxy["role"], "proxy");
        assert!(dev.connect.iter().any(|address| proxy["address"] == address.as_str()), "{proxy}");
        assert_eq!(proxy["upstream_sessions"], 2, "one for each cell: {proxy}");
        assert!(proxy["sessions"].is_u64() && proxy["keepalives_per_s"].is_number(), "{proxy}");
    }
    let plain = String::from_utf8(dev.run("status").await.ok()).unwrap();
    assert!(dev.connect.iter().all(|address| plain.contains(address.as_str())), "{plain}");
}

fn replicas(status: &Value) -> Vec<&Value> {
    let cells = status["cells"].as_array().unwrap();
    cells.iter().flat_map(|cell| cell["replicas"].as_array().unwrap()).collect()
}

async fn the_admin_port_answers(dev: &Dev) {
    for page in ["/livez", "/readyz", "/metrics"] {
        let answer = dev.admin_page(page).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{page}: {answer}");
    }
}
