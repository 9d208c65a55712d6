//! A plan as stateright's model: which actions there are in a state, and what must hold in all of them.

use std::sync::Arc;

use stateright::{Model, Property};

use super::action::Action;
use super::hash_of;
use super::history::Broken;
use super::node::NodeId;
use super::plan::Plan;
use super::search::{Searched, Stop, Walked, drawn};
use super::world::World;

/// The model. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Protocol {
    begun: Arc<World>,
    /// What has happened before the search begins.
    opening: Arc<[Action]>,
    stop: Stop,
}

impl Protocol {
    /// All worlds of that plan.
    pub fn new(plan: Plan) -> Self {
        let begun = Arc::new(World::begun(&Arc::new(plan)));
        Self { begun, opening: Arc::default(), stop: Stop::default() }
    }

    fn opened(&self) -> World {
        let mut world = World::clone(&self.begun);
        self.opening.iter().for_each(|action| world.take(action));
        world
    }
}

impl Searched for Protocol {
    fn name(&self) -> &'static str {
        self.begun.plan.name
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }

    fn story(&self, actions: &[Action]) -> Vec<String> {
        let mut world = World::clone(&self.begun);
        world.story = Some(Vec::new());
        for action in self.opening.iter().chain(actions) {
            let (now, what) = (world.now, describe(&world, action));
            world.story.get_or_insert_default().push(format!("{now} {what}"));
            world.take(action);
        }
        let mut story = world.story.take().unwrap_or_default();
        story.extend(world.history.broken.map(|broken| format!("{} broken: {broken:?}", world.now)));
        story
    }
}

impl Walked for Protocol {
    fn after_walk(&self, walk: u64, steps: usize) -> Self {
        let mut world = World::clone(&self.begun);
        let (mut opening, mut actions) = (Vec::new(), Vec::new());
        for step in 0..steps {
            actions.clear();
            world.actions(&mut actions);
            let Some(action) = drawn(&actions, hash_of(&(walk, step))) else { break };
            world.take(&action);
            opening.push(action);
        }
        Self { opening: opening.into(), ..self.clone() }
    }

    fn opening(&self) -> usize {
        self.opening.len()
    }
}

fn describe(world: &World, action: &Action) -> String {
    match action {
        Action::Deliver(connection, way) => {
            let head = world.wires.head(*connection, *way).unwrap_or_default();
            let ends = world.wires.get(*connection).map(|wire| (wire.holder, wire.host));
            let head: String = head.chars().take(160).collect();
            format!("{action}, between {ends:?}: {head}")
        }
        Action::Break(connection) => {
            let ends = world.wires.get(*connection).map(|wire| (wire.holder, wire.host));
            format!("{action}, between {ends:?}")
        }
        _ => action.to_string(),
    }
}

impl World {
    /// What can happen next, always in the same order.
    pub fn actions(&self, actions: &mut Vec<Action>) {
        if self.history.broken.is_some() {
            return; // What follows says nothing new.
        }
        let slow = self.wires.deliverable().filter(|(connection, _)| self.is_slow(*connection));
        actions.extend(slow.map(|(connection, way)| Action::Deliver(connection, way)));
        if self.may_commit() {
            actions.push(Action::Commit);
        }
        self.wishes(actions);
        self.faults(actions);
        if self.left.passes > 0 {
            actions.push(Action::Pass);
        }
        if self.left.calms > 0 {
            actions.push(Action::Calm);
        }
    }

    fn wishes(&self, actions: &mut Vec<Action>) {
        for (index, role) in self.plan.clients.iter().enumerate() {
            let client = &self.clients[index];
            if !client.is_ready() {
                continue;
            }
            if role.reads && self.left.reads > 0 {
                actions.push(Action::Read(index));
            }
            if role.writes && self.left.writes > 0 {
                actions.push(Action::Write(index));
            }
            if role.locks && self.left.acquires > 0 && !client.has_lock() {
                actions.push(Action::Acquire(index));
            }
            if role.locks && self.left.releases > 0 && client.has_lock() {
                actions.push(Action::Release(index));
            }
        }
    }

