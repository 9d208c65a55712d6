//! P-EVENT: what applications are told happened, was done before they were told, is told once, in the order in which it
//! was done, and is shown by every read that begins afterwards. Nothing is left out while a handle stands, unless its
//! application was told that something may be missing.
//!
//! What should be told is worked out from the versions of nodes, not from what the master says it did. After a loss a
//! handle can be relied on again from the first read that was asked after it: whoever is told to look again, looks, and
//! must not miss what happens then.

use std::collections::{BTreeMap, BTreeSet};

use hasp_client::{CallError, HandleEvent};
use hasp_proto::error::ErrorCode;
use hasp_proto::event::{EventKind, NodeEvent};
use hasp_proto::id::{CellName, Instance};
use hasp_proto::name::Name;
use hasp_proto::position::Position;

use super::super::clock::Moment;
use super::super::history::{Asked, Heard, History, Told, Truth, Version, Watch, What};
use super::super::script;
use super::super::world::{END, LAST_LOOK};
use super::reads::{Acknowledged, check_time, is_read};
use super::{Findings, acl};

/// Something that was done, of which handles are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The command that did it.
    pub index: u64,
    /// When that was committed.
    pub at: Moment,
    /// What.
    pub kind: EventKind,
    /// To which node.
    pub name: Name,
    /// Of that name.
    pub instance: Instance,
    /// Which child.
    pub child: Option<String>,
}

impl Fact {
    fn is(&self, event: &NodeEvent) -> bool {
        let NodeEvent { kind, name, instance, child, position, .. } = event;
        (self.index, self.kind, &self.name) == (position.index, *kind, name)
            && (self.instance, &self.child) == (*instance, child)
    }
}

/// Checks what applications were told.
pub fn check(history: &History, findings: &mut Findings) {
    let facts: BTreeMap<&CellName, Vec<Fact>> =
        history.truths.iter().map(|(cell, truth)| (cell, all_facts(history, truth))).collect();
    let wanted: Vec<&Asked> =
        history.asked.iter().filter(|asked| matches!(asked.what, What::Acquire(_))).collect();
    for heard in &history.heard {
        let watch = &history.watches[heard.watch];
        match &heard.event {
            HandleEvent::Happened(event) if event.kind == EventKind::LockConflict => {
                check_conflict(watch, heard.at, &wanted, findings);
            }
            HandleEvent::Happened(event) => {
                let facts = facts.get(&event.position.cell).map_or(&[][..], Vec::as_slice);
                check_told(watch, heard.at, event, facts, findings);
            }
            HandleEvent::Invalid(error) => check_invalid(history, watch, heard.at, error, findings),
            HandleEvent::EventsLost(_) => {}
        }
    }
    check_order(history, findings);
    check_reads(history, findings);
    let missed = Missed::of(history, &facts);
    for (number, watch) in history.watches.iter().enumerate() {
        missed.check(number, watch, findings);
        check_end(history, watch, findings);
    }
}

/// The same, with what is told of directories whose node another cell holds.
fn all_facts(history: &History, truth: &Truth) -> Vec<Fact> {
    let mut all = facts(truth);
    let others = || history.truths.values().filter(|other| !std::ptr::eq(*other, truth));
    for (name, versions) in &truth.versions {
        let Some(parent) = name.parent().filter(script::may_be_split) else { continue };
        let mut before = None;
        for version in versions {
            let node_then = |other: &Truth| {
                let versions = other.versions.get(&parent)?;
                let count = versions.partition_point(|it| it.at <= version.at);
                versions[..count].last()?.node.as_ref().map(|(stat, _)| stat.instance)
            };
            let instance = others().find_map(node_then);
            let was: Option<&Version> = before.replace(version);
            if version.has_moved {
                continue;
            }
            let was = was.and_then(|was| was.node.as_ref());
            let kind = match (was, &version.node) {
                (None, Some(_)) => Some(EventKind::ChildAdded),
                (Some(_), None) => Some(EventKind::ChildRemoved),
                (Some(_), Some(_)) => Some(EventKind::ChildModified),
                (None, None) => None,
            };
            let (index, at, child) = (version.index, version.at, Some(name.component().to_owned()));
            all.extend(kind.zip(instance).map(|(kind, instance)| {
                let (name, child) = (parent.clone(), child.clone());
                Fact { index, at, kind, name, instance, child }
            }));
        }
    }
    all.sort_by_key(|fact| fact.index);
    all
}

