//! A log on real files, recorded step by step, and what is found when such files are opened again.

#![allow(clippy::disallowed_methods, reason = "the log stands on real files")]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _};
use openraft::{BasicNode, RaftLogReader as _};
use prost::Message as _;

use super::super::log::{DiskLog, OpenLogError, chunks};
use super::super::types::{
    Entry, EntryPayload, LogId, Membership, Payload, Runtime, SnapshotMeta, StoredMembership, Vote, log_id,
};
use super::super::wire;

/// Bytes of a chunk of the recorded log: it has several.
const CHUNK_BYTES: usize = 300;

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogContents {
    /// Term, node, and whether it is committed.
    pub vote: Option<(u64, u64, bool)>,
    /// Term and index of the last entry that was purged.
    pub purged: Option<(u64, u64)>,
    /// Term and index of the last entry known to be committed.
    pub committed: Option<(u64, u64)>,
    /// The entries that are left, in their order.
    pub entries: Vec<LogRecord>,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogRecord {
    /// Of the leader that proposed it.
    pub term: u64,
    /// Its place.
    pub index: u64,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// The files of a log, and how they came about.
#[derive(Clone, Debug)]
pub struct RecordedLog {
    /// Name and contents, in the order in which they were written.
    pub chunks: Vec<(String, Vec<u8>)>,
    /// What the log held after each step, the first being the empty log.
    pub steps: Vec<Step>,
}

/// A moment at which everything was on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of all chunks together.
    pub bytes: u64,
    /// What the log held.
    pub contents: LogContents,
}

/// Records a log with everything that happens to one: votes, entries of all kinds, a change of leader that cuts the
/// tail, a purge.
///
/// # Panics
/// When the disk does not do what it is told.
pub fn record_log(dir: &Path) -> RecordedLog {
    block_on(Runtime::scope(1, async {
        let log = DiskLog::open_with(dir, CHUNK_BYTES).expect("a new log");
        let mut recorder = Recorder { dir, log: log.clone(), steps: Vec::new() };
        recorder.record().await;
        let Recorder { steps, log: other, .. } = recorder;
        drop(other);
        log.close().await;
        let chunks = chunks(dir).expect("the directory is there").into_iter().map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("readable"))
        });
        RecordedLog { chunks: chunks.collect(), steps }
    }))
}

/// Opens the log in `dir` as a replica that starts does, and closes it again.
///
/// # Errors
/// As when a replica starts.
///
/// # Panics
/// When an opened log cannot be read.
pub fn open_log(dir: &Path) -> Result<LogContents, OpenLogError> {
    block_on(async {
        let mut log = DiskLog::open_with(dir, CHUNK_BYTES)?;
        let contents = contents(&mut log).await;
        log.close().await;
        Ok(contents)
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without sockets").block_on(work)
}

async fn contents(log: &mut DiskLog) -> LogContents {
    const OPENED: &str = "an opened log is readable";
    let pair = |id: LogId| (id.leader_id.term, id.index);
    let vote = log.read_vote().await.expect(OPENED);
    let entries = log.try_get_log_entries(..).await.expect(OPENED);
    LogContents {
        vote: vote.map(|vote| (vote.leader_id.term, vote.leader_id.voted_for, vote.committed)),
        purged: log.get_log_state().await.expect(OPENED).last_purged_log_id.map(pair),
        committed: log.read_committed().await.expect(OPENED).map(pair),
        entries: entries
            .into_iter()
            .map(|entry| LogRecord {
                term: entry.log_id.leader_id.term,
                index: entry.log_id.index,
                payload: wire::put_entry(entry).encode_to_vec(),
            })
            .collect(),
    }
}

struct Recorder<'a> {
    dir: &'a Path,
    log: DiskLog,
    steps: Vec<Step>,
}

impl Recorder<'_> {
    async fn record(&mut self) {
        self.step().await;
        self.vote(Vote::new(1, 1)).await;
        self.vote(Vote::new_committed(1, 1)).await;
        self.append(1, 0, EntryPayload::Membership(membership())).await;
        self.append(1, 1, EntryPayload::Blank).await;
        for (index, length) in (2..6).zip([0, 1, 10, 40]) {
            self.append(1, index, command(index, length)).await;
        }
        self.committed(log_id(1, 3)).await;
        self.append(1, 6, command(6, 60)).await;
        self.vote(Vote::new_committed(2, 3)).await;
        self.truncated(log_id(1, 4)).await;
        self.append(2, 5, EntryPayload::Blank).await;
        self.append(2, 6, command(7, 20)).await;
        self.committed(log_id(2, 6)).await;
        self.append(2, 7, command(8, 30)).await;
        self.purged(log_id(1, 1)).await;
        for index in 8..12 {
            self.append(2, index, command(index, 12)).await;
        }
    }

    async fn step(&mut self) {
        let mut bytes = 0;
        for chunk in chunks(self.dir).expect("the directory is there") {
            bytes += std::fs::metadata(chunk).expect("a file").len();
        }
        let contents = contents(&mut self.log).await;
        self.steps.push(Step { bytes, contents });
    }

    async fn vote(&mut self, vote: Vote) {
        self.log.save_vote(&vote).await.expect("votes are saved");
        self.step().await;
    }

    async fn append(&mut self, term: u64, index: u64, payload: EntryPayload) {
        let entry = Entry { log_id: log_id(term, index), payload };
        self.log.blocking_append([entry]).await.expect("entries are appended");
        self.step().await;
    }

    /// Is on disk only with the next step.
    async fn committed(&mut self, id: LogId) {
        self.log.save_committed(Some(id)).await.expect("commits are saved");
    }

    async fn truncated(&mut self, last: LogId) {
        self.log.truncate_after(Some(last)).await.expect("the tail is cut");
        self.on_disk().await;
    }

    async fn purged(&mut self, upto: LogId) {
        self.log.purge(upto).await.expect("the head is purged");
        self.on_disk().await;
    }

    /// Waits for a flush that nobody is told of, by one that is.
    async fn on_disk(&mut self) {
        let vote = self.log.read_vote().await.expect("a vote").expect("saved before");
        self.vote(vote).await;
    }
}

fn membership() -> Membership {
    let nodes: BTreeMap<u64, BasicNode> =
        (1..=3).map(|id| (id, BasicNode::new(format!("r{id}:1")))).collect();
    Membership::new(vec![nodes.keys().copied().collect()], nodes).expect("every voter has an address")
}

/// The metadata of a snapshot of such a cell.
pub fn snapshot_meta() -> SnapshotMeta {
    let last_membership = StoredMembership::new(Some(log_id(1, 0)), membership());
    SnapshotMeta { last_log_id: Some(log_id(2, 9)), last_membership }
}

fn command(seed: u64, length: usize) -> EntryPayload {
    let bytes = std::iter::successors(Some(seed), |byte| Some(byte.wrapping_mul(31).wrapping_add(7)));
    EntryPayload::Normal(Payload(Bytes::from_iter(bytes.map(|byte| byte as u8).take(length))))
}
