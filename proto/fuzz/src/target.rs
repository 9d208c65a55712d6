//! What a target is, and the list of them.

use crate::targets;

/// Something that reads bytes.
pub struct Target {
    /// Of its directory in the corpus, and for the command line.
    pub name: &'static str,
    /// Given any bytes it must return. It panics if what it read does not survive being written again, or if a
    /// machine it was fed to broke an invariant.
    pub run: fn(&[u8]) -> Verdict,
    /// How its inputs are built, so that mutations make sense of them.
    pub shape: Shape,
    /// Fresh inputs that an ordinary test run tries.
    pub fresh: u32,
}

/// How inputs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Protobuf messages, nested.
    Messages,
    /// Text, in which these words mean something.
    Text(&'static [&'static str]),
    /// Bytes of a format of its own.
    Bytes,
}

/// How far a target came with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The input meant something, all of it.
    pub taken: bool,
    /// What the target came across, in steps that end with a semicolon.
    pub trail: String,
}

impl Verdict {
    /// The input meant something.
    pub fn taken(trail: impl AsRef<str>) -> Self {
        Self { taken: true, trail: kind_of(trail.as_ref()) }
    }

    /// The input was refused, or part of it.
    pub fn refused(trail: impl AsRef<str>) -> Self {
        Self { taken: false, trail: kind_of(trail.as_ref()) }
    }
}

/// A text without what differs from input to input: numbers and what is quoted.
fn kind_of(text: &str) -> String {
    const LENGTH: usize = 400;
    let mut is_quoted = false;
    let mut kind = String::new();
    for char in text.chars() {
        match char {
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '0'..='9' if kind.ends_with('#') => {}
            '0'..='9' => kind.push('#'),
            _ => kind.push(char),
        }
        if kind.len() >= LENGTH {
            break;
        }
    }
    kind
}

/// The name of a value's variant.
pub fn variant(value: &impl std::fmt::Debug) -> String {
    use std::fmt::Write as _;
    let mut name = FirstWord(String::new());
    // Refuses to take more than the first word, which ends the formatting.
    let _ = write!(name, "{value:?}");
    name.0
}

struct FirstWord(String);

impl std::fmt::Write for FirstWord {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let word = text.find(|char: char| !char.is_ascii_alphanumeric());
        self.0.push_str(&text[..word.unwrap_or(text.len())]);
        word.map_or(Ok(()), |_| Err(std::fmt::Error))
    }
}

/// Every target, by name.
pub fn all() -> &'static [Target] {
    targets::ALL
}

/// The target of that name.
pub fn find(name: &str) -> Option<&'static Target> {
    all().iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_its_name_whatever_it_holds() {
        assert_eq!(variant(&Some("a word")), "Some");
        assert_eq!(variant(&Shape::Messages), "Messages");
    }

    #[test]
    fn inputs_are_of_one_kind_whatever_their_numbers_and_names() {
        assert_eq!(kind_of("record 12 of \"a\" at 7"), kind_of("record 3 of \"bcd\" at 15"));
        assert_ne!(kind_of("record 12"), kind_of("entry 12"));
    }
}
