//! Small files with explicit durability: snapshots, marks, configuration of the system's own.
//!
//! Nothing is durable until [`DiskFile::sync`] and, for a new or renamed file,
//! [`Disk::sync_dir`] have returned. A failed sync means that the data may be lost, even if a
//! later sync succeeds (`P-STOP`): whoever sees one stops. The Raft log has a store of its own.

use std::io;
use std::path::Path;

use bytes::Bytes;
use futures_util::future::BoxFuture;

mod file;
mod mem;

pub use file::FileDisk;
pub use mem::{MemDisk, Operation};

/// The outcome of a disk operation, once it is there. Dropping it may leave the operation undone.
pub type DiskFuture<'a, T> = BoxFuture<'a, io::Result<T>>;

/// A tree of files.
pub trait Disk: Send + Sync {
    /// The whole file.
    fn read<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, Bytes>;

    /// How many bytes the file has.
    fn size<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, u64>;

    /// An empty file to write to; what was there under that name is cut to nothing.
    fn create<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, Box<dyn DiskFile>>;

    /// The file, made if missing, to write to at its end.
    fn append<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, Box<dyn DiskFile>>;

    /// Gives a file another name; takes the place of what had it. Durable after `sync_dir`.
    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> DiskFuture<'a, ()>;

    /// Removes a file. Durable after `sync_dir`.
    fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, ()>;

    /// Names of the files in a directory, sorted, without its subdirectories.
    fn list<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, Vec<String>>;

    /// Makes a directory and those around it, durably.
    fn create_dir_all<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, ()>;

    /// Makes durable which files the directory has, and under which names.
    fn sync_dir<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, ()>;

    /// Puts `contents` in the place of the file: after a crash it is all old or all new, and once
    /// this returns, new. Writes `<name>.tmp` beside it on the way.
    fn replace<'a>(&'a self, path: &'a Path, contents: Bytes) -> DiskFuture<'a, ()> {
        Box::pin(async move {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(".tmp");
            let temporary = path.with_file_name(name);
            let mut file = self.create(&temporary).await?;
            file.write(contents).await?;
            file.sync().await?;
            drop(file);
            self.rename(&temporary, path).await?;
            self.sync_dir(parent(path)).await
        })
    }
}

/// An open file that is written from front to back.
pub trait DiskFile: Send {
    /// Writes all of it at the end.
    fn write(&mut self, contents: Bytes) -> DiskFuture<'_, ()>;

    /// Makes durable what was written.
    fn sync(&mut self) -> DiskFuture<'_, ()>;
}

/// The directory that a file is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
