//! Operators look at a system while it is in use, many at a time: nothing may ever stand still for that.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "cli_dev/system.rs"]
mod system;

use futures_util::future::join_all;
use system::Dev;

/// Commands of each kind, one after another.
const ROUNDS: usize = 25;
/// Of each kind at once.
const AT_ONCE: usize = 3;

#[tokio::test]
async fn who_looks_on_while_others_write_stops_nobody() {
    let dev = Dev::start(&["--cells", "2", "--replicas", "3", "--proxies", "1"]).await;
    dev.run("put /ls/dev/f here").await.ok();
    let looks = ["status --json", "partition show --json", "cat /ls/dev/f"];
    let looking = looks.iter().flat_map(|line| (0..AT_ONCE).map(|_| again_and_again(&dev, line)));
    let writing = (0..AT_ONCE).map(|number| write(&dev, number));
    tokio::join!(join_all(looking), join_all(writing));

    // Nobody is left behind, in either cell.
    let status = dev.run("status --json").await.json();
    let replicas: Vec<_> = status["cells"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|cell| cell["replicas"].as_array().unwrap().iter())
        .collect();
    assert_eq!(replicas.len(), 6, "{status}");
    dev.stop("TERM").await;
}

/// Each within the deadline of a command.
async fn again_and_again(dev: &Dev, line: &str) {
    for _ in 0..ROUNDS {
        dev.run(line).await.ok();
    }
}

async fn write(dev: &Dev, number: usize) {
    for round in 0..ROUNDS {
        dev.run(&format!("put /ls/dev/f{number} {round}")).await.ok();
        assert_eq!(dev.run(&format!("cat /ls/dev/f{number}")).await.text(), round.to_string());
    }
}
