//! Names that come and go: applications create and delete files, and on a ring the directories that these are in, and
//! look at what is there.

use std::sync::Arc;

use hasp_client::{CallError, ErrorCode, Handle, OpenOptions};

use super::{DIRECTORY, Session, place};
use crate::full::journal::now;
use crate::full::layout::{RING, Spread};
use crate::full::lives::{Deed, Life, Listing};
use crate::full::plan::index;

/// Names in the only directory.
const NAMES: usize = 4;
/// Names in each of several directories, so few that they are empty now and then.
const NAMES_EACH: usize = 2;
/// Nodes that a client keeps open, at most.
const KEPT_MAX: usize = 3;

/// A session's part in what comes and goes.
pub(super) struct Names {
    top: Directory,
    spread: Spread,
    kept: Vec<Kept>,
}

/// A directory that is open.
#[derive(Clone)]
struct Directory {
    name: Arc<str>,
    handle: Handle,
}

/// A node that a session has created and still has open.
struct Kept {
    handle: Handle,
    life: usize,
}

impl Names {
    /// In the directory of names, which is open.
    pub(super) fn new(directory: Handle, spread: Spread) -> Self {
        let top = Directory { name: DIRECTORY.into(), handle: directory };
        Self { top, spread, kept: Vec::new() }
    }
}

