//! A disk in memory that forgets what was not synced when it crashes, for tests and simulations.
//!
//! It is as unkind as a real one may be: contents are lost unless the file was synced, names
//! unless their directory was, and after a failed sync the data it was about never becomes
//! durable although later syncs succeed, as on Linux. It may be full for a while, slow to sync, and
//! leave a part of what was not synced. Never blocks, needs no threads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{Disk, DiskFile, DiskFuture, parent};

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening and reading.
    Read,
    /// Creating, writing, renaming and removing.
    Write,
    /// Syncing a file or a directory.
    Sync,
}

/// A clone is the same disk, as it is for a server that restarts.
#[derive(Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Contents>,
    /// Names as programs see them, and as they would be after a crash.
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    dirs: BTreeSet<PathBuf>,
    next_file: u64,
    crashes: u64,
    bytes_max: Option<usize>,
    sync_delay: Duration,
    fault: Option<(Operation, io::ErrorKind)>,
}

#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    /// What a crash leaves.
    durable: Vec<u8>,
    /// A sync failed: what was written until then will never be durable.
    is_lost: bool,
}

impl Contents {
    fn tear(&mut self, per_mille: usize) {
        let is_longer = self.bytes.starts_with(&self.durable) && !self.is_lost;
        let torn = if is_longer { (self.bytes.len() - self.durable.len()) * per_mille / 1_000 } else { 0 };
        self.bytes.truncate(self.durable.len() + torn);
        if torn == 0 {
            self.bytes = self.durable.clone();
        }
        self.durable = self.bytes.clone();
        self.is_lost = false;
    }
}

