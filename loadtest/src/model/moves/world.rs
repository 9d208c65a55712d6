//! A state of the model, and what happens in it.

mod ending;
mod prober;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use hasp_cell::state::State;
use hasp_proto::client::Ask;
use hasp_proto::crossing::{Chore, CrossOp};
use hasp_proto::error::ErrorCode;
use hasp_proto::id::{CellName, Instance, SessionId};
use hasp_proto::item::ItemKinds;
use hasp_proto::name::Name;
use hasp_proto::node::{LockMode, NodeKind};
use hasp_proto::partition::{Change, PartitionMap, Prefix};
use hasp_proto::request::{Answer, Create, Op, Open, Reply, Request, Use};
use hasp_router::upstream::Ticket;

use super::cells::{self, HOME, Master, file, map, prefix};
use super::onlooker::{Broken, Onlooker};
use super::{MoveAction, MoveBounds, Moves, Wish};
use crate::model::crossing::cells::{CELLS, Commits, client_id, handle, on_behalf};
use crate::model::crossing::routers::{Router, Steps};
use crate::model::crossing::{self, Waits};
use crate::model::hashed::Hashed;
use crate::model::world::Committed;
use prober::Prober;

/// A router is told of what is left of a change, with nothing else going on, until that is done.
const TELLINGS_MAX: u8 = 6;
/// Routers that pause go on so often, with nothing else going on and no change under way, until somebody is answered.
const ROUNDS_MAX: u8 = 16;
/// Tries the directory when all is done; nobody else goes through it.
const PROBER: usize = 2;
/// A file that it makes.
const PROBE: &str = "probe";

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

/// What has come about on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Which change each router was at work on last.
    at_work: [Option<u64>; 2],
    pub(super) both_at_work: bool,
    pub(super) given_up_packed: bool,
    pub(super) ended_packed: bool,
    pub(super) moved_locked: bool,
    pub(super) repeated: bool,
    pub(super) waited: bool,
}

/// A client. All that is settled is below its number.
#[derive(Clone, Debug, Default, Hash, PartialEq)]
struct Client {
    number: u64,
    claim: u64,
    asked: Option<(Wish, Waits)>,
    /// The file that it has open, and which cell made the handle.
    file: Option<(usize, Instance)>,
    /// It was told that it has the lock.
    is_holder: bool,
    /// Its session is over: which cells have not heard that yet.
    ending: Option<[bool; 2]>,
}

impl Client {
    fn is_at(&self, router: usize) -> bool {
        matches!(self.asked, Some((_, Waits::At(at, _))) if at == router)
    }

    fn waits_at_router(&self) -> bool {
        matches!(self.asked, Some((_, Waits::At(..))))
    }

    fn lose(&mut self) {
        if let Some((_, waits)) = &mut self.asked {
            *waits = Waits::Nowhere;
        }
    }
}

/// A state.
#[derive(Clone, Debug)]
pub struct MoveWorld {
    cells: [Hashed<Committed>; 2],
    routers: [Router; 2],
    clients: [Client; 2],
    left: MoveBounds,
    /// So often somebody was told of what is left of a change while nothing went on.
    tellings: u8,
    /// So often a router has gone on while nothing went on, since somebody was answered.
    rounds: u8,
    onlooker: Onlooker,
    pub(super) broken: Option<Broken>,
    pub(super) seen: Seen,
}

impl Hash for MoveWorld {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.cells, &self.routers, &self.clients).hash(state);
        (&self.left, self.tellings, self.rounds, &self.onlooker, self.broken).hash(state);
    }
}

impl PartialEq for MoveWorld {
    fn eq(&self, other: &Self) -> bool {
        crate::model::hash_of(self) == crate::model::hash_of(other)
    }
}

