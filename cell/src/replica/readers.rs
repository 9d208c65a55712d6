//! What a replica reads that came from a peer or from its own disk, as plain functions of bytes, for fuzzing.

mod recorded;

use std::path::Path;

use bytes::Bytes;
use futures_util::FutureExt as _;
use hasp_rt::disk::{Disk as _, MemDisk};
use prost::Message as _;

pub use self::recorded::{LogContents, LogRecord, RecordedLog, Step, open_log, record_log};
use super::snapshot;
use super::wire::{self, pb};

/// Messages of `hasp.raft.v1` that carry something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Entries and heartbeats of the leader.
    Append,
    /// A follower's answer to them.
    AppendAnswer,
    /// A candidate asks for a vote.
    Vote,
    /// The answer.
    VoteAnswer,
    /// A leader hands over.
    Transfer,
    /// What a snapshot holds.
    SnapshotMeta,
}

impl PeerMessage {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Append, Self::AppendAnswer, Self::Vote, Self::VoteAnswer, Self::Transfer, Self::SnapshotMeta];

    /// Reads such a message and writes what was read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let text = |error: wire::Missing| error.to_string();
        let nobody = || pb::Addressed { cell: String::new(), from: 0, to: 0 };
        Ok(match self {
            Self::Append => {
                let request = wire::get_append(decode(bytes)?).map_err(text)?;
                wire::put_append(request, Some(nobody())).encode_to_vec()
            }
            Self::AppendAnswer => {
                let answer = wire::get_append_result(decode(bytes)?).map_err(text)?;
                wire::put_append_result(answer).encode_to_vec()
            }
            Self::Vote => {
                let request = wire::get_vote_request(decode(bytes)?).map_err(text)?;
                wire::put_vote_request(&request, nobody()).encode_to_vec()
            }
            Self::VoteAnswer => {
                let answer = wire::get_vote_response(decode(bytes)?).map_err(text)?;
                wire::put_vote_response(&answer).encode_to_vec()
            }
            Self::Transfer => {
                let request = wire::get_transfer(decode(bytes)?).map_err(text)?;
                wire::put_transfer(&request, nobody()).encode_to_vec()
            }
            Self::SnapshotMeta => {
                let meta = wire::get_snapshot_meta(decode(bytes)?).map_err(text)?;
                wire::put_snapshot_meta(&meta).encode_to_vec()
            }
        })
    }
}

fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, String> {
    M::decode(bytes).map_err(|error| error.to_string())
}

/// Reads a snapshot file, and writes what was read into another.
///
/// # Errors
/// What is wrong with it.
pub fn snapshot_file(contents: &[u8]) -> Result<Vec<u8>, String> {
    let (disk, path) = (MemDisk::new(), Path::new("/snapshot"));
    let rewrite = async {
        disk.replace(path, Bytes::copy_from_slice(contents)).await.map_err(|error| error.to_string())?;
        let (meta, records) = snapshot::read(&disk, path).await.map_err(|error| error.reason)?;
        snapshot::write(&disk, path, &meta, &records).await.map_err(|error| error.reason)?;
        disk.read(path).await.map_err(|error| error.to_string())
    };
    let contents = rewrite.now_or_never().expect("memory is there at once");
    contents.map(|contents| contents.to_vec())
}

/// A snapshot file with these records.
pub fn write_snapshot_file(records: &[Bytes]) -> Vec<u8> {
    let (disk, path) = (MemDisk::new(), Path::new("/snapshot"));
    let meta = recorded::snapshot_meta();
    let write = async {
        snapshot::write(&disk, path, &meta, records).await?;
        Ok::<_, snapshot::SnapshotError>(disk.read(path).await)
    };
    let contents = write.now_or_never().expect("memory is there at once");
    contents.expect("records are short").expect("just written").to_vec()
}
