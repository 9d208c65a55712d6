//! Steps of machines that were taken before. What a machine does follows from what it is, the time and what it is given; in a
//! search the same step is met again and again, in states that differ elsewhere.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use dashmap::DashMap;
use hasp_cell::master::{self, BatchId};
use hasp_cell::state::{AppliedOutcome, LogEntry};
use hasp_client::machine::{self, ApplicationCore};
use hasp_proto::machine::Core;
use hasp_proto::server::ConnectionId;
use hasp_proto::time::Time;
use hasp_router::relay::{self, RelayCore};
use hasp_router::upstream::LinkId;

use super::cell::Replica;
use super::hashed::{Hashed, fingerprint};
use super::time::drive;
use super::wires::{Downward, Sealed, Upward, sealed_up};
use super::world::Committed;

/// Steps of one kind that are remembered at most; then all are forgotten.
const STEPS_MAX: usize = 20_000;

/// What a machine wants.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "they are few and do not stay")]
pub enum Effect {
    /// Send this down, or close the connection after all that was sent.
    Down(ConnectionId, Sealed<Downward>),
    /// Send this up.
    Up(LinkId, Sealed<Upward>),
    /// Open a connection.
    Connect(LinkId, String),
    /// Give it up.
    Disconnect(LinkId),
    /// Append an entry.
    Propose(BatchId, LogEntry),
    /// Tell the application.
    Tell(machine::Output),
}

/// A machine whose steps are remembered.
pub trait Remembered: Core<Input: Debug> + Clone + Debug {
    /// What an output asks for, if it asks for anything here.
    fn effect(output: Self::Output) -> Option<Effect>;
}

impl Remembered for Replica {
    fn effect(output: master::Output) -> Option<Effect> {
        Some(match output {
            master::Output::Send(connection, down) => {
                Effect::Down(connection, Sealed::new(Downward::Item(down)))
            }
            master::Output::Close(connection) => Effect::Down(connection, Sealed::new(Downward::Gone)),
            master::Output::Traced(..) => return None,
            master::Output::Propose(batch, entry) => Effect::Propose(batch, entry),
        })
    }
}

impl Remembered for RelayCore {
    fn effect(output: relay::Output) -> Option<Effect> {
        Some(match output {
            relay::Output::Send(connection, down) => {
                Effect::Down(connection, Sealed::new(Downward::Item(down)))
            }
            relay::Output::Close(connection) => Effect::Down(connection, Sealed::new(Downward::Gone)),
            relay::Output::Connect(link, address) => Effect::Connect(link, address),
            relay::Output::Disconnect(link) => Effect::Disconnect(link),
            relay::Output::SendUp(link, up) => Effect::Up(link, sealed_up(up)),
            relay::Output::Noticed(..)
            | relay::Output::FannedOut(_)
            | relay::Output::Show(_)
            | relay::Output::Ready
            | relay::Output::Stopped => return None,
        })
    }
}

impl Remembered for ApplicationCore {
    fn effect(output: machine::Output) -> Option<Effect> {
        Some(match output {
            machine::Output::Connect(link, address) => Effect::Connect(link, address),
            machine::Output::Disconnect(link) => Effect::Disconnect(link),
            machine::Output::Send(link, up) => Effect::Up(link, sealed_up(up)),
            // Files are read of the machine here, never beside it.
            machine::Output::Show(_) | machine::Output::Hide(_) | machine::Output::CacheLease(..) => {
                return None;
            }
            output => Effect::Tell(output),
        })
    }
}

/// Something for a machine, and a fingerprint of it.
#[derive(Debug)]
pub struct Given<I> {
    input: I,
    print: u64,
}

impl<I: Debug> Given<I> {
    /// Something small.
    pub fn new(input: I) -> Self {
        Self { print: fingerprint(&input), input }
    }

    /// Something that is known by a fingerprint, which says all of it, together with its kind.
    pub const fn known(input: I, print: u64) -> Self {
        Self { input, print }
    }
}

type Step<C> = (Hashed<C>, Arc<[Effect]>);
type Commit = (Hashed<Committed>, Arc<[AppliedOutcome]>);

/// Of one kind of machine: by what it is, what it is given, and when.
#[derive(Debug)]
struct Steps<K: Eq + Hash, V>(DashMap<K, V>);

impl<K: Eq + Hash, V: Clone> Steps<K, V> {
    fn recall(&self, key: K, step: impl FnOnce() -> V) -> V {
        if let Some(known) = self.0.get(&key) {
            return known.clone();
        }
        let value = step();
        if self.0.len() >= STEPS_MAX {
            self.0.clear();
        }
        self.0.insert(key, value.clone());
        value
    }
}

impl<K: Eq + Hash, V: Clone> Default for Steps<K, V> {
    fn default() -> Self {
        Self(DashMap::new())
    }
}

type Key = (u64, u64, Time);

/// What is remembered.
#[derive(Debug, Default)]
pub struct Memo {
    masters: Steps<Key, Step<Replica>>,
    relays: Steps<Key, Step<RelayCore>>,
    applications: Steps<Key, Step<ApplicationCore>>,
    /// By the state and the entry.
    commits: Steps<(u64, u64), Commit>,
}

impl Memo {
    /// What a master does.
    pub fn master(
        &self,
        core: &mut Hashed<Replica>,
        now: Time,
        given: Vec<Given<master::Input>>,
    ) -> Arc<[Effect]> {
        step(&self.masters, core, now, given)
    }

    /// What a proxy does.
    pub fn relay(
        &self,
        core: &mut Hashed<RelayCore>,
        now: Time,
        given: Vec<Given<relay::Input>>,
    ) -> Arc<[Effect]> {
        step(&self.relays, core, now, given)
    }

    /// What an application's library does.
    pub fn application(
        &self,
        core: &mut Hashed<ApplicationCore>,
        now: Time,
        given: Vec<Given<machine::Input>>,
    ) -> Arc<[Effect]> {
        step(&self.applications, core, now, given)
    }

    /// What an entry does.
    pub fn commit(&self, committed: &mut Hashed<Committed>, entry: &LogEntry) -> Arc<[AppliedOutcome]> {
        let key = (committed.print(), fingerprint(entry));
        let (after, outcomes) = self.commits.recall(key, || {
            let mut state = committed.state.clone();
            let outcomes = state.apply(entry);
            let checksum = state.checksum();
            (Hashed::new(Committed { state, checksum }), outcomes.into())
        });
        *committed = after;
        outcomes
    }
}

fn step<C: Remembered>(
    steps: &Steps<Key, Step<C>>,
    core: &mut Hashed<C>,
    now: Time,
    given: Vec<Given<C::Input>>,
) -> Arc<[Effect]> {
    let prints: Vec<u64> = given.iter().map(|given| given.print).collect();
    let key = (core.print(), super::hash_of(&prints), now);
    let (after, effects) = steps.recall(key, || {
        let mut after = C::clone(core);
        let mut outputs = Vec::new();
        drive(&mut after, now, given.into_iter().map(|given| given.input), &mut outputs);
        let effects = outputs.into_iter().filter_map(C::effect).collect();
        (Hashed::new(after), effects)
    });
    *core = after;
    effects
}
