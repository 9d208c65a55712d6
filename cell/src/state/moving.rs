//! The map that the cell goes by, and what is on its way to and from other cells while a rule of the map changes
//! (`move-1` to `move-4`).
//!
//! ```text
//! home cell:   settled -- the file is written, with a change --> changing -- Finish, GiveUp, written --> unannounced
//!                 ^------------------------------------ Announced --------------------------------------------'
//! source:      has the nodes -- Pack --> packed: nobody has them -- Adopt: done --> gone
//!                                          '------ Adopt: given up --> has the nodes
//! destination: knows nothing -- Import, part by part --> has a parcel -- Adopt: done --> has the nodes
//!                                                             '------ Adopt: given up --> knows nothing
//! ```
//!
//! What is packed is not in the tree, so nothing that happens in the cell meanwhile can change it; what a client ends or
//! loses takes effect when it is unpacked, here or there. Whether a change is done is decided by one entry of the home
//! cell's log. Everything else may be asked again by anybody.

mod parcel;

use std::sync::Arc;

use bytes::Bytes;
use hasp_proto::convert::malformed;
use hasp_proto::crossing::{Chore, Need};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::{HandleBody, HandleKey, HandleToken};
use hasp_proto::id::{CellName, Generation};
use hasp_proto::limits::{MOVE_BYTES_MAX, MOVE_NODES_MAX};
use hasp_proto::name::Name;
use hasp_proto::partition::PartitionMap;
use hasp_proto::sequencer::{SequencerBody, SequencerToken};
use hasp_proto::wire::log::v1 as log;
use rpds::RedBlackTreeMapSync;

use super::State;
use super::access::Refusal;
use super::codec::DecodeError;
use super::command::Genesis;
use super::outcome::Outcome;
use super::writes::next;

/// What moves between this cell and another, in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parcel {
    /// How many there are to be.
    parts: u64,
    /// Those that are here.
    data: Vec<Bytes>,
}

impl Parcel {
    fn is_complete(&self) -> bool {
        self.data.len() as u64 == self.parts
    }
}

/// The cell's map, and what is on its way. The default is that of a cell that has not begun.
#[derive(Clone, Default, PartialEq)]
pub struct Moving {
    /// Without addresses; `None` until the first `MasterEpoch`.
    map: Option<Arc<PartitionMap>>,
    /// By destination; `None` if nothing is packed.
    outgoing: Option<RedBlackTreeMapSync<CellName, Arc<Parcel>>>,
    /// By source.
    incoming: RedBlackTreeMapSync<CellName, Arc<Parcel>>,
    /// Of the cells that nodes came from: their handles and sequencers are honoured here.
    keys: RedBlackTreeMapSync<CellName, HandleKey>,
    /// Of the home cell: others may not know the map.
    is_unannounced: bool,
}

impl Moving {
    /// Of a cell that begins.
    pub fn begun(genesis: &Genesis) -> Self {
        Self { map: Some(Arc::new(genesis.map.without_addresses())), ..Self::default() }
    }

    /// As a snapshot says; its parcels follow.
    pub fn restore(
        map: Option<PartitionMap>,
        is_unannounced: bool,
        keys: impl Iterator<Item = (CellName, HandleKey)>,
    ) -> Self {
        Self { map: map.map(Arc::new), is_unannounced, keys: keys.collect(), ..Self::default() }
    }

    /// Puts a parcel in as a snapshot says.
    ///
    /// # Errors
    /// It is there already.
    pub fn restore_parcel(&mut self, parcel: log::SnapshotParcel) -> Result<(), DecodeError> {
        let log::SnapshotParcel { cell, outgoing, parts, data } = parcel;
        let parcels = if outgoing { self.outgoing.get_or_insert_default() } else { &mut self.incoming };
        let cell = CellName::new(&cell);
        if parcels.contains_key(&cell) {
            return Err(malformed("parcel twice").into());
        }
        parcels.insert_mut(cell, Arc::new(Parcel { parts, data }));
        Ok(())
    }

