//! What moves, as bytes: the nodes with all that hangs on them, what is known of directories that are split or will be, and
//! what has to be remembered of the clients (`move-2`, `move-3`). Packing takes it out of the state, unpacking puts it in:
//! in the other cell, or in this one if the change is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hasp_proto::convert::malformed;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::handle::HandleKey;
use hasp_proto::id::{CellName, Claim, RequestNumber, SessionId};
use hasp_proto::limits::MOVE_PART_BYTES;
use hasp_proto::name::Name;
use hasp_proto::node::NodeKind;
use hasp_proto::position::Position;
use hasp_proto::wire::log::v1 as log;
use hasp_proto::wire::log::v1::snapshot_record::Record;
use prost::Message as _;
use rpds::RedBlackTreeMapSync;

use super::super::State;
use super::super::clients::NodeHandle;
use super::super::codec::{DecodeError, decode_session};
use super::super::lock::HolderId;
use super::super::node::Node;
use super::super::roots::{RootRecord, Roots};
use super::super::snapshot::{
    decode_answer, decode_node, decode_root, encode_answer, encode_crossing, encode_key, encode_node,
    encode_root,
};
use super::Parcel;

/// A parcel while it is put together.
#[derive(Default)]
struct Packing {
    records: Vec<log::SnapshotRecord>,
    clients: BTreeSet<SessionId>,
    roots: Roots,
}

impl Packing {
    fn add(&mut self, record: Record) {
        self.records.push(log::SnapshotRecord { record: Some(record) });
    }

    fn client(&mut self, session: SessionId) {
        self.clients.insert(session);
    }
}

/// Checks that a part can be unpacked.
///
/// # Errors
/// Where it cannot be understood.
pub(super) fn check(data: &Bytes) -> Result<(), DecodeError> {
    let part = log::Parcel::decode(data.clone())?;
    for record in part.records {
        match record.record.ok_or(malformed("record of no known kind in a parcel"))? {
            Record::Node(node) => drop(decode_node(node)?),
            Record::Root(root) => drop(decode_root(root)?),
            Record::Client(client) => {
                decode_session(&client.session)?;
                for answer in client.answers {
                    decode_answer(answer, &Position::default())?;
                }
            }
            Record::Crossing(crossing) => Roots::default().learn(crossing)?,
            Record::Header(_) | Record::Session(_) | Record::Parcel(_) => {
                return Err(malformed("record in a parcel that does not move").into());
            }
        }
    }
    Ok(())
}

impl State {
    /// Takes these nodes, parents before their children, out of the tree, with what belongs to them, and packs it for the cells that they go to.
    pub(super) fn pack_up(&mut self, leaving: &[Name]) -> RedBlackTreeMapSync<CellName, Arc<Parcel>> {
        let own = self.position().cell;
        let map = self.moving.map.clone().expect("a change is under way");
        let after = map.after().expect("a change is under way");
        let to = |cell: Option<&CellName>| cell.cloned().unwrap_or_default();
        let journeys = map.journeys().into_iter().filter(|(from, _)| *from == own);
        let mut parcels: BTreeMap<CellName, Packing> =
            journeys.map(|(_, to)| (to, Packing::default())).collect();

        self.pack_roots(&mut parcels);
        for name in leaving {
            let parcel = parcels.entry(to(after.owner(name))).or_default();
            let node = self.tree.get(name).expect("it was just found there");
            let holders = node.lock.holders().map(|(holder, _)| holder);
            holders.chain(node.handles.iter().copied()).for_each(|holder| parcel.client(holder.session));
            if let Some(below) = self.tree.roots().first_that_counts(name) {
                parcel.roots.void_seals(name, below);
            }
            if let Some(generation) = self.tree.roots().news_of(name) {
                parcel.roots.has_news(name, generation);
            }
            parcel.add(Record::Node(encode_node(name, node)));
        }
        for (session, record) in self.clients.iter() {
            // Who speaks with this cell alone asks no other.
            for name in
                record.answers().filter_map(|(_, kept)| kept.name.as_ref().filter(|_| record.via.is_some()))
            {
                if map.owner(name) == Some(&own)
                    && map.moves(name)
                    && let Some(parcel) = parcels.get_mut(&to(after.owner(name)))
                {
                    parcel.client(session);
                }
            }
        }
        let sealed = parcels.into_iter().map(|(cell, packing)| {
            let parcel = self.seal_up(&cell, packing);
            (cell, Arc::new(parcel))
        });
        let sealed = sealed.collect();
        // Those below before those above.
        for name in leaving.iter().rev() {
            self.remove_node(name, None);
        }
        sealed
    }

