//! A state of the model, what happens in it, and what an onlooker makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use hasp_proto::client::Ask;
use hasp_proto::crossing::{Chore, CrossOp};
use hasp_proto::error::ErrorCode;
use hasp_proto::id::Instance;
use hasp_proto::item::ItemKinds;
use hasp_proto::name::Name;
use hasp_proto::node::NodeKind;
use hasp_proto::request::{Answer, Create, Op, Open, Reply, Use};
use hasp_router::upstream::Ticket;

use super::cells::{self, CHILDREN, NODE, map};
use super::{Directories, DirectoryAction, DirectoryBounds, Wish};
use crate::model::crossing::cells::{Commits, client_id, handle, on_behalf};
use crate::model::crossing::routers::{Router, Steps};
use crate::model::crossing::{self, Waits};
use crate::model::hashed::Hashed;
use crate::model::world::Committed;

/// Looks at what was left behind, with nothing else going on, until that is done.
const TELLINGS_MAX: u8 = 4;
/// Tries the directory when all is done; nobody else goes through it.
const PROBER: usize = 2;
/// Numbers of children that it makes.
const PROBE: u64 = 1_000;

/// What all states of a model share: what was worked out before.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    commits: Commits,
    steps: Steps,
    /// Whether the directory is of use, by what both cells are.
    tried: DashMap<(u64, u64), bool>,
}

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Broken {
    /// A child without its directory.
    Orphan,
    /// A directory that was deleted is there.
    Reborn,
    /// A child that was created is not.
    Lost,
    /// A seal that nobody takes back.
    Left,
    /// A directory in which nobody can create, or that nobody can delete.
    Stuck,
    /// Nothing is on its way to somebody who waits.
    Unanswered,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Orphan => "a child without its directory",
            Self::Reborn => "a directory is there whose deletion was acknowledged",
            Self::Lost => "a child is gone that nobody has deleted",
            Self::Left => "something was left behind for good",
            Self::Stuck => "a directory in which nobody can create or that nobody can delete",
            Self::Unanswered => "a client waits for nothing",
        })
    }
}

/// What has come about on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) unsealed: bool,
    pub(super) dropped: bool,
    pub(super) told: bool,
}

impl Seen {
    fn note(&mut self, op: &Op) {
        match op {
            Op::Cross(CrossOp::Unseal { .. }) => self.unsealed = true,
            Op::Cross(CrossOp::DropRoot { .. }) => self.dropped = true,
            _ => {}
        }
    }
}

/// A client. All that is settled is below its number.
#[derive(Clone, Debug, Default, Hash, PartialEq)]
struct Client {
    number: u64,
    claim: u64,
    asked: Option<(Wish, Waits)>,
    /// The directory that it has open.
    directory: Option<Instance>,
    /// The child that it made last.
    child: Option<(u64, Instance)>,
}

/// A state.
#[derive(Clone, Debug)]
pub struct DirectoryWorld {
    directory: Arc<Name>,
    cells: [Hashed<Committed>; 2],
    routers: [Router; 2],
    clients: [Client; 2],
    left: DirectoryBounds,
    /// So often somebody was told of what was left behind while nothing went on.
    tellings: u8,
    /// More was needed than is looked at.
    is_cut: bool,
    /// Directories whose deletion was acknowledged.
    gone: BTreeSet<Instance>,
    /// Children whose creation was, and that nobody has asked to delete.
    there: BTreeMap<u64, Instance>,
    pub(super) broken: Option<Broken>,
    pub(super) seen: Seen,
}

impl Hash for DirectoryWorld {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.cells, &self.routers, &self.clients).hash(state);
        (&self.left, self.tellings, self.is_cut, &self.gone, &self.there, self.broken).hash(state);
    }
}

impl PartialEq for DirectoryWorld {
    fn eq(&self, other: &Self) -> bool {
        crate::model::hash_of(self) == crate::model::hash_of(other)
    }
}

