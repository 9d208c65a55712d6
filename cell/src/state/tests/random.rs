//! Random logs: the invariants hold after every command, a replay and a restored snapshot go the same way, and
//! locks and ephemeral nodes are those of models so naive that they can be checked by eye.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 7] = [
    "/ls/dev/d",
    "/ls/dev/f",
    "/ls/dev/d/f",
    "/ls/dev/d/g",
    "/ls/dev/d/e",
    "/ls/dev/acl/ops",
    "/ls/dev/.hasp/quotas",
];
/// Good for any file, an ACL, quotas.
const CONTENTS: [&str; 5] =
    ["somebody", "admin\n# x", "/ls/dev/d nodes=2 bytes=12", "/ls/dev nodes=8\n/ls/dev/d bytes=9", "a\0b"];
const ACLS: [&str; 4] = ["everyone", "admin", "ops", "missing"];
const PRINCIPALS: [&str; 2] = ["somebody", "admin"];
const CLIENTS: u8 = 5;
const PROXIES: [u8; 2] = [101, 102];

/// A step whose handles are resolved when its turn comes.
#[derive(Clone, Debug)]
enum Step {
    Epoch,
    WrongEpoch,
    Session(u8, u64),
    Proxy(u8),
    End(u8, EndCause),
    EndClient(u8, u8, u64, EndCause),
    Settle(u8, u64),
    EndDelay(usize),
    OrphanEnd(usize),
    Claim(u8, u8, u64),
    Forget(u64),
    Reap(usize),
    RaiseLeaseMax(u64),
    TakeChecksum,
    /// Of the last note taken.
    CompareChecksum,
    Write(Speaker, u64, u64, Act, usize, u64),
    /// The same, if the lock of the file is held as it was, or as it never was.
    Guarded(Speaker, u64, Act, usize, bool),
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Create(NodeKind, bool, bool, usize),
    OpenEphemeral(Use),
    Set(Option<u64>, usize),
    SetAcl(usize, usize, usize),
    Delete,
    Acquire(LockMode),
    Release,
    Close,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (kind(), any::<bool>(), any::<bool>(), 0..CONTENTS.len())
            .prop_map(|(kind, must, ephemeral, contents)| Act::Create(kind, must, ephemeral, contents)),
        2 => r#use().prop_map(Act::OpenEphemeral),
        4 => (prop::option::weighted(0.2, 1..20_u64), 0..CONTENTS.len()).prop_map(|(a, b)| Act::Set(a, b)),
        1 => (0..ACLS.len(), 0..ACLS.len(), 0..ACLS.len()).prop_map(|(a, b, c)| Act::SetAcl(a, b, c)),
        1 => Just(Act::Delete),
        4 => mode().prop_map(Act::Acquire),
        1 => Just(Act::Release),
        2 => Just(Act::Close),
    ]
}

fn kind() -> impl Strategy<Value = NodeKind> {
    prop_oneof![Just(NodeKind::File), Just(NodeKind::Directory)]
}

fn r#use() -> impl Strategy<Value = Use> {
    prop_oneof![Just(Use::Read), Just(Use::WriteAndLock), Just(Use::ChangeAcl)]
}

fn mode() -> impl Strategy<Value = LockMode> {
    prop_oneof![Just(LockMode::Shared), Just(LockMode::Exclusive)]
}

fn cause() -> impl Strategy<Value = EndCause> {
    prop_oneof![Just(EndCause::Closed), Just(EndCause::Failed)]
}

fn speaker() -> impl Strategy<Value = Speaker> {
    let via = prop_oneof![Just(None), Just(Some(PROXIES[0])), Just(Some(PROXIES[1]))];
    let principal = 0..PRINCIPALS.len();
    (1..=CLIENTS, via, 1..4_u64, principal).prop_map(|(session, via, claim, principal)| Speaker {
        session,
        via,
        claim,
        principal: PRINCIPALS[principal],
    })
}

