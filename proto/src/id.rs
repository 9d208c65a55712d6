//! Newtypes for every id and number that could be mixed up.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one; the greatest stays as it is, since a peer may send any number.
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Number of a mastership of a cell; 0 before the first.
    Epoch
}
number! {
    /// Tells apart the nodes that bear one name one after another; never used again in a cell.
    Instance
}
number! {
    /// A content, lock or ACL generation; only grows for a name, through delete and re-create.
    Generation
}
number! {
    /// Number of a request within its session, from 1.
    RequestNumber
}
number! {
    /// Counts the connections of a session to hosts; the newest wins (`proxy-4`).
    Claim
}
number! {
    /// Sequence number of a piece of news within its session.
    Sequence
}

/// Name of a cell: `a`, `b`, `eu1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CellName(std::sync::Arc<str>);

impl CellName {
    /// Takes any text; whoever reads a configuration checks it with [`CellName::is_valid`].
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// One to 63 lower-case letters, digits and hyphens.
    pub fn is_valid(name: &str) -> bool {
        (1..=63).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for CellName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CellName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CellName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The secret that only a session's holder and its hosts know: presenting it resumes the session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey([u8; 16]);

impl SessionKey {
    /// Takes 16 bytes from a good random source.
    pub const fn new(secret: [u8; 16]) -> Self {
        Self(secret)
    }

    /// The session's public id: the first half of the key's SHA-256.
    pub fn id(&self) -> SessionId {
        let digest = Sha256::digest(self.0);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        SessionId(id)
    }

    /// For the wire.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

/// A session's id, the same at every host and cell; says nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// Reads the id's 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// For the wire.
    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_follows_from_its_key_and_does_not_show_it() {
        let key = SessionKey::new(*b"0123456789abcdef");

        assert_eq!(key.id(), SessionKey::new(*b"0123456789abcdef").id());
        assert_ne!(&key.id().0, key.as_bytes());
        assert_ne!(key.id(), SessionKey::new(*b"0123456789abcdeg").id());
        assert!(!format!("{key:?}").contains("0123"));
    }

    #[test]
    fn a_cell_name_is_lower_case_letters_digits_and_hyphens() {
        for good in ["a", "eu1", "eu-west-1"] {
            assert!(CellName::is_valid(good), "{good}");
        }
        for bad in ["", "A", "a/b", "a b", "ü", &"a".repeat(64)] {
            assert!(!CellName::is_valid(bad), "{bad}");
        }
    }
}
