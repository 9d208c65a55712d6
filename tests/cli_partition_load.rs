//! What is asked of directories is shown by rule, and a plan spreads it over the cells.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "cli_dev/system.rs"]
mod system;

use serde_json::{Value, json};
use system::Dev;

/// Of which most is asked.
const HOT: &str = "/ls/dev/jobs/mail";
/// Of which half as much is asked.
const WARM: &str = "/ls/dev/jobs/print";
/// How often something is looked at again that is about to be seen; each look takes a while.
const LOOKS_MAX: usize = 50;

#[tokio::test]
async fn a_hot_directory_is_shown_and_goes_to_the_other_cell() {
    let dev = Dev::start(&["--cells", "2", "--replicas", "1", "--proxies", "1"]).await;
    dev.run(&format!("mkdir -p {HOT}")).await.ok();
    dev.run(&format!("mkdir -p {WARM}/more/deep")).await.ok();
    let idle = dev.run("partition rebalance --measure 0 --min-load 1000000 --principal admin").await.text();
    assert!(idle.starts_with("nothing worth moving: the most loaded cell is a with "), "{idle}");
    assert!(idle.lines().next().unwrap().ends_with(", less than 1000000"), "{idle}");

    it_is_shown(&dev).await;
    let proposal = it_is_proposed(&dev).await;
    assert_eq!((&proposal["from"], &proposal["to"]), (&json!("a"), &json!("b")), "{proposal}");
    assert!(proposal["nodes"] == 3 && proposal["bytes"] == 3, "{proposal}");
    assert_eq!(dev.run("partition show --json").await.json()["version"], 1, "nobody has said so");

    not_everybody_may(&dev).await;
    it_is_done(&dev).await;

    let shown = dev.run("partition show --json").await.json();
    assert_eq!(shown["version"], 3);
    let rule = rule_of(&shown, HOT);
    assert_eq!(
        (&rule["cell"], &rule["nodes"], &rule["bytes"]),
        (&json!("b"), &json!(3), &json!(3)),
        "{shown}"
    );
    assert_eq!(dev.run(&format!("ls {HOT}")).await.text(), "0\n1\n2\n");
    put_some(&dev).await;
    let shown = dev.run("partition show --json").await.json();
    assert!(rule_of(&shown, HOT)["writes_per_s"].as_f64().unwrap() > 0.0, "{shown}");
    dev.stop("TERM").await;
}

/// Three nodes in the one directory, four in and below the other; two requests here for each one there.
async fn put_some(dev: &Dev) {
    for job in 0..3 {
        for _ in 0..2 {
            dev.run(&format!("put {HOT}/{job} v")).await.ok();
        }
        dev.run(&format!("put {WARM}/{job} v")).await.ok();
    }
}

fn rule_of<'a>(shown: &'a Value, prefix: &str) -> &'a Value {
    let rules = shown["load"].as_array().unwrap();
    rules.iter().find(|rule| rule["prefix"] == prefix).unwrap_or_else(|| panic!("{prefix}: {shown}"))
}

async fn it_is_shown(dev: &Dev) {
    put_some(dev).await;
    let shown = dev.run("partition show --json").await.json();
    let rule = rule_of(&shown, "/ls/dev");
    assert_eq!((&rule["cell"], &rule["bytes"].is_u64()), (&json!("a"), &true), "{shown}");
    assert_eq!(rule["nodes"], shown["cells"][0]["nodes"], "all of the cell's nodes: {shown}");
    let hottest = shown["hottest"].as_array().unwrap();
    let hot = hottest.iter().find(|it| it["directory"] == HOT).unwrap();
    assert_eq!((&hot["cell"], &hot["nodes"], &hot["bytes"]), (&json!("a"), &json!(3), &json!(3)), "{shown}");
    assert!(hot["writes_per_s"].as_f64().unwrap() > 0.0, "{shown}");
    let text = dev.run("partition show").await.text();
    assert!(text.contains("READS/S  WRITES/S\n/ls/dev  a ") && text.contains(&format!("\n{HOT} ")), "{text}");
    println!("{text}");
}

/// Each time after some load, for what is measured is forgotten if a machine is slow.
async fn it_is_proposed(dev: &Dev) -> Value {
    for _ in 0..LOOKS_MAX {
        put_some(dev).await;
        let plan = dev.run("partition rebalance --measure 0 --min-load 0 --json").await.json();
        let command = format!("hasp partition split {HOT} --to b");
        if plan["state"] == "proposed" && plan["proposals"][0]["command"] == command {
            println!("{}", dev.run("partition rebalance --measure 0 --min-load 0").await.text());
            assert!(plan["cells"][0]["load"].as_f64() > plan["cells"][0]["expected"].as_f64(), "{plan}");
            return plan["proposals"][0].clone();
        }
    }
    panic!("it is never proposed: {}", dev.run("partition rebalance --measure 0 --min-load 0").await.text());
}

async fn not_everybody_may(dev: &Dev) {
    for _ in 0..LOOKS_MAX {
        put_some(dev).await;
        let ran = dev.run("partition rebalance --measure 0 --apply --min-load 0 --json").await;
        if ran.code != 0 {
            assert!(ran.stderr().contains("change 1 of "), "{ran:?}");
            return ran.refused("PermissionDenied");
        }
    }
    panic!("there was never anything to do");
}

async fn it_is_done(dev: &Dev) {
    for _ in 0..LOOKS_MAX {
        put_some(dev).await;
        let done = dev
            .run("partition rebalance --measure 0 --min-load 0 --apply --json --principal admin")
            .await
            .json();
        if done["state"] == "done" {
            assert_eq!(done["proposals"][0]["version"], 3, "{done}");
            return;
        }
    }
    panic!("there was never anything to do");
}
