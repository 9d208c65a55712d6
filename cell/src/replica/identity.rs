//! Whose data directory this is.
//!
//! A directory belongs to one replica of one cell from the moment the replica joins it. The file that says so is
//! written when the cell is founded, or when a replica begins to rebuild; without it the directory is empty and the
//! replica has never promised anything to anybody. The file `rebuilding` beside it says that what was promised here
//! may have been lost with an earlier disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hasp_rt::disk::Disk;

const IDENTITY: &str = "replica.toml";
const REBUILDING: &str = "rebuilding";
const FORMAT: u32 = 1;

/// One replica of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cell's name.
    pub cell: String,
    /// The replica's id in it.
    pub id: u64,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "replica {} of cell {:?}", self.id, self.cell)
    }
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The operator pointed a replica at another one's directory.
    #[error("{} holds the data of {found}, not of {wanted}", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// Who owns it.
        found: Identity,
        /// Who wanted to use it.
        wanted: Identity,
    },
    /// The identity file is not one that this program writes.
    #[error("{} is unreadable: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory cannot be read or written.
    #[error("{}: {source}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// What a data directory says about the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Nothing was ever promised from here.
    None,
    /// The replica is a member of its cell.
    Member,
    /// The replica lost its disk and has not caught up yet.
    Rebuilding,
}

/// The data directory of one replica.
#[derive(Clone)]
pub struct Home {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    identity: Identity,
}

impl Home {
    /// The directory `dir` for the replica `identity`; created if it is missing.
    ///
    /// # Errors
    /// When it belongs to another replica, or cannot be read.
    pub async fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        identity: Identity,
    ) -> Result<(Self, Past), IdentityError> {
        let home = Self { disk, dir: dir.into(), identity };
        home.disk.create_dir_all(dir).await.map_err(|source| home.io(source))?;
        let rebuilding = home.read(REBUILDING).await?.is_some();
        let past = match home.identity().await? {
            Some(found) if found != home.identity => {
                return Err(IdentityError::Foreign { dir: dir.into(), found, wanted: home.identity });
            }
            _ if rebuilding => Past::Rebuilding,
            Some(_) => Past::Member,
            None => Past::None,
        };
        Ok((home, past))
    }

    /// Where the log is.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Where snapshots are.
    pub fn snapshot_dir(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    /// Marks the directory as a member's.
    ///
    /// # Errors
    /// When the file cannot be made durable.
    pub async fn claim(&self) -> io::Result<()> {
        let Identity { cell, id } = &self.identity;
        let text = format!(
            "# Whose data this directory holds. Written by hasp; do not edit.\n\
             format = {FORMAT}\ncell = {cell:?}\nid = {id}\n"
        );
        self.disk.replace(&self.dir.join(IDENTITY), text.into()).await
    }

    /// Marks the directory as one of a member that lost what it had promised.
    ///
    /// # Errors
    /// When the files cannot be made durable.
    pub async fn begin_rebuild(&self) -> io::Result<()> {
        let text =
            Bytes::from_static(b"This replica lost its disk. It does not vote until it has caught up.\n");
        self.disk.replace(&self.dir.join(REBUILDING), text).await?;
        self.claim().await
    }

    /// The replica has caught up.
    ///
    /// # Errors
    /// When the mark cannot be removed durably.
    pub async fn end_rebuild(&self) -> io::Result<()> {
        self.disk.remove(&self.dir.join(REBUILDING)).await?;
        self.disk.sync_dir(&self.dir).await
    }

    async fn read(&self, name: &str) -> Result<Option<Bytes>, IdentityError> {
        match self.disk.read(&self.dir.join(name)).await {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io(error)),
        }
    }

    async fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        let Some(contents) = self.read(IDENTITY).await? else { return Ok(None) };
        let unreadable = |reason| IdentityError::Unreadable { file: self.dir.join(IDENTITY), reason };
        parse(&String::from_utf8_lossy(&contents)).map(Some).map_err(unreadable)
    }

    fn io(&self, source: io::Error) -> IdentityError {
        IdentityError::Io { dir: self.dir.clone(), source }
    }
}

fn parse(text: &str) -> Result<Identity, String> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        let found = lines.find(|(name, _)| name.trim() == key);
        found.map(|(_, value)| value.trim()).ok_or_else(|| format!("it does not say its {key}"))
    };
    let format: u32 = value("format")?.parse().map_err(|_| "its format is no number".to_owned())?;
    if format != FORMAT {
        return Err(format!("its format is {format}, this program knows {FORMAT}"));
    }
    let cell = value("cell")?.trim_matches('"').to_owned();
    let id = value("id")?.parse().map_err(|_| "its id is no number".to_owned())?;
    Ok(Identity { cell, id })
}

#[cfg(test)]
mod tests {
    use hasp_rt::disk::MemDisk;

    use super::*;

    fn disk() -> Arc<dyn Disk> {
        Arc::new(MemDisk::new())
    }

    async fn open(disk: &Arc<dyn Disk>, cell: &str, id: u64) -> Result<(Home, Past), IdentityError> {
        Home::open(disk.clone(), Path::new("/data"), Identity { cell: cell.to_owned(), id }).await
    }

    #[tokio::test]
    async fn an_empty_directory_has_no_past() {
        let (_, past) = open(&disk(), "a", 1).await.unwrap();

        assert_eq!(past, Past::None);
    }

    #[tokio::test]
    async fn a_claimed_directory_is_refused_to_others_by_both_names() {
        let disk = disk();
        open(&disk, "a", 1).await.unwrap().0.claim().await.unwrap();

        let (_, past) = open(&disk, "a", 1).await.unwrap();
        let other_replica = open(&disk, "a", 2).await.err().unwrap().to_string();
        let other_cell = open(&disk, "b", 1).await.err().unwrap().to_string();

        assert_eq!(past, Past::Member);
        assert!(
            other_replica.contains("replica 1 of cell \"a\", not of replica 2 of cell \"a\""),
            "{other_replica}"
        );
        assert!(
            other_cell.contains("replica 1 of cell \"a\", not of replica 1 of cell \"b\""),
            "{other_cell}"
        );
    }

    #[tokio::test]
    async fn a_rebuild_is_remembered_until_it_ends() {
        let disk = disk();
        let (home, _) = open(&disk, "a", 1).await.unwrap();

        home.begin_rebuild().await.unwrap();
        let during = open(&disk, "a", 1).await.unwrap().1;
        home.end_rebuild().await.unwrap();
        let after = open(&disk, "a", 1).await.unwrap().1;

        assert_eq!((during, after), (Past::Rebuilding, Past::Member));
    }

    #[tokio::test]
    async fn an_unreadable_identity_is_an_error_that_names_the_file() {
        let disk = disk();
        disk.create_dir_all(Path::new("/data")).await.unwrap();
        disk.replace(&Path::new("/data").join(IDENTITY), "format = 1\ncell = \"a\"\n".into()).await.unwrap();

        let error = open(&disk, "a", 1).await.err().unwrap().to_string();

        assert!(error.contains(IDENTITY) && error.contains("its id"), "{error}");
    }
}
