//! `move-1` to `move-4`: what goes from cell to cell while a rule of the map changes. Cell `a` is the home cell.

use hasp_proto::crossing::{Chore, CrossOp, Need};
use hasp_proto::node::Stat;

use super::*;

mod clients;
mod roots;
mod steps;

const PARTITIONS: &str = "/ls/dev/.hasp/partitions";
/// A directory, what is in it, and something beside it.
const P: &str = "/ls/dev/p";
const P_FILE: &str = "/ls/dev/p/f";
const P_DEEP: &str = "/ls/dev/p/d/e/f";
/// All is `a`'s.
const ONE: &[(&str, &str)] = &[("/ls/dev", "a")];
const ROUTER: u8 = 9;

/// The client behind the router.
fn client() -> Speaker {
    through(5, ROUTER, 1)
}

fn goes(version: u64) -> Outcome {
    Outcome::Needs(Need::Map(version))
}

/// Some cells with one map, the same router in each of them, and one count of the numbers of each client.
struct Cells {
    worlds: BTreeMap<&'static str, World>,
    numbers: BTreeMap<u8, u64>,
}

/// What of a node has to be the same everywhere. Of lock-delays it is how long they last.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    stat: Stat,
    contents: Bytes,
    mode: Option<LockMode>,
    holders: Vec<(HolderId, Duration)>,
    delays: Vec<(HolderId, DelayMark)>,
    handles: Vec<HolderId>,
}

impl Seen {
    fn of(node: &Node) -> Self {
        Self {
            stat: node.stat(),
            contents: node.contents.clone(),
            mode: node.lock.mode(),
            holders: node.lock.holders().collect(),
            delays: node.lock.marks().map(|((_, holder), mark)| (holder, mark)).collect(),
            handles: node.handles.iter().copied().collect(),
        }
    }
}

impl Cells {
    /// Cells `a` and `b`.
    fn new(rules: &[(&str, &str)]) -> Self {
        Self::named(&["a", "b"], rules)
    }

    fn named(names: &[&'static str], rules: &[(&str, &str)]) -> Self {
        let cells: BTreeMap<_, _> = names.iter().map(|cell| (CellName::new(cell), vec![])).collect();
        let map = PartitionMap::new(1, "dev", rules.iter().copied(), cells).expect("a good map");
        let found = |cell: &&'static str| {
            let handle_key = HandleKey::new(Bytes::copy_from_slice(&[cell.as_bytes()[0]; 32]));
            let mut world =
                World::founded(Genesis { cell: CellName::new(cell), map: map.clone(), handle_key });
            world.session(1, Role::Client);
            world.session(ROUTER, Role::Router);
            (*cell, world)
        };
        Self { worlds: names.iter().map(found).collect(), numbers: BTreeMap::new() }
    }

    fn of(&mut self, cell: &str) -> &mut World {
        self.worlds.get_mut(cell).expect("one of the cells")
    }

    fn a(&mut self) -> &mut World {
        self.of("a")
    }

    fn b(&mut self) -> &mut World {
        self.of("b")
    }

    /// A write under the client's next number.
    fn write(&mut self, cell: &str, speaker: Speaker, write: Write) -> Outcome {
        let number = self.numbers.entry(speaker.session).or_insert(0);
        *number += 1;
        let number = *number;
        self.of(cell).write_as(speaker, number, 0, write)
    }

    fn create(&mut self, cell: &str, text: &str, kind: NodeKind) -> Instance {
        created(&self.write(cell, client(), create(text, kind)))
    }

    fn put(&mut self, cell: &str, text: &str, contents: &str) {
        let make = create_with(text, NodeKind::File, |create| create.contents = contents.to_owned().into());
        created(&self.write(cell, client(), make));
    }

    fn acquire(&mut self, cell: &str, speaker: Speaker, text: &str, opened_by: u64) -> Outcome {
        let holder = self.of(cell).handle(text, opened_by);
        self.write(cell, speaker, Write::Acquire { holder, mode: LockMode::Exclusive })
    }

    /// Asked as routers do. Whatever comes of it, a snapshot loses nothing.
    fn cross(&mut self, cell: &str, op: CrossOp) -> Outcome {
        let world = self.of(cell);
        let outcome = world.run(Command::Cross(op));
        check_snapshot(&world.state);
        outcome
    }

