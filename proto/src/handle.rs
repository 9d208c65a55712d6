//! Handles: opaque to applications, self-describing to routers, proof against forgery at cells
//! (design §4.3, paper §2.3).
//!
//! A token is the encoded [`HandleBody`] followed by 16 check bytes: HMAC-SHA256 under the cell's
//! replicated key, truncated. Routers read the body to find the cell; only the cell can tell
//! whether it is true. Whatever a fresh master needs to honour the handle is in it.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::Sha256;

use crate::event::EventMask;
use crate::id::{CellName, Epoch, Instance, RequestNumber, SessionId};
use crate::name::Name;
use crate::node::NodeKind;
use crate::request::Use;
use crate::sequencer::{SEQUENCER_BYTES_MAX, SequencerBody, SequencerToken};
use crate::time::micros;
use crate::wire::v1;

/// Length of the check digits, in bytes.
pub(crate) const CHECK_BYTES: usize = 16;
/// Longest token: a name at its limit plus the fixed fields.
const TOKEN_BYTES_MAX: usize = crate::limits::NAME_BYTES_MAX + 256;

/// A handle as it travels.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HandleToken(Bytes);

impl HandleToken {
    /// Takes bytes from the wire, unchecked.
    pub const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The token's bytes.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// What the token claims to be. Good for routing, proves nothing.
    pub fn claimed_body(&self) -> Option<HandleBody> {
        if self.0.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let body = self.0.len().checked_sub(CHECK_BYTES)?;
        HandleBody::decode(&self.0[..body])
    }
}

impl fmt::Debug for HandleToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.claimed_body() {
            Some(body) => write!(f, "handle({} #{} by {})", body.name, body.instance, body.opened_by),
            None => write!(f, "handle({} bytes of nonsense)", self.0.len()),
        }
    }
}

/// What a handle says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandleBody {
    /// The cell that made it.
    pub cell: CellName,
    /// Of the node.
    pub name: Name,
    /// The node it is bound to; a later node of the same name is another.
    pub instance: Instance,
    /// File or directory.
    pub kind: NodeKind,
    /// What it may be used for.
    pub r#use: Use,
    /// Whose it is.
    pub session: SessionId,
    /// The `Open` that made it: tells apart the handles of one session.
    pub opened_by: RequestNumber,
    /// The mastership that made it.
    pub epoch: Epoch,
    /// Lock-delay of locks held by it.
    pub lock_delay: Duration,
    /// What it is told of the node.
    pub events: EventMask,
    /// It keeps the node in being: the cell has it on record.
    pub ephemeral: bool,
}

/// What a token is, so that none can be taken for one of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Handle = 1,
    Sequencer = 2,
}

impl HandleBody {
    fn encode(&self) -> Vec<u8> {
        v1::HandleBody {
            cell: self.cell.as_str().to_owned(),
            name: self.name.as_str().to_owned(),
            instance: self.instance.0,
            r#use: v1::open::Use::from(self.r#use).into(),
            session: self.session.to_bytes(),
            opened_by: self.opened_by.0,
            epoch: self.epoch.0,
            lock_delay_us: micros(self.lock_delay),
            kind: v1::NodeKind::from(self.kind).into(),
            events: self.events.bits(),
            ephemeral: self.ephemeral,
        }
        .encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let body = v1::HandleBody::decode(bytes).ok()?;
        Some(Self {
            r#use: Use::try_from(body.r#use()).ok()?,
            kind: NodeKind::try_from(body.kind()).ok()?,
            cell: CellName::new(&body.cell),
            name: Name::parse(&body.name).ok()?,
            instance: Instance(body.instance),
            session: SessionId::from_bytes(&body.session)?,
            opened_by: RequestNumber(body.opened_by),
            epoch: Epoch(body.epoch),
            lock_delay: Duration::from_micros(body.lock_delay_us),
            events: EventMask::from_bits(body.events),
            ephemeral: body.ephemeral,
        })
    }
}

/// A cell's key for the check digits of its handles.
#[derive(Clone)]
pub struct HandleKey {
    bytes: Bytes,
    mac: Hmac<Sha256>,
}

