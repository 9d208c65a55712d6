//! Applies committed entries to the machine, and keeps its snapshots: openraft's state machine.
//!
//! The machine lives behind one short private lock, shared with whoever reads applied state. A snapshot is taken from
//! an O(1) clone and written elsewhere, so applying goes on meanwhile. After a start the machine is what the snapshot
//! says; openraft then applies the log up to the last commit that was saved.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{Stream, StreamExt as _};
use hasp_rt::disk::Disk;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use super::machine::Machine;
use super::snapshot::{self, SnapshotError};
use super::types::{EntryPayload, LogId, Payload, Reply, Snapshot, SnapshotMeta, StoredMembership, Types};

/// The machine and how far it is.
struct State<M> {
    machine: M,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// What has been applied, shared by the applier and all readers.
pub struct Applied<M>(Arc<Mutex<State<M>>>);

impl<M> Clone for Applied<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Machine> Applied<M> {
    fn state(&self) -> MutexGuard<'_, State<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `f` with the machine and the index it has applied; 0 before the first entry. Entries wait meanwhile.
    pub fn read<R>(&self, f: impl FnOnce(&M, u64) -> R) -> R {
        let state = self.state();
        f(&state.machine, state.applied.map_or(0, |id| id.index))
    }

    /// The id of the last applied entry.
    pub fn log_id(&self) -> Option<LogId> {
        self.state().applied
    }
}

/// A whole snapshot file, checked.
pub struct SnapshotFile<M> {
    /// Where it is: the current snapshot, or a draft that came from the leader.
    pub path: PathBuf,
    /// What it holds, if it was read already.
    pub machine: Option<M>,
}

/// openraft's state machine over `M`.
pub struct Applier<M> {
    applied: Applied<M>,
    snapshots: Snapshots,
}

/// The directory of snapshots, of which one is current.
#[derive(Clone)]
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Changed by one at a time: an applier that installs, or a builder beside it.
    current: Arc<tokio::sync::Mutex<Option<(SnapshotMeta, PathBuf)>>>,
}

const SUFFIX: &str = ".snapshot";
const DRAFT: &str = ".tmp";

impl Snapshots {
    fn path_of(&self, meta: &SnapshotMeta) -> PathBuf {
        let (term, index) = meta.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
        self.dir.join(format!("{index:020}-{term:020}{SUFFIX}"))
    }

    /// Where a snapshot from the leader is put while it arrives. One at a time: a second one overwrites the first.
    pub fn incoming(&self) -> PathBuf {
        self.dir.join(format!("incoming{DRAFT}"))
    }

    /// Where the snapshots are.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Makes a draft the current snapshot, unless a newer one is, and removes the one before. Where the draft is now,
    /// if it is current.
    async fn adopt(&self, draft: &Path, meta: &SnapshotMeta) -> io::Result<Option<PathBuf>> {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|(newer, path)| newer.last_log_id > meta.last_log_id && path != draft)
        {
            self.disk.remove(draft).await?;
            return Ok(None);
        }
        let path = self.path_of(meta);
        if path != draft {
            self.disk.rename(draft, &path).await?;
            self.disk.sync_dir(&self.dir).await?;
        }
        let previous = current.replace((meta.clone(), path.clone()));
        if let Some((_, previous)) = previous
            && previous != path
        {
            self.disk.remove(&previous).await?;
            self.disk.sync_dir(&self.dir).await?;
        }
        Ok(Some(path))
    }

    /// The newest snapshot. Drafts that a crash left behind, and snapshots older than it, are removed.
    async fn newest(&self) -> io::Result<Option<PathBuf>> {
        self.disk.create_dir_all(&self.dir).await?;
        let names = self.disk.list(&self.dir).await?;
        let newest = names.iter().rfind(|name| name.ends_with(SUFFIX)).cloned();
        for name in names.iter().filter(|name| name.ends_with(SUFFIX) || name.ends_with(DRAFT)) {
            if Some(name) != newest.as_ref() {
                self.disk.remove(&self.dir.join(name)).await?;
            }
        }
        Ok(newest.map(|name| self.dir.join(name)))
    }
}

