//! ACL files: who is in an ACL (P-ACL, paper §2.3).
//!
//! An ACL file is a file in `/ls/<namespace>/acl`: one principal per line, `*` for all of them, blank lines and what
//! follows a `#` left out. It is parsed when it is written, so that a check is a lookup.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorCode};
use crate::limits::PRINCIPAL_BYTES_MAX;

/// Where a namespace keeps its ACL files.
pub const ACL_DIRECTORY: &str = "acl";
/// The ACL that lets everybody in, always: its file cannot say anything else, so no cell has to look.
pub const EVERYONE: &str = "everyone";
/// The ACL of those who run the cell; also the principal that is in it at first.
pub const ADMIN: &str = "admin";
/// In an ACL file: every principal.
const ALL: &str = "*";

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

    /// Whether it lets everybody in.
    pub const fn is_for_all(&self) -> bool {
        self.is_for_all
    }

    /// Whether it lets nobody in.
    pub fn is_empty(&self) -> bool {
        !self.is_for_all && self.principals.is_empty()
    }

    /// Whether it lets this principal in.
    pub fn contains(&self, principal: &str) -> bool {
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
