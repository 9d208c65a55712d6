//! The files that the cell itself reads: its namespace's ACLs and its quotas. What they say is kept beside the tree and
//! follows from it alone, so snapshots need not hold it. Of the files that others read it takes nothing that they
//! could not.

use std::sync::Arc;

use bytes::Bytes;
use hasp_proto::acl::{ACL_DIRECTORY, ADMIN, AclEntries, EVERYONE};
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::hosts;
use hasp_proto::name::Name;
use hasp_proto::node::NodeKind;
use hasp_proto::partition::PARTITIONS_FILE;

use super::access::Acls;
use super::command::Genesis;
use super::quotas::Quotas;
use super::tree::Tree;

/// Where a namespace keeps what is the system's own.
const SYSTEM_DIRECTORY: &str = ".hasp";
/// In the latter.
const QUOTAS_FILE: &str = "quotas";

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `/ls/<namespace>/acl`.
    pub acls: Name,
    /// `/ls/<namespace>/.hasp`.
    pub system: Name,
    /// The partition map. Who writes it in the home cell changes it.
    pub partitions: Name,
    quotas: Name,
    /// For clients: the cell only sees that they will be able to read it.
    proxies: Name,
}

impl Places {
    /// Those of the cell's namespace.
    pub fn of(genesis: &Genesis) -> Self {
        let below = |directory: &str| {
            let text = format!("/ls/{}/{directory}", genesis.map.namespace);
            Name::parse(&text).expect("the root of the map's namespace is a name, and has room below it")
        };
        Self {
            acls: below(ACL_DIRECTORY),
            system: below(SYSTEM_DIRECTORY),
            partitions: below(PARTITIONS_FILE),
            quotas: below(&format!("{SYSTEM_DIRECTORY}/{QUOTAS_FILE}")),
            proxies: below(hosts::PROXIES_FILE),
        }
    }

    /// The ACL of which this is the file.
    fn acl_of<'a>(&self, name: &'a Name) -> Option<&'a str> {
        let acl = name.as_str().strip_prefix(self.acls.as_str())?.strip_prefix('/')?;
        (!acl.contains('/')).then_some(acl)
    }
}

/// What the contents of a file say to the cell.
pub enum Reading {
    /// Nothing.
    Nothing,
    /// Who is in an ACL.
    Acl(Arc<AclEntries>),
    /// All quotas.
    Quotas(Quotas),
}

/// What the files say.
#[derive(Clone, Default, PartialEq)]
pub struct System {
    places: Option<Arc<Places>>,
    acls: Acls,
    quotas: Quotas,
}

impl System {
    /// What the files in the tree say.
    ///
    /// # Errors
    /// `InvalidArgument` if one of them says nothing that can be understood.
    pub fn read_all(genesis: &Genesis, tree: &Tree) -> Result<Self, Error> {
        let places = Places::of(genesis);
        let acls = Acls::new(genesis.map.children_owner(&places.acls) == Some(&genesis.cell));
        let files: Vec<&Name> = tree
            .children(&places.acls)
            .map(|(name, _)| name)
            .chain(tree.get(&places.quotas).map(|_| &places.quotas))
            .collect();
        let mut system = Self { places: Some(Arc::new(places.clone())), acls, quotas: Quotas::default() };
        for name in files {
            let node = tree.get(name).expect("just seen");
            let reading = system.read(name, node.kind, &node.contents)?;
            system.put(name, reading, tree);
        }
        Ok(system)
    }

    /// The ACLs.
    pub const fn acls(&self) -> &Acls {
        &self.acls
    }

    /// The quotas.
    pub const fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// The quotas, to keep them true when a node changes.
    pub const fn quotas_mut(&mut self) -> &mut Quotas {
        &mut self.quotas
    }

    /// `/ls/<namespace>/acl`; `None` while the cell does not know its namespace.
    pub fn acl_directory(&self) -> Option<&Name> {
        self.places.as_ref().map(|places| &places.acls)
    }

    /// The file of the partition map.
    pub fn map_file(&self) -> Option<&Name> {
        self.places.as_ref().map(|places| &places.partitions)
    }

    /// Whether quotas do not bind the node: the file of the quotas itself, which must be writable when one of
    /// them is used up.
    pub fn is_beyond_quotas(&self, name: &Name) -> bool {
        self.places.as_ref().is_some_and(|places| places.quotas == *name)
    }

    /// Whether nobody may delete the node: without the directory of the ACLs and the two that everything goes
    /// back to, nobody could do anything; without the map nobody could look up where anything is.
    pub fn is_protected(&self, name: &Name) -> bool {
        self.places.as_ref().is_some_and(|places| {
            *name == places.acls
                || *name == places.partitions
                || matches!(places.acl_of(name), Some(ADMIN | EVERYONE))
        })
    }

    /// What contents that somebody writes say.
    ///
    /// # Errors
    /// As [`System::read`]; or if they would bar somebody from what no cell looks up.
    pub fn read_new(&self, name: &Name, kind: NodeKind, contents: &Bytes) -> Result<Reading, Error> {
        let reading = self.read(name, kind, contents)?;
        let is_everyone = self.places.as_ref().and_then(|places| places.acl_of(name)) == Some(EVERYONE);
        if is_everyone && !matches!(&reading, Reading::Acl(entries) if entries.is_for_all()) {
            let detail = "the ACL \"everyone\" lets everybody in, in every cell: give the nodes another ACL";
            return Err(ErrorCode::InvalidArgument.because(detail));
        }
        Ok(reading)
    }

    /// What such contents of such a node say.
    ///
    /// # Errors
    /// `InvalidArgument`, if it is one of the files and they cannot be understood; or if they would leave no
    /// principal in the ACL of those who run the cell. The partition map is not looked at here.
    pub fn read(&self, name: &Name, kind: NodeKind, contents: &Bytes) -> Result<Reading, Error> {
        let Some(places) = self.places.as_ref().filter(|_| kind == NodeKind::File) else {
            return Ok(Reading::Nothing);
        };
        if let Some(acl) = places.acl_of(name) {
            let entries = AclEntries::parse(contents)?;
            if acl == ADMIN && entries.is_empty() {
                let detail = "the ACL \"admin\" without a principal: nobody could change it again";
                return Err(ErrorCode::InvalidArgument.because(detail));
            }
            return Ok(Reading::Acl(Arc::new(entries)));
        }
        if *name == places.quotas {
            return Ok(Reading::Quotas(Quotas::parse(contents, name.namespace())?));
        }
        if *name == places.proxies {
            hosts::parse(contents)?;
        }
        Ok(Reading::Nothing)
    }

    /// Takes over what a file says, which is in the tree by now.
    pub fn put(&mut self, name: &Name, reading: Reading, tree: &Tree) {
        match reading {
            Reading::Nothing => {}
            Reading::Acl(entries) => self.acls.put(name.component(), entries),
            Reading::Quotas(mut quotas) => {
                quotas.recount(tree);
                self.quotas = quotas;
            }
        }
    }

    /// A node is not in the tree any more.
    pub fn forget(&mut self, name: &Name) {
        let Some(places) = &self.places else { return };
        if let Some(acl) = places.acl_of(name) {
            self.acls.remove(acl);
        }
        if *name == places.quotas {
            self.quotas = Quotas::default();
        }
    }
}
