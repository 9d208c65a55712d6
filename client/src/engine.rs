//! Drives one application's sessions: calls in, answers out, with links and alarms in between.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hasp_proto::client::{Event, Status};
use hasp_proto::error::Error;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::CellName;
use hasp_proto::machine::Core as _;
use hasp_proto::request::{Answer, Op};
use hasp_proto::stream::Down;
use hasp_router::links::{Connections, LinkEvents, Links};
use hasp_router::upstream::{Held, LinkId, UpstreamCore};
use hasp_rt::driver::{Driver, Effects};
use hasp_rt::env::Env;
use tokio::sync::{Notify, oneshot};

use crate::core::{ApplicationCore, CallId, Input, Output, acquires};
use crate::error::CallError;
use crate::events::{Announcer, Events};
use crate::timers::{Alarm, Sleeper, Timers};

/// What came of the first attempt to be welcomed.
pub(crate) type Welcomed = Result<(), Error>;

/// The sessions of one application, running.
pub(crate) struct Engine {
    this: Weak<Self>,
    driver: Driver<ApplicationCore, Outside>,
    alarm: Alarm,
    next_call: AtomicU64,
}

/// Where outputs go.
struct Outside {
    links: Links,
    /// Who waits, by call.
    callers: Mutex<BTreeMap<CallId, oneshot::Sender<Answer>>>,
    announcer: Announcer,
    /// Who waits for the first Welcome.
    welcome: Mutex<Option<oneshot::Sender<Welcomed>>>,
    ended: Notify,
}

impl Engine {
    /// Starts the sessions that begin at once. `welcomed` hears of the first Welcome, or of the end
    /// that came before it.
    pub(crate) fn start(
        env: &Env,
        upstream: UpstreamCore,
        connections: Connections,
        timers: &Timers,
        welcomed: oneshot::Sender<Welcomed>,
    ) -> Arc<Self> {
        let engine = Arc::new_cyclic(|engine: &Weak<Self>| {
            let outside = Outside {
                links: Links::new(connections, engine.clone()),
                callers: Mutex::default(),
                announcer: Announcer::default(),
                welcome: Mutex::new(Some(welcomed)),
                ended: Notify::new(),
            };
            let driver = Driver::new(ApplicationCore::new(upstream), outside, env.clock.clone());
            Self { this: engine.clone(), driver, alarm: timers.alarm(), next_call: AtomicU64::new(1) }
        });
        engine.inputs([]);
        engine
    }

    /// Asks something and waits for the answer. Dropping the future gives up what it would bring.
    pub(crate) async fn ask(&self, op: Op) -> Result<Answer, CallError> {
        let call = CallId(self.next_call.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        self.outside().callers().insert(call, sender);
        let mut waiting =
            Waiting { engine: self, call, acquires: acquires(&op).cloned(), answer, is_heard: false };
        self.input(Input::Ask(call, op));
        let answer = (&mut waiting.answer).await;
        waiting.is_heard = true;
        answer.map_err(|_| CallError::session_over())
    }

    /// Asks something whose answer is of no interest.
    pub(crate) fn tell(&self, op: Op) {
        self.input(Input::Tell(op));
    }

    /// Ends the sessions; the hosts are told if they can be.
    pub(crate) fn end(&self) {
        self.input(Input::End);
    }

    /// Completes once the sessions are over, after [`Engine::end`].
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.outside().ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.look(UpstreamCore::is_over) {
                return;
            }
            ended.await;
        }
    }

    /// Whether nothing can be asked any more.
    pub(crate) fn is_over(&self) -> bool {
        self.look(|upstream| {
            let is_only_over = |held: Held<'_>| held.cell.is_none() && held.status == Status::Over;
            upstream.is_over() || upstream.sessions().any(is_only_over)
        })
    }

    pub(crate) fn look<R>(&self, look: impl FnOnce(&UpstreamCore) -> R) -> R {
        self.driver.inspect(|core| look(core.upstream()))
    }

    pub(crate) fn events(&self) -> Events {
        self.outside().announcer.listen()
    }

    fn outside(&self) -> &Outside {
        self.driver.effects()
    }

    fn input(&self, input: Input) {
        self.inputs([input]);
    }

    fn inputs(&self, inputs: impl IntoIterator<Item = Input>) {
        self.driver.inputs(inputs);
        if let Some(this) = self.this.upgrade() {
            let deadline = || self.driver.inspect(|core| core.poll_timeout()).map(|(at, _)| at);
            self.alarm.set(deadline, this);
        }
    }
}

impl Sleeper for Engine {
    fn wake(self: Arc<Self>) {
        self.alarm.rung();
        self.inputs([]);
    }
}

impl LinkEvents for Engine {
    fn connected(&self, link: LinkId) {
        self.input(Input::Connected(link));
    }

    fn received(&self, link: LinkId, items: Vec<Down>) {
        self.inputs(items.into_iter().map(|down| Input::Received(link.clone(), down)));
    }

    fn disconnected(&self, link: LinkId) {
        self.input(Input::Disconnected(link));
    }
}

impl Outside {
    fn callers(&self) -> MutexGuard<'_, BTreeMap<CallId, oneshot::Sender<Answer>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happened(&self, cell: Option<CellName>, event: &Event) {
        match event {
            Event::Welcomed { .. } => self.tell_welcome(|| Ok(())),
            Event::Expired(error) => {
                self.tell_welcome(|| Err(error.clone()));
                self.ended.notify_waiters();
            }
            Event::Closed => self.ended.notify_waiters(),
            Event::Extended | Event::Jeopardy | Event::Safe | Event::News(_) => {}
        }
        self.announcer.announce(cell, event);
    }

    fn tell_welcome(&self, welcomed: impl FnOnce() -> Welcomed) {
        let waiting = self.welcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            // Who does not wait for it any more does not need it.
            let _ = waiting.send(welcomed());
        }
    }
}

impl Effects<Output> for Outside {
    fn effect(&self, output: Output) {
        match output {
            Output::Connect(link, address) => self.links.connect(link, address),
            Output::Disconnect(link) => self.links.disconnect(&link),
            Output::Send(link, up) => self.links.send(&link, up),
            Output::Answered(call, answer) => {
                let caller = self.callers().remove(&call);
                if let Some(caller) = caller {
                    // A caller that is just going looks into the channel once more.
                    let _ = caller.send(answer);
                }
            }
            Output::Event(cell, event) => self.happened(cell, &event),
        }
    }
}

/// A caller that waits. If it goes away first, what the answer brings is given up.
struct Waiting<'a> {
    engine: &'a Engine,
    call: CallId,
    /// The handle whose lock is asked for.
    acquires: Option<HandleToken>,
    answer: oneshot::Receiver<Answer>,
    is_heard: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_heard {
            return;
        }
        // After this no answer is handed out; one may have been before.
        self.engine.input(Input::Abandon(self.call));
        self.engine.outside().callers().remove(&self.call);
        if let Ok(answer) = self.answer.try_recv() {
            self.engine.input(Input::Unheard(self.acquires.take(), answer));
        }
    }
}
