//! Reads every record of a log before it is opened, to tell a torn tail from damage.
//!
//! raft-log cuts its last chunk at the first record that ends early. A crash leaves such a record at the very end; a
//! damaged length in the middle looks the same, and cutting there would drop acknowledged entries in silence. So a
//! short record is taken for a torn tail only if no whole record follows it. And each file must go on where the one
//! before it ends, and with what all files before it add up to, so that none is missing or another's between them.
//!
//! A file is made before the end of the one before it is on disk, but nothing is written to it until it is. So a crash
//! may leave files at the end that hold not one whole record, and then the torn tail is in the file before them.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the log stands on real files")]

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use raft_log::codeq::Decode;
use raft_log::{RaftLogAction, RaftWalTypes, WALRecord};

use super::codec::{LogTypes, StoredVote};

type Record = WALRecord<RaftWalTypes<LogTypes>>;

/// A damaged log file.
#[derive(Debug, thiserror::Error)]
#[error(
    "damaged record in {} at offset {offset}: {reason}; the replica must be rebuilt from its peers: \
     move its data directory away and start it again",
    file.display()
)]
pub struct LogDamage {
    /// The damaged file.
    pub file: PathBuf,
    /// Where in the file the first damaged record begins.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Checks every chunk of the log in `dir`; a torn tail is reported and left to raft-log to cut, as are files at the end
/// to which nothing was written.
pub fn inspect(dir: &Path) -> Result<(), LogDamage> {
    let failed = |error: io::Error| LogDamage { file: dir.into(), offset: 0, reason: error.to_string() };
    let mut chunks = chunks(dir).map_err(failed)?;
    while let Some(file) = chunks.last()
        && is_unwritten(file)?
    {
        tracing::warn!(file = %file.display(), "dropping a file of the log to which nothing was written");
        chunks.pop();
    }
    for pair in chunks.windows(2) {
        check_joined(&pair[0], &pair[1])?;
    }
    let last = chunks.last().cloned();
    let mut replay = Replay::default();
    for file in chunks {
        let bad = replay.follow(&file)?;
        let Some(bad) = bad else { continue };
        if Some(&file) != last.as_ref() || !bad.is_torn() {
            return Err(bad.damage(&file));
        }
        let Bad { offset, rest, .. } = bad;
        tracing::warn!(file = %file.display(), offset, bytes = rest.len(), "cutting the torn tail of the log");
    }
    Ok(())
}

/// Files are named after where they begin: one ends where the next begins.
fn check_joined(file: &Path, next: &Path) -> Result<(), LogDamage> {
    let damage = |offset, reason| LogDamage { file: file.into(), offset, reason };
    let length = std::fs::metadata(file).map_err(|error| damage(0, error.to_string()))?.len();
    let (Some(begin), Some(end)) = (beginning(file), beginning(next)) else {
        return Err(damage(0, "its name or that of the next file is none of this log".to_owned()));
    };
    if begin.checked_add(length) == Some(end) {
        return Ok(());
    }
    Err(damage(length, format!("it ends {length} bytes after {begin}, and the next file begins at {end}")))
}

fn beginning(file: &Path) -> Option<u64> {
    let name = file.file_stem()?.to_str()?.strip_prefix("r-")?;
    name.replace('_', "").parse().ok()
}

/// The chunk files in the order they were written: their names are offsets, all of one width.
pub fn chunks(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a crash came before the first record was written.
fn is_unwritten(file: &Path) -> Result<bool, LogDamage> {
    let first = File::open(file).map_err(|error| unreadable(file, &error))?;
    if Record::decode(BufReader::new(first)).is_ok() {
        return Ok(false);
    }
    let bad = Bad::find(file, |_| {}).map_err(|error| unreadable(file, &error))?;
    Ok(bad.is_none_or(|bad| bad.is_torn()))
}

/// What the log holds as far as it has been read: each file begins with what the files before it add up to.
#[derive(Default)]
struct Replay(Option<State>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    vote: Option<StoredVote>,
    last: Option<(u64, u64)>,
    purged: Option<(u64, u64)>,
}

impl Replay {
    /// Reads a file to its end or its first unreadable record, which is returned.
    fn follow(&mut self, file: &Path) -> Result<Option<Bad>, LogDamage> {
        let mut is_other = false;
        let bad = Bad::find(file, |record| is_other |= !self.takes(record));
        if is_other {
            let reason = "it goes on from something else than what the files before it add up to".to_owned();
            return Err(LogDamage { file: file.into(), offset: 0, reason });
        }
        bad.map_err(|error| unreadable(file, &error))
    }

    /// Whether the record can come next.
    fn takes(&mut self, record: &Record) -> bool {
        let action = match record {
            WALRecord::Checkpoint(state) => {
                let (vote, last) = (state.vote().cloned(), state.last().copied());
                let begins = State { vote, last, purged: state.purged().copied() };
                return *self.0.get_or_insert(begins.clone()) == begins;
            }
            WALRecord::Action(action) => action,
        };
        let Some(state) = &mut self.0 else { return false };
        match action {
            RaftLogAction::SaveVote(vote) => state.vote = Some(vote.clone()),
            RaftLogAction::Append(id, _) => state.last = Some(*id),
            RaftLogAction::Commit(_) => {}
            RaftLogAction::TruncateAfter(id) => state.last = state.last.min(*id),
            RaftLogAction::PurgeUpto(id) => {
                state.purged = state.purged.max(Some(*id));
                state.last = state.last.max(Some(*id));
            }
        }
        true
    }
}

fn unreadable(file: &Path, error: &io::Error) -> LogDamage {
    LogDamage { file: file.into(), offset: 0, reason: error.to_string() }
}

/// The end of a file from its first unreadable record on.
struct Bad {
    offset: u64,
    error: io::Error,
    rest: Vec<u8>,
}

impl Bad {
    /// The first unreadable record; those before it are shown.
    fn find(file: &Path, mut show: impl FnMut(&Record)) -> io::Result<Option<Self>> {
        let handle = File::open(file)?;
        let length = handle.metadata()?.len();
        let mut reader =
            Counted { inner: BufReader::with_capacity(super::READ_BUFFER_BYTES, handle), position: 0 };
        while reader.position < length {
            let offset = reader.position;
            match Record::decode(&mut reader) {
                Ok(record) => show(&record),
                Err(error) => return Ok(Some(Self { offset, error, rest: tail(file, offset)? })),
            }
        }
        Ok(None)
    }

    /// Whether what a crash in the middle of a write leaves behind explains it.
    fn is_torn(&self) -> bool {
        if self.rest.iter().all(|byte| *byte == 0) {
            return true;
        }
        self.error.kind() == io::ErrorKind::UnexpectedEof && !contains_record(&self.rest[1..])
    }

    fn damage(self, file: &Path) -> LogDamage {
        LogDamage { file: file.into(), offset: self.offset, reason: self.error.to_string() }
    }
}

fn tail(file: &Path, offset: u64) -> io::Result<Vec<u8>> {
    use std::io::{Seek as _, SeekFrom};
    let mut handle = File::open(file)?;
    handle.seek(SeekFrom::Start(offset))?;
    let mut rest = Vec::new();
    handle.read_to_end(&mut rest)?;
    Ok(rest)
}

/// Whether a whole record with a right checksum begins anywhere in `bytes`.
fn contains_record(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|start| Record::decode(&bytes[start..]).is_ok())
}

struct Counted<R> {
    inner: R,
    position: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}