    /// Packs what is known of directories whose children go, and keeps what has to be known of those that leave their
    /// children behind.
    fn pack_roots(&mut self, parcels: &mut BTreeMap<CellName, Packing>) {
        let own = self.position().cell;
        let map = self.moving.map.clone().expect("a change is under way");
        let after = map.after().expect("a change is under way");
        let goes = |name: &Name| {
            let is_ours = map.children_owner(name) == Some(&own);
            after.children_owner(name).filter(|_| is_ours && map.moves_children(name)).cloned()
        };
        let records: Vec<_> =
            self.tree.roots().records().map(|(name, it)| (name.clone(), it.clone())).collect();
        for (name, record) in records {
            if let Some(parcel) = goes(&name).and_then(|cell| parcels.get_mut(&cell)) {
                parcel.add(Record::Root(encode_root(&name, &record)));
                self.tree.roots_mut().take(&name);
            }
        }
        let seals: Vec<_> = self.tree.roots().seals().map(|(name, seal)| (name.clone(), seal)).collect();
        for (name, seal) in seals {
            if let Some(parcel) = goes(&name).and_then(|cell| parcels.get_mut(&cell)) {
                parcel.roots.insert_seal(&name, seal);
                self.tree.roots_mut().take(&name);
            }
        }
        for (_, name, as_of) in self.tree.roots().voids() {
            if let Some(parcel) = goes(name).and_then(|cell| parcels.get_mut(&cell)) {
                parcel.roots.void_before(name, as_of.clone());
            }
        }
        for (cell, index) in self.tree.roots().floors() {
            let as_of = Position { cell: cell.clone(), index, ..Position::default() };
            parcels.values_mut().for_each(|parcel| parcel.roots.restore_floor(&as_of));
        }
        // Of directories whose node is here: the cell that gets their children has to know of them, and so has this one if
        // it keeps them while the node goes.
        let change = map.change().expect("a change is under way").prefix.name().clone();
        let split_after = |name: &Name| {
            let node = self.tree.get(name).filter(|node| node.kind == NodeKind::Directory)?;
            let is_split = after.owner(name) != after.children_owner(name);
            (is_split && map.children_owner(name) == Some(&own)).then(|| {
                let (instance, acl_generation) = (node.instance, node.acl_generation);
                (name.clone(), RootRecord { instance, acls: node.acls.clone(), acl_generation })
            })
        };
        let directories: Vec<_> =
            std::iter::once(&change).chain(self.tree.below(&change)).filter_map(split_after).collect();
        for (name, record) in directories {
            match goes(&name) {
                Some(cell) => {
                    if let Some(parcel) = parcels.get_mut(&cell) {
                        parcel.add(Record::Root(encode_root(&name, &record)));
                    }
                }
                None => self.tree.roots_mut().insert(&name, record),
            }
        }
    }

    /// The parcel's parts, of about equal size.
    fn seal_up(&self, cell: &CellName, packing: Packing) -> Parcel {
        let Packing { mut records, clients, roots } = packing;
        let own = self.position().cell;
        let map = self.map();
        let clients = clients.into_iter().filter_map(|session| {
            let client = self.clients.get(session)?;
            let is_about = |name: &Name| {
                map.owner(name) == Some(&own) && map.after().and_then(|it| it.owner(name)) == Some(cell)
            };
            let answers = client.answers().filter(|(_, kept)| kept.name.as_ref().is_some_and(is_about));
            let record = Record::Client(log::SnapshotClient {
                session: session.to_bytes(),
                claim: client.claim.0,
                principal: client.principal.to_string(),
                settled_below: client.settled_below.0,
                answers: answers
                    .map(|(number, kept)| encode_answer(number, kept, &CellName::default()))
                    .collect(),
                ..Default::default()
            });
            Some(log::SnapshotRecord { record: Some(record) })
        });
        let mut all: Vec<_> = clients.collect();
        all.append(&mut records);
        if let Some(crossing) = encode_crossing(&roots) {
            all.push(log::SnapshotRecord { record: Some(Record::Crossing(crossing)) });
        }
        let genesis = self.genesis().expect("a cell that has begun");
        let own_key = encode_key(&genesis.cell, &genesis.handle_key);
        let keys = self.moving.keys().map(|(cell, key)| encode_key(cell, key));
        let mut part =
            log::Parcel { stamp: self.stamp, keys: keys.chain([own_key]).collect(), records: Vec::new() };
        let mut data = Vec::new();
        let mut bytes = 0;
        for record in all {
            bytes += record.encoded_len();
            part.records.push(record);
            if bytes >= MOVE_PART_BYTES {
                data.push(std::mem::take(&mut part).encode_to_vec().into());
                bytes = 0;
            }
        }
        data.push(part.encode_to_vec().into());
        Parcel { parts: data.len() as u64, data }
    }

