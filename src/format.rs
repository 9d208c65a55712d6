//! How nodes are shown: aligned lines for people, one JSON object for programs.

mod base64;
mod columns;

use std::io::{self, Write as _};

use hasp_client::{AclNames, Child, Name, NodeKind, Stat};
use serde::Serialize;

use crate::exit::Failure;
pub use columns::columns;

/// Who reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// It took what was written.
    Reads,
    /// It has gone, as `head` does: whoever writes only for it can stop.
    Gone,
}

/// Writes to stdout.
///
/// # Errors
/// If stdout does not take it; a reader that has gone is none.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    offer(bytes).map(drop)
}

/// Writes to stdout, and says whether anybody reads it still.
///
/// # Errors
/// As [`print`].
pub fn offer(bytes: &[u8]) -> Result<Reader, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::Reads),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::local("write to stdout", error)),
    }
}

/// Writes one JSON object and a line feed to stdout.
///
/// # Errors
/// As [`print`].
pub fn print_json(object: &impl Serialize) -> Result<(), Failure> {
    print(json_line(object)?.as_bytes())
}

/// One JSON object and a line feed.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn json_line(object: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(object).map_err(|error| Failure::local("write JSON", error))?;
    Ok(json + "\n")
}

/// Metadata for JSON.
#[derive(Debug, Serialize)]
pub struct StatObject<'a> {
    kind: &'static str,
    instance: u64,
    content_generation: u64,
    /// Nothing in a listing: there it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_generation: Option<u64>,
    acl_generation: u64,
    /// 16 hexadecimal digits: a number of 64 bits does not survive every JSON reader.
    checksum: String,
    length: u64,
    ephemeral: bool,
    acls: Acls<'a>,
}

/// ACL names for JSON.
#[derive(Debug, Serialize)]
pub struct Acls<'a> {
    read: &'a str,
    write: &'a str,
    change: &'a str,
}

impl<'a> Acls<'a> {
    /// The same, for JSON.
    pub fn new(acls: &'a AclNames) -> Self {
        let AclNames { read, write, change } = acls;
        Self { read, write, change }
    }
}

impl<'a> StatObject<'a> {
    /// The same, for JSON.
    pub fn new(stat: &'a Stat) -> Self {
        Self {
            kind: kind(stat.kind),
            instance: stat.instance.0,
            content_generation: stat.content_generation.0,
            lock_generation: Some(stat.lock_generation.0),
            acl_generation: stat.acl_generation.0,
            checksum: format!("{:016x}", stat.checksum),
            length: stat.length,
            ephemeral: stat.ephemeral,
            acls: Acls::new(&stat.acls),
        }
    }

    /// That of a child in a listing.
    fn of_child(stat: &'a Stat) -> Self {
        Self { lock_generation: None, ..Self::new(stat) }
    }
}

/// A node's name and metadata.
#[derive(Debug, Serialize)]
pub struct NamedStat<'a> {
    name: &'a str,
    #[serde(flatten)]
    stat: StatObject<'a>,
}

impl<'a> NamedStat<'a> {
    /// Puts both together.
    pub fn new(name: &'a Name, stat: &'a Stat) -> Self {
        Self { name: name.as_str(), stat: StatObject::new(stat) }
    }

    /// One field a line, aligned.
    pub fn lines(&self) -> String {
        let stat = &self.stat;
        let rows = [
            ("name", self.name.to_owned()),
            ("kind", stat.kind.to_owned()),
            ("instance", stat.instance.to_string()),
            ("content generation", stat.content_generation.to_string()),
            ("lock generation", stat.lock_generation.map_or_else(String::new, |number| number.to_string())),
            ("acl generation", stat.acl_generation.to_string()),
            ("checksum", stat.checksum.clone()),
            ("length", stat.length.to_string()),
            ("ephemeral", stat.ephemeral.to_string()),
            ("acl read", stat.acls.read.to_owned()),
            ("acl write", stat.acls.write.to_owned()),
            ("acl change", stat.acls.change.to_owned()),
        ];
        columns(&rows.map(|(field, value)| vec![field.to_owned(), value]))
    }
}

/// A file's contents and metadata.
#[derive(Debug, Serialize)]
pub struct File<'a> {
    name: &'a str,
    #[serde(flatten)]
    contents: Contents<'a>,
    stat: StatObject<'a>,
}

/// Text as it is; other bytes in base64.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Contents<'a> {
    Contents(&'a str),
    ContentsBase64(String),
}

impl<'a> File<'a> {
    /// Puts both together.
    pub fn new(name: &'a Name, contents: &'a [u8], stat: &'a Stat) -> Self {
        let contents = match std::str::from_utf8(contents) {
            Ok(text) => Contents::Contents(text),
            Err(_) => Contents::ContentsBase64(base64::encode(contents)),
        };
        Self { name: name.as_str(), contents, stat: StatObject::new(stat) }
    }
}

/// A directory's children.
#[derive(Debug, Serialize)]
pub struct Listing<'a> {
    name: &'a str,
    children: Vec<ChildObject<'a>>,
}

#[derive(Debug, Serialize)]
struct ChildObject<'a> {
    component: &'a str,
    #[serde(flatten)]
    stat: StatObject<'a>,
}

impl<'a> Listing<'a> {
    /// In the order given.
    pub fn new(name: &'a Name, children: &'a [Child]) -> Self {
        let object = |child: &'a Child| ChildObject {
            component: &child.component,
            stat: StatObject::of_child(&child.stat),
        };
        Self { name: name.as_str(), children: children.iter().map(object).collect() }
    }

    /// One component a line, directories with a slash.
    pub fn short(&self) -> String {
        self.children.iter().map(|child| child.marked() + "\n").collect()
    }

    /// One child a line, with numbers and ACL names; the component comes last, since it may hold spaces.
    pub fn long(&self) -> String {
        let head = ["KIND", "INSTANCE", "CONTENT", "ACL", "LENGTH", "READ", "WRITE", "CHANGE", "NAME"];
        let row = |child: &ChildObject<'_>| {
            let StatObject { kind, instance, content_generation, acl_generation, length, acls, .. } =
                &child.stat;
            let numbers = [instance, content_generation, acl_generation, length].map(u64::to_string);
            let acls = [acls.read, acls.write, acls.change].map(str::to_owned);
            let kind = if child.stat.ephemeral { format!("{kind}*") } else { (*kind).to_owned() };
            std::iter::once(kind).chain(numbers).chain(acls).chain([child.marked()]).collect()
        };
        let head = head.map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(self.children.iter().map(row)).collect();
        columns(&rows)
    }
}

impl ChildObject<'_> {
    fn marked(&self) -> String {
        let slash = if self.stat.kind == kind(NodeKind::Directory) { "/" } else { "" };
        format!("{}{slash}", self.component)
    }
}

const fn kind(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Directory => "directory",
    }
}

#[cfg(test)]
mod tests;
