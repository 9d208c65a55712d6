//! Protobuf without a schema: enough to take messages apart and put changed ones together.

/// A message as the wire has it: its fields in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(pub Vec<Field>);

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub number: u32,
    pub value: Value,
}

/// What a field holds, as far as that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    /// Bytes, text, or another message.
    Bytes(Vec<u8>),
    Fixed32([u8; 4]),
}

impl Field {
    pub fn varint(number: u32, value: u64) -> Self {
        Self { number, value: Value::Varint(value) }
    }

    pub fn bytes(number: u32, value: impl Into<Vec<u8>>) -> Self {
        Self { number, value: Value::Bytes(value.into()) }
    }
}

impl Message {
    /// The fields that the bytes are made of; `None` if they are not made of fields.
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = take_varint(&mut bytes)?;
            let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
            let value = match key & 7 {
                0 => Value::Varint(take_varint(&mut bytes)?),
                1 => Value::Fixed64(*take_array(&mut bytes)?),
                2 => {
                    let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                    let (value, rest) = bytes.split_at_checked(length)?;
                    bytes = rest;
                    Value::Bytes(value.to_vec())
                }
                5 => Value::Fixed32(*take_array(&mut bytes)?),
                _ => return None,
            };
            fields.push(Field { number, value });
        }
        Some(Self(fields))
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Field { number, value } in &self.0 {
            let kind = match value {
                Value::Varint(_) => 0,
                Value::Fixed64(_) => 1,
                Value::Bytes(_) => 2,
                Value::Fixed32(_) => 5,
            };
            put_varint(&mut bytes, u64::from(*number) << 3 | kind);
            match value {
                Value::Varint(value) => put_varint(&mut bytes, *value),
                Value::Fixed64(value) => bytes.extend(value),
                Value::Bytes(value) => {
                    put_varint(&mut bytes, value.len() as u64);
                    bytes.extend(value);
                }
                Value::Fixed32(value) => bytes.extend(value),
            }
        }
        bytes
    }
}

/// The message without one of its fields, or of those within: number `which` as they come. `None` if there are not
/// so many.
pub fn without(bytes: &[u8], which: usize) -> Option<Vec<u8>> {
    let mut message = Message::parse(bytes)?;
    let mut left = which;
    message.remove(&mut left).then(|| message.encode())
}

impl Message {
    fn remove(&mut self, left: &mut usize) -> bool {
        for at in 0..self.0.len() {
            if *left == 0 {
                self.0.remove(at);
                return true;
            }
            *left -= 1;
            if let Value::Bytes(bytes) = &mut self.0[at].value
                && let Some(mut inner) = Message::parse(bytes)
                && inner.remove(left)
            {
                *bytes = inner.encode();
                return true;
            }
        }
        false
    }
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take_array<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (value, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(value)
}

/// Appends a varint, as short as it can be.
pub fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_apart_and_put_together() {
        let inner = Message(vec![Field::varint(1, u64::MAX)]).encode();
        let message = Message(vec![
            Field::varint(1, 0),
            Field::bytes(2, inner.clone()),
            Field { number: 3, value: Value::Fixed32([1, 2, 3, 4]) },
            Field { number: 500, value: Value::Fixed64([9; 8]) },
        ]);

        let bytes = message.encode();

        assert_eq!(Message::parse(&bytes), Some(message));
        assert_eq!(Message::parse(&inner).map(|message| message.0.len()), Some(1));
        assert_eq!(Message::parse(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn fields_are_taken_out_one_by_one_at_every_depth() {
        let inner = |fields: &[Field]| Field::bytes(2, Message(fields.to_vec()).encode());
        let (a, b, c) = (Field::varint(1, 1), Field::varint(1, 2), Field::varint(3, 3));
        let message = |fields: &[Field]| Message(fields.to_vec()).encode();
        let whole = message(&[inner(&[a.clone(), b.clone()]), c.clone()]);

        let all: Vec<_> = (0..).map_while(|which| without(&whole, which)).collect();

        let expected = [
            message(std::slice::from_ref(&c)),
            message(&[inner(std::slice::from_ref(&b)), c.clone()]),
            message(&[inner(std::slice::from_ref(&a)), c]),
            message(&[inner(&[a, b])]),
        ];
        assert_eq!(all, expected);
    }
}
