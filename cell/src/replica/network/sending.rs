//! Sends a snapshot file to a follower.

use std::path::Path;
use std::time::Duration;

use futures_util::stream;
use hasp_rt::disk::Disk;
use openraft::RPCTypes;
use openraft::errors::{ErrorSource as _, NetworkError, StreamingError};
use openraft::impls::BoxedErrorSource;
use openraft::raft::SnapshotResponse;

use super::super::connect::Link;
use super::super::types::{SnapshotMeta, Types, Vote};
use super::super::wire::{self, pb};
use super::{malformed, rpc_error};

const CHUNK_BYTES: usize = 256 << 10;
/// What every snapshot is given, for connecting, checking and installing.
const DEADLINE_BASE: Duration = Duration::from_secs(30);
/// The slowest transfer that is waited for.
const BYTES_PER_SECOND_MIN: u64 = 4 << 20;

/// Streams the file at `path` and returns the follower's answer once it has installed it.
pub async fn send_snapshot(
    link: &Link,
    disk: &dyn Disk,
    vote: Vote,
    meta: &SnapshotMeta,
    path: &Path,
) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
    let unreadable = |error: std::io::Error| {
        // A newer snapshot has taken its place meanwhile: openraft tries again, with that one.
        if error.kind() == std::io::ErrorKind::NotFound {
            return StreamingError::Network(NetworkError::new(&error));
        }
        let source = BoxedErrorSource::from_error(&error);
        StreamingError::StorageError(openraft::StorageError::read_snapshot(Some(meta.signature()), source))
    };
    let mut contents = disk.read(path).await.map_err(unreadable)?;
    let length = contents.len() as u64;
    let header = pb::SnapshotHeader {
        addressed: Some(link.addressed()),
        vote: Some(wire::put_vote(&vote)),
        meta: Some(wire::put_snapshot_meta(meta)),
        length,
    };
    let header = pb::SnapshotChunk { part: Some(pb::snapshot_chunk::Part::Header(header)) };
    let rest = std::iter::from_fn(move || {
        let chunk = contents.split_to(contents.len().min(CHUNK_BYTES));
        let part = (!chunk.is_empty()).then_some(pb::snapshot_chunk::Part::Bytes(chunk))?;
        Some(pb::SnapshotChunk { part: Some(part) })
    });
    let chunks = stream::iter(std::iter::once(header).chain(rest));

    let deadline = DEADLINE_BASE + Duration::from_secs(length / BYTES_PER_SECOND_MIN);
    let answer = link.call(deadline, |mut client| async move { client.install_snapshot(chunks).await }).await;
    let answer = answer.map_err(|status| rpc_error(link, RPCTypes::InstallSnapshot, deadline, &status))?;
    Ok(SnapshotResponse::new(wire::get_vote(answer.vote).map_err(malformed)?))
}
