//! Inputs that corpora begin with: one of everything that a target takes.

mod crossing;
mod disk;
mod log;
mod messages;
mod stories;

use crate::corpus::Input;
use crate::target::Target;

/// The seeds of a target, by name.
pub fn of(target: &Target) -> Vec<Input> {
    let inputs = match target.name {
        "upwards" => messages::upwards(),
        "downwards" => messages::downwards(),
        "locate" => vec![("map", messages::locate())],
        "host" => stories::host(),
        "holder" => stories::holder(),
        "master" => stories::master(),
        "handle" => messages::handles(),
        "sequencer" => messages::sequencers(),
        "sequencer-text" => messages::sequencer_texts(),
        "name" => messages::names(),
        "raft" => disk::peers(),
        "snapshot-file" => disk::snapshot_files(),
        "raft-log" => disk::raft_logs(),
        "log-entry" => log::entries(),
        "apply" => log::histories(),
        "snapshot" => log::snapshots(),
        "acl-file" => vec![
            ("nobody", Vec::new()),
            ("everybody", b"*\n".to_vec()),
            ("some", b"# who may\nadmin\n  someone # since then\r\n\nanother one\n".to_vec()),
        ],
        "quota-file" => vec![
            ("none", b"# none\n".to_vec()),
            ("both", b"/ls/dev nodes=8 bytes=1000\n/ls/dev/x bytes=0\n".to_vec()),
            ("one", b"  /ls/dev/b nodes=18446744073709551615 # much\n".to_vec()),
        ],
        "partition-file" => vec![
            ("one", b"version 1\n/ls/dev a\ncell a\n".to_vec()),
            (
                "ring",
                b"# ours\nversion 2\n/ls/dev a\n/ls/dev/x b # b's\n/ls/dev/x/* a,b\ncell a h:1,h:2\ncell b h:1\n".to_vec(),
            ),
            ("quoted", b"version 3\n/ls/dev a\n\"/ls/dev/a \\\"b/*\" b a\ncell a\ncell b\n".to_vec()),
        ],
        other => panic!("no seeds for {other}"),
    };
    inputs.into_iter().map(|(name, bytes)| Input { name: format!("seed-{name}"), bytes }).collect()
}
