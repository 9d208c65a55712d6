//! Snapshot files.
//!
//! ```text
//! magic "HASPSNAP"   format version u32
//! record*            length u32, crc32 of the bytes u32, bytes     the first is the metadata
//! footer             length 0xffff_ffff, records u64, xxh3-64 of all before this number u64
//! ```
//!
//! Integers are little-endian. The crc32 says which record is damaged, the hash that the file is whole and in order.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use hasp_rt::disk::{Disk, DiskFile};
use prost::Message as _;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::types::SnapshotMeta;
use super::wire::{get_snapshot_meta, pb, put_snapshot_meta};

const MAGIC: &[u8; 8] = b"HASPSNAP";
const VERSION: u32 = 1;
const FOOTER: u32 = u32::MAX;
const HASH_BYTES: usize = 8;
/// Longest record that is believed when a file is read.
const RECORD_BYTES_MAX: u32 = 64 << 20;
/// What is written at once.
const WRITE_BYTES: usize = 1 << 20;

/// A snapshot file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("snapshot {}: {reason}", file.display())]
pub struct SnapshotError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl SnapshotError {
    fn new(file: &Path, reason: impl ToString) -> Self {
        Self { file: file.into(), reason: reason.to_string() }
    }
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Writes a snapshot to `path`. Its contents are durable when this returns; its name is not.
///
/// # Errors
/// When the disk refuses, or a record is too long to be read back.
pub async fn write(
    disk: &dyn Disk,
    path: &Path,
    meta: &SnapshotMeta,
    records: &[Bytes],
) -> Result<(), SnapshotError> {
    write_to(disk, path, meta, records).await.map_err(|error| SnapshotError::new(path, error))
}

async fn write_to(disk: &dyn Disk, path: &Path, meta: &SnapshotMeta, records: &[Bytes]) -> io::Result<()> {
    let mut out = Out { file: disk.create(path).await?, buffer: BytesMut::new(), hash: Xxh3::new() };
    out.buffer.put_slice(MAGIC);
    out.buffer.put_u32_le(VERSION);
    let meta = Bytes::from(put_snapshot_meta(meta).encode_to_vec());
    for record in std::iter::once(&meta).chain(records) {
        let length = u32::try_from(record.len()).ok().filter(|length| *length <= RECORD_BYTES_MAX);
        out.buffer.put_u32_le(length.ok_or_else(|| io::Error::other("record too long"))?);
        out.buffer.put_u32_le(crc32fast::hash(record));
        out.buffer.put_slice(record);
        if out.buffer.len() >= WRITE_BYTES {
            out.flush().await?;
        }
    }
    out.buffer.put_u32_le(FOOTER);
    out.buffer.put_u64_le(records.len() as u64 + 1);
    out.flush().await?;
    let hash = out.hash.digest();
    out.buffer.put_u64_le(hash);
    out.flush().await?;
    out.file.sync().await
}

/// A file being written, and the hash of what went to it.
struct Out {
    file: Box<dyn DiskFile>,
    buffer: BytesMut,
    hash: Xxh3,
}

impl Out {
    async fn flush(&mut self) -> io::Result<()> {
        let bytes = self.buffer.split().freeze();
        self.hash.update(&bytes);
        self.file.write(bytes).await
    }
}

/// Reads and checks a whole snapshot file.
///
/// # Errors
/// When it is missing, of another format, damaged or cut short. The error names the file.
pub async fn read(disk: &dyn Disk, path: &Path) -> Result<(SnapshotMeta, Vec<Bytes>), SnapshotError> {
    let contents = disk.read(path).await.map_err(|error| SnapshotError::new(path, error))?;
    let mut records = parse(contents).map_err(|reason| SnapshotError::new(path, reason))?;
    if records.is_empty() {
        return Err(SnapshotError::new(path, "has no metadata"));
    }
    let meta =
        pb::SnapshotMeta::decode(records.remove(0)).map_err(|error| SnapshotError::new(path, error))?;
    let meta = get_snapshot_meta(meta).map_err(|error| SnapshotError::new(path, error))?;
    Ok((meta, records))
}

/// The records of a file, each with memory of its own: one that is kept must not keep the others.
fn parse(contents: Bytes) -> Result<Vec<Bytes>, String> {
    const CUT: &str = "is cut short";
    let mut rest = contents.clone();
    if !rest.starts_with(MAGIC) {
        return Err("is no snapshot file".to_owned());
    }
    rest.advance(MAGIC.len());
    match rest.try_get_u32_le().map_err(|_| CUT)? {
        VERSION => {}
        other => return Err(format!("has format version {other}, this program reads {VERSION}")),
    }
    let mut records = Vec::new();
    loop {
        let number = records.len();
        let length = rest.try_get_u32_le().map_err(|_| CUT)?;
        if length == FOOTER {
            break;
        }
        if length > RECORD_BYTES_MAX {
            return Err(format!("record {number} claims {length} bytes"));
        }
        let crc = rest.try_get_u32_le().map_err(|_| CUT)?;
        if rest.len() < length as usize {
            return Err(CUT.to_owned());
        }
        let record = rest.split_to(length as usize);
        if crc32fast::hash(&record) != crc {
            return Err(format!("record {number} is damaged"));
        }
        records.push(Bytes::copy_from_slice(&record));
    }
    let count = rest.try_get_u64_le().map_err(|_| CUT)?;
    let hashed = contents.len() - rest.len();
    if rest.len() < HASH_BYTES {
        return Err(CUT.to_owned());
    }
    if count != records.len() as u64 || rest.get_u64_le() != xxh3_64(&contents[..hashed]) {
        return Err("lacks records, or has them out of order".to_owned());
    }
    match rest.is_empty() {
        true => Ok(records),
        false => Err("goes on after its end".to_owned()),
    }
}

#[cfg(test)]
mod tests;
