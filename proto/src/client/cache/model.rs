//! The cache against a master of a few lines that keeps `cache-1`, over a network that delays and
//! reorders everything and delivers answers again: whatever a cache would serve is always what the
//! master has committed last. And that each of the rules is needed: without the floor, the ticket, or
//! the time in which an item may not be cached, this test finds something stale.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Generation, RequestNumber};
use crate::node::{NodeKind, checksum};

use super::*;

const PRINCIPALS: [&str; 2] = ["alice", "bob"];
const CACHES: usize = 2;
const STEPS: usize = 250;
const SEEDS: u64 = 400;

/// Which rule is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Floors of invalidations are of no effect.
    NoFloor,
    /// Tickets are taken when the answer arrives.
    NoTicket,
    /// An item may be cached while its change waits.
    NoWindow,
    /// Items stay when they are invalidated.
    NoInvalidation,
    /// An acknowledgement is not waited for.
    NoWait,
}

/// Numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.below(all.len())].clone())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    stat: Stat,
    contents: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    SetContents,
    Create,
    Delete,
    SetAcl,
    Acquire,
    /// Who is in the ACL `readers`.
    Members,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Contents,
    Stat,
    Listing,
}

struct Round {
    write: Write,
    file: Name,
    items: Vec<Item>,
    waiting: BTreeSet<usize>,
}

#[derive(Clone)]
struct Told {
    round: u64,
    epoch: Epoch,
    items: Vec<Item>,
    floor: Position,
}

/// What is asked, by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    id: u64,
    /// Under which of its holder's leases.
    lease: u64,
    read: Read,
    name: Name,
    principal: &'static str,
}

impl Asked {
    /// Whether the answer to `other` may come as the answer to this: to itself always; to the same
    /// question from whoever on the way kept it under the same lease.
    fn may_be_answered_as(&self, other: &Asked) -> bool {
        let asked = |asked: &Asked| (asked.lease, asked.read, asked.name.clone(), asked.principal);
        self.id == other.id || asked(self) == asked(other)
    }
}

/// One cache, and what is on its way to it, in no order.
struct Holder {
    cache: Cache,
    has_lease: bool,
    leases: u64,
    asked: Vec<(Asked, FillTicket)>,
    answers: Vec<(Asked, Answer)>,
    told: Vec<Told>,
    fail_overs: Vec<Epoch>,
}

struct World {
    fault: Fault,
    chance: Chance,
    epoch: Epoch,
    index: u64,
    numbers: u64,
    files: BTreeMap<Name, Node>,
    members: BTreeSet<&'static str>,
    registered: BTreeSet<(usize, Item)>,
    rounds: BTreeMap<u64, Round>,
    /// Have not dealt with the fail-over yet.
    suspects: BTreeSet<usize>,
    /// Whose lease is over by the master's clock, too.
    ended: BTreeSet<usize>,
    holders: Vec<Holder>,
    /// Of listings, metadata, contents and absences.
    hits: [usize; 4],
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("good")
}

fn directory() -> Name {
    name("/ls/dev/d")
}

fn acls(read: &str) -> AclNames {
    AclNames { read: read.into(), ..AclNames::default() }
}

impl World {
    fn new(seed: u64, fault: Fault) -> Self {
        let holder = || Holder {
            cache: Cache::new(3_000),
            has_lease: true,
            leases: 0,
            asked: Vec::new(),
            answers: Vec::new(),
            told: Vec::new(),
            fail_overs: Vec::new(),
        };
        Self {
            fault,
            chance: Chance(seed),
            epoch: Epoch(1),
            index: 0,
            numbers: 0,
            files: BTreeMap::new(),
            members: BTreeSet::from(PRINCIPALS),
            registered: BTreeSet::new(),
            rounds: BTreeMap::new(),
            suspects: BTreeSet::new(),
            ended: BTreeSet::new(),
            holders: (0..CACHES).map(|_| holder()).collect(),
            hits: [0; 4],
        }
    }

    fn position(&self) -> Position {
        Position { cell: CellName::new("a"), epoch: self.epoch, index: self.index }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn any_file(&mut self) -> Name {
        self.chance.pick(&["/ls/dev/d/f", "/ls/dev/d/g"]).map(name).expect("some")
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..15 => self.begin_write(),
            15..45 => self.ask(),
            45..70 => self.deliver_answer(),
            70..82 => self.deliver_told(),
            82..88 => self.commit_any(),
            88..91 => self.index += 1,
            91..95 => self.lease(),
            95..98 => self.deliver_fail_over(),
            _ => self.fail_over(),
        }
    }

