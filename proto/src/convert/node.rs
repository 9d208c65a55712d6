//! Nodes, positions, errors and the partition map.

use std::time::Duration;

use super::{Malformed, malformed};
use crate::error::{Error, ErrorCode};
use crate::id::{CellName, Epoch, Generation, Instance};
use crate::name::Name;
use crate::node::{AclNames, Child, LockMode, NodeKind, Stat};
use crate::partition::{Change, Draft, MapError, PartitionMap, Prefix};
use crate::position::Position;
use crate::time::micros;
use crate::wire::v1;

impl From<NodeKind> for v1::NodeKind {
    fn from(kind: NodeKind) -> Self {
        match kind {
            NodeKind::File => Self::File,
            NodeKind::Directory => Self::Directory,
        }
    }
}

impl TryFrom<v1::NodeKind> for NodeKind {
    type Error = Malformed;

    fn try_from(kind: v1::NodeKind) -> Result<Self, Malformed> {
        match kind {
            v1::NodeKind::File => Ok(Self::File),
            v1::NodeKind::Directory => Ok(Self::Directory),
            v1::NodeKind::Unspecified => Err(malformed("node kind")),
        }
    }
}

impl From<LockMode> for v1::LockMode {
    fn from(mode: LockMode) -> Self {
        match mode {
            LockMode::Shared => Self::Shared,
            LockMode::Exclusive => Self::Exclusive,
        }
    }
}

impl TryFrom<v1::LockMode> for LockMode {
    type Error = Malformed;

    fn try_from(mode: v1::LockMode) -> Result<Self, Malformed> {
        match mode {
            v1::LockMode::Shared => Ok(Self::Shared),
            v1::LockMode::Exclusive => Ok(Self::Exclusive),
            v1::LockMode::Unspecified => Err(malformed("lock mode")),
        }
    }
}

impl From<AclNames> for v1::AclNames {
    fn from(acls: AclNames) -> Self {
        Self { read: acls.read, write: acls.write, change: acls.change }
    }
}

impl From<v1::AclNames> for AclNames {
    fn from(acls: v1::AclNames) -> Self {
        Self { read: acls.read, write: acls.write, change: acls.change }
    }
}

impl From<Stat> for v1::Stat {
    fn from(stat: Stat) -> Self {
        Self {
            kind: v1::NodeKind::from(stat.kind).into(),
            instance: stat.instance.0,
            content_generation: stat.content_generation.0,
            lock_generation: stat.lock_generation.0,
            acl_generation: stat.acl_generation.0,
            checksum: stat.checksum,
            length: stat.length,
            ephemeral: stat.ephemeral,
            acls: Some(stat.acls.into()),
        }
    }
}

impl TryFrom<v1::Stat> for Stat {
    type Error = Malformed;

    fn try_from(stat: v1::Stat) -> Result<Self, Malformed> {
        Ok(Self {
            kind: stat.kind().try_into()?,
            instance: Instance(stat.instance),
            content_generation: Generation(stat.content_generation),
            lock_generation: Generation(stat.lock_generation),
            acl_generation: Generation(stat.acl_generation),
            checksum: stat.checksum,
            length: stat.length,
            ephemeral: stat.ephemeral,
            acls: stat.acls.ok_or(malformed("stat without ACL names"))?.into(),
        })
    }
}

impl From<Child> for v1::Child {
    fn from(child: Child) -> Self {
        Self { component: child.component, stat: Some(child.stat.into()) }
    }
}

impl TryFrom<v1::Child> for Child {
    type Error = Malformed;

    fn try_from(child: v1::Child) -> Result<Self, Malformed> {
        Ok(Self {
            component: child.component,
            stat: child.stat.ok_or(malformed("child without stat"))?.try_into()?,
        })
    }
}

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        Self { cell: position.cell.as_str().to_owned(), epoch: position.epoch.0, index: position.index }
    }
}

impl From<v1::Position> for Position {
    fn from(position: v1::Position) -> Self {
        Self { cell: CellName::new(&position.cell), epoch: Epoch(position.epoch), index: position.index }
    }
}

