//! Searches a model for a broken promise, within bounds of states and time.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hasp_proto::time::Time;
use hasp_rt::clock::{Clock as _, SystemClock};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Between two looks at how far a search has come.
const LOOK: Duration = Duration::from_millis(10);
/// Walks to where a wide search begins again.
const WALKS: u32 = 48;
/// Steps of the longest of them.
const WALK_MAX: u32 = 24;

/// A model that can be searched. It offers no actions while it is told to [`Stop`].
pub trait Searched: Model<State: Clone + PartialEq + Hash + Send + Sync, Action: Clone + PartialEq>
where
    Self: Clone + Send + Sync + 'static,
{
    /// What it is called.
    fn name(&self) -> &'static str;

    /// What ends a search of it.
    fn stop(&self) -> &Stop;

    /// What happens when these actions are taken from the beginning, line by line.
    fn story(&self, actions: &[Self::Action]) -> Vec<String>;
}

/// A model that can be searched from elsewhere than its beginning.
pub trait Walked: Searched {
    /// The same model after so many steps, which follow from the number of the walk.
    fn after_walk(&self, walk: u64, steps: usize) -> Self;

    /// After how many steps it begins.
    fn opening(&self) -> usize;
}

/// The one of these actions that a walk takes which draws that number.
pub(super) fn drawn<A: Copy>(actions: &[A], number: u64) -> Option<A> {
    let at = usize::try_from(number >> 1).ok()?.checked_rem(actions.len())?;
    Some(actions[at])
}

/// Ends a search early.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether nothing more is to be looked at.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, stops: bool) {
        self.0.store(stops, Ordering::Relaxed);
    }
}

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// It ends after about so many different states.
    pub states: usize,
    /// It ends after that long.
    pub time: Duration,
    /// In parallel.
    pub threads: usize,
}

/// In which order states are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The shortest way to a broken promise is found first; what is not looked at yet takes memory.
    Breadth,
    /// Takes little memory.
    Depth,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Of the model.
    pub name: &'static str,
    /// Different states.
    pub states: usize,
    /// States, those that were reached in several ways counted each time.
    pub reached: usize,
    /// How many states the longest way has.
    pub depth: usize,
    /// All states within the bounds were looked at.
    pub is_complete: bool,
    /// How long it took.
    pub took: Duration,
    /// The first promise that was found broken.
    pub counterexample: Option<Counterexample>,
    /// What came about nowhere.
    pub missing: Vec<&'static str>,
}

/// A way to a broken promise.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Which.
    pub promise: &'static str,
    /// How many actions it takes.
    pub actions: usize,
    /// What happens, line by line.
    pub story: Vec<String>,
}

impl Found {
    /// Different states in a second.
    pub fn per_second(&self) -> f64 {
        self.states as f64 / self.took.as_secs_f64().max(1e-3)
    }

    /// With what a search found that began after so many steps of the same model.
    fn with(self, other: Self, opening: usize) -> Self {
        let counterexample =
            other.counterexample.map(|it| Counterexample { actions: it.actions + opening, ..it });
        let missing = |name: &&str| other.missing.contains(name);
        Self {
            states: self.states + other.states,
            reached: self.reached + other.reached,
            depth: self.depth.max(other.depth + opening),
            took: self.took + other.took,
            counterexample: self.counterexample.or(counterexample),
            missing: self.missing.into_iter().filter(missing).collect(),
            ..self
        }
    }
}

/// Searches depth first, half of what the limits allow from the beginning of the model and the rest from where walks lead
/// to: one search that goes deep and does not come to its end sees little but the ends of a few ways. States that are found
/// from several places count each time.
///
/// # Panics
/// If a machine panics in some state.
pub fn search_widely<M: Walked>(model: &M, limits: Limits, mut progress: impl FnMut(usize)) -> Found {
    let half = Limits { states: limits.states.div_ceil(2), time: limits.time / 2, ..limits };
    let mut found = search(model, Order::Depth, half, &mut progress);
    for walk in 0..WALKS {
        if found.is_complete || found.counterexample.is_some() {
            break;
        }
        let walks_left = WALKS - walk;
        let limits = Limits {
            states: limits.states.saturating_sub(found.states) / walks_left as usize,
            time: limits.time.saturating_sub(found.took) / walks_left,
            ..limits
        };
        // The last ones are the shortest: what long ones leave of the limits is not too much for them.
        let elsewhere = model.after_walk(walk.into(), (WALK_MAX - walk % WALK_MAX) as usize);
        let before = found.states;
        let piece = search(&elsewhere, Order::Depth, limits, |states| progress(before + states));
        found = found.with(piece, elsewhere.opening());
    }
    found
}

/// Searches; tells `progress` of the states so far, now and then.
///
/// # Panics
/// If a machine panics in some state.
pub fn search<M: Searched>(model: &M, order: Order, limits: Limits, progress: impl FnMut(usize)) -> Found {
    let began = SystemClock.now();
    model.stop().set(false);
    let builder = model.clone().checker().threads(limits.threads);
    let builder = builder.finish_when(HasDiscoveries::AnyFailures);
    match order {
        Order::Breadth => watch(model, builder.spawn_bfs(), began, limits, progress),
        Order::Depth => watch(model, builder.spawn_dfs(), began, limits, progress),
    }
}

fn watch<M: Searched>(
    model: &M,
    checker: impl Checker<M>,
    began: Time,
    limits: Limits,
    mut progress: impl FnMut(usize),
) -> Found {
    let elapsed = || SystemClock.now().saturating_since(began);
    while !checker.is_done() {
        std::thread::sleep(LOOK);
        let states = checker.unique_state_count();
        if states >= limits.states || elapsed() >= limits.time {
            model.stop().set(true);
        }
        progress(states);
    }
    let checker = checker.join();
    let is_complete = !model.stop().is_set();
    let took = elapsed();
    // Ways are found again by taking them.
    model.stop().set(false);
    let discoveries = checker.discoveries();
    let names: BTreeSet<_> = discoveries.keys().copied().collect();
    let properties = model.properties();
    let broken =
        properties.iter().find(|it| it.expectation == Expectation::Always && names.contains(it.name));
    let counterexample = broken.map(|property| {
        let actions = discoveries[property.name].clone().into_actions();
        Counterexample { promise: property.name, actions: actions.len(), story: model.story(&actions) }
    });
    let is_missing =
        |it: &&stateright::Property<M>| it.expectation == Expectation::Sometimes && !names.contains(it.name);
    Found {
        name: model.name(),
        states: checker.unique_state_count(),
        reached: checker.state_count(),
        depth: checker.max_depth(),
        is_complete: is_complete && counterexample.is_none(),
        took,
        counterexample,
        missing: properties.iter().filter(is_missing).map(|it| it.name).collect(),
    }
}