impl DirectoryWorld {
    /// The directory is there, both clients have it open, and nothing is on its way.
    pub(super) fn begun(model: &Directories) -> Self {
        let known = &*model.shared.0;
        let lives = (0..2).flat_map(|router| (0..=model.bounds.crashes).map(move |life| (router, life)));
        let sessions = |cell: usize| {
            let all = lives.clone().chain([(PROBER, 0)]);
            all.map(|(router, life)| Router::begun(router, life, &map()).wires[cell].session)
                .collect::<Vec<_>>()
        };
        let routers = [0, 1].map(|router| Router::begun(router, 0, &map()));
        let mut world = Self {
            directory: Arc::new(cells::directory()),
            cells: [0, 1].map(|cell| known.commits.begun(cell, map(), &sessions(cell))),
            routers,
            clients: [Client::default(), Client::default()],
            left: model.bounds,
            tellings: 0,
            is_cut: false,
            gone: BTreeSet::new(),
            there: BTreeMap::new(),
            broken: None,
            seen: Seen::default(),
        };
        let create = create(&world.directory, NodeKind::Directory);
        Prober::new().tries(model, &mut world.cells, 1, create).expect("the first");
        let instance = world.cells[NODE].state.node(&world.directory).map(|node| node.instance);
        world.clients.iter_mut().for_each(|client| client.directory = instance);
        world
    }

    pub(super) fn has_deleted(&self) -> bool {
        !self.gone.is_empty()
    }

    pub(super) fn has_child(&self) -> bool {
        !self.there.is_empty()
    }

    pub(super) fn actions(&self, model: &Directories, actions: &mut Vec<DirectoryAction>) {
        if self.broken.is_some() || self.is_cut {
            return;
        }
        for client in 0..2 {
            self.asks(client, actions);
        }
        for (index, router) in self.routers.iter().enumerate() {
            for (cell, wire) in router.wires.iter().enumerate() {
                if !wire.requests.is_empty() {
                    actions.push(DirectoryAction::Do(index, cell));
                }
                if !wire.answers.is_empty() {
                    actions.push(DirectoryAction::Hear(index, cell));
                }
                if !wire.late.is_empty() {
                    actions
                        .extend([DirectoryAction::DoLate(index, cell), DirectoryAction::Lose(index, cell)]);
                }
                let may_tell = self.left.chores > 0 || (self.is_quiet() && index == 0);
                if may_tell && wire.offer.is_some() && !self.cells[cell].state.chores().is_empty() {
                    actions.push(DirectoryAction::Tell(index, cell));
                }
            }
            let is_used = self.clients.iter().any(|client| client.is_at(index)) || !router.is_quiet();
            if self.left.crashes > 0 && is_used && router.life < model.bounds.crashes {
                actions.push(DirectoryAction::Crash(index));
            }
        }
    }

    fn asks(&self, index: usize, actions: &mut Vec<DirectoryAction>) {
        let (client, left) = (&self.clients[index], &self.left.wishes[index]);
        match client.asked {
            Some((_, Waits::At(..))) if self.left.moves > 0 => actions.push(DirectoryAction::Move(index)),
            Some((_, Waits::At(..))) => {}
            Some((_, Waits::Nowhere)) => {
                actions.extend((0..2).map(|router| DirectoryAction::AskAgain(index, router)));
            }
            None => {
                let is_there = self.cells[NODE].state.node(&self.directory).is_some();
                let wishes = [
                    (Wish::DeleteDirectory, left.deletes > 0 && client.directory.is_some()),
                    (Wish::CreateDirectory, left.directories > 0 && !is_there),
                    (Wish::CreateChild, left.children > 0),
                    (Wish::DeleteChild, left.child_deletes > 0 && client.child.is_some()),
                ];
                let open = wishes.into_iter().filter(|(_, is_open)| *is_open);
                actions.extend(open.map(|(wish, _)| DirectoryAction::Ask(index, wish)));
            }
        }
    }

