//! How votes and entries are laid out in raft-log's records, which carry a checksum of their own.

use std::cmp::Ordering;
use std::io::{self, Read, Write};

use bytes::Bytes;
use raft_log::codeq::{Decode, Encode};

use super::Flushed;
use crate::replica::types::{EntryPayload, Payload, Vote};
use crate::replica::wire::{get_membership, pb, put_membership};

/// Longest payload that is believed when a record is read. A damaged length must not ask for gigabytes.
const PAYLOAD_BYTES_MAX: u32 = 64 << 20;

/// raft-log's types.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogTypes;

impl raft_log::Types for LogTypes {
    /// Term and index.
    type LogId = (u64, u64);
    type LogPayload = StoredPayload;
    type Vote = StoredVote;
    type Callback = Flushed;
    type UserData = ();

    fn log_index(log_id: &Self::LogId) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &StoredPayload) -> u64 {
        payload.bytes.len() as u64
    }
}

/// A vote, ordered as openraft orders it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVote(pub Vote);

impl PartialOrd for StoredVote {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.0.partial_cmp(&other.0)
    }
}

impl Encode for StoredVote {
    fn encode<W: Write>(&self, mut writer: W) -> io::Result<usize> {
        let Vote { leader_id, committed } = &self.0;
        let mut written = leader_id.term.encode(&mut writer)?;
        written += leader_id.voted_for.encode(&mut writer)?;
        written += u8::from(*committed).encode(&mut writer)?;
        Ok(written)
    }
}

impl Decode for StoredVote {
    fn decode<R: Read>(mut reader: R) -> io::Result<Self> {
        let term = u64::decode(&mut reader)?;
        let node = u64::decode(&mut reader)?;
        Ok(Self(match u8::decode(&mut reader)? {
            0 => Vote::new(term, node),
            1 => Vote::new_committed(term, node),
            other => return Err(invalid(format!("vote with mark {other}"))),
        }))
    }
}

/// What kind of entry the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blank = 0,
    Command = 1,
    Membership = 2,
}

/// The payload of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPayload {
    kind: Kind,
    bytes: Bytes,
}

/// The stored form of an entry's payload.
pub fn to_stored(payload: EntryPayload) -> StoredPayload {
    match payload {
        EntryPayload::Blank => StoredPayload { kind: Kind::Blank, bytes: Bytes::new() },
        EntryPayload::Normal(Payload(bytes)) => StoredPayload { kind: Kind::Command, bytes },
        EntryPayload::Membership(membership) => StoredPayload {
            kind: Kind::Membership,
            bytes: prost::Message::encode_to_vec(&put_membership(&membership)).into(),
        },
    }
}

/// The payload of an entry from its stored form.
///
/// # Errors
/// When a membership cannot be decoded although the record's checksum was right.
pub fn from_stored(payload: StoredPayload) -> io::Result<EntryPayload> {
    Ok(match payload.kind {
        Kind::Blank => EntryPayload::Blank,
        Kind::Command => EntryPayload::Normal(Payload(payload.bytes)),
        Kind::Membership => {
            let message = <pb::Membership as prost::Message>::decode(payload.bytes)
                .map_err(|error| invalid(error.to_string()))?;
            EntryPayload::Membership(get_membership(message).map_err(|error| invalid(error.to_string()))?)
        }
    })
}

impl Encode for StoredPayload {
    fn encode<W: Write>(&self, mut writer: W) -> io::Result<usize> {
        let length = u32::try_from(self.bytes.len()).map_err(|_| invalid("entry over 4 GiB".to_owned()))?;
        let mut written = (self.kind as u8).encode(&mut writer)?;
        written += length.encode(&mut writer)?;
        writer.write_all(&self.bytes)?;
        Ok(written + self.bytes.len())
    }
}

impl Decode for StoredPayload {
    fn decode<R: Read>(mut reader: R) -> io::Result<Self> {
        let kind = match u8::decode(&mut reader)? {
            0 => Kind::Blank,
            1 => Kind::Command,
            2 => Kind::Membership,
            other => return Err(invalid(format!("entry of kind {other}"))),
        };
        let length = u32::decode(&mut reader)?;
        if length > PAYLOAD_BYTES_MAX {
            return Err(invalid(format!("entry of {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        reader.read_exact(&mut bytes)?;
        Ok(Self { kind, bytes: bytes.into() })
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
