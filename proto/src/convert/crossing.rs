//! What cells need to know of one another.

use std::time::Duration;

use super::{Malformed, malformed, map_from_wire, map_to_wire};
use crate::crossing::{Anchor, Chore, CrossOp, Evidence, Membership, Need, Root, SealTicket, Vouch};
use crate::event::EventMask;
use crate::id::{CellName, Epoch, Generation, Instance, RequestNumber};
use crate::name::Name;
use crate::time::{Time, micros};
use crate::wire::tier::v1 as tier;

fn name(text: &str) -> Result<Name, Malformed> {
    Name::parse(text).map_err(|_| malformed("name of a directory"))
}

impl From<Anchor> for tier::Anchor {
    fn from(Anchor { epoch, at }: Anchor) -> Self {
        Self { epoch: epoch.0, at_us: at.as_micros() }
    }
}

impl From<tier::Anchor> for Anchor {
    fn from(anchor: tier::Anchor) -> Self {
        Self { epoch: Epoch(anchor.epoch), at: Time::from_micros(anchor.at_us) }
    }
}

impl From<Vouch> for tier::Vouch {
    fn from(Vouch { anchor, lasts }: Vouch) -> Self {
        Self { anchor: Some(anchor.into()), lasts_us: micros(lasts) }
    }
}

impl TryFrom<tier::Vouch> for Vouch {
    type Error = Malformed;

    fn try_from(vouch: tier::Vouch) -> Result<Self, Malformed> {
        Ok(Self {
            anchor: vouch.anchor.ok_or(malformed("vouch without anchor"))?.into(),
            lasts: Duration::from_micros(vouch.lasts_us),
        })
    }
}

impl From<Root> for tier::Root {
    fn from(root: Root) -> Self {
        Self {
            name: root.name.to_string(),
            instance: root.instance.0,
            acls: Some(root.acls.into()),
            acl_generation: root.acl_generation.0,
            as_of: Some(root.as_of.into()),
        }
    }
}

impl TryFrom<tier::Root> for Root {
    type Error = Malformed;

    fn try_from(root: tier::Root) -> Result<Self, Malformed> {
        Ok(Self {
            name: name(&root.name)?,
            instance: Instance(root.instance),
            acls: root.acls.ok_or(malformed("root without ACL names"))?.into(),
            acl_generation: Generation(root.acl_generation),
            as_of: root.as_of.ok_or(malformed("root without position"))?.into(),
        })
    }
}

impl From<Evidence> for tier::Evidence {
    fn from(evidence: Evidence) -> Self {
        let membership = |it: Membership| tier::Membership { acl: it.acl, member: it.is_member };
        Self {
            memberships: evidence.memberships.into_iter().map(membership).collect(),
            vouch: evidence.vouch.map(Into::into),
            root: evidence.root.map(Into::into),
            seal: evidence.seal.unwrap_or_default().0,
        }
    }
}

impl TryFrom<tier::Evidence> for Evidence {
    type Error = Malformed;

    fn try_from(evidence: tier::Evidence) -> Result<Self, Malformed> {
        let membership = |it: tier::Membership| Membership { acl: it.acl, is_member: it.member };
        Ok(Self {
            memberships: evidence.memberships.into_iter().map(membership).collect(),
            vouch: evidence.vouch.map(TryInto::try_into).transpose()?,
            root: evidence.root.map(TryInto::try_into).transpose()?,
            seal: (evidence.seal != 0).then_some(SealTicket(evidence.seal)),
        })
    }
}

fn sealing(name: &Name, instance: Instance, ticket: SealTicket) -> tier::Sealing {
    tier::Sealing { name: name.to_string(), instance: instance.0, ticket: ticket.0 }
}

fn unsealing(sealing: &tier::Sealing) -> Result<(Name, Instance, SealTicket), Malformed> {
    Ok((name(&sealing.name)?, Instance(sealing.instance), SealTicket(sealing.ticket)))
}

fn packing(version: u64) -> tier::Packing {
    tier::Packing { version, ..Default::default() }
}

