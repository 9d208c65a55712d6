//! Log entries to bytes and back. Encoding cannot fail; what decodes but says nothing this code knows is
//! an error, and the replica that reads it from its log must stop (P-STOP).

use std::time::Duration;

use bytes::Bytes;
use hasp_proto::convert::{Malformed, malformed, map_from_wire, map_to_wire};
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Claim, Epoch, Generation, Instance, RequestNumber, SessionId};
use hasp_proto::name::{Name, NameError};
use hasp_proto::node::{LockMode, NodeKind};
use hasp_proto::partition::MapError;
use hasp_proto::request::EndCause;
use hasp_proto::time::micros;
use hasp_proto::wire::log::v1 as log;
use hasp_proto::wire::log::v1::client_write::Write as WireWrite;
use hasp_proto::wire::log::v1::command::Command as WireCommand;
use hasp_proto::wire::{tier, v1};
use prost::Message as _;

use super::command::{ClientWrite, Command, Create, CreateSession, Genesis, Guard, Holder, LogEntry, Write};

/// Bytes that are no log entry of this version: corruption, or a log of a newer version.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the bytes of such a message.
    #[error("decode log record")]
    Protobuf(#[from] prost::DecodeError),
    /// A message that says nothing this version knows.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Not a name.
    #[error("name in log record")]
    Name(#[from] NameError),
    /// Rules that make no partition map.
    #[error("partition map in log record")]
    Map(#[from] MapError),
}

impl LogEntry {
    /// The entry's bytes.
    pub fn encode(&self) -> Bytes {
        let commands = self.commands.iter().map(encode_command).collect();
        log::Entry { epoch: self.epoch.0, commands }.encode_to_vec().into()
    }

    /// The entry that `encode` made these bytes of.
    ///
    /// # Errors
    /// They are corrupt, or of a newer version: the replica must stop.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let entry = log::Entry::decode(bytes)?;
        let commands = entry.commands.into_iter().map(decode_command).collect::<Result<_, _>>()?;
        Ok(Self { epoch: Epoch(entry.epoch), commands })
    }
}

fn encode_command(command: &Command) -> log::Command {
    let command = match command {
        Command::MasterEpoch { replica, genesis } => WireCommand::MasterEpoch(log::MasterEpoch {
            replica: *replica,
            genesis: genesis.as_ref().map(encode_genesis),
        }),
        Command::CreateSession(create) => WireCommand::CreateSession(log::CreateSession {
            session: create.session.to_bytes(),
            role: v1::Role::from(create.role).into(),
            principal: create.principal.clone(),
            advertise: create.advertise.clone(),
            claim: create.claim.0,
        }),
        Command::EndSession { session, cause } => WireCommand::EndSession(log::EndSession {
            session: session.to_bytes(),
            cause: encode_cause(*cause).into(),
        }),
        Command::ClientWrite(write) => WireCommand::ClientWrite(encode_client_write(write)),
        Command::EndClient { session, via, claim, cause } => WireCommand::EndClient(log::EndClient {
            session: session.to_bytes(),
            via: via.to_bytes(),
            claim: claim.0,
            cause: encode_cause(*cause).into(),
        }),
        Command::ClaimClient { session, via, claim } => WireCommand::ClaimClient(log::ClaimClient {
            session: session.to_bytes(),
            via: via.to_bytes(),
            claim: claim.0,
        }),
        Command::Settle(clients) => WireCommand::Settle(log::Settle {
            clients: clients
                .iter()
                .map(|(session, below)| tier::v1::Settled { session: session.to_bytes(), below: below.0 })
                .collect(),
        }),
        Command::EndLockDelay { name, instance, began } => WireCommand::EndLockDelay(log::EndLockDelay {
            name: name.to_string(),
            instance: instance.0,
            began: *began,
        }),
        Command::OrphanEnd { session, orphaned_at } => {
            WireCommand::OrphanEnd(log::OrphanEnd { session: session.to_bytes(), orphaned_at: *orphaned_at })
        }
        Command::Forget { since } => WireCommand::Forget(log::Forget { since: *since }),
        Command::Reap { name, instance } => {
            WireCommand::Reap(log::Reap { name: name.to_string(), instance: instance.0 })
        }
        Command::Cross(op) => WireCommand::Cross(op.clone().into()),
        Command::RaiseLeaseMax(lease_max) => {
            WireCommand::RaiseLeaseMax(log::RaiseLeaseMax { lease_max_us: micros(*lease_max) })
        }
        Command::TakeChecksum => WireCommand::TakeChecksum(log::TakeChecksum {}),
        Command::CompareChecksum { index, checksum } => {
            WireCommand::CompareChecksum(log::CompareChecksum { index: *index, checksum: *checksum })
        }
    };
    log::Command { command: Some(command) }
}

fn decode_command(command: log::Command) -> Result<Command, DecodeError> {
    Ok(match command.command.ok_or(malformed("command of no known kind"))? {
        WireCommand::MasterEpoch(begin) => Command::MasterEpoch {
            replica: begin.replica,
            genesis: begin.genesis.as_ref().map(decode_genesis).transpose()?,
        },
        WireCommand::CreateSession(create) => Command::CreateSession(CreateSession {
            session: decode_session(&create.session)?,
            role: create.role().try_into()?,
            principal: create.principal,
            advertise: create.advertise,
            claim: Claim(create.claim),
        }),
        WireCommand::EndSession(end) => {
            Command::EndSession { session: decode_session(&end.session)?, cause: decode_cause(end.cause())? }
        }
        WireCommand::ClientWrite(write) => Command::ClientWrite(decode_client_write(write)?),
        WireCommand::EndClient(end) => Command::EndClient {
            session: decode_session(&end.session)?,
            via: decode_session(&end.via)?,
            claim: Claim(end.claim),
            cause: decode_cause(end.cause())?,
        },
        WireCommand::ClaimClient(claim) => Command::ClaimClient {
            session: decode_session(&claim.session)?,
            via: decode_session(&claim.via)?,
            claim: Claim(claim.claim),
        },
        WireCommand::Settle(settle) => Command::Settle(
            settle
                .clients
                .iter()
                .map(|settled| Ok((decode_session(&settled.session)?, RequestNumber(settled.below))))
                .collect::<Result<_, Malformed>>()?,
        ),
        WireCommand::EndLockDelay(end) => Command::EndLockDelay {
            name: Name::parse(&end.name)?,
            instance: Instance(end.instance),
            began: end.began,
        },
        WireCommand::OrphanEnd(end) => {
            Command::OrphanEnd { session: decode_session(&end.session)?, orphaned_at: end.orphaned_at }
        }
        WireCommand::Forget(forget) => Command::Forget { since: forget.since },
        WireCommand::Reap(reap) => {
            Command::Reap { name: Name::parse(&reap.name)?, instance: Instance(reap.instance) }
        }
        WireCommand::Cross(cross) => Command::Cross(cross.try_into()?),
        WireCommand::RaiseLeaseMax(raise) => {
            Command::RaiseLeaseMax(Duration::from_micros(raise.lease_max_us))
        }
        WireCommand::TakeChecksum(_) => Command::TakeChecksum,
        WireCommand::CompareChecksum(compare) => {
            Command::CompareChecksum { index: compare.index, checksum: compare.checksum }
        }
    })
}

fn encode_client_write(write: &ClientWrite) -> log::ClientWrite {
    log::ClientWrite {
        session: write.session.to_bytes(),
        via: write.via.map(SessionId::to_bytes),
        claim: write.claim.0,
        number: write.number.0,
        settled_below: write.settled_below.0,
        principal: write.principal.clone(),
        guard: write.guard.as_ref().map(|guard| log::Guard {
            name: guard.name.to_string(),
            instance: guard.instance.0,
            mode: v1::LockMode::from(guard.mode).into(),
            lock_generation: guard.lock_generation.0,
        }),
        evidence: write.evidence.as_ref().map(|evidence| (**evidence).clone().into()),
        write: Some(encode_write(&write.write)),
    }
}

fn decode_client_write(write: log::ClientWrite) -> Result<ClientWrite, DecodeError> {
    Ok(ClientWrite {
        session: decode_session(&write.session)?,
        via: write.via.as_ref().map(decode_session).transpose()?,
        claim: Claim(write.claim),
        number: RequestNumber(write.number),
        settled_below: RequestNumber(write.settled_below),
        principal: write.principal,
        guard: write.guard.map(decode_guard).transpose()?,
        evidence: write.evidence.map(|evidence| evidence.try_into().map(Box::new)).transpose()?,
        write: decode_write(write.write.ok_or(malformed("write of no known kind"))?)?,
    })
}

fn decode_guard(guard: log::Guard) -> Result<Guard, DecodeError> {
    Ok(Guard {
        mode: LockMode::try_from(guard.mode())?,
        name: Name::parse(&guard.name)?,
        instance: Instance(guard.instance),
        lock_generation: Generation(guard.lock_generation),
    })
}

fn encode_write(write: &Write) -> WireWrite {
    match write {
        Write::Create(create) => WireWrite::Create(log::Create {
            name: create.name.to_string(),
            must: create.must,
            kind: v1::NodeKind::from(create.kind).into(),
            contents: create.contents.clone(),
            ephemeral: create.ephemeral,
            acls: create.acls.clone().map(Into::into),
            r#use: v1::open::Use::from(create.r#use).into(),
            relative_to: create
                .relative_to
                .as_ref()
                .map(|(name, instance)| log::NodeRef { name: name.to_string(), instance: instance.0 }),
        }),
        Write::SetContents { holder, contents, if_generation } => WireWrite::SetContents(log::SetContents {
            holder: encode_holder(holder),
            contents: contents.clone(),
            if_generation: if_generation.map(|generation| generation.0),
        }),
        Write::Delete { holder } => WireWrite::Delete(log::Delete { holder: encode_holder(holder) }),
        Write::Acquire { holder, mode } => WireWrite::Acquire(log::Acquire {
            holder: encode_holder(holder),
            mode: v1::LockMode::from(*mode).into(),
        }),
        Write::Release { holder } => WireWrite::Release(log::Release { holder: encode_holder(holder) }),
        Write::CloseHandle { holder } => WireWrite::Close(log::CloseHandle { holder: encode_holder(holder) }),
        Write::SetAcl { holder, acls, if_generation } => WireWrite::SetAcl(log::SetAcl {
            holder: encode_holder(holder),
            acls: Some(acls.clone().into()),
            if_generation: if_generation.map(|generation| generation.0),
        }),
        Write::OpenEphemeral { holder, r#use } => WireWrite::OpenEphemeral(log::OpenEphemeral {
            holder: encode_holder(holder),
            r#use: v1::open::Use::from(*r#use).into(),
        }),
    }
}

