//! Names of nodes: `/ls/<namespace>/<component>/...` (design §4.1, paper §2.3).
//!
//! One canonical form, decided here once: whatever parses as a [`Name`] is compared, hashed,
//! routed and stored byte for byte. Nobody else takes names apart.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::limits::{COMPONENT_BYTES_MAX, COMPONENTS_MAX, NAME_BYTES_MAX};

/// Prefix of every name.
const ROOT: &str = "/ls/";

/// A checked absolute name.
///
/// *Invariant*: starts with `/ls/<namespace>`, has no empty, `.` or `..` component, no control
/// characters, and keeps within the limits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why some text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It does not begin with `/ls/` and a namespace.
    #[error("a name begins with /ls/ and a namespace, as in /ls/dev/file")]
    NoNamespace,
    /// It is longer than the limit.
    #[error("the name has {0} bytes, the limit is {NAME_BYTES_MAX}")]
    TooLong(usize),
    /// It has more components than the limit.
    #[error("the name has more than {COMPONENTS_MAX} components")]
    TooDeep,
    /// A component is empty: two slashes in a row, or one at the end.
    #[error("component {0} is empty")]
    EmptyComponent(usize),
    /// A component is longer than the limit.
    #[error("component {0} is longer than {COMPONENT_BYTES_MAX} bytes")]
    LongComponent(usize),
    /// A component is `.` or `..`.
    #[error("component {0} is . or .., which names do not have")]
    Relative(usize),
    /// A component holds a slash.
    #[error("component {0} holds a slash")]
    Slash(usize),
    /// A component holds a NUL or another control character.
    #[error("component {0} holds a control character")]
    Control(usize),
}

