//! What applications do: which nodes there are for them, and what is asked next.

use std::time::Duration;

use bytes::Bytes;
use hasp_proto::name::Name;
use hasp_proto::node::LockMode;
use hasp_proto::request::Use;

use super::random::Random;

/// Files that are written and never deleted, and directories with children that come and go.
pub const FILES: usize = 3;
/// Children of each directory.
pub const CHILDREN: usize = 3;
/// Files whose locks are wanted.
pub const LOCKS: usize = 2;

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
    /// Delete a child.
    Delete(Name),
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
    }
}

/// All names that scripts know.
pub fn names(cells: usize) -> Vec<Name> {
    let of = |cell| {
        let Names { files, directory, children, locks } = of_cell(cell);
        files.into_iter().chain([directory]).chain(children).chain(locks)
    };
    (0..cells).flat_map(of).collect()
}

/// Contents that nobody else writes.
pub fn contents(client: usize, life: u64, count: usize) -> Bytes {
    Bytes::from(format!("c{client}.{life}.{count}"))
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
}

impl Taste {
    /// Anybody's.
    pub fn draw(random: &mut Random) -> Self {
        Self {
            writes: *random.pick(&[20, 150, 400]),
            locks: *random.pick(&[0, 100, 400]),
            think: Duration::from_millis(*random.pick(&[100, 400, 1_000])),
            caches: !random.chance(200),
            keeps_locks: random.chance(300),
        }
    }

    /// The next step; `holds` is a lock that is held.
    pub fn next(&self, random: &mut Random, cells: usize, holds: Option<&Name>) -> Step {
        let names = of_cell(random.index(cells));
        let file = random.pick(&names.files).clone();
        let child = random.pick(&names.children).clone();
        let lock = random.pick(&names.locks).clone();
        if random.chance(self.locks) {
            return match (holds, random.index(4)) {
                (Some(held), 0 | 1) => Step::Release(held.clone()),
                (Some(_), 2) => Step::Guarded(file),
                (Some(held), _) => Step::Read(held.clone()),
                (None, 0) => Step::TryAcquire(lock, LockMode::Exclusive),
                (None, 1) => Step::Acquire(lock, LockMode::Shared),
                (None, _) => Step::Acquire(lock, LockMode::Exclusive),
            };
        }
        if random.chance(self.writes) {
            return match random.index(10) {
                0..=3 => Step::Write(file),
                4 => Step::Swap(file),
                5 => Step::Write(child),
                6 | 7 => Step::Create(child, random.chance(400)),
                _ => Step::Delete(child),
            };
        }
        match random.index(20) {
            0..=8 => Step::Read(file),
            9 | 10 => Step::Stat(lock),
            11..=13 => Step::Read(child),
            14 => Step::Stat(child),
            15 | 16 => Step::List(names.directory),
            17 => Step::Close(file, Use::Read),
            18 => Step::Close(child, Use::Read),
            _ => Step::Stat(file),
        }
    }
}
