//! How a node is opened.

use std::time::Duration;

use bytes::Bytes;
use hasp_proto::limits::LOCK_DELAY;
use hasp_proto::name::{Name, NameError};
use hasp_proto::node::NodeKind;
use hasp_proto::request::{Create, Open, Use};

use crate::error::{CallError, check_contents};

/// What a handle is for, and whether to create its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// For what.
    pub r#use: Use,
    /// Whether to create it, and how; `None`: it must exist.
    pub create: Option<Create>,
    /// For how long the lock stays barred to others if it is lost with the session; at most 60 s.
    pub lock_delay: Duration,
}

impl OpenOptions {
    /// Reads a node that exists.
    pub const fn read() -> Self {
        Self { r#use: Use::Read, create: None, lock_delay: LOCK_DELAY }
    }

    /// Reads, writes, deletes or locks a node that exists.
    pub const fn write() -> Self {
        Self { r#use: Use::WriteAndLock, create: None, lock_delay: LOCK_DELAY }
    }

    /// As [`write`](Self::write); a file that does not exist is created with these contents.
    pub fn create_file(contents: impl Into<Bytes>) -> Self {
        Self::write().creating(NodeKind::File, contents.into())
    }

    /// As [`write`](Self::write); a directory that does not exist is created.
    pub fn create_directory() -> Self {
        Self::write().creating(NodeKind::Directory, Bytes::new())
    }

    /// Fails with `AlreadyExists` instead of opening a node that exists.
    ///
    /// # Panics
    /// If nothing is to be created.
    #[must_use]
    pub fn must_create(mut self) -> Self {
        self.create.as_mut().expect("only what is created can be required to be new").must = true;
        self
    }

    /// With another lock-delay.
    #[must_use]
    pub const fn lock_delay(mut self, lock_delay: Duration) -> Self {
        self.lock_delay = lock_delay;
        self
    }

    fn creating(mut self, kind: NodeKind, contents: Bytes) -> Self {
        self.create = Some(Create { must: false, kind, contents, ephemeral: false, acls: None });
        self
    }

    pub(crate) fn for_node(self, name: Name) -> Result<Open, CallError> {
        if let Some(create) = &self.create {
            check_contents(&create.contents)?;
        }
        Ok(Open { name, r#use: self.r#use, create: self.create, lock_delay: self.lock_delay })
    }
}

/// What names a node: a [`Name`], or text that is checked before anything is sent.
pub trait IntoName {
    /// The name.
    ///
    /// # Errors
    /// If the text is not a name.
    fn into_name(self) -> Result<Name, NameError>;
}

impl IntoName for Name {
    fn into_name(self) -> Result<Name, NameError> {
        Ok(self)
    }
}

impl IntoName for &Name {
    fn into_name(self) -> Result<Name, NameError> {
        Ok(self.clone())
    }
}

impl IntoName for &str {
    fn into_name(self) -> Result<Name, NameError> {
        Name::parse(self)
    }
}

impl IntoName for &String {
    fn into_name(self) -> Result<Name, NameError> {
        Name::parse(self)
    }
}

impl IntoName for String {
    fn into_name(self) -> Result<Name, NameError> {
        Name::parse(&self)
    }
}

#[cfg(test)]
mod tests {
    use hasp_proto::error::ErrorCode;
    use hasp_proto::limits::CONTENTS_BYTES_MAX;

    use super::*;

    #[test]
    fn a_file_too_large_to_be_created_is_refused() {
        let name = Name::parse("/ls/dev/f").unwrap();
        let check = |length: usize| OpenOptions::create_file(vec![0; length]).for_node(name.clone());

        assert!(check(CONTENTS_BYTES_MAX).is_ok());
        assert_eq!(check(CONTENTS_BYTES_MAX + 1).map_err(|error| error.code), Err(ErrorCode::TooLarge));
    }

    #[test]
    fn text_is_checked_before_it_is_a_name() {
        assert!("/ls/dev/f".into_name().is_ok());
        assert!("/etc/passwd".into_name().is_err());
    }
}