    /// What is on its way there, for the story.
    pub(super) fn detail(&self, action: DirectoryAction) -> String {
        match action {
            DirectoryAction::Do(router, cell) => {
                self.routers[router].wires[cell].requests.front().map(|it| crossing::told(it))
            }
            DirectoryAction::DoLate(router, cell) => {
                self.routers[router].wires[cell].late.front().map(|(_, it)| crossing::told(it))
            }
            DirectoryAction::Hear(router, cell) => {
                let answer = self.routers[router].wires[cell].answers.front();
                answer.map(|it| format!(": {:?}", it.result))
            }
            DirectoryAction::Tell(_, cell) => Some(format!(": {:?}", self.cells[cell].state.chores())),
            _ => None,
        }
        .unwrap_or_default()
    }

    pub(super) fn take(&mut self, model: &Directories, action: DirectoryAction) {
        let known = &*model.shared.0;
        match action {
            DirectoryAction::Ask(client, wish) => {
                let left = &mut self.left.wishes[client];
                match wish {
                    Wish::DeleteDirectory => left.deletes -= 1,
                    Wish::CreateDirectory => left.directories -= 1,
                    Wish::CreateChild => left.children -= 1,
                    Wish::DeleteChild => left.child_deletes -= 1,
                }
                self.clients[client].number += 1;
                if wish == Wish::DeleteChild
                    && let Some((number, _)) = self.clients[client].child
                {
                    self.there.remove(&number);
                }
                self.ask(known, client, client, wish);
            }
            DirectoryAction::AskAgain(client, router) => {
                self.clients[client].claim += 1;
                if let Some((wish, _)) = self.clients[client].asked {
                    self.ask(known, client, router, wish);
                }
            }
            DirectoryAction::Move(client) => {
                self.left.moves -= 1;
                self.clients[client].lose();
            }
            DirectoryAction::Do(router, cell) => {
                let wire = &mut self.routers[router].wires[cell];
                let Some(request) = wire.requests.pop_front() else { return };
                self.seen.note(&request.op);
                let answer = cells::answer(
                    &known.commits,
                    &mut self.cells[cell],
                    wire.session,
                    &request,
                    model.omission,
                );
                if matches!(answer.result, Ok(Reply::Needs(..))) {
                    self.is_cut = self.left.needs == 0;
                    self.left.needs = self.left.needs.saturating_sub(1);
                }
                wire.answers.push_back(Hashed::new(answer));
            }
            DirectoryAction::DoLate(router, cell) => {
                let wire = &mut self.routers[router].wires[cell];
                let Some((session, request)) = wire.late.pop_front() else { return };
                cells::answer(&known.commits, &mut self.cells[cell], session, &request, model.omission);
            }
            DirectoryAction::Lose(router, cell) => self.routers[router].wires[cell].late.clear(),
            DirectoryAction::Hear(router, cell) => {
                let answers = self.routers[router].hear(&known.steps, cell);
                self.answered(router, answers);
            }
            DirectoryAction::Tell(router, cell) => self.tell(router, cell),
            DirectoryAction::Crash(router) => {
                self.left.crashes -= 1;
                self.routers[router].crash(router, &map());
                self.clients.iter_mut().filter(|client| client.is_at(router)).for_each(Client::lose);
            }
        }
        self.look(model);
    }

    fn tell(&mut self, router: usize, cell: usize) {
        if self.is_quiet() {
            self.tellings += 1;
        } else {
            self.left.chores -= 1;
        }
        let state = &self.cells[cell].state;
        let chores: Vec<Chore> = state.chores().into_iter().collect();
        self.seen.told = true;
        let wire = &mut self.routers[router].wires[cell];
        let Some(number) = wire.offer.take() else { return };
        let result = Ok(Reply::Chores(chores));
        let answer = Answer { number, position: Some(state.position()), caches: ItemKinds::NONE, result };
        wire.answers.push_back(Hashed::new(answer));
    }