/// Everything that was done in a cell and that handles are told of, in its order.
pub fn facts(truth: &Truth) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (name, versions) in &truth.versions {
        let mut before = None;
        for version in versions {
            if !version.has_moved {
                facts.extend(facts_of(truth, name, before, version));
            }
            before = Some(version);
        }
    }
    facts.sort_by_key(|fact| fact.index);
    facts
}

fn facts_of(truth: &Truth, name: &Name, before: Option<&Version>, version: &Version) -> Vec<Fact> {
    let (index, at) = (version.index, version.at);
    let before = before.and_then(|version| version.node.as_ref()).map(|(stat, _)| stat);
    let after = version.node.as_ref().map(|(stat, _)| stat);
    let own = |kind, instance| Fact { index, at, kind, name: name.clone(), instance, child: None };
    let of_parent = |kind| {
        let parent = name.parent()?;
        let (stat, _) = truth.node_at(&parent, index)?;
        let child = Some(name.component().to_owned());
        Some(Fact { index, at, kind, name: parent, instance: stat.instance, child })
    };
    match (before, after) {
        (None, None) => Vec::new(),
        (None, Some(_)) => of_parent(EventKind::ChildAdded).into_iter().collect(),
        (Some(was), None) => {
            let gone = own(EventKind::HandleInvalid, was.instance);
            std::iter::once(gone).chain(of_parent(EventKind::ChildRemoved)).collect()
        }
        (Some(was), Some(is)) => {
            let is_written = was.content_generation != is.content_generation;
            let is_modified = is_written || was.acl_generation != is.acl_generation;
            let is_locked = was.lock_generation != is.lock_generation;
            let written = is_written.then(|| own(EventKind::ContentsModified, is.instance));
            let locked = is_locked.then(|| own(EventKind::LockAcquired, is.instance));
            let modified = is_modified.then(|| of_parent(EventKind::ChildModified)).flatten();
            written.into_iter().chain(locked).chain(modified).collect()
        }
    }
}

fn who(watch: &Watch) -> String {
    format!("c{}, with a handle on {} since {}", watch.client + 1, watch.name, watch.opened)
}

/// Somebody else wants the lock.
fn check_conflict(watch: &Watch, at: Moment, wanted: &[&Asked], findings: &mut Findings) {
    // Who wanted it before this handle was opened may still wait, for an application that is gone.
    let is_other = |asked: &Asked| asked.client != watch.client || asked.begun < watch.opened;
    let is_wanted =
        wanted.iter().any(|asked| is_other(asked) && asked.begun < at && asked.name == watch.name);
    findings.expect(is_wanted, || {
        format!("P-EVENT: {}, was told at {at} of a conflict, and nobody wanted the lock", who(watch))
    });
}

/// What was told happened, to that node, and before it was told; and it was wanted.
fn check_told(watch: &Watch, at: Moment, event: &NodeEvent, facts: &[Fact], findings: &mut Findings) {
    let from = facts.partition_point(|fact| fact.index < event.position.index);
    let mut there = facts[from..].iter().take_while(|fact| fact.index == event.position.index);
    let fact = there.find(|fact| fact.is(event) && fact.name == watch.name);
    findings.expect(fact.is_some_and(|fact| fact.at <= at), || {
        let done = fact.map_or_else(|| "never".to_owned(), |fact| fact.at.to_string());
        format!("P-EVENT: {}, was told at {at} of {event:?}, which was done: {done}", who(watch))
    });
    findings.expect(watch.told.contains(event.kind) && watch.instance == event.instance, || {
        format!("P-EVENT: {}, was told at {at} of {event:?} and did not ask for it", who(watch))
    });
}

/// A node that is said to be gone is gone.
fn check_invalid(history: &History, watch: &Watch, at: Moment, error: &CallError, findings: &mut Findings) {
    let Some(position) = error.position.as_ref().filter(|_| error.code == ErrorCode::StaleHandle) else {
        return;
    };
    let there = history.truth(position).and_then(|truth| truth.node_at(&watch.name, position.index));
    findings.expect(there.is_none_or(|(stat, _)| stat.instance != watch.instance), || {
        format!("P-EVENT: {}, was told at {at} that the node is gone at {position}, where it is", who(watch))
    });
}

