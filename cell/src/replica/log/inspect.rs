//! Reads every record of a log before it is opened, to tell a torn tail from damage.
//!
//! raft-log cuts its last chunk at the first record that ends early. A crash leaves such a record at the very end; a
//! damaged length in the middle looks the same, and cutting there would drop acknowledged entries in silence. So a
//! short record is taken for a torn tail only if no whole record follows it.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the log stands on real files")]

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use raft_log::codeq::Decode;
use raft_log::{RaftWalTypes, WALRecord};

use super::codec::LogTypes;

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

/// Checks every chunk of the log in `dir`; a torn tail is reported and left to raft-log to cut.
pub fn inspect(dir: &Path) -> Result<(), LogDamage> {
    let chunks =
        chunks(dir).map_err(|error| LogDamage { file: dir.into(), offset: 0, reason: error.to_string() })?;
    let last = chunks.last().cloned();
    for file in chunks {
        let damage =
            |offset, error: io::Error| LogDamage { file: file.clone(), offset, reason: error.to_string() };
        let (offset, error) = match first_bad(&file).map_err(|error| damage(0, error))? {
            None => continue,
            Some(bad) => bad,
        };
        let is_last = Some(&file) == last.as_ref();
        let rest = tail(&file, offset).map_err(|error| damage(offset, error))?;
        if !is_last || !is_torn(&rest, &error) {
            return Err(damage(offset, error));
        }
        tracing::warn!(file = %file.display(), offset, bytes = rest.len(), "cutting the torn tail of the log");
    }
    Ok(())
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

/// Where the first unreadable record begins, and why it is unreadable.
fn first_bad(file: &Path) -> io::Result<Option<(u64, io::Error)>> {
    let handle = File::open(file)?;
    let length = handle.metadata()?.len();
    let mut reader =
        Counted { inner: BufReader::with_capacity(super::READ_BUFFER_BYTES, handle), position: 0 };
    while reader.position < length {
        let start = reader.position;
        if let Err(error) = Record::decode(&mut reader) {
            return Ok(Some((start, error)));
        }
    }
    Ok(None)
}

fn tail(file: &Path, offset: u64) -> io::Result<Vec<u8>> {
    use std::io::{Seek as _, SeekFrom};
    let mut handle = File::open(file)?;
    handle.seek(SeekFrom::Start(offset))?;
    let mut rest = Vec::new();
    handle.read_to_end(&mut rest)?;
    Ok(rest)
}

/// Whether what a crash in the middle of a write leaves behind explains the unreadable end of the last chunk.
fn is_torn(rest: &[u8], error: &io::Error) -> bool {
    if rest.iter().all(|byte| *byte == 0) {
        return true;
    }
    error.kind() == io::ErrorKind::UnexpectedEof && !contains_record(&rest[1..])
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
