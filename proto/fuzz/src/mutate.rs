//! Makes new inputs of old ones: as bytes, as text, as messages within messages.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::protobuf::{Field, Message, Value, put_varint};
use crate::target::Shape;

/// Longest input that is made.
pub const INPUT_BYTES_MAX: usize = 64 << 10;
/// How deep messages are taken apart.
const DEPTH_MAX: usize = 8;
/// Numbers at which code changes its mind.
const NUMBERS: [u64; 18] = [
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    1023,
    65_535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 53,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

/// A seeded source of inputs.
pub struct Mutator(ChaCha8Rng);

impl Mutator {
    /// The same seed gives the same inputs of the same pool.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    /// A new input made of one of the pool's, which is not empty, and parts of others.
    pub fn input(&mut self, shape: Shape, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = pool[self.below(pool.len())].clone();
        for _ in 0..=self.below(4) {
            let other = &pool[self.below(pool.len())];
            match shape {
                Shape::Messages if !self.one_in(6) => self.message(&mut input, other, 0),
                Shape::Text(words) if !self.one_in(3) => self.text(&mut input, words),
                Shape::Messages | Shape::Text(_) | Shape::Bytes => self.bytes(&mut input, other),
            }
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn message(&mut self, bytes: &mut Vec<u8>, other: &[u8], depth: usize) {
        let Some(mut message) = Message::parse(bytes) else { return self.bytes(bytes, other) };
        let fields = &mut message.0;
        if fields.is_empty() {
            let field = self.field_of(other);
            fields.push(field);
        }
        let at = self.below(fields.len());
        match self.below(12) {
            0 => drop(fields.remove(at)),
            1 => {
                let (copy, to) = (fields[at].clone(), self.below(fields.len() + 1));
                fields.insert(to, copy);
            }
            2 => {
                let with = self.below(fields.len());
                fields.swap(at, with);
            }
            3 => {
                let (field, to) = (self.field_of(other), self.below(fields.len() + 1));
                fields.insert(to, field);
            }
            4 => fields[at].number = 1 + self.below(20) as u32,
            5 => fields[at].value = self.value(),
            _ => self.field(&mut fields[at], other, depth),
        }
        *bytes = message.encode();
    }

    fn field(&mut self, field: &mut Field, other: &[u8], depth: usize) {
        match &mut field.value {
            Value::Varint(value) => *value = self.number(*value),
            Value::Fixed64(value) => *value = self.number(u64::from_le_bytes(*value)).to_le_bytes(),
            Value::Fixed32(value) => {
                let number = self.number(u64::from(u32::from_le_bytes(*value)));
                *value = (number as u32).to_le_bytes();
            }
            Value::Bytes(value) => {
                let is_message = Message::parse(value).is_some_and(|message| !message.0.is_empty());
                if is_message && depth < DEPTH_MAX && !self.one_in(5) {
                    self.message(value, other, depth + 1);
                } else {
                    self.bytes(value, other);
                }
            }
        }
    }

    /// Some field of some message in there.
    fn field_of(&mut self, bytes: &[u8]) -> Field {
        let mut found = None;
        let mut bytes = bytes.to_vec();
        for _ in 0..DEPTH_MAX {
            let Some(message) = Message::parse(&bytes).filter(|message| !message.0.is_empty()) else { break };
            let field = message.0[self.below(message.0.len())].clone();
            let Value::Bytes(inner) = &field.value else { return field };
            bytes.clone_from(inner);
            found = Some(field);
            if self.one_in(3) {
                break;
            }
        }
        let made = Field { number: 1 + self.below(20) as u32, value: self.value() };
        found.unwrap_or(made)
    }

    fn value(&mut self) -> Value {
        match self.below(3) {
            0 => Value::Varint(self.number(0)),
            1 => {
                let length = self.below(40);
                Value::Bytes(self.noise(length))
            }
            _ => Value::Bytes(Vec::new()),
        }
    }

    fn number(&mut self, near: u64) -> u64 {
        match self.below(5) {
            0 => near.wrapping_add(1),
            1 => near.wrapping_sub(1),
            2 => near ^ (1 << self.below(64)),
            _ => NUMBERS[self.below(NUMBERS.len())],
        }
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.0.random()).collect()
    }

    fn text(&mut self, bytes: &mut Vec<u8>, words: &[&str]) {
        let word = match words.len() {
            0 => "",
            count => words[self.below(count)],
        };
        let (from, to) = self.range(bytes.len());
        match self.below(4) {
            0 => drop(bytes.splice(from..to, word.bytes())),
            1 => {
                let times = 1 + self.below(300);
                drop(bytes.splice(from..from, word.repeat(times).into_bytes()));
            }
            2 => {
                let char = char::from_u32(self.below(0x3000) as u32).unwrap_or('\u{202e}');
                drop(bytes.splice(from..from, char.to_string().into_bytes()));
            }
            _ => drop(bytes.splice(from..from, word.bytes())),
        }
    }

    fn bytes(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        if bytes.is_empty() {
            let length = 1 + self.below(16);
            *bytes = self.noise(length);
            return;
        }
        let at = self.below(bytes.len());
        let (from, to) = self.range(bytes.len());
        match self.below(9) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.0.random(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(from..to)),
            4 => {
                let copy = bytes[from..to].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            5 => {
                let (start, end) = self.range(other.len());
                drop(bytes.splice(from..to, other[start..end].iter().copied()));
            }
            6 => {
                let noise = self.noise(to - from);
                drop(bytes.splice(from..to, noise));
            }
            7 => bytes[from..to].fill(0),
            _ => {
                let mut number = Vec::new();
                put_varint(&mut number, NUMBERS[self.below(NUMBERS.len())]);
                let end = bytes.len().min(at + number.len());
                drop(bytes.splice(at..end, number));
            }
        }
    }

    /// Some range of so many bytes; most are short.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let from = self.below(length + 1);
        let rest = length - from;
        let most = if self.one_in(4) { rest } else { rest.min(16) };
        (from, from + self.below(most + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let pool = vec![Message(vec![Field::varint(1, 5), Field::bytes(2, *b"text")]).encode(), vec![0; 9]];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..200).map(|_| mutator.input(Shape::Messages, &pool)).collect::<Vec<_>>()
        };

        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }

    #[test]
    fn messages_stay_messages_most_of_the_time() {
        let inner = Message(vec![Field::varint(1, 5), Field::bytes(2, *b"text")]).encode();
        let pool = vec![Message(vec![Field::bytes(1, inner.clone()), Field::bytes(1, inner)]).encode()];
        let mut mutator = Mutator::new(7);

        let parsed =
            (0..1_000).filter(|_| Message::parse(&mutator.input(Shape::Messages, &pool)).is_some()).count();

        assert!(parsed > 600, "{parsed} of 1000");
    }
}
