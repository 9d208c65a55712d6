//! The map as text, for people and for the file `/ls/<ns>/.hasp/partitions`: a line for each rule and each cell.
//!
//! ```text
//! version 1
//!
//! /ls/dev          a      # everything strictly below /ls/dev lives in cell a,
//! /ls/dev/jobs     b      # but for what is below these
//! /ls/dev/users/*  a b    # each directory's children in one of the two
//!
//! cell a 127.0.0.1:7001,127.0.0.1:7002
//! cell b
//! ```
//!
//! A line `next PREFIX CELL...` says that this rule is about to be so, and that what is below moves there; with `-` instead
//! of cells the rule goes.
//!
//! A name that holds blanks stands between double quotes, in which `\` makes the next character count as itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;

use super::draft::Draft;
use super::{Change, PartitionMap, Prefix, listed};
use crate::error::{Error, ErrorCode};
use crate::hosts;
use crate::id::CellName;

/// Where the file is, below the namespace's root.
pub const PARTITIONS_FILE: &str = ".hasp/partitions";
/// How that file begins.
const FILE_HEAD: &str = "\
# Which cell has which nodes: PREFIX CELL, everything strictly below the prefix;
# PREFIX/* CELL CELL..., the directories below it spread over the cells, each with all that is below it.
";
/// Stands for the cells of a rule that goes.
const GOES: &str = "-";
/// Cells are aligned behind prefixes up to this long, in characters.
const COLUMN_MAX: usize = 40;

/// The lines of a text, sorted out but not put together.
#[derive(Default)]
struct Lines {
    version: Option<u64>,
    cells: BTreeMap<CellName, Vec<String>>,
    /// In their order, each with the number of its line.
    rules: Vec<(usize, Rule)>,
    next: Option<(usize, Rule)>,
}

struct Rule {
    prefix: Prefix,
    cells: Vec<String>,
}

impl PartitionMap {
    /// Reads a map. Its namespace is that of the first rule.
    ///
    /// # Errors
    /// `InvalidArgument`: the line that is wrong, or what is missing.
    pub fn parse(contents: &[u8]) -> Result<Self, Error> {
        let refused = |why: String| ErrorCode::InvalidArgument.because(format!("partition map: {why}"));
        let mut lines = Lines::default();
        for (number, line) in (1..).zip(contents.split(|byte| *byte == b'\n')) {
            lines.take(number, line).map_err(|why| refused(format!("line {number}: {why}")))?;
        }
        let Lines { version, cells, rules, next } = lines;
        let version = version.ok_or_else(|| refused("no line \"version N\"".into()))?;
        let namespace = rules.first().map(|(_, rule)| rule.prefix.name().namespace().to_owned());
        let namespace = namespace.ok_or_else(|| refused("no line with a rule".into()))?;
        let mut draft = Draft::new(&namespace, cells).map_err(|error| refused(error.to_string()))?;
        for (number, Rule { prefix, cells }) in &rules {
            let added = draft.add(prefix, cells.iter().map(String::as_str));
            added.map_err(|error| refused(format!("line {number}: {error}")))?;
        }
        let map = draft.finish(version).map_err(|error| refused(error.to_string()))?;
        let Some((number, Rule { prefix, cells })) = next else { return Ok(map) };
        let change = Change { prefix, cells: cells.iter().map(|cell| CellName::new(cell)).collect() };
        map.with_coming(change).map_err(|error| refused(format!("line {number}: {error}")))
    }

