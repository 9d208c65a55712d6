//! Why a call did not succeed.

use std::fmt;

use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::limits::CONTENTS_BYTES_MAX;
use hasp_proto::name::NameError;
use hasp_proto::position::Position;

/// What a call was refused with, by the service or before it was sent.
///
/// The library has already done what could be done without the application: asked again, found the
/// new master, gone to the cell that owns the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// What programs look at.
    pub code: ErrorCode,
    /// For people.
    pub detail: String,
    /// What the refusal reflects; `None` if no cell was asked.
    pub position: Option<Position>,
}

impl CallError {
    pub(crate) fn new(error: Error, position: Option<Position>) -> Self {
        Self { code: error.code, detail: error.detail, position }
    }

    pub(crate) fn local(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::new(code.because(detail), None)
    }

    pub(crate) fn session_over() -> Self {
        Self::local(ErrorCode::SessionExpired, "the session is over")
    }

    /// The host's own mistake. Nobody can do anything about it but ask another one.
    pub(crate) fn wrong_reply() -> Self {
        Self::local(ErrorCode::Unavailable, "the host answered something else than was asked")
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for CallError {}

impl From<NameError> for CallError {
    fn from(error: NameError) -> Self {
        Self::new(error.into(), None)
    }
}

/// Refuses contents that no cell would take, before they are sent.
pub(crate) fn check_contents(contents: &[u8]) -> Result<(), CallError> {
    if contents.len() <= CONTENTS_BYTES_MAX {
        return Ok(());
    }
    let detail = format!("{} bytes of contents, the limit is {CONTENTS_BYTES_MAX}", contents.len());
    Err(CallError::local(ErrorCode::TooLarge, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_up_to_the_limit_are_taken_and_no_more() {
        assert_eq!(check_contents(&vec![0; CONTENTS_BYTES_MAX]), Ok(()));

        let error = check_contents(&vec![0; CONTENTS_BYTES_MAX + 1]).expect_err("too large");

        assert_eq!(error.code, ErrorCode::TooLarge);
        assert_eq!(error.to_string(), "TooLarge: 262145 bytes of contents, the limit is 262144");
    }
}
