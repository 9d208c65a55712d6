//! `hasp acl`, ACL names of what is created, and principals, against a small system.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "cli_dev/system.rs"]
mod system;

use serde_json::json;
use system::Dev;

#[tokio::test]
async fn acls_are_shown_changed_and_heeded() {
    let dev = Dev::start_small().await;

    names_are_shown(&dev).await;
    only_who_may_changes_names_and_one_name_leaves_the_others(&dev).await;
    a_change_is_made_only_in_the_generation_given(&dev).await;
    who_is_not_in_the_acl_is_refused_from_the_change_on(&dev).await;
    what_is_created_gets_the_names_given_and_inherits_the_others(&dev).await;
    a_node_that_exists_with_other_names_is_not_taken_for_guarded(&dev).await;
    listings_show_the_names(&dev).await;
    nobody_can_lock_everybody_out(&dev).await;

    dev.stop("TERM").await;
}

async fn names_are_shown(dev: &Dev) {
    let shown = dev.run("acl --json /ls/dev").await.json();

    assert_eq!(shown["name"], "/ls/dev");
    assert_eq!(shown["acls"], json!({"read": "everyone", "write": "everyone", "change": "admin"}));
    let generation = shown["acl_generation"].as_u64().unwrap();
    let lines = dev.run("acl /ls/dev").await.text();
    let expected =
        format!("read        everyone\nwrite       everyone\nchange      admin\ngeneration  {generation}\n");
    assert_eq!(lines, expected);
    dev.run("acl /ls/dev/missing").await.refused("NotFound");
}

async fn only_who_may_changes_names_and_one_name_leaves_the_others(dev: &Dev) {
    dev.run("put /ls/dev/f v").await.ok();

    dev.run("acl --set-read ops /ls/dev/f").await.refused("PermissionDenied");
    dev.run("acl --principal somebody --set-read ops /ls/dev/f").await.refused("PermissionDenied");
    let changed = dev.run("acl --principal admin --json --set-write ops /ls/dev/f").await.json();

    let names = json!({"read": "everyone", "write": "ops", "change": "admin"});
    assert_eq!(changed["acls"], names);
    let shown = dev.run("acl --json /ls/dev/f").await.json();
    assert_eq!(shown, changed);
    assert_eq!(dev.run("stat --json /ls/dev/f").await.json()["acls"], names);
}

async fn a_change_is_made_only_in_the_generation_given(dev: &Dev) {
    let before = dev.run("acl --json /ls/dev/f").await.json()["acl_generation"].as_u64().unwrap();
    let set = |generation: u64| {
        format!("acl --principal admin --json --set-write ops2 --if-generation {generation} /ls/dev/f")
    };

    dev.run(&set(before + 1)).await.refused("GenerationMismatch");
    let changed = dev.run(&set(before)).await.json();
    dev.run(&set(before)).await.refused("GenerationMismatch");

    assert!(changed["acl_generation"].as_u64().unwrap() > before);
    let without_a_change = dev.run("acl --if-generation 3 /ls/dev/f").await;
    assert_eq!(without_a_change.code, 2);
    dev.run("acl --principal admin --set-read no/name /ls/dev/f").await.refused("InvalidArgument");
}

