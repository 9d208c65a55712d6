//! The targets, one file for each kind of reader.

pub(crate) mod disk;
pub(crate) mod files;
pub(crate) mod holder;
pub(crate) mod host;
pub(crate) mod master;
mod names;
mod peers;
pub(crate) mod script;
pub(crate) mod state;
mod stream;
pub(crate) mod tokens;

use crate::target::{Shape, Target};

/// Words that names are made of, and some that they must not be made of.
const NAME_WORDS: Shape = Shape::Text(&[
    "/ls/", "/", "//", ".", "..", "/dev", "acl", ".hasp", "a", "é", "\0", "\u{7f}", " ", "\u{202e}",
]);

pub static ALL: &[Target] = &[
    Target { name: "upwards", run: stream::upwards, shape: Shape::Messages, fresh: 3_000 },
    Target { name: "downwards", run: stream::downwards, shape: Shape::Messages, fresh: 3_000 },
    Target { name: "locate", run: stream::locate, shape: Shape::Messages, fresh: 2_000 },
    Target { name: "host", run: host::run, shape: Shape::Messages, fresh: 2_000 },
    Target { name: "holder", run: holder::run, shape: Shape::Messages, fresh: 2_000 },
    Target { name: "master", run: master::run, shape: Shape::Messages, fresh: 500 },
    Target { name: "handle", run: tokens::handle, shape: Shape::Messages, fresh: 3_000 },
    Target { name: "sequencer", run: tokens::sequencer, shape: Shape::Messages, fresh: 3_000 },
    Target {
        name: "sequencer-text",
        run: tokens::sequencer_text,
        shape: Shape::Text(&["hasp1.", "hasp2.", "00", "ff", "F", "0", "."]),
        fresh: 3_000,
    },
    Target { name: "raft", run: peers::raft, shape: Shape::Messages, fresh: 2_000 },
    Target { name: "log-entry", run: state::entry, shape: Shape::Messages, fresh: 3_000 },
    Target { name: "apply", run: state::apply, shape: Shape::Messages, fresh: 200 },
    Target { name: "snapshot", run: state::snapshot, shape: Shape::Messages, fresh: 800 },
    Target { name: "snapshot-file", run: disk::snapshot_file, shape: Shape::Bytes, fresh: 3_000 },
    Target { name: "raft-log", run: disk::raft_log, shape: Shape::Messages, fresh: 150 },
    Target {
        name: "acl-file",
        run: files::acl,
        shape: Shape::Text(&["*", "#", "\n", "\r\n", " ", "\t", "admin", "someone", "\u{7f}", "**"]),
        fresh: 300,
    },
    Target {
        name: "quota-file",
        run: files::quotas,
        shape: Shape::Text(&[
            "/ls/dev",
            "/x",
            "nodes=",
            "bytes=",
            "0",
            "1",
            "-",
            "18446744073709551615",
            "9",
            "#",
            "\n",
            " ",
            "=",
        ]),
        fresh: 300,
    },
    Target {
        name: "partition-file",
        run: names::partition_file,
        shape: Shape::Text(&[
            "version ", "1", "/ls/dev", "/x", "/*", " a", " b", ",", "cell ", "h:1", "\"", "\\", "#", "\n",
            " ", "\u{a0}",
        ]),
        fresh: 3_000,
    },
    Target { name: "name", run: names::name, shape: NAME_WORDS, fresh: 3_000 },
];
