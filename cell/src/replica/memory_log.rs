//! A Raft log in memory with an explicit fsync boundary, for simulations.
//!
//! A [`MemoryDisk`] outlives the process that writes to it. What was written reaches it only after the disk's sync
//! delay; a crash loses the rest, and whatever the crashed process writes afterwards.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::storage::RaftLogStorage;
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::{Notify, oneshot};

use super::log::{BATCH_BYTES, Flushed, bounds, size};
use super::types::{Entry, IoFlushed, LogId, LogState, Types, Vote};

/// A disk that holds one replica's log.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    disk: Mutex<Disk>,
    written: Notify,
}

#[derive(Default)]
struct Disk {
    durable: Contents,
    /// What the running process sees: durable contents and all writes since.
    live: Contents,
    unsynced: VecDeque<(Write, Option<Flushed>)>,
    sync_delay: Duration,
    fails: bool,
    /// Counts crashes. A log opened before the last one has no effect any more.
    incarnation: u64,
}

#[derive(Clone, Default)]
struct Contents {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

#[derive(Clone)]
enum Write {
    Vote(Vote),
    Committed(Option<LogId>),
    Append(Vec<Entry>),
    TruncateAfter(Option<LogId>),
    Purge(LogId),
}

impl Contents {
    fn apply(&mut self, write: Write) {
        match write {
            Write::Vote(vote) => self.vote = Some(vote),
            Write::Committed(committed) => self.committed = committed,
            Write::Append(entries) => {
                self.entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)))
            }
            Write::TruncateAfter(last) => drop(self.entries.split_off(&last.map_or(0, |id| id.index + 1))),
            Write::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = self.purged.max(Some(upto));
            }
        }
    }
}

impl MemoryDisk {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a write is durable only this long after it was made. Zero: as soon as the runtime gets to it.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.disk().sync_delay = delay;
    }

    /// From now on every sync fails, as on a full or broken disk.
    pub fn fail(&self) {
        self.disk().fails = true;
    }

    /// Loses everything that was not synced, and cuts off the process that wrote it.
    pub fn crash(&self) {
        let mut disk = self.disk();
        disk.incarnation += 1;
        disk.live = disk.durable.clone();
        disk.unsynced.clear();
        drop(disk);
        self.0.written.notify_waiters();
    }

    /// Opens the log as a process does that has just started. Must be called inside a runtime.
    pub fn open(&self) -> MemoryLog {
        let mut disk = self.disk();
        disk.incarnation += 1;
        disk.live = disk.durable.clone();
        disk.unsynced.clear();
        let log = MemoryLog { disk: self.clone(), incarnation: disk.incarnation };
        drop(disk);
        tokio::spawn(flush(log.clone()));
        log
    }
}

/// Makes writes durable in order, all that wait at once, until the disk crashes or is opened again.
async fn flush(log: MemoryLog) {
    loop {
        let (count, delay) = {
            let written = log.disk.0.written.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            let waiting = match log.running() {
                Ok(disk) => (disk.unsynced.len(), disk.sync_delay),
                Err(_crashed) => return,
            };
            if waiting.0 == 0 {
                written.await;
                continue;
            }
            waiting
        };
        tokio::time::sleep(delay).await;
        let flushed = match log.running() {
            Ok(mut disk) => disk.sync(count),
            Err(_crashed) => return,
        };
        for (waiting, result) in flushed {
            raft_log::Callback::send(waiting, result);
        }
    }
}

impl Disk {
    fn sync(&mut self, count: usize) -> Vec<(Flushed, io::Result<()>)> {
        let mut flushed = Vec::new();
        for (write, waiting) in self.unsynced.drain(..count) {
            let result = if self.fails {
                Err(io::Error::other("the simulated disk is broken"))
            } else {
                self.durable.apply(write);
                Ok(())
            };
            flushed.extend(waiting.map(|waiting| (waiting, result)));
        }
        flushed
    }
}

/// One process's view of a [`MemoryDisk`].
#[derive(Clone)]
pub struct MemoryLog {
    disk: MemoryDisk,
    incarnation: u64,
}

impl MemoryLog {
    fn running(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.disk();
        match disk.incarnation == self.incarnation {
            true => Ok(disk),
            false => Err(io::Error::other("this process has crashed")),
        }
    }

    fn write(&self, write: Write, waiting: Option<Flushed>) -> io::Result<()> {
        let mut disk = self.running()?;
        disk.live.apply(write.clone());
        disk.unsynced.push_back((write, waiting));
        drop(disk);
        self.disk.0.written.notify_waiters();
        Ok(())
    }
}

impl RaftLogReader<Types> for MemoryLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (from, to) = bounds(range);
        Ok(self.running()?.live.entries.range(from..to).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.running()?.live.vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.running()?.live.entries.range(start..end).map(|(_, entry)| entry) {
            bytes += size(&entry.payload);
            if bytes > BATCH_BYTES && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

impl RaftLogStorage<Types> for MemoryLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState> {
        let disk = self.running()?;
        let purged = disk.live.purged;
        let last = disk.live.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.write(Write::Vote(*vote), Some(Flushed::Vote(sender)))?;
        receiver.await.map_err(|_| io::Error::other("this process has crashed"))?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.write(Write::Committed(committed), None)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let disk = self.running()?;
        let last = disk.live.entries.last_key_value().map(|(_, entry)| entry.log_id).max(disk.live.purged);
        // Saved without a sync of its own, it may be ahead of the entries.
        Ok(disk.live.committed.min(last))
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.write(Write::Append(entries.into_iter().collect()), Some(Flushed::Append(callback)))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.write(Write::TruncateAfter(last_log_id), None)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.write(Write::Purge(log_id), None)
    }
}
