//! What applications do: which nodes there are for them, and what is asked next.

use std::time::Duration;

use bytes::Bytes;
use hasp_proto::event::{EventKind, EventMask};
use hasp_proto::id::CellName;
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, LockMode};
use hasp_proto::partition::{Change, PARTITIONS_FILE, PartitionMap, Prefix};
use hasp_proto::request::Use;

use super::random::Random;

/// Files that are written and never deleted, and directories with children that come and go.
pub const FILES: usize = 3;
/// Children of each directory.
pub const CHILDREN: usize = 3;
/// Files whose locks are wanted.
pub const LOCKS: usize = 2;
/// Files that not everybody may use all the time.
pub const GUARDED: usize = 2;
/// ACL files, of the first cell only: others know none but those that are built in.
pub const ACLS: usize = 2;
/// Directories below the ring, whose children may be in another cell than their node.
pub const SPREAD: usize = 4;
/// Children of each of these.
const SPREAD_CHILDREN: usize = 2;
/// Principals besides `admin`.
const USERS: usize = 3;
/// Who everybody is.
pub const EVERYONE: &str = "everyone";
/// The ACL, and the only principal that is in it.
pub const ADMIN: &str = "admin";

/// Names of one cell's part of the namespace.
#[derive(Clone, Debug)]
pub struct Names {
    /// Never deleted.
    pub files: Vec<Name>,
    /// Never deleted.
    pub directory: Name,
    /// Of the directory; come and go.
    pub children: Vec<Name>,
    /// Never deleted.
    pub locks: Vec<Name>,
    /// Never deleted; anybody may change their ACL names.
    pub guarded: Vec<Name>,
    /// Come and go.
    pub acls: Vec<Name>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read a file or child.
    Read(Name),
    /// Look at its metadata.
    Stat(Name),
    /// List a directory.
    List(Name),
    /// Replace contents, whatever they are.
    Write(Name),
    /// Replace those last seen.
    Swap(Name),
    /// Replace contents under the sequencer of a lock, if one is held.
    Guarded(Name),
    /// Create a child that may exist; ephemeral or not.
    Create(Name, bool),
    /// Delete a child or an ACL file.
    Delete(Name),
    /// Replace the ACL names.
    SetAcl(Name, AclNames),
    /// Let a rule of the partition map change, or give up a change.
    Repartition,
    /// Hold a lock, for so long.
    Acquire(Name, LockMode),
    /// Hold it if it is free.
    TryAcquire(Name, LockMode),
    /// Hold it no more.
    Release(Name),
    /// Close a handle.
    Close(Name, Use),
}

/// The names of a cell. The second cell owns what is strictly below `/ls/dev/b`.
pub fn of_cell(cell: usize) -> Names {
    let base = if cell == 0 { "/ls/dev/" } else { "/ls/dev/b/" };
    let name = |text: String| Name::parse(&text).expect("a good name");
    Names {
        files: (0..FILES).map(|at| name(format!("{base}f{at}"))).collect(),
        directory: name(format!("{base}d")),
        children: (0..CHILDREN).map(|at| name(format!("{base}d/c{at}"))).collect(),
        locks: (0..LOCKS).map(|at| name(format!("{base}l{at}"))).collect(),
        guarded: (0..GUARDED).map(|at| name(format!("{base}g{at}"))).collect(),
        acls: (0..if cell == 0 { ACLS } else { 0 }).map(acl_file).collect(),
    }
}

/// The file of the partition map.
pub fn map_file() -> Name {
    Name::parse(&format!("/ls/dev/{PARTITIONS_FILE}")).expect("a good name")
}

/// The map that is to follow this one.
pub fn next_map(random: &mut Random, map: &PartitionMap, has_ring: bool) -> Option<PartitionMap> {
    if map.change().is_some() {
        return random.chance(300).then(|| map.unchanged());
    }
    let cell = |cell: &str| vec![CellName::new(cell)];
    let both = || vec![CellName::new("a"), CellName::new("b")];
    let ring = |cells: Vec<CellName>| (RING.0, cells);
    let choices = [("/ls/dev/b", cell("a")), ("/ls/dev/b", cell("b")), ("/ls/dev/b", vec![])]
        .into_iter()
        .chain([("/ls/dev/d", cell("a")), ("/ls/dev/d", cell("b")), ("/ls/dev/d", vec![])])
        .chain(
            [ring(cell("a")), ring(cell("b")), ring(both()), ring(both())].into_iter().filter(|_| has_ring),
        );
    let (prefix, cells) = random.pick(&choices.collect::<Vec<_>>()).clone();
    map.changing(Change { prefix: Prefix::parse(prefix).expect("good"), cells }).ok()
}