    fn ask(&mut self, known: &Known, client: usize, router: usize, wish: Wish) {
        let Client { number, claim, directory, child, .. } = self.clients[client];
        let op = match wish {
            Wish::DeleteDirectory => {
                let instance = directory.expect("it has it open");
                let name = (*self.directory).clone();
                Op::Delete(handle(NODE, name, instance, NodeKind::Directory, client_id(client)))
            }
            Wish::CreateDirectory => create(&self.directory, NodeKind::Directory),
            Wish::CreateChild => {
                let child = cells::child(&self.directory, child_number(client, number));
                create(&child, NodeKind::File)
            }
            Wish::DeleteChild => {
                let (number, instance) = child.expect("it has made one");
                let name = cells::child(&self.directory, number);
                Op::Delete(handle(CHILDREN, name, instance, NodeKind::File, client_id(client)))
            }
        };
        let ask = Ask { on_behalf: Some(on_behalf(client, number, claim)), ..op.into() };
        let (ticket, answers) = self.routers[router].ask(&known.steps, &ask);
        self.clients[client].asked = Some((wish, Waits::At(router, ticket)));
        self.answered(router, answers);
    }

    fn answered(&mut self, router: usize, answers: Vec<(Ticket, Answer)>) {
        for (ticket, answer) in answers {
            let waits = |client: &Client| matches!(client.asked, Some((_, waits)) if waits == Waits::At(router, ticket));
            if let Some(client) = self.clients.iter().position(waits) {
                self.answered_to(client, answer);
            }
        }
    }

    fn answered_to(&mut self, index: usize, answer: Answer) {
        let client = &mut self.clients[index];
        let Some((wish, _)) = client.asked else { return };
        let is_unknown = matches!(&answer.result, Err(error) if error.code == ErrorCode::Unavailable);
        if is_unknown && self.left.repetitions > 0 {
            self.left.repetitions -= 1;
            return client.lose();
        }
        client.asked = None;
        match (wish, answer.result) {
            (Wish::DeleteDirectory, Ok(_)) => self.gone.extend(client.directory.take()),
            (Wish::DeleteDirectory, Err(error)) if error.code == ErrorCode::StaleHandle => {
                client.directory = None;
            }
            (Wish::CreateDirectory, Ok(Reply::Opened { stat, .. })) => client.directory = Some(stat.instance),
            (Wish::CreateChild, Ok(Reply::Opened { stat, .. })) => {
                let number = child_number(index, client.number);
                client.child = Some((number, stat.instance));
                self.there.insert(number, stat.instance);
            }
            (Wish::DeleteChild, Ok(_)) => client.child = None,
            _ => {}
        }
    }

    /// Whether nothing is on its way, and nobody waits.
    fn is_quiet(&self) -> bool {
        self.routers.iter().all(Router::is_quiet) && self.clients.iter().all(|client| client.asked.is_none())
    }

    fn look(&mut self, model: &Directories) {
        if self.broken.is_none() {
            self.broken = self.breach().or_else(|| self.breach_at_rest(model));
        }
    }

    fn breach(&self) -> Option<Broken> {
        let [a, b] = [NODE, CHILDREN].map(|cell| &self.cells[cell].state);
        let instance = a.node(&self.directory).map(|node| node.instance);
        let has_record = instance.is_some() && b.root(&self.directory).map(|root| root.instance) == instance;
        if b.has_children(&self.directory) && !has_record {
            return Some(Broken::Orphan);
        }
        if instance.is_some_and(|instance| self.gone.contains(&instance)) {
            return Some(Broken::Reborn);
        }
        let is_there = |(number, instance): (&u64, &Instance)| {
            let child = cells::child(&self.directory, *number);
            b.node(&child).is_some_and(|node| node.instance == *instance)
        };
        (!self.there.iter().all(is_there)).then_some(Broken::Lost)
    }

    fn breach_at_rest(&self, model: &Directories) -> Option<Broken> {
        if !self.routers.iter().all(Router::is_quiet) {
            return None;
        }
        let waits = |client: &Client| matches!(client.asked, Some((_, Waits::At(..))));
        if self.clients.iter().any(waits) {
            return Some(Broken::Unanswered);
        }
        if !self.is_quiet() {
            return None;
        }
        if self.cells.iter().any(|cell| !cell.state.chores().is_empty()) {
            let nobody_asks = self.routers[0].wires.iter().any(|wire| wire.offer.is_none());
            return (self.tellings >= TELLINGS_MAX || nobody_asks).then_some(Broken::Left);
        }
        (!self.is_of_use(model)).then_some(Broken::Stuck)
    }

