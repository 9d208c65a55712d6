//! What replicas say to one another, and what is on their disks.

use bytes::Bytes;
use hasp_cell::replica::readers::{PeerMessage, write_snapshot_file};

use crate::protobuf::{Field, Message};
use crate::targets::disk::recorded;

type Named = (&'static str, Vec<u8>);

fn message(fields: impl IntoIterator<Item = Field>) -> Vec<u8> {
    Message(fields.into_iter().collect()).encode()
}

fn log_id(term: u64, index: u64) -> Vec<u8> {
    message([Field::varint(1, term), Field::varint(2, index)])
}

fn vote() -> Vec<u8> {
    message([Field::varint(1, 3), Field::varint(2, 2), Field::varint(3, 1)])
}

/// One of each message.
pub fn peers() -> Vec<Named> {
    let entries = &recorded().steps.last().expect("it has steps").contents.entries;
    let first =
        recorded().steps.iter().find_map(|step| step.contents.entries.first()).expect("it has entries");
    let addressed =
        || Field::bytes(1, message([Field::bytes(1, *b"a"), Field::varint(2, 1), Field::varint(3, 2)]));
    let mut append = vec![
        addressed(),
        Field::bytes(2, vote()),
        Field::bytes(3, log_id(1, 1)),
        Field::bytes(4, log_id(2, 3)),
    ];
    append.extend(entries.iter().map(|entry| Field::bytes(5, entry.payload.clone())));
    let begin = [addressed(), Field::bytes(2, vote()), Field::bytes(5, first.payload.clone())];
    let request = [addressed(), Field::bytes(2, vote()), Field::bytes(3, log_id(2, 4)), Field::varint(4, 1)];
    let answer = [Field::bytes(1, vote()), Field::varint(2, 1), Field::bytes(3, log_id(2, 4))];
    let transfer = [addressed(), Field::bytes(2, vote()), Field::varint(3, 2), Field::bytes(4, log_id(2, 4))];
    let member = message([Field::varint(1, 1), Field::bytes(2, *b"r1:1")]);
    let set = message([Field::bytes(1, [1])]);
    let membership = message([Field::bytes(1, set), Field::bytes(2, member)]);
    let meta = [Field::bytes(1, log_id(2, 9)), Field::bytes(2, log_id(1, 0)), Field::bytes(3, membership)];
    let of = |kind: PeerMessage, body: Vec<u8>| {
        let number = PeerMessage::ALL.iter().position(|other| *other == kind).expect("one of all") as u32 + 1;
        message([Field::bytes(number, body)])
    };
    vec![
        ("append", of(PeerMessage::Append, message(append))),
        ("append-first", of(PeerMessage::Append, message(begin))),
        (
            "matching",
            of(
                PeerMessage::AppendAnswer,
                message([Field::bytes(1, message([Field::bytes(1, log_id(2, 4))]))]),
            ),
        ),
        ("conflict", of(PeerMessage::AppendAnswer, message([Field::bytes(2, log_id(2, 4))]))),
        ("higher-vote", of(PeerMessage::AppendAnswer, message([Field::bytes(3, vote())]))),
        ("vote", of(PeerMessage::Vote, message(request))),
        ("vote-answer", of(PeerMessage::VoteAnswer, message(answer))),
        ("transfer", of(PeerMessage::Transfer, message(transfer))),
        ("snapshot-meta", of(PeerMessage::SnapshotMeta, message(meta))),
    ]
}

/// Snapshot files.
pub fn snapshot_files() -> Vec<Named> {
    let records = [Bytes::from_static(b"first"), Bytes::new(), Bytes::from_static(b"last")];
    vec![("empty", write_snapshot_file(&[])), ("records", write_snapshot_file(&records))]
}

/// A whole log, and one whose tail is torn.
pub fn raft_logs() -> Vec<Named> {
    let files = |count: usize, cut: usize| {
        let chunks = &recorded().chunks[..count];
        message(chunks.iter().enumerate().map(|(at, (_, contents))| {
            let length = if at + 1 == count { contents.len() - cut } else { contents.len() };
            Field::bytes(1, &contents[..length])
        }))
    };
    let all = recorded().chunks.len();
    vec![
        ("whole", files(all, 0)),
        ("torn", files(all, 5)),
        ("first-file", files(1, 0)),
        ("nothing", Vec::new()),
    ]
}