    fn begin_write(&mut self) {
        let file = self.any_file();
        let exists = self.files.contains_key(&file);
        let writes = match exists {
            true => [Write::SetContents, Write::Delete, Write::SetAcl, Write::Acquire, Write::Members],
            false => [Write::Create, Write::Create, Write::Create, Write::Create, Write::Members],
        };
        let write = self.chance.pick(&writes).expect("some");
        let items = items_of(write, &file);
        let floor = match self.fault {
            Fault::NoFloor => Position { index: 0, epoch: Epoch(0), ..self.position() },
            _ => self.position(),
        };
        let round = self.number();
        let mut waiting = BTreeSet::new();
        for holder in 0..CACHES {
            let held = |item: &&Item| self.registered.contains(&(holder, (*item).clone()));
            let held: Vec<Item> = items.iter().filter(held).cloned().collect();
            if !held.is_empty() {
                self.registered.retain(|(other, item)| *other != holder || !held.contains(item));
                let told = Told { round, epoch: self.epoch, items: held, floor: floor.clone() };
                self.holders[holder].told.push(told);
                waiting.insert(holder);
            }
            // Whoever was told of an item by an earlier round, and has not acknowledged, may hold it.
            let earlier = self.rounds.values().any(|other| {
                other.waiting.contains(&holder) && other.items.iter().any(|item| items.contains(item))
            });
            if earlier {
                waiting.insert(holder);
            }
        }
        if self.fault == Fault::NoWait {
            waiting.clear();
        }
        self.rounds.insert(round, Round { write, file, items, waiting });
    }

    fn commit_any(&mut self) {
        if !self.suspects.is_empty() {
            return;
        }
        // A later round waits for an earlier one's acknowledgements by itself.
        let ready: Vec<u64> =
            self.rounds.iter().filter(|(_, round)| round.waiting.is_empty()).map(|(id, _)| *id).collect();
        let Some(id) = self.chance.pick(&ready) else { return };
        let round = self.rounds.remove(&id).expect("picked");
        let blocked = self.rounds.values().any(|other| {
            !other.waiting.is_disjoint(&round.waiting)
                && other.items.iter().any(|item| round.items.contains(item))
        });
        assert!(!blocked, "nobody waits");
        self.index += 1;
        self.apply(round.write, &round.file);
    }

    fn apply(&mut self, write: Write, file: &Name) {
        let number = self.number();
        match (write, self.files.get_mut(file)) {
            (Write::SetContents, Some(node)) => {
                node.contents = Bytes::from(number.to_string());
                node.stat.content_generation = Generation(number);
                node.stat.checksum = checksum(&node.contents);
            }
            (Write::SetAcl, Some(node)) => {
                node.stat.acls = acls(if node.stat.acls.read == "readers" { "everyone" } else { "readers" });
                node.stat.acl_generation = Generation(number);
            }
            (Write::Acquire, Some(node)) => node.stat.lock_generation = Generation(number),
            (Write::Delete, Some(_)) => drop(self.files.remove(file)),
            (Write::Create, None) => drop(self.files.insert(file.clone(), new_node(number))),
            (Write::Members, _) => {
                let everybody = self.members.len() == PRINCIPALS.len();
                self.members = PRINCIPALS.into_iter().filter(|who| !everybody || *who == "alice").collect();
            }
            _ => {}
        }
    }

    fn ask(&mut self) {
        let holder = self.chance.below(CACHES);
        let read = self.chance.pick(&[Read::Contents, Read::Stat, Read::Listing]).expect("some");
        let name = if read == Read::Listing { directory() } else { self.any_file() };
        let principal = self.chance.pick(&PRINCIPALS).expect("some");
        let (id, lease) = (self.number(), self.holders[holder].leases);
        let asked = Asked { id, lease, read, name: name.clone(), principal };
        let ticket = self.holders[holder].cache.ticket(name, None);
        let answer = self.answer(holder, &asked);
        let holder = &mut self.holders[holder];
        holder.asked.push((asked.clone(), ticket));
        holder.answers.push((asked, answer));
    }

    fn answer(&mut self, holder: usize, asked: &Asked) -> Answer {
        let result = self.result(asked);
        let mut caches = ItemKinds::NONE;
        let read = match &result {
            Ok(Reply::Contents { stat, .. } | Reply::Stat(stat)) => Some(stat.acls.read.clone()),
            Ok(Reply::Children { acls, .. }) => Some(acls.read.clone()),
            _ => None,
        };
        let kinds: &[ItemKind] = match (&result, asked.read) {
            (Ok(_), Read::Listing) => &[ItemKind::Listing, ItemKind::Acl],
            (Ok(_), _) => &[ItemKind::Data, ItemKind::Lock, ItemKind::Acl],
            (Err(error), _) if error.code == ErrorCode::NotFound => &[ItemKind::Absence],
            (Err(_), _) => &[],
        };
        for kind in kinds.iter().copied() {
            let subject = match (kind, &read) {
                (ItemKind::Acl, Some(read)) => name(&format!("/ls/dev/acl/{read}")),
                _ => asked.name.clone(),
            };
            let item = Item::new(subject, kind);
            let changes = self.rounds.values().any(|round| round.items.contains(&item));
            let may = !changes || self.fault == Fault::NoWindow;
            if may && !self.ended.contains(&holder) {
                self.registered.insert((holder, item));
                caches = caches.with(kind);
            }
        }
        Answer { position: Some(self.position()), caches, ..Answer::plain(RequestNumber(1), result) }
    }

