//! The log on real files: openraft's own suite, and what crashes and rotting disks leave behind.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use hasp_rt::disk::FileDisk;
use openraft::storage::RaftLogStorageExt as _;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{RaftLogReader as _, StorageError};
use tempfile::TempDir;

use super::*;
use crate::replica::applier::Applier;
use crate::replica::tests::Items;

struct Builder;

impl StoreBuilder<Types, DiskLog, Applier<Items>, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, DiskLog, Applier<Items>), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let log = DiskLog::open(&dir.path().join("log")).unwrap();
        let applier = Applier::open(Arc::new(FileDisk), &dir.path().join("snapshots")).await.unwrap();
        Ok((dir, log, applier))
    }
}

/// The suite calls parts of openraft that spawn tasks, which need a seed.
async fn seeded<T>(work: impl Future<Output = T>) -> T {
    crate::replica::types::Runtime::scope(1, work).await
}

#[tokio::test]
async fn openrafts_storage_suite_passes() {
    seeded(Suite::test_all(Builder)).await.unwrap();
}

fn entry(index: u64, bytes: usize) -> Entry {
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(Payload(Bytes::from(vec![b'x'; bytes]))) }
}

/// A closed log of `count` entries of 100 bytes, and its only chunk.
async fn written(dir: &Path, count: u64) -> PathBuf {
    let mut log = DiskLog::open(dir).unwrap();
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    seeded(log.blocking_append((0..count).map(|index| entry(index, 100)))).await.unwrap();
    log.close().await;
    let mut chunks = inspect::chunks(dir).unwrap();
    assert_eq!(chunks.len(), 1);
    chunks.remove(0)
}

async fn indices(log: &mut DiskLog) -> Vec<u64> {
    log.try_get_log_entries(..).await.unwrap().iter().map(|entry| entry.log_id.index).collect()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 10).await;

    let mut log = DiskLog::open(dir.path()).unwrap();

    assert_eq!(indices(&mut log).await, (0..10).collect::<Vec<_>>());
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(1, 1)));
}

#[tokio::test]
async fn every_torn_prefix_opens_with_whole_entries_only() {
    let dir = tempfile::tempdir().unwrap();
    let chunk = written(dir.path(), 5).await;
    let contents = std::fs::read(&chunk).unwrap();

    for length in 0..contents.len() {
        let torn = scratch();
        std::fs::write(torn.path().join(chunk.file_name().unwrap()), &contents[..length]).unwrap();

        let mut log = DiskLog::open(torn.path()).unwrap();

        let found = indices(&mut log).await;
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "cut at {length}");
        log.close().await;
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let chunk = written(dir.path(), 10).await;
    let contents = std::fs::read(&chunk).unwrap();
    std::fs::write(&chunk, &contents[..contents.len() - 30]).unwrap();

    let mut log = DiskLog::open(dir.path()).unwrap();
    assert_eq!(indices(&mut log).await, (0..9).collect::<Vec<_>>());
    seeded(log.blocking_append([entry(9, 100)])).await.unwrap();
    log.close().await;

    let mut log = DiskLog::open(dir.path()).unwrap();
    assert_eq!(indices(&mut log).await, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn damage_before_the_tail_is_refused_by_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let chunk = written(dir.path(), 10).await;
    let contents = std::fs::read(&chunk).unwrap();
    // Any byte but the last record's may rot; a damaged length must not pass for a torn tail.
    for position in (0..contents.len() - 150).step_by(7) {
        let mut damaged = contents.clone();
        damaged[position] ^= 0xff;
        std::fs::write(&chunk, &damaged).unwrap();

        let refused = DiskLog::open(dir.path()).err();

        let Some(OpenLogError::Damaged(damage)) = refused else {
            panic!("damage at {position}: {refused:?}")
        };
        assert_eq!(damage.file, chunk);
        assert!(damage.offset <= position as u64 && position as u64 - damage.offset < 200, "{damage}");
    }
}

#[tokio::test]
async fn a_second_process_cannot_open_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let _first = DiskLog::open(dir.path()).unwrap();

    let refused = DiskLog::open(dir.path()).err().unwrap();

    let OpenLogError::Io { dir: named, source } = refused else { panic!("{refused}") };
    assert_eq!(named, dir.path().display().to_string());
    assert!(source.to_string().contains("locked"), "{source}");
}

#[tokio::test]
async fn a_cut_beyond_the_end_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 3).await;
    let mut log = DiskLog::open(dir.path()).unwrap();

    log.truncate_after(Some(log_id(1, 2))).await.unwrap();
    log.truncate_after(Some(log_id(1, 7))).await.unwrap();

    assert_eq!(indices(&mut log).await, [0, 1, 2]);
}