impl MoveWorld {
    /// Everything is in the home cell, both clients have the file open, and nothing is on its way.
    pub(super) fn begun(model: &Moves) -> Self {
        let known = &*model.shared.0;
        let map = map();
        let lives = (0..2).flat_map(|router| (0..=model.bounds.crashes).map(move |life| (router, life)));
        let sessions = |cell: usize| {
            let all = lives.clone().chain([(PROBER, 0)]);
            all.map(|(router, life)| Router::begun(router, life, &map).wires[cell].session)
                .collect::<Vec<_>>()
        };
        let mut cells = [0, 1].map(|cell| cells::begun(&known.commits, cell, &sessions(cell)));
        let mut prober = Prober::new(PROBER, &map);
        for (number, (name, kind)) in
            [(prefix(), NodeKind::Directory), (file(), NodeKind::File)].into_iter().enumerate()
        {
            prober.tries(model, &mut cells, number as u64 + 1, create(name, kind)).expect("the first");
        }
        let instance = cells[HOME].state.node(&file()).expect("just created").instance;
        let client = Client { file: Some((HOME, instance)), ..Client::default() };
        let mut clients = [client.clone(), client];
        if model.bounds.begins_locked {
            let open = handle(HOME, file(), instance, NodeKind::File, client_id(0));
            let acquire = Op::TryAcquire(open, LockMode::Exclusive);
            Prober::new(0, &map).tries(model, &mut cells, 1, acquire).expect("nobody has it");
            (clients[0].number, clients[0].is_holder) = (1, true);
        }
        Self {
            onlooker: Onlooker::begun(cells[HOME].state.node(&file()).expect("just created")),
            cells,
            routers: [0, 1].map(|router| Router::begun(router, 0, &map)),
            clients,
            left: model.bounds,
            tellings: 0,
            rounds: 0,
            broken: None,
            seen: Seen::default(),
        }
    }

    fn home_map(&self) -> &PartitionMap {
        self.cells[HOME].state.map()
    }

    /// A change was done, or given up, and all know that.
    pub(super) fn is_settled(&self) -> bool {
        let [a, b] = [0, 1].map(|cell| self.cells[cell].state.map().version);
        a == b && self.home_map().change().is_none() && self.cells[HOME].state.chores().is_empty()
    }

    pub(super) fn has_moved(&self) -> bool {
        self.is_settled() && self.home_map().owner(&file()) != map().owner(&file())
    }

    pub(super) fn was_given_up(&self) -> bool {
        self.is_settled() && self.home_map().version == map().version + 2 && !self.has_moved()
    }

    pub(super) fn actions(&self, model: &Moves, actions: &mut Vec<MoveAction>) {
        if self.broken.is_some() {
            return;
        }
        let has_change = self.home_map().change().is_some();
        let chores = self.cells[HOME].state.chores();
        if self.left.changes > 0 && !has_change && chores.is_empty() {
            actions.push(MoveAction::Begin);
        }
        if self.left.give_ups > 0 && has_change {
            actions.push(MoveAction::GiveUp);
        }
        for client in 0..2 {
            self.asks(client, actions);
        }
        let is_quiet = self.is_quiet();
        for (index, router) in self.routers.iter().enumerate() {
            for (cell, wire) in router.wires.iter().enumerate() {
                if !wire.requests.is_empty() {
                    actions.push(MoveAction::Do(index, cell));
                }
                if !wire.answers.is_empty() {
                    actions.push(MoveAction::Hear(index, cell));
                }
                if !wire.late.is_empty() {
                    actions.extend([MoveAction::DoLate(index, cell), MoveAction::Lose(index, cell)]);
                }
            }
            let may_tell = self.left.chores > 0 || (is_quiet && index == 0);
            if may_tell && router.wires[HOME].offer.is_some() && !chores.is_empty() {
                actions.push(MoveAction::Tell(index));
            }
            let may_wake = self.left.pauses > 0 || (is_quiet && chores.is_empty());
            if may_wake && router.is_due() {
                actions.push(MoveAction::Wake(index));
            }
            let is_used = self.clients.iter().any(|client| client.is_at(index)) || !router.is_quiet();
            if self.left.crashes > 0 && is_used && router.life < model.bounds.crashes {
                actions.push(MoveAction::Crash(index));
            }
        }
    }

