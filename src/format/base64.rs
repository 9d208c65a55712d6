//! Base64 for contents that are not text: the standard alphabet, padded (RFC 4648, section 4).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    bytes.chunks(3).flat_map(encode_group).collect()
}

/// One to three bytes as four characters.
fn encode_group(group: &[u8]) -> [char; 4] {
    let bits = group.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
    let bits = bits << (8 * (3 - group.len()));
    let character = |place: usize| {
        if place > group.len() {
            return '=';
        }
        let six = (bits >> (18 - 6 * place)) & 0x3f;
        char::from(ALPHABET[six as usize])
    };
    [0, 1, 2, 3].map(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_hold() {
        let examples = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in examples {
            assert_eq!(encode(plain.as_bytes()), encoded);
        }
        assert_eq!(encode(&[0xff, 0xfe, 0xfd]), "//79");
    }
}