    fn version(&mut self) -> u64 {
        self.a().state.map().version
    }

    /// Into the file, as the line `next RULE`.
    fn write_change(&mut self, rule: &str) -> Outcome {
        let text = format!("{}next {rule}\n", self.a().state.map().unchanged().to_text());
        let outcome = self.a().put(1, PARTITIONS, &text);
        check_snapshot(&self.a().state);
        outcome
    }

    fn adopt(&mut self, cell: &str) -> Outcome {
        let map = self.a().state.map().clone();
        self.cross(cell, CrossOp::Adopt(map))
    }

    fn adopt_all(&mut self) {
        let others: Vec<_> = self.worlds.keys().copied().filter(|cell| *cell != "a").collect();
        for cell in others {
            assert_eq!(self.adopt(cell), Outcome::Noted, "{cell}");
        }
    }

    /// The change is in the map, and all know of it.
    fn begin(&mut self, rule: &str) {
        let outcome = self.write_change(rule);
        assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
        self.adopt_all();
    }

    fn pack(&mut self, cell: &str) -> Outcome {
        let version = self.version();
        self.cross(cell, CrossOp::Pack { version })
    }

    fn export(&mut self, from: &str, to: &str, part: u64) -> (Bytes, u64) {
        let version = self.version();
        self.of(from).state.export(version, &CellName::new(to), part).expect("packed")
    }

    fn import(&mut self, from: &str, to: &str, part: u64) -> Outcome {
        let version = self.version();
        let (data, parts) = self.export(from, to, part);
        self.cross(to, CrossOp::Import { version, from: CellName::new(from), part, parts, data })
    }

    fn carry(&mut self, from: &str, to: &str) {
        let (_, parts) = self.export(from, to, 0);
        for part in 0..parts {
            assert_eq!(self.import(from, to, part), Outcome::Noted);
        }
    }

    /// All sources have packed, and all destinations have it.
    fn carry_all(&mut self) {
        let journeys = self.a().state.map().journeys();
        for (from, _) in &journeys {
            assert_eq!(self.pack(from.as_str()), Outcome::Noted);
        }
        for (from, to) in &journeys {
            self.carry(from.as_str(), to.as_str());
        }
    }

    fn finish(&mut self) -> Outcome {
        let version = self.version();
        self.cross("a", CrossOp::Finish { version })
    }

    fn give_up(&mut self) -> Outcome {
        let version = self.version();
        self.cross("a", CrossOp::GiveUp { version, why: "for a test".into() })
    }

    /// Home decides, all others hear of it, and home knows that they did.
    fn done(&mut self) {
        assert!(matches!(self.finish(), Outcome::Written { .. }));
        self.announce();
    }

    fn undone(&mut self) {
        assert!(matches!(self.give_up(), Outcome::Written { .. }));
        self.announce();
    }

    fn announce(&mut self) {
        self.adopt_all();
        let version = self.version();
        assert_eq!(self.cross("a", CrossOp::Announced { version }), Outcome::Noted);
        let is_left = |chore: &Chore| matches!(chore, Chore::Move(_) | Chore::Announce(_));
        assert!(!self.a().state.chores().iter().any(is_left));
    }

    /// From the first step to the last.
    fn move_all(&mut self, rule: &str) {
        self.begin(rule);
        self.carry_all();
        self.done();
    }

    /// What is below the directory in that cell.
    fn seen(&mut self, cell: &str, directory: &str) -> BTreeMap<String, Seen> {
        let directory = name(directory);
        let nodes = self.of(cell).state.tree.iter().filter(|(name, _)| name.is_below(&directory));
        nodes.map(|(name, node)| (name.to_string(), Seen::of(node))).collect()
    }
}

fn check_snapshot(state: &State) {
    let again = State::from_snapshot(state.write_snapshot().into_iter()).expect("as it was written");
    again.check_invariants();
    assert!(again == *state, "nothing is lost on the way");
    assert_eq!(again.checksum(), state.checksum());
}

fn end_client(session: u8, cause: EndCause) -> Command {
    Command::EndClient { session: id(session), via: id(ROUTER), claim: Claim(1), cause }
}