    /// Unpacks all that has come for this cell.
    ///
    /// # Errors
    /// Not all has come.
    pub(super) fn arrive(&mut self) -> Result<(), Error> {
        let own = self.position().cell;
        let incoming = self.moving.incoming.clone();
        let sources = self.map().journeys().into_iter().filter(|(_, to)| *to == own).map(|(from, _)| from);
        for from in sources {
            if !incoming.get(&from).is_some_and(|parcel| parcel.is_complete()) {
                let detail = format!("not all has come that moves here from cell {from}");
                return Err(ErrorCode::InvalidArgument.because(detail));
            }
        }
        for (_, parcel) in incoming.iter() {
            self.unpack(parcel);
        }
        Ok(())
    }

    /// Takes back what was packed.
    pub(super) fn return_all(&mut self) {
        for (_, parcel) in self.moving.outgoing.take().unwrap_or_default().iter() {
            self.unpack(parcel);
        }
    }

    fn unpack(&mut self, parcel: &Parcel) {
        let mut clients = BTreeSet::new();
        for data in &parcel.data {
            let unpacked = self.unpack_part(data, &mut clients);
            unpacked.expect("a part was packed here, or checked when it came");
        }
        clients.into_iter().for_each(|session| self.tidy(session));
    }

    fn unpack_part(&mut self, data: &Bytes, clients: &mut BTreeSet<SessionId>) -> Result<(), DecodeError> {
        let log::Parcel { stamp, keys, records } = log::Parcel::decode(data.clone())?;
        self.stamp = self.stamp.max(stamp);
        let own = self.position().cell;
        for log::CellKey { cell, key } in keys {
            let cell = CellName::new(&cell);
            if cell != own {
                self.moving.keys.insert_mut(cell, HandleKey::new(Bytes::copy_from_slice(&key)));
            }
        }
        for record in records.into_iter().filter_map(|record| record.record) {
            match record {
                Record::Client(client) => drop(clients.insert(self.unpack_client(client)?)),
                Record::Node(node) => {
                    let (name, node) = decode_node(node)?;
                    self.unpack_node(&name, node);
                }
                Record::Root(root) => {
                    let (name, record) = decode_root(root)?;
                    self.tree.roots_mut().insert(&name, record);
                }
                Record::Crossing(crossing) => self.tree.roots_mut().learn(crossing)?,
                Record::Header(_) | Record::Session(_) | Record::Parcel(_) => {}
            }
        }
        Ok(())
    }

    fn unpack_client(&mut self, client: log::SnapshotClient) -> Result<SessionId, DecodeError> {
        let session = decode_session(&client.session)?;
        let nowhere = Position::default();
        let decode = |answer| decode_answer(answer, &nowhere);
        let answers = client.answers.into_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        self.clients.take_over(
            session,
            (Claim(client.claim), &client.principal),
            RequestNumber(client.settled_below),
            answers.into_iter(),
            self.index,
        );
        Ok(session)
    }

    /// Puts a node in. Lock-delays begin anew; who was ended meanwhile loses what it held.
    fn unpack_node(&mut self, name: &Name, mut node: Node) {
        // The bytes of a part would stay in memory as long as the shortest contents of it.
        node.contents = Bytes::copy_from_slice(&node.contents);
        node.lock.restart_delays(self.index);
        let has_ended =
            |holder: &HolderId| self.clients.get(holder.session).is_none_or(|client| client.has_ended);
        let holders: Vec<HolderId> = node.lock.holders().map(|(holder, _)| holder).collect();
        let (ended, standing): (Vec<_>, Vec<_>) = holders.into_iter().partition(has_ended);
        for holder in ended {
            node.lock.lose(holder, self.index);
        }
        let (closed, open): (Vec<HolderId>, Vec<_>) = node.handles.iter().copied().partition(has_ended);
        for handle in closed {
            node.handles.remove_mut(&handle);
        }
        let handle =
            |opened_by: RequestNumber| NodeHandle { name: name.clone(), instance: node.instance, opened_by };
        for HolderId { session, opened_by } in standing {
            self.clients.list_lock(session, handle(opened_by));
        }
        for HolderId { session, opened_by } in open {
            self.clients.list_open(session, handle(opened_by));
        }
        self.system.quotas_mut().add_node(name, node.contents.len());
        self.tree.insert(name, node);
    }
}