#[tokio::test]
async fn batches_are_cut_by_bytes_but_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = DiskLog::open(dir.path()).unwrap();
    let third = BATCH_BYTES / 3;
    let entries = [entry(0, third), entry(1, third), entry(2, third), entry(3, 2 * BATCH_BYTES), entry(4, 1)];
    seeded(log.blocking_append(entries)).await.unwrap();

    let mut batches = Vec::new();
    let mut start = 0;
    while start < 5 {
        let batch = log.limited_get_log_entries(start, 5).await.unwrap();
        start += batch.len() as u64;
        batches.push(batch.len());
    }

    assert_eq!(batches, [2, 1, 1, 1]);
}

#[tokio::test]
async fn a_commit_that_the_log_cannot_hold_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 3).await;
    let mut log = DiskLog::open(dir.path()).unwrap();

    log.save_committed(Some(log_id(1, 1))).await.unwrap();
    log.save_committed(Some(log_id(1, 9))).await.unwrap();
    log.save_committed(Some(log_id(1, 0))).await.unwrap();

    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 1)));
}

use crate::replica::readers::{LogContents, RecordedLog, Step, open_log, record_log};

/// A directory for logs that only need to look like files: of hundreds of them, none is worth an fsync.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Puts the first `length` bytes of a log's files into a directory: later files are not there yet, but for one that
/// holds `next`.
fn put_prefix(dir: &Path, recorded: &RecordedLog, length: u64, next: Option<&[u8]>) {
    let mut left = usize::try_from(length).unwrap();
    let mut files = recorded.chunks.iter();
    for (name, contents) in files.by_ref() {
        let taken = left.min(contents.len());
        std::fs::write(dir.join(name), &contents[..taken]).unwrap();
        left -= taken;
        if left == 0 {
            break;
        }
    }
    if let (Some((name, _)), Some(next)) = (files.next(), next) {
        std::fs::write(dir.join(name), next).unwrap();
    }
}

/// Opens what a crash left of a log, which must be the log as it was at `length` bytes.
fn check_prefix(recorded: &RecordedLog, length: u64, next: Option<&[u8]>) {
    let torn = scratch();
    put_prefix(torn.path(), recorded, length, next);

    let found = open_log(torn.path()).unwrap_or_else(|error| panic!("cut at {length}, {next:?}: {error}"));

    let at = recorded.steps.iter().rposition(|step| step.bytes <= length).unwrap_or(0);
    let before = &recorded.steps[at].contents;
    // A step may be two records, of which the first is whole.
    let after = recorded.steps.get(at + 1).map_or(before, |step: &Step| &step.contents);
    let committed = found.committed;
    assert!(committed == before.committed || committed == after.committed, "cut at {length}: {committed:?}");
    let same = |other: &LogContents| LogContents { committed, ..other.clone() } == found;
    assert!(same(before) || same(after), "cut at {length}: {found:?}\nis neither {before:?}\nnor {after:?}");
}

#[test]
fn every_torn_prefix_of_a_history_opens_as_the_log_was_then() {
    let recorded = record_log(tempfile::tempdir().unwrap().path());
    assert!(recorded.chunks.len() > 2, "several files: {:?}", recorded.chunks);
    let whole = recorded.steps.last().unwrap().bytes;

    for length in 0..=whole {
        check_prefix(&recorded, length, None);
    }
}

#[test]
fn a_crash_while_the_log_begins_a_new_file_loses_nothing() {
    let recorded = record_log(tempfile::tempdir().unwrap().path());
    let mut end = 0;
    for (_, contents) in &recorded.chunks[..recorded.chunks.len() - 1] {
        end += contents.len() as u64;
        // The new file is there before the end of the one before it is on disk; whole or torn, that is the tail.
        for length in [end, end - 1, end - 20] {
            for next in [&[][..], &[0; 64], &contents[..10]] {
                check_prefix(&recorded, length, Some(next));
            }
        }
    }
}

#[test]
fn a_log_without_one_of_its_files_or_with_a_short_one_is_refused_unless_it_is_the_last() {
    let recorded = record_log(tempfile::tempdir().unwrap().path());
    let last = recorded.chunks.len() - 1;
    for missing in 0..last {
        for cut in [None, Some(0), Some(recorded.chunks[missing].1.len() / 2)] {
            let dir = tempfile::tempdir().unwrap();
            for (at, (name, contents)) in recorded.chunks.iter().enumerate() {
                match (at == missing, cut) {
                    (true, None) => {}
                    (true, Some(length)) => {
                        std::fs::write(dir.path().join(name), &contents[..length]).unwrap()
                    }
                    (false, _) => std::fs::write(dir.path().join(name), contents).unwrap(),
                }
            }

            let opened = open_log(dir.path());

            assert!(opened.is_err(), "file {missing} cut to {cut:?}: {opened:?}");
        }
    }
}
