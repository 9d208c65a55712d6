//! Takes a snapshot file from the leader. Nothing of it is believed before all of it has been checked.

use tonic::{Status, Streaming};

use super::super::applier::{self, SnapshotFile, Snapshots};
use super::super::machine::Machine;
use super::super::types::Snapshot;
use super::super::wire::{self, pb};

/// The first message of a snapshot.
pub async fn header(chunks: &mut Streaming<pb::SnapshotChunk>) -> Result<pb::SnapshotHeader, Status> {
    match chunks.message().await?.and_then(|chunk| chunk.part) {
        Some(pb::snapshot_chunk::Part::Header(header)) => Ok(header),
        _ => Err(wire::Missing("a snapshot's header").into()),
    }
}

/// Writes the chunks to a draft, checks it and reads it.
pub async fn receive<M: Machine>(
    snapshots: &Snapshots,
    header: pb::SnapshotHeader,
    mut chunks: Streaming<pb::SnapshotChunk>,
) -> Result<Snapshot<SnapshotFile<M>>, Status> {
    let failed = |error: std::io::Error| Status::internal(format!("take a snapshot: {error}"));
    let announced = wire::get_snapshot_meta(header.meta.ok_or(wire::Missing("a snapshot's metadata"))?)?;

    let (disk, path) = (snapshots.disk(), snapshots.incoming());
    let mut draft = disk.create(&path).await.map_err(failed)?;
    let mut received = 0;
    while let Some(chunk) = chunks.message().await? {
        let Some(pb::snapshot_chunk::Part::Bytes(bytes)) = chunk.part else {
            return Err(wire::Missing("a snapshot's bytes").into());
        };
        received += bytes.len() as u64;
        if received > header.length {
            break;
        }
        draft.write(bytes).await.map_err(failed)?;
    }
    if received != header.length {
        return Err(Status::data_loss(format!("snapshot of {} bytes came as {received}", header.length)));
    }
    draft.sync().await.map_err(failed)?;
    drop(draft);
    let loaded = applier::load::<M>(&**disk, &path).await;
    let (meta, machine) = loaded.map_err(|error| Status::data_loss(error.to_string()))?;
    if meta != announced {
        return Err(Status::data_loss("the snapshot is not the one that was announced"));
    }
    Ok(Snapshot { meta, snapshot: SnapshotFile { path, machine: Some(machine) } })
}