/// Something of everything below [`P`], all `a`'s, and something beside it.
fn filled() -> Cells {
    let mut cells = Cells::new(ONE);
    for directory in [P, "/ls/dev/p/d", "/ls/dev/p/d/e", "/ls/dev/q"] {
        cells.create("a", directory, NodeKind::Directory);
    }
    cells.put("a", P_FILE, "of p");
    cells.put("a", P_DEEP, "of e");
    cells.put("a", "/ls/dev/q/f", "of q");
    let acls = acls("everyone", "everyone", "everyone");
    let holder = cells.a().handle("/ls/dev/p/d", 1);
    let as_admin = Speaker { principal: "admin", ..client() };
    cells.write("a", as_admin, Write::SetAcl { holder, acls, if_generation: None });
    let holder = cells.a().handle(P_DEEP, 1);
    cells.write("a", client(), set(holder, "again"));
    assert_acquired(&cells.acquire("a", client(), P_FILE, 1));
    let ephemeral = create_with("/ls/dev/p/t", NodeKind::File, |create| create.ephemeral = true);
    created(&cells.write("a", client(), ephemeral));
    cells
}

#[test]
fn what_moves_is_in_the_other_cell_as_it_was() {
    let mut cells = filled();
    let (before, beside) = (cells.seen("a", P), cells.seen("a", "/ls/dev/q"));
    assert_eq!(before.len(), 5);

    cells.move_all("/ls/dev/p b");

    assert_eq!(cells.seen("b", P), before);
    assert!(cells.seen("a", P).is_empty(), "the source has forgotten it");
    assert_eq!(cells.seen("a", "/ls/dev/q"), beside);
    assert!(cells.a().state.node(&name(P)).is_some(), "the directory itself stays with its parent's cell");
    created(&cells.write("b", client(), create("/ls/dev/p/d/new", NodeKind::File)));
    let here = cells.write("a", client(), create("/ls/dev/p/new", NodeKind::File));
    assert_failed(&here, &ErrorCode::WrongCell { map_version: 3 }, "belongs to cell b");
}

#[test]
fn what_has_moved_comes_back_as_it_was() {
    let mut cells = filled();
    let before = cells.seen("a", P);

    cells.move_all("/ls/dev/p b");
    cells.move_all("/ls/dev/p -");

    assert_eq!(cells.seen("a", P), before);
    assert!(cells.seen("b", P).is_empty());
    assert_eq!(cells.b().state.roots().count() + cells.a().state.roots().count(), 0, "nothing is split");
}

#[test]
fn numbers_given_out_at_the_destination_exceed_all_of_the_source() {
    let mut cells = filled();
    for _ in 0..50 {
        let holder = cells.a().handle("/ls/dev/q/f", 1);
        cells.write("a", client(), set(holder, "x"));
    }
    let (before, stamp) = (cells.a().lock_generation(P_FILE), cells.a().state.stamp);
    assert!(cells.b().state.stamp < before.0, "so that it would show");
    cells.begin("/ls/dev/p b");
    cells.carry_all();
    let holder = cells.a().handle("/ls/dev/q/f", 1);
    cells.write("a", client(), set(holder, "after it was packed"));
    cells.done();

    let holder = cells.b().handle(P_FILE, 1);
    assert_eq!(cells.write("b", client(), Write::Release { holder }), Outcome::Released);
    let after = assert_acquired(&cells.acquire("b", client(), P_FILE, 2));

    assert!(after.0 > stamp, "P-SEQ: {after} after {before}");
    let holder = cells.b().handle(P_FILE, 2);
    assert_eq!(cells.write("b", client(), Write::Delete { holder }), Outcome::Deleted);
    assert!(cells.create("b", P_FILE, NodeKind::File).0 > after.0, "instances too");
}

#[test]
fn a_parcel_with_nothing_in_it_brings_the_numbers_of_names_that_are_gone() {
    let mut cells = filled();
    cells.create("a", "/ls/dev/r", NodeKind::Directory);
    cells.put("a", "/ls/dev/r/f", "");
    let generation = assert_acquired(&cells.acquire("a", client(), "/ls/dev/r/f", 1));
    let holder = cells.a().handle("/ls/dev/r/f", 1);
    assert_eq!(cells.write("a", client(), Write::Delete { holder }), Outcome::Deleted);

    cells.move_all("/ls/dev/r b");

    cells.put("b", "/ls/dev/r/f", "");
    assert!(assert_acquired(&cells.acquire("b", client(), "/ls/dev/r/f", 1)) > generation, "P-SEQ");
}

