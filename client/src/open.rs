//! How a node is opened.

use std::time::Duration;

use bytes::Bytes;
use hasp_proto::event::{EventKind, EventMask};
use hasp_proto::handle::HandleToken;
use hasp_proto::limits::LOCK_DELAY;
use hasp_proto::name::{Name, NameError};
use hasp_proto::node::{AclNames, NodeKind};
use hasp_proto::request::{Create, Open, Use};

use crate::core::Opening;
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
    /// What the handle is told of the node: listen with [`Handle::events`](crate::Handle::events).
    pub events: EventMask,
    /// Whether a released lock is kept until somebody else wants it (`lock-5`).
    pub cache_lock: bool,
}

impl OpenOptions {
    /// Reads a node that exists.
    pub const fn read() -> Self {
        Self::existing(Use::Read)
    }

    /// Reads, writes, deletes or locks a node that exists.
    pub const fn write() -> Self {
        Self::existing(Use::WriteAndLock)
    }

    /// As [`write`](Self::write); besides, the node's ACL names may be changed.
    pub const fn change_acl() -> Self {
        Self::existing(Use::ChangeAcl)
    }

    const fn existing(r#use: Use) -> Self {
        Self { r#use, create: None, lock_delay: LOCK_DELAY, events: EventMask::NONE, cache_lock: false }
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
        self.created().must = true;
        self
    }

    /// What is created goes when its last handle does, and its last child.
    ///
    /// # Panics
    /// If nothing is to be created.
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.created().ephemeral = true;
        self
    }

    /// What is created gets these ACL names instead of its directory's.
    ///
    /// # Panics
    /// If nothing is to be created.
    #[must_use]
    pub fn acls(mut self, acls: AclNames) -> Self {
        self.created().acls = Some(acls);
        self
    }

    /// The handle is told of these events of the node.
    #[must_use]
    pub const fn events(mut self, events: EventMask) -> Self {
        self.events = events;
        self
    }

    /// A released lock is kept, free for the handle to take again without asking anybody, until
    /// somebody else asks for it (`lock-5`). Pays where one process takes the same lock again and
    /// again and others seldom want it.
    #[must_use]
    pub const fn cache_lock(mut self) -> Self {
        self.cache_lock = true;
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

    /// How the library treats the handle.
    pub(crate) const fn opening(&self) -> Opening {
        Opening { told: self.events, keeps_lock: self.cache_lock }
    }

    fn created(&mut self) -> &mut Create {
        self.create.as_mut().expect("an option of what is created, and nothing is")
    }

    /// The request for that node; with a directory above it, which must still be the one opened.
    pub(crate) fn for_node(self, name: Name, relative_to: Option<HandleToken>) -> Result<Open, CallError> {
        if let Some(create) = &self.create {
            check_contents(&create.contents)?;
        }
        let conflicts =
            if self.cache_lock { EventMask::of([EventKind::LockConflict]) } else { EventMask::NONE };
        Ok(Open {
            name,
            r#use: self.r#use,
            create: self.create,
            lock_delay: self.lock_delay,
            relative_to,
            events: self.events.and(conflicts),
        })
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
        let check = |length: usize| OpenOptions::create_file(vec![0; length]).for_node(name.clone(), None);

        assert!(check(CONTENTS_BYTES_MAX).is_ok());
        assert_eq!(check(CONTENTS_BYTES_MAX + 1).map_err(|error| error.code), Err(ErrorCode::TooLarge));
    }

    #[test]
    fn what_is_created_is_created_as_the_options_say() {
        let acls = AclNames { write: "me".into(), ..AclNames::default() };
        let options = OpenOptions::create_file("x").must_create().ephemeral().acls(acls.clone());

        let open = options.for_node(Name::parse("/ls/dev/f").unwrap(), None).unwrap();

        let create = open.create.expect("to be created");
        assert!(create.must && create.ephemeral);
        assert_eq!(create.acls, Some(acls));
    }

    #[test]
    fn a_handle_that_keeps_its_lock_is_told_of_conflicts_besides_what_was_asked_for() {
        let name = Name::parse("/ls/dev/f").unwrap();
        let asked = EventMask::of([EventKind::ContentsModified]);
        let options = OpenOptions::write().events(asked);
        let events = |options: OpenOptions| options.for_node(name.clone(), None).unwrap().events;

        assert_eq!(events(options.clone()), asked);
        assert_eq!(events(options.cache_lock()), asked.and(EventMask::of([EventKind::LockConflict])));
    }

    #[test]
    fn text_is_checked_before_it_is_a_name() {
        assert!("/ls/dev/f".into_name().is_ok());
        assert!("/etc/passwd".into_name().is_err());
    }
}
