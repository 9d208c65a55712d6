//! Named tasks that can be told to stop, waited for, and that never die unnoticed.
//!
//! A scope holds a cancellation token and the list of what runs in it; a child scope can be
//! stopped alone and is part of its parent's. A panic in any task is logged with its name and
//! stops the root: a server that lost one of its tasks is worse than one that is gone.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// A task panicked; its process or server must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {task} panicked")]
pub struct Failure {
    /// The name it was spawned under.
    pub task: &'static str,
}

/// Tasks that were still running when the wait for them ended: how many by name, sorted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tasks did not stop: {}", self.names())]
pub struct Unfinished {
    /// Sorted by name, none twice.
    pub tasks: Vec<(&'static str, usize)>,
}

impl Unfinished {
    fn names(&self) -> String {
        let names: Vec<_> = self.tasks.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        names.join(", ")
    }
}

/// A scope of tasks. A clone is the same scope; [`child`](Tasks::child) makes one inside it.
#[derive(Clone)]
pub struct Tasks {
    scope: Arc<Scope>,
    root: Arc<Root>,
}

/// What all scopes of one tree share.
struct Root {
    token: CancellationToken,
    next_id: AtomicU64,
    failure: OnceLock<Failure>,
    failed: CancellationToken,
}

struct Scope {
    parent: Option<Arc<Scope>>,
    token: CancellationToken,
    running: Mutex<BTreeMap<u64, Running>>,
    emptied: Notify,
}

struct Running {
    name: &'static str,
    abort: Option<AbortHandle>,
}

impl Tasks {
    /// A root scope.
    pub fn new() -> Self {
        let token = CancellationToken::new();
        let root = Root {
            token: token.clone(),
            next_id: AtomicU64::new(0),
            failure: OnceLock::new(),
            failed: CancellationToken::new(),
        };
        Self { scope: Scope::new(None, token), root: Arc::new(root) }
    }

    /// A scope inside this one: stopped with it, or alone.
    pub fn child(&self) -> Self {
        let token = self.scope.token.child_token();
        let scope = Scope::new(Some(self.scope.clone()), token);
        Self { scope, root: self.root.clone() }
    }

    /// Starts a task under a name for logs and reports.
    ///
    /// It should end once [`token`](Tasks::token) is cancelled. Must be called inside a runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = self.root.next_id.fetch_add(1, Ordering::Relaxed);
        let leave = Leave { id, scope: self.scope.clone() };
        let root = self.root.clone();
        // Combinators, not an async block: that would hold the future twice.
        let watched = AssertUnwindSafe(future).catch_unwind().map(move |ended| {
            if let Err(panic) = ended {
                root.fail(Failure { task: name }, panic.as_ref());
            }
            drop(leave);
        });
        // Listed before it starts, for it may be over, and off the lists, before spawn returns.
        for scope in self.scope.lineage() {
            scope.running().insert(id, Running { name, abort: None });
        }
        let abort = tokio::spawn(watched).abort_handle();
        for scope in self.scope.lineage() {
            if let Some(running) = scope.running().get_mut(&id) {
                running.abort = Some(abort.clone());
            }
        }
    }

    /// Cancelled when this scope or one around it should stop.
    pub fn token(&self) -> &CancellationToken {
        &self.scope.token
    }

    /// Tells every task of this scope to stop.
    pub fn cancel(&self) {
        self.scope.token.cancel();
    }

    /// Ends every task of this scope where it stands, as a kill would.
    pub fn abort(&self) {
        self.cancel();
        let aborts: Vec<_> = self.scope.running().values().filter_map(|task| task.abort.clone()).collect();
        for abort in aborts {
            abort.abort();
        }
    }

