//! That each promise, broken by hand, is seen; and that its good neighbour passes.

mod acl;
mod bounded;
mod delay;
mod events;
mod handles;
mod leases;
mod locks;
mod states;

use std::collections::BTreeMap;

use bytes::Bytes;
use hasp_proto::id::{CellName, Epoch, Generation, Instance};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, NodeKind, Stat};
use hasp_proto::position::Position;
use hasp_proto::request::{Reply, Use};

use super::super::clock::Moment;
use super::super::history::{Asked, Told, Truth, Version, What};
use super::*;

const FILE: &str = "/ls/dev/f0";

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn at(index: u64) -> Position {
    Position { cell: CellName::new("a"), epoch: Epoch(1), index }
}

fn stat(generation: u64) -> Stat {
    Stat {
        kind: NodeKind::File,
        instance: Instance(1),
        content_generation: Generation(generation),
        lock_generation: Generation(1),
        acl_generation: Generation(1),
        checksum: 0,
        length: 1,
        ephemeral: false,
        acls: AclNames::default(),
    }
}

fn version(index: u64, contents: &'static str) -> Version {
    let node = Some((stat(index), Bytes::from_static(contents.as_bytes())));
    Version { index, at: Moment(index), node, has_moved: false }
}

/// What was committed of these names, in the only cell there is.
fn history_of(versions: impl IntoIterator<Item = (&'static str, Vec<Version>)>) -> History {
    let versions = versions.into_iter().map(|(text, versions)| (name(text), versions)).collect();
    let truth = Truth { versions, ..Truth::default() };
    History { truths: BTreeMap::from([(CellName::new("a"), truth)]), ..History::default() }
}

fn truth(versions: Vec<Version>) -> History {
    history_of([(FILE, versions)])
}

/// The file was `a`, `b` and `c`, written by the commands of these indices.
fn file() -> History {
    truth(vec![version(10, "a"), version(20, "b"), version(30, "c")])
}

fn asked(client: usize, what: What, times: (u64, u64), index: u64, reply: Reply) -> Asked {
    let told = Told { at: Moment(times.1), is_cached: false, position: Some(at(index)), result: Ok(reply) };
    let r#use = match what {
        What::Read | What::Stat | What::List | What::Open => Use::Read,
        What::SetAcl(_) => Use::ChangeAcl,
        _ => Use::WriteAndLock,
    };
    let (name, begun, told) = (name(FILE), Moment(times.0), Some(told));
    Asked { client, life: 1, name, r#use, instance: Some(Instance(1)), what, begun, told }
}

fn read(client: usize, times: (u64, u64), index: u64, generation: u64, contents: &'static str) -> Asked {
    let contents = Bytes::from_static(contents.as_bytes());
    asked(client, What::Read, times, index, Reply::Contents { contents, stat: stat(generation) })
}

fn write(client: usize, times: (u64, u64), index: u64, contents: &'static str) -> Asked {
    let what = What::Write(Bytes::from_static(contents.as_bytes()));
    let reply =
        Reply::Written { content_generation: Generation(index), previous_generation: Generation(index - 10) };
    asked(client, what, times, index, reply)
}

/// What one checker finds in a history with these calls.
fn found_by(check: fn(&History, &mut Findings), mut history: History, calls: Vec<Asked>) -> Vec<String> {
    let mut findings = Findings::default();
    history.asked = calls;
    check(&history, &mut findings);
    findings.broken
}

/// What all checkers find.
fn found(history: History, calls: Vec<Asked>) -> Vec<String> {
    let all = |history: &History, findings: &mut Findings| *findings = super::history(history);
    found_by(all, history, calls)
}

fn finds(history: History, calls: Vec<Asked>, what: &str) {
    let broken = found(history, calls);
    assert!(broken.iter().any(|broken| broken.contains(what)), "{what}: {broken:?}");
}

fn writes() -> Vec<Asked> {
    vec![write(0, (0, 10), 10, "a"), write(0, (11, 20), 20, "b"), write(0, (21, 30), 30, "c")]
}

fn with(more: impl IntoIterator<Item = Asked>) -> Vec<Asked> {
    writes().into_iter().chain(more).collect()
}

#[test]
fn a_good_history_is_good() {
    let calls = with([
        read(1, (12, 13), 15, 10, "a"),
        read(1, (15, 25), 20, 20, "b"),
        read(1, (40, 41), 30, 30, "c"),
        read(2, (22, 29), 29, 20, "b"),
    ]);

    assert_eq!(found(file(), calls), Vec::<String>::new());
}

#[test]
fn a_read_that_does_not_show_what_its_position_says_is_seen() {
    finds(file(), with([read(1, (40, 41), 30, 20, "b")]), "P-LIN: Read of");
}

#[test]
fn a_read_that_misses_what_was_acknowledged_before_it_began_is_seen() {
    finds(file(), with([read(1, (40, 41), 25, 20, "b")]), "acknowledged before it began");
    // Written while it was asked: either is right.
    assert_eq!(found(file(), with([read(1, (29, 41), 25, 20, "b")])), Vec::<String>::new());
}

#[test]
fn a_client_that_sees_its_cell_go_back_is_seen() {
    let calls = vec![read(1, (1, 2), 20, 20, "b"), read(1, (3, 4), 19, 10, "a")];

    finds(file(), calls, "P-MONO");
}

#[test]
fn an_order_that_cannot_be_is_seen_without_positions() {
    // Positions lie, so that only time can tell.
    let calls = with([read(1, (40, 50), 30, 20, "b"), read(2, (60, 70), 30, 30, "c")]);

    finds(file(), calls, "has no order");
}

#[test]
fn a_value_that_is_seen_before_it_is_written_or_by_nobody_is_seen() {
    finds(file(), with([read(1, (1, 5), 30, 30, "c")]), "before it was written");
    finds(file(), with([read(1, (40, 41), 30, 30, "z")]), "which nobody wrote");
}

#[test]
fn an_acknowledged_write_that_is_not_in_the_log_is_seen() {
    let lost = truth(vec![version(10, "a"), version(20, "b")]);

    finds(lost, writes(), "P-DUR");
}

#[test]
fn a_write_that_took_effect_twice_is_seen() {
    let twice = truth(vec![version(10, "a"), version(20, "b"), version(30, "a")]);

    finds(twice, Vec::new(), "P-ONCE");
}

#[test]
fn a_generation_that_falls_is_seen() {
    let mut fallen = version(40, "d");
    fallen.node = Some((stat(25), Bytes::from_static(b"d")));

    finds(truth(vec![version(30, "c"), fallen]), Vec::new(), "P-SEQ");
}
