//! What is below a prefix moves from cell to cell, and nobody who uses it notices more than a pause.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "cli_dev/system.rs"]
mod system;

use serde_json::{Value, json};
use system::{Dev, Running};

/// Where things move.
const JOBS: &str = "/ls/dev/jobs";
/// Directories below it, each with files.
const QUEUES: [&str; 3] = ["mail", "print", "scan"];

#[tokio::test]
async fn what_is_below_a_prefix_moves_and_is_used_all_the_while() {
    let dev = Dev::start(&["--cells", "2", "--replicas", "1", "--proxies", "2"]).await;
    fill(&dev).await;
    let mut holder = Holder::start(&dev).await;
    let mut watch = dev.spawn_saying(&format!("watch {JOBS}/mail"), &format!("watching {JOBS}/mail")).await;

    what_makes_no_sense_is_refused(&dev).await;
    a_dry_run_only_shows(&dev).await;
    let split = format!("partition split {JOBS} --to b --principal admin");
    it_moves(&dev, &split, 2, ["a", "b"]).await;
    all_is_there(&dev, "b").await;
    holder.holds_on(&dev).await;
    it_is_written(&dev, &mut watch).await;
    it_moves(&dev, &format!("partition move {JOBS} --to a --principal admin"), 4, ["b", "a"]).await;
    all_is_there(&dev, "a").await;
    holder.holds_on(&dev).await;
    it_is_written(&dev, &mut watch).await;
    it_moves_for_programs(&dev).await;
    all_is_there(&dev, "b").await;
    it_moves(&dev, &format!("partition merge {JOBS} --principal admin"), 8, ["b", "a"]).await;
    all_is_there(&dev, "a").await;
    holder.leaves(&dev).await;

    what_is_under_way_is_shown_or_over(&dev).await;
    watch.signal("INT");
    assert_eq!(watch.code().await, 0);
    dev.stop("TERM").await;
}

#[tokio::test]
async fn directories_are_spread_over_cells_and_gathered_again() {
    let dev = Dev::start(&["--cells", "2", "--replicas", "1", "--proxies", "2"]).await;
    fill(&dev).await;

    dev.run(&format!("partition split {JOBS}/* --to a,b --principal admin")).await.ok();
    let mut cells = Vec::new();
    for queue in QUEUES.iter().chain(&["u0", "u1", "u2", "u3", "u4", "u5"]) {
        dev.run(&format!("mkdir -p {JOBS}/{queue}")).await.ok();
        dev.run(&format!("put {JOBS}/{queue}/new {queue}")).await.ok();
        cells.push(cell_of(&dev, &format!("{JOBS}/{queue}/new")).await);
    }
    assert!(cells.contains(&"a".to_owned()) && cells.contains(&"b".to_owned()), "{cells:?}");
    dev.run(&format!("partition move {JOBS}/* --to b --principal admin")).await.ok();
    assert_eq!(cell_of(&dev, &format!("{JOBS}/mail/new")).await, "b");
    dev.run(&format!("partition merge {JOBS}/* --principal admin")).await.ok();

    for queue in QUEUES {
        assert_eq!(cell_of(&dev, &format!("{JOBS}/{queue}/new")).await, "a");
        for address in &dev.connect {
            let read = dev.run(&format!("cat --connect {address} {JOBS}/{queue}/new")).await.text();
            assert_eq!(read, queue);
        }
    }
    dev.stop("TERM").await;
}

async fn fill(dev: &Dev) {
    dev.run(&format!("mkdir -p {JOBS}/empty/deep")).await.ok();
    for queue in QUEUES {
        dev.run(&format!("mkdir {JOBS}/{queue}")).await.ok();
        for job in 0..3 {
            dev.run(&format!("put {JOBS}/{queue}/{job} {queue}-{job}")).await.ok();
        }
    }
    dev.run(&format!("put {JOBS}/count 0")).await.ok();
}

/// Holds a lock below the prefix, with a sequencer from before anything moved.
struct Holder {
    running: Running,
    sequencer: String,
    generation: Value,
}

