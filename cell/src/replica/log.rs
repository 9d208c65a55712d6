//! The Raft log on disk: openraft's log storage on top of the `raft-log` crate.
//!
//! One mutex guards the log, so votes and entries reach the disk in the order of the calls, as openraft asks. Nothing
//! is acknowledged before its fsync: an append completes from the flush worker's callback, and all appends that wait
//! share one fsync. A failed write or fsync ends the worker for good; the error reaches openraft, which stops.

mod codec;
mod inspect;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openraft::storage::RaftLogStorage;
use openraft::{OptionalSend, RaftLogReader};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use raft_log::api::raft_log_writer::RaftLogWriter as _;
use raft_log::{Callback, Config, RaftLog};
use tokio::sync::oneshot;

pub use inspect::LogDamage;
#[cfg(any(test, feature = "sim"))]
pub use inspect::chunks;

use self::codec::{LogTypes, StoredVote, from_stored, to_stored};
use super::types::{Entry, EntryPayload, IoFlushed, LogId, LogState, Payload, Types, Vote, log_id};

/// Bytes of entries sent in one AppendEntries, but for a single entry that is larger.
pub const BATCH_BYTES: usize = 1 << 20;

const CHUNK_BYTES: usize = 64 << 20;
const CACHE_BYTES: usize = 64 << 20;
const READ_BUFFER_BYTES: usize = 1 << 20;
const FLUSH_BATCH_WAIT: Duration = Duration::from_micros(100);
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// The log of one replica, in a directory of its own.
#[derive(Clone)]
pub struct DiskLog {
    log: Arc<Mutex<RaftLog<LogTypes>>>,
    flushes: Histogram,
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    /// A record before the tail is damaged. The replica must rebuild from its peers.
    #[error(transparent)]
    Damaged(#[from] LogDamage),
    /// The directory cannot be read or written, or another process has it open.
    #[error("open the log in {dir}")]
    Io {
        /// The log's directory.
        dir: String,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

impl DiskLog {
    /// Opens the log in `dir`, which is created if it is missing. A torn tail is cut and reported.
    ///
    /// # Errors
    /// See [`OpenLogError`].
    pub fn open(dir: &Path) -> Result<Self, OpenLogError> {
        Self::open_with(dir, CHUNK_BYTES)
    }

    /// The same in files of about so many bytes.
    pub(super) fn open_with(dir: &Path, chunk_bytes: usize) -> Result<Self, OpenLogError> {
        let named = |source| OpenLogError::Io { dir: dir.display().to_string(), source };
        #[allow(clippy::disallowed_methods, reason = "raft-log itself stands on real files, not on a Disk")]
        std::fs::create_dir_all(dir).map_err(named)?;
        let mut config = Config::new(dir.display());
        config.log_cache_capacity = Some(CACHE_BYTES);
        config.wal.chunk_max_size = Some(chunk_bytes);
        config.wal.read_buffer_size = Some(READ_BUFFER_BYTES);
        config.wal.flush_batch_wait = Some(FLUSH_BATCH_WAIT);

        inspect::inspect(dir)?;
        let log = RaftLog::open(Arc::new(config)).map_err(named)?;
        check_beginning(dir, &log)?;
        // From a tenth of a millisecond to a few seconds.
        let flushes = Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        Ok(Self { log: Arc::new(Mutex::new(log)), flushes })
    }

    /// Waits until nobody uses the log any more, so that its directory can be opened again.
    pub async fn close(self) {
        let users = Arc::downgrade(&self.log);
        drop(self);
        let closed = async {
            while users.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(CLOSE_DEADLINE, closed).await.is_err() {
            tracing::warn!("the log is still in use");
        }
    }

    /// How many seconds appends took to be on disk.
    pub fn flushes(&self) -> Histogram {
        self.flushes.clone()
    }

    fn log(&self) -> MutexGuard<'_, RaftLog<LogTypes>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let log = self.log();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for item in log.read(from, to) {
            let ((term, index), payload) = item?;
            let payload = from_stored(payload)?;
            bytes += size(&payload);
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(Entry { log_id: log_id(term, index), payload });
        }
        Ok(entries)
    }
}

/// raft-log takes any first file for the beginning; one that is gone must not pass for one that was purged.
fn check_beginning(dir: &Path, log: &RaftLog<LogTypes>) -> Result<(), LogDamage> {
    let state = log.log_state();
    let first = state.purged().map_or(0, |(_, index)| index + 1);
    let is_empty = state.last().is_none_or(|(_, last)| *last < first);
    if is_empty || log.read(first, first + 1).next().is_some() {
        return Ok(());
    }
    let reason = format!("the log has no entry {first}, and did not purge it: a file is gone");
    Err(LogDamage { file: dir.into(), offset: 0, reason })
}

pub(super) fn size(payload: &EntryPayload) -> usize {
    const OVERHEAD: usize = 32;
    match payload {
        EntryPayload::Normal(Payload(bytes)) => bytes.len() + OVERHEAD,
        EntryPayload::Blank | EntryPayload::Membership(_) => OVERHEAD,
    }
}

/// Who waits for a flush.
pub enum Flushed {
    Append(IoFlushed),
    /// The same, and how long it took is to be noted there.
    Timed(IoFlushed, Instant, Histogram),
    Vote(oneshot::Sender<io::Result<()>>),
}

impl Callback for Flushed {
    fn send(self, result: io::Result<()>) {
        match self {
            Self::Append(callback) => callback.io_completed(result),
            Self::Timed(callback, began, flushes) => {
                if result.is_ok() {
                    flushes.observe(began.elapsed().as_secs_f64());
                }
                callback.io_completed(result);
            }
            Self::Vote(sender) => drop(sender.send(result)),
        }
    }
}

/// The half-open range of indices that `range` means.
pub(super) fn bounds(range: impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to.max(from))
}

/// Entries for a follower: none if the first of them was purged meanwhile. openraft would send the others as if they
/// followed what the follower has; with none it sends a request that [`appending`](super::network) knows for what it is.
pub(super) fn from_the_start(start: u64, entries: Vec<Entry>) -> Vec<Entry> {
    let is_whole = entries.first().is_none_or(|first| first.log_id.index == start);
    if is_whole { entries } else { Vec::new() }
}

fn get_id(id: Option<&(u64, u64)>) -> Option<LogId> {
    id.map(|(term, index)| log_id(*term, *index))
}

fn put_id(id: &LogId) -> (u64, u64) {
    (id.leader_id.term, id.index)
}

impl RaftLogReader<Types> for DiskLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (from, to) = bounds(range);
        self.read(from, to, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log().log_state().vote().map(|StoredVote(vote)| *vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        Ok(from_the_start(start, self.read(start, end, BATCH_BYTES)?))
    }
}

impl RaftLogStorage<Types> for DiskLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState> {
        let log = self.log();
        let state = log.log_state();
        let purged = get_id(state.purged());
        Ok(LogState { last_purged_log_id: purged, last_log_id: get_id(state.last()).or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut log = self.log();
            log.save_vote(StoredVote(*vote))?;
            log.flush(true, Some(Flushed::Vote(sender)))?;
        }
        receiver.await.map_err(|_| io::Error::other("the log's writer has stopped"))?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let mut log = self.log();
        let state = log.log_state();
        // A hint for the next start, so one that the log cannot hold is left out rather than refused: it may run
        // ahead of the log while a snapshot is installed.
        let id = put_id(&committed);
        if Some(&id) > state.last() || Some(&id) <= state.committed() {
            return Ok(());
        }
        // No flush: it rides with the next append.
        log.commit(id).map(drop)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(get_id(self.log().log_state().committed()))
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        #[allow(clippy::disallowed_methods, reason = "what a real disk takes; nothing is decided by it")]
        let began = Instant::now();
        let mut log = self.log();
        log.append(entries.into_iter().map(|entry| (put_id(&entry.log_id), to_stored(entry.payload))))?;
        log.flush(true, Some(Flushed::Timed(callback, began, self.flushes.clone())))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let mut log = self.log();
        let keep_before = last_log_id.map_or(0, |id| id.index + 1);
        let end = log.log_state().last().map_or(0, |(_, index)| index + 1);
        // raft-log takes a cut at or beyond the end for an error; openraft expects nothing to happen.
        if keep_before >= end {
            return Ok(());
        }
        log.truncate(keep_before)?;
        log.flush(true, None)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let mut log = self.log();
        log.purge(put_id(&log_id))?;
        // Chunk files go only behind a flush that makes the purge record durable.
        log.flush(true, None)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "they damage real files")]
mod tests;
