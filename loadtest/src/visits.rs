//! Clients that come, stay for a while and go, beside those that stay.
//!
//! A visitor opens a session and creates an ephemeral file with it; when it goes it ends the session, and the file
//! must go too.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hasp_client::{Client, ConnectOptions, Handle, OpenOptions};
use hasp_proto::time::Time;
use hasp_rt::env::Env;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::churn::Churn;
use crate::fleet::Fleet;
use crate::tree::TreeSpec;

/// Sessions being opened at a time, at most. Beyond it visitors wait, and their waiting is measured.
const OPENING: usize = 1_024;
/// How long a visitor may take to have its session and file, and to go.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long the last files may take to go: a proxy tells the cells of sessions that have ended when it gets to it. Less
/// than a lease: what goes later goes because that has ended, and not because the session has.
const GONE_DEADLINE: Duration = Duration::from_secs(8);
/// Between two looks for files left behind.
const GONE_PAUSE: Duration = Duration::from_millis(200);

/// Lets visitors come and go; ends only by being dropped. Those that are there stay in `running`.
pub async fn come_and_go(fleet: &Arc<Fleet>, churn: Churn, running: &mut JoinSet<()>) -> Infallible {
    let clock = fleet.env().clock.clone();
    let seats = Arc::new(Semaphore::new(OPENING));
    let began = clock.now();
    for (number, at) in churn.arrivals().enumerate() {
        let intended = began + at;
        clock.sleep_until(intended).await;
        while let Some(ended) = running.try_join_next() {
            note(fleet, ended.context("visit").map_err(|error| format!("{error:#}")));
        }
        let Ok(seat) = seats.clone().acquire_owned().await else { break };
        let fleet = fleet.clone();
        running.spawn(async move {
            let opened = arrive(&fleet, number, intended).await;
            drop(seat);
            let result = match opened {
                Ok(visitor) => stay_and_leave(&fleet, &visitor.client, churn.stay).await,
                Err(error) => Err(error),
            };
            note(&fleet, result.map_err(|error| format!("visitor {number}: {error:#}")));
        });
    }
    std::future::pending().await
}

/// Waits until all visitors have gone, which they do at once when the load ends.
pub async fn finish(fleet: &Fleet, running: &mut JoinSet<()>) {
    while let Some(ended) = running.join_next().await {
        note(fleet, ended.context("visit").map_err(|error| format!("{error:#}")));
    }
}

fn note(fleet: &Fleet, result: Result<(), String>) {
    if let Err(why) = result {
        fleet.tally().visits().failed(why);
    }
}

/// One that is there.
struct Visitor {
    client: Client,
    /// Kept: the file is there as long as this is.
    _file: Handle,
}

async fn arrive(fleet: &Fleet, number: usize, intended: Time) -> anyhow::Result<Visitor> {
    let tree = &fleet.job().tree;
    let name = format!("{}/w{}-{number}", tree.visitors(number % tree.cells()), fleet.job().worker);
    let arriving = async {
        let client = fleet.connect().await.context("open a session")?;
        let create = OpenOptions::create_file("").ephemeral().must_create();
        let opened = client.open(&name, create).await.context("create an ephemeral file")?;
        anyhow::Ok(Visitor { client, _file: opened.handle })
    };
    let visitor = tokio::time::timeout(DEADLINE, arriving).await.context("arrive: no answer in time")??;
    if !fleet.is_ending() {
        let latency = fleet.env().clock.now().saturating_since(intended);
        fleet.tally().visits().opened.record(latency);
    }
    Ok(visitor)
}

async fn stay_and_leave(fleet: &Fleet, client: &Client, stay: Duration) -> anyhow::Result<()> {
    tokio::select! {
        () = fleet.env().clock.sleep(stay) => {}
        () = fleet.ended() => {}
    }
    ensure!(!client.is_over(), "its session was lost");
    let began = fleet.env().clock.now();
    fleet.disconnected(client);
    tokio::time::timeout(DEADLINE, client.close()).await.context("end the session: no answer in time")?;
    if !fleet.is_ending() {
        fleet.tally().visits().closed.record(fleet.env().clock.now().saturating_since(began));
    }
    Ok(())
}

/// Files of visitors that are still there although all sessions have ended; waits for the last to go.
///
/// # Errors
/// The service is not reached, or does not answer.
pub async fn left_behind(env: &Env, targets: &[String], tree: &TreeSpec) -> anyhow::Result<u64> {
    let options = ConnectOptions {
        principal: "loadtest".into(),
        cache: false,
        ..ConnectOptions::new(targets.to_vec())
    };
    let client = Client::connect(options, env).await.context("connect to look for files left behind")?;
    let mut directories = Vec::new();
    for cell in 0..tree.cells() {
        let opened = client.open(tree.visitors(cell), OpenOptions::read()).await;
        directories.push(opened.context("open the visitors' directory")?.handle);
    }
    let until = env.clock.now() + GONE_DEADLINE;
    loop {
        let mut left = 0;
        for directory in &directories {
            left += directory.read_dir().await.context("look for files left behind")?.children.len() as u64;
        }
        if left == 0 || env.clock.now() >= until {
            client.close().await;
            return Ok(left);
        }
        env.clock.sleep(GONE_PAUSE).await;
    }
}
