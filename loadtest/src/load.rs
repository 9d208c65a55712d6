//! The open loop: operations begin when they should, however those before them fare.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hasp_proto::time::Time;
use hasp_rt::rng::Seeds;
use tokio::task::{JoinError, JoinSet};

use crate::audit;
use crate::fleet::Fleet;
use crate::ops::perform;
use crate::workload::{Arrival, Arrivals};

/// How long an operation may take: a fail-over and a lock-delay fit in.
const OP_DEADLINE: Duration = Duration::from_secs(60);
/// Operations under way at a time, at most. Beyond it they wait, and their waiting is measured.
const UNDER_WAY: usize = 8_192;

/// Begins operations as they arrive, and checks beside them; ends only by being dropped.
///
/// What has begun goes on in `running`. If no operations are wanted at all there are only
/// KeepAlives, and no checks.
pub async fn dispatch(fleet: &Arc<Fleet>, running: &mut JoinSet<()>) -> Infallible {
    let clock = fleet.env().clock.clone();
    let job = fleet.job();
    if job.rates.total() > 0.0 {
        let checking = fleet.clone();
        running.spawn(async move { audit::rounds(&checking).await });
    }
    let rng = Seeds::from_seed(job.seed).child(&job.worker.to_string()).stream("arrivals");
    let began = clock.now();
    for arrival in Arrivals::new(rng, job.rates, job.clients) {
        let intended = began + arrival.at;
        clock.sleep_until(intended).await;
        while let Some(ended) = running.try_join_next() {
            note_panic(fleet, ended);
        }
        if running.len() >= UNDER_WAY
            && let Some(ended) = running.join_next().await
        {
            note_panic(fleet, ended);
        }
        running.spawn(operate(fleet.clone(), arrival, intended));
    }
    std::future::pending().await
}

/// Waits for what is under way, once no new operations begin. What does not end in time counts as failed.
pub async fn finish(fleet: &Fleet, running: &mut JoinSet<()>) {
    let all = async {
        while let Some(ended) = running.join_next().await {
            note_panic(fleet, ended);
        }
    };
    if tokio::time::timeout(OP_DEADLINE + Duration::from_secs(5), all).await.is_err() {
        let mut findings = fleet.tally().findings();
        findings.checks.errors += running.len() as u64;
        findings.ops.note_failure(format!("{} operations did not end", running.len()));
        drop(findings);
        running.abort_all();
    }
}

/// An operation that panicked must not pass for one that never was.
fn note_panic(fleet: &Fleet, ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        let mut findings = fleet.tally().findings();
        findings.checks.errors += 1;
        findings.ops.note_failure(format!("an operation of the load test itself failed: {error}"));
    }
}

async fn operate(fleet: Arc<Fleet>, arrival: Arrival, intended: Time) {
    let result = tokio::time::timeout(OP_DEADLINE, perform(&fleet, &arrival, intended)).await;
    let mut findings = fleet.tally().findings();
    match result {
        Ok(Ok(latency)) => findings.ops.succeeded(arrival.kind, latency),
        Ok(Err(why)) => findings.ops.failed(arrival.kind, &why),
        Err(_) => {
            // Whether a write took effect is not known then, either.
            findings.checks.unknown_writes += 1;
            findings.ops.failed(arrival.kind, "no answer in time");
        }
    }
}