fn step() -> impl Strategy<Value = Step> {
    let proxy = || prop_oneof![Just(PROXIES[0]), Just(PROXIES[1])];
    let anybody = prop_oneof![1..=CLIENTS, proxy()];
    let write = (speaker(), 1..30_u64, 0..4_u64, act(), 0..NAMES.len(), 1..3_u64);
    prop_oneof![
        1 => Just(Step::Epoch),
        1 => Just(Step::WrongEpoch),
        2 => (1..=CLIENTS, 1..4_u64).prop_map(|(session, claim)| Step::Session(session, claim)),
        2 => proxy().prop_map(Step::Proxy),
        2 => (anybody, cause()).prop_map(|(session, cause)| Step::End(session, cause)),
        1 => (1..=CLIENTS, proxy(), 1..4_u64, cause()).prop_map(|(a, b, c, d)| Step::EndClient(a, b, c, d)),
        2 => (1..=CLIENTS, 0..30_u64).prop_map(|(session, below)| Step::Settle(session, below)),
        1 => (0..4_usize).prop_map(Step::EndDelay),
        1 => (0..4_usize).prop_map(Step::OrphanEnd),
        1 => (1..=CLIENTS, proxy(), 1..4_u64).prop_map(|(a, b, c)| Step::Claim(a, b, c)),
        3 => (0..9_u64).prop_map(Step::Forget),
        3 => (0..4_usize).prop_map(Step::Reap),
        1 => (0..90_u64).prop_map(Step::RaiseLeaseMax),
        1 => Just(Step::TakeChecksum),
        1 => Just(Step::CompareChecksum),
        2 => (speaker(), 1..30_u64, act(), 0..NAMES.len(), any::<bool>())
            .prop_map(|(a, b, c, d, e)| Step::Guarded(a, b, c, d, e)),
        30 => write.prop_map(|(a, b, c, d, e, f)| Step::Write(a, b, c, d, e, f)),
    ]
}

impl World {
    /// One with an ACL and quotas to run into.
    fn ruled() -> Self {
        let mut world = Self::new();
        world.session(100, Role::Client);
        world.put(100, NAMES[5], CONTENTS[0]);
        world.put(100, NAMES[6], CONTENTS[2]);
        world
    }

    fn command(&self, step: &Step) -> Command {
        match step {
            Step::Epoch | Step::WrongEpoch => Command::MasterEpoch { replica: 2, genesis: None },
            Step::Session(session, claim) => create_session(*session, Role::Client, *claim),
            Step::Proxy(proxy) => create_session(*proxy, Role::Proxy, 1),
            Step::End(session, cause) => Command::EndSession { session: id(*session), cause: *cause },
            Step::EndClient(session, via, claim, cause) => Command::EndClient {
                session: id(*session),
                via: id(*via),
                claim: Claim(*claim),
                cause: *cause,
            },
            Step::Settle(session, below) => Command::Settle(vec![(id(*session), RequestNumber(*below))]),
            Step::EndDelay(which) => {
                let delayed = self.state.delayed_locks().nth(*which);
                let (name, instance, began, _) = delayed.unwrap_or((name(FILE), Instance(0), 0, DELAY));
                Command::EndLockDelay { name, instance, began }
            }
            Step::OrphanEnd(which) => {
                let (session, orphaned_at) = self.state.orphans().nth(*which).unwrap_or((id(1), 0));
                Command::OrphanEnd { session, orphaned_at }
            }
            Step::Claim(session, via, claim) => {
                Command::ClaimClient { session: id(*session), via: id(*via), claim: Claim(*claim) }
            }
            Step::Forget(ago) => Command::Forget { since: self.state.index().saturating_sub(*ago) },
            Step::Reap(which) => {
                let abandoned = self.state.abandoned().nth(*which);
                let (name, instance) = abandoned.unwrap_or((name(NAMES[*which]), Instance(*which as u64)));
                Command::Reap { name, instance }
            }
            Step::RaiseLeaseMax(seconds) => Command::RaiseLeaseMax(Duration::from_secs(*seconds)),
            Step::TakeChecksum => Command::TakeChecksum,
            Step::CompareChecksum => {
                let (index, checksum) = self.checksums.last().copied().unwrap_or_default();
                Command::CompareChecksum { index, checksum }
            }
            Step::Write(speaker, number, settled_below, act, place, opened_by) => {
                client_write(*speaker, *number, *settled_below, self.act(*act, NAMES[*place], *opened_by))
            }
            Step::Guarded(speaker, number, act, place, stands) => {
                let write = client_write(*speaker, *number, 0, self.act(*act, NAMES[*place], 1));
                let Command::ClientWrite(mut write) = write else { unreachable!() };
                let node = self.state.node(&name(FILE));
                write.guard = node.map(|node| Guard {
                    name: name(FILE),
                    instance: node.instance,
                    mode: node.lock.mode().unwrap_or(LockMode::Shared),
                    lock_generation: if *stands { node.lock_generation } else { Generation(0) },
                });
                Command::ClientWrite(write)
            }
        }
    }

