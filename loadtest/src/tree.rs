//! The names that the load test uses: directories, files and locks, spread over all cells.
//!
//! Pure. In every cell there is one file per ten clients, as in the paper's table (§4.1, about ten
//! cachers per file), in directories of a hundred, and a few files that serve as locks which all
//! clients share.

use serde::{Deserialize, Serialize};

/// Clients that share a file.
const CLIENTS_PER_FILE: usize = 10;
/// Files in a directory.
const FILES_PER_DIRECTORY: usize = 100;
/// Lock files in each cell; few, so that they are wanted by several at once.
const LOCKS: usize = 4;

/// What a tree for some clients looks like; the names follow from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeSpec {
    /// A directory in each cell, below which everything of this cell is.
    pub roots: Vec<String>,
    /// Files below each root.
    pub files: usize,
}

/// A file of the tree, or a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which root.
    pub cell: usize,
    /// Which file below it.
    pub file: usize,
}

impl TreeSpec {
    /// A tree below these directories, one in each cell, for so many clients.
    pub fn new(roots: Vec<String>, clients: usize) -> Self {
        Self { roots, files: clients.div_ceil(CLIENTS_PER_FILE).max(1) }
    }

    /// How many cells it is spread over.
    pub fn cells(&self) -> usize {
        self.roots.len()
    }

    /// The file that client `client` uses in cell `cell`.
    pub fn file_of(&self, client: usize, cell: usize) -> Place {
        Place { cell, file: client % self.files }
    }

    /// A file's name.
    pub fn file_name(&self, place: Place) -> String {
        let directory = place.file / FILES_PER_DIRECTORY;
        format!("{}/files-{directory}/f{}", self.roots[place.cell], place.file)
    }

    /// How many locks there are in each cell.
    pub const fn locks(&self) -> usize {
        LOCKS
    }

    /// A lock's name; `lock` counts from 0.
    pub fn lock_name(&self, cell: usize, lock: usize) -> String {
        format!("{}/locks/l{lock}", self.roots[cell])
    }

    /// The directory of those that come and go.
    pub fn visitors(&self, cell: usize) -> String {
        format!("{}/visitors", self.roots[cell])
    }

    /// Every directory, the roots included, parents first.
    pub fn directories(&self) -> Vec<String> {
        let of_root = |root: &String| {
            let files = (0..self.files.div_ceil(FILES_PER_DIRECTORY)).map(|i| format!("{root}/files-{i}"));
            let others = ["locks", "visitors"].map(|name| format!("{root}/{name}"));
            [root.clone()].into_iter().chain(files).chain(others).collect::<Vec<_>>()
        };
        self.roots.iter().flat_map(of_root).collect()
    }

    /// Nodes strictly below each root, but for those that come and go.
    pub const fn nodes_below_a_root(&self) -> usize {
        // Its directories of files, and those of locks and visitors.
        self.files + self.files.div_ceil(FILES_PER_DIRECTORY) + 2 + LOCKS
    }

    /// Every file.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        (0..self.cells()).flat_map(|cell| (0..self.files).map(move |file| Place { cell, file }))
    }

    /// Every lock, as cell and number.
    pub fn lock_places(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.cells()).flat_map(|cell| (0..LOCKS).map(move |lock| (cell, lock)))
    }
}

/// Contents of `bytes` bytes that nobody else writes: who wrote it, then filling.
pub fn contents(writer: &str, number: u64, bytes: usize) -> Vec<u8> {
    let mut contents = format!("{writer} {number}\n").into_bytes();
    contents.resize(contents.len().max(bytes), b'.');
    contents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> TreeSpec {
        TreeSpec::new(vec!["/ls/load/t".into(), "/ls/load/b/t".into()], 3_000)
    }

    #[test]
    fn every_client_has_a_file_in_every_cell_and_shares_it_with_few() {
        let tree = tree();

        assert_eq!(tree.files, 300);
        assert_eq!(tree.file_name(tree.file_of(299, 0)), "/ls/load/t/files-2/f299");
        assert_eq!(tree.file_name(tree.file_of(1_234, 1)), "/ls/load/b/t/files-0/f34");
    }

    #[test]
    fn every_file_and_lock_is_in_a_directory_of_the_tree() {
        let tree = tree();
        let directories = tree.directories();
        let files = tree.places().map(|place| tree.file_name(place));
        let locks = tree.lock_places().map(|(cell, lock)| tree.lock_name(cell, lock));

        let names: Vec<_> = files.chain(locks).collect();

        assert_eq!(names.len(), 2 * (300 + 4));
        assert_eq!(names.len() + directories.len() - 2, 2 * tree.nodes_below_a_root(), "all but the roots");
        assert!(directories.contains(&tree.visitors(1)), "{directories:?}");
        for name in names {
            let (parent, _) = name.rsplit_once('/').expect("a slash");
            assert!(directories.iter().any(|directory| directory == parent), "{name}");
        }
    }

    #[test]
    fn contents_tell_the_writer_and_have_the_size_asked_for_or_more() {
        assert_eq!(contents("0.1", 2, 10), b"0.1 2\n....");
        assert_eq!(contents("0.1", 2, 0), b"0.1 2\n");
    }
}
