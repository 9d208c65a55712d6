//! One task that wakes any number of clients at their deadlines.
//!
//! A client with a deadline is kept alive by it: that is how a dropped client still gets to say
//! good-bye to its host.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hasp_proto::time::Time;
use hasp_rt::clock::Clock;
use hasp_rt::env::Env;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Wakes clients. Thousands of clients in one process should share one; a clone is the same.
#[derive(Clone)]
pub struct Timers {
    wheel: Arc<Wheel>,
    /// Stops the task once the last clone, and with it the last client, is gone.
    _alive: Arc<DropGuard>,
}

/// Somebody who has a deadline.
pub(crate) trait Sleeper: Send + Sync {
    /// Its deadline, as armed, has come. It is armed no more.
    fn wake(self: Arc<Self>);
}

struct Wheel {
    clock: Arc<dyn Clock>,
    next_id: AtomicU64,
    sleepers: Mutex<Sleepers>,
    /// There is an earlier deadline than before.
    changed: Notify,
}

#[derive(Default)]
struct Sleepers {
    by_deadline: BTreeMap<(Time, u64), Arc<dyn Sleeper>>,
    /// Nobody will be woken any more, so nobody is kept.
    is_stopped: bool,
}

/// One sleeper's place.
pub(crate) struct Alarm {
    timers: Timers,
    id: u64,
    armed: Mutex<Option<Time>>,
}

impl Timers {
    /// Starts the task. Must be called inside a runtime.
    pub fn new(env: &Env) -> Self {
        let wheel = Arc::new(Wheel {
            clock: env.clock.clone(),
            next_id: AtomicU64::new(0),
            sleepers: Mutex::default(),
            changed: Notify::new(),
        });
        let token = env.tasks.token().child_token();
        env.tasks.spawn("client-timers", wheel.clone().run(token.clone()));
        Self { wheel, _alive: Arc::new(token.drop_guard()) }
    }

    pub(crate) fn alarm(&self) -> Alarm {
        let id = self.wheel.next_id.fetch_add(1, Ordering::Relaxed);
        Alarm { timers: self.clone(), id, armed: Mutex::default() }
    }
}

impl Alarm {
    /// Wakes `sleeper` at its deadline or before, or lets go of it if it has none.
    ///
    /// The deadline is asked for here, so that of two who set the alarm the later one is right.
    pub(crate) fn set(&self, deadline: impl FnOnce() -> Option<Time>, sleeper: Arc<dyn Sleeper>) {
        let mut armed = self.armed();
        match (*armed, deadline()) {
            (None, None) => {}
            // Too early is no harm, and cheaper than to move with every lease.
            (Some(at), Some(deadline)) if at <= deadline => {}
            (before, deadline) => {
                *armed = deadline;
                let previous = self.timers.wheel.replace(self.id, before, deadline, sleeper);
                drop(armed);
                // May be the last of its sleeper, which must not go while anything is locked.
                drop(previous);
            }
        }
    }

    /// The alarm has rung.
    pub(crate) fn rung(&self) {
        *self.armed() = None;
    }

    fn armed(&self) -> MutexGuard<'_, Option<Time>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wheel {
    fn replace(
        &self,
        id: u64,
        before: Option<Time>,
        deadline: Option<Time>,
        sleeper: Arc<dyn Sleeper>,
    ) -> Option<Arc<dyn Sleeper>> {
        let mut sleepers = self.sleepers();
        let Sleepers { by_deadline, is_stopped } = &mut *sleepers;
        let previous = before.and_then(|at| by_deadline.remove(&(at, id)));
        if let Some(at) = deadline
            && !*is_stopped
        {
            let is_first = by_deadline.keys().next().is_none_or(|first| (at, id) < *first);
            by_deadline.insert((at, id), sleeper);
            if is_first {
                self.changed.notify_one();
            }
        }
        previous
    }

    async fn run(self: Arc<Self>, token: CancellationToken) {
        loop {
            while let Some(due) = self.take_due() {
                due.wake();
            }
            let next = self.sleepers().by_deadline.keys().next().map(|(at, _)| *at);
            let wait = async {
                match next {
                    Some(at) => self.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = token.cancelled() => break,
                () = self.changed.notified() => {}
                () = wait => {}
            }
        }
        let stopped = Sleepers { by_deadline: BTreeMap::new(), is_stopped: true };
        let forgotten = std::mem::replace(&mut *self.sleepers(), stopped);
        drop(forgotten);
    }

    fn take_due(&self) -> Option<Arc<dyn Sleeper>> {
        let mut sleepers = self.sleepers();
        let first = sleepers.by_deadline.first_entry()?;
        (first.key().0 <= self.clock.now()).then(|| first.remove())
    }

    fn sleepers(&self) -> MutexGuard<'_, Sleepers> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