    /// Whether somebody who goes about it now, with nothing else going on, can create in the directory and delete it, and
    /// the same once more.
    fn is_of_use(&self, model: &Directories) -> bool {
        let key = (self.cells[NODE].print(), self.cells[CHILDREN].print());
        if let Some(known) = model.shared.0.tried.get(&key) {
            return *known;
        }
        let is_of_use = self.try_all(model).is_some();
        model.shared.0.tried.insert(key, is_of_use);
        is_of_use
    }

    fn try_all(&self, model: &Directories) -> Option<()> {
        let mut cells = self.cells.clone();
        let mut prober = Prober::new();
        let delete = |cell, name: &Name, instance, kind| {
            Op::Delete(handle(cell, name.clone(), instance, kind, client_id(PROBER)))
        };
        let child = cells::child(&self.directory, PROBE);
        for round in 0..2 {
            let mut number = 10 * (round + 1);
            let mut tries = |cells: &mut [Hashed<Committed>; 2], op| {
                number += 1;
                prober.tries(model, cells, number, op)
            };
            if cells[NODE].state.node(&self.directory).is_none() {
                tries(&mut cells, create(&self.directory, NodeKind::Directory))?;
            }
            tries(&mut cells, create(&child, NodeKind::File))?;
            let children = cells[CHILDREN].state.children(&self.directory);
            let children: Vec<_> = children.map(|(name, node)| (name.clone(), node.instance)).collect();
            for (name, instance) in children {
                tries(&mut cells, delete(CHILDREN, &name, instance, NodeKind::File))?;
            }
            let instance = cells[NODE].state.node(&self.directory)?.instance;
            tries(&mut cells, delete(NODE, &self.directory, instance, NodeKind::Directory))?;
        }
        Some(())
    }
}

/// A client behind a router of its own, while nothing else goes on.
struct Prober(Router);

impl Prober {
    fn new() -> Self {
        Self(Router::begun(PROBER, 0, &map()))
    }

    /// Asks and waits; `Some` if it was done.
    fn tries(
        &mut self,
        model: &Directories,
        cells: &mut [Hashed<Committed>; 2],
        number: u64,
        op: Op,
    ) -> Option<Reply> {
        let known = &*model.shared.0;
        let ask = Ask { on_behalf: Some(on_behalf(PROBER, number, 0)), ..op.into() };
        let (ticket, mut answers) = self.0.ask(&known.steps, &ask);
        while !self.0.is_quiet() {
            for (cell, state) in cells.iter_mut().enumerate() {
                let wire = &mut self.0.wires[cell];
                if let Some(request) = wire.requests.pop_front() {
                    let session = wire.session;
                    let answer = cells::answer(&known.commits, state, session, &request, None);
                    wire.answers.push_back(Hashed::new(answer));
                }
                answers.extend(self.0.hear(&known.steps, cell));
            }
        }
        answers.into_iter().find(|(answered, _)| *answered == ticket)?.1.result.ok()
    }
}

impl Client {
    fn is_at(&self, router: usize) -> bool {
        matches!(self.asked, Some((_, Waits::At(at, _))) if at == router)
    }

    fn lose(&mut self) {
        if let Some((_, waits)) = &mut self.asked {
            *waits = Waits::Nowhere;
        }
    }
}

/// Each is used once.
const fn child_number(client: usize, number: u64) -> u64 {
    100 * (client as u64 + 1) + number
}

fn create(name: &Name, kind: NodeKind) -> Op {
    let (contents, acls) = (Bytes::new(), None);
    let create = Some(Create { must: true, kind, contents, ephemeral: false, acls });
    Op::Open(Open { create, ..Open::existing(name.clone(), Use::WriteAndLock) })
}
