//! Handles and sequencers: what claims to be one, and what the cell's key says of it.

use bytes::Bytes;
use hasp_proto::handle::{HandleKey, HandleToken};
use hasp_proto::sequencer::SequencerToken;

use crate::target::Verdict;

/// The key of the tokens in the corpus.
pub fn key() -> HandleKey {
    HandleKey::new(Bytes::from_static(b"a key of thirty-two known bytes."))
}

/// Bytes that claim to be a handle.
pub fn handle(bytes: &[u8]) -> Verdict {
    let token = HandleToken::new(Bytes::copy_from_slice(bytes));
    let _ = format!("{token:?}");
    let claimed = token.claimed_body();
    match key().open(&token) {
        Some(body) => {
            assert_eq!(claimed.as_ref(), Some(&body), "what is true was claimed");
            assert_eq!(key().seal(&body), token, "only what was sealed opens");
            assert_eq!(key().open_sequencer(&SequencerToken::new(token.as_bytes().clone())), None);
            Verdict::taken("true")
        }
        None => match claimed {
            Some(body) => {
                let sealed = key().seal(&body);
                assert_eq!(key().open(&sealed), Some(body), "what can be claimed can be sealed and opened");
                Verdict::refused("claimed")
            }
            None => Verdict::refused("nonsense"),
        },
    }
}

/// Bytes that claim to be a sequencer.
pub fn sequencer(bytes: &[u8]) -> Verdict {
    let token = SequencerToken::new(Bytes::copy_from_slice(bytes));
    let claimed = token.claimed_body();
    match (key().open_sequencer(&token), claimed) {
        (Some(body), claimed) => {
            assert_eq!(claimed.as_ref(), Ok(&body), "what is true was claimed");
            assert_eq!(key().seal_sequencer(&body), token, "only what was sealed opens");
            assert_eq!(key().open(&HandleToken::new(token.as_bytes().clone())), None);
            assert_eq!(token.to_string().parse(), Ok(token));
            Verdict::taken("true")
        }
        (None, Ok(body)) => {
            let sealed = key().seal_sequencer(&body);
            assert_eq!(
                key().open_sequencer(&sealed),
                Some(body),
                "what can be claimed can be sealed and opened"
            );
            assert_eq!(token.to_string().parse(), Ok(token));
            Verdict::refused("claimed")
        }
        (None, Err(error)) => {
            assert_eq!(token.to_string().parse::<SequencerToken>(), Err(error), "one shape, two forms");
            Verdict::refused(error.to_string())
        }
    }
}

/// Text that claims to be a sequencer.
pub fn sequencer_text(bytes: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(bytes) else { return Verdict::refused("not text") };
    match text.parse::<SequencerToken>() {
        Ok(token) => {
            assert_eq!(token.to_string(), text, "one sequencer, one text");
            assert!(token.claimed_body().is_ok(), "its shape was checked");
            Verdict::taken("a sequencer")
        }
        Err(error) => Verdict::refused(error.to_string()),
    }
}
