//! How many nodes a change of the partition map would move: counted by listing directories, as anybody can.

use hasp_client::{CallError, Client, ErrorCode, Name, NodeKind, OpenOptions};
use hasp_proto::partition::PartitionMap;
use serde::Serialize;

use crate::context::ConnectArgs;
use crate::exit::Failure;

/// As many nodes are counted, and as many directories listed, before it is left at that.
pub const NODES_MAX: usize = 100_000;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Nodes that move.
    count: usize,
    /// Whether there are no others: there were not too many, and all could be seen.
    is_complete: bool,
}

impl Counted {
    /// For people.
    pub fn text(&self) -> String {
        let Self { count, is_complete } = self;
        let nodes = if *count == 1 { "node" } else { "nodes" };
        let more = if *is_complete { "" } else { " or more" };
        format!("{count}{more} {nodes}")
    }
}

/// What is left to do.
#[derive(Debug)]
struct Walk<'a> {
    map: &'a PartitionMap,
    directories: Vec<Name>,
    listed: usize,
    counted: Counted,
}

/// Counts what moves by the change that is under way in a map, whether or not anybody has been told of it.
///
/// # Errors
/// If the service cannot be asked. What this caller may not list is left out, and the count not complete.
pub async fn count(connect: &ConnectArgs, client: &Client, map: &PartitionMap) -> Result<Counted, Failure> {
    let mut walk = Walk::new(map);
    while let Some(directory) = walk.next() {
        let listing = async {
            match list(client, &directory).await {
                Err(error) if is_gone(&error) => Ok(Some(Vec::new())),
                Err(error) if error.code == ErrorCode::PermissionDenied => Ok(None),
                listed => listed.map(Some),
            }
        };
        match connect.call(listing).await? {
            Some(children) => walk.take(&directory, children),
            None => walk.counted.is_complete = false,
        }
    }
    Ok(walk.counted)
}

async fn list(client: &Client, directory: &Name) -> Result<Vec<(String, NodeKind)>, CallError> {
    let opened = client.open(directory, OpenOptions::read()).await?;
    let children = opened.handle.read_dir().await?.children;
    Ok(children.into_iter().map(|child| (child.component.to_string(), child.stat.kind)).collect())
}

const fn is_gone(error: &CallError) -> bool {
    matches!(error.code, ErrorCode::NotFound | ErrorCode::NotADirectory | ErrorCode::StaleHandle)
}

impl<'a> Walk<'a> {
    fn new(map: &'a PartitionMap) -> Self {
        let start = map.change().map(|change| change.prefix.name().clone());
        let directories = start.filter(|_| !map.journeys().is_empty()).into_iter().collect();
        Self { map, directories, listed: 0, counted: Counted { count: 0, is_complete: true } }
    }

    /// The next directory to list.
    fn next(&mut self) -> Option<Name> {
        let directory = self.directories.pop()?;
        if self.counted.count >= NODES_MAX || self.listed >= NODES_MAX {
            self.counted.is_complete = false;
            return None;
        }
        self.listed += 1;
        Some(directory)
    }

    fn take(&mut self, directory: &Name, children: Vec<(String, NodeKind)>) {
        for (component, kind) in children {
            let Ok(child) = directory.child(&component) else { continue };
            self.counted.count += usize::from(self.map.moves(&child));
            // Below where a longer prefix holds nothing moves.
            if kind == NodeKind::Directory && self.map.moves_children(&child) {
                self.directories.push(child);
            }
        }
    }
}

#[cfg(test)]
impl Counted {
    /// So many, and no others.
    pub const fn of(count: usize) -> Self {
        Self { count, is_complete: true }
    }
}

#[cfg(test)]
mod tests {
    use hasp_client::CellName;
    use hasp_proto::partition::{Change, Prefix};

    use super::*;