    fn act(&self, act: Act, text: &str, opened_by: u64) -> Write {
        let holder = self.handle(text, opened_by);
        match act {
            Act::Create(kind, must, ephemeral, contents) => create_with(text, kind, |create| {
                let is_file = kind == NodeKind::File;
                let contents = if is_file { CONTENTS[contents].as_bytes() } else { b"" };
                (create.must, create.ephemeral) = (must, ephemeral);
                create.contents = Bytes::from_static(contents);
            }),
            Act::OpenEphemeral(r#use) => Write::OpenEphemeral { holder, r#use },
            Act::Set(if_generation, contents) => Write::SetContents {
                holder,
                contents: Bytes::from_static(CONTENTS[contents].as_bytes()),
                if_generation: if_generation.map(Generation),
            },
            Act::SetAcl(read, write, change) => Write::SetAcl {
                holder,
                acls: acls(ACLS[read], ACLS[write], ACLS[change]),
                if_generation: None,
            },
            Act::Delete => Write::Delete { holder },
            Act::Acquire(mode) => Write::Acquire { holder, mode },
            Act::Release => Write::Release { holder },
            Act::Close => Write::CloseHandle { holder },
        }
    }

    fn step(&mut self, step: &Step) -> Outcome {
        let command = self.command(step);
        match step {
            Step::WrongEpoch => {
                let epoch = self.state.epoch().next();
                self.apply(LogEntry { epoch, commands: vec![command] }).remove(0)
            }
            Step::TakeChecksum => {
                let outcome = self.run(command);
                let Outcome::ChecksumTaken { index, checksum } = outcome else { panic!("{outcome:?}") };
                self.checksums.push((index, checksum));
                outcome
            }
            Step::CompareChecksum => {
                let outcome = self.run(command);
                assert_eq!(outcome, Outcome::Noted, "a replica agrees with itself");
                outcome
            }
            _ => self.run(command),
        }
    }
}

proptest! {
    /// Invariants after each step; encode and decode; replay; snapshot in the middle; clones stand still.
    #[test]
    fn every_history_can_be_replayed_and_resumed(
        steps in prop::collection::vec(step(), 1..120),
        cut in 0..120_usize,
    ) {
        let mut world = World::ruled();
        let mut before_cut = (world.state.clone(), world.state.checksum(), world.log.len());
        for (place, step) in steps.iter().enumerate() {
            let before = world.state.clone();
            let outcome = world.step(step);
            if let Step::Write(speaker, number, ..) = step {
                let (client, number) = (id(speaker.session), RequestNumber(*number));
                let kept = world.state.answered(client, number);
                let is_kept = kept.is_some_and(|kept| kept.outcome == outcome);
                prop_assert!(is_kept || outcome.is_transient() || is_settled(&outcome));
                if let Some(kept) = kept {
                    let first = before.answered(client, number).map(|kept| kept.position.clone());
                    prop_assert_eq!(&kept.position, &first.unwrap_or_else(|| world.state.position()));
                }
            }
            if place == cut {
                before_cut = (world.state.clone(), world.state.checksum(), world.log.len());
            }
        }

        let (clone, checksum, applied) = before_cut;
        prop_assert_eq!(clone.checksum(), checksum);
        let mut resumed = State::from_snapshot(clone.write_snapshot().into_iter()).expect("a good snapshot");
        let mut replayed = State::default();
        for (place, entry) in world.log.iter().enumerate() {
            let decoded = LogEntry::decode(&entry.encode()).expect("a good entry");
            prop_assert_eq!(&decoded, entry);
            let outcomes = replayed.apply(&decoded);
            if place >= applied {
                prop_assert_eq!(resumed.apply(&decoded), outcomes);
            }
        }
        for other in [resumed, replayed] {
            prop_assert!(other == world.state);
            prop_assert_eq!(other.checksum(), world.state.checksum());
        }
    }

    /// P-SEQ: what a name shows of one kind of number never falls, through delete and re-create.
    #[test]
    fn numbers_of_a_name_never_fall(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::ruled();
        let mut highest: BTreeMap<&str, [u64; 4]> = BTreeMap::new();
        for step in &steps {
            world.step(step);
            for text in NAMES {
                let Some(node) = world.state.node(&name(text)) else { continue };
                let seen = highest.entry(text).or_default();
                let (instance, content) = (node.instance.0, node.content_generation.0);
                let now = [instance, content, node.lock_generation.0, node.acl_generation.0];
                prop_assert!(now[0] >= seen[0] && now[1] >= seen[1] && now[2] >= seen[2] && now[3] >= seen[3]);
                *seen = now;
            }
        }
    }

    /// An ephemeral node is abandoned exactly while the model says so, and only then it is reaped.
    #[test]
    fn ephemeral_nodes_are_those_of_the_naive_model(
        steps in prop::collection::vec((1..4_u8, 0..OPENED.len(), open_step()), 1..100),
    ) {
        let mut world = World::new();
        for session in 1..4 {
            world.session(session, Role::Client);
        }
        let mut model = Opened::default();
        for (session, place, step) in steps {
            model.check(&mut world, session, OPENED[place], step);
        }
    }

    /// P-LOCK, P-DELAY against the model.
    #[test]
    fn locks_are_those_of_the_naive_model(
        steps in prop::collection::vec((1..4_u8, 1..3_u64, lock_step()), 1..80),
    ) {
        let mut world = World::new();
        for session in 1..4 {
            world.session(session, Role::Client);
        }
        world.file(1, FILE);
        let mut model = Model::default();
        for (session, opened_by, step) in steps {
            model.check(&mut world, session, opened_by, step);
        }
    }
}

fn is_settled(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(error) if error.detail.contains("settled"))
}

