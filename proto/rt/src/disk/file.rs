//! The real disk. Each operation runs on tokio's pool of blocking threads.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this module is the disk")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Disk, DiskFile, DiskFuture, parent};

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileDisk;

/// Runs `work` where it may block; adds to an error what was done to which file.
fn blocking<'a, T: Send + 'static>(
    verb: &'static str,
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> DiskFuture<'a, T> {
    let path = path.to_owned();
    Box::pin(async move {
        let done = tokio::task::spawn_blocking(move || {
            work(&path)
                .map_err(|error| io::Error::new(error.kind(), format!("{verb} {}: {error}", path.display())))
        });
        done.await.map_err(io::Error::other)?
    })
}

impl Disk for FileDisk {
    fn read<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, Bytes> {
        blocking("read", path, |path| fs::read(path).map(Bytes::from))
    }

    fn size<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, u64> {
        blocking("look at", path, |path| Ok(fs::metadata(path)?.len()))
    }

    fn create<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, Box<dyn DiskFile>> {
        blocking("create", path, |path| {
            let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
            Ok(OpenFile::boxed(file, path))
        })
    }

    fn append<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, Box<dyn DiskFile>> {
        blocking("open", path, |path| {
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            Ok(OpenFile::boxed(file, path))
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> DiskFuture<'a, ()> {
        let to = to.to_owned();
        blocking("rename", from, move |from| fs::rename(from, to))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, ()> {
        blocking("remove", path, |path| fs::remove_file(path))
    }

    fn list<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, Vec<String>> {
        blocking("list", dir, list)
    }

    fn create_dir_all<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, ()> {
        blocking("create directory", dir, create_dir_all)
    }

    fn sync_dir<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, ()> {
        blocking("sync directory", dir, sync_dir)
    }
}

fn list(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// One level at a time, each made durable in the one above before anything is put into it.
fn create_dir_all(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = parent(dir);
    create_dir_all(above)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(above)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

struct OpenFile {
    file: Arc<File>,
    path: PathBuf,
}

impl OpenFile {
    fn boxed(file: File, path: &Path) -> Box<dyn DiskFile> {
        Box::new(Self { file: Arc::new(file), path: path.to_owned() })
    }
}

impl DiskFile for OpenFile {
    fn write(&mut self, contents: Bytes) -> DiskFuture<'_, ()> {
        let file = self.file.clone();
        blocking("write", &self.path, move |_| (&*file).write_all(&contents))
    }

    fn sync(&mut self) -> DiskFuture<'_, ()> {
        let file = self.file.clone();
        blocking("sync", &self.path, move |_| file.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_written_replaced_listed_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("one/two");
        let path = dir.join("mark");

        FileDisk.create_dir_all(&dir).await.unwrap();
        FileDisk.replace(&path, Bytes::from_static(b"old and long")).await.unwrap();
        FileDisk.replace(&path, Bytes::from_static(b"new")).await.unwrap();
        assert_eq!(FileDisk.read(&path).await.unwrap(), "new");
        assert_eq!(FileDisk.size(&path).await.unwrap(), 3);
        assert_eq!(FileDisk.list(&dir).await.unwrap(), ["mark"]);

        FileDisk.remove(&path).await.unwrap();
        assert!(FileDisk.list(&dir).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn appending_goes_on_at_the_end() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");

        for part in ["a", "b"] {
            let mut file = FileDisk.append(&path).await.unwrap();
            file.write(Bytes::from(part)).await.unwrap();
            file.sync().await.unwrap();
        }

        assert_eq!(FileDisk.read(&path).await.unwrap(), "ab");
    }

    #[tokio::test]
    async fn an_error_says_what_was_done_to_which_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("missing");

        let error = FileDisk.read(&path).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("missing") && error.to_string().contains("read"));
    }
}