    fn result(&self, asked: &Asked) -> Result<Reply, crate::error::Error> {
        if asked.read == Read::Listing {
            return Ok(Reply::Children { children: self.children(), acls: acls("everyone") });
        }
        let node = self.files.get(&asked.name).ok_or_else(|| ErrorCode::NotFound.because("not there"))?;
        if !self.may_read(&node.stat.acls, asked.principal) {
            return Err(ErrorCode::PermissionDenied.because("no reader"));
        }
        Ok(match asked.read {
            Read::Contents => Reply::Contents { contents: node.contents.clone(), stat: node.stat.clone() },
            Read::Stat | Read::Listing => Reply::Stat(node.stat.clone()),
        })
    }

    fn may_read(&self, acls: &AclNames, principal: &str) -> bool {
        acls.read == "everyone" || self.members.contains(principal)
    }

    fn children(&self) -> Vec<Child> {
        let child = |(name, node): (&Name, &Node)| Child {
            component: name.component().into(),
            stat: Stat { lock_generation: Generation(0), ..node.stat.clone() },
        };
        self.files.iter().map(child).collect()
    }

    /// An answer arrives, and may stay on the way to arrive again.
    fn deliver_answer(&mut self) {
        let index = self.chance.below(CACHES);
        let again = self.chance.below(4) == 0;
        let holder = &mut self.holders[index];
        if holder.answers.is_empty() {
            return;
        }
        let place = self.chance.below(holder.answers.len());
        let (asked, answer) = holder.answers[place].clone();
        let waiting = holder.asked.iter().position(|(waiting, _)| waiting.may_be_answered_as(&asked));
        let Some(waiting) = waiting else { return };
        if !again {
            holder.answers.swap_remove(place);
        }
        let (_, mut ticket) = holder.asked.remove(waiting);
        if self.fault == Fault::NoTicket {
            ticket = holder.cache.ticket(asked.name.clone(), None);
        }
        holder.cache.fill(ticket, asked.principal, &answer);
        holder.cache.shrink(|_| false);
        holder.cache.check_invariants();
    }

    fn deliver_told(&mut self) {
        let index = self.chance.below(CACHES);
        let holder = &mut self.holders[index];
        if holder.told.is_empty() {
            return;
        }
        let told = holder.told.swap_remove(self.chance.below(holder.told.len()));
        if self.fault != Fault::NoInvalidation {
            holder.cache.invalidate(&told.items, &told.floor);
        }
        if told.epoch != self.epoch {
            return;
        }
        // The acknowledgement: of these items, whichever rounds wait for them.
        let still_told = |items: &[Item]| {
            let told = self.holders[index].told.iter().filter(|told| told.epoch == self.epoch);
            told.flat_map(|told| &told.items).any(|item| items.contains(item))
        };
        let done: Vec<u64> = self
            .rounds
            .iter()
            .filter(|(id, round)| **id >= told.round && !still_told(&round.items))
            .map(|(id, _)| *id)
            .collect();
        for id in done {
            self.rounds.get_mut(&id).expect("there").waiting.remove(&index);
        }
    }

    /// A cache lease ends, by its holder's clock first; then by the master's; or it is granted again.
    fn lease(&mut self) {
        let index = self.chance.below(CACHES);
        if self.holders[index].has_lease {
            self.holders[index].has_lease = false;
        } else if !self.ended.contains(&index) && self.chance.below(3) > 0 {
            self.ended.insert(index);
            self.suspects.remove(&index);
            self.registered.retain(|(holder, _)| *holder != index);
            self.rounds.values_mut().for_each(|round| round.waiting.retain(|holder| *holder != index));
            self.holders[index].told.clear();
        } else {
            self.ended.remove(&index);
            self.holders[index].cache.flush_all();
            self.holders[index].has_lease = true;
            self.holders[index].leases += 1;
        }
    }

    fn fail_over(&mut self) {
        self.epoch = self.epoch.next();
        self.index += 1;
        self.registered.clear();
        // What was not committed is asked again by who asked it: here, never.
        self.rounds.clear();
        for (index, holder) in self.holders.iter_mut().enumerate() {
            holder.fail_overs.push(self.epoch);
            if !self.ended.contains(&index) {
                self.suspects.insert(index);
            }
        }
    }