#[derive(Clone, Copy, Debug)]
enum LockStep {
    Acquire(LockMode),
    Release,
    Close,
    /// The session ends, and another of the same id begins.
    End(EndCause),
    EndDelay(usize),
    Recreate,
}

fn lock_step() -> impl Strategy<Value = LockStep> {
    prop_oneof![
        8 => mode().prop_map(LockStep::Acquire),
        3 => Just(LockStep::Release),
        1 => Just(LockStep::Close),
        2 => cause().prop_map(LockStep::End),
        3 => (0..3_usize).prop_map(LockStep::EndDelay),
        1 => Just(LockStep::Recreate),
    ]
}

/// One lock as two lists.
#[derive(Debug, Default)]
struct Model {
    /// Session, handle, mode.
    holders: Vec<(u8, u64, LockMode)>,
    /// Commands that began a lock-delay, one for each holder lost.
    marks: Vec<u64>,
}

/// What the model says of an acquisition.
#[derive(Debug, PartialEq)]
enum Verdict {
    Acquired,
    Held,
    HeldBySelf,
    Delayed,
}

impl Model {
    fn acquire(&mut self, session: u8, opened_by: u64, mode: LockMode) -> Verdict {
        let own = self.holders.iter().find(|holder| (holder.0, holder.1) == (session, opened_by));
        if let Some((_, _, held)) = own {
            return if *held == mode { Verdict::Acquired } else { Verdict::HeldBySelf };
        }
        let conflicts =
            |held: &(u8, u64, LockMode)| mode == LockMode::Exclusive || held.2 == LockMode::Exclusive;
        if self.holders.iter().any(conflicts) {
            return Verdict::Held;
        }
        if self.holders.is_empty() && !self.marks.is_empty() {
            return Verdict::Delayed;
        }
        self.holders.push((session, opened_by, mode));
        Verdict::Acquired
    }