impl MemDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Power loss: keeps only what was synced. Files open until then give errors for ever.
    pub fn crash(&self) {
        self.crash_torn(0);
    }

    /// As [`crash`](Self::crash), but of what was written at a file's end and not synced the first bytes survive: so
    /// many of a thousand.
    pub fn crash_torn(&self, per_mille: usize) {
        let mut state = self.state();
        state.crashes += 1;
        state.names = state.durable_names.clone();
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        state.files.retain(|id, _| named.contains(id));
        for file in state.files.values_mut() {
            file.tear(per_mille);
        }
    }

    /// Makes every such operation fail with `error` until [`heal`](Self::heal).
    pub fn fail(&self, operation: Operation, error: io::ErrorKind) {
        self.state().fault = Some((operation, error));
    }

    /// Ends [`fail`](Self::fail).
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// Writes that would make all files together larger than this find the disk full.
    pub fn limit(&self, bytes_max: usize) {
        self.state().bytes_max = Some(bytes_max);
    }

    /// Ends [`limit`](Self::limit).
    pub fn make_room(&self) {
        self.state().bytes_max = None;
    }

    /// From now on a sync of a file takes so long.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.state().sync_delay = delay;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, path: &Path, mode: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.check(Operation::Write)?;
        let id = state.open(path, mode)?;
        let crashes = state.crashes;
        Ok(Box::new(MemFile { disk: self.clone(), id, crashes }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Empty,
    AtEnd,
}

impl State {
    fn check(&self, operation: Operation) -> io::Result<()> {
        match self.fault {
            Some((failing, error)) if failing == operation => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn open(&mut self, path: &Path, mode: Open) -> io::Result<u64> {
        let dir = parent(path);
        if dir != Path::new(".") && dir != Path::new("/") && !self.dirs.contains(dir) {
            return Err(missing(dir));
        }
        let id = match self.names.get(path) {
            Some(id) => *id,
            None => {
                self.next_file += 1;
                self.files.insert(self.next_file, Contents::default());
                self.names.insert(path.to_owned(), self.next_file);
                self.next_file
            }
        };
        if mode == Open::Empty {
            self.file(id)?.bytes.clear();
        }
        Ok(id)
    }

    fn id(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| missing(path))
    }

    fn file(&mut self, id: u64) -> io::Result<&mut Contents> {
        self.files.get_mut(&id).ok_or_else(|| io::Error::other("the file is gone"))
    }

    fn write(&mut self, id: u64, contents: &[u8]) -> io::Result<()> {
        self.check(Operation::Write)?;
        let used: usize = self.files.values().map(|file| file.bytes.len()).sum();
        if self.bytes_max.is_some_and(|most| used + contents.len() > most) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file(id)?.bytes.extend_from_slice(contents);
        Ok(())
    }

    fn sync(&mut self, id: u64) -> io::Result<()> {
        let checked = self.check(Operation::Sync);
        let file = self.file(id)?;
        file.is_lost |= checked.is_err();
        if !file.is_lost {
            file.durable = file.bytes.clone();
        }
        checked
    }

    fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.check(Operation::Sync)?;
        self.durable_names.retain(|path, _| parent(path) != dir);
        let present = self.names.iter().filter(|(path, _)| parent(path) == dir);
        self.durable_names.extend(present.map(|(path, id)| (path.clone(), *id)));
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Operation::Write)?;
        let id = self.names.remove(from).ok_or_else(|| missing(from))?;
        self.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.check(Operation::Read)?;
        let inside = self.names.keys().filter(|path| parent(path) == dir);
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

/// What has already happened, as a future.
fn done<'a, T: Send + 'a>(result: io::Result<T>) -> DiskFuture<'a, T> {
    Box::pin(std::future::ready(result))
}

impl Disk for MemDisk {
    fn read<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, Bytes> {
        let mut state = self.state();
        let read = state.check(Operation::Read).and_then(|()| state.id(path));
        done(read.and_then(|id| Ok(Bytes::copy_from_slice(&state.file(id)?.bytes))))
    }

    fn size<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, u64> {
        let mut state = self.state();
        let read = state.check(Operation::Read).and_then(|()| state.id(path));
        done(read.and_then(|id| Ok(state.file(id)?.bytes.len() as u64)))
    }

    fn create<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, Box<dyn DiskFile>> {
        done(self.open(path, Open::Empty))
    }

    fn append<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, Box<dyn DiskFile>> {
        done(self.open(path, Open::AtEnd))
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> DiskFuture<'a, ()> {
        done(self.state().rename(from, to))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, ()> {
        let mut state = self.state();
        let checked = state.check(Operation::Write);
        done(checked.and_then(|()| state.names.remove(path).map(drop).ok_or_else(|| missing(path))))
    }

    fn list<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, Vec<String>> {
        done(self.state().list(dir))
    }

    fn create_dir_all<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, ()> {
        let mut state = self.state();
        let checked = state.check(Operation::Write);
        if checked.is_ok() {
            state.dirs.extend(dir.ancestors().map(Path::to_owned));
        }
        done(checked)
    }

    fn sync_dir<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, ()> {
        done(self.state().sync_dir(dir))
    }
}

struct MemFile {
    disk: MemDisk,
    id: u64,
    /// How many crashes there had been when it was opened.
    crashes: u64,
}

impl MemFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.crashes != self.crashes {
            return Err(io::Error::other("opened before the crash"));
        }
        Ok(state)
    }
}

