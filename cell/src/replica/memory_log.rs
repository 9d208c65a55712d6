//! A Raft log in memory with an explicit fsync boundary, for simulations.
//!
//! A [`MemoryDisk`] outlives the process that writes to it. What was written reaches it only after the disk's sync
//! delay; a crash loses the rest, or tears it, and loses whatever the crashed process writes afterwards. A disk may be
//! full for a while; as with the real log, a process that met one failed sync gets no other one through (P-STOP).

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::storage::RaftLogStorage;
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::{Notify, oneshot};

use super::log::{BATCH_BYTES, Flushed, bounds, from_the_start, size};
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
    /// What syncs fail with at present.
    trouble: Option<io::ErrorKind>,
    /// A sync has failed since the log was opened.
    has_failed: bool,
    /// The process has heard of it: not every write is waited for.
    has_told: bool,
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

impl Write {
    /// Records of the log that it is written as.
    fn records(&self) -> usize {
        match self {
            Self::Append(entries) => entries.len(),
            Self::Vote(_) | Self::Committed(_) | Self::TruncateAfter(_) | Self::Purge(_) => 1,
        }
    }

    /// Its first so many records.
    fn torn(self, records: usize) -> Option<Self> {
        match self {
            Self::Append(mut entries) => {
                entries.truncate(records);
                Some(Self::Append(entries))
            }
            whole => (records > 0).then_some(whole),
        }
    }
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

    /// From now on every sync fails, as on a broken disk.
    pub fn fail(&self) {
        self.disk().trouble = Some(io::ErrorKind::Other);
    }

    /// From now on the disk is full: every sync of something written fails.
    pub fn fill(&self) {
        self.disk().trouble = Some(io::ErrorKind::StorageFull);
    }

    /// Ends [`fail`](Self::fail) and [`fill`](Self::fill) for processes that open the log from here on, and for one
    /// that has not met a failed sync.
    pub fn make_room(&self) {
        self.disk().trouble = None;
    }

    /// Whether a sync has failed since the log was opened: nothing more is written.
    pub fn has_failed(&self) -> bool {
        self.disk().has_failed
    }

    /// Whether the process that has the log open has heard of a failed sync: it has to leave service (P-STOP).
    pub fn has_told_of_failure(&self) -> bool {
        self.disk().has_told
    }

    /// Loses everything that was not synced, and cuts off the process that wrote it.
    pub fn crash(&self) {
        self.crash_torn(0);
    }

    /// As [`crash`](Self::crash), but of what was not synced the first records survive: so many of a thousand. Records
    /// are written in order, so none survives without those before it.
    pub fn crash_torn(&self, per_mille: usize) {
        let mut disk = self.disk();
        disk.incarnation += 1;
        disk.tear(per_mille);
        disk.live = disk.durable.clone();
        drop(disk);
        self.0.written.notify_waiters();
    }

    /// The entries that are safe, for a look from outside: each with its term and index, in order, from the first that
    /// was not purged.
    pub fn durable_entries(&self) -> Vec<(u64, u64, String)> {
        let disk = self.disk();
        let entries = disk.durable.entries.values();
        entries
            .map(|entry| (entry.log_id.leader_id.term, entry.log_id.index, format!("{:?}", entry.payload)))
            .collect()
    }

    /// Opens the log as a process does that has just started. Must be called inside a runtime.
    pub fn open(&self) -> MemoryLog {
        let mut disk = self.disk();
        disk.incarnation += 1;
        disk.live = disk.durable.clone();
        disk.unsynced.clear();
        (disk.has_failed, disk.has_told) = (false, false);
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
        self.has_failed |= self.trouble.is_some();
        let kind = self.trouble.unwrap_or(io::ErrorKind::Other);
        let mut flushed = Vec::new();
        for (write, waiting) in self.unsynced.drain(..count) {
            let result = if self.has_failed {
                self.has_told |= waiting.is_some();
                Err(io::Error::new(kind, "the simulated disk has failed"))
            } else {
                self.durable.apply(write);
                Ok(())
            };
            flushed.extend(waiting.map(|waiting| (waiting, result)));
        }
        flushed
    }

    fn tear(&mut self, per_mille: usize) {
        // Nothing is known of what follows a failed sync; the log's reader would find a torn tail there.
        let unsynced = if self.has_failed { VecDeque::new() } else { std::mem::take(&mut self.unsynced) };
        self.unsynced.clear();
        let records: usize = unsynced.iter().map(|(write, _)| write.records()).sum();
        let mut left = records * per_mille / 1_000;
        for (write, _) in unsynced {
            let count = write.records().min(left);
            left -= count;
            if let Some(write) = write.torn(count) {
                self.durable.apply(write);
            }
        }
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
        Ok(from_the_start(start, entries))
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

#[cfg(test)]
mod tests {
    use super::super::types::{EntryPayload, log_id};
    use super::*;

    fn append(indices: std::ops::Range<u64>) -> (Write, Option<Flushed>) {
        let entry = |index| Entry { log_id: log_id(1, index), payload: EntryPayload::Blank };
        (Write::Append(indices.map(entry).collect()), None)
    }

    fn indices(disk: &MemoryDisk) -> Vec<u64> {
        disk.durable_entries().into_iter().map(|(_, index, _)| index).collect()
    }

    fn unsynced() -> MemoryDisk {
        let disk = MemoryDisk::default();
        let writes = [append(1..3), (Write::TruncateAfter(Some(log_id(1, 1))), None), append(2..6)];
        disk.disk().unsynced.extend(writes);
        disk
    }

    #[test]
    fn a_crash_leaves_nothing_that_was_not_synced() {
        let disk = unsynced();

        disk.crash();

        assert_eq!(indices(&disk), [0_u64; 0]);
    }

    #[test]
    fn a_torn_tail_is_a_prefix_of_the_records_in_their_order() {
        // Seven records: two entries, a cut behind the first of them, four entries.
        for (per_mille, expected) in [
            (142, &[][..]),
            (143, &[1]),
            (286, &[1, 2]),
            (429, &[1]),
            (715, &[1, 2, 3]),
            (1_000, &[1, 2, 3, 4, 5]),
        ] {
            let disk = unsynced();

            disk.crash_torn(per_mille);

            assert_eq!(indices(&disk), expected, "{per_mille}");
        }
    }

    #[test]
    fn a_process_that_met_a_full_disk_writes_nothing_more_although_there_is_room_again() {
        let disk = MemoryDisk::default();
        disk.fill();
        disk.disk().unsynced.push_back(append(1..2));
        disk.disk().sync(1);
        assert_eq!((disk.has_failed(), disk.has_told_of_failure()), (true, false), "nobody waited");

        disk.make_room();
        let (sender, mut told) = oneshot::channel();
        disk.disk().unsynced.push_back((append(2..3).0, Some(Flushed::Vote(sender))));
        for (waiting, result) in disk.disk().sync(1) {
            raft_log::Callback::send(waiting, result);
        }

        assert_eq!(indices(&disk), [0_u64; 0]);
        assert!(matches!(told.try_recv(), Ok(Err(_))) && disk.has_told_of_failure());
    }
}
