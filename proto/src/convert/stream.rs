//! The items of a session stream.

use std::time::Duration;

use super::request::BadRequest;
use super::{Malformed, malformed};
use crate::handle::HandleKey;
use crate::id::{CellName, Claim, Epoch, RequestNumber, Sequence, SessionId, SessionKey};
use crate::limits::PRINCIPAL_BYTES_MAX;
use crate::request::Answer;
use crate::stream::{Down, Grant, Hello, KeepAlive, Role, Up, Welcome};
use crate::time::micros;
use crate::wire::v1;

/// Longest address that a proxy or router may advertise, in bytes.
const ADVERTISE_BYTES_MAX: usize = 255;

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Client => Self::Client,
            Role::Proxy => Self::Proxy,
            Role::Router => Self::Router,
        }
    }
}

impl TryFrom<v1::Role> for Role {
    type Error = Malformed;

    fn try_from(role: v1::Role) -> Result<Self, Malformed> {
        match role {
            v1::Role::Client => Ok(Self::Client),
            v1::Role::Proxy => Ok(Self::Proxy),
            v1::Role::Router => Ok(Self::Router),
            v1::Role::Unspecified => Err(malformed("role")),
        }
    }
}

impl From<Grant> for v1::Grant {
    fn from(grant: Grant) -> Self {
        Self { held_us: micros(grant.held), session_us: micros(grant.session), cache_us: micros(grant.cache) }
    }
}

impl From<v1::Grant> for Grant {
    fn from(grant: v1::Grant) -> Self {
        Self {
            held: Duration::from_micros(grant.held_us),
            session: Duration::from_micros(grant.session_us),
            cache: Duration::from_micros(grant.cache_us),
        }
    }
}

impl From<Up> for v1::Up {
    fn from(up: Up) -> Self {
        use v1::up::Item;
        let item = match up {
            Up::Hello(hello) => Item::Hello(v1::Hello {
                protocol: hello.protocol,
                key: bytes::Bytes::copy_from_slice(hello.key.as_bytes()),
                role: v1::Role::from(hello.role).into(),
                principal: hello.principal,
                known_since: hello.known_since.map(|claim| claim.0),
                claim: hello.claim.0,
                advertise: hello.advertise,
                next_request: hello.next_request.0,
                lease_left_us: micros(hello.lease_left),
            }),
            Up::Request(request) => Item::Request(request.into()),
            Up::KeepAlive(keep_alive) => Item::KeepAlive(v1::KeepAlive {
                number: keep_alive.number,
                settled_below: keep_alive.settled_below.0,
            }),
            Up::Acknowledge(sequence) => Item::Acknowledge(v1::Acknowledge { sequence: sequence.0 }),
            Up::Cancel(number) => Item::Cancel(v1::Cancel { number: number.0 }),
            Up::EndSession => Item::EndSession(v1::EndSession {}),
        };
        Self { item: Some(item) }
    }
}

impl TryFrom<v1::Up> for Up {
    type Error = BadRequest;

    fn try_from(up: v1::Up) -> Result<Self, BadRequest> {
        use v1::up::Item;
        Ok(match up.item.ok_or(malformed("item upwards"))? {
            Item::Hello(hello) => Self::Hello(hello_from_wire(hello)?),
            Item::Request(request) => Self::Request(request.try_into()?),
            Item::KeepAlive(keep_alive) => Self::KeepAlive(KeepAlive {
                number: keep_alive.number,
                settled_below: RequestNumber(keep_alive.settled_below),
            }),
            Item::Acknowledge(acknowledge) => Self::Acknowledge(Sequence(acknowledge.sequence)),
            Item::Cancel(cancel) => Self::Cancel(RequestNumber(cancel.number)),
            Item::EndSession(_) => Self::EndSession,
        })
    }
}

fn handle_key_to_wire((cell, key): (CellName, HandleKey)) -> v1::HandleKey {
    v1::HandleKey { cell: cell.to_string(), key: key.as_bytes().clone() }
}

fn handle_key_from_wire(it: v1::HandleKey) -> (CellName, HandleKey) {
    (CellName::new(&it.cell), HandleKey::new(it.key))
}

fn hello_from_wire(hello: v1::Hello) -> Result<Hello, Malformed> {
    if hello.principal.len() > PRINCIPAL_BYTES_MAX {
        return Err(malformed("principal"));
    }
    if hello.advertise.len() > ADVERTISE_BYTES_MAX {
        return Err(malformed("advertised address"));
    }
    let secret = hello.key[..].try_into().map_err(|_| malformed("session key"))?;
    Ok(Hello {
        role: hello.role().try_into()?,
        protocol: hello.protocol,
        key: SessionKey::new(secret),
        principal: hello.principal,
        known_since: hello.known_since.map(Claim),
        claim: Claim(hello.claim),
        advertise: hello.advertise,
        next_request: RequestNumber(hello.next_request),
        lease_left: Duration::from_micros(hello.lease_left_us),
    })
}

impl From<Down> for v1::Down {
    fn from(down: Down) -> Self {
        use v1::down::Item;
        let item = match down {
            Down::Welcome(welcome) => {
                let (cell, epoch) = welcome.master_of.unwrap_or_default();
                Item::Welcome(v1::Welcome {
                    session: welcome.session.to_bytes(),
                    resumed: welcome.resumed,
                    grant: Some(welcome.grant.into()),
                    cell: cell.to_string(),
                    epoch: epoch.0,
                    handle_keys: welcome.handle_keys.into_iter().map(handle_key_to_wire).collect(),
                    lost_cells: welcome.lost_cells.iter().map(CellName::to_string).collect(),
                })
            }
            Down::Answer(answer) => Item::Answer(answer.into()),
            Down::Lease { keep_alive, grant } => {
                Item::Lease(v1::Lease { keep_alive, grant: Some(grant.into()) })
            }
            Down::News { sequence, item } => {
                Item::News(v1::News { sequence: sequence.0, item: Some(item.into()) })
            }
            Down::Refused(error) => Item::Refused(v1::Refused { error: Some(error.into()) }),
        };
        Self { item: Some(item) }
    }
}

impl TryFrom<v1::Down> for Down {
    type Error = Malformed;

    fn try_from(down: v1::Down) -> Result<Self, Malformed> {
        use v1::down::Item;
        Ok(match down.item.ok_or(malformed("item downwards"))? {
            Item::Welcome(welcome) => Self::Welcome(Welcome {
                session: SessionId::from_bytes(&welcome.session).ok_or(malformed("session id"))?,
                resumed: welcome.resumed,
                grant: welcome.grant.ok_or(malformed("welcome without lease"))?.into(),
                master_of: (!welcome.cell.is_empty())
                    .then(|| (CellName::new(&welcome.cell), Epoch(welcome.epoch))),
                handle_keys: welcome.handle_keys.into_iter().map(handle_key_from_wire).collect(),
                lost_cells: welcome.lost_cells.iter().map(|cell| CellName::new(cell)).collect(),
            }),
            Item::Answer(answer) => Self::Answer(Answer::try_from(answer)?),
            Item::Lease(lease) => Self::Lease {
                keep_alive: lease.keep_alive,
                grant: lease.grant.ok_or(malformed("lease without grant"))?.into(),
            },
            Item::News(news) => Self::News {
                sequence: Sequence(news.sequence),
                item: news.item.ok_or(malformed("news of an unknown kind"))?.try_into()?,
            },
            Item::Refused(refused) => {
                Self::Refused(refused.error.ok_or(malformed("refusal without error"))?.try_into()?)
            }
        })
    }
}
