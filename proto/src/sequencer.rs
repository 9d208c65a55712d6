//! Sequencers: what a lock holder shows to other services, and how those tell a late request from a
//! current one (paper §2.4, P-SEQ).
//!
//! A token is the encoded [`SequencerBody`] followed by 16 check bytes under the cell's key. It also
//! has a text form for environments and logs: `hasp1.` and the bytes in hexadecimal.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use prost::Message;

use crate::handle::{CHECK_BYTES, TokenKind};
use crate::id::{CellName, Generation, Instance};
use crate::name::Name;
use crate::node::LockMode;
use crate::wire::v1;

/// Longest token, in bytes: a name at its limit plus the fixed fields.
pub const SEQUENCER_BYTES_MAX: usize = crate::limits::NAME_BYTES_MAX + 160;
/// What the text form begins with: its version.
const TEXT_PREFIX: &str = "hasp1.";

/// A sequencer as it travels.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequencerToken(Bytes);

/// What a sequencer says: the state just after the acquisition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequencerBody {
    /// The cell that granted the lock.
    pub cell: CellName,
    /// Of the node.
    pub name: Name,
    /// The node it is bound to.
    pub instance: Instance,
    /// How the lock is held.
    pub mode: LockMode,
    /// Of the acquisition; grows with each, for ever.
    pub lock_generation: Generation,
}

/// Some text or bytes that are no sequencer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sequencer: {0}")]
pub struct NotASequencer(&'static str);

impl SequencerToken {
    /// Takes bytes from the wire, unchecked.
    pub const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The token's bytes.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// What the token claims to be: its shape is checked, its truth only the cell can tell.
    ///
    /// # Errors
    /// It is not one by its shape.
    pub fn claimed_body(&self) -> Result<SequencerBody, NotASequencer> {
        if self.0.len() > SEQUENCER_BYTES_MAX {
            return Err(NotASequencer("too long"));
        }
        let body = self.0.len().checked_sub(CHECK_BYTES).ok_or(NotASequencer("too short"))?;
        SequencerBody::decode(&self.0[..body]).ok_or(NotASequencer("malformed"))
    }
}

impl SequencerBody {
    pub(crate) const KIND: TokenKind = TokenKind::Sequencer;

    pub(crate) fn encode(&self) -> Vec<u8> {
        v1::SequencerBody {
            cell: self.cell.as_str().to_owned(),
            name: self.name.as_str().to_owned(),
            instance: self.instance.0,
            mode: v1::LockMode::from(self.mode).into(),
            lock_generation: self.lock_generation.0,
        }
        .encode_to_vec()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let body = v1::SequencerBody::decode(bytes).ok()?;
        CellName::is_valid(&body.cell).then_some(())?;
        Some(Self {
            mode: LockMode::try_from(body.mode()).ok()?,
            cell: CellName::new(&body.cell),
            name: Name::parse(&body.name).ok()?,
            instance: Instance(body.instance),
            lock_generation: Generation(body.lock_generation),
        })
    }
}

impl fmt::Display for SequencerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TEXT_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for SequencerToken {
    type Err = NotASequencer;

    fn from_str(text: &str) -> Result<Self, NotASequencer> {
        let digits =
            text.strip_prefix(TEXT_PREFIX).ok_or(NotASequencer("its text begins with hasp1."))?.as_bytes();
        if digits.len() > 2 * SEQUENCER_BYTES_MAX {
            return Err(NotASequencer("too long"));
        }
        let (pairs, odd) = digits.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(NotASequencer("an odd number of digits"));
        }
        let byte = |pair: &[u8; 2]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        let token = Self(bytes.ok_or(NotASequencer("not hexadecimal"))?.into());
        token.claimed_body().map(|_| token)
    }
}

const fn digit(ascii: u8) -> Option<u8> {
    match ascii {
        b'0'..=b'9' => Some(ascii - b'0'),
        b'a'..=b'f' => Some(ascii - b'a' + 10),
        _ => None,
    }
}

impl fmt::Debug for SequencerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.claimed_body() {
            Ok(body) => {
                let SequencerBody { name, instance, mode, lock_generation, .. } = body;
                write!(f, "sequencer({name} #{instance} {mode:?} {lock_generation})")
            }
            Err(_) => write!(f, "sequencer({} bytes of nonsense)", self.0.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::HandleKey;

    fn body() -> SequencerBody {
        SequencerBody {
            cell: CellName::new("a"),
            name: Name::parse("/ls/dev/leader").expect("good"),
            instance: Instance(7),
            mode: LockMode::Exclusive,
            lock_generation: Generation(12),
        }
    }

    fn key() -> HandleKey {
        HandleKey::new(Bytes::from_static(&[7; 32]))
    }

    #[test]
    fn what_is_sealed_opens_again_also_through_its_text() {
        let token = key().seal_sequencer(&body());

        let read: SequencerToken = token.to_string().parse().expect("its own text");

        assert_eq!(read, token);
        assert_eq!(key().open_sequencer(&read), Some(body()));
        assert_eq!(read.claimed_body(), Ok(body()));
    }

    #[test]
    fn no_byte_can_be_changed_and_none_left_out() {
        let token = key().seal_sequencer(&body());
        for place in 0..token.as_bytes().len() {
            for bit in 0..8 {
                let mut bytes = token.as_bytes().to_vec();
                bytes[place] ^= 1 << bit;
                assert_eq!(key().open_sequencer(&SequencerToken::new(bytes.into())), None, "byte {place}");
            }
            let cut = SequencerToken::new(token.as_bytes().slice(..place));
            assert_eq!(key().open_sequencer(&cut), None, "cut at {place}");
        }
        let other = HandleKey::new(Bytes::from_static(&[8; 32]));
        assert_eq!(other.open_sequencer(&token), None, "another cell's");
    }

    #[test]
    fn text_that_is_no_sequencer_is_refused_with_why() {
        let text = key().seal_sequencer(&body()).to_string();
        let why = |text: &str| text.parse::<SequencerToken>().expect_err("refused").to_string();

        assert_eq!(why(""), "not a sequencer: its text begins with hasp1.");
        assert_eq!(why("hasp1."), "not a sequencer: too short");
        assert_eq!(why(&text[..text.len() - 1]), "not a sequencer: an odd number of digits");
        assert_eq!(why("hasp1.GG"), "not a sequencer: not hexadecimal");
        assert_eq!(why("hasp1.AA"), why("hasp1.GG"), "one form only");
        assert_eq!(why(&format!("hasp1.{}", "00".repeat(40))), "not a sequencer: malformed");
        assert_eq!(why(&format!("hasp1.{}", "00".repeat(4_000))), "not a sequencer: too long");
    }
}