impl From<Error> for v1::Error {
    fn from(error: Error) -> Self {
        let mut wire = Self { detail: error.detail, ..Self::default() };
        let code = match error.code {
            ErrorCode::NotFound => v1::ErrorCode::NotFound,
            ErrorCode::AlreadyExists => v1::ErrorCode::AlreadyExists,
            ErrorCode::NotADirectory => v1::ErrorCode::NotADirectory,
            ErrorCode::NotEmpty => v1::ErrorCode::NotEmpty,
            ErrorCode::StaleHandle => v1::ErrorCode::StaleHandle,
            ErrorCode::GenerationMismatch => v1::ErrorCode::GenerationMismatch,
            ErrorCode::PermissionDenied => v1::ErrorCode::PermissionDenied,
            ErrorCode::Unauthenticated => v1::ErrorCode::Unauthenticated,
            ErrorCode::LockHeld => v1::ErrorCode::LockHeld,
            ErrorCode::LockNotHeld => v1::ErrorCode::LockNotHeld,
            ErrorCode::LockDelayed { retry_after } => {
                wire.retry_after_us = micros(retry_after);
                v1::ErrorCode::LockDelayed
            }
            ErrorCode::SequencerInvalid => v1::ErrorCode::SequencerInvalid,
            ErrorCode::SessionExpired => v1::ErrorCode::SessionExpired,
            ErrorCode::SessionMoved => v1::ErrorCode::SessionMoved,
            ErrorCode::WrongEpoch => v1::ErrorCode::WrongEpoch,
            ErrorCode::NotMaster { hint } => {
                wire.master_hint = hint.unwrap_or_default();
                v1::ErrorCode::NotMaster
            }
            ErrorCode::WrongCell { map_version } => {
                wire.map_version = map_version;
                v1::ErrorCode::WrongCell
            }
            ErrorCode::TooLarge => v1::ErrorCode::TooLarge,
            ErrorCode::QuotaExceeded => v1::ErrorCode::QuotaExceeded,
            ErrorCode::RateLimited { retry_after } => {
                wire.retry_after_us = micros(retry_after);
                v1::ErrorCode::RateLimited
            }
            ErrorCode::Cancelled => v1::ErrorCode::Cancelled,
            ErrorCode::Unavailable => v1::ErrorCode::Unavailable,
            ErrorCode::InvalidName => v1::ErrorCode::InvalidName,
            ErrorCode::InvalidArgument => v1::ErrorCode::InvalidArgument,
        };
        wire.set_code(code);
        wire
    }
}

impl TryFrom<v1::Error> for Error {
    type Error = Malformed;

    fn try_from(error: v1::Error) -> Result<Self, Malformed> {
        let retry_after = Duration::from_micros(error.retry_after_us);
        let code = match error.code() {
            v1::ErrorCode::Unspecified => return Err(malformed("error code")),
            v1::ErrorCode::NotFound => ErrorCode::NotFound,
            v1::ErrorCode::AlreadyExists => ErrorCode::AlreadyExists,
            v1::ErrorCode::NotADirectory => ErrorCode::NotADirectory,
            v1::ErrorCode::NotEmpty => ErrorCode::NotEmpty,
            v1::ErrorCode::StaleHandle => ErrorCode::StaleHandle,
            v1::ErrorCode::GenerationMismatch => ErrorCode::GenerationMismatch,
            v1::ErrorCode::PermissionDenied => ErrorCode::PermissionDenied,
            v1::ErrorCode::Unauthenticated => ErrorCode::Unauthenticated,
            v1::ErrorCode::LockHeld => ErrorCode::LockHeld,
            v1::ErrorCode::LockNotHeld => ErrorCode::LockNotHeld,
            v1::ErrorCode::LockDelayed => ErrorCode::LockDelayed { retry_after },
            v1::ErrorCode::SequencerInvalid => ErrorCode::SequencerInvalid,
            v1::ErrorCode::SessionExpired => ErrorCode::SessionExpired,
            v1::ErrorCode::SessionMoved => ErrorCode::SessionMoved,
            v1::ErrorCode::WrongEpoch => ErrorCode::WrongEpoch,
            v1::ErrorCode::NotMaster => {
                ErrorCode::NotMaster { hint: (!error.master_hint.is_empty()).then_some(error.master_hint) }
            }
            v1::ErrorCode::WrongCell => ErrorCode::WrongCell { map_version: error.map_version },
            v1::ErrorCode::TooLarge => ErrorCode::TooLarge,
            v1::ErrorCode::QuotaExceeded => ErrorCode::QuotaExceeded,
            v1::ErrorCode::RateLimited => ErrorCode::RateLimited { retry_after },
            v1::ErrorCode::Cancelled => ErrorCode::Cancelled,
            v1::ErrorCode::Unavailable => ErrorCode::Unavailable,
            v1::ErrorCode::InvalidName => ErrorCode::InvalidName,
            v1::ErrorCode::InvalidArgument => ErrorCode::InvalidArgument,
        };
        Ok(Self { code, detail: error.detail })
    }
}

