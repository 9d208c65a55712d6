//! `hasp elect`, `hasp sequencer`, and what `hasp lock` tells its command, against a small system.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "cli_dev/one_cell.rs"]
mod one_cell;
#[path = "cli_dev/system.rs"]
mod system;

use std::time::Duration;

use one_cell::OneCell;
use system::{Dev, Running};

#[tokio::test]
async fn leaders_follow_one_another_and_prove_what_they_are() {
    let dev = Dev::start_small().await;

    one_leads_at_a_time_and_the_file_says_who(&dev).await;
    who_gives_up_before_being_elected_never_leads(&dev).await;
    a_leader_that_loses_its_lock_says_so_and_ends(&dev).await;
    a_sequencer_is_valid_exactly_while_its_lock_is_held(&dev).await;
    what_is_no_sequencer_of_this_service_is_invalid(&dev).await;
    a_command_knows_the_sequencer_of_its_lock(&dev).await;
    a_command_is_stopped_when_its_lock_is_lost(&dev).await;

    dev.stop("TERM").await;
}

async fn elected(leader: &mut Running) -> u64 {
    let line = leader.line().await;
    let generation = line.strip_prefix("elected generation=");
    generation.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
}

async fn one_leads_at_a_time_and_the_file_says_who(dev: &Dev) {
    let mut one = dev.spawn("elect --value one /ls/dev/leader").await;
    let first = elected(&mut one).await;
    assert_eq!(dev.run("cat /ls/dev/leader").await.ok(), b"one");
    let mut two = dev.spawn("elect --value two /ls/dev/leader").await;
    assert!(!two.ends_within(Duration::from_millis(300)).await, "it waits");
    assert_eq!(dev.run("cat /ls/dev/leader").await.ok(), b"one");

    one.signal("TERM");
    assert_eq!(one.code().await, 0);

    let second = elected(&mut two).await;
    assert!(second > first, "{second} after {first}");
    assert_eq!(dev.run("cat /ls/dev/leader").await.ok(), b"two");
    two.signal("INT");
    assert_eq!(two.code().await, 0);
    dev.run("lock --try /ls/dev/leader -- true").await.ok();
}

async fn who_gives_up_before_being_elected_never_leads(dev: &Dev) {
    let mut leader = dev.spawn("elect --value leader /ls/dev/leader").await;
    elected(&mut leader).await;
    let mut waiter = dev.spawn("elect --value waiter /ls/dev/leader").await;
    assert!(!waiter.ends_within(Duration::from_millis(300)).await, "it waits");

    waiter.signal("INT");
    assert_eq!(waiter.code().await, 128 + 2);

    leader.signal("INT");
    assert_eq!(leader.code().await, 0);
    dev.run("lock --try /ls/dev/leader -- true").await.ok();
    assert_eq!(dev.run("cat /ls/dev/leader").await.ok(), b"leader");
}

async fn a_leader_that_loses_its_lock_says_so_and_ends(dev: &Dev) {
    let mut plain = dev.spawn("elect --value v /ls/dev/fallen").await;
    let generation = elected(&mut plain).await;
    dev.run("rm /ls/dev/fallen").await.ok();
    assert_eq!(plain.line().await, format!("lost generation={generation}"));
    assert_eq!(plain.code().await, 1);

    let mut json = dev.spawn("elect --json --value v /ls/dev/fallen").await;
    let told = json.object().await;
    assert_eq!((told["event"].as_str(), told["name"].as_str()), (Some("elected"), Some("/ls/dev/fallen")));
    assert!(told["lock_generation"].as_u64().unwrap() > generation, "also in a new node: {told}");
    dev.run("rm /ls/dev/fallen").await.ok();
    let lost = json.object().await;
    assert_eq!(lost["event"], "lost");
    assert!(lost["why"].as_str().unwrap().starts_with("StaleHandle: "), "{lost}");
    assert_eq!(json.code().await, 1);
    let check = format!("sequencer check {}", told["sequencer"].as_str().unwrap());
    dev.run(&check).await.refused("SequencerInvalid");
}