    /// What is on its way, for a snapshot.
    pub fn parcels(&self) -> impl Iterator<Item = log::SnapshotParcel> {
        let record = |outgoing: bool| {
            move |(cell, parcel): (&CellName, &Arc<Parcel>)| log::SnapshotParcel {
                cell: cell.to_string(),
                outgoing,
                parts: parcel.parts,
                data: parcel.data.clone(),
            }
        };
        let outgoing = self.outgoing.iter().flat_map(RedBlackTreeMapSync::iter).map(record(true));
        outgoing.chain(self.incoming.iter().map(record(false)))
    }

    /// The map, if it is not the one that the cell was founded with.
    pub fn changed_map(&self, genesis: Option<&Genesis>) -> Option<&PartitionMap> {
        self.map.as_deref().filter(|map| genesis.is_some_and(|it| it.map.version != map.version))
    }

    /// Whether others may not know the map.
    pub const fn is_unannounced(&self) -> bool {
        self.is_unannounced
    }

    /// Keys of the cells that nodes came from, by name.
    pub fn keys(&self) -> impl Iterator<Item = (&CellName, &HandleKey)> {
        self.keys.iter()
    }
}

/// What the master asks.
impl State {
    /// The map that the cell goes by, without addresses.
    ///
    /// # Panics
    /// If the cell has not begun.
    pub fn map(&self) -> &PartitionMap {
        self.moving.map.as_deref().expect("a cell that has begun has a map")
    }

    /// The same map, shared; `None` if the cell has not begun.
    pub fn shared_map(&self) -> Option<Arc<PartitionMap>> {
        self.moving.map.clone()
    }

    /// Checks that the node of that name is this cell's, and not on its way.
    ///
    /// # Errors
    /// `WrongCell`, or that a newer map has to be waited for.
    pub fn check_cell(&self, name: &Name) -> Result<(), Refusal> {
        let Some(genesis) = self.genesis() else { return Ok(()) };
        let map = self.map();
        self.check_owner(&genesis.cell, name, map.owner(name), map.after().and_then(|it| it.owner(name)))
    }

    /// The same of the children of the directory of that name.
    ///
    /// # Errors
    /// As [`State::check_cell`].
    pub fn check_children_cell(&self, name: &Name) -> Result<(), Refusal> {
        let Some(genesis) = self.genesis() else { return Ok(()) };
        let map = self.map();
        let after = map.after().and_then(|it| it.children_owner(name));
        self.check_owner(&genesis.cell, name, map.children_owner(name), after)
    }

    fn check_owner(
        &self,
        own: &CellName,
        name: &Name,
        owner: Option<&CellName>,
        after: Option<&CellName>,
    ) -> Result<(), Refusal> {
        let map = self.map();
        let is_changing = map.change().is_some() && owner != after;
        let is_on_its_way = is_changing && (after == Some(own) || self.moving.outgoing.is_some());
        match owner {
            Some(owner) if owner == own && !is_on_its_way => Ok(()),
            Some(_) if is_on_its_way => Err(Need::Map(map.version).into()),
            Some(owner) => {
                let detail = format!("{name} belongs to cell {owner}, this is cell {own}");
                Err(ErrorCode::WrongCell { map_version: map.version }.because(detail).into())
            }
            None => {
                let detail = format!("{name}: this cell serves the namespace {}", map.namespace);
                Err(ErrorCode::NotFound.because(detail).into())
            }
        }
    }

    /// What a handle says, if this cell made it, or one that its node may have come from.
    pub fn open_handle(&self, token: &HandleToken) -> Option<HandleBody> {
        let own = self.genesis()?.handle_key.open(token);
        own.or_else(|| self.moving.keys.get(&token.claimed_body()?.cell)?.open(token))
    }