impl From<CrossOp> for tier::Cross {
    fn from(op: CrossOp) -> Self {
        use tier::cross::Op as Wire;
        let none = SealTicket::default();
        let op = match op {
            CrossOp::DescribeRoot(name) => Wire::DescribeRoot(name.to_string()),
            CrossOp::ReadAcl(acl) => Wire::ReadAcl(acl),
            CrossOp::Seal { name, instance } => Wire::Seal(sealing(&name, instance, none)),
            CrossOp::VoidSeals { name, instance, below } => Wire::VoidSeals(sealing(&name, instance, below)),
            CrossOp::Unseal { name, instance, ticket } => Wire::Unseal(sealing(&name, instance, ticket)),
            CrossOp::DropRoot { name, instance, as_of } => Wire::DropRoot(tier::DropRoot {
                name: name.to_string(),
                instance: instance.0,
                as_of: Some(as_of.into()),
            }),
            CrossOp::UpdateRoot(root) => Wire::UpdateRoot(root.into()),
            CrossOp::ListRoot { name, instance } => Wire::ListRoot(sealing(&name, instance, none)),
            CrossOp::WatchRoot { name, instance, opened_by, events } => Wire::WatchRoot(tier::WatchRoot {
                name: name.to_string(),
                instance: instance.0,
                opened_by: opened_by.0,
                events: events.bits(),
            }),
            CrossOp::ReapRoot { name, instance, ticket } => Wire::ReapRoot(sealing(&name, instance, ticket)),
            CrossOp::Propagated { name, instance, acl_generation } => Wire::Propagated(tier::Propagated {
                name: name.to_string(),
                instance: instance.0,
                acl_generation: acl_generation.0,
            }),
            CrossOp::Chores => Wire::Chores(tier::AskForChores {}),
            CrossOp::Vouch(vouch) => Wire::Vouch(tier::KeepVouching { vouch: vouch.map(Into::into) }),
            CrossOp::ReadMap => Wire::ReadMap(tier::ReadMap {}),
            CrossOp::Adopt(map) => Wire::Adopt(map_to_wire(&map)),
            CrossOp::Pack { version } => Wire::Pack(packing(version)),
            CrossOp::Export { version, to, part } => {
                Wire::Export(tier::Packing { version, to: to.to_string(), part })
            }
            CrossOp::Import { version, from, part, parts, data } => {
                Wire::Import(tier::Import { version, from: from.to_string(), part, parts, data })
            }
            CrossOp::Finish { version } => Wire::Finish(packing(version)),
            CrossOp::GiveUp { version, why } => Wire::GiveUp(tier::GiveUp { version, why }),
            CrossOp::Announced { version } => Wire::Announced(packing(version)),
        };
        Self { op: Some(op) }
    }
}

impl TryFrom<tier::Cross> for CrossOp {
    type Error = Malformed;

    fn try_from(cross: tier::Cross) -> Result<Self, Malformed> {
        use tier::cross::Op as Wire;
        Ok(match cross.op.ok_or(malformed("request between cells without operation"))? {
            Wire::DescribeRoot(text) => Self::DescribeRoot(name(&text)?),
            Wire::ReadAcl(acl) => Self::ReadAcl(acl),
            Wire::Seal(it) => {
                let (name, instance, _) = unsealing(&it)?;
                Self::Seal { name, instance }
            }
            Wire::VoidSeals(it) => {
                let (name, instance, below) = unsealing(&it)?;
                Self::VoidSeals { name, instance, below }
            }
            Wire::Unseal(it) => {
                let (name, instance, ticket) = unsealing(&it)?;
                Self::Unseal { name, instance, ticket }
            }
            Wire::DropRoot(drop) => Self::DropRoot {
                name: name(&drop.name)?,
                instance: Instance(drop.instance),
                as_of: drop.as_of.ok_or(malformed("end of a directory without position"))?.into(),
            },
            Wire::UpdateRoot(root) => Self::UpdateRoot(root.try_into()?),
            Wire::ListRoot(it) => {
                let (name, instance, _) = unsealing(&it)?;
                Self::ListRoot { name, instance }
            }
            Wire::WatchRoot(it) => Self::WatchRoot {
                name: name(&it.name)?,
                instance: Instance(it.instance),
                opened_by: RequestNumber(it.opened_by),
                events: EventMask::from_bits(it.events),
            },
            Wire::ReapRoot(it) => {
                let (name, instance, ticket) = unsealing(&it)?;
                Self::ReapRoot { name, instance, ticket }
            }
            Wire::Propagated(it) => Self::Propagated {
                name: name(&it.name)?,
                instance: Instance(it.instance),
                acl_generation: Generation(it.acl_generation),
            },
            Wire::Chores(_) => Self::Chores,
            Wire::Vouch(keep) => Self::Vouch(keep.vouch.map(TryInto::try_into).transpose()?),
            Wire::ReadMap(_) => Self::ReadMap,
            Wire::Adopt(map) => {
                Self::Adopt(map_from_wire(&map).map_err(|_| malformed("partition map to go by"))?)
            }
            Wire::Pack(it) => Self::Pack { version: it.version },
            Wire::Export(it) => {
                Self::Export { version: it.version, to: CellName::new(&it.to), part: it.part }
            }
            Wire::Import(tier::Import { version, from, part, parts, data }) => {
                Self::Import { version, from: CellName::new(&from), part, parts, data }
            }
            Wire::Finish(it) => Self::Finish { version: it.version },
            Wire::GiveUp(tier::GiveUp { version, why }) => Self::GiveUp { version, why },
            Wire::Announced(it) => Self::Announced { version: it.version },
        })
    }
}