    fn remove(&mut self, session: u8, opened_by: u64) -> bool {
        let before = self.holders.len();
        self.holders.retain(|holder| (holder.0, holder.1) != (session, opened_by));
        self.holders.len() < before
    }

    fn check(&mut self, world: &mut World, session: u8, opened_by: u64, step: LockStep) {
        let holder = world.handle(FILE, opened_by);
        match step {
            LockStep::Acquire(mode) => {
                let generation = world.lock_generation(FILE);
                let was_free = self.holders.is_empty();
                let verdict = match world.acquire(own(session), FILE, opened_by, mode) {
                    Outcome::Acquired { lock_generation, is_first } => {
                        assert_eq!(lock_generation > generation, was_free, "grows only from free to held");
                        assert_eq!(is_first, was_free);
                        Verdict::Acquired
                    }
                    Outcome::LockHeld => Verdict::Held,
                    Outcome::LockDelayed { .. } => Verdict::Delayed,
                    Outcome::Failed(_) => Verdict::HeldBySelf,
                    other => panic!("{other:?}"),
                };
                assert_eq!(verdict, self.acquire(session, opened_by, mode));
            }
            LockStep::Release => {
                let released = world.write(own(session), Write::Release { holder }) == Outcome::Released;
                assert_eq!(released, self.remove(session, opened_by));
            }
            LockStep::Close => {
                world.write(own(session), Write::CloseHandle { holder });
                self.remove(session, opened_by);
            }
            LockStep::End(cause) => {
                world.end(session, cause);
                let began = world.state.index();
                world.forget();
                world.session(session, Role::Client);
                while let Some(place) = self.holders.iter().position(|holder| holder.0 == session) {
                    self.holders.remove(place);
                    if cause == EndCause::Failed {
                        self.marks.push(began);
                    }
                }
            }
            LockStep::EndDelay(which) => {
                let began = self.marks.get(which).copied().unwrap_or(0);
                world.run(Command::EndLockDelay { name: name(FILE), instance: holder.instance, began });
                self.marks.retain(|mark| *mark != began);
            }
            LockStep::Recreate => {
                world.write(own(session), Write::Delete { holder });
                world.file(session, FILE);
                *self = Self::default();
            }
        }
        self.compare(world);
    }

    fn compare(&mut self, world: &World) {
        let lock = &world.node(FILE).lock;
        self.holders.sort();
        let held =
            lock.holders().map(|(it, _)| (it.session.0[0], it.opened_by.0, lock.mode().expect("held")));
        assert_eq!(held.collect::<Vec<_>>(), self.holders);
        self.marks.dedup();
        let running: Vec<u64> = lock.delays().map(|(began, _)| began).collect();
        assert_eq!(running, self.marks);
    }
}

/// A directory, and what is in it.
const OPENED: [&str; 3] = ["/ls/dev/d", "/ls/dev/d/d", "/ls/dev/d/d/f"];

#[derive(Clone, Copy, Debug)]
enum OpenStep {
    Create(bool),
    Open,
    /// The first handle of the session, if there is one.
    Close,
    Delete,
    End(EndCause),
    Reap,
}