fn decode_write(write: WireWrite) -> Result<Write, DecodeError> {
    Ok(match write {
        WireWrite::Create(create) => Write::Create(Create {
            name: Name::parse(&create.name)?,
            must: create.must,
            kind: NodeKind::try_from(create.kind())?,
            r#use: create.r#use().try_into()?,
            contents: create.contents,
            ephemeral: create.ephemeral,
            acls: create.acls.map(Into::into),
            relative_to: match create.relative_to {
                Some(node) => Some((Name::parse(&node.name)?, Instance(node.instance))),
                None => None,
            },
        }),
        WireWrite::SetContents(set) => Write::SetContents {
            holder: decode_holder(set.holder)?,
            contents: set.contents,
            if_generation: set.if_generation.map(Generation),
        },
        WireWrite::Delete(delete) => Write::Delete { holder: decode_holder(delete.holder)? },
        WireWrite::Acquire(acquire) => {
            let mode = LockMode::try_from(acquire.mode())?;
            Write::Acquire { holder: decode_holder(acquire.holder)?, mode }
        }
        WireWrite::Release(release) => Write::Release { holder: decode_holder(release.holder)? },
        WireWrite::Close(close) => Write::CloseHandle { holder: decode_holder(close.holder)? },
        WireWrite::SetAcl(set) => Write::SetAcl {
            holder: decode_holder(set.holder)?,
            acls: set.acls.ok_or(malformed("ACL names to set"))?.into(),
            if_generation: set.if_generation.map(Generation),
        },
        WireWrite::OpenEphemeral(open) => {
            let r#use = open.r#use().try_into()?;
            Write::OpenEphemeral { holder: decode_holder(open.holder)?, r#use }
        }
    })
}

fn encode_holder(holder: &Holder) -> Option<log::Holder> {
    Some(log::Holder {
        name: holder.name.to_string(),
        instance: holder.instance.0,
        opened_by: holder.opened_by.0,
        lock_delay_us: micros(holder.lock_delay),
    })
}

fn decode_holder(holder: Option<log::Holder>) -> Result<Holder, DecodeError> {
    let holder = holder.ok_or(malformed("write without handle"))?;
    Ok(Holder {
        name: Name::parse(&holder.name)?,
        instance: Instance(holder.instance),
        opened_by: RequestNumber(holder.opened_by),
        lock_delay: Duration::from_micros(holder.lock_delay_us),
    })
}

/// What a cell is, as a message; snapshots hold it too.
pub fn encode_genesis(genesis: &Genesis) -> log::Genesis {
    log::Genesis {
        cell: genesis.cell.to_string(),
        map: Some(map_to_wire(&genesis.map)),
        handle_key: genesis.handle_key.as_bytes().clone(),
    }
}

/// What a cell is, from a message.
///
/// # Errors
/// Its map is missing or makes no sense.
pub fn decode_genesis(genesis: &log::Genesis) -> Result<Genesis, DecodeError> {
    Ok(Genesis {
        cell: CellName::new(&genesis.cell),
        map: map_from_wire(genesis.map.as_ref().ok_or(malformed("genesis without partition map"))?)?,
        handle_key: HandleKey::new(genesis.handle_key.clone()),
    })
}

/// A session's id from its 16 bytes.
///
/// # Errors
/// They are not 16.
pub fn decode_session(bytes: &Bytes) -> Result<SessionId, Malformed> {
    SessionId::from_bytes(bytes).ok_or(malformed("session id in log record"))
}

fn encode_cause(cause: EndCause) -> log::EndCause {
    match cause {
        EndCause::Closed => log::EndCause::Closed,
        EndCause::Failed => log::EndCause::Failed,
    }
}

fn decode_cause(cause: log::EndCause) -> Result<EndCause, Malformed> {
    match cause {
        log::EndCause::Closed => Ok(EndCause::Closed),
        log::EndCause::Failed => Ok(EndCause::Failed),
        log::EndCause::Unspecified => Err(malformed("cause of an end")),
    }
}