    /// Tells every task to stop and waits for them, at most for `grace`.
    ///
    /// # Errors
    /// The tasks that went on; they still run, and may be [aborted](Tasks::abort).
    pub async fn drain(&self, grace: Duration) -> Result<(), Unfinished> {
        self.cancel();
        match tokio::time::timeout(grace, self.scope.wait_until_empty()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Unfinished { tasks: self.scope.names() }),
        }
    }

    /// How many tasks run in this scope.
    pub fn running(&self) -> usize {
        self.scope.running().len()
    }

    /// Completes once a task of this tree has panicked; never if none does.
    pub async fn failed(&self) -> Failure {
        self.root.failed.cancelled().await;
        *self.root.failure.get().expect("set before the token is cancelled")
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Root {
    fn fail(&self, failure: Failure, panic: &(dyn Any + Send)) {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(task = failure.task, panic = text.unwrap_or("?"), "task panicked, stopping");
        // Only the first failure is the cause; later ones follow from it.
        let _ = self.failure.set(failure);
        self.failed.cancel();
        self.token.cancel();
    }
}

impl Scope {
    fn new(parent: Option<Arc<Scope>>, token: CancellationToken) -> Arc<Self> {
        Arc::new(Self { parent, token, running: Mutex::default(), emptied: Notify::new() })
    }

    /// This scope, the one around it, and so on to the root.
    fn lineage(&self) -> impl Iterator<Item = &Scope> {
        std::iter::successors(Some(self), |scope| scope.parent.as_deref())
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, id: u64) {
        for scope in self.lineage() {
            let mut running = scope.running();
            running.remove(&id);
            if running.is_empty() {
                scope.emptied.notify_waiters();
            }
        }
    }

    async fn wait_until_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.running().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn names(&self) -> Vec<(&'static str, usize)> {
        let mut names = BTreeMap::<_, usize>::new();
        for task in self.running().values() {
            *names.entry(task.name).or_default() += 1;
        }
        names.into_iter().collect()
    }
}

/// Takes a task off its lists however it ends: done, panicked or aborted.
struct Leave {
    id: u64,
    scope: Arc<Scope>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.scope.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_tasks_that_heed_the_token() {
        let tasks = Tasks::new();
        let token = tasks.token().clone();
        tasks.spawn("polite", async move { token.cancelled().await });

        assert_eq!(tasks.drain(GRACE).await, Ok(()));
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn drain_names_the_tasks_that_went_on() {
        let tasks = Tasks::new();
        tasks.spawn("stuck", pending());
        tasks.spawn("deaf", pending());
        tasks.child().spawn("stuck", pending());

        let unfinished = tasks.drain(GRACE).await.unwrap_err();

        assert_eq!(unfinished.tasks, [("deaf", 1), ("stuck", 2)]);
        assert_eq!(unfinished.to_string(), "tasks did not stop: deaf (1), stuck (2)");
    }

    #[tokio::test(start_paused = true)]
    async fn aborted_tasks_are_gone() {
        let tasks = Tasks::new();
        tasks.child().spawn("stuck", pending());

        tasks.abort();

        assert_eq!(tasks.drain(GRACE).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_stops_alone_and_leaves_its_parent_running() {
        let tasks = Tasks::new();
        tasks.spawn("parent", pending());
        let child = tasks.child();
        let token = child.token().clone();
        child.spawn("child", async move { token.cancelled().await });
        assert_eq!(tasks.running(), 2);

        assert_eq!(child.drain(GRACE).await, Ok(()));

        assert_eq!(tasks.running(), 1);
        assert!(!tasks.token().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_stops_the_whole_tree_and_names_the_task() {
        let tasks = Tasks::new();
        let child = tasks.child();
        child.spawn("fragile", async { panic!("on purpose") });

        assert_eq!(tasks.failed().await, Failure { task: "fragile" });

        assert!(tasks.token().is_cancelled());
        assert_eq!(tasks.drain(GRACE).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_panic_there_is_no_failure() {
        let tasks = Tasks::new();
        tasks.spawn("fine", async {});

        assert_eq!(tasks.drain(GRACE).await, Ok(()));

        assert_eq!(tasks.failed().now_or_never(), None);
    }
}