/// In the order of their positions, to each session for each cell, and each once to each handle, from one loss to the
/// next. A conflict is no change of the cell and has no place among them.
fn check_order(history: &History, findings: &mut Findings) {
    let mut latest: BTreeMap<(usize, u64, &CellName), &NodeEvent> = BTreeMap::new();
    let mut told: BTreeSet<(usize, &CellName, u64, EventKind, Option<&str>)> = BTreeSet::new();
    for heard in &history.heard {
        let watch = &history.watches[heard.watch];
        let event = match &heard.event {
            HandleEvent::Happened(event) if event.kind != EventKind::LockConflict => event,
            HandleEvent::EventsLost(_) => {
                latest.retain(|(client, life, _), _| (*client, *life) != (watch.client, watch.life));
                told.retain(|(watch, ..)| *watch != heard.watch);
                continue;
            }
            HandleEvent::Happened(_) | HandleEvent::Invalid(_) => continue,
        };
        let before = latest.insert((watch.client, watch.life, &event.position.cell), event);
        findings.expect(before.is_none_or(|before| !event.position.is_before(&before.position)), || {
            let before = before.expect("there is one");
            let (at, who) = (heard.at, who(watch));
            format!("P-EVENT: {who}, was told at {at} of {event:?} after {before:?}")
        });
        let Position { cell, index, .. } = &event.position;
        let key = (heard.watch, cell, *index, event.kind, event.child.as_deref());
        findings.expect(told.insert(key), || {
            format!("P-EVENT: {}, was told at {} a second time of {event:?}", who(watch), heard.at)
        });
    }
}

/// A read that begins after anybody was told of a change shows it.
fn check_reads(history: &History, findings: &mut Findings) {
    let mut known: Vec<(Moment, Name, &CellName, u64, bool)> = Vec::new();
    for heard in &history.heard {
        let HandleEvent::Happened(event) = &heard.event else { continue };
        let name = match &event.child {
            Some(child) => event.name.child(child).ok(),
            None => Some(event.name.clone()),
        };
        let is_lock = event.kind == EventKind::LockAcquired;
        if let Some(name) = name.filter(|_| event.kind != EventKind::LockConflict) {
            known.push((heard.at, name, &event.position.cell, event.position.index, is_lock));
        }
    }
    let known = known.iter().map(|(at, name, cell, index, is_lock)| (*at, name, *cell, *index, *is_lock));
    let known = Acknowledged::by_events(known);
    for asked in &history.asked {
        let Some(Told { position: Some(position), result, .. }) = &asked.told else { continue };
        if is_read(asked, result) {
            check_time(asked, position, history, &known, findings, ("P-EVENT", "was told to somebody"));
        }
    }
}

/// Who has a handle on a node that is gone was told so, or has closed it.
fn check_end(history: &History, watch: &Watch, findings: &mut Findings) {
    let Some(versions) = history.truth(&watch.position).and_then(|truth| truth.versions.get(&watch.name))
    else {
        return;
    };
    let is_gone = |version: &Version| {
        let instance = version.node.as_ref().map(|(stat, _)| stat.instance);
        let is_later = version.index > watch.position.index && version.at < LAST_LOOK;
        is_later && !version.has_moved && instance != Some(watch.instance)
    };
    let gone = versions.iter().find(|version| is_gone(version));
    let is_wanted = watch.told.contains(EventKind::HandleInvalid) && watch.ended.is_none();
    if let Some(gone) = gone.filter(|_| is_wanted) {
        findings.expect(false, || {
            format!(
                "P-EVENT: {}, was never told that it is gone since index {}, {}",
                who(watch),
                gone.index,
                gone.at
            )
        });
    }
}

/// Looks for what should have been told and was not.
struct Missed<'a> {
    history: &'a History,
    facts: &'a BTreeMap<&'a CellName, Vec<Fact>>,
    /// What each watch heard, by its number.
    heard: BTreeMap<usize, Vec<&'a Heard>>,
    /// What each life of a client read and was not answered from its own cache.
    looks: BTreeMap<(usize, u64), Vec<&'a Asked>>,
}

/// What matters to one handle, in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// Some may be missing.
    Lost,
    /// A read that was asked when it had been told of the last loss: it shows everything up to that index.
    Looked { asked: Moment, index: u64 },
    /// It was told of what happened at that index.
    Told(u64),
}

impl<'a> Missed<'a> {
    fn of(history: &'a History, facts: &'a BTreeMap<&'a CellName, Vec<Fact>>) -> Self {
        let mut missed = Self { history, facts, heard: BTreeMap::new(), looks: BTreeMap::new() };
        for heard in &history.heard {
            missed.heard.entry(heard.watch).or_default().push(heard);
        }
        for asked in &history.asked {
            let is_good = |told: &Told| !told.is_cached && told.result.is_ok();
            let is_look = matches!(asked.what, What::Read | What::Stat | What::List);
            if is_look && asked.told.as_ref().is_some_and(is_good) {
                missed.looks.entry((asked.client, asked.life)).or_default().push(asked);
            }
        }
        missed
    }

