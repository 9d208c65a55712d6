//! The items of a session stream, in both directions (design §4.4).

use std::time::Duration;

use crate::error::Error;
use crate::event::NodeEvent;
use crate::handle::HandleKey;
use crate::id::{CellName, Claim, Epoch, RequestNumber, Sequence, SessionId, SessionKey};
use crate::item::Item;
use crate::position::Position;
use crate::request::{Answer, Request};

/// From the holder of a session to its host.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "a box would cost every request an allocation")]
pub enum Up {
    /// First on every stream.
    Hello(Hello),
    /// A numbered request.
    Request(Request),
    /// Asks for the next lease.
    KeepAlive(KeepAlive),
    /// This piece of news has been dealt with (`ka-3`).
    Acknowledge(Sequence),
    /// The caller no longer waits for this request.
    Cancel(RequestNumber),
    /// Ends the session by its holder's wish.
    EndSession,
}

/// From a host to the holder of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Down {
    /// The session stands.
    Welcome(Welcome),
    /// Of a request.
    Answer(Answer),
    /// Of a KeepAlive.
    Lease {
        /// Its number.
        keep_alive: u64,
        /// What is granted.
        grant: Grant,
    },
    /// To be acknowledged.
    News {
        /// Place among the session's news.
        sequence: Sequence,
        /// What happened.
        item: News,
    },
    /// The host ends the stream.
    Refused(Error),
}

impl Down {
    /// Rough size on the wire, in bytes: what queues are bounded by.
    pub fn weight(&self) -> usize {
        match self {
            Self::Answer(Answer { result: Ok(reply), .. }) => reply.weight(),
            Self::Answer(Answer { result: Err(error), .. }) | Self::Refused(error) => error.detail.len() + 64,
            Self::News { item, .. } => item.weight(),
            Self::Welcome(welcome) => {
                64 + welcome.lost_cells.iter().map(|cell| cell.as_str().len()).sum::<usize>()
            }
            Self::Lease { .. } => 64,
        }
    }
}

impl Up {
    /// Rough size on the wire, in bytes: what queues are bounded by.
    pub fn weight(&self) -> usize {
        match self {
            Self::Request(request) => request.op.weight(),
            Self::Hello(hello) => hello.principal.len() + hello.advertise.len() + 64,
            Self::KeepAlive(_) | Self::Acknowledge(_) | Self::Cancel(_) | Self::EndSession => 32,
        }
    }
}

/// Creates a session, or resumes it after a lost connection or a change of host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Version of the protocol.
    pub protocol: u32,
    /// The session's secret.
    pub key: SessionKey,
    /// What the holder is.
    pub role: Role,
    /// As whom it wants to act.
    pub principal: String,
    /// The claim under which it was last welcomed by a host, or a mastership, that did not know it; `None`: it was
    /// never welcomed. A host that knows it since then knows all that the holder was told.
    pub known_since: Option<Claim>,
    /// Grows with every Hello of the session.
    pub claim: Claim,
    /// Where clients reach a proxy or router; empty for a client.
    pub advertise: String,
    /// The number of the first request that was not asked before: handles of smaller ones may have been made elsewhere.
    pub next_request: RequestNumber,
    /// How much longer the holder counts on its session, by its own clock: another host may have promised more than
    /// this one will (`time-3`). At most [`LEASE_MAX`](crate::limits::LEASE_MAX) counts.
    pub lease_left: Duration,
}

/// Who holds a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// An application.
    Client,
    /// A proxy, trusted to ask on behalf of its clients.
    Proxy,
    /// A router, trusted likewise.
    Router,
}

impl Role {
    /// Whether it may ask on behalf of others.
    pub const fn is_tier(self) -> bool {
        matches!(self, Self::Proxy | Self::Router)
    }
}

/// The host's answer to a Hello.
#[derive(Clone, Debug, PartialEq)]
pub struct Welcome {
    /// The session's id.
    pub session: SessionId,
    /// The host remembered it, and knows that it was with no other host since: what it may cache and what
    /// it was told stand.
    pub resumed: bool,
    /// The first lease, as if the Hello had been a KeepAlive.
    pub grant: Grant,
    /// The cell whose master speaks, and its epoch; `None` from proxies and routers.
    pub master_of: Option<(CellName, Epoch)>,
    /// For proxies and routers: the keys of cells' check digits, so that they can make handles for
    /// reading. They are trusted (`proxy-6`), and a handle proves nothing that is not checked again.
    pub handle_keys: Vec<(CellName, HandleKey)>,
    /// Cells with which the host has no session that could carry on the holder's: what it had there is lost, and it
    /// must know before it counts on the lease (P-LEASE).
    pub lost_cells: Vec<CellName>,
}

/// A lease as it travels: durations only (`time-1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How long the host held the message that this answers.
    pub held: Duration,
    /// The session lease, from the answer on.
    pub session: Duration,
    /// The cache lease, from the answer on.
    pub cache: Duration,
}

/// Asks for the next lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Grows; named in the answer.
    pub number: u64,
    /// As in a request, for clients that ask nothing for a while.
    pub settled_below: RequestNumber,
}

/// Something a session must be told and must acknowledge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The master of a cell changed: events may have been missed.
    FailOver {
        /// Which cell.
        cell: CellName,
        /// The new mastership.
        epoch: Epoch,
    },
    /// The host's session at a cell is gone: all handles and locks there with it (`route-7`).
    CellLost {
        /// Which cell.
        cell: CellName,
    },
    /// Cached items are about to change: to be acknowledged once no copy is left (`cache-1`, `cache-4`).
    Invalidate {
        /// Which.
        items: Vec<Item>,
        /// Nothing read at or before this point may be cached any more (`cache-3`).
        floor: Position,
    },
    /// Something happened to a node that a handle subscribed to.
    Event(NodeEvent),
    /// Too many events were waiting to be acknowledged: look again at what was subscribed to.
    EventsLost {
        /// In which cell; `None`: in any.
        cell: Option<CellName>,
    },
}

impl News {
    /// Rough size on the wire, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::FailOver { .. } | Self::CellLost { .. } | Self::EventsLost { .. } => 64,
            Self::Invalidate { items, .. } => {
                items.iter().map(|item| item.name.as_str().len() + 8).sum::<usize>() + 64
            }
            Self::Event(event) => {
                event.name.as_str().len() + event.child.as_ref().map_or(0, String::len) + 96
            }
        }
    }
}