    fn faults(&self, actions: &mut Vec<Action>) {
        let standing = || self.wires.all().filter(|(_, wire)| wire.link.is_some());
        let weak = |holder| self.plan.weak.contains(holder);
        if self.left.breaks > 0 {
            let may_break = standing().filter(|(_, wire)| weak(wire.holder));
            actions.extend(may_break.map(|(connection, _)| Action::Break(connection)));
        }
        if self.left.cuts > 0 {
            let pairs = standing().map(|(_, wire)| (wire.holder, wire.host));
            let whole = pairs.filter(|(holder, host)| weak(*holder) && !self.wires.is_cut(*holder, *host));
            actions.extend(whole.map(|(holder, host)| Action::Cut(holder, host)));
        }
        actions.extend(self.wires.cuts().map(|(holder, host)| Action::Heal(holder, host)));
        let leads = self.leadership.leader.is_some() && self.leadership.isolated_since.is_none();
        if leads && self.left.crashes > 0 {
            actions.push(Action::Crash);
        }
        if leads && self.left.isolations > 0 {
            actions.push(Action::Isolate);
        }
        if self.may_elect() {
            actions.push(Action::ElectWithoutTail);
            if !self.log.is_empty() {
                actions.push(Action::ElectWithTail);
            }
        }
        if self.leadership.outdated.is_some() {
            actions.push(Action::Depose);
        }
        if self.left.kills > 0 {
            let alive = (0..self.proxies.len()).filter(|index| self.is_alive(NodeId::Proxy(*index)));
            actions.extend(alive.map(Action::Kill));
        }
    }

    /// Does it.
    pub fn take(&mut self, action: &Action) {
        match *action {
            Action::Deliver(connection, way) => self.deliver(connection, way),
            Action::Commit => self.commit(),
            Action::Read(client) => {
                self.left.reads -= 1;
                self.read(client);
            }
            Action::Write(client) => {
                self.left.writes -= 1;
                self.write(client);
            }
            Action::Acquire(client) => {
                self.left.acquires -= 1;
                self.acquire(client);
            }
            Action::Release(client) => {
                self.left.releases -= 1;
                self.release(client);
            }
            Action::Pass => {
                self.left.passes -= 1;
                self.pass(self.plan.pass);
            }
            Action::Calm => {
                self.left.calms -= 1;
                self.calm(self.plan.calm);
            }
            Action::Break(connection) => {
                self.left.breaks -= 1;
                self.break_up(connection);
            }
            Action::Cut(holder, host) => {
                self.left.cuts -= 1;
                self.wires.cut(holder, host);
            }
            Action::Heal(holder, host) => self.wires.heal(holder, host),
            Action::Crash => {
                self.left.crashes -= 1;
                self.crash();
            }
            Action::Isolate => {
                self.left.isolations -= 1;
                self.isolate();
            }
            Action::ElectWithTail => self.elect(true),
            Action::ElectWithoutTail => self.elect(false),
            Action::Depose => self.depose(),
            Action::Kill(proxy) => {
                self.left.kills -= 1;
                self.kill(proxy);
            }
        }
        self.deliver_prompt();
        self.check_locks();
        self.seal();
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.opened()]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Action>) {
        if self.stop.is_set() {
            return;
        }
        state.actions(actions);
        // In another order in each state, the same each time: a search that does not come to its end looks at some of
        // everything, and not at all that may follow the first few steps.
        if let Some(turns) =
            usize::try_from(hash_of(state) >> 1).ok().and_then(|hash| hash.checked_rem(actions.len()))
        {
            actions.rotate_left(turns);
        }
    }

    fn next_state(&self, last_state: &World, action: Action) -> Option<World> {
        let mut world = last_state.clone();
        world.take(&action);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("P-LIN", |_, world: &World| {
                !matches!(world.history.broken, Some(Broken::Stale(_)))
            }),
            Property::always("P-LEASE", |_, world: &World| {
                !matches!(world.history.broken, Some(Broken::LockGone(_)))
            }),
            Property::always("P-ONCE", |_, world: &World| {
                !matches!(world.history.broken, Some(Broken::Twice(_)))
            }),
        ];
        properties.extend(self.should_come_about());
        properties
    }
}

impl Protocol {
    /// What shows that a search means something: it comes about in some world of the plan.
    fn should_come_about(&self) -> Vec<Property<Self>> {
        let Plan { clients, bounds, proxies, .. } = &*self.begun.plan;
        let mut properties = Vec::new();
        if clients.iter().any(|role| role.reads) && bounds.reads > 0 {
            properties.push(Property::sometimes("a read is answered from a cache", |_, world: &World| {
                world.seen.cached_read
            }));
        }
        if clients.iter().any(|role| role.writes) && bounds.writes > 0 {
            properties
                .push(Property::sometimes("a write is acknowledged", |_, world: &World| world.seen.write));
            if bounds.crashes + bounds.isolations > 0 {
                properties.push(Property::sometimes(
                    "a write is acknowledged after a fail-over",
                    |_, world: &World| world.seen.write_after_fail_over,
                ));
            }
        }
        if *proxies > 1 {
            properties.push(Property::sometimes("a client resumes elsewhere", |_, world: &World| {
                world.seen.move_between_proxies
            }));
        }
        properties
    }
}