    /// The same of a sequencer.
    pub fn open_sequencer(&self, token: &SequencerToken) -> Option<SequencerBody> {
        let own = self.genesis()?.handle_key.open_sequencer(token);
        own.or_else(|| self.moving.keys.get(&token.claimed_body().ok()?.cell)?.open_sequencer(token))
    }

    /// A part of what was packed for that cell, and how many there are.
    ///
    /// # Errors
    /// Nothing is packed by a map of that version, or there is no such part.
    pub fn export(&self, version: u64, to: &CellName, part: u64) -> Result<(Bytes, u64), Error> {
        self.check_version(version)?;
        let parcels = self.moving.outgoing.as_ref();
        let parcel = parcels
            .and_then(|parcels| parcels.get(to))
            .ok_or_else(|| ErrorCode::NotFound.because(format!("nothing is packed for cell {to}")))?;
        let data = usize::try_from(part).ok().and_then(|part| parcel.data.get(part));
        let data =
            data.ok_or_else(|| ErrorCode::NotFound.because(format!("no part {part} for cell {to}")))?;
        Ok((data.clone(), parcel.parts))
    }

    /// The file of the map, if the cell knows its namespace.
    pub fn map_file(&self) -> Option<&Name> {
        self.system.map_file()
    }

    /// What of the change under way is left for routers to do.
    pub(super) fn moving_chore(&self) -> Option<Chore> {
        self.genesis().filter(|genesis| *self.map().home() == genesis.cell)?;
        let version = self.map().version;
        match self.map().change() {
            Some(_) => Some(Chore::Move(version)),
            None => self.moving.is_unannounced.then_some(Chore::Announce(version)),
        }
    }

    /// Whether what goes from here is on its way.
    pub fn has_packed(&self) -> bool {
        self.moving.outgoing.is_some()
    }

    /// Checks that the children of the directory of that name, whose node is here, have not been packed here: nobody knows
    /// whether there are any, and what they inherit is in the parcel.
    ///
    /// # Errors
    /// That a newer map has to be waited for.
    pub(super) fn check_children_not_packed(&self, name: &Name) -> Result<(), Refusal> {
        if self.has_packed()
            && self.map().moves_children(name)
            && self.map().children_owner(name) == self.genesis().map(|genesis| &genesis.cell)
        {
            return Err(Need::Map(self.map().version).into());
        }
        Ok(())
    }

    fn check_version(&self, version: u64) -> Result<(), Error> {
        let map = self.map();
        if map.version == version && map.change().is_some() {
            return Ok(());
        }
        let detail =
            format!("the map has version {}, no change of version {version} is under way", map.version);
        Err(ErrorCode::WrongCell { map_version: map.version }.because(detail))
    }
}

/// What the log does.
impl State {
    /// The map that somebody writes into the file in the home cell, if it is another than that of now.
    ///
    /// # Errors
    /// It cannot follow the one of now.
    pub(super) fn check_map_written(&self, contents: &[u8]) -> Result<Option<PartitionMap>, Error> {
        let next = PartitionMap::parse(contents)?;
        let map = self.map();
        if next == *map {
            return Ok(None);
        }
        if self.moving.is_unannounced {
            let detail = format!("not every cell goes by version {} of the partition map yet", map.version);
            return Err(ErrorCode::Unavailable.because(detail));
        }
        map.check_written(&next)?;
        Ok(Some(next))
    }

