//! Who may do what: ACL files and the names by which nodes refer to them (P-ACL, paper §2.3).
//!
//! ACL files are read when they are written, so that a check is a lookup. A cell that does not hold those of its
//! namespace knows one ACL, `everyone`. Of all others it needs evidence, which routers and proxies bring (`route-5`);
//! without, it denies (`route-6`).

use std::sync::Arc;

use hasp_proto::acl::{AclEntries, EVERYONE};
use hasp_proto::crossing::{Evidence, Need};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::name::Name;
use hasp_proto::node::AclNames;
use hasp_proto::request::Use;
use rpds::RedBlackTreeMapSync;

use super::State;
use super::outcome::Outcome;

/// What somebody wants to do with a node, by the ACL name that decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// See contents, metadata, children, events.
    Read,
    /// Write, delete, lock; create below.
    Write,
    /// Change the ACL names.
    ChangeAcl,
}

impl Access {
    /// The name that decides it.
    fn acl(self, acls: &AclNames) -> &str {
        match self {
            Self::Read => &acls.read,
            Self::Write => &acls.write,
            Self::ChangeAcl => &acls.change,
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ChangeAcl => "change the ACL names of",
        }
    }
}

impl From<Use> for Access {
    fn from(r#use: Use) -> Self {
        match r#use {
            Use::Read => Self::Read,
            Use::WriteAndLock => Self::Write,
            Use::ChangeAcl => Self::ChangeAcl,
        }
    }
}

/// The ACL files of the namespace, by name, as they are in the tree; `None` if another cell holds them.
#[derive(Clone, Default, PartialEq)]
pub struct Acls {
    files: Option<RedBlackTreeMapSync<Box<str>, Arc<AclEntries>>>,
}

impl Acls {
    /// None yet, of a cell that holds them, or of one that does not.
    pub fn new(is_home: bool) -> Self {
        Self { files: is_home.then(RedBlackTreeMapSync::new_sync) }
    }

    /// Whether this cell holds them.
    pub const fn are_here(&self) -> bool {
        self.files.is_some()
    }

    /// Takes over what a file says.
    pub fn put(&mut self, acl: &str, entries: Arc<AclEntries>) {
        if let Some(files) = &mut self.files {
            files.insert_mut(acl.into(), entries);
        }
    }

    /// The file is gone: it lets nobody in.
    pub fn remove(&mut self, acl: &str) {
        if let Some(files) = &mut self.files {
            files.remove_mut(acl);
        }
    }

    /// Whether `who` may do this with the node `name`, which has these ACL names.
    ///
    /// # Errors
    /// `PermissionDenied`, with which ACL denies it; or the ACL, if another cell holds it and nothing is said of it.
    pub fn check(&self, acls: &AclNames, name: &Name, who: Who<'_>, access: Access) -> Result<(), Refusal> {
        let acl = access.acl(acls);
        if acl == EVERYONE {
            return Ok(());
        }
        let is_member = match &self.files {
            Some(files) => files.get(acl).map(|entries| entries.contains(who.principal)),
            None => match who.evidence.and_then(|evidence| evidence.is_member(acl)) {
                Some(is_member) => Some(is_member),
                None => return Err(Refusal::Need(Need::Acl(acl.to_owned()))),
            },
        };
        let why = match is_member {
            Some(true) => return Ok(()),
            Some(false) => "which does not list",
            None => "which does not exist, so it denies",
        };
        let principal = who.principal;
        let detail = format!("who may {} {name} is in the ACL {acl:?}, {why} {principal:?}", access.verb());
        Err(ErrorCode::PermissionDenied.because(detail).into())
    }
}

/// Who wants something, and what other cells say of it.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// As whom it is authenticated.
    pub principal: &'a str,
    /// What a router or proxy has found out.
    pub evidence: Option<&'a Evidence>,
}

impl<'a> Who<'a> {
    /// Somebody of whom other cells say nothing.
    pub const fn alone(principal: &'a str) -> Self {
        Self { principal, evidence: None }
    }
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be.
    Error(Error),
    /// The cell lacks something to decide it.
    Need(Need),
}

impl Refusal {
    /// What to tell somebody who cannot bring what the cell needs.
    pub fn into_error(self) -> Error {
        match self {
            Self::Error(error) => error,
            Self::Need(need) => needs_a_router(&need),
        }
    }
}

/// The refusal of one who speaks with the cell directly, where other cells have to be asked too.
pub fn needs_a_router(need: &Need) -> Error {
    match need {
        Need::Acl(acl) => ErrorCode::PermissionDenied.because(format!(
            "another cell holds the ACL {acl:?}, so this one denies; come through a proxy or a router"
        )),
        Need::Map(map_version) => ErrorCode::WrongCell { map_version: *map_version }
            .because("it is on its way to another cell; come through a proxy or a router"),
        Need::Root(name) | Need::Unseal { name, .. } | Need::Seal { name, .. } => ErrorCode::NotFound
            .because(format!(
                "another cell has a part in the directory {name}; come through a proxy or a router"
            )),
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Need> for Refusal {
    fn from(need: Need) -> Self {
        Self::Need(need)
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Error(error) => Self::Failed(error),
            Refusal::Need(need) => Self::Needs(need),
        }
    }
}

/// Checks that names given for a node's ACLs can be names of files; the files need not exist.
///
/// # Errors
/// `InvalidArgument`, with the first that is not one component.
pub fn check_acl_names(directory: &Name, acls: &AclNames) -> Result<(), Error> {
    for acl in [&acls.read, &acls.write, &acls.change] {
        if let Err(error) = directory.child(acl) {
            return Err(ErrorCode::InvalidArgument.because(format!("ACL name {acl:?}: {error}")));
        }
    }
    Ok(())
}

impl State {
    /// Whether `who` may do this with the node of that name, or with the directory of whose children only a root record
    /// is here.
    ///
    /// # Errors
    /// `PermissionDenied`, with which ACL denies it; also if that ACL file does not exist (`route-6`). Or the ACL, if
    /// another cell holds it. A node that does not exist denies nothing: whoever asks finds that out first.
    pub fn check_access(&self, name: &Name, who: Who<'_>, access: Access) -> Result<(), Refusal> {
        match self.tree.acls(name) {
            Some(acls) => self.system.acls().check(acls, name, who, access),
            None => Ok(()),
        }
    }

    /// Whether `who` may do this with a directory of another cell, which has these ACL names.
    ///
    /// # Errors
    /// As [`State::check_access`].
    pub fn check_acls(
        &self,
        acls: &AclNames,
        name: &Name,
        who: Who<'_>,
        access: Access,
    ) -> Result<(), Refusal> {
        self.system.acls().check(acls, name, who, access)
    }

    /// Whether another cell's word is needed on that ACL.
    pub fn is_foreign_acl(&self, acl: &str) -> bool {
        acl != EVERYONE && !self.system.acls().are_here()
    }

    /// The name of the ACL file that an ACL name stands for, whichever cell holds it; `None` if there can be
    /// none, or if the cell does not know its namespace yet.
    pub fn acl_file(&self, acl: &str) -> Option<Name> {
        self.system.acl_directory()?.child(acl).ok()
    }
}
