//! Drives one pure machine: brings it inputs and the time, carries its outputs out in order.
//!
//! The machine sits behind one private mutex. Whoever has an input takes the lock, lets the
//! machine handle it and hands each output to the [`Effects`] before letting go, so outputs are
//! carried out in the order in which the machine decided them, whichever thread it ran on. The
//! driver decides nothing, and one task per machine waits for its next deadline.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hasp_proto::machine::Core;
use hasp_proto::time::{Time, micros};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// Deadlines are rounded up to multiples of this, so that those close together share a wake-up.
/// Tokio's own timers are no finer.
const GRANULARITY: Duration = Duration::from_millis(1);

/// How often in a row a machine may say that something is still due before it is a bug.
const ROUNDS_MAX: usize = 64;

/// Carries outputs out.
///
/// Called while the machine is locked, so it must only enqueue: never block, and never call the
/// driver, which would wait for itself for ever. What has an answer is started as a task, and the
/// task brings the answer as an input later.
pub trait Effects<Output>: Send + Sync {
    /// Carries one output out. Called in the order of the machine's decisions.
    fn effect(&self, output: Output);
}

impl<Output, F: Fn(Output) + Send + Sync> Effects<Output> for F {
    fn effect(&self, output: Output) {
        self(output);
    }
}

/// A machine, its effects, and the clock that both go by.
pub struct Driver<C: Core, E: Effects<C::Output>> {
    machine: Mutex<Machine<C>>,
    effects: E,
    clock: Arc<dyn Clock>,
    rearm: Notify,
}

struct Machine<C> {
    core: C,
    /// The latest time the core was told.
    now: Time,
    /// What the core asked for last.
    deadline: Option<Time>,
    /// When the timer task wakes by itself; `None` while it waits to be told.
    armed: Option<Time>,
}

impl<C: Core, E: Effects<C::Output>> Driver<C, E> {
    /// Takes a machine over. Nothing happens by time until [`run_timers`](Self::run_timers) runs.
    pub fn new(core: C, effects: E, clock: Arc<dyn Clock>) -> Self {
        let deadline = core.poll_timeout().map(|(deadline, _)| deadline);
        let machine = Machine { core, now: clock.now(), deadline, armed: None };
        Self { machine: Mutex::new(machine), effects, clock, rearm: Notify::new() }
    }

    /// Lets the machine handle one input, after whatever had become due before it.
    pub fn input(&self, input: C::Input) {
        self.inputs(std::iter::once(input));
    }

    /// Lets the machine handle several inputs at one time, with nothing else in between.
    ///
    /// The iterator runs while the machine is locked: it must not call the driver.
    pub fn inputs(&self, inputs: impl IntoIterator<Item = C::Input>) {
        let mut machine = self.lock();
        let now = machine.advance(self.clock.now());
        if machine.is_due(now) {
            machine.core.handle_timeout(now);
            self.carry_out(&mut machine);
        }
        for input in inputs {
            machine.core.handle(now, input);
            self.carry_out(&mut machine);
        }
        self.settle(&mut machine, now);
    }

    /// Looks at the machine, for status and tests. Must not call the driver.
    pub fn inspect<R>(&self, look: impl FnOnce(&C) -> R) -> R {
        look(&self.lock().core)
    }

    /// What carries the outputs out.
    pub fn effects(&self) -> &E {
        &self.effects
    }

