//! Stories of sessions, as their hosts and their holders live through them.

use hasp_proto::error::ErrorCode;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{RequestNumber, Sequence};
use hasp_proto::limits::LOCK_DELAY;
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, LockMode, NodeKind};
use hasp_proto::request::{Create, EndCause, Op, Open, Reply, Request, Use};
use hasp_proto::sequencer::SequencerToken;
use hasp_proto::stream::{Down, KeepAlive, Role, Up};

use super::messages::{answer, behind, down_batch, hello, hello_of, lease, news, request, up_batch, welcome};
use crate::protobuf::{Field, Message};
use crate::targets::script::PAUSE;
use crate::targets::{holder, host, master};

fn pause(millis: u64) -> Field {
    Field::varint(PAUSE, millis * 1_000)
}

fn story(fields: impl IntoIterator<Item = Field>) -> Vec<u8> {
    Message(fields.into_iter().collect()).encode()
}

fn stat() -> Op {
    Op::GetStat(HandleToken::new(b"handle".as_slice().into()))
}

/// What happens to a host.
pub fn host() -> Vec<(&'static str, Vec<u8>)> {
    let batch = |connection, items: Vec<Up>| Field::bytes(connection, up_batch(items));
    let keep_alive = |number| Up::KeepAlive(KeepAlive { number, settled_below: RequestNumber(0) });
    let kept = [
        batch(1, vec![hello(Role::Client), keep_alive(1), request(1, stat())]),
        pause(8_000),
        batch(1, vec![keep_alive(2), Up::Cancel(RequestNumber(1))]),
        Field::varint(host::NEWS, 2),
        pause(100),
        batch(1, vec![Up::Acknowledge(Sequence(1)), keep_alive(3)]),
        pause(100),
        batch(1, vec![Up::EndSession]),
    ];
    let lost = [
        batch(1, vec![hello(Role::Proxy), keep_alive(1)]),
        Field::varint(host::NEWS, 2),
        Field::varint(host::BREAKS, 0),
        pause(5_000),
        batch(2, vec![hello(Role::Proxy), keep_alive(2)]),
        Field::varint(host::CEILING, 0),
        pause(9_000),
        Field::varint(host::CEILING, 1),
        pause(60_000),
        pause(60_000),
    ];
    vec![("kept", story(kept)), ("lost", story(lost))]
}

/// What happens to a holder.
pub fn holder() -> Vec<(&'static str, Vec<u8>)> {
    let batch = |items: Vec<Down>| Field::bytes(holder::BATCH, down_batch(items));
    let elsewhere = ErrorCode::NotMaster { hint: Some("three:3".into()) }.because("elsewhere");
    let kept = [
        Field::bytes(holder::ASKS, *b"handle"),
        batch(vec![welcome(false)]),
        batch(vec![answer(1, Ok(Reply::Noted))]),
        pause(8_000),
        batch(vec![lease(1)]),
        batch(news()),
        Field::varint(holder::DEALT, 1),
        Field::varint(holder::ASKS, 1),
        batch(vec![answer(2, Err(ErrorCode::Unavailable.because("why")))]),
        pause(50),
        pause(8_000),
        batch(vec![lease(2)]),
        Field::varint(holder::ENDS, 1),
    ];
    let jeopardy = [
        batch(vec![welcome(false)]),
        Field::varint(holder::BREAKS, 1),
        pause(100),
        batch(vec![Down::Refused(elsewhere)]),
        pause(12_000),
        pause(1_000),
        batch(vec![welcome(true), lease(2)]),
        pause(20_000),
        pause(45_000),
    ];
    vec![("kept", story(kept)), ("jeopardy", story(jeopardy))]
}

fn open(name: &str, ephemeral: bool, kind: NodeKind) -> Op {
    let contents = if kind == NodeKind::File { b"contents".as_slice() } else { b"" };
    let create = Create { must: false, kind, contents: contents.into(), ephemeral, acls: None };
    let name = Name::parse(name).expect("a name");
    let (lock_delay, events) = (LOCK_DELAY, hasp_proto::event::EventMask::ALL);
    Op::Open(Open {
        name,
        r#use: Use::WriteAndLock,
        create: Some(create),
        lock_delay,
        relative_to: None,
        events,
    })
}

