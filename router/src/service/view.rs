//! The concurrent view of the machine's cache: cached reads are answered from it without waiting for the
//! machine (design §7). Only the machine writes it, and only in order with everything else it does.
//!
//! It decides nothing of its own. What makes an answer from it right:
//!
//! - It holds only what the machine has shown, and the machine shows that something is void before
//!   anybody above hears that no copy is left. A copy that is found was current when it was looked up
//!   (`cache-4`, P-LIN).
//! - The end of the cache lease is read before the copy and compared with the clock after it, so a copy
//!   from before a lapse is never used under the lease after it (`lease-3`).
//! - The position is read before the copy, and the copy, not being void, is current as of it. Both happen,
//!   and the answer is queued, behind the client's gate, through which the machine's answers to that
//!   client go too. So no answer follows one with a later position (P-MONO).
//! - A copy is answered only to a handle of the cell whose word it is. So a directory is not listed from here if one cell
//!   holds its node, and makes its handles, and another its children (`route-1`): that is left to the machine.
//! - It grants nobody leave to cache: that is the machine's, in order with its invalidations. Reads of
//!   sessions that want leave go there.
//!
//! The machine does not hear of requests that are answered here. That they are settled it hears with the
//! next request that goes to it, or the next KeepAlive.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use dashmap::DashMap;
use hasp_proto::handle::{HandleBody, HandleKey, HandleToken};
use hasp_proto::id::{CellName, Epoch, Instance, SessionId};
use hasp_proto::item::{Item, ItemKind, ItemKinds};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, Child, Stat};
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Op, Reply, Request};
use hasp_proto::server::ConnectionId;
use hasp_proto::time::Time;
use hasp_rt::clock::Clock;

use crate::relay::Show;

/// Generations of copies; those of names that fall into the same one are void together.
const STRIPES: usize = 4_096;
/// ACL files, and principals in each, whose decisions are kept; beyond that they are learned anew.
const ACLS_MAX: usize = 4_096;
const PRINCIPALS_MAX: usize = 65_536;
/// Bytes of a copy besides what varies.
const COPY_BYTES: usize = 320;

/// The view. See the module's documentation.
pub struct View {
    clock: Arc<dyn Clock>,
    /// In the order of their names.
    cells: Vec<Cell>,
    copies: moka::sync::Cache<Key, Arc<Copy>>,
    /// Grow when what a copy may hold is void: a copy counts only in the generation that it was shown in.
    /// The cache's own order of events is not relied on.
    generations: Box<[AtomicU64]>,
    /// Who is in which ACL file, by the word of which cell.
    decisions: DashMap<(usize, Name), Decisions>,
    clients: DashMap<ConnectionId, Arc<Client>>,
    by_session: DashMap<SessionId, Arc<Client>>,
    hits: AtomicU64,
}

struct Cell {
    name: CellName,
    key: OnceLock<HandleKey>,
    /// In microseconds; 0: no lease.
    lease_end: AtomicU64,
    seen: Mutex<(Epoch, u64)>,
    /// Grows when nothing that the cell said holds any more.
    generation: AtomicU64,
}

/// Which part of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Node,
    Listing,
}

type Key = (Name, Part);

struct Copy {
    cell: usize,
    instance: Instance,
    held: Held,
    bytes: usize,
    /// Of the cell, and of its stripe.
    generation: (u64, u64),
}

enum Held {
    Node(Stat, Option<Bytes>),
    Listing(Vec<Child>, AclNames),
}

#[derive(Default)]
struct Decisions {
    generation: u64,
    principals: BTreeSet<Box<str>>,
}

struct Client {
    session: SessionId,
    principal: String,
    /// Cells of which it may be shown what is here, by their place.
    cells: AtomicU64,
    /// Answers to it go through one by one.
    gate: Mutex<()>,
}