    const TREE: [&str; 12] = [
        "/ls/dev/jobs/",
        "/ls/dev/jobs/f",
        "/ls/dev/jobs/d/",
        "/ls/dev/jobs/d/f",
        "/ls/dev/jobs/d/g",
        "/ls/dev/jobs/home/",
        "/ls/dev/jobs/home/f",
        "/ls/dev/users/",
        "/ls/dev/users/u0/",
        "/ls/dev/users/u0/f",
        "/ls/dev/users/u7/",
        "/ls/dev/users/u7/f",
    ];

    fn changing(prefix: &str, cells: &[&str]) -> PartitionMap {
        let listed = ["a", "b", "c"].map(|cell| (CellName::new(cell), vec![])).into();
        let rules =
            [("/ls/dev", "a"), ("/ls/dev/jobs", "b"), ("/ls/dev/jobs/home", "a"), ("/ls/dev/users/*", "a b")];
        let map = PartitionMap::new(1, "dev", rules, listed).expect("a good map");
        let cells = cells.iter().map(|cell| CellName::new(cell)).collect();
        map.changing(Change { prefix: Prefix::parse(prefix).expect("good"), cells }).expect("a good change")
    }

    fn children_of(directory: &Name) -> Vec<(String, NodeKind)> {
        let below = format!("{directory}/");
        let child = |line: &&str| {
            let (component, kind) = match line.strip_prefix(&below)? {
                "" => return None,
                rest => rest.strip_suffix('/').map_or((rest, NodeKind::File), |it| (it, NodeKind::Directory)),
            };
            (!component.contains('/')).then(|| (component.to_owned(), kind))
        };
        TREE.iter().filter_map(child).collect()
    }

    /// What is counted, and which directories are listed.
    fn walked(map: &PartitionMap) -> (Counted, String) {
        let (mut walk, mut listed) = (Walk::new(map), Vec::new());
        while let Some(directory) = walk.next() {
            walk.take(&directory, children_of(&directory));
            listed.push(directory.to_string());
        }
        (walk.counted, listed.join(" "))
    }

    #[test]
    fn what_moves_is_counted_and_nothing_else_is_listed() {
        let check = |prefix: &str, cells: &[&str], count: usize, listed: &str| {
            let expected = (Counted { count, is_complete: true }, listed.to_owned());
            assert_eq!(walked(&changing(prefix, cells)), expected, "{prefix} {cells:?}");
        };
        check("/ls/dev/jobs", &["c"], 5, "/ls/dev/jobs /ls/dev/jobs/d");
        check("/ls/dev/jobs", &[], 5, "/ls/dev/jobs /ls/dev/jobs/d");
        check("/ls/dev/jobs/d", &["c"], 2, "/ls/dev/jobs/d");
        check("/ls/dev/users", &["c"], 2, "/ls/dev/users");
        check("/ls/dev/users/*", &["a", "b", "c"], 1, "/ls/dev/users /ls/dev/users/u0");
        check("/ls/dev/nothing", &["b"], 0, "/ls/dev/nothing");
        check("/ls/dev/jobs/d", &["b"], 0, "");
    }

    #[test]
    fn the_count_ends_somewhere() {
        let map = changing("/ls/dev/jobs", &["c"]);
        let mut walk = Walk::new(&map);
        let directory = walk.next().expect("the first");
        let children = (0..NODES_MAX).map(|number| (format!("d{number}"), NodeKind::Directory)).collect();
        walk.take(&directory, children);

        assert_eq!(walk.next(), None);
        assert_eq!(walk.counted, Counted { count: NODES_MAX, is_complete: false });
    }

    #[test]
    fn a_count_is_told_with_what_it_is_worth() {
        let check = |count, is_complete, text| assert_eq!(Counted { count, is_complete }.text(), text);
        check(0, true, "0 nodes");
        check(1, true, "1 node");
        check(12, true, "12 nodes");
        check(100_000, false, "100000 or more nodes");
    }
}