    fn check(&self, number: usize, watch: &Watch, findings: &mut Findings) {
        let Some(truth) = self.history.truth(&watch.position) else { return };
        let heard: BTreeSet<(u64, EventKind, Option<&str>)> = self
            .told(number)
            .filter_map(|(_, event)| match event {
                HandleEvent::Happened(it) => Some((it.position.index, it.kind, it.child.as_deref())),
                HandleEvent::EventsLost(_) | HandleEvent::Invalid(_) => None,
            })
            .collect();
        for (from, until, end) in self.stretches(number, watch) {
            for fact in self.wanted(watch, truth) {
                let is_due = fact.index > from && fact.index <= until && fact.at <= end;
                if is_due {
                    let key = (fact.index, fact.kind, fact.child.as_deref());
                    findings.expect(heard.contains(&key), || {
                        let who = who(watch);
                        format!(
                            "P-EVENT: {who}, was never told of {fact:?}, though of what came after, up to {until} at \
                             {end}, and nothing was said to be lost since {from}"
                        )
                    });
                }
            }
        }
    }

    fn told(&self, number: usize) -> impl Iterator<Item = (Moment, &HandleEvent)> {
        self.heard.get(&number).into_iter().flatten().map(|it| (it.at, &it.event))
    }

    /// What that handle is to be told of if it stands and its principal may read the node.
    fn wanted<'b>(&'b self, watch: &'b Watch, truth: &'b Truth) -> impl Iterator<Item = &'b Fact> {
        let principal = script::principal(watch.client);
        let all = self.facts.get(&watch.position.cell).map_or(&[][..], Vec::as_slice);
        all.iter().filter(move |fact| {
            fact.name == watch.name
                && fact.instance == watch.instance
                && watch.told.contains(fact.kind)
                && fact.kind != EventKind::HandleInvalid
                && acl::may_read_throughout(truth, &fact.name, &principal, (fact.index, fact.at))
        })
    }

    /// From after which index to which everything is told, as far as it was done by that moment.
    fn stretches(&self, number: usize, watch: &Watch) -> Vec<(u64, u64, Moment)> {
        let mut stretches = Vec::new();
        let mut from = watch.is_exact.then_some(watch.position.index);
        let mut lost_at = watch.opened;
        let mut latest = 0;
        for (at, step) in self.steps(number, watch) {
            match step {
                Step::Lost => {
                    stretches.extend(from.map(|from| (from, latest, at)));
                    (from, lost_at) = (None, at);
                }
                Step::Looked { asked, index } if from.is_none() && asked > lost_at => from = Some(index),
                Step::Looked { .. } => {}
                Step::Told(index) => {
                    from = from.or(Some(index));
                    latest = latest.max(index);
                }
            }
        }
        let is_open = watch.ended.is_none();
        let (until, end) = if is_open { (u64::MAX, LAST_LOOK) } else { (latest, END) };
        stretches.extend(from.map(|from| (from, until, end)));
        stretches
    }

    fn steps(&self, number: usize, watch: &Watch) -> Vec<(Moment, Step)> {
        let ended = watch.ended.unwrap_or(END);
        let mut steps: Vec<(Moment, Step)> = self
            .told(number)
            .filter_map(|(at, event)| match event {
                HandleEvent::EventsLost(_) => Some((at, Step::Lost)),
                HandleEvent::Happened(it) if it.kind == EventKind::LockConflict => None,
                // What the cell tells to which the node has moved counts no more.
                HandleEvent::Happened(it) if it.position.cell != watch.position.cell => None,
                HandleEvent::Happened(it) => Some((at, Step::Told(it.position.index))),
                HandleEvent::Invalid(_) => None,
            })
            .collect();
        let looked = |asked: &&Asked| {
            let told = asked.told.as_ref().filter(|told| asked.begun > watch.opened && told.at <= ended)?;
            let position = told.position.as_ref().filter(|at| at.cell == watch.position.cell)?;
            Some((told.at, Step::Looked { asked: asked.begun, index: position.index }))
        };
        let looks = self.looks.get(&(watch.client, watch.life));
        steps.extend(looks.into_iter().flatten().filter_map(looked));
        steps.sort_by_key(|(at, _)| *at);
        steps
    }
}