impl HandleKey {
    /// Takes 32 bytes from a good random source.
    pub fn new(bytes: Bytes) -> Self {
        let mac = Hmac::new_from_slice(&bytes).expect("HMAC takes keys of any length");
        Self { bytes, mac }
    }

    /// For the cell's replicated state.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Makes the token of a handle.
    pub fn seal(&self, body: &HandleBody) -> HandleToken {
        HandleToken(self.sealed(TokenKind::Handle, &body.encode()))
    }

    /// What a token says, if this cell made it.
    pub fn open(&self, token: &HandleToken) -> Option<HandleBody> {
        HandleBody::decode(self.opened(TokenKind::Handle, token.as_bytes(), TOKEN_BYTES_MAX)?)
    }

    /// Makes the token of a sequencer.
    pub fn seal_sequencer(&self, body: &SequencerBody) -> SequencerToken {
        SequencerToken::new(self.sealed(SequencerBody::KIND, &body.encode()))
    }

    /// What a sequencer says, if this cell made it.
    pub fn open_sequencer(&self, token: &SequencerToken) -> Option<SequencerBody> {
        let body = self.opened(SequencerBody::KIND, token.as_bytes(), SEQUENCER_BYTES_MAX)?;
        SequencerBody::decode(body)
    }

    fn sealed(&self, kind: TokenKind, body: &[u8]) -> Bytes {
        let check = self.mac.clone().chain_update([kind as u8]).chain_update(body).finalize().into_bytes();
        let mut token = BytesMut::with_capacity(body.len() + CHECK_BYTES);
        token.put_slice(body);
        token.put_slice(&check[..CHECK_BYTES]);
        token.freeze()
    }

    fn opened<'a>(&self, kind: TokenKind, token: &'a [u8], bytes_max: usize) -> Option<&'a [u8]> {
        if token.len() > bytes_max {
            return None;
        }
        let (body, check) = token.split_at_checked(token.len().checked_sub(CHECK_BYTES)?)?;
        let mac = self.mac.clone().chain_update([kind as u8]).chain_update(body);
        mac.verify_truncated_left(check).ok()?;
        Some(body)
    }
}

impl fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandleKey(..)")
    }
}

impl PartialEq for HandleKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;
    use crate::id::SessionKey;

    fn body() -> HandleBody {
        HandleBody {
            cell: CellName::new("a"),
            name: Name::parse("/ls/dev/x").expect("good"),
            instance: Instance(7),
            kind: NodeKind::File,
            r#use: Use::WriteAndLock,
            session: SessionKey::new([1; 16]).id(),
            opened_by: RequestNumber(3),
            epoch: Epoch(2),
            lock_delay: Duration::from_secs(10),
            events: EventMask::of([EventKind::ContentsModified, EventKind::LockConflict]),
            ephemeral: true,
        }
    }

    #[test]
    fn a_sealed_handle_opens_to_what_was_sealed() {
        let key = HandleKey::new(Bytes::from_static(&[9; 32]));

        let token = key.seal(&body());

        assert_eq!(key.open(&token), Some(body()));
        assert_eq!(token.claimed_body(), Some(body()));
    }

    #[test]
    fn no_flipped_byte_and_no_truncation_is_accepted() {
        let key = HandleKey::new(Bytes::from_static(&[9; 32]));
        let token = key.seal(&body());

        for place in 0..token.as_bytes().len() {
            let mut forged = token.as_bytes().to_vec();
            forged[place] ^= 1;
            assert_eq!(key.open(&HandleToken::new(forged.into())), None, "byte {place}");
            let short = token.as_bytes().slice(..place);
            assert_eq!(key.open(&HandleToken::new(short)), None, "first {place} bytes");
        }
    }

    #[test]
    fn a_handle_of_another_cell_is_not_accepted() {
        let token = HandleKey::new(Bytes::from_static(&[8; 32])).seal(&body());

        assert_eq!(HandleKey::new(Bytes::from_static(&[9; 32])).open(&token), None);
    }
}