/// The map by which all that the second cell has goes to the first; `None` if that is under way, or done.
pub fn emptied(map: &PartitionMap) -> Option<PartitionMap> {
    let prefix = Prefix::parse("/ls/dev/b").expect("good");
    map.changing(Change { prefix, cells: vec![CellName::new("a")] }).ok()
}

/// The rule of the ring: what is below each directory in `/ls/dev/r` is of one cell or the other.
pub const RING: (&str, &str) = ("/ls/dev/r/*", "a b");

/// The directories in the ring, which come and go, each with its children, which do too.
pub fn spread() -> Vec<(Name, Vec<Name>)> {
    let directory = |at| Name::parse(&format!("/ls/dev/r/g{at}")).expect("a good name");
    let child = |directory: &Name, at| directory.child(&format!("c{at}")).expect("a good name");
    let with_children = |directory: Name| {
        let children = (0..SPREAD_CHILDREN).map(|at| child(&directory, at)).collect();
        (directory, children)
    };
    (0..SPREAD).map(directory).map(with_children).collect()
}

/// Whether it is a directory in the ring.
pub fn is_spread(name: &Name) -> bool {
    name.depth() == 4 && name.parent().is_some_and(|parent| parent.component() == "r")
}

/// Whether the children of the directory may be in another cell than its node.
pub fn may_be_split(name: &Name) -> bool {
    is_spread(name) || name.component() == "d"
}

/// Whether it is, or is a child of one.
pub fn is_of_ring(name: &Name) -> bool {
    is_spread(name) || name.parent().is_some_and(|parent| is_spread(&parent))
}

/// As whom an application acts.
pub fn principal(client: usize) -> String {
    if client == 0 { ADMIN.to_owned() } else { format!("user{}", client % USERS) }
}

/// An ACL's name.
fn acl(at: usize) -> String {
    format!("a{at}")
}

fn acl_file(at: usize) -> Name {
    file_of_acl(&acl(at)).expect("a good name")
}

/// The file that an ACL's name stands for.
pub fn file_of_acl(acl: &str) -> Option<Name> {
    Name::parse(&format!("/ls/dev/acl/{acl}")).ok()
}

/// Whether a name is an ACL file's.
pub fn is_acl_file(name: &Name) -> bool {
    name.parent().is_some_and(|parent| parent.component() == "acl")
}

/// Whether a node may be closed to some by scripts.
pub fn is_guarded(name: &Name) -> bool {
    name.component().starts_with('g')
}

/// Everybody may do everything with it.
pub fn open_to_all() -> AclNames {
    AclNames { read: EVERYONE.into(), write: EVERYONE.into(), change: EVERYONE.into() }
}

/// All names that scripts know.
pub fn names(cells: usize, has_ring: bool) -> Vec<Name> {
    let of = |cell| {
        let Names { files, directory, children, locks, guarded, acls } = of_cell(cell);
        files.into_iter().chain([directory]).chain(children).chain(locks).chain(guarded).chain(acls)
    };
    let ring = spread().into_iter().filter(|_| has_ring);
    let ring = ring.flat_map(|(directory, children)| std::iter::once(directory).chain(children));
    (0..cells).flat_map(of).chain(ring).chain((cells > 1).then(map_file)).collect()
}

/// Contents that nobody else writes.
pub fn contents(client: usize, life: u64, count: usize) -> Bytes {
    Bytes::from(format!("c{client}.{life}.{count}"))
}

/// Contents of an ACL file that lets some in; nobody else writes them.
pub fn principals(random: &mut Random, contents: &Bytes) -> Bytes {
    let mut text = String::new();
    for user in 0..USERS {
        if random.chance(500) {
            text.push_str(&format!("user{user}\n"));
        }
    }
    text.push_str("# ");
    Bytes::from([text.as_bytes(), contents].concat())
}

/// How eager an application is, and for what.
#[derive(Clone, Debug)]
pub struct Taste {
    /// Of a thousand steps so many write.
    pub writes: u64,
    /// Of a thousand steps so many are about locks.
    pub locks: u64,
    /// Between two steps, at most.
    pub think: Duration,
    /// Reads are cached.
    pub caches: bool,
    /// Released locks are kept.
    pub keeps_locks: bool,
    /// Of a thousand handles so many are told of events.
    pub listens: u64,
    /// It may write ACL files.
    pub is_admin: bool,
    /// Of a thousand steps so many are about directories in the ring.
    pub spreads: u64,
    /// Of a thousand steps so many change the partition map.
    pub repartitions: u64,
}