    /// Lets the machine act at its deadlines until `token` is cancelled. To be run by one task.
    pub async fn run_timers(&self, token: CancellationToken) {
        loop {
            let deadline = self.fire();
            let wait = async {
                match deadline {
                    Some(deadline) => self.clock.sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = self.rearm.notified() => {}
                () = wait => {}
            }
        }
    }

    /// Does what is due; says when to come again.
    fn fire(&self) -> Option<Time> {
        let mut machine = self.lock();
        let now = machine.advance(self.clock.now());
        if machine.is_due(now) {
            machine.core.handle_timeout(now);
            self.carry_out(&mut machine);
            self.settle(&mut machine, now);
        }
        machine.armed = machine.deadline.map(round_up);
        machine.armed
    }

    /// Asks the machine for its next deadline, acts on those already reached, and wakes the timer
    /// task if it would wake too late.
    fn settle(&self, machine: &mut Machine<C>, now: Time) {
        machine.ask_deadline();
        let mut rounds = 0;
        while machine.is_due(now) {
            if rounds == ROUNDS_MAX {
                machine.put_off(now);
                break;
            }
            rounds += 1;
            machine.core.handle_timeout(now);
            self.carry_out(machine);
            machine.ask_deadline();
        }
        let wanted = machine.deadline.map(round_up);
        let is_sooner = wanted.is_some_and(|wanted| machine.armed.is_none_or(|armed| wanted < armed));
        if is_sooner {
            machine.armed = wanted;
            self.rearm.notify_one();
        }
    }

    fn carry_out(&self, machine: &mut Machine<C>) {
        while let Some(output) = machine.core.poll_output() {
            self.effects.effect(output);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Machine<C>> {
        self.machine.lock().expect("a machine that panicked has ended its process")
    }
}

impl<C: Core> Machine<C> {
    /// The time for this step; never before that of an earlier one.
    fn advance(&mut self, now: Time) -> Time {
        self.now = self.now.max(now);
        self.now
    }

    fn is_due(&self, now: Time) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    fn ask_deadline(&mut self) {
        self.deadline = self.core.poll_timeout().map(|(deadline, _)| deadline);
    }

    /// Keeps a machine that makes no progress from eating a core; in tests it is an error.
    fn put_off(&mut self, now: Time) {
        let why = self.core.poll_timeout().map_or("nothing", |(_, why)| why);
        debug_assert!(false, "handle_timeout makes no progress: {why} stays due");
        tracing::warn!(why, "handle_timeout makes no progress");
        self.deadline = Some(now + GRANULARITY);
    }
}

fn round_up(deadline: Time) -> Time {
    let step = micros(GRANULARITY);
    Time::from_micros(deadline.as_micros().div_ceil(step).saturating_mul(step))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::clock::TokioClock;
    use crate::tasks::Tasks;

    /// Rings at each time it is given, and says at what time it handled what.
    #[derive(Default)]
    struct Alarms {
        due: Vec<Time>,
        outputs: VecDeque<(Time, &'static str)>,
        is_stuck: bool,
        rung: usize,
    }

    enum Input {
        RingAt(Time),
        Say(&'static str),
        GetStuck,
    }

    impl Core for Alarms {
        type Input = Input;
        type Output = (Time, &'static str);

        fn handle(&mut self, now: Time, input: Input) {
            match input {
                Input::RingAt(time) => self.due.push(time),
                Input::Say(word) => self.outputs.push_back((now, word)),
                Input::GetStuck => self.is_stuck = true,
            }
        }

        fn handle_timeout(&mut self, now: Time) {
            self.rung += 1;
            self.due.retain(|due| {
                let rings = *due <= now;
                if rings {
                    self.outputs.push_back((now, "ring"));
                }
                !rings
            });
        }

        fn poll_output(&mut self) -> Option<(Time, &'static str)> {
            self.outputs.pop_front()
        }

        fn poll_timeout(&self) -> Option<(Time, &'static str)> {
            if self.is_stuck {
                return Some((Time::ZERO, "stuck"));
            }
            self.due.iter().min().map(|due| (*due, "alarm"))
        }
    }

    type Heard = Arc<Mutex<Vec<(Time, &'static str)>>>;
    type AlarmDriver = Driver<Alarms, Box<dyn Fn((Time, &'static str)) + Send + Sync>>;

    fn t(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn driven() -> (Arc<AlarmDriver>, Heard, Arc<TokioClock>, Tasks) {
        let heard = Heard::default();
        let ears = heard.clone();
        let effects: Box<dyn Fn((Time, &'static str)) + Send + Sync> =
            Box::new(move |output| ears.lock().unwrap().push(output));
        let clock = Arc::new(TokioClock::new());
        let driver = Arc::new(Driver::new(Alarms::default(), effects, clock.clone()));
        let tasks = Tasks::new();
        let (timers, token) = (driver.clone(), tasks.token().clone());
        tasks.spawn("timers", async move { timers.run_timers(token).await });
        (driver, heard, clock, tasks)
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_rings_at_its_time() {
        let (driver, heard, clock, _tasks) = driven();

        driver.input(Input::RingAt(t(3_000)));
        clock.sleep_until(t(5_000)).await;

        assert_eq!(*heard.lock().unwrap(), [(t(3_000), "ring")]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_wakes_the_timer_task_early() {
        let (driver, heard, clock, _tasks) = driven();
        driver.input(Input::RingAt(t(3_000)));
        clock.sleep_until(t(1_000)).await;

        driver.input(Input::RingAt(t(2_000)));
        clock.sleep_until(t(5_000)).await;

        assert_eq!(*heard.lock().unwrap(), [(t(2_000), "ring"), (t(3_000), "ring")]);
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_within_a_millisecond_share_one_wake_up() {
        let (driver, heard, clock, _tasks) = driven();

        driver.inputs((1..=9).map(|n| Input::RingAt(Time::from_micros(7_000 + n * 100))));
        clock.sleep_until(t(50)).await;

        assert_eq!(heard.lock().unwrap().len(), 9);
        assert_eq!(driver.inspect(|alarms| alarms.rung), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_comes_before_a_later_input() {
        let (driver, heard, _, tasks) = driven();
        tasks.drain(Duration::from_secs(1)).await.unwrap();
        driver.input(Input::RingAt(t(10)));

        tokio::time::advance(Duration::from_millis(20)).await;
        driver.input(Input::Say("late"));

        assert_eq!(*heard.lock().unwrap(), [(t(20), "ring"), (t(20), "late")]);
    }

    #[tokio::test(start_paused = true)]
    async fn timers_stop_with_their_token() {
        let (driver, heard, clock, tasks) = driven();
        driver.input(Input::RingAt(t(3_000)));

        tasks.drain(Duration::from_secs(1)).await.unwrap();
        clock.sleep_until(t(5_000)).await;

        assert!(heard.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "stuck stays due")]
    async fn a_machine_that_makes_no_progress_is_found_out() {
        let (driver, ..) = driven();

        driver.input(Input::GetStuck);
    }
}