impl DiskFile for MemFile {
    fn write(&mut self, contents: Bytes) -> DiskFuture<'_, ()> {
        done(self.state().and_then(|mut state| state.write(self.id, &contents)))
    }

    fn sync(&mut self) -> DiskFuture<'_, ()> {
        let delay = self.disk.state().sync_delay;
        if delay.is_zero() {
            return done(self.state().and_then(|mut state| state.sync(self.id)));
        }
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            self.state().and_then(|mut state| state.sync(self.id))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: &str = "/d";

    fn path() -> &'static Path {
        Path::new("/d/file")
    }

    async fn disk() -> MemDisk {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new(DIR)).await.unwrap();
        disk
    }

    async fn put(disk: &MemDisk, contents: &'static str) -> Box<dyn DiskFile> {
        let mut file = disk.append(path()).await.unwrap();
        file.write(Bytes::from_static(contents.as_bytes())).await.unwrap();
        file
    }

    async fn read(disk: &MemDisk) -> Result<Bytes, io::ErrorKind> {
        disk.read(path()).await.map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn a_crash_loses_what_was_written_after_the_last_sync() {
        let disk = disk().await;
        let mut file = put(&disk, "kept").await;
        file.sync().await.unwrap();
        disk.sync_dir(Path::new(DIR)).await.unwrap();
        put(&disk, " lost").await;
        assert_eq!(read(&disk).await.unwrap(), "kept lost");

        disk.crash();

        assert_eq!(read(&disk).await.unwrap(), "kept");
    }

    #[tokio::test]
    async fn a_crash_loses_a_new_file_whose_directory_was_not_synced() {
        let disk = disk().await;
        put(&disk, "contents").await.sync().await.unwrap();

        disk.crash();

        assert_eq!(read(&disk).await, Err(io::ErrorKind::NotFound));
    }

    #[tokio::test]
    async fn a_replaced_file_is_new_after_a_crash_and_an_interrupted_one_old() {
        let disk = disk().await;
        disk.replace(path(), Bytes::from_static(b"first")).await.unwrap();
        disk.replace(path(), Bytes::from_static(b"second")).await.unwrap();
        disk.crash();
        assert_eq!(read(&disk).await.unwrap(), "second");

        disk.fail(Operation::Sync, io::ErrorKind::Other);
        disk.replace(path(), Bytes::from_static(b"third")).await.unwrap_err();
        disk.crash();

        assert_eq!(read(&disk).await.unwrap(), "second");
    }

    #[tokio::test]
    async fn data_of_a_failed_sync_is_lost_although_the_next_sync_succeeds() {
        let disk = disk().await;
        let mut file = put(&disk, "data").await;
        disk.sync_dir(Path::new(DIR)).await.unwrap();
        disk.fail(Operation::Sync, io::ErrorKind::Other);
        file.sync().await.unwrap_err();

        disk.heal();
        file.sync().await.unwrap();
        disk.crash();

        assert_eq!(read(&disk).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_full_disk_refuses_to_write() {
        let disk = disk().await;
        disk.limit(4);
        let mut file = put(&disk, "1234").await;

        let error = file.write(Bytes::from_static(b"5")).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[tokio::test]
    async fn a_disk_that_was_full_takes_more_once_there_is_room() {
        let disk = disk().await;
        disk.limit(0);
        let mut file = disk.append(path()).await.unwrap();
        file.write(Bytes::from_static(b"1")).await.unwrap_err();

        disk.make_room();

        file.write(Bytes::from_static(b"1")).await.unwrap();
    }

    #[tokio::test]
    async fn a_torn_file_keeps_what_was_synced_and_a_part_of_the_rest() {
        let disk = disk().await;
        let mut file = put(&disk, "kept").await;
        file.sync().await.unwrap();
        disk.sync_dir(Path::new(DIR)).await.unwrap();
        put(&disk, "-torn").await;

        disk.crash_torn(500);

        assert_eq!(read(&disk).await.unwrap(), "kept-t");
        disk.crash();
        assert_eq!(read(&disk).await.unwrap(), "kept-t");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_sync_is_not_durable_before_its_time() {
        let disk = disk().await;
        disk.set_sync_delay(Duration::from_millis(100));
        let mut file = put(&disk, "slow").await;
        disk.sync_dir(Path::new(DIR)).await.unwrap();

        let early = tokio::time::timeout(Duration::from_millis(99), file.sync()).await;

        assert!(early.is_err());
        disk.crash();
        assert_eq!(read(&disk).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_file_opened_before_a_crash_cannot_be_written_after_it() {
        let disk = disk().await;
        let mut file = put(&disk, "x").await;

        disk.crash();

        assert!(file.write(Bytes::from_static(b"y")).await.is_err());
    }

    #[tokio::test]
    async fn files_are_listed_by_directory_and_can_be_removed() {
        let disk = disk().await;
        put(&disk, "x").await;
        disk.create_dir_all(Path::new("/d/sub")).await.unwrap();
        disk.replace(Path::new("/d/sub/inner"), Bytes::new()).await.unwrap();
        assert_eq!(disk.list(Path::new(DIR)).await.unwrap(), ["file"]);

        disk.remove(path()).await.unwrap();

        assert!(disk.list(Path::new(DIR)).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_file_needs_its_directory() {
        let error = MemDisk::new().create(path()).await.err().unwrap();

        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
