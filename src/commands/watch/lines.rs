//! What `hasp watch` prints: one line for each event, and what there is to see after it.

use hasp_client::{CallError, Children, ContentsAndStat, Handle, LossCause, Name, NodeEvent, Position};
use serde::Serialize;

use crate::exit::Failure;
use crate::format::{File, Listing, json_line};

/// One event, as text or as JSON; fields that say nothing of it are left out.
#[derive(Debug, Default, Serialize)]
pub struct Line<'a> {
    event: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cell: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<PositionObject<'a>>,
}

#[derive(Debug, Serialize)]
struct PositionObject<'a> {
    cell: &'a str,
    epoch: u64,
    index: u64,
}

impl<'a> Line<'a> {
    /// From here on events are told.
    pub fn watching(handle: &'a Handle, position: Option<&'a Position>) -> Self {
        let instance = Some(handle.instance().0);
        let line = Self { event: "watching", name: handle.name().as_str(), ..Self::default() };
        Self { instance, position: position.map(position_object), ..line }
    }

    /// Something happened to the node.
    pub fn happened(event: &'a NodeEvent) -> Self {
        Self {
            event: event.kind.name(),
            name: event.name.as_str(),
            instance: Some(event.instance.0),
            child: event.child.as_deref(),
            position: Some(position_object(&event.position)),
            ..Self::default()
        }
    }

    /// Events may have been missed.
    pub fn lost(name: &'a Name, cause: &'a LossCause) -> Self {
        let lost = |cause| Self { event: "events-lost", cause: Some(cause), ..Self::default() };
        let line = match cause {
            LossCause::Slow => lost("slow"),
            LossCause::Host => lost("host"),
            LossCause::NewHost => lost("new-host"),
            LossCause::FailOver { cell, epoch } => {
                let (cell, epoch) = (Some(cell.as_str()), Some(epoch.0));
                Self { event: "fail-over", cell, epoch, ..Self::default() }
            }
        };
        Self { name: name.as_str(), ..line }
    }

    /// Nothing will be told any more.
    pub fn invalid(name: &'a Name, error: &CallError) -> Self {
        let why = Some(error.to_string());
        Self { event: "handle-invalid", name: name.as_str(), why, ..Self::default() }
    }

    /// For people: the child comes last, since it may hold spaces.
    pub fn text(&self) -> String {
        let mut text = format!("{} {}", self.event, self.name);
        let mut add = |field: &str, value: Option<String>| {
            if let Some(value) = value {
                text.push_str(&format!(" {field}={value}"));
            }
        };
        add("cell", self.cell.map(str::to_owned));
        add("epoch", self.epoch.map(|epoch| epoch.to_string()));
        add("cause", self.cause.map(str::to_owned));
        add("child", self.child.map(str::to_owned));
        text + "\n"
    }
}

fn position_object(position: &Position) -> PositionObject<'_> {
    PositionObject { cell: position.cell.as_str(), epoch: position.epoch.0, index: position.index }
}

/// What was read after an event.
#[derive(Debug)]
pub enum Seen {
    /// Of a file.
    Contents(ContentsAndStat),
    /// Of a directory.
    Children(Children),
}

/// The same, for JSON.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum State<'a> {
    File(File<'a>),
    Directory(Listing<'a>),
}

impl Seen {
    fn state<'a>(&'a self, name: &'a Name) -> State<'a> {
        match self {
            Self::Contents(file) => State::File(File::new(name, &file.contents, &file.stat)),
            Self::Children(children) => State::Directory(Listing::new(name, &children.children)),
        }
    }

    /// The contents as they are, on lines of their own; or the children, one a line.
    fn bytes(&self, name: &Name) -> Vec<u8> {
        match self {
            Self::Contents(file) => {
                let mut bytes = file.contents.to_vec();
                if bytes.last().is_some_and(|last| *last != b'\n') {
                    bytes.push(b'\n');
                }
                bytes
            }
            Self::Children(children) => Listing::new(name, &children.children).short().into_bytes(),
        }
    }
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// An event and what was seen after it, as bytes to be written at once.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn render(form: Form, line: &Line<'_>, name: &Name, seen: Option<&Seen>) -> Result<Vec<u8>, Failure> {
    #[derive(Serialize)]
    struct Object<'a> {
        #[serde(flatten)]
        line: &'a Line<'a>,
        #[serde(flatten)]
        state: Option<State<'a>>,
    }
    match form {
        Form::Json => {
            let object = Object { line, state: seen.map(|seen| seen.state(name)) };
            Ok(json_line(&object)?.into_bytes())
        }
        Form::Text => {
            let mut bytes = line.text().into_bytes();
            bytes.extend(seen.map(|seen| seen.bytes(name)).unwrap_or_default());
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests;
