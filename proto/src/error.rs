//! The closed set of errors that a host may answer with, and what a caller does about each.

use std::time::Duration;

/// An error as it travels: which, and for people what and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Error {
    /// What programs look at.
    pub code: ErrorCode,
    /// For people.
    pub detail: String,
}

/// What went wrong, with what the caller needs to act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// No node of that name. The caller decides.
    NotFound,
    /// The node that must be created exists.
    AlreadyExists,
    /// The parent, or the node to list, is a file.
    NotADirectory,
    /// The directory to delete has children.
    NotEmpty,
    /// The handle's node was deleted, or the handle is forged, foreign or closed: open again.
    StaleHandle,
    /// The generation given is not the current one: read again.
    GenerationMismatch,
    /// The node's ACLs, or the handle's use, do not allow it.
    PermissionDenied,
    /// Who asks is not known.
    Unauthenticated,
    /// Somebody else holds the lock in a mode that conflicts.
    LockHeld,
    /// The handle does not hold the lock.
    LockNotHeld,
    /// The lock is free but its lock-delay is running.
    LockDelayed {
        /// About how long still.
        retry_after: Duration,
    },
    /// The sequencer's acquisition no longer stands.
    SequencerInvalid,
    /// The session is over: start a new one.
    SessionExpired,
    /// A newer host has claimed the session: this one must stop.
    SessionMoved,
    /// The call carried an older epoch.
    WrongEpoch,
    /// This replica is not the master: go there, or ask another.
    NotMaster {
        /// Address of the master, if known.
        hint: Option<String>,
    },
    /// The name belongs to another cell.
    WrongCell {
        /// Version of the map the cell goes by.
        map_version: u64,
    },
    /// Contents, or a message, beyond a limit.
    TooLarge,
    /// A quota of the directory or the cell is used up.
    QuotaExceeded,
    /// Too many at once: wait.
    RateLimited {
        /// How long.
        retry_after: Duration,
    },
    /// The caller cancelled it, or closed the handle.
    Cancelled,
    /// Not possible just now; whether it was done is unknown. Ask again with the same number.
    Unavailable,
    /// Not a name by the grammar.
    InvalidName,
    /// Nonsense: a mistake of the calling program.
    InvalidArgument,
}

/// What a client library may do by itself about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing: the application decides.
    Never,
    /// The same request, with its number, at the same host, after a pause.
    SameHost,
    /// The same request, with its number, at the master.
    FindMaster,
    /// Nothing on this session will ever succeed.
    NewSession,
    /// Look at the map again and send it to the cell that owns the name.
    Reroute,
}

impl ErrorCode {
    /// The name scripts and people know it by.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::NotADirectory => "NotADirectory",
            Self::NotEmpty => "NotEmpty",
            Self::StaleHandle => "StaleHandle",
            Self::GenerationMismatch => "GenerationMismatch",
            Self::PermissionDenied => "PermissionDenied",
            Self::Unauthenticated => "Unauthenticated",
            Self::LockHeld => "LockHeld",
            Self::LockNotHeld => "LockNotHeld",
            Self::LockDelayed { .. } => "LockDelayed",
            Self::SequencerInvalid => "SequencerInvalid",
            Self::SessionExpired => "SessionExpired",
            Self::SessionMoved => "SessionMoved",
            Self::WrongEpoch => "WrongEpoch",
            Self::NotMaster { .. } => "NotMaster",
            Self::WrongCell { .. } => "WrongCell",
            Self::TooLarge => "TooLarge",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::RateLimited { .. } => "RateLimited",
            Self::Cancelled => "Cancelled",
            Self::Unavailable => "Unavailable",
            Self::InvalidName => "InvalidName",
            Self::InvalidArgument => "InvalidArgument",
        }
    }

    /// What a library may do about it without asking the application.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotMaster { .. } | Self::WrongEpoch => Retry::FindMaster,
            Self::Unavailable | Self::RateLimited { .. } => Retry::SameHost,
            Self::SessionExpired | Self::SessionMoved => Retry::NewSession,
            Self::WrongCell { .. } => Retry::Reroute,
            Self::NotFound
            | Self::AlreadyExists
            | Self::NotADirectory
            | Self::NotEmpty
            | Self::StaleHandle
            | Self::GenerationMismatch
            | Self::PermissionDenied
            | Self::Unauthenticated
            | Self::LockHeld
            | Self::LockNotHeld
            | Self::LockDelayed { .. }
            | Self::SequencerInvalid
            | Self::TooLarge
            | Self::QuotaExceeded
            | Self::Cancelled
            | Self::InvalidName
            | Self::InvalidArgument => Retry::Never,
        }
    }

    /// The error with its detail for people.
    pub fn because(self, detail: impl Into<String>) -> Error {
        Error { code: self, detail: detail.into() }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl From<crate::name::NameError> for Error {
    fn from(error: crate::name::NameError) -> Self {
        ErrorCode::InvalidName.because(error.to_string())
    }
}