    /// The cell goes by this map from here on.
    pub(super) fn adopt(&mut self, next: &PartitionMap) -> Result<Outcome, Error> {
        let (Some(genesis), map) = (self.genesis.clone(), self.map()) else { return Ok(Outcome::Noted) };
        if next.version <= map.version {
            return Ok(Outcome::Noted);
        }
        if next.namespace != map.namespace || !next.cells.keys().eq(map.cells.keys()) {
            let detail =
                format!("a partition map of other cells or of another namespace than {}", map.namespace);
            return Err(ErrorCode::InvalidArgument.because(detail));
        }
        if let Some(after) = map.after() {
            let is = |that: &PartitionMap| next.rules().eq(that.rules()) && next.rings().eq(that.rings());
            let (is_done, is_given_up) = (is(after), is(map));
            if next.version != map.version + 1 || is_done == is_given_up || next.change().is_some() {
                let detail = "a partition map that does not say what became of the change before";
                return Err(ErrorCode::InvalidArgument.because(detail));
            }
            if is_done {
                self.check_packed()?;
                self.arrive()?;
            } else {
                self.return_all();
            }
        }
        self.moving.outgoing = None;
        self.moving.incoming = RedBlackTreeMapSync::new_sync();
        self.moving.map = Some(Arc::new(next.without_addresses()));
        let (own, map) = (&genesis.cell, self.moving.map.clone().expect("just set"));
        let role = |name: &Name| (map.owner(name) == Some(own), map.children_owner(name) == Some(own));
        self.tree.roots_mut().keep_split(role);
        Ok(Outcome::Noted)
    }

    /// What moves away is packed, and is no longer here.
    pub(super) fn pack(&mut self, version: u64) -> Result<Outcome, Error> {
        self.check_version(version)?;
        if self.moving.outgoing.is_some() || !self.has_to_pack() {
            return Ok(Outcome::Noted);
        }
        let leaving = self.leaving();
        let bytes = |name| self.tree.get(name).map_or(0, |node| node.contents.len());
        let (count, bytes) = (leaving.len(), leaving.iter().map(bytes).sum::<usize>());
        if count > MOVE_NODES_MAX || bytes > MOVE_BYTES_MAX {
            let detail = format!(
                "{count} nodes with {bytes} bytes would move at once, the limits are {MOVE_NODES_MAX} and \
                 {MOVE_BYTES_MAX}: move directories below first"
            );
            return Err(ErrorCode::QuotaExceeded.because(detail));
        }
        self.check_holders(&leaving)?;
        let parcels = self.pack_up(&leaving);
        self.moving.outgoing = Some(parcels);
        Ok(Outcome::Noted)
    }

    /// Nobody may hold what leaves who could not follow: who speaks with this cell alone has no session with the other, and
    /// would go on to believe in a lock that others are given there.
    fn check_holders(&self, leaving: &[Name]) -> Result<(), Error> {
        for name in leaving {
            let Some(node) = self.tree.get(name) else { continue };
            let holders = node.lock.holders().map(|(holder, _)| holder).chain(node.handles.iter().copied());
            let is_alone = |session| {
                let client = self.clients.get(session);
                client.is_some_and(|client| client.via.is_none()) && self.sessions.contains(session)
            };
            if holders.map(|holder| holder.session).any(is_alone) {
                let detail = format!(
                    "a client that speaks with cell {} without a proxy or router holds {name}, and could not follow",
                    self.position().cell
                );
                return Err(ErrorCode::LockHeld.because(detail));
            }
        }
        Ok(())
    }

    /// Whether something may go from here by the change that is under way.
    fn has_to_pack(&self) -> bool {
        let own = self.position().cell;
        self.map().journeys().iter().any(|(from, _)| *from == own)
    }

    /// What is in the tree when the change is done stays there, so nothing may be left to pack then.
    fn check_packed(&self) -> Result<(), Error> {
        if self.has_packed() || !self.has_to_pack() {
            return Ok(());
        }
        Err(ErrorCode::InvalidArgument.because("this cell has not packed what moves away from it"))
    }