    fn deliver_fail_over(&mut self) {
        let index = self.chance.below(CACHES);
        let holder = &mut self.holders[index];
        if holder.fail_overs.is_empty() {
            return;
        }
        let epoch = holder.fail_overs.remove(0);
        holder.cache.flush_cell(&CellName::new("a"), Some(epoch));
        if epoch == self.epoch {
            self.suspects.remove(&index);
        }
    }

    /// Looks everything up in every cache that may be used; what is stale, if something is.
    fn check(&mut self) -> Result<(), String> {
        for index in 0..CACHES {
            if !self.holders[index].has_lease {
                continue;
            }
            for principal in PRINCIPALS {
                self.check_listing(index, principal)?;
                for file in ["/ls/dev/d/f", "/ls/dev/d/g"].map(name) {
                    self.check_file(index, &file, principal)?;
                }
            }
        }
        Ok(())
    }

    fn check_listing(&mut self, index: usize, principal: &str) -> Result<(), String> {
        let children = self.children();
        let Some(hit) = self.holders[index].cache.listing(&directory(), None, principal) else {
            return Ok(());
        };
        self.hits[0] += 1;
        if hit.value.children[..] == children[..] { Ok(()) } else { Err(format!("listing {hit:?}")) }
    }

    fn check_file(&mut self, index: usize, file: &Name, principal: &str) -> Result<(), String> {
        let node = self.files.get(file).cloned();
        let may = node.as_ref().is_some_and(|node| self.may_read(&node.stat.acls, principal));
        let cache = &mut self.holders[index].cache;
        if let Some(hit) = cache.stat(file, None, principal) {
            self.hits[1] += 1;
            if !may || node.as_ref().map(|node| &node.stat) != Some(&hit.value) {
                return Err(format!("stat of {file} for {principal}: {hit:?}, but it is {node:?}"));
            }
        }
        if let Some(hit) = cache.contents(file, None, principal) {
            self.hits[2] += 1;
            let (contents, stat) = hit.value;
            if !may || node != Some(Node { stat, contents: contents.clone() }) {
                return Err(format!("contents of {file} for {principal}: {contents:?}, but it is {node:?}"));
            }
        }
        if cache.absence(file).is_some() {
            self.hits[3] += 1;
            if node.is_some() {
                return Err(format!("absence of {file}"));
            }
        }
        Ok(())
    }
}

fn new_node(number: u64) -> Node {
    let contents = Bytes::from(number.to_string());
    let stat = Stat {
        kind: NodeKind::File,
        instance: Instance(number),
        content_generation: Generation(number),
        lock_generation: Generation(number),
        acl_generation: Generation(number),
        checksum: checksum(&contents),
        length: contents.len() as u64,
        ephemeral: false,
        acls: acls("readers"),
    };
    Node { stat, contents }
}

/// What a change voids.
fn items_of(write: Write, file: &Name) -> Vec<Item> {
    let of = |kinds: &[ItemKind]| kinds.iter().map(|kind| Item::new(file.clone(), *kind)).collect::<Vec<_>>();
    let mut items = match write {
        Write::SetContents => of(&[ItemKind::Data]),
        Write::Create => of(&[ItemKind::Absence]),
        Write::Delete => of(&[ItemKind::Data, ItemKind::Lock, ItemKind::Listing]),
        Write::SetAcl => of(&[ItemKind::Data, ItemKind::Listing]),
        Write::Acquire => return of(&[ItemKind::Lock]),
        Write::Members => return Vec::from([Item::new(name("/ls/dev/acl/readers"), ItemKind::Acl)]),
    };
    items.push(Item::new(directory(), ItemKind::Listing));
    items
}

/// Runs one history; what was stale, if something was, and how often something was served.
fn run(seed: u64, fault: Fault) -> (Result<(), String>, [usize; 4]) {
    let mut world = World::new(seed, fault);
    for _ in 0..STEPS {
        world.step();
        if let Err(stale) = world.check() {
            return (Err(stale), world.hits);
        }
    }
    (Ok(()), world.hits)
}

#[test]
fn whatever_is_served_is_what_was_committed_last() {
    let mut hits = [0; 4];
    for seed in 0..SEEDS {
        let (result, served) = run(seed, Fault::None);
        assert_eq!(result, Ok(()), "seed {seed}");
        hits.iter_mut().zip(served).for_each(|(all, served)| *all += served);
    }
    assert!(hits.iter().all(|hits| *hits > 1_000), "something of everything is served: {hits:?}");
}

#[test]
fn without_any_one_of_the_rules_something_stale_would_be_served() {
    for fault in [Fault::NoFloor, Fault::NoTicket, Fault::NoWindow, Fault::NoInvalidation, Fault::NoWait] {
        let found = (0..SEEDS).find(|seed| run(*seed, fault).0.is_err());
        assert!(found.is_some(), "{fault:?} is not noticed");
    }
}