impl Holder {
    async fn start(dev: &Dev) -> Self {
        let script = "sh -c printenv${IFS}HASP_SEQUENCER;read${IFS}line";
        let mut running = dev.spawn(&format!("lock {JOBS}/leader -- {script}")).await;
        let sequencer = running.line().await;
        let generation = generation_of(dev).await;
        Self { running, sequencer, generation }
    }

    /// Nobody else gets the lock, and its acquisition is the one from before.
    async fn holds_on(&mut self, dev: &Dev) {
        for address in &dev.connect {
            dev.run(&format!("sequencer check --connect {address} {}", self.sequencer)).await.ok();
            let other = format!("lock --connect {address} --try {JOBS}/leader -- true");
            dev.run(&other).await.refused("LockHeld");
        }
        assert_eq!(generation_of(dev).await, self.generation);
    }

    /// The next one gets it at once, and a greater generation.
    async fn leaves(mut self, dev: &Dev) {
        self.running.write(b"go\n").await;
        assert_eq!(self.running.code().await, 0, "it was never lost");
        dev.run(&format!("lock --try {JOBS}/leader -- true")).await.ok();
        dev.run(&format!("sequencer check {}", self.sequencer)).await.refused("SequencerInvalid");
        assert!(generation_of(dev).await.as_u64() > self.generation.as_u64());
    }
}

async fn generation_of(dev: &Dev) -> Value {
    dev.run(&format!("stat --json {JOBS}/leader")).await.json()["lock_generation"].clone()
}

/// The cell that tells of a node.
async fn cell_of(dev: &Dev, name: &str) -> String {
    let mut watch = dev.spawn(&format!("watch --json {name}")).await;
    let cell = watch.object().await["position"]["cell"].as_str().unwrap().to_owned();
    watch.signal("INT");
    assert_eq!(watch.code().await, 0);
    cell
}

async fn what_makes_no_sense_is_refused(dev: &Dev) {
    let admin = "--principal admin";
    dev.run(&format!("partition undo {admin}")).await.refused("NotFound");
    dev.run(&format!("partition merge {JOBS} {admin}")).await.refused("NotFound");
    dev.run(&format!("partition move {JOBS} --to b {admin}")).await.refused("NotFound");
    dev.run(&format!("partition split /ls/dev --to b {admin}")).await.refused("AlreadyExists");
    dev.run(&format!("partition move /ls/dev --to b {admin}")).await.refused("InvalidArgument");
    dev.run(&format!("partition split /ls/dev/acl --to b {admin}")).await.refused("InvalidArgument");
    dev.run(&format!("partition split {JOBS} --to c {admin}")).await.refused("InvalidArgument");
    dev.run(&format!("partition split {JOBS} --to a,b {admin}")).await.refused("InvalidArgument");
    dev.run(&format!("partition split {JOBS}/none --to b {admin}")).await.refused("NotFound");
    dev.run(&format!("partition split {JOBS}/count --to b {admin}")).await.refused("NotADirectory");
    let anybody = dev.run(&format!("partition split {JOBS} --to b")).await;
    assert!(anybody.stderr().contains("--principal admin"), "{anybody:?}");
    anybody.refused("PermissionDenied");
    dev.run("partition undo").await.refused("PermissionDenied");
    assert_eq!(dev.run("partition show --json").await.json()["version"], 1);
}

async fn a_dry_run_only_shows(dev: &Dev) {
    let plan = dev.run(&format!("partition split {JOBS} --to b --dry-run --json")).await.json();
    assert_eq!((&plan["state"], &plan["version"]), (&json!("dry-run"), &json!(2)));
    assert_eq!(plan["journeys"], json!([{"from": "a", "to": "b"}]));
    // Three queues with three files each; empty, deep, count and leader.
    assert_eq!(plan["nodes"], json!({"count": 16, "is_complete": true}));
    let text = dev.run(&format!("partition split {JOBS} --to b --dry-run")).await.text();
    assert!(text.starts_with("/ls/dev/jobs would move from a to b: 16 nodes\n\nversion 2\n"), "{text}");
    assert!(text.contains("\nnext /ls/dev/jobs  b\n"), "{text}");
    assert_eq!(dev.run("partition show --json").await.json()["version"], 1);
}