/// Requests of a session, numbered from this one on, which would cache what they read.
fn asking(first: u64, ops: impl IntoIterator<Item = Op>) -> Vec<Up> {
    let request = |(number, op)| {
        let (number, settled_below) = (RequestNumber(number), RequestNumber(0));
        Up::Request(Request {
            number,
            settled_below,
            on_behalf: None,
            guard: None,
            caches: true,
            trace: None,
            op,
        })
    };
    (first..).zip(ops).map(request).collect()
}

/// What clients and proxies ask a master.
pub fn master() -> Vec<(&'static str, Vec<u8>)> {
    let batch = |connection, items: Vec<Up>| Field::bytes(connection, up_batch(items));
    let handle = |number| HandleToken::new(master::handle(number).into());
    let sequencer = || SequencerToken::new(master::sequencer(0).into());
    let set =
        |number| Op::SetContents { handle: handle(number), contents: "new".into(), if_generation: None };
    let keep_alive = |number| Up::KeepAlive(KeepAlive { number, settled_below: RequestNumber(0) });

    let opens = [
        open("/ls/dev/d", false, NodeKind::Directory),
        open("/ls/dev/d/f", false, NodeKind::File),
        open("/ls/dev/d/e", true, NodeKind::File),
    ];
    let acls = AclNames { read: "admin".into(), ..AclNames::default() };
    let all = [
        Op::ReadDir(handle(0)),
        Op::GetContentsAndStat(handle(1)),
        Op::GetStat(handle(2)),
        set(1),
        Op::Acquire(handle(1), LockMode::Exclusive),
    ];
    let held = [Op::GetSequencer(handle(1)), Op::Refresh(handle(1))];
    let then = [
        Op::CheckSequencer(sequencer()),
        Op::Release(handle(1)),
        Op::SetAcl { handle: handle(1), acls, if_generation: None },
        Op::Delete(handle(1)),
        Op::Close(handle(2)),
        Op::Delete(handle(0)),
    ];
    let alone = [
        batch(1, vec![hello(Role::Client)]),
        batch(1, vec![keep_alive(1)]),
        batch(1, asking(1, opens.clone())),
        batch(1, asking(4, all.clone())),
        batch(1, asking(9, held.clone())),
        pause(1_000),
        batch(1, asking(11, then)),
        pause(8_000),
        batch(1, vec![Up::EndSession]),
    ];
    let other = hello_of([9; 16], Role::Client, 1);
    let contended = [
        batch(1, vec![hello(Role::Client)]),
        batch(1, vec![keep_alive(1)]),
        batch(2, vec![other]),
        batch(2, vec![keep_alive(1)]),
        batch(1, asking(1, opens.clone())),
        batch(2, asking(1, [opens[0].clone(), opens[1].clone()])),
        batch(1, asking(4, all)),
        batch(1, asking(9, held)),
        batch(2, asking(3, [Op::Acquire(handle(4), LockMode::Shared), Op::GetContentsAndStat(handle(4))])),
        batch(1, asking(11, [set(1)])),
        Field::varint(master::LOG_FAILS, 1),
        Field::varint(host::BREAKS, 0),
        pause(13_000),
        Field::varint(master::ELECTED, 0),
        batch(3, vec![hello_of([9; 16], Role::Client, 2)]),
        batch(3, vec![keep_alive(2)]),
        pause(70_000),
        pause(10_000),
    ];
    let through = |first, ops: Vec<Op>| behind((first..).zip(ops).map(|(number, op)| request(number, op)));
    let proxied = [
        batch(1, vec![hello(Role::Proxy)]),
        batch(1, vec![keep_alive(1)]),
        batch(1, through(3, opens.to_vec())),
        batch(1, through(6, vec![set(1), Op::Acquire(handle(1), LockMode::Exclusive), Op::Claim])),
        batch(1, through(9, vec![Op::Settle(vec![]), Op::EndClient(EndCause::Failed)])),
        batch(1, vec![Up::EndSession]),
        pause(70_000),
    ];
    vec![("alone", story(alone)), ("contended", story(contended)), ("proxied", story(proxied))]
}
