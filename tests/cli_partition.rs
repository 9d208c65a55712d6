//! A namespace whose directories are spread over cells looks like any other: through each proxy, for every command.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "cli_dev/system.rs"]
mod system;

use std::collections::BTreeSet;

use serde_json::json;
use system::Dev;

/// Directories below the ring: with so many both cells have children of some.
const USERS: [&str; 6] = ["alice", "bob", "carol", "dave", "eve", "frank"];

#[tokio::test]
async fn directories_that_are_spread_over_cells_are_like_all_others() {
    let small = ["--cells", "2", "--replicas", "1", "--proxies", "2"];
    let dev = Dev::start(&[&small[..], &["--partition", "/ls/dev/users/*=a,b"]].concat()).await;

    children_live_where_the_ring_says(&dev).await;
    a_directory_goes_only_when_it_is_empty(&dev).await;
    its_name_can_be_used_again(&dev).await;
    children_are_told_of(&dev).await;
    acls_reach_across(&dev).await;
    a_cell_alone_says_what_it_takes(&dev).await;

    dev.stop("TERM").await;
}

async fn children_live_where_the_ring_says(dev: &Dev) {
    let mut cells = BTreeSet::new();
    for user in USERS {
        dev.run(&format!("put /ls/dev/users/{user}/mail v")).await.refused("NotFound");
        dev.run(&format!("mkdir /ls/dev/users/{user}")).await.ok();
        dev.run(&format!("put /ls/dev/users/{user}/mail {user}")).await.ok();
        dev.run(&format!("mkdir -p /ls/dev/users/{user}/deep/down")).await.ok();
        let watch = format!("watch --json /ls/dev/users/{user}/mail");
        let mut watch = dev.spawn(&watch).await;
        cells.insert(watch.object().await["position"]["cell"].as_str().unwrap().to_owned());
        watch.signal("INT");
        assert_eq!(watch.code().await, 0);
    }
    assert_eq!(cells, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    for address in &dev.connect {
        assert_eq!(dev.run(&format!("ls --connect {address} /ls/dev/users")).await.text().lines().count(), 6);
        for user in USERS {
            let listed = dev.run(&format!("ls --connect {address} /ls/dev/users/{user}")).await.text();
            assert_eq!(listed, "deep/\nmail\n", "{user}");
            let read = dev.run(&format!("cat --connect {address} /ls/dev/users/{user}/mail")).await.ok();
            assert_eq!(read, user.as_bytes());
        }
    }
}

async fn a_directory_goes_only_when_it_is_empty(dev: &Dev) {
    for user in USERS {
        let directory = format!("/ls/dev/users/{user}");
        dev.run(&format!("rm {directory}")).await.refused("NotEmpty");
        for child in ["mail", "deep/down", "deep"] {
            dev.run(&format!("rm {directory}/{child}")).await.ok();
        }
        assert_eq!(dev.run(&format!("ls {directory}")).await.text(), "");
        dev.run(&format!("rm {directory}")).await.ok();
        for address in &dev.connect {
            dev.run(&format!("put --connect {address} {directory}/mail v")).await.refused("NotFound");
            dev.run(&format!("ls --connect {address} {directory}")).await.refused("NotFound");
        }
    }
    assert_eq!(dev.run("ls /ls/dev/users").await.text(), "");
    dev.run("rm /ls/dev/users").await.refused("NotEmpty");
}

async fn its_name_can_be_used_again(dev: &Dev) {
    for user in USERS {
        dev.run(&format!("mkdir /ls/dev/users/{user}")).await.ok();
        assert_eq!(dev.run(&format!("ls /ls/dev/users/{user}")).await.text(), "");
        dev.run(&format!("put /ls/dev/users/{user}/again {user}")).await.ok();
    }
}

async fn children_are_told_of(dev: &Dev) {
    let of_others = |user: &&str| *user != "alice";
    for user in USERS.into_iter().filter(of_others) {
        let directory = format!("/ls/dev/users/{user}");
        let says = format!("watching {directory}");
        let mut watch = dev.spawn_saying(&format!("watch {directory}"), &says).await;

        dev.run(&format!("put {directory}/new 1")).await.ok();
        dev.run(&format!("put {directory}/new 2")).await.ok();
        dev.run(&format!("rm {directory}/new")).await.ok();
        for expected in ["added", "modified", "removed"] {
            assert_eq!(watch.line().await, format!("child-{expected} {directory} child=new"));
        }
        watch.signal("INT");
        assert_eq!(watch.code().await, 0);
    }
}

/// The ACL files are cell a's.
async fn acls_reach_across(dev: &Dev) {
    let (one, other) = (&dev.connect[0], &dev.connect[1]);
    dev.run("put --principal admin /ls/dev/acl/staff alice").await.ok();
    for user in USERS {
        let directory = format!("/ls/dev/users/{user}");
        dev.run(&format!("acl --principal admin --set-write staff {directory}")).await.ok();
        let put = |who: &str, address: &str, file: &str| {
            format!("put --principal {who} --connect {address} {directory}/{file} v")
        };
        dev.run(&put("bob", one, "b")).await.refused("PermissionDenied");
        dev.run(&put("bob", other, "b")).await.refused("PermissionDenied");
        dev.run(&put("alice", one, "a")).await.ok();
        let names = dev.run(&format!("acl --json {directory}/a")).await.json()["acls"].clone();
        assert_eq!(names, json!({"read": "everyone", "write": "staff", "change": "admin"}), "inherited");

        dev.run("put --principal admin /ls/dev/acl/staff bob").await.ok();
        dev.run(&put("alice", one, "a")).await.refused("PermissionDenied");
        dev.run(&put("bob", other, "a")).await.ok();
        dev.run(&format!("lock --principal alice --try {directory}/a -- true"))
            .await
            .refused("PermissionDenied");
        dev.run(&format!("lock --principal bob --try {directory}/a -- true")).await.ok();
        dev.run("put --principal admin /ls/dev/acl/staff alice").await.ok();
    }
}

async fn a_cell_alone_says_what_it_takes(dev: &Dev) {
    let status = dev.run("status --json").await.json();
    let cells = status["cells"].as_array().unwrap();
    let masters: Vec<_> = cells.iter().map(|it| it["master"].as_str().unwrap()).collect();
    let masters = masters.join(",");
    let mut told = 0;
    for user in USERS {
        let put = format!("put --principal alice --connect {masters} /ls/dev/users/{user}/alone v");
        told += usize::from(dev.run(&put).await.stderr().contains("come through a proxy or a router"));
    }
    assert!(told > 0, "of directories whose children are in another cell than their ACLs");
}