/// Runs a command that begins the change of that version, and waits for its end.
async fn it_moves(dev: &Dev, command: &str, version: u64, [from, to]: [&str; 2]) {
    let told = dev.run(command).await.text();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[0], format!("version {version}: {JOBS} moves from {from} to {to}"));
    let done = format!("version {}: done after ", version + 1);
    assert!(lines[1].starts_with(&done) && lines.len() == 2, "{told}");
    let shown = dev.run("partition show --json").await.json();
    assert_eq!((&shown["version"], &shown["next"]), (&json!(version + 1), &Value::Null));
}

async fn it_moves_for_programs(dev: &Dev) {
    let told = dev.run(&format!("partition move {JOBS} --to b --principal admin --json")).await.json();
    assert_eq!((&told["state"], &told["version"]), (&json!("done"), &json!(7)));
    assert!(told["seconds"].is_number(), "{told}");
}

/// Through each proxy, and from the cell that is to have it.
async fn all_is_there(dev: &Dev, cell: &str) {
    assert_eq!(cell_of(dev, &format!("{JOBS}/mail/0")).await, cell);
    assert_eq!(cell_of(dev, &format!("{JOBS}/empty/deep")).await, cell);
    for address in &dev.connect {
        let listed = dev.run(&format!("ls --connect {address} {JOBS}")).await.text();
        assert_eq!(listed, "count\nempty/\nleader\nmail/\nprint/\nscan/\n");
        for queue in QUEUES {
            let listed = dev.run(&format!("ls --connect {address} {JOBS}/{queue}")).await.text();
            assert!(listed.starts_with("0\n1\n2\n"), "{listed}");
            for job in 0..3 {
                let read = dev.run(&format!("cat --connect {address} {JOBS}/{queue}/{job}")).await.text();
                assert_eq!(read, format!("{queue}-{job}"));
            }
        }
        let listed = dev.run(&format!("ls --connect {address} {JOBS}/empty")).await.text();
        assert_eq!(listed, "deep/\n");
    }
}

/// Generations go on from where they were, and whoever has watched since before is told.
async fn it_is_written(dev: &Dev, watch: &mut Running) {
    for address in &dev.connect {
        let put = dev.run(&format!("put --connect {address} --json {JOBS}/count v")).await.json();
        assert!(put["content_generation"].as_u64() > put["previous_generation"].as_u64(), "{put}");
        dev.run(&format!("put --connect {address} {JOBS}/mail/new v")).await.ok();
        dev.run(&format!("rm --connect {address} {JOBS}/mail/new")).await.ok();
        for expected in ["added", "removed"] {
            let wanted = format!("child-{expected} {JOBS}/mail child=new");
            // It may be told to look again, and that is all.
            while {
                let line = watch.line().await;
                assert!(line == wanted || line.starts_with("events-lost ") || line.starts_with("fail-over "));
                line != wanted
            } {}
        }
    }
}

/// Without waiting: what is seen then is either still to come or done, and undo fits either.
async fn what_is_under_way_is_shown_or_over(dev: &Dev) {
    let split = format!("partition split {JOBS} --to b --principal admin --no-wait");
    let told = dev.run(&split).await.text();
    assert_eq!(told, format!("version 10: {JOBS} moves from a to b\n"));

    let undone = dev.run("partition undo --principal admin").await;
    if undone.code == 0 {
        assert_eq!(undone.text(), format!("version 11: the change of {JOBS} is given up\n"));
        all_is_there(dev, "a").await;
    } else {
        let stderr = undone.stderr().to_owned();
        let is_over = ["NotFound", "GenerationMismatch", "InvalidArgument"];
        assert!(is_over.iter().any(|name| stderr.starts_with(name)), "{stderr}");
    }
    // Each look takes a while; a move of so little, whichever way, does not take longer than all of them.
    for _ in 0..100 {
        if dev.run("partition show --json").await.json()["next"].is_null() {
            break;
        }
    }
    dev.run("partition undo --principal admin").await.refused("NotFound");
}