    fn asks(&self, index: usize, actions: &mut Vec<MoveAction>) {
        let (client, left) = (&self.clients[index], &self.left.wishes[index]);
        if let Some(ending) = client.ending {
            let untold = (0..CELLS.len()).filter(|cell| ending[*cell]);
            return actions.extend(untold.map(|cell| MoveAction::TellEnd(index, cell)));
        }
        if index == 0 && self.left.ends > 0 && client.asked.is_none() {
            actions.push(MoveAction::End(index));
        }
        match client.asked {
            Some((_, Waits::At(..))) if self.left.hops > 0 => actions.push(MoveAction::Hop(index)),
            Some((_, Waits::At(..))) => {}
            Some((_, Waits::Nowhere)) => {
                actions.extend((0..2).map(|router| MoveAction::AskAgain(index, router)));
            }
            None => {
                let has_file = client.file.is_some();
                let wishes = [
                    (Wish::Write, left.writes > 0 && has_file),
                    (Wish::Lock, left.locks > 0 && has_file && !client.is_holder),
                    (Wish::Release, left.releases > 0 && client.is_holder),
                    (Wish::Delete, left.deletes > 0 && has_file),
                    (Wish::Create, left.creates > 0 && self.onlooker.instance().is_none()),
                ];
                let open = wishes.into_iter().filter(|(_, is_open)| *is_open);
                actions.extend(open.map(|(wish, _)| MoveAction::Ask(index, wish)));
            }
        }
    }

    /// What is on its way there, for the story.
    pub(super) fn detail(&self, action: MoveAction) -> String {
        match action {
            MoveAction::Do(router, cell) => {
                self.routers[router].wires[cell].requests.front().map(|it| crossing::told(it))
            }
            MoveAction::DoLate(router, cell) => {
                self.routers[router].wires[cell].late.front().map(|(_, it)| crossing::told(it))
            }
            MoveAction::Hear(router, cell) => {
                let answer = self.routers[router].wires[cell].answers.front();
                answer.map(|it| format!(": {:?}", it.result))
            }
            MoveAction::Tell(_) => Some(format!(": {:?}", self.cells[HOME].state.chores())),
            _ => None,
        }
        .unwrap_or_default()
    }

    pub(super) fn take(&mut self, model: &Moves, action: MoveAction) {
        let known = &*model.shared.0;
        match action {
            MoveAction::Ask(client, wish) => {
                *self.left.wishes[client].of(wish) -= 1;
                self.clients[client].number += 1;
                self.ask(known, client, client, wish);
            }
            MoveAction::AskAgain(client, router) => {
                self.clients[client].claim += 1;
                if let Some((wish, _)) = self.clients[client].asked {
                    self.ask(known, client, router, wish);
                }
            }
            MoveAction::Hop(client) => {
                self.left.hops -= 1;
                self.clients[client].lose();
            }
            MoveAction::End(client) => {
                self.left.ends -= 1;
                self.clients[client].ending = Some([true; 2]);
                self.onlooker.ended(client_id(client));
            }
            MoveAction::TellEnd(client, cell) => self.tell_end(known, client, cell),
            MoveAction::Do(router, cell) => {
                let wire = &mut self.routers[router].wires[cell];
                let Some(request) = wire.requests.pop_front() else { return };
                let session = wire.session;
                self.note_work(router, &request.op);
                let answer = self.answer(model, cell, session, &request);
                self.routers[router].wires[cell].answers.push_back(Hashed::new(answer));
            }
            MoveAction::DoLate(router, cell) => {
                let late = self.routers[router].wires[cell].late.pop_front();
                let Some((session, request)) = late else { return };
                self.answer(model, cell, session, &request);
            }
            MoveAction::Lose(router, cell) => self.routers[router].wires[cell].late.clear(),
            MoveAction::Hear(router, cell) => {
                let answers = self.routers[router].hear(&known.steps, cell);
                self.answered(router, answers);
            }
            MoveAction::Wake(router) => {
                if self.is_quiet() && self.cells[HOME].state.chores().is_empty() {
                    self.rounds += 1;
                } else {
                    self.left.pauses -= 1;
                }
                self.seen.waited = true;
                let answers = self.routers[router].wake(&known.steps);
                self.answered(router, answers);
            }
            MoveAction::Tell(router) => self.tell(router),
            MoveAction::Crash(router) => {
                self.left.crashes -= 1;
                self.routers[router].crash(router, &map());
                self.clients.iter_mut().filter(|client| client.is_at(router)).for_each(Client::lose);
            }
            MoveAction::Begin => {
                self.left.changes -= 1;
                self.tellings = 0;
                self.begin(known);
            }
            MoveAction::GiveUp => {
                self.left.give_ups -= 1;
                self.tellings = 0;
                self.seen.given_up_packed |= self.cells.iter().any(|cell| cell.state.has_packed());
                let map = self.home_map().unchanged();
                cells::write_map(&known.commits, &mut self.cells[HOME], &map);
            }
        }
        self.look(model);
    }

