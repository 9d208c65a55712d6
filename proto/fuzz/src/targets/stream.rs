//! What session streams carry, as a host and as a holder read it.

use hasp_proto::convert::request::BadRequest;
use hasp_proto::convert::{map_from_wire, map_to_wire};
use hasp_proto::stream::{Down, Up};
use hasp_proto::wire::v1;
use prost::Message;

use crate::target::{Verdict, variant};

/// A batch from a holder.
pub fn upwards(bytes: &[u8]) -> Verdict {
    let Ok(batch) = v1::UpBatch::decode(bytes) else { return Verdict::refused("not a batch") };
    let mut trail = String::new();
    let mut taken = true;
    for item in batch.items {
        match Up::try_from(item) {
            Ok(up) => {
                assert!(up.weight() < usize::MAX / 2, "a weight can be summed up");
                let again =
                    v1::Up::decode(&*v1::Up::from(up.clone()).encode_to_vec()).expect("we encoded it");
                assert_eq!(Up::try_from(again).expect("it was taken before"), up);
                trail.push_str(&format!("{};", kind_of_up(&up)));
            }
            Err(BadRequest::Refuse(number, error)) => {
                assert_ne!(number.0, 0, "an answer has a number");
                trail.push_str(&format!("refused {};", error.code));
                taken = false;
            }
            Err(BadRequest::Malformed(malformed)) => {
                trail.push_str(&format!("{malformed};"));
                taken = false;
            }
        }
    }
    match taken {
        true => Verdict::taken(trail),
        false => Verdict::refused(trail),
    }
}

fn kind_of_up(up: &Up) -> &'static str {
    match up {
        Up::Hello(_) => "hello",
        Up::Request(request) => request.op.name(),
        Up::KeepAlive(_) => "keepalive",
        Up::Acknowledge(_) => "acknowledge",
        Up::Cancel(_) => "cancel",
        Up::EndSession => "end",
    }
}

/// A batch from a host.
pub fn downwards(bytes: &[u8]) -> Verdict {
    let Ok(batch) = v1::DownBatch::decode(bytes) else { return Verdict::refused("not a batch") };
    let mut trail = String::new();
    let mut taken = true;
    for item in batch.items {
        match Down::try_from(item) {
            Ok(down) => {
                assert!(down.weight() < usize::MAX / 2, "a weight can be summed up");
                let wire = v1::Down::from(down.clone()).encode_to_vec();
                let again = v1::Down::decode(&*wire).expect("we encoded it");
                assert_eq!(Down::try_from(again).expect("it was taken before"), down);
                trail.push_str(&kind_of_down(&down));
            }
            Err(malformed) => {
                trail.push_str(&format!("{malformed};"));
                taken = false;
            }
        }
    }
    match taken {
        true => Verdict::taken(trail),
        false => Verdict::refused(trail),
    }
}

fn kind_of_down(down: &Down) -> String {
    match down {
        Down::Welcome(_) => "welcome;".to_owned(),
        Down::Answer(answer) => match &answer.result {
            Ok(reply) => format!("{};", variant(reply)),
            Err(error) => format!("{};", error.code),
        },
        Down::Lease { .. } => "lease;".to_owned(),
        Down::News { item, .. } => format!("{};", variant(item)),
        Down::Refused(error) => format!("refused {};", error.code),
    }
}

/// A host's word on who it is and which cell owns what.
pub fn locate(bytes: &[u8]) -> Verdict {
    let Ok(reply) = v1::LocateReply::decode(bytes) else { return Verdict::refused("not a reply") };
    let Some(map) = reply.map else { return Verdict::refused("no map") };
    match map_from_wire(&map) {
        Ok(map) => {
            assert_eq!(map_from_wire(&map_to_wire(&map)).as_ref(), Ok(&map));
            assert!(map.rules().any(|(_, cell)| cell == map.home()), "the home cell owns something");
            for directory in map.directories() {
                assert!(map.children_owner(&directory).is_some(), "a directory has an owner of its children");
                assert!(map.owner(&directory).is_some(), "and of its own");
                let _ = (map.is_boundary(&directory), map.has_rule(&directory));
            }
            for (directory, ring) in map.rings() {
                let Ok(below) = directory.child("x") else { continue };
                let owner = map.children_owner(&below).expect("every directory has one");
                let has_rule = map.rules().any(|(prefix, _)| *prefix == below);
                assert!(has_rule || ring.cells().contains(owner), "{below} of {owner} is not on {ring}");
            }
            Verdict::taken("a map")
        }
        Err(error) => Verdict::refused(variant(&error)),
    }
}