    /// The map as text, which [`PartitionMap::parse`] reads again: rules by prefix, then cells by name.
    pub fn to_text(&self) -> String {
        let plain = self.rules().map(|(name, cell)| (name.to_string(), cell.to_string()));
        let rings =
            self.rings().map(|(name, ring)| (Prefix::Ring(name.clone()).to_string(), ring.to_string()));
        let mut rules: Vec<_> = plain.chain(rings).collect();
        rules.sort_unstable();
        for (prefix, _) in &mut rules {
            *prefix = quoted(prefix);
        }
        let width = rules.iter().map(|(prefix, _)| prefix.chars().count()).max().unwrap_or(0).min(COLUMN_MAX);
        let mut text = format!("version {}\n\n", self.version);
        for (prefix, cells) in rules {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{prefix:width$}  {cells}");
        }
        if let Some(Change { prefix, cells }) = self.change() {
            let prefix = quoted(&prefix.to_string());
            let cells: Vec<_> = cells.iter().map(CellName::as_str).collect();
            let cells = if cells.is_empty() { GOES.to_owned() } else { cells.join(" ") };
            let _ = writeln!(text, "\nnext {prefix}  {cells}");
        }
        text.push('\n');
        for (cell, addresses) in &self.cells {
            let line = format!("cell {cell} {}", addresses.join(","));
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

impl PartitionMap {
    /// What the file [`PARTITIONS_FILE`] holds: the rules, and the cells without their addresses. Those belong to the
    /// configuration and may change there; the file would go on to say where replicas were when it was written.
    pub fn to_file(&self) -> String {
        FILE_HEAD.to_owned() + &self.without_addresses().to_text()
    }
}

impl Rule {
    fn read(prefix: &str, cells: &[&str]) -> Result<Self, String> {
        let prefix = Prefix::parse(prefix).map_err(|error| error.to_string())?;
        let cells = cells.iter().copied().flat_map(listed).map(str::to_owned).collect();
        Ok(Self { prefix, cells })
    }

    /// What a rule is to be: without cells if it goes, which has to be said.
    fn read_next(prefix: &str, cells: &[&str]) -> Result<Self, String> {
        if cells == [GOES] {
            return Self::read(prefix, &[]);
        }
        let rule = Self::read(prefix, cells)?;
        let none = format!("no cell; {GOES:?} if the rule is to go");
        if rule.cells.is_empty() { Err(none) } else { Ok(rule) }
    }
}

impl Lines {
    fn take(&mut self, number: usize, line: &[u8]) -> Result<(), String> {
        let line = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
        let words = words(line)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => {}
            ["version", version] => {
                let version = version.parse().map_err(|_| format!("version {version}: not a number"))?;
                if self.version.replace(version).is_some() {
                    return Err("a second version".into());
                }
            }
            ["version", ..] => return Err("a version is one number".into()),
            ["cell"] => return Err("a cell without a name".into()),
            ["cell", name, rest @ ..] => self.take_cell(name, &rest.join(" "))?,
            [prefix, rest @ ..] if prefix.starts_with('/') => {
                self.rules.push((number, Rule::read(prefix, rest)?));
            }
            ["next"] => return Err("which rule is next?".into()),
            ["next", prefix, rest @ ..] => {
                if self.next.replace((number, Rule::read_next(prefix, rest)?)).is_some() {
                    return Err("a second line \"next\": one change at a time".into());
                }
            }
            [other, ..] => {
                return Err(format!("{other:?} is neither a name nor one of the words version, next, cell"));
            }
        }
        Ok(())
    }

    fn take_cell(&mut self, name: &str, rest: &str) -> Result<(), String> {
        if !CellName::is_valid(name) {
            return Err(format!("{name:?} is not a cell name"));
        }
        let addresses: Vec<String> = listed(rest).map(str::to_owned).collect();
        if let Some(bad) = addresses.iter().find(|address| !hosts::is_address(address)) {
            return Err(format!("cell {name}: {bad:?} is not HOST:PORT"));
        }
        match self.cells.entry(CellName::new(name)) {
            Entry::Occupied(_) => Err(format!("cell {name} is listed twice")),
            Entry::Vacant(entry) => {
                entry.insert(addresses);
                Ok(())
            }
        }
    }
}

/// The words of a line up to a `#` that begins one. A word that begins with a quote goes on to the next quote.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// The word up to its closing quote, and what is behind it.
fn unquoted(text: &str) -> Result<(String, &str), String> {
    let mut word = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => {
                let after = &text[at + 1..];
                let is_end = after.is_empty() || after.starts_with(char::is_whitespace);
                return if is_end { Ok((word, after)) } else { Err("no blank behind a quote".into()) };
            }
            '\\' => word.extend(chars.next().map(|(_, char)| char)),
            _ => word.push(char),
        }
    }
    Err("a quote that does not end".into())
}

/// As a word that [`words`] reads as this.
fn quoted(text: &str) -> String {
    if !text.contains(char::is_whitespace) {
        return text.to_owned();
    }
    let escape = |char: char| matches!(char, '"' | '\\').then_some('\\').into_iter().chain([char]);
    format!("\"{}\"", text.chars().flat_map(escape).collect::<String>())
}