impl Session<'_> {
    /// Creates a file, or the directory that it would be in.
    pub(super) async fn create(&mut self) {
        if !self.may_cross() {
            return self.read_any().await;
        }
        self.user.at("create");
        let Some(directory) = self.some_directory().await else { return };
        let name = self.some_name();
        let options = OpenOptions::create_file(self.token()).must_create();
        let (deed, options) = match self.rng.below(2) {
            0 => (Deed::Create, options),
            _ => (Deed::CreateEphemeral, options.ephemeral()),
        };
        let life = self.begin_life(&directory, &name, deed, None);
        if let Some(handle) = self.create_as(&directory, &name, options, life).await {
            self.names.kept.push(Kept { handle, life });
            if self.names.kept.len() > KEPT_MAX {
                let kept = self.names.kept.remove(0);
                self.let_go(kept);
            }
        }
    }

    /// Deletes a file, or on a ring now and then all that is in a directory, and the directory.
    pub(super) async fn delete(&mut self) {
        if !self.may_cross() {
            return self.read_any().await;
        }
        self.user.at("delete");
        if self.names.spread == Spread::Ring && self.rng.below(2) == 0 {
            return self.delete_directory().await;
        }
        let Some(directory) = self.some_directory().await else { return };
        let name = self.some_name();
        self.delete_in(&directory, &name).await;
    }

    /// Looks at what is in a directory.
    pub(super) async fn list(&mut self) {
        if !self.may_cross() {
            return self.read_any().await;
        }
        self.user.at("list");
        let is_top = self.names.spread != Spread::Ring || self.rng.below(3) == 0;
        let directory = if is_top { Some(self.names.top.clone()) } else { self.some_directory().await };
        let Some(directory) = directory else { return };
        let begun = now();
        match directory.handle.read_dir().await {
            Ok(children) => {
                let shown = children.children.iter();
                let children_shown =
                    shown.map(|child| (child.component.clone(), child.stat.instance.0)).collect();
                self.journal().listed(Listing {
                    client: self.number,
                    directory: directory.name.to_string(),
                    within: directory.handle.instance().0,
                    begun,
                    ended: now(),
                    position: place(children.position),
                    children: children_shown,
                });
                self.succeeded();
            }
            Err(error) => self.missed("list", &error),
        }
    }

    /// Closes all that is open of what it has created.
    pub(super) fn let_all_go(&mut self) {
        for kept in std::mem::take(&mut self.names.kept) {
            self.let_go(kept);
        }
    }

    /// Closes the handle: if the node is ephemeral it goes.
    fn let_go(&self, kept: Kept) {
        self.journal().life_ended(kept.life, |life| {
            life.believed_until.get_or_insert_with(now);
        });
        drop(kept.handle);
    }

    /// Whether somebody carries between cells what concerns both: routers do, in proxies and not in the library.
    fn may_cross(&self) -> bool {
        self.names.spread == Spread::One || self.user.plan.is_behind_proxies
    }

    fn some_name(&mut self) -> String {
        let names = if self.names.spread == Spread::Ring { NAMES_EACH } else { NAMES };
        format!("n{}", index(&mut self.rng, names))
    }

    /// The only directory, or one on the ring, made if it is not there.
    async fn some_directory(&mut self) -> Option<Directory> {
        if self.names.spread != Spread::Ring {
            return Some(self.names.top.clone());
        }
        let (top, component) = (self.names.top.clone(), RING[index(&mut self.rng, RING.len())]);
        let name: Arc<str> = format!("{}/{component}", top.name).into();
        match top.handle.open(component, OpenOptions::write()).await {
            Ok(opened) => return Some(Directory { name, handle: opened.handle }),
            Err(error) if error.code == ErrorCode::NotFound => {}
            Err(error) => {
                self.missed("open", &error);
                return None;
            }
        }
        let life = self.begin_life(&top, component, Deed::Create, None);
        let options = OpenOptions::create_directory().must_create();
        let handle = self.create_as(&top, component, options, life).await?;
        Some(Directory { name, handle })
    }

    async fn delete_directory(&mut self) {
        let top = self.names.top.clone();
        let component = RING[index(&mut self.rng, RING.len())];
        let name: Arc<str> = format!("{}/{component}", top.name).into();
        match top.handle.open(component, OpenOptions::write()).await {
            Ok(opened) => {
                let directory = Directory { name, handle: opened.handle };
                for number in 0..NAMES_EACH {
                    self.delete_in(&directory, &format!("n{number}")).await;
                }
                self.delete_opened(&top, component, directory.handle).await;
            }
            Err(error) if error.code == ErrorCode::NotFound => self.succeeded(),
            Err(error) => self.missed("open", &error),
        }
    }

    async fn delete_in(&mut self, directory: &Directory, name: &str) {
        match directory.handle.open(name, OpenOptions::write()).await {
            Ok(opened) => self.delete_opened(directory, name, opened.handle).await,
            Err(error) if error.code == ErrorCode::NotFound => self.succeeded(),
            Err(error) => self.missed("open", &error),
        }
    }

    async fn delete_opened(&mut self, directory: &Directory, name: &str, opened: Handle) {
        let life = self.begin_life(directory, name, Deed::Delete, Some(opened.instance().0));
        match opened.delete().await {
            Ok(done) => {
                let position = place(done.position);
                self.journal().life_ended(life, |life| life.done = Some((now(), position)));
                self.succeeded();
            }
            Err(error) if matches!(error.code, ErrorCode::StaleHandle | ErrorCode::NotEmpty) => {
                self.refuse(life);
            }
            Err(error) => self.failed("delete", &error),
        }
    }

    /// The handle on what was created, if it was.
    async fn create_as(
        &mut self,
        directory: &Directory,
        name: &str,
        options: OpenOptions,
        life: usize,
    ) -> Option<Handle> {
        match directory.handle.open(name, options).await {
            Ok(opened) => {
                let (instance, position) = (opened.handle.instance().0, place(opened.position));
                self.journal().life_ended(life, |life| {
                    life.instance = Some(instance);
                    life.done = Some((now(), position));
                });
                self.succeeded();
                return Some(opened.handle);
            }
            Err(error) if error.code == ErrorCode::AlreadyExists => self.refuse(life),
            // Perhaps created, and deleted by somebody else before the answer was made.
            Err(error) => self.missed("create", &error),
        }
        None
    }

    /// What was asked was of no use if the node is gone that it was asked of.
    fn missed(&mut self, what: &str, error: &CallError) {
        if error.code == ErrorCode::StaleHandle {
            self.journal().note("opened too late");
        } else {
            self.failed(what, error);
        }
    }

    fn begin_life(&self, directory: &Directory, name: &str, deed: Deed, instance: Option<u64>) -> usize {
        self.journal().life(Life {
            client: self.number,
            directory: directory.name.to_string(),
            within: directory.handle.instance().0,
            name: name.to_owned(),
            deed,
            instance,
            begun: now(),
            done: None,
            is_refused: false,
            believed_until: None,
        })
    }

    fn refuse(&self, life: usize) {
        self.journal().life_ended(life, |life| life.is_refused = true);
        self.succeeded();
    }
}