    /// What is below the prefix goes to the other cell, or back.
    fn begin(&mut self, known: &Known) {
        let is_home = self.home_map().children_owner(&prefix()) == Some(&CellName::new(CELLS[HOME]));
        let cells = if is_home { vec![CellName::new(CELLS[1 - HOME])] } else { Vec::new() };
        let change = Change { prefix: Prefix::Below(prefix()), cells };
        if let Ok(map) = self.home_map().changing(change) {
            cells::write_map(&known.commits, &mut self.cells[HOME], &map);
        }
    }

    fn answer(&mut self, model: &Moves, cell: usize, speaker: SessionId, request: &Request) -> Answer {
        let before = self.cells[1 - HOME].state.map().version;
        let commits = &model.shared.0.commits;
        let mut master = Master { commits, cell: &mut self.cells[cell], omission: model.omission };
        let (answer, effect) = master.answer(speaker, request);
        if let Some(effect) = effect {
            self.break_by(|world| world.onlooker.note(effect));
        }
        let position = answer.position.as_ref().filter(|_| request.on_behalf.is_some());
        self.seen.repeated |= position.is_some_and(|position| position.cell.as_str() != CELLS[cell]);
        let has_come = self.cells[1 - HOME].state.map().version != before && self.has_arrived();
        self.seen.moved_locked |= has_come && self.onlooker.is_locked();
        answer
    }

    fn has_arrived(&self) -> bool {
        self.cells[1 - HOME].state.node(&file()).is_some()
    }

    fn note_work(&mut self, router: usize, op: &Op) {
        if let Op::Cross(CrossOp::Pack { version } | CrossOp::Export { version, .. }) = op {
            self.seen.at_work[router] = Some(*version);
            self.seen.both_at_work |= self.seen.at_work == [Some(*version); 2];
        }
    }

    fn tell(&mut self, router: usize) {
        if self.is_quiet() && router == 0 {
            self.tellings += 1;
        } else {
            self.left.chores -= 1;
        }
        let state = &self.cells[HOME].state;
        let chores: Vec<Chore> = state.chores().into_iter().collect();
        let wire = &mut self.routers[router].wires[HOME];
        let Some(number) = wire.offer.take() else { return };
        let result = Ok(Reply::Chores(chores));
        let answer = Answer { number, position: Some(state.position()), caches: ItemKinds::NONE, result };
        wire.answers.push_back(Hashed::new(answer));
    }

    fn ask(&mut self, known: &Known, client: usize, router: usize, wish: Wish) {
        let Client { number, claim, file: open, .. } = self.clients[client];
        let handle = || {
            let (maker, instance) = open.expect("it has it open");
            handle(maker, file(), instance, NodeKind::File, client_id(client))
        };
        let op = match wish {
            Wish::Write => {
                let contents = Bytes::from(format!("{client} {number}"));
                Op::SetContents { handle: handle(), contents, if_generation: None }
            }
            Wish::Lock => Op::TryAcquire(handle(), LockMode::Exclusive),
            Wish::Release => Op::Release(handle()),
            Wish::Delete => Op::Delete(handle()),
            Wish::Create => create(file(), NodeKind::File),
        };
        if matches!(wish, Wish::Release | Wish::Delete) {
            self.clients[client].is_holder = false;
        }
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
        let Client { number, file: open, asked, .. } = self.clients[index];
        let Some((wish, _)) = asked else { return };
        let instance = open.map(|(_, instance)| instance.0);
        self.break_by(|world| world.onlooker.answered(client_id(index), number, instance, &answer));
        let client = &mut self.clients[index];
        let is_unknown = matches!(&answer.result, Err(error) if error.code == ErrorCode::Unavailable);
        if is_unknown && self.left.repetitions > 0 {
            self.left.repetitions -= 1;
            return client.lose();
        }
        client.asked = None;
        self.rounds = 0;
        match (wish, answer.result) {
            (Wish::Lock, Ok(_)) => client.is_holder = true,
            (Wish::Delete, Ok(_)) => client.file = None,
            (Wish::Create, Ok(Reply::Opened { handle, stat, .. })) => {
                let body = handle.claimed_body().expect("a cell made it");
                let maker = CELLS.iter().position(|cell| *cell == body.cell.as_str()).expect("one of two");
                client.file = Some((maker, stat.instance));
            }
            (_, Err(error)) if error.code == ErrorCode::StaleHandle => {
                client.file = None;
                client.is_holder = false;
            }
            _ => {}
        }
    }