fn open_step() -> impl Strategy<Value = OpenStep> {
    prop_oneof![
        5 => prop::bool::weighted(0.7).prop_map(OpenStep::Create),
        3 => Just(OpenStep::Open),
        4 => Just(OpenStep::Close),
        1 => Just(OpenStep::Delete),
        2 => cause().prop_map(OpenStep::End),
        3 => Just(OpenStep::Reap),
    ]
}

/// Session, request.
type OpenHandle = (u8, u64);

/// Nodes as a map to lists of handles.
#[derive(Debug, Default)]
struct Opened {
    /// Whether it is ephemeral, and the handles.
    nodes: BTreeMap<&'static str, (bool, Vec<OpenHandle>)>,
}

impl Opened {
    fn is_childless(&self, text: &str) -> bool {
        !self.nodes.keys().any(|other| other.len() > text.len() && other.starts_with(text))
    }

    fn is_abandoned(&self, text: &str) -> bool {
        let is_unopened = |(ephemeral, handles): &(bool, Vec<_>)| *ephemeral && handles.is_empty();
        self.nodes.get(text).is_some_and(is_unopened) && self.is_childless(text)
    }

    fn check(&mut self, world: &mut World, session: u8, text: &'static str, step: OpenStep) {
        let holder = world.handle(text, world.numbers.get(&session).map_or(1, |number| number + 1));
        let number = holder.opened_by.0;
        let parent_is_there = text == OPENED[0] || self.nodes.contains_key(&text[..text.len() - 2]);
        match step {
            OpenStep::Create(ephemeral) => {
                let kind = if text == OPENED[2] { NodeKind::File } else { NodeKind::Directory };
                world.write(own(session), create_with(text, kind, |create| create.ephemeral = ephemeral));
                if parent_is_there && !self.nodes.contains_key(text) {
                    let handles = if ephemeral { vec![(session, number)] } else { vec![] };
                    self.nodes.insert(text, (ephemeral, handles));
                }
            }
            OpenStep::Open => {
                world.write(own(session), Write::OpenEphemeral { holder, r#use: Use::Read });
                if let Some((true, handles)) = self.nodes.get_mut(text) {
                    handles.push((session, number));
                }
            }
            OpenStep::Close => {
                let handles = self.nodes.get_mut(text).map(|(_, handles)| handles);
                let Some(handles) = handles else { return };
                let Some(place) = handles.iter().position(|handle| handle.0 == session) else { return };
                let (_, opened_by) = handles.remove(place);
                let holder = world.handle(text, opened_by);
                world.write(own(session), Write::CloseHandle { holder });
            }
            OpenStep::Delete => {
                // Through a handle that the session has, as the state refuses others.
                let handle = match self.nodes.get(text) {
                    Some((true, handles)) => handles.iter().find(|handle| handle.0 == session),
                    Some((false, _)) => Some(&(session, 1)),
                    None => None,
                };
                let Some((_, opened_by)) = handle else { return };
                let is_deleted = world.delete(own(session), text, *opened_by) == Outcome::Deleted;
                assert_eq!(is_deleted, self.is_childless(text));
                if is_deleted {
                    self.nodes.remove(text);
                }
            }
            OpenStep::End(cause) => {
                world.end(session, cause);
                world.forget();
                world.session(session, Role::Client);
                for (_, handles) in self.nodes.values_mut() {
                    handles.retain(|handle| handle.0 != session);
                }
            }
            OpenStep::Reap => {
                let reap = Command::Reap { name: name(text), instance: holder.instance };
                let deleted = self.is_abandoned(text);
                assert_eq!(world.run(reap), Outcome::Reaped { deleted });
                if deleted {
                    self.nodes.remove(text);
                }
            }
        }
        let abandoned: Vec<String> = world.state.abandoned().map(|(name, _)| name.to_string()).collect();
        let expected: Vec<&str> = OPENED.into_iter().filter(|text| self.is_abandoned(text)).collect();
        assert_eq!(abandoned, expected);
        for text in OPENED {
            assert_eq!(world.state.node(&name(text)).is_some(), self.nodes.contains_key(text));
        }
    }
}

/// Two thirds of the steps are of the log as ever; the others begin a change of the map, pack, and give it up.
#[derive(Clone, Debug)]
enum Moving {
    Step(Step),
    Begin(usize),
    Pack,
    GiveUp,
}

/// What may go to the other cell.
const LEAVES: [&str; 3] = ["/ls/dev/d", "/ls/dev/f", "/ls/dev/*"];

fn moving() -> impl Strategy<Value = Moving> {
    prop_oneof![
        20 => step().prop_map(Moving::Step),
        4 => (0..LEAVES.len()).prop_map(Moving::Begin),
        4 => Just(Moving::Pack),
        2 => Just(Moving::GiveUp),
    ]
}

/// What is there of each of the names: all but whom a lock was lost by and since when.
fn seen(world: &World) -> Vec<Option<(hasp_proto::node::Stat, Bytes)>> {
    let seen = |text: &&str| world.state.node(&name(text)).map(|node| (node.stat(), node.contents.clone()));
    NAMES.iter().map(seen).collect()
}

proptest! {
    /// `move-2`: whatever happens while something is packed, it comes back as it went, and the state goes on as it should.
    #[test]
    fn what_was_packed_comes_back_whatever_happens_meanwhile(
        steps in prop::collection::vec(moving(), 1..120),
    ) {
        use hasp_proto::crossing::CrossOp;

        let mut world = World::ruled();
        let mut packed: Option<Vec<_>> = None;
        for step in &steps {
            let version = world.state.map().version;
            match step {
                Moving::Step(step) => drop(world.step(step)),
                Moving::Begin(which) => {
                    let text = world.state.map().unchanged().to_text();
                    let text = format!("{text}next {} b\n", LEAVES[*which]);
                    world.put(100, "/ls/dev/.hasp/partitions", &text);
                }
                Moving::Pack if world.state.map().change().is_some() && packed.is_none() => {
                    let before = seen(&world);
                    let leaves: Vec<_> = NAMES.iter().map(|text| world.state.map().moves(&name(text))).collect();
                    match world.run(Command::Cross(CrossOp::Pack { version })) {
                        Outcome::Noted => {}
                        // Somebody holds something of it who could not follow: all is as it was.
                        outcome => {
                            let is_held = matches!(&outcome, Outcome::Failed(error) if error.code == ErrorCode::LockHeld);
                            prop_assert!(is_held, "{:?}", outcome);
                            prop_assert!(seen(&world) == before && !world.state.has_packed());
                            continue;
                        }
                    }
                    let gone = seen(&world).into_iter().zip(&leaves).all(|(it, leaves)| it.is_none() || !leaves);
                    prop_assert!(gone && world.state.has_packed());
                    packed = Some(before.into_iter().zip(leaves).collect());
                }
                Moving::GiveUp if world.state.map().change().is_some() => {
                    let why = String::new();
                    world.run(Command::Cross(CrossOp::GiveUp { version, why }));
                    let announced = CrossOp::Announced { version: version + 1 };
                    world.run(Command::Cross(announced));
                    for (now, (before, has_left)) in seen(&world).into_iter().zip(packed.take().unwrap_or_default()) {
                        prop_assert!(!has_left || now == before, "{now:?} was {before:?}");
                    }
                }
                Moving::Pack | Moving::GiveUp => {}
            }
        }

        let restored = State::from_snapshot(world.state.write_snapshot().into_iter()).expect("a good snapshot");
        prop_assert!(restored == world.state);
        let mut replayed = State::default();
        for entry in &world.log {
            let decoded = LogEntry::decode(&entry.encode()).expect("a good entry");
            prop_assert_eq!(&decoded, entry);
            replayed.apply(&decoded);
        }
        prop_assert!(replayed == world.state);
    }
}
