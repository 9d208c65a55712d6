//! What replicas say to one another.

use hasp_cell::replica::readers::PeerMessage;

use crate::protobuf::{Message, Value};
use crate::target::Verdict;

/// Messages, each in the field that says which it is.
pub fn raft(bytes: &[u8]) -> Verdict {
    let Some(messages) = Message::parse(bytes) else { return Verdict::refused("no messages") };
    let mut trail = String::new();
    let mut taken = true;
    for field in messages.0 {
        let kind = usize::try_from(field.number)
            .ok()
            .and_then(|number| PeerMessage::ALL.get(number.checked_sub(1)?));
        let (Some(kind), Value::Bytes(message)) = (kind, field.value) else {
            taken = false;
            continue;
        };
        match kind.read(&message) {
            Ok(written) => {
                assert_eq!(kind.read(&written).as_ref(), Ok(&written), "{kind:?}");
                trail.push_str(&format!("{kind:?};"));
            }
            Err(error) => {
                trail.push_str(&format!("{kind:?} {error};"));
                taken = false;
            }
        }
    }
    Verdict { taken, ..Verdict::taken(trail) }
}
