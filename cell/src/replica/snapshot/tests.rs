//! A snapshot file is read back whole or not at all.

use hasp_rt::disk::MemDisk;

use super::*;
use crate::replica::types::{StoredMembership, log_id};

const PATH: &str = "/snapshots/one";

fn meta() -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(log_id(3, 17)), last_membership: StoredMembership::default() }
}

fn records() -> Vec<Bytes> {
    vec![
        Bytes::from_static(b"first"),
        Bytes::new(),
        Bytes::from(vec![7; 3 << 20]),
        Bytes::from_static(b"last"),
    ]
}

async fn written(records: &[Bytes]) -> (MemDisk, Bytes) {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/snapshots")).await.unwrap();
    write(&disk, Path::new(PATH), &meta(), records).await.unwrap();
    let contents = disk.read(Path::new(PATH)).await.unwrap();
    (disk, contents)
}

async fn read_as(disk: &MemDisk, contents: Bytes) -> Result<(SnapshotMeta, Vec<Bytes>), SnapshotError> {
    disk.replace(Path::new(PATH), contents).await.unwrap();
    read(disk, Path::new(PATH)).await
}

#[tokio::test]
async fn a_snapshot_is_read_as_it_was_written() {
    let (disk, _) = written(&records()).await;

    let read = read(&disk, Path::new(PATH)).await.unwrap();

    assert_eq!(read, (meta(), records()));
}

#[tokio::test]
async fn every_damaged_byte_is_found_and_the_file_named() {
    let (disk, contents) = written(&[Bytes::from_static(b"first"), Bytes::from_static(b"second")]).await;
    for position in 0..contents.len() {
        let mut damaged = contents.to_vec();
        damaged[position] ^= 1;

        let refused = read_as(&disk, damaged.into()).await.unwrap_err();

        assert!(refused.to_string().contains(PATH), "{refused}");
    }
}

#[tokio::test]
async fn every_shorter_file_and_a_longer_one_are_refused() {
    let (disk, contents) = written(&[Bytes::from_static(b"first"), Bytes::from_static(b"second")]).await;
    for length in 0..contents.len() {
        assert!(read_as(&disk, contents.slice(..length)).await.is_err(), "cut at {length}");
    }

    let longer = [contents.as_ref(), b"x"].concat();
    assert!(read_as(&disk, longer.into()).await.is_err());
}

#[tokio::test]
async fn a_later_format_is_refused_by_its_number() {
    let (disk, contents) = written(&[]).await;
    let mut later = contents.to_vec();
    later[MAGIC.len()] = 9;

    let refused = read_as(&disk, later.into()).await.unwrap_err().to_string();

    assert!(refused.contains("format version 9, this program reads 1"), "{refused}");
}

#[tokio::test]
async fn a_missing_file_is_an_error_that_names_it() {
    let refused = read(&MemDisk::new(), Path::new(PATH)).await.unwrap_err();

    assert!(refused.to_string().contains(PATH), "{refused}");
}