    /// Whether nothing is on its way. Requests may pause.
    fn is_quiet(&self) -> bool {
        self.routers.iter().all(Router::is_quiet)
    }

    fn break_by(&mut self, look: impl FnOnce(&mut Self) -> Result<(), Broken>) {
        if self.broken.is_none() {
            self.broken = look(self).err();
        }
    }

    fn look(&mut self, model: &Moves) {
        self.break_by(|world| world.onlooker.look(world.states()));
        if self.is_quiet() {
            self.break_by(|world| world.look_at_rest(model));
        }
    }

    fn states(&self) -> [&State; 2] {
        [&self.cells[0].state, &self.cells[1].state]
    }

    fn look_at_rest(&self, model: &Moves) -> Result<(), Broken> {
        if !self.cells[HOME].state.chores().is_empty() {
            let nobody_asks = self.routers[0].wires[HOME].offer.is_none();
            let is_left = self.tellings >= TELLINGS_MAX || nobody_asks;
            return if is_left { Err(Broken::Left) } else { Ok(()) };
        }
        if self.routers.iter().any(Router::is_due) {
            return if self.rounds < ROUNDS_MAX { Ok(()) } else { Err(Broken::Unanswered) };
        }
        if self.clients.iter().any(Client::waits_at_router) {
            return Err(Broken::Unanswered);
        }
        Onlooker::look_at_rest(self.states())?;
        self.look_for_ended(model)?;
        if self.is_of_use(model) { Ok(()) } else { Err(Broken::Stuck) }
    }

    /// Whether somebody who goes about it now, with nothing else going on, can create in the directory, write, and delete.
    fn is_of_use(&self, model: &Moves) -> bool {
        let key = (self.cells[0].print(), self.cells[1].print());
        if let Some(known) = model.shared.0.tried.get(&key) {
            return *known;
        }
        let is_of_use = self.try_all(model).is_some();
        model.shared.0.tried.insert(key, is_of_use);
        is_of_use
    }

    fn try_all(&self, model: &Moves) -> Option<()> {
        let mut cells = self.cells.clone();
        let mut prober = Prober::new(PROBER, &self.home_map().with_cells(&map().cells));
        let mut number = 10;
        let mut tries = |cells: &mut [Hashed<Committed>; 2], op| {
            number += 1;
            prober.tries(model, cells, number, op)
        };
        let (owner, client) = (self.home_map().children_owner(&prefix())?, client_id(PROBER));
        let cell = CELLS.iter().position(|cell| *cell == owner.as_str())?;
        let probe = prefix().child(PROBE).ok()?;
        let created = tries(&mut cells, create(probe.clone(), NodeKind::File))?;
        let Reply::Opened { handle: open, .. } = created else { return None };
        tries(&mut cells, Op::TryAcquire(open.clone(), LockMode::Exclusive))?;
        let contents = Bytes::from_static(b"probe");
        tries(&mut cells, Op::SetContents { handle: open.clone(), contents, if_generation: None })?;
        let children: Vec<(Name, Instance)> =
            cells[cell].state.children(&prefix()).map(|(name, node)| (name.clone(), node.instance)).collect();
        for (name, instance) in children {
            tries(&mut cells, Op::Delete(handle(cell, name, instance, NodeKind::File, client)))?;
        }
        if self.home_map().has_rule(&prefix()) {
            return Some(());
        }
        let instance = cells[HOME].state.node(&prefix())?.instance;
        tries(&mut cells, Op::Delete(handle(HOME, prefix(), instance, NodeKind::Directory, client)))?;
        Some(())
    }
}

fn create(name: Name, kind: NodeKind) -> Op {
    let (contents, acls) = (Bytes::new(), None);
    let create = Some(Create { must: true, kind, contents, ephemeral: false, acls });
    Op::Open(Open { create, ..Open::existing(name, Use::WriteAndLock) })
}