impl From<Chore> for tier::Chore {
    fn from(chore: Chore) -> Self {
        use tier::chore::Chore as Wire;
        let none = SealTicket::default();
        let chore = match chore {
            Chore::End { name, instance } => Wire::End(sealing(&name, instance, none)),
            Chore::Unseal { name, instance, ticket } => Wire::Unseal(sealing(&name, instance, ticket)),
            Chore::Propagate { name, instance } => Wire::Propagate(sealing(&name, instance, none)),
            Chore::Move(version) => Wire::Move(packing(version)),
            Chore::Announce(version) => Wire::Announce(packing(version)),
        };
        Self { chore: Some(chore) }
    }
}

impl TryFrom<tier::Chore> for Chore {
    type Error = Malformed;

    fn try_from(chore: tier::Chore) -> Result<Self, Malformed> {
        use tier::chore::Chore as Wire;
        Ok(match chore.chore.ok_or(malformed("chore of no known kind"))? {
            Wire::End(it) => {
                let (name, instance, _) = unsealing(&it)?;
                Self::End { name, instance }
            }
            Wire::Unseal(it) => {
                let (name, instance, ticket) = unsealing(&it)?;
                Self::Unseal { name, instance, ticket }
            }
            Wire::Propagate(it) => {
                let (name, instance, _) = unsealing(&it)?;
                Self::Propagate { name, instance }
            }
            Wire::Move(it) => Self::Move(it.version),
            Wire::Announce(it) => Self::Announce(it.version),
        })
    }
}

pub(super) fn needs_to_wire(need: Need, anchor: Anchor) -> tier::Needs {
    use tier::needs::Need as Wire;
    let need = match need {
        Need::Acl(acl) => Wire::Acl(acl),
        Need::Root(name) => Wire::Root(name.to_string()),
        Need::Unseal { name, instance, ticket } => Wire::Unseal(sealing(&name, instance, ticket)),
        Need::Seal { name, instance } => Wire::Seal(sealing(&name, instance, SealTicket::default())),
        Need::Map(version) => Wire::Map(version),
    };
    tier::Needs { need: Some(need), anchor: Some(anchor.into()) }
}

pub(super) fn needs_from_wire(needs: tier::Needs) -> Result<(Need, Anchor), Malformed> {
    use tier::needs::Need as Wire;
    let need = match needs.need.ok_or(malformed("need of no known kind"))? {
        Wire::Acl(acl) => Need::Acl(acl),
        Wire::Root(text) => Need::Root(name(&text)?),
        Wire::Unseal(it) => {
            let (name, instance, ticket) = unsealing(&it)?;
            Need::Unseal { name, instance, ticket }
        }
        Wire::Seal(it) => {
            let (name, instance, _) = unsealing(&it)?;
            Need::Seal { name, instance }
        }
        Wire::Map(version) => Need::Map(version),
    };
    Ok((need, needs.anchor.ok_or(malformed("need without anchor"))?.into()))
}