impl Name {
    /// Checks `text` against the grammar.
    ///
    /// # Errors
    /// The first thing that is wrong, and in which component (counted from 1, `ls` being the first).
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        let below = text.strip_prefix(ROOT).ok_or(NameError::NoNamespace)?;
        if below.is_empty() {
            return Err(NameError::NoNamespace);
        }
        for (index, component) in below.split('/').enumerate() {
            let place = index + 2;
            if place > COMPONENTS_MAX {
                return Err(NameError::TooDeep);
            }
            check_component(component, place)?;
        }
        Ok(Self(text.into()))
    }

    /// The name of the child `component` of this directory.
    ///
    /// # Errors
    /// `component` is not one, or the whole gets too long or too deep.
    pub fn child(&self, component: &str) -> Result<Self, NameError> {
        check_component(component, self.depth() + 1)?;
        Self::parse(&format!("{}/{component}", self.0))
    }

    /// The directory that this node is in; `None` for a namespace's root.
    pub fn parent(&self) -> Option<Name> {
        let (parent, _) = self.0.rsplit_once('/')?;
        (parent.len() > ROOT.len() - 1).then(|| Self(parent.into()))
    }

    /// This name, and those of all directories above, as text: from this up to the namespace's root.
    pub fn ancestry(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |name| Some(name.rsplit_once('/')?.0))
            .take_while(|name| name.len() >= ROOT.len())
    }

    /// The last component.
    pub fn component(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(_, component)| component)
    }

    /// The namespace: the second component.
    pub fn namespace(&self) -> &str {
        let below = &self.0[ROOT.len()..];
        below.split_once('/').map_or(below, |(namespace, _)| namespace)
    }

    /// How many components; a namespace's root has 2.
    pub fn depth(&self) -> usize {
        self.0.bytes().filter(|b| *b == b'/').count()
    }

    /// Whether this is strictly below `directory`: `/ls/a/b` is below `/ls/a`, `/ls/ab` is not.
    pub fn is_below(&self, directory: &Name) -> bool {
        self.0.strip_prefix(&*directory.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_component(component: &str, place: usize) -> Result<(), NameError> {
    match component {
        "" => return Err(NameError::EmptyComponent(place)),
        "." | ".." => return Err(NameError::Relative(place)),
        _ => {}
    }
    if component.len() > COMPONENT_BYTES_MAX {
        return Err(NameError::LongComponent(place));
    }
    if component.contains('/') {
        return Err(NameError::Slash(place));
    }
    if component.chars().any(char::is_control) {
        return Err(NameError::Control(place));
    }
    Ok(())
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a good name")
    }

    #[test]
    fn names_within_the_grammar_are_taken_as_they_are() {
        for text in ["/ls/dev", "/ls/dev/a", "/ls/dev/a b/ü.txt", "/ls/dev/...", "/ls/dev/.hasp"] {
            assert_eq!(name(text).as_str(), text);
        }
        let longest = format!("/ls/dev/{}", "x".repeat(COMPONENT_BYTES_MAX));
        assert_eq!(name(&longest).component().len(), COMPONENT_BYTES_MAX);
        let deepest = format!("/ls{}", "/d".repeat(COMPONENTS_MAX - 1));
        assert_eq!(name(&deepest).depth(), COMPONENTS_MAX);
    }

    #[test]
    fn names_beyond_the_grammar_are_refused_with_the_place() {
        let check = |text: &str, error: NameError| assert_eq!(Name::parse(text), Err(error), "{text:?}");

        check("", NameError::NoNamespace);
        check("/ls", NameError::NoNamespace);
        check("/ls/", NameError::NoNamespace);
        check("/etc/passwd", NameError::NoNamespace);
        check("ls/dev", NameError::NoNamespace);
        check("/ls/dev/", NameError::EmptyComponent(3));
        check("/ls/dev//a", NameError::EmptyComponent(3));
        check("/ls/dev/../b", NameError::Relative(3));
        check("/ls/./b", NameError::Relative(2));
        check("/ls/dev/a\0b", NameError::Control(3));
        check("/ls/dev/a\nb", NameError::Control(3));
        check(&format!("/ls/dev/{}", "x".repeat(256)), NameError::LongComponent(3));
        check(&format!("/ls{}", "/d".repeat(64)), NameError::TooDeep);
        let long = format!("/ls{}", format!("/{}", "x".repeat(250)).repeat(5));
        check(&long, NameError::TooLong(long.len()));
    }

    #[test]
    fn parent_and_child_are_inverse_and_stop_at_the_namespace() {
        let directory = name("/ls/dev/a");

        assert_eq!(directory.child("b").expect("good"), name("/ls/dev/a/b"));
        assert_eq!(name("/ls/dev/a/b").parent(), Some(directory.clone()));
        assert_eq!(name("/ls/dev").parent(), None);
        assert!(directory.child("b/c").is_err());
        assert!(directory.child("..").is_err());
    }

    #[test]
    fn the_ancestry_of_a_name_ends_at_the_namespace() {
        assert_eq!(name("/ls/d/a/b").ancestry().collect::<Vec<_>>(), ["/ls/d/a/b", "/ls/d/a", "/ls/d"]);
        assert_eq!(name("/ls/d").ancestry().collect::<Vec<_>>(), ["/ls/d"]);
    }

    #[test]
    fn below_means_below_in_components_not_in_bytes() {
        assert!(name("/ls/dev/a/b").is_below(&name("/ls/dev/a")));
        assert!(name("/ls/dev/a/b/c").is_below(&name("/ls/dev/a")));
        assert!(!name("/ls/dev/a").is_below(&name("/ls/dev/a")));
        assert!(!name("/ls/dev/ab").is_below(&name("/ls/dev/a")));
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_bytes(text in "\\PC{0,40}|(/[a-z.]{0,4}){0,8}") {
            if let Ok(parsed) = Name::parse(&text) {
                proptest::prop_assert_eq!(parsed.as_str(), &text);
                proptest::prop_assert!(parsed.depth() >= 2);
                let parents = std::iter::successors(Some(parsed.clone()), Name::parent);
                proptest::prop_assert!(parents.map(|name| name.to_string()).eq(parsed.ancestry()));
                if let Some(parent) = parsed.parent() {
                    proptest::prop_assert!(parsed.is_below(&parent));
                    proptest::prop_assert_eq!(parent.child(parsed.component()).expect("same"), parsed);
                }
            }
        }
    }
}