impl Taste {
    /// That of an application.
    pub fn draw(random: &mut Random, client: usize) -> Self {
        Self {
            writes: *random.pick(&[50, 250, 450]),
            locks: *random.pick(&[0, 100, 350]),
            think: Duration::from_millis(*random.pick(&[100, 350, 900])),
            caches: !random.chance(200),
            keeps_locks: random.chance(300),
            listens: *random.pick(&[0, 300, 700]),
            is_admin: principal(client) == ADMIN,
            spreads: 0,
            repartitions: 0,
        }
    }

    /// What a new handle is told of.
    pub fn events(&self, random: &mut Random) -> EventMask {
        if !random.chance(self.listens) {
            return EventMask::NONE;
        }
        let is_choosy = random.chance(400);
        EventMask::of(EventKind::ALL.into_iter().filter(|_| !is_choosy || random.chance(500)))
    }

    /// The next step; `holds` is a lock that is held.
    pub fn next(&self, random: &mut Random, cells: usize, holds: Option<&Name>) -> Step {
        if self.is_admin && self.repartitions > 0 && random.chance(self.repartitions) {
            return Step::Repartition;
        }
        if self.spreads > 0 && random.chance(self.spreads) {
            return of_ring(random);
        }
        let names = of_cell(random.index(cells));
        if self.is_admin && random.chance(150) {
            let file = random.pick(&of_cell(0).acls).clone();
            return if random.chance(150) { Step::Delete(file) } else { Step::Write(file) };
        }
        if random.chance(self.locks) {
            return self.next_of_locks(random, &names, holds);
        }
        if random.chance(self.writes) { write(random, names) } else { read(random, names) }
    }

    fn next_of_locks(&self, random: &mut Random, names: &Names, holds: Option<&Name>) -> Step {
        let wanted = if random.chance(150) { &names.guarded } else { &names.locks };
        let lock = random.pick(wanted).clone();
        match (holds, random.index(4)) {
            (Some(held), 0 | 1) => Step::Release(held.clone()),
            (Some(_), 2) => Step::Guarded(random.pick(&names.files).clone()),
            (Some(held), _) => Step::Read(held.clone()),
            (None, 0) => Step::TryAcquire(lock, LockMode::Exclusive),
            (None, 1) => Step::Acquire(lock, LockMode::Shared),
            (None, _) => Step::Acquire(lock, LockMode::Exclusive),
        }
    }
}

/// Directories go while children come.
fn of_ring(random: &mut Random) -> Step {
    let (directory, children) = random.pick(&spread()).clone();
    let child = random.pick(&children).clone();
    match random.index(16) {
        0..=2 => Step::Create(directory, random.chance(300)),
        3..=5 => Step::Delete(directory),
        6..=8 => Step::Create(child, random.chance(250)),
        9 | 10 => Step::Delete(child),
        11 => Step::Write(child),
        12 => Step::Read(child),
        13 => Step::List(directory),
        14 => Step::Stat(directory),
        _ => Step::SetAcl(directory, acl_names(random)),
    }
}

fn write(random: &mut Random, names: Names) -> Step {
    let file = random.pick(&names.files).clone();
    let child = random.pick(&names.children).clone();
    let guarded = random.pick(&names.guarded).clone();
    match random.index(13) {
        0..=3 => Step::Write(file),
        4 => Step::Swap(file),
        5 => Step::Write(child),
        6 | 7 => Step::Create(child, random.chance(400)),
        8 | 9 => Step::Delete(child),
        10 | 11 => Step::Write(guarded),
        _ => Step::SetAcl(guarded, acl_names(random)),
    }
}

/// Whoever may change the names may do so for ever, and often everybody may do the rest.
fn acl_names(random: &mut Random) -> AclNames {
    let mut acl = || match random.index(5) {
        0 | 1 => EVERYONE.to_owned(),
        2 => ADMIN.to_owned(),
        at => acl(at - 3),
    };
    AclNames { read: acl(), write: acl(), change: EVERYONE.into() }
}

fn read(random: &mut Random, names: Names) -> Step {
    let file = random.pick(&names.files).clone();
    let child = random.pick(&names.children).clone();
    let guarded = random.pick(&names.guarded).clone();
    match random.index(24) {
        0..=8 => Step::Read(file),
        9 | 10 => Step::Stat(random.pick(&names.locks).clone()),
        11..=13 => Step::Read(child),
        14 => Step::Stat(child),
        15 | 16 => Step::List(names.directory),
        17 => Step::Close(file, Use::Read),
        18 => Step::Close(child, Use::Read),
        19 => Step::Stat(file),
        20..=22 => Step::Read(guarded),
        _ => Step::Stat(guarded),
    }
}
