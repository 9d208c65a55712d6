//! Inputs that tell a machine's story: what comes in on which connection, and how much time passes.

use std::time::Duration;

use hasp_proto::time::Time;

use crate::protobuf::{Message, Value};

/// Longest time that passes at once.
const PAUSE_MAX: Duration = Duration::from_secs(100);
/// Field of steps in which only time passes.
pub const PAUSE: u32 = 15;

/// One step: the field's number says which, its value is what comes in.
pub struct Step {
    /// When it happens.
    pub now: Time,
    /// Which.
    pub number: u32,
    /// A number that comes with it; 0 if bytes do.
    pub value: u64,
    /// Bytes that come with it; empty if a number does.
    pub bytes: Vec<u8>,
}

/// The steps of a story, in their order; `None` if the input is none.
pub fn steps(input: &[u8]) -> Option<impl Iterator<Item = Step>> {
    let mut now = Time::ZERO;
    Some(Message::parse(input)?.0.into_iter().map(move |field| {
        let (value, bytes) = match field.value {
            Value::Varint(value) => (value, Vec::new()),
            Value::Fixed64(value) => (u64::from_le_bytes(value), Vec::new()),
            Value::Fixed32(value) => (u64::from(u32::from_le_bytes(value)), Vec::new()),
            Value::Bytes(bytes) => (0, bytes),
        };
        if field.number == PAUSE {
            now = now + Duration::from_micros(value).min(PAUSE_MAX);
        }
        Step { now, number: field.number, value, bytes }
    }))
}