async fn a_sequencer_is_valid_exactly_while_its_lock_is_held(dev: &Dev) {
    let mut leader = dev.spawn("elect --json --value v /ls/dev/leader").await;
    let told = leader.object().await;
    let generation = told["lock_generation"].as_u64().unwrap();
    let check = format!("sequencer check {}", told["sequencer"].as_str().unwrap());

    let valid = dev.run(&check.replace("check", "check --json")).await.json();
    assert_eq!((valid["name"].as_str(), valid["mode"].as_str()), (Some("/ls/dev/leader"), Some("exclusive")));
    assert_eq!((valid["cell"].as_str(), valid["lock_generation"].as_u64()), (Some("a"), Some(generation)));
    let line = dev.run(&check).await.text();
    assert_eq!(line, format!("valid /ls/dev/leader exclusive generation={generation}\n"));

    leader.signal("TERM");
    assert_eq!(leader.code().await, 0);
    dev.run(&check).await.refused("SequencerInvalid");
    dev.run("lock /ls/dev/leader -- true").await.ok();
    dev.run(&check).await.refused("SequencerInvalid");
}

async fn what_is_no_sequencer_of_this_service_is_invalid(dev: &Dev) {
    let mut leader = dev.spawn("elect --json --value v /ls/dev/leader").await;
    let sequencer = leader.object().await["sequencer"].as_str().unwrap().to_owned();
    let (rest, last) = sequencer.split_at(sequencer.len() - 1);
    let forged = format!("{rest}{}", if last == "0" { "1" } else { "0" });

    for text in ["sesame", "hasp1.", "hasp1.00", rest, &forged] {
        dev.run(&format!("sequencer check {text}")).await.refused("SequencerInvalid");
    }
    dev.run(&format!("sequencer check {sequencer}")).await.ok();
    leader.signal("TERM");
    assert_eq!(leader.code().await, 0);
}

async fn a_command_knows_the_sequencer_of_its_lock(dev: &Dev) {
    let line = "lock --shared /ls/dev/lock -- sh -c echo${IFS}$HASP_SEQUENCER;read${IFS}line";
    let mut holder = dev.spawn(line).await;
    let sequencer = holder.line().await;
    let check = format!("sequencer check --json {sequencer}");

    assert_eq!(dev.run(&check).await.json()["mode"], "shared");

    holder.write(b"go\n").await;
    assert_eq!(holder.code().await, 0);
    dev.run(&check).await.refused("SequencerInvalid");
}

async fn a_command_is_stopped_when_its_lock_is_lost(dev: &Dev) {
    let script = "trap${IFS}'echo${IFS}stopped;exit${IFS}3'${IFS}TERM;echo${IFS}held;read${IFS}line";
    let mut holder = dev.spawn(&format!("lock /ls/dev/lost -- sh -c {script}")).await;
    assert_eq!(holder.line().await, "held");

    dev.run("rm /ls/dev/lost").await.ok();

    assert_eq!(holder.line().await, "stopped");
    assert_eq!(holder.code().await, 1, "refused, whatever the command says");
}

#[tokio::test]
async fn a_leader_leads_on_through_a_fail_over_and_learns_what_it_missed() {
    let mut cell = OneCell::start().await;
    let mut leader = cell.spawn("elect --json --value v /ls/dev/leader");
    let check = format!("sequencer check {}", leader.object().await["sequencer"].as_str().unwrap());

    cell.fail_over().await;

    cell.run(&check).await;
    assert!(!leader.ends_within(Duration::from_millis(300)).await, "it leads on");
    cell.run("rm /ls/dev/leader").await;
    assert_eq!(leader.object().await["event"], "lost");
    assert_eq!(leader.code().await, 1);
}