/// The map as a message.
pub fn map_to_wire(map: &PartitionMap) -> v1::PartitionMap {
    let texts = |cells: &[CellName]| cells.iter().map(CellName::to_string).collect();
    v1::PartitionMap {
        version: map.version,
        namespace: map.namespace.clone(),
        rules: map
            .rules()
            .map(|(prefix, cell)| v1::PartitionRule { prefix: prefix.to_string(), cell: cell.to_string() })
            .collect(),
        cells: map
            .cells
            .iter()
            .map(|(cell, replicas)| v1::CellAddresses { cell: cell.to_string(), replicas: replicas.clone() })
            .collect(),
        rings: map
            .rings()
            .map(|(name, ring)| v1::PartitionRing { directory: name.to_string(), cells: texts(ring.cells()) })
            .collect(),
        next: map.change().map(|change| v1::PartitionNext {
            prefix: change.prefix.to_string(),
            cells: texts(&change.cells),
        }),
    }
}

/// The map that a message says.
///
/// # Errors
/// What is wrong with its rules.
pub fn map_from_wire(map: &v1::PartitionMap) -> Result<PartitionMap, MapError> {
    let cells = map.cells.iter().map(|cell| (CellName::new(&cell.cell), cell.replicas.clone())).collect();
    let mut draft = Draft::new(&map.namespace, cells)?;
    for rule in &map.rules {
        draft.add(&Prefix::Below(directory(&rule.prefix)?), [rule.cell.as_str()])?;
    }
    for ring in &map.rings {
        draft.add(&Prefix::Ring(directory(&ring.directory)?), ring.cells.iter().map(String::as_str))?;
    }
    let change = |next: &v1::PartitionNext| {
        let cells = next.cells.iter().map(|cell| CellName::new(cell)).collect();
        Ok(Change { prefix: Prefix::parse(&next.prefix)?, cells })
    };
    let change = map.next.as_ref().map(change).transpose()?;
    draft.finish_changing(map.version, change)
}