#[test]
fn a_held_lock_is_held_on_by_its_handle_and_its_sequencer_stands() {
    let mut cells = filled();
    let instance = cells.a().node(P_FILE).instance;
    let lock_generation = cells.a().lock_generation(P_FILE);
    let guard = Guard { name: name(P_FILE), instance, mode: LockMode::Exclusive, lock_generation };

    cells.begin("/ls/dev/p b");
    cells.carry_all();
    assert!(!cells.b().state.sequencer_stands(&guard), "not before it is there");
    cells.done();

    assert!(cells.b().state.sequencer_stands(&guard));
    assert!(!cells.a().state.sequencer_stands(&guard), "a's word on it would be out of date soon");
    assert_eq!(cells.acquire("b", through(6, ROUTER, 1), P_FILE, 2), Outcome::LockHeld);
    let again = Outcome::Acquired { lock_generation, is_first: false };
    assert_eq!(cells.acquire("b", client(), P_FILE, 1), again);
    let holder = cells.b().handle(P_FILE, 1);
    assert_eq!(cells.write("b", client(), Write::Release { holder }), Outcome::Released);
    assert!(!cells.b().state.sequencer_stands(&guard));
}

#[test]
fn a_lock_delay_begins_anew_at_the_destination_and_bars_the_lock_there() {
    let mut cells = filled();
    cells.put("a", "/ls/dev/p/g", "");
    assert_acquired(&cells.acquire("a", through(6, ROUTER, 1), "/ls/dev/p/g", 1));
    cells.a().run(end_client(6, EndCause::Failed));
    let began_there = cells.a().state.index();
    assert_eq!(cells.a().delays(), [("/ls/dev/p/g".to_owned(), began_there)]);

    cells.move_all("/ls/dev/p b");

    assert!(cells.a().delays().is_empty());
    let [(_, began)] = &cells.b().delays()[..] else { panic!("one is running") };
    let began = *began;
    assert_eq!(began, cells.b().state.index(), "of the entry by which it came");
    let instance = cells.b().node("/ls/dev/p/g").instance;
    let end_delay = |began| Command::EndLockDelay { name: name("/ls/dev/p/g"), instance, began };
    let barred = Outcome::LockDelayed { longest: DELAY };
    cells.b().run(end_delay(began_there));
    assert_eq!(cells.acquire("b", client(), "/ls/dev/p/g", 2), barred, "a's index says nothing at b");
    cells.b().run(end_delay(began));
    assert_acquired(&cells.acquire("b", client(), "/ls/dev/p/g", 2));
}

#[test]
fn an_ephemeral_node_stays_as_long_as_it_is_open_wherever_it_is() {
    let mut cells = filled();
    let opened_by = cells.numbers[&5];

    cells.move_all("/ls/dev/p b");

    assert_eq!(cells.b().state.abandoned().count(), 0);
    assert!(cells.a().state.client(id(5)).is_some_and(|record| record.opens().count() == 0));
    let holder = cells.b().handle("/ls/dev/p/t", opened_by);
    assert_eq!(cells.write("b", client(), Write::CloseHandle { holder }), Outcome::Closed);
    assert_eq!(cells.b().state.abandoned().map(|(name, _)| name).collect::<Vec<_>>(), [name("/ls/dev/p/t")]);
}

#[test]
fn usage_is_that_of_what_is_there() {
    let mut cells = filled();
    let quota = "/ls/dev/p nodes=5\n/ls/dev nodes=50\n";
    cells.a().put(1, "/ls/dev/.hasp/quotas", quota);
    let full = cells.write("a", client(), create("/ls/dev/p/new", NodeKind::File));
    assert_failed(&full, &ErrorCode::QuotaExceeded, "/ls/dev/p");

    cells.begin("/ls/dev/p b");
    cells.carry_all();
    cells.undone();

    let full = cells.write("a", client(), create("/ls/dev/p/new", NodeKind::File));
    assert_failed(&full, &ErrorCode::QuotaExceeded, "/ls/dev/p");
}