impl<M: Machine> Applier<M> {
    /// Loads the newest snapshot in `dir`, if there is one.
    ///
    /// # Errors
    /// When the snapshot is damaged or the directory cannot be read. Older snapshots are no substitute: the log they
    /// need is gone.
    pub async fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, SnapshotError> {
        let snapshots = Snapshots { disk, dir: dir.into(), current: Arc::default() };
        let failed = |error: io::Error| SnapshotError { file: dir.into(), reason: error.to_string() };
        let mut state =
            State { machine: M::default(), applied: None, membership: StoredMembership::default() };
        if let Some(path) = snapshots.newest().await.map_err(failed)? {
            let (meta, machine) = load(&*snapshots.disk, &path).await?;
            state = State { machine, applied: meta.last_log_id, membership: meta.last_membership.clone() };
            *snapshots.current.lock().await = Some((meta, path));
        }
        Ok(Self { applied: Applied(Arc::new(Mutex::new(state))), snapshots })
    }

    /// What has been applied.
    pub fn applied(&self) -> Applied<M> {
        self.applied.clone()
    }

    /// The snapshots.
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    fn apply_entry(state: &mut State<M>, id: LogId, payload: EntryPayload) -> io::Result<Reply> {
        let reply = match payload {
            EntryPayload::Blank => Reply::none(),
            EntryPayload::Membership(membership) => {
                state.membership = StoredMembership::new(Some(id), membership);
                Reply::none()
            }
            EntryPayload::Normal(Payload(bytes)) => {
                let outcomes = state.machine.apply(&bytes).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("apply entry {id}: {error}"))
                })?;
                Reply::of(outcomes)
            }
        };
        state.applied = Some(id);
        Ok(reply)
    }
}

/// Reads a snapshot file into a machine.
///
/// # Errors
/// When the file or a record in it cannot be read. The error names the file.
pub async fn load<M: Machine>(disk: &dyn Disk, path: &Path) -> Result<(SnapshotMeta, M), SnapshotError> {
    let (meta, records) = snapshot::read(disk, path).await?;
    let machine = M::from_snapshot(records.into_iter())
        .map_err(|error| SnapshotError { file: path.into(), reason: error.to_string() })?;
    Ok((meta, machine))
}

impl<M: Machine> RaftStateMachine<Types> for Applier<M> {
    type SnapshotData = SnapshotFile<M>;
    type SnapshotBuilder = Builder<M>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = self.applied.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let reply = Self::apply_entry(&mut self.applied.state(), entry.log_id, entry.payload)?;
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<M> {
        let state = self.applied.state();
        let meta = SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() };
        Builder { meta, machine: state.machine.clone(), snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: SnapshotFile<M>) -> io::Result<()> {
        let machine = match file.machine {
            Some(machine) => machine,
            None => load(&*self.snapshots.disk, &file.path).await?.1,
        };
        self.snapshots.adopt(&file.path, meta).await?;
        *self.applied.state() =
            State { machine, applied: meta.last_log_id, membership: meta.last_membership.clone() };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<SnapshotFile<M>>>> {
        let current = self.snapshots.current.lock().await.clone();
        Ok(current.map(|(meta, path)| Snapshot { meta, snapshot: SnapshotFile { path, machine: None } }))
    }
}

/// Writes one snapshot from a clone of the machine.
pub struct Builder<M> {
    meta: SnapshotMeta,
    machine: M,
    snapshots: Snapshots,
}

impl<M: Machine> RaftSnapshotBuilder<Types> for Builder<M> {
    type SnapshotData = SnapshotFile<M>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<SnapshotFile<M>>> {
        let draft = self.snapshots.path_of(&self.meta);
        let draft = draft.with_extension(format!("built{DRAFT}"));
        snapshot::write(&*self.snapshots.disk, &draft, &self.meta, &self.machine.write_snapshot()).await?;
        self.snapshots.adopt(&draft, &self.meta).await?;
        let path = self.snapshots.path_of(&self.meta);
        Ok(Snapshot { meta: self.meta.clone(), snapshot: SnapshotFile { path, machine: None } })
    }
}
