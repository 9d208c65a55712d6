//! Puts the tree in place before any load, and takes it away where it was only a guest.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hasp_client::{Client, ConnectOptions, OpenOptions};
use hasp_rt::env::Env;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::tree::{TreeSpec, contents};
use crate::workload::file_bytes;

/// Files written at a time.
const WRITING: usize = 128;
/// How long one file may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Creates every directory, file and lock that is missing; `show` is called with the files done.
///
/// # Errors
/// The service cannot be reached, or refuses a name.
pub async fn plant(
    env: &Env,
    targets: &[String],
    tree: &TreeSpec,
    seed: u64,
    show: impl Fn(u64),
) -> anyhow::Result<()> {
    let options = ConnectOptions { principal: "loadtest".into(), ..ConnectOptions::new(targets.to_vec()) };
    let client = Client::connect(options, env).await.context("connect to write the files")?;
    for directory in tree.directories() {
        create(&client, directory, OpenOptions::create_directory()).await?;
    }
    for (cell, lock) in tree.lock_places() {
        create(&client, tree.lock_name(cell, lock), OpenOptions::create_file("")).await?;
    }
    let seats = Arc::new(Semaphore::new(WRITING));
    let mut writing = JoinSet::new();
    for (number, place) in tree.places().enumerate() {
        let seat = seats.clone().acquire_owned().await.context("wait to write a file")?;
        let bytes = file_bytes((number as u64).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let options = OpenOptions::create_file(contents("seed", number as u64, bytes));
        let (client, name) = (client.clone(), tree.file_name(place));
        writing.spawn(async move {
            let created = create(&client, name, options).await;
            drop(seat);
            created
        });
        while let Some(written) = writing.try_join_next() {
            written.context("write a file")??;
        }
        show(number as u64 + 1);
    }
    while let Some(written) = writing.join_next().await {
        written.context("write a file")??;
    }
    client.close().await;
    Ok(())
}

/// Deletes what [`plant`] created, below directories that were there before.
///
/// # Errors
/// The service cannot be reached, or a node is kept by others.
pub async fn uproot(env: &Env, targets: &[String], tree: &TreeSpec) -> anyhow::Result<()> {
    let options = ConnectOptions { principal: "loadtest".into(), ..ConnectOptions::new(targets.to_vec()) };
    let client = Client::connect(options, env).await.context("connect to delete the files")?;
    let files = tree.places().map(|place| tree.file_name(place));
    let locks = tree.lock_places().map(|(cell, lock)| tree.lock_name(cell, lock));
    let seats = Arc::new(Semaphore::new(WRITING));
    let mut deleting = JoinSet::new();
    for name in files.chain(locks) {
        let seat = seats.clone().acquire_owned().await.context("wait to delete a file")?;
        let client = client.clone();
        deleting.spawn(async move {
            let deleted = delete(&client, name).await;
            drop(seat);
            deleted
        });
    }
    while let Some(deleted) = deleting.join_next().await {
        deleted.context("delete a file")??;
    }
    for directory in tree.directories().into_iter().rev() {
        delete(&client, directory).await?;
    }
    client.close().await;
    Ok(())
}

async fn delete(client: &Client, name: String) -> anyhow::Result<()> {
    let work = async { client.open(&name, OpenOptions::write()).await?.handle.delete().await };
    let done = tokio::time::timeout(DEADLINE, work).await;
    done.with_context(|| format!("delete {name}: no answer"))?.with_context(|| format!("delete {name}"))?;
    Ok(())
}

async fn create(client: &Client, name: String, options: OpenOptions) -> anyhow::Result<()> {
    let work = async {
        let opened = client.open(&name, options).await?;
        opened.handle.close().await
    };
    let done = tokio::time::timeout(DEADLINE, work).await;
    done.with_context(|| format!("create {name}: no answer"))?.with_context(|| format!("create {name}"))?;
    Ok(())
}