fn directory(text: &str) -> Result<Name, MapError> {
    Name::parse(text).map_err(|source| MapError::Prefix { prefix: text.into(), source })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn map(rules: &[(&str, &str)]) -> PartitionMap {
        let cells = [("a", "h:1"), ("b", "h:2")];
        let cells = cells.map(|(cell, address)| (CellName::new(cell), vec![address.to_owned()]));
        PartitionMap::new(3, "dev", rules.iter().copied(), cells.into()).expect("a good map")
    }

    #[test]
    fn a_map_travels_with_its_rings() {
        let map = map(&[("/ls/dev", "a"), ("/ls/dev/b", "b"), ("/ls/dev/users/*", "b a")]);

        assert_eq!(map_from_wire(&map_to_wire(&map)), Ok(map));
    }

    #[test]
    fn a_map_travels_with_its_change() {
        let map = map(&[("/ls/dev", "a"), ("/ls/dev/b", "b"), ("/ls/dev/users/*", "a")]);
        let check = |prefix: &str, cells: &[&str]| {
            let cells = cells.iter().map(|cell| CellName::new(cell)).collect();
            let change = Change { prefix: Prefix::parse(prefix).expect("good"), cells };
            let changing = map.changing(change).expect("a good change");
            let wire = map_to_wire(&changing);

            let read = v1::PartitionMap::decode(wire.encode_to_vec().as_slice()).expect("a message");
            assert_eq!(map_from_wire(&read), Ok(changing));
        };
        check("/ls/dev/x", &["b"]);
        check("/ls/dev/a b", &["b"]);
        check("/ls/dev/b", &["a"]);
        check("/ls/dev/b", &[]);
        check("/ls/dev/users/*", &["b", "a"]);
        check("/ls/dev/users/*", &[]);
    }

    #[test]
    fn a_change_from_the_wire_is_checked() {
        let check = |prefix: &str, cells: &[&str], message: &str| {
            let cells = cells.iter().map(|cell| (*cell).to_owned()).collect();
            let mut wire = map_to_wire(&map(&[("/ls/dev", "a")]));
            wire.next = Some(v1::PartitionNext { prefix: prefix.into(), cells });
            let error = map_from_wire(&wire).expect_err("bad").to_string();
            assert!(error.contains(message), "{error}");
        };
        check("/ls/dev/x", &["c"], "/ls/dev/x: cell c is not among the cells");
        check("/ls/dev/x", &["a", "b"], "/ls/dev/x: 2 cells; only");
        check("/ls/dev/x", &[], "/ls/dev/x: the change changes nothing");
        check("/ls/dev", &["b"], "/ls/dev: the home cell has");
        check("/ls/prod/x", &["a"], "not in namespace dev");
        check("x", &["a"], "begins with /ls/");
        let mut last = map_to_wire(&map(&[("/ls/dev", "a")]));
        last.version = u64::MAX;
        last.next = Some(v1::PartitionNext { prefix: "/ls/dev/x".into(), cells: vec!["b".into()] });
        assert_eq!(map_from_wire(&last), Err(MapError::LastVersion));
    }

    #[test]
    fn a_map_from_before_there_were_rings_is_read() {
        // version 3, namespace "dev", rule "/ls/dev" -> "a", cell "a" at "h:1", cell "b" at "h:2".
        let old: &[u8] = b"\x08\x03\x12\x03dev\x1a\x0c\x0a\x07/ls/dev\x12\x01a\x22\x08\x0a\x01a\x12\x03h:1\x22\x08\x0a\x01b\x12\x03h:2";

        let read = map_from_wire(&v1::PartitionMap::decode(old).expect("a message"));

        assert_eq!(read, Ok(map(&[("/ls/dev", "a")])));
        assert_eq!(map_to_wire(&map(&[("/ls/dev", "a")])).encode_to_vec(), old);
    }

    #[test]
    fn rings_from_the_wire_are_checked() {
        let check = |directory: &str, cells: &[&str], message: &str| {
            let cells = cells.iter().map(|cell| (*cell).to_owned()).collect();
            let mut wire = map_to_wire(&map(&[("/ls/dev", "a")]));
            wire.rings.push(v1::PartitionRing { directory: directory.into(), cells });
            let error = map_from_wire(&wire).expect_err("bad").to_string();
            assert!(error.contains(message), "{error}");
        };
        check("/ls/dev/x", &[], "/ls/dev/x/*: no cell");
        check("/ls/dev/x", &["a b"], "cell a b is not among the cells");
        check("/ls/dev/x", &["a", "a"], "cell a is named twice");
        check("/ls/prod/x", &["a"], "not in namespace dev");
        check("x", &["a"], "begins with /ls/");
        let mut star = map_to_wire(&map(&[("/ls/dev", "a")]));
        star.rules.push(v1::PartitionRule { prefix: "/ls/dev/*".into(), cell: "a".into() });
        assert_eq!(
            map_from_wire(&star).expect_err("bad").to_string(),
            "partition rule /ls/dev/*: a directory called * can have no rule of its own"
        );
    }
}
