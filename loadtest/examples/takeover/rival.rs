//! A client at the master that wants every lock and looks for every ephemeral file, again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hasp_client::{Client, ConnectOptions, Env, ErrorCode, Handle, LockMode, OpenOptions};

use crate::holders::{HoldingClient, directory, lock_name};

/// Between two questions: a hundred a second must not be what keeps the master busy.
const PAUSE: Duration = Duration::from_millis(10);
/// Locks asked for between two looks at the ephemeral files.
const LOCKS_PER_LOOK: usize = 50;

/// What the rival saw that it must not.
#[derive(Debug, Default)]
pub struct Seen {
    /// Locks that it was granted although they were held.
    pub granted: BTreeSet<u32>,
    /// Locks that were free but for their lock-delay, or whose acquisition did not stand any more.
    pub lost: BTreeSet<u32>,
    /// The most ephemeral files that were missing in any look.
    pub gone: usize,
    /// Questions about locks.
    pub asked: u64,
}

pub struct Rival {
    env: Env,
    client: Client,
    locks: Vec<(u32, Handle)>,
    ephemerals: Handle,
    /// As many as there must be.
    present: usize,
    pub seen: Seen,
}

impl Rival {
    pub async fn connect(
        env: &Env,
        targets: Vec<String>,
        locks: u32,
        present: usize,
    ) -> anyhow::Result<Self> {
        let options = ConnectOptions { cache: false, ends_idle: false, ..ConnectOptions::new(targets) };
        let client = Client::connect(options, env).await.context("connect a rival")?;
        let mut wanted = Vec::new();
        for number in 0..locks {
            let opened = client.open(lock_name(number), OpenOptions::write()).await.context("open a lock")?;
            wanted.push((number, opened.handle));
        }
        let opened = client.open(directory("ephemerals"), OpenOptions::read()).await;
        let ephemerals = opened.context("open the directory of ephemeral files")?.handle;
        let (env, seen) = (env.clone(), Seen::default());
        Ok(Self { env, client, locks: wanted, ephemerals, present, seen })
    }

    /// Asks for each lock once, and looks for the ephemeral files in between.
    pub async fn round(&mut self) -> anyhow::Result<()> {
        self.look().await?;
        for number in 0..self.locks.len() {
            self.ask_for(number).await?;
            if number % LOCKS_PER_LOOK == LOCKS_PER_LOOK - 1 {
                self.look().await?;
            }
            self.env.clock.sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn ask_for(&mut self, index: usize) -> anyhow::Result<()> {
        let (number, handle) = &self.locks[index];
        self.seen.asked += 1;
        match handle.try_acquire(LockMode::Exclusive).await {
            Ok(_) => {
                self.seen.granted.insert(*number);
                handle.release().await.context("give back a lock that was held")?;
            }
            Err(error) => match error.code {
                ErrorCode::LockHeld => {}
                ErrorCode::LockDelayed { .. } => {
                    self.seen.lost.insert(*number);
                }
                _ => bail!("ask for {}: {error}", handle.name()),
            },
        }
        Ok(())
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let found = self.ephemerals.read_dir().await.context("look for the ephemeral files")?.children.len();
        self.seen.gone = self.seen.gone.max(self.present.saturating_sub(found));
        Ok(())
    }

    /// Whether each acquisition still stands, by the generation that the cell has and by the sequencer taken before;
    /// and whether its holder is told so as well.
    pub async fn check(&mut self, holders: &[HoldingClient]) -> anyhow::Result<()> {
        for held in holders.iter().filter_map(|holder| holder.lock.as_ref()) {
            let (_, handle) = &self.locks[held.number as usize];
            let stated = handle.get_stat().await.context("look at a lock")?;
            let checked = self.client.check_sequencer(&held.sequencer).await;
            let is_told = held.handle.get_sequencer().await;
            if stated.stat.lock_generation != held.generation || checked.is_err() || is_told.is_err() {
                self.seen.lost.insert(held.number);
            }
        }
        Ok(())
    }
}