async fn who_is_not_in_the_acl_is_refused_from_the_change_on(dev: &Dev) {
    dev.run("put /ls/dev/secret v").await.ok();
    dev.run("acl --principal admin --set-read readers --set-write writers /ls/dev/secret").await.ok();
    dev.run("cat --principal alice /ls/dev/secret").await.refused("PermissionDenied");

    dev.run("put /ls/dev/acl/readers alice").await.refused("PermissionDenied");
    dev.run_with("put --principal admin /ls/dev/acl/readers", b"# who reads\nalice\nbob\n").await.ok();
    dev.run("put --principal admin /ls/dev/acl/writers alice").await.ok();

    assert_eq!(dev.run("cat --principal alice /ls/dev/secret").await.ok(), b"v");
    dev.run("cat --principal carol /ls/dev/secret").await.refused("PermissionDenied");
    dev.run("cat /ls/dev/secret").await.refused("PermissionDenied");
    dev.run("put --principal bob /ls/dev/secret w").await.refused("PermissionDenied");
    dev.run("lock --principal bob /ls/dev/secret -- true").await.refused("PermissionDenied");
    dev.run("elect --principal bob --value b /ls/dev/secret").await.refused("PermissionDenied");
    dev.run("rm --principal bob /ls/dev/secret").await.refused("PermissionDenied");
    dev.run("put --principal alice /ls/dev/secret w").await.ok();
    let mut by_environment = dev.command("cat /ls/dev/secret");
    let output = by_environment.env("HASP_PRINCIPAL", "bob").output().await.unwrap();
    assert_eq!(output.stdout, b"w");

    dev.run_with("put --principal admin /ls/dev/acl/readers", b"bob\n").await.ok();
    dev.run("cat --principal alice /ls/dev/secret").await.refused("PermissionDenied");
}

async fn what_is_created_gets_the_names_given_and_inherits_the_others(dev: &Dev) {
    dev.run("mkdir --write-acl team /ls/dev/guarded").await.ok();
    dev.run("put --principal admin /ls/dev/acl/team alice").await.ok();
    dev.run("put /ls/dev/guarded/f v").await.refused("PermissionDenied");
    dev.run("put --principal alice /ls/dev/guarded/f v").await.ok();
    dev.run("put --principal alice --read-acl team --change-acl team /ls/dev/guarded/g v").await.ok();
    dev.run("mkdir -p --principal alice --read-acl team /ls/dev/guarded/d/e").await.ok();

    let names = async |name: &str| dev.run(&format!("acl --principal alice --json {name}")).await.json();
    let acls =
        |read: &str, write: &str, change: &str| json!({"read": read, "write": write, "change": change});
    assert_eq!(names("/ls/dev/guarded").await["acls"], acls("everyone", "team", "admin"));
    assert_eq!(names("/ls/dev/guarded/f").await["acls"], acls("everyone", "team", "admin"));
    assert_eq!(names("/ls/dev/guarded/g").await["acls"], acls("team", "team", "team"));
    assert_eq!(names("/ls/dev/guarded/d").await["acls"], acls("everyone", "team", "admin"));
    assert_eq!(names("/ls/dev/guarded/d/e").await["acls"], acls("team", "team", "admin"));
}

async fn a_node_that_exists_with_other_names_is_not_taken_for_guarded(dev: &Dev) {
    dev.run("put /ls/dev/open public").await.ok();
    dev.run("mkdir /ls/dev/opened").await.ok();

    dev.run("put --read-acl readers /ls/dev/open secret").await.refused("AlreadyExists");
    dev.run("mkdir -p --read-acl readers /ls/dev/opened").await.refused("AlreadyExists");

    assert_eq!(dev.run("cat /ls/dev/open").await.ok(), b"public");
    dev.run("put --read-acl everyone /ls/dev/open same").await.ok();
    dev.run("mkdir -p --read-acl everyone /ls/dev/opened").await.ok();
}

async fn listings_show_the_names(dev: &Dev) {
    let long = dev.run("ls -l --principal alice /ls/dev/guarded").await.text();

    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = long.lines().map(words).collect();
    assert_eq!(lines[0], ["KIND", "INSTANCE", "CONTENT", "ACL", "LENGTH", "READ", "WRITE", "CHANGE", "NAME"]);
    let g = lines.iter().find(|line| line.last().is_some_and(|name| name == "g")).unwrap();
    assert_eq!(g[5..], ["team", "team", "team", "g"]);
}

async fn nobody_can_lock_everybody_out(dev: &Dev) {
    for name in ["/ls/dev/acl/admin", "/ls/dev/acl/everyone"] {
        dev.run(&format!("rm --principal admin {name}")).await.refused("PermissionDenied");
    }
    let too_long = "x".repeat(300);
    dev.run(&format!("put --principal admin /ls/dev/acl/bad {too_long}")).await.refused("InvalidArgument");
}
