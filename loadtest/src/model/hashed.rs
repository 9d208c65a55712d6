//! A part of a state that is shared between states until it changes, with the fingerprint of its `Debug` text.
//!
//! The machines do not implement `Hash`; their `Debug` text shows every field that decides anything. What it leaves out
//! are secrets, which never change, and what is nothing but a function of what is shown: the check digits of handles.

use std::fmt::{self, Debug, Write as _};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

/// Shared until it is changed.
#[derive(Clone)]
pub struct Hashed<T> {
    value: Arc<T>,
    /// Of the text; `None` while it is being changed.
    print: Option<u64>,
}

impl<T: Clone + Debug> Hashed<T> {
    /// A part that is shared with nobody.
    pub fn new(value: T) -> Self {
        Self { print: Some(fingerprint(&value)), value: Arc::new(value) }
    }

    /// The part, to be changed; [`Hashed::seal`] it before it is hashed.
    pub fn change(&mut self) -> &mut T {
        self.print = None;
        Arc::make_mut(&mut self.value)
    }

    /// The fingerprint.
    pub fn print(&self) -> u64 {
        self.print.expect("a part is sealed before anybody sees it")
    }

    /// Takes the fingerprint, if it was changed.
    pub fn seal(&mut self) {
        if self.print.is_none() {
            self.print = Some(fingerprint(&*self.value));
        }
    }
}

impl<T> Deref for Hashed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Clone + Debug> Hash for Hashed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.print());
    }
}

impl<T> PartialEq for Hashed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl<T: Debug> Debug for Hashed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// Of what `Debug` shows.
pub fn fingerprint(value: &impl Debug) -> u64 {
    let mut text = Text(Xxh3::new());
    write!(text, "{value:?}").expect("a hasher takes any text");
    text.0.digest()
}

struct Text(Xxh3);

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}
