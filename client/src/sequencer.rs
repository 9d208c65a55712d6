//! Sequencers as applications see them: proof of a held lock, to be shown to other services.

use std::fmt;
use std::str::FromStr;

use hasp_proto::id::{CellName, Generation, Instance};
use hasp_proto::name::Name;
use hasp_proto::node::LockMode;
use hasp_proto::sequencer::{NotASequencer, SequencerBody, SequencerToken};

/// What the holder of a lock shows to the services it uses, so that they can refuse what comes late
/// from a former holder (paper §2.4).
///
/// It travels as text ([`Display`](fmt::Display) and [`FromStr`]): `hasp1.` and hexadecimal digits. What it says
/// of itself is only a claim until a cell has checked it
/// ([`Client::check_sequencer`](crate::Client::check_sequencer)).
#[derive(Clone, PartialEq, Eq)]
pub struct Sequencer {
    token: SequencerToken,
    body: SequencerBody,
}

impl Sequencer {
    /// Takes the token that a cell made.
    pub(crate) fn new(token: SequencerToken) -> Result<Self, NotASequencer> {
        let body = token.claimed_body()?;
        Ok(Self { token, body })
    }

    /// The node whose lock is held.
    pub fn name(&self) -> &Name {
        &self.body.name
    }

    /// Which of the nodes of that name.
    pub fn instance(&self) -> Instance {
        self.body.instance
    }

    /// The cell that granted the lock, and can tell whether it is held still.
    pub fn cell(&self) -> &CellName {
        &self.body.cell
    }

    /// How the lock is held.
    pub fn mode(&self) -> LockMode {
        self.body.mode
    }

    /// Of the acquisition; grows with each acquisition of the name's lock, for ever.
    pub fn lock_generation(&self) -> Generation {
        self.body.lock_generation
    }

    pub(crate) const fn token(&self) -> &SequencerToken {
        &self.token
    }
}

impl fmt::Display for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.token.fmt(f)
    }
}

impl fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.token, f)
    }
}

impl FromStr for Sequencer {
    type Err = NotASequencer;

    fn from_str(text: &str) -> Result<Self, NotASequencer> {
        Self::new(text.parse()?)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hasp_proto::handle::HandleKey;

    use super::*;

    #[test]
    fn a_sequencer_says_what_it_was_made_of_also_after_travelling_as_text() {
        let body = SequencerBody {
            cell: CellName::new("a"),
            name: Name::parse("/ls/dev/leader").unwrap(),
            instance: Instance(7),
            mode: LockMode::Shared,
            lock_generation: Generation(12),
        };
        let made =
            Sequencer::new(HandleKey::new(Bytes::from_static(&[7; 32])).seal_sequencer(&body)).unwrap();

        let read: Sequencer = made.to_string().parse().unwrap();

        assert_eq!(read, made);
        assert_eq!(read.name().as_str(), "/ls/dev/leader");
        assert_eq!((read.instance(), read.lock_generation()), (Instance(7), Generation(12)));
        assert_eq!((read.mode(), read.cell().as_str()), (LockMode::Shared, "a"));
        assert_eq!(format!("{read:?}"), "sequencer(/ls/dev/leader #7 Shared 12)");
    }

    #[test]
    fn text_that_is_no_sequencer_is_refused() {
        assert!("hasp1.00".parse::<Sequencer>().is_err());
        assert!("sesame".parse::<Sequencer>().is_err());
    }
}
