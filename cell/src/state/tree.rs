//! The tree of nodes, kept so that the children of a directory lie side by side (paper §2.10), and the
//! root records of directories whose node another cell holds (`route-3`).

use std::sync::Arc;

use hasp_proto::id::Instance;
use hasp_proto::limits::COMPONENTS_MAX;
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, NodeKind};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::node::Node;
use super::roots::Roots;

/// The least component that there can be: children are looked for from here on.
const LEAST_COMPONENT: &str = " ";

/// A name, ordered by its number of components first. Among names of one depth, those with a common
/// parent share the prefix `parent/` and so stand together, ordered by their last component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    depth: u8,
    name: Name,
}

impl Key {
    fn new(name: &Name) -> Self {
        let depth = u8::try_from(name.depth()).expect("COMPONENTS_MAX fits");
        Self { depth, name: name.clone() }
    }
}

/// All nodes of a cell.
#[derive(Clone, Default, PartialEq)]
pub struct Tree {
    nodes: RedBlackTreeMapSync<Key, Arc<Node>>,
    roots: Roots,
    /// Nodes whose lock has a lock-delay running.
    delayed: RedBlackTreeSetSync<Name>,
    /// Ephemeral nodes that nobody has open and that have no children.
    abandoned: RedBlackTreeSetSync<Name>,
}

/// What stands where a new node's parent should be.
pub enum Parent<'a> {
    /// A directory of this cell or a root record, with the ACL names to inherit.
    Directory(Name, &'a Arc<AclNames>),
    /// A file.
    File,
    /// Nothing.
    Missing,
}

impl Tree {
    /// The node of this name.
    pub fn get(&self, name: &Name) -> Option<&Node> {
        self.nodes.get(&Key::new(name)).map(|node| &**node)
    }

    /// The node of this name if it is this instance, for a change.
    pub fn get_mut(&mut self, name: &Name, instance: Instance) -> Option<&mut Node> {
        let node = self.nodes.get_mut(&Key::new(name))?;
        (node.instance == instance).then(|| Arc::make_mut(node))
    }

