//! How a command ends: the exit codes that scripts rely on, and one line on stderr (design §8).

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use hasp_client::{CallError, ConnectError};

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Done,
    /// With this code, for a reason that has been told already, or that is not ours to tell.
    Code(u8),
    /// With an error to be told in one line.
    Failed(Failure),
}

/// What went wrong, by whose fault: each has its exit code.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The service said no. Exit code 1; the line begins with the error's name.
    Refused(String),
    /// The command was called wrongly. Exit code 2.
    Usage(String),
    /// Nobody answered at the addresses given. Exit code 3.
    Unreachable(String),
    /// This machine said no: a file, a pipe, a port. Exit code 1.
    Local(String),
}

/// Writes a line to stderr. With stderr gone there is nobody left to tell.
pub fn tell(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

impl Exit {
    /// Tells the error, if there is one, and gives the code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::Code(code) => ExitCode::from(code),
            Self::Failed(failure) => {
                tell(&failure);
                ExitCode::from(failure.code())
            }
        }
    }
}

impl Failure {
    /// The exit code that says who is at fault.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Local(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }

    /// An error of this machine, with what was being done.
    pub fn local(doing: &str, error: impl fmt::Display) -> Self {
        Self::Local(format!("{doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Refused(text) | Self::Usage(text) | Self::Local(text) => text,
            Self::Unreachable(text) => {
                f.write_str("Unreachable: ")?;
                text
            }
        };
        f.write_str(&text.replace(char::is_control, " "))
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused(error) => Self::Refused(error.to_string()),
            ConnectError::Invalid(_) => Self::Usage(error.to_string()),
            ConnectError::Unreachable(_) => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<Result<(), Failure>> for Exit {
    fn from(result: Result<(), Failure>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(failure) => Self::Failed(failure),
        }
    }
}

impl From<Failure> for Exit {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_one_line() {
        let check = |failure: Failure, line: &str, code: u8| {
            assert_eq!(failure.to_string(), line);
            assert_eq!(failure.code(), code);
        };
        check(Failure::Refused("NotFound: no\nsuch node".into()), "NotFound: no such node", 1);
        check(Failure::Usage("InvalidName: no".into()), "InvalidName: no", 2);
        check(Failure::Unreachable("127.0.0.1:1 refused".into()), "Unreachable: 127.0.0.1:1 refused", 3);
        check(Failure::local("read stdin", "closed"), "read stdin: closed", 1);
    }
}
