//! Files on a replica's own disk, after whatever may have happened to it.

#![allow(clippy::disallowed_methods, reason = "a replica's log stands on real files")]

use std::collections::BTreeSet;
use std::sync::OnceLock;

use hasp_cell::replica::readers::{self, LogRecord, RecordedLog};
use tempfile::TempDir;

use crate::protobuf::{Message, Value};
use crate::target::Verdict;

/// A snapshot file.
pub fn snapshot_file(contents: &[u8]) -> Verdict {
    match readers::snapshot_file(contents) {
        Ok(written) => {
            assert_eq!(
                readers::snapshot_file(&written).as_ref(),
                Ok(&written),
                "a file is read as it was written"
            );
            Verdict::taken("a snapshot")
        }
        Err(reason) => Verdict::refused(reason),
    }
}

/// The log that all inputs are made of.
pub fn recorded() -> &'static RecordedLog {
    static RECORDED: OnceLock<RecordedLog> = OnceLock::new();
    RECORDED.get_or_init(|| readers::record_log(scratch().path()))
}

/// In memory where there is such a place: of hundreds of logs, none is worth an fsync.
fn scratch() -> TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    dir.expect("there is room for a directory")
}

/// The files of a log: each field is the next one. It opens with entries that were written, or is refused.
pub fn raft_log(bytes: &[u8]) -> Verdict {
    let Some(files) = Message::parse(bytes) else { return Verdict::refused("no files") };
    let dir = scratch();
    let recorded = recorded();
    for (field, (name, _)) in files.0.iter().zip(&recorded.chunks) {
        if let Value::Bytes(contents) = &field.value {
            std::fs::write(dir.path().join(name), contents).expect("there is room for a file");
        }
    }
    let found = match readers::open_log(dir.path()) {
        Ok(found) => found,
        Err(error) => {
            let mut reason = error.to_string();
            if let Some(cause) = std::error::Error::source(&error) {
                reason.push_str(&format!(": {cause}"));
            }
            assert!(reason.contains(&*dir.path().to_string_lossy()), "it says where: {reason}");
            return Verdict::refused(reason.replace(&*dir.path().to_string_lossy(), ""));
        }
    };

    let steps = || recorded.steps.iter().map(|step| &step.contents);
    let written: BTreeSet<&LogRecord> = steps().flat_map(|contents| &contents.entries).collect();
    for record in &found.entries {
        assert!(written.contains(record), "{record:?} was never written");
    }
    assert!(steps().any(|contents| contents.vote == found.vote), "{:?} was never voted", found.vote);
    assert!(steps().any(|contents| contents.purged == found.purged), "{:?} was never purged", found.purged);
    assert!(steps().any(|contents| contents.committed == found.committed), "{:?}", found.committed);
    let first = found.purged.map_or(0, |(_, index)| index + 1);
    for (expected, record) in (first..).zip(&found.entries) {
        assert_eq!(record.index, expected, "no entry is missing between others");
    }
    match found.entries.len() {
        0 => Verdict::taken("opened, empty"),
        _ => Verdict::taken("opened"),
    }
}