impl View {
    /// Nothing yet, of these cells; copies of at most about that many bytes.
    pub fn new<'a>(
        cells: impl Iterator<Item = &'a CellName>,
        bytes_max: usize,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let cell = |name: &CellName| Cell {
            name: name.clone(),
            key: OnceLock::new(),
            lease_end: AtomicU64::new(0),
            seen: Mutex::default(),
            generation: AtomicU64::new(0),
        };
        let mut cells: Vec<_> = cells.map(cell).collect();
        cells.sort_by(|one, other| one.name.cmp(&other.name));
        Self {
            clock,
            cells,
            copies: moka::sync::Cache::builder()
                .max_capacity(bytes_max as u64)
                .weigher(|_, copy: &Arc<Copy>| u32::try_from(copy.bytes).unwrap_or(u32::MAX))
                .build(),
            generations: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
            decisions: DashMap::new(),
            clients: DashMap::new(),
            by_session: DashMap::new(),
            hits: AtomicU64::new(0),
        }
    }

    /// Requests answered, since the start.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Takes in what the machine shows. Called in its order, by one at a time.
    pub fn show(&self, show: Show) {
        match show {
            Show::Key(cell, key) => {
                if let Some(cell) = self.cell(&cell) {
                    // A cell has one key for ever.
                    let _ = self.cells[cell].key.set(key);
                }
            }
            Show::Lease(cell, end) => {
                if let Some(cell) = self.cell(&cell) {
                    self.cells[cell].lease_end.store(end.as_micros(), Ordering::SeqCst);
                }
            }
            Show::Seen(position) => {
                if let Some(cell) = self.cell(&position.cell) {
                    *lock(&self.cells[cell].seen) = (position.epoch, position.index);
                }
            }
            Show::Copy { cell, principal, name, instance, reply } => {
                self.keep(&cell, &principal, name, instance, reply);
            }
            Show::Speaks { connection, session, principal, is_new } => {
                let cells = AtomicU64::new(if is_new { u64::MAX } else { 0 });
                let client = Arc::new(Client { session, principal, cells, gate: Mutex::default() });
                self.by_session.insert(session, client.clone());
                self.clients.insert(connection, client);
            }
            Show::CaughtUp(session, cell) => {
                let client = self.by_session.get(&session).map(|client| client.clone());
                if let (Some(client), Some(cell)) = (client, self.cell(&cell)) {
                    client.cells.fetch_or(bit(cell), Ordering::SeqCst);
                }
            }
            Show::Silent(connection) => self.forget(connection),
            Show::Void(items) => items.iter().for_each(|item| self.void(item)),
            Show::VoidCell(cell) => {
                if let Some(cell) = self.cell(&cell) {
                    self.cells[cell].generation.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }

    /// A connection is gone.
    pub fn forget(&self, connection: ConnectionId) {
        if let Some((_, client)) = self.clients.remove(&connection) {
            self.by_session.remove_if(&client.session, |_, other| Arc::ptr_eq(other, &client));
        }
    }

    /// Sends something of the machine's to a client, with no answer from here in between.
    pub fn pass(&self, connection: ConnectionId, send: impl FnOnce()) {
        let client = self.client(connection);
        let _gate = client.as_ref().map(|client| lock(&client.gate));
        send();
    }

    /// Answers a request, if that can be done from here: gives the answer to `send`; whether it did.
    pub fn answer(&self, connection: ConnectionId, request: &Request, send: impl FnOnce(Answer)) -> bool {
        let (Op::GetContentsAndStat(handle) | Op::GetStat(handle) | Op::ReadDir(handle)) = &request.op else {
            return false;
        };
        if request.caches || request.guard.is_some() || request.on_behalf.is_some() {
            return false;
        }
        let Some(client) = self.client(connection) else { return false };
        let Some((cell, body)) = self.verified(&client, handle) else { return false };
        if client.cells.load(Ordering::SeqCst) & bit(cell) == 0 {
            return false;
        }
        let gate = lock(&client.gate);
        let Some((position, reply)) = self.look_up(&client, cell, &body, &request.op) else { return false };
        let (position, caches) = (Some(position), ItemKinds::NONE);
        send(Answer { number: request.number, position, caches, result: Ok(reply) });
        drop(gate);
        self.hits.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// What is kept. The order matters: lease and position before the copy, the clock after it.
    fn look_up(&self, client: &Client, cell: usize, body: &HandleBody, op: &Op) -> Option<(Position, Reply)> {
        let face = &self.cells[cell];
        let lease_end = Time::from_micros(face.lease_end.load(Ordering::SeqCst));
        let (epoch, index) = *lock(&face.seen);
        let part = if matches!(op, Op::ReadDir(_)) { Part::Listing } else { Part::Node };
        let key = (body.name.clone(), part);
        let copy = self.copies.get(&key)?;
        if copy.cell != cell || copy.instance != body.instance {
            return None;
        }
        let (acls, reply) = match (&copy.held, op) {
            (Held::Node(stat, _), Op::GetStat(_)) => (&stat.acls, Reply::Stat(stat.clone())),
            (Held::Node(stat, contents), Op::GetContentsAndStat(_)) => {
                let contents = contents.clone()?;
                (&stat.acls, Reply::Contents { contents, stat: stat.clone() })
            }
            (Held::Listing(children, acls), Op::ReadDir(_)) => {
                (acls, Reply::Children { children: children.clone(), acls: acls.clone() })
            }
            _ => return None,
        };
        // The decision before the generation: both hold at one moment, when the copy is not void.
        let is_in = self.is_in(cell, &acl_file(&body.name, &acls.read)?, &client.principal);
        if !is_in || copy.generation != self.generation(cell, &key.0) {
            return None;
        }
        (self.clock.now() < lease_end).then(|| (Position { cell: face.name.clone(), epoch, index }, reply))
    }

    fn keep(&self, cell: &CellName, principal: &str, name: Name, instance: Instance, reply: Reply) {
        let Some(cell) = self.cell(cell) else { return };
        let (held, part, bytes) = match reply {
            Reply::Contents { contents, stat } => {
                let bytes = contents.len();
                (Held::Node(stat, Some(contents)), Part::Node, bytes)
            }
            Reply::Stat(stat) => (Held::Node(stat, None), Part::Node, 0),
            Reply::Children { children, acls } => {
                let bytes = children.iter().map(|child| child.component.len() + COPY_BYTES).sum();
                (Held::Listing(children, acls), Part::Listing, bytes)
            }
            _ => return,
        };
        let acls = match &held {
            Held::Node(stat, _) => &stat.acls,
            Held::Listing(_, acls) => acls,
        };
        if let Some(file) = acl_file(&name, &acls.read) {
            self.decide(cell, file, principal);
        }
        let bytes = bytes + name.as_str().len() + COPY_BYTES;
        let generation = self.generation(cell, &name);
        self.copies.insert((name, part), Arc::new(Copy { cell, instance, held, bytes, generation }));
    }

    fn void(&self, item: &Item) {
        match item.kind {
            ItemKind::Data | ItemKind::Lock | ItemKind::Listing => {
                self.generations[stripe(&item.name)].fetch_add(1, Ordering::SeqCst);
                let part = if item.kind == ItemKind::Listing { Part::Listing } else { Part::Node };
                self.copies.invalidate(&(item.name.clone(), part));
            }
            ItemKind::Acl => {
                for cell in 0..self.cells.len() {
                    self.decisions.remove(&(cell, item.name.clone()));
                }
            }
            ItemKind::Absence => {}
        }
    }

    fn decide(&self, cell: usize, file: Name, principal: &str) {
        if self.decisions.len() >= ACLS_MAX {
            self.decisions.clear();
        }
        let generation = self.cells[cell].generation.load(Ordering::SeqCst);
        let mut decisions = self.decisions.entry((cell, file)).or_default();
        if decisions.generation != generation || decisions.principals.len() >= PRINCIPALS_MAX {
            *decisions = Decisions { generation, principals: BTreeSet::new() };
        }
        decisions.principals.insert(principal.into());
    }

    fn is_in(&self, cell: usize, file: &Name, principal: &str) -> bool {
        let generation = self.cells[cell].generation.load(Ordering::SeqCst);
        self.decisions.get(&(cell, file.clone())).is_some_and(|decisions| {
            decisions.generation == generation && decisions.principals.contains(principal)
        })
    }

    /// What a handle says, if its cell made it for that client.
    fn verified(&self, client: &Client, handle: &HandleToken) -> Option<(usize, HandleBody)> {
        let cell = match self.cells.len() {
            1 => 0,
            _ => self.cell(&handle.claimed_body()?.cell)?,
        };
        let body = self.cells[cell].key.get()?.open(handle)?;
        (body.session == client.session && body.cell == self.cells[cell].name).then_some((cell, body))
    }

    fn generation(&self, cell: usize, name: &Name) -> (u64, u64) {
        let of_cell = self.cells[cell].generation.load(Ordering::SeqCst);
        (of_cell, self.generations[stripe(name)].load(Ordering::SeqCst))
    }

    fn cell(&self, name: &CellName) -> Option<usize> {
        self.cells.binary_search_by(|cell| cell.name.cmp(name)).ok()
    }

    fn client(&self, connection: ConnectionId) -> Option<Arc<Client>> {
        self.clients.get(&connection).map(|client| client.clone())
    }
}

fn stripe(name: &Name) -> usize {
    usize::try_from(xxhash_rust::xxh3::xxh3_64(name.as_str().as_bytes()) % STRIPES as u64).expect("few")
}

/// The bit of a cell; none for those beyond what fits, which are served by the machine alone.
const fn bit(cell: usize) -> u64 {
    if cell < 64 { 1 << cell } else { 0 }
}

fn acl_file(node: &Name, acl: &str) -> Option<Name> {
    Name::parse(&format!("/ls/{}/acl/{acl}", node.namespace())).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
