//! Where a request comes from, for those who follow requests through the system (W3C trace context). It is carried
//! along with the request and handed on; nothing is ever decided by it.

use bytes::Bytes;

/// Bytes of a trace context: an id of 16, an id of 8, flags.
const BYTES: usize = 25;
/// The flag that says that the trace is kept.
const SAMPLED: u8 = 1;

/// A trace, the step of it that asked, and flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext(Box<[u8; BYTES]>);

impl TraceContext {
    /// Of the trace, the step in it, and the flags, as W3C trace context defines them.
    pub fn new(trace: [u8; 16], step: [u8; 8], flags: u8) -> Self {
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(&trace);
        bytes[16..24].copy_from_slice(&step);
        bytes[24] = flags;
        Self(Box::new(bytes))
    }

    /// As [`TraceContext::to_bytes`] gave it; `None` if it is something else, which is no reason to refuse anything.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes: [u8; BYTES]| Self(Box::new(bytes)))
    }

    /// As it travels.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&*self.0)
    }

    /// The trace.
    pub fn trace(&self) -> [u8; 16] {
        self.0[..16].try_into().expect("16 of 25 bytes")
    }

    /// The step that asked.
    pub fn step(&self) -> [u8; 8] {
        self.0[16..24].try_into().expect("8 of 25 bytes")
    }

    /// Whether the trace is kept.
    pub fn is_sampled(&self) -> bool {
        self.0[24] & SAMPLED != 0
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::id::RequestNumber;
    use crate::request::{Op, Request};
    use crate::wire::v1;

    #[test]
    fn a_request_that_nobody_follows_has_no_byte_of_it_and_nonsense_is_no_fault() {
        let (number, settled_below) = (RequestNumber(7), RequestNumber(7));
        let op = Op::Claim;
        let request =
            Request { number, settled_below, on_behalf: None, guard: None, caches: false, trace: None, op };
        let followed = Request { trace: Some(TraceContext::new([7; 16], [9; 8], 1)), ..request.clone() };

        let (plain, traced) = (v1::Request::from(request.clone()), v1::Request::from(followed.clone()));

        assert_eq!(traced.encoded_len(), plain.encoded_len() + 2 + BYTES);
        assert_eq!(Request::try_from(traced).ok(), Some(followed));
        let nonsense = v1::Request { trace: Bytes::from_static(b"00-not-a-trace"), ..plain };
        assert_eq!(Request::try_from(nonsense).ok(), Some(request));
    }

    #[test]
    fn it_travels_as_it_is_and_nothing_else_is_taken_for_one() {
        let context = TraceContext::new([7; 16], [9; 8], 1);

        let bytes = context.to_bytes();

        assert_eq!(TraceContext::from_bytes(&bytes), Some(context.clone()));
        assert_eq!((context.trace(), context.step(), context.is_sampled()), ([7; 16], [9; 8], true));
        for bad in [&bytes[..24], &[], &[0; 26]] {
            assert_eq!(TraceContext::from_bytes(bad), None);
        }
    }
}
