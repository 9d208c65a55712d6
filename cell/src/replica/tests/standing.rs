//! What operators are told, on real threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::world::World;

/// As often somebody looks. What was wrong once stood still after some thousand times.
const LOOKS: usize = 200_000;

/// What the looks may take together; they take less than a second.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn looking_at_a_replica_never_stops_it() {
    let (begun, is_begun) = mpsc::channel();
    let done = Arc::new(AtomicBool::new(false));
    let stop = done.clone();
    // Not joined if the test fails: they would wait for one another.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = Arc::new(World::founded(1).await);
            begun.send(world.clone()).unwrap();
            while !stop.load(Ordering::Relaxed) {
                world.put("again").await;
            }
        });
    });
    let world = is_begun.recv_timeout(PATIENCE).expect("a cell in time");
    let (looked, has_looked) = mpsc::channel();
    std::thread::spawn(move || {
        let mut last = 0;
        for _ in 0..LOOKS {
            last = world.replica(1).status().applied.map_or(0, |applied| applied.index);
        }
        looked.send(last).unwrap();
    });

    let applied = has_looked.recv_timeout(PATIENCE).expect("nobody waits for ever");

    done.store(true, Ordering::Relaxed);
    assert!(applied > 0, "there was something to see");
}
