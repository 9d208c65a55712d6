//! A worker process: plays some of the clients, and tells who started it what happened.
//!
//! It speaks lines of JSON, see [`crate::job`]. It ends when its standard input does.

use std::convert::Infallible;
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hasp_rt::env::Env;
use hasp_rt::transport::TcpTransport;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::fleet::{Fleet, Tally};
use crate::interrupt::interrupted;
use crate::job::{Finished, Job, Order, Ramped, Said};
use crate::load;
use crate::procfs;
use crate::visits;

/// How often it says where it stands.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Orders waiting to be read; there are two.
const ORDERS: usize = 4;

/// Does one job, read from standard input, and says the result on standard output.
///
/// # Errors
/// The job makes no sense, the service is not found, or who started it is gone.
pub async fn worker(env: Env) -> anyhow::Result<()> {
    procfs::raise_open_files();
    let mut lines = lines_of_input()?;
    let job = lines.recv().await.context("read job: there is none")?;
    let job: Job = serde_json::from_str(&job).context("read job")?;
    ensure!(job.clients > 0, "read job: no clients");
    let env = match job.source() {
        Some(source) => Env { transport: Arc::new(TcpTransport::from_source(source)), ..env },
        None => env,
    };
    let tally = Arc::new(Tally::default());
    tokio::select! {
        biased;
        done = work(&env, job, &mut lines, tally.clone()) => done,
        error = tell_progress(&tally) => Err(error),
        signal = interrupted() => bail!("stopped by {signal}"),
    }
}

async fn work(
    env: &Env,
    job: Job,
    lines: &mut mpsc::Receiver<String>,
    tally: Arc<Tally>,
) -> anyhow::Result<()> {
    let (fleet, ramp) = tokio::select! {
        biased;
        ramped = Fleet::ramp(env, job, tally) => ramped?,
        order = next_order(lines) => bail!("told to {:?} before all clients were ready", order?),
    };
    ensure!(!fleet.clients().is_empty(), "no client got a session");
    let fleet = Arc::new(fleet);
    say(&Said::Progress(fleet.tally().progress()))?;
    say(&Said::Ramped(Ramped { seconds: ramp.took.as_secs_f64(), latencies: ramp.latencies.to_pairs() }))?;
    let order = next_order(lines).await?;
    ensure!(order == Order::Begin, "told to {order:?} before the beginning");
    let finished = measure(&fleet, lines).await?;
    say(&Said::Progress(fleet.tally().progress()))?;
    say(&Said::Finished(Box::new(finished)))?;
    fleet.close().await;
    Ok(())
}

/// Loads from now until told to end.
async fn measure(fleet: &Arc<Fleet>, lines: &mut mpsc::Receiver<String>) -> anyhow::Result<Finished> {
    let clock = &fleet.env().clock;
    let (mut running, mut visiting) = (JoinSet::new(), JoinSet::new());
    let churning = async {
        match fleet.job().churn {
            Some(churn) => visits::come_and_go(fleet, churn, &mut visiting).await,
            None => std::future::pending().await,
        }
    };
    let (began, sent_before) = (clock.now(), fleet.keep_alives_sent());
    let order = tokio::select! {
        biased;
        order = next_order(lines) => order?,
        never = load::dispatch(fleet, &mut running) => match never {},
        never = churning => match never {},
        never = count_connected(fleet) => match never {},
    };
    ensure!(order == Order::End, "told to {order:?} under load");
    let seconds = clock.now().saturating_since(began).as_secs_f64();
    let keep_alives_sent = fleet.keep_alives_sent().saturating_sub(sent_before);
    fleet.begin_end();
    tokio::join!(load::finish(fleet, &mut running), visits::finish(fleet, &mut visiting));
    let sessions = fleet.tally().sessions();
    let findings = fleet.tally().findings();
    Ok(Finished {
        sessions,
        seconds,
        keep_alives_sent,
        ops: findings.ops.to_record(),
        visits: fleet.tally().visits().to_record(),
        checks: findings.checks,
        violations: findings.violations.clone(),
        late_writes: findings.late_writes.clone(),
    })
}

/// Counts who speaks with a host, again and again.
async fn count_connected(fleet: &Fleet) -> Infallible {
    loop {
        fleet.count_connected();
        tokio::time::sleep(PROGRESS_EVERY).await;
    }
}

/// Says where it stands, again and again; gives why it can no longer.
async fn tell_progress(tally: &Tally) -> anyhow::Error {
    loop {
        tokio::time::sleep(PROGRESS_EVERY).await;
        let recent = tally.findings().ops.take_recent();
        let words = [
            (!recent.is_empty()).then(|| Said::Recent(recent.to_pairs())),
            Some(Said::Progress(tally.progress())),
        ];
        for word in words.iter().flatten() {
            if let Err(error) = say(word) {
                return error;
            }
        }
    }
}

fn say(said: &Said) -> anyhow::Result<()> {
    let line = serde_json::to_string(said).context("write a line")?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).context("say something")
}

async fn next_order(lines: &mut mpsc::Receiver<String>) -> anyhow::Result<Order> {
    let line = lines.recv().await.context("who started this worker is gone")?;
    serde_json::from_str(&line).with_context(|| format!("understand {line:?}"))
}

/// Lines of standard input, read by a thread that nobody waits for: a read cannot be cancelled, and
/// must not keep a worker that is done from ending.
fn lines_of_input() -> anyhow::Result<mpsc::Receiver<String>> {
    let (sender, lines) = mpsc::channel(ORDERS);
    let read = move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("orders".into()).spawn(read).context("start to listen")?;
    Ok(lines)
}