    /// A part of what another cell has packed for this one. Parts come in order; one that is here is not needed again.
    pub(super) fn import(
        &mut self,
        version: u64,
        from: &CellName,
        part: u64,
        parts: u64,
        data: &Bytes,
    ) -> Result<Outcome, Error> {
        self.check_version(version)?;
        let own = self.position().cell;
        if !self.map().journeys().contains(&(from.clone(), own)) {
            let detail = format!("nothing moves here from cell {from}");
            return Err(ErrorCode::InvalidArgument.because(detail));
        }
        let mut parcel = self.moving.incoming.get(from).cloned().unwrap_or_default();
        let here = parcel.data.len() as u64;
        if part > here || part >= parts || (here > 0 && parcel.parts != parts) {
            let detail = format!("part {part} of {parts} from cell {from}, of which there are {here} here");
            return Err(ErrorCode::InvalidArgument.because(detail));
        }
        if part == here {
            parcel::check(data).map_err(|error| ErrorCode::InvalidArgument.because(error.to_string()))?;
            let grown = Arc::make_mut(&mut parcel);
            grown.parts = parts;
            grown.data.push(data.clone());
            self.moving.incoming.insert_mut(from.clone(), parcel);
        }
        Ok(Outcome::Noted)
    }

    /// Of the home cell: the change is done (`move-4`). This is the point of no return.
    pub(super) fn finish_move(&mut self, version: u64) -> Result<Outcome, Error> {
        self.check_home()?;
        if self.map().version == version + 1 {
            return Ok(Outcome::Noted);
        }
        self.check_version(version)?;
        let after = self.map().after().expect("just checked").clone();
        self.adopt(&after)?;
        Ok(self.write_map(""))
    }

    /// Of the home cell: the change cannot be done.
    pub(super) fn give_up_move(&mut self, version: u64, why: &str) -> Result<Outcome, Error> {
        self.check_home()?;
        self.check_version(version)?;
        let before = self.map().unchanged();
        self.adopt(&before)?;
        let why: String = why.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        Ok(self.write_map(&format!("# given up: {why}\n")))
    }

    /// Of the home cell: the file was written, and says this.
    pub(super) fn map_was_written(&mut self, map: &PartitionMap) {
        let adopted = self.adopt(map);
        debug_assert!(adopted.is_ok(), "it was checked before: {adopted:?}");
        self.moving.is_unannounced = map.change().is_none();
    }

    /// Of the home cell: all others go by the map of that version.
    pub(super) fn map_announced(&mut self, version: u64) -> Outcome {
        if self.map().version == version && self.map().change().is_none() {
            self.moving.is_unannounced = false;
        }
        Outcome::Noted
    }

    fn check_home(&self) -> Result<(), Error> {
        let own = self.position().cell;
        if *self.map().home() == own {
            return Ok(());
        }
        let detail = format!("cell {} decides on the partition map, this is cell {own}", self.map().home());
        Err(ErrorCode::WrongCell { map_version: self.map().version }.because(detail))
    }

    /// Writes the file of the map as it is now.
    fn write_map(&mut self, note: &str) -> Outcome {
        self.moving.is_unannounced = true;
        let contents = Bytes::from(note.to_owned() + &self.map().to_file());
        let name = self.system.map_file().cloned().expect("a cell that has begun knows its namespace");
        let node = self.tree.get(&name).expect("the home cell has the file, and nobody may delete it");
        let (instance, before, previous_generation) =
            (node.instance, node.contents.len(), node.content_generation);
        self.system.quotas_mut().resize_node(&name, before, contents.len());
        let stamp = next(&mut self.stamp);
        if let Some(node) = self.tree.get_mut(&name, instance) {
            node.set_contents(contents, stamp);
        }
        Outcome::Written { content_generation: Generation(stamp), previous_generation }
    }

    /// The names of the nodes that go, parents before their children.
    fn leaving(&self) -> Vec<Name> {
        let (own, map) = (self.position().cell, self.map());
        let Some(change) = map.change() else { return Vec::new() };
        let goes = |name: &&Name| map.owner(name) == Some(&own) && map.moves(name);
        self.tree.below(change.prefix.name()).filter(goes).cloned().collect()
    }
}