    /// The children of a directory, by name, whether or not its own node is in this cell.
    pub fn children(&self, directory: &Name) -> impl Iterator<Item = (&Name, &Node)> + use<'_> {
        let directory = directory.clone();
        // A directory whose name leaves no room for a child's has none.
        let least = directory.child(LEAST_COMPONENT).ok().map(|name| Key::new(&name));
        let depth = least.as_ref().map_or(0, |least| least.depth);
        least
            .into_iter()
            .flat_map(|least| self.nodes.range(least..))
            .take_while(move |(key, _)| key.depth == depth && key.name.is_below(&directory))
            .map(|(key, node)| (&key.name, &**node))
    }

    /// All that is below a directory, whether or not its own node is in this cell; parents before their children.
    pub fn below(&self, directory: &Name) -> impl Iterator<Item = &Name> + use<'_> {
        let directory = directory.clone();
        let least = directory.child(LEAST_COMPONENT).ok();
        let depths = least.as_ref().map_or(0, Name::depth)..=COMPONENTS_MAX;
        least.into_iter().flat_map(move |least| {
            let directory = directory.clone();
            depths.clone().flat_map(move |depth| {
                let directory = directory.clone();
                let depth = u8::try_from(depth).expect("COMPONENTS_MAX fits");
                let from = Key { depth, name: least.clone() };
                let keys = self.nodes.range(from..).map(|(key, _)| key);
                keys.take_while(move |key| key.depth == depth && key.name.is_below(&directory))
                    .map(|key| &key.name)
            })
        })
    }

    /// The ACL names of the node, or of the root record of that name.
    pub fn acls(&self, name: &Name) -> Option<&Arc<AclNames>> {
        let of_root = || self.roots.get(name).map(|root| &root.acls);
        self.get(name).map(|node| &node.acls).or_else(of_root)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.size()
    }

    /// All nodes, parents before their children.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Node)> {
        self.nodes.iter().map(|(key, node)| (&key.name, &**node))
    }

    /// Directories with a part in another cell.
    pub const fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The same, for a change. No record may go whose directory has children here.
    pub const fn roots_mut(&mut self) -> &mut Roots {
        &mut self.roots
    }

    /// What a new node `name` would hang on.
    pub fn parent(&self, name: &Name) -> Parent<'_> {
        let Some(parent) = name.parent() else {
            return Parent::Missing;
        };
        match self.get(&parent) {
            Some(node) if node.kind == NodeKind::Directory => Parent::Directory(parent, &node.acls),
            Some(_) => Parent::File,
            None => match self.roots.get(&parent) {
                Some(root) => Parent::Directory(parent, &root.acls),
                None => Parent::Missing,
            },
        }
    }

    /// Puts a node in, whose parent the caller has seen to.
    pub fn insert(&mut self, name: &Name, node: Node) {
        if node.lock.is_delayed() {
            self.delayed.insert_mut(name.clone());
        }
        let is_unopened = node.is_unopened();
        self.nodes.insert_mut(Key::new(name), Arc::new(node));
        if is_unopened {
            // Its children may have been here before it (`move-3`).
            self.note_opens(name);
        }
        if !self.abandoned.is_empty()
            && let Some(parent) = name.parent()
        {
            self.abandoned.remove_mut(&parent);
        }
    }

    /// Takes a node out that has no children.
    pub fn remove(&mut self, name: &Name) {
        self.nodes.remove_mut(&Key::new(name));
        self.delayed.remove_mut(name);
        self.abandoned.remove_mut(name);
        self.roots.forget_node(name);
        if let Some(parent) = name.parent() {
            self.note_opens(&parent);
        }
    }

    /// Keeps the list of running lock-delays true after a node's lock has changed.
    pub fn note_delays(&mut self, name: &Name) {
        if self.get(name).is_some_and(|node| node.lock.is_delayed()) {
            self.delayed.insert_mut(name.clone());
        } else {
            self.delayed.remove_mut(name);
        }
    }

    /// Keeps the list of abandoned nodes true after a node's handles have changed, or its children have become
    /// fewer.
    pub fn note_opens(&mut self, name: &Name) {
        let is_unopened = self.get(name).is_some_and(Node::is_unopened);
        if is_unopened && self.children(name).next().is_none() {
            self.abandoned.insert_mut(name.clone());
        } else if !self.abandoned.is_empty() {
            self.abandoned.remove_mut(name);
        }
    }

    /// Ephemeral nodes that nobody has open and that have no children, by name.
    pub fn abandoned(&self) -> impl Iterator<Item = (&Name, &Node)> {
        self.abandoned.iter().filter_map(|name| Some((name, self.get(name)?)))
    }

    /// Whether this is such a node.
    pub fn is_abandoned(&self, name: &Name) -> bool {
        self.abandoned.contains(name)
    }

    /// Nodes with a lock-delay running, by name.
    pub fn delayed(&self) -> impl Iterator<Item = (&Name, &Node)> {
        self.delayed.iter().filter_map(|name| Some((name, self.get(name)?)))
    }

    /// What must always hold of the tree, when `last_stamp` is the last one given out.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self, last_stamp: u64) {
        self.roots.check_invariants();
        for (name, node) in self.iter() {
            let is_top = name.parent().is_none();
            assert!(
                is_top || matches!(self.parent(name), Parent::Directory(..)),
                "P-TREE: {name} has a parent directory"
            );
            assert!(
                node.kind == NodeKind::File || node.contents.is_empty(),
                "{name}: a directory has no contents"
            );
            for generation in [node.content_generation, node.lock_generation, node.acl_generation] {
                assert!(
                    (node.instance.0..=last_stamp).contains(&generation.0),
                    "{name}: generation {generation} is outside its instance's life"
                );
            }
            node.check_invariants(name);
            let is_abandoned = node.is_unopened() && self.children(name).next().is_none();
            assert_eq!(
                self.is_abandoned(name),
                is_abandoned,
                "{name}: listed as abandoned exactly while it is ephemeral, not open and without children"
            );
            assert_eq!(
                self.delayed.contains(name),
                node.lock.is_delayed(),
                "{name}: listed as delayed exactly while it has a mark"
            );
        }
        assert!(
            self.delayed.iter().all(|name| self.get(name).is_some()),
            "lock-delays only on nodes that are there"
        );
        assert!(
            self.abandoned.iter().all(|name| self.get(name).is_some()),
            "only nodes that are there are abandoned"
        );
    }
}
