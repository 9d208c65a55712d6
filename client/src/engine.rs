//! Drives one application's sessions: calls in, answers out, with links and alarms in between.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hasp_proto::client::{Event, Status};
use hasp_proto::error::Error;
use hasp_proto::id::CellName;
use hasp_proto::machine::Core as _;
use hasp_proto::request::Answer;
use hasp_proto::stream::Down;
use hasp_router::links::{Connections, LinkEvents, Links};
use hasp_router::upstream::{Held, LinkId, UpstreamCore};
use hasp_rt::clock::Clock;
use hasp_rt::driver::{Driver, Effects};
use hasp_rt::env::Env;
use hasp_rt::telemetry::trace::{self, Stage};
use tokio::sync::{Notify, oneshot};

use crate::connect::Names;
use crate::core::{
    ApplicationCore, Brought, Call, CallId, CoreOptions, HandleNumber, Input, OpenHandle, Output,
};
use crate::error::CallError;
use crate::events::{Announcer, Events};
use crate::handle_state::HandleState;
use crate::timers::{Alarm, Sleeper, Timers};
use crate::view::Views;

/// What came of the first attempt to be welcomed.
pub(crate) type Welcomed = Result<(), Error>;

/// The sessions of one application, running.
pub(crate) struct Engine {
    this: Weak<Self>,
    driver: Driver<ApplicationCore, Outside>,
    clock: Arc<dyn Clock>,
    alarm: Alarm,
    next_call: AtomicU64,
}

/// Where outputs go.
struct Outside {
    links: Links,
    /// Who waits, by call.
    callers: Mutex<BTreeMap<CallId, oneshot::Sender<Heard>>>,
    /// Handles that are open.
    handles: Mutex<BTreeMap<HandleNumber, Arc<HandleState>>>,
    views: Views,
    announcer: Announcer,
    /// To be looked up again in jeopardy, by the engine.
    names: (Names, Weak<Engine>),
    /// Who waits for the first Welcome.
    welcome: Mutex<Option<oneshot::Sender<Welcomed>>>,
    ended: Notify,
}

/// An answer, and the handle that it brought.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) answer: Answer,
    pub(crate) handle: Option<Arc<HandleState>>,
}

impl Engine {
    /// Starts the sessions that begin at once. `welcomed` hears of the first Welcome, or of the end
    /// that came before it.
    pub(crate) fn start(
        env: &Env,
        upstream: UpstreamCore,
        options: &CoreOptions,
        connections: Connections,
        timers: &Timers,
        (welcomed, names): (oneshot::Sender<Welcomed>, Names),
    ) -> Arc<Self> {
        let engine = Arc::new_cyclic(|engine: &Weak<Self>| {
            let outside = Outside {
                links: Links::new(connections, engine.clone()),
                callers: Mutex::default(),
                handles: Mutex::default(),
                views: Views::default(),
                announcer: Announcer::default(),
                names: (names, engine.clone()),
                welcome: Mutex::new(Some(welcomed)),
                ended: Notify::new(),
            };
            let driver = Driver::new(ApplicationCore::new(upstream, options), outside, env.clock.clone());
            Self {
                this: engine.clone(),
                driver,
                clock: env.clock.clone(),
                alarm: timers.alarm(),
                next_call: AtomicU64::new(1),
            }
        });
        engine.inputs([]);
        engine
    }

    /// Asks something and waits for the answer. Dropping the future gives up what it would bring.
    pub(crate) async fn ask(&self, mut call: Call) -> Result<Heard, CallError> {
        let step = trace::begin(Stage::Client, call.op.name());
        let _step = step.map(|(step, sent)| {
            call.trace = Some(sent);
            step
        });
        let id = CallId(self.next_call.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        self.outside().callers().insert(id, sender);
        let lock_of = call.acquires().map(|(handle, _)| handle);
        let mut waiting = Waiting { engine: self, id, lock_of, answer, is_heard: false };
        self.input(Input::Ask(id, call));
        let heard = (&mut waiting.answer).await;
        waiting.is_heard = true;
        heard.map_err(|_| CallError::session_over())
    }

    /// Closes a handle; nobody waits for that.
    pub(crate) fn close(&self, handle: HandleNumber) {
        self.input(Input::Close(handle));
    }

    /// What time it is.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
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
        self.input(Input::Received(link, items));
    }

