//! Who may do what: ACL files and the names by which nodes refer to them (P-ACL, paper §2.3).
//!
//! An ACL file is a file in `/ls/<namespace>/acl`: one principal per line, `*` for all of them, blank lines and what
//! follows a `#` left out. It is parsed when it is written, so that a check is a lookup. A cell that does not hold
//! the ACL files of its namespace knows two ACLs: `everyone` lets everybody in, `admin` the principal `admin`.

use std::collections::BTreeSet;
use std::sync::Arc;

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::limits::PRINCIPAL_BYTES_MAX;
use hasp_proto::name::Name;
use hasp_proto::node::AclNames;
use hasp_proto::request::Use;
use rpds::RedBlackTreeMapSync;

use super::State;

/// The ACL that lets everybody in, unless somebody changes its file.
pub const EVERYONE: &str = "everyone";
/// The ACL of those who run the cell; also the principal that is in it at first.
pub const ADMIN: &str = "admin";
/// In an ACL file: every principal.
const ALL: &str = "*";

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

/// What an ACL file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclEntries {
    is_for_all: bool,
    principals: BTreeSet<Box<str>>,
}

impl AclEntries {
    /// Reads the contents of an ACL file.
    ///
    /// # Errors
    /// `InvalidArgument`, with the first line that is no principal.
    pub fn parse(contents: &[u8]) -> Result<Self, Error> {
        let mut entries = Self::default();
        for (number, line) in lines(contents) {
            let refused =
                |why: &str| Err(ErrorCode::InvalidArgument.because(format!("ACL, line {number}: {why}")));
            match line {
                Err(_) => return refused("not UTF-8"),
                Ok(ALL) => entries.is_for_all = true,
                Ok(principal) if principal.len() > PRINCIPAL_BYTES_MAX => {
                    return refused(&format!("a principal has at most {PRINCIPAL_BYTES_MAX} bytes"));
                }
                Ok(principal) if principal.chars().any(char::is_control) => {
                    return refused("a control character");
                }
                Ok(principal) => drop(entries.principals.insert(principal.into())),
            }
        }
        Ok(entries)
    }

    /// Whether it lets nobody in.
    pub fn is_empty(&self) -> bool {
        !self.is_for_all && self.principals.is_empty()
    }

    fn contains(&self, principal: &str) -> bool {
        self.is_for_all || self.principals.contains(principal)
    }
}

/// The lines of a file that the cell itself reads, each with its number from 1, trimmed; without comments,
/// which begin with `#` at the start of a line or after a blank, and without blank lines.
pub fn lines(contents: &[u8]) -> impl Iterator<Item = (usize, Result<&str, std::str::Utf8Error>)> {
    let text = contents.split(|byte| *byte == b'\n').map(|line| {
        let line = std::str::from_utf8(line)?;
        let is_comment = |(at, _): &(usize, &str)| line[..*at].chars().last().is_none_or(char::is_whitespace);
        let end = line.match_indices('#').find(is_comment).map_or(line.len(), |(at, _)| at);
        Ok(line[..end].trim())
    });
    (1..).zip(text).filter(|(_, line)| *line != Ok(""))
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

    /// Whether `principal` may do this with the node `name`, which has these ACL names.
    ///
    /// # Errors
    /// `PermissionDenied`, with which ACL denies it.
    pub fn check(&self, acls: &AclNames, name: &Name, principal: &str, access: Access) -> Result<(), Error> {
        let acl = access.acl(acls);
        let why = match self.files.as_ref().map(|files| files.get(acl)) {
            Some(Some(entries)) if entries.contains(principal) => return Ok(()),
            Some(Some(_)) => "which does not list",
            Some(None) => "which does not exist, so it denies",
            None if acl == EVERYONE || (acl == ADMIN && principal == ADMIN) => return Ok(()),
            None if acl == ADMIN => "which does not list",
            None => "which another cell holds, so it denies",
        };
        let detail = format!("who may {} {name} is in the ACL {acl:?}, {why} {principal:?}", access.verb());
        Err(ErrorCode::PermissionDenied.because(detail))
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
    /// Whether `principal` may do this with the node of that name, or with the directory of whose children only
    /// a root record is here.
    ///
    /// # Errors
    /// `PermissionDenied`, with which ACL denies it; also if that ACL file does not exist (`route-6`).
    /// A node that does not exist denies nothing: whoever asks finds that out first.
    pub fn check_access(&self, name: &Name, principal: &str, access: Access) -> Result<(), Error> {
        match self.tree.acls(name) {
            Some(acls) => self.system.acls().check(acls, name, principal, access),
            None => Ok(()),
        }
    }

    /// The name of the ACL file that an ACL name stands for, whichever cell holds it; `None` if there can be
    /// none, or if the cell does not know its namespace yet.
    pub fn acl_file(&self, acl: &str) -> Option<Name> {
        self.system.acl_directory()?.child(acl).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(contents: &str) -> AclEntries {
        AclEntries::parse(contents.as_bytes()).expect("a good ACL")
    }

    #[test]
    fn an_acl_lists_principals_line_by_line_without_comments_and_blank_lines() {
        let acl = parsed("# ops\nalice\r\n\n  bob # the other one\n #carol\nd#e\nAnn Lee\n");

        for principal in ["alice", "bob", "d#e", "Ann Lee"] {
            assert!(acl.contains(principal), "{principal}");
        }
        for principal in ["", "carol", "# ops", "the other one", "d", "Alice", "Ann", "*"] {
            assert!(!acl.contains(principal), "{principal}");
        }
    }

    #[test]
    fn a_star_on_a_line_of_its_own_stands_for_everybody() {
        assert!(parsed("alice\n*").contains("anybody"));
        assert!(!parsed("alice\n*x\n# *").contains("anybody"));
    }

    #[test]
    fn an_acl_without_principals_lets_nobody_in() {
        for nothing in ["", "\n", "# nobody\n\n"] {
            assert!(parsed(nothing).is_empty());
            assert!(!parsed(nothing).contains("") && !parsed(nothing).contains("alice"));
        }
        assert!(!parsed("*").is_empty() && !parsed("a").is_empty());
    }

    #[test]
    fn a_line_that_is_no_principal_is_refused_with_its_number() {
        let why = |contents: &[u8]| {
            let error = AclEntries::parse(contents).expect_err("refused");
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            error.detail
        };
        let longest = "x".repeat(PRINCIPAL_BYTES_MAX);

        assert!(parsed(&longest).contains(&longest));
        assert!(why(format!("a\n\n{longest}x\n").as_bytes()).contains("line 3: a principal has at most 255"));
        assert!(why(b"a\n\xff\n").contains("line 2: not UTF-8"));
        assert!(why(b"a\x00b").contains("line 1: a control character"));
    }
}