    fn disconnected(&self, link: LinkId) {
        self.input(Input::Disconnected(link));
    }
}

impl Outside {
    fn callers(&self) -> MutexGuard<'_, BTreeMap<CallId, oneshot::Sender<Heard>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<HandleNumber, Arc<HandleState>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, number: HandleNumber) -> Option<Arc<HandleState>> {
        self.handles().get(&number).cloned()
    }

    fn answered(&self, id: CallId, answer: Answer, handle: Option<Arc<HandleState>>) {
        if let Some(position) = &answer.position {
            self.views.saw(position);
        }
        let caller = self.callers().remove(&id);
        if let Some(caller) = caller {
            // A caller that is just going looks into the channel once more.
            let _ = caller.send(Heard { answer, handle });
        }
    }

    fn opened(&self, id: CallId, answer: Answer, opened: OpenHandle) {
        let number = opened.number;
        let handle = Arc::new(HandleState::new(opened, &self.views));
        self.handles().insert(number, handle.clone());
        self.answered(id, answer, Some(handle));
    }

    fn closed(&self, number: HandleNumber) {
        let handle = self.handles().remove(&number);
        if let Some(handle) = handle {
            handle.teller.end();
        }
    }

    fn happened(&self, cell: Option<CellName>, event: &Event) {
        match event {
            Event::Welcomed { .. } => self.tell_welcome(|| Ok(())),
            Event::Expired(error) => {
                self.tell_welcome(|| Err(error.clone()));
                self.ended.notify_waiters();
            }
            Event::Closed => self.ended.notify_waiters(),
            Event::Jeopardy => self.look_up_names(),
            Event::Extended | Event::CacheLapsed | Event::Safe | Event::CellLost(_) | Event::News(..) => {}
        }
        self.announcer.announce(cell, event);
    }

    /// No host was found in a whole lease: the names may stand for others by now.
    fn look_up_names(&self) {
        let (names, engine) = self.names.clone();
        if names.is_empty() {
            return;
        }
        let tasks = names.env().tasks.clone();
        tasks.spawn("look-up", async move {
            let hosts = names.look_up().await;
            if let Some(engine) = engine.upgrade() {
                engine.input(Input::Hosts(hosts));
            }
        });
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
            Output::Answered(id, answer) => self.answered(id, answer, None),
            Output::Opened(id, answer, opened) => self.opened(id, answer, opened),
            Output::Event(cell, event) => self.happened(cell, &event),
            Output::Tell(number, event) => {
                if let Some(handle) = self.handle(number) {
                    handle.teller.tell(&event);
                }
            }
            Output::Over(number) => {
                if let Some(handle) = self.handle(number) {
                    handle.end();
                }
            }
            Output::Closed(number) => self.closed(number),
            Output::Show(shown) => self.views.show(*shown),
            Output::Hide(name) => self.views.hide(&name),
            Output::CacheLease(cell, end) => self.views.set_cache_lease(cell, end),
        }
    }
}

/// A caller that waits. If it goes away first, what the answer brings is given up.
struct Waiting<'a> {
    engine: &'a Engine,
    id: CallId,
    /// The handle whose lock is asked for.
    lock_of: Option<HandleNumber>,
    answer: oneshot::Receiver<Heard>,
    is_heard: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_heard {
            return;
        }
        // After this no answer is handed out; one may have been before.
        self.engine.input(Input::Abandon(self.id));
        self.engine.outside().callers().remove(&self.id);
        if let Ok(Heard { answer, handle }) = self.answer.try_recv() {
            let lock_of = self.lock_of.filter(|_| answer.result.is_ok());
            let handle = handle.map(|handle| handle.number);
            self.engine.input(Input::Unheard(Brought { handle, lock_of }));
        }
    }
}
