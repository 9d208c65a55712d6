//! One of every message, with every field that it can have.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hasp_proto::convert::map_to_wire;
use hasp_proto::error::{Error, ErrorCode};
use hasp_proto::event::{EventKind, EventMask, HandleId, NodeEvent};
use hasp_proto::handle::{HandleBody, HandleToken};
use hasp_proto::id::{
    CellName, Claim, Epoch, Generation, Instance, RequestNumber, Sequence, SessionId, SessionKey,
};
use hasp_proto::item::{Item, ItemKind, ItemKinds};
use hasp_proto::limits::{COMPONENT_BYTES_MAX, LOCK_DELAY, NAME_BYTES_MAX, PROTOCOL};
use hasp_proto::name::Name;
use hasp_proto::node::{AclNames, Child, LockMode, NodeKind, Stat};
use hasp_proto::partition::PartitionMap;
use hasp_proto::position::Position;
use hasp_proto::request::{Answer, Create, EndCause, OnBehalf, Op, Open, Reply, Request, Use};
use hasp_proto::sequencer::{SequencerBody, SequencerToken};
use hasp_proto::stream::{Down, Grant, Hello, KeepAlive, News, Role, Up, Welcome};
use hasp_proto::wire::v1;
use prost::Message as _;

use super::crossing;
use crate::targets::{holder, tokens};

type Named = (&'static str, Vec<u8>);

fn cell() -> CellName {
    CellName::new("a")
}

fn name() -> Name {
    Name::parse("/ls/dev/directory/file").expect("a name")
}

fn session() -> SessionId {
    SessionKey::new(holder::KEY).id()
}

fn position() -> Position {
    Position { cell: cell(), epoch: Epoch(3), index: 77 }
}

fn handle_body(name: Name) -> HandleBody {
    HandleBody {
        cell: cell(),
        name,
        instance: Instance(5),
        kind: NodeKind::File,
        r#use: Use::WriteAndLock,
        session: session(),
        opened_by: RequestNumber(9),
        epoch: Epoch(3),
        lock_delay: LOCK_DELAY,
        events: EventMask::ALL,
        ephemeral: true,
    }
}

fn handle() -> HandleToken {
    tokens::key().seal(&handle_body(name()))
}

fn sequencer_body(name: Name) -> SequencerBody {
    let (instance, lock_generation) = (Instance(5), Generation(6));
    SequencerBody { cell: cell(), name, instance, mode: LockMode::Exclusive, lock_generation }
}

fn sequencer() -> SequencerToken {
    tokens::key().seal_sequencer(&sequencer_body(name()))
}

fn stat(kind: NodeKind) -> Stat {
    Stat {
        kind,
        instance: Instance(5),
        content_generation: Generation(2),
        lock_generation: Generation(3),
        acl_generation: Generation(4),
        checksum: u64::MAX,
        length: 12,
        ephemeral: false,
        acls: AclNames::default(),
    }
}

/// What a holder says first.
pub fn hello(role: Role) -> Up {
    hello_of(holder::KEY, role, 1)
}

/// What the holder of that session says first, under that claim.
pub fn hello_of(key: [u8; 16], role: Role, claim: u64) -> Up {
    Up::Hello(Hello {
        protocol: PROTOCOL,
        key: SessionKey::new(key),
        role,
        principal: "someone".into(),
        known_since: Some(Claim(3)),
        next_request: RequestNumber(7),
        claim: Claim(claim),
        advertise: if role.is_tier() { "host:1".into() } else { String::new() },
        lease_left: Duration::from_secs(5),
    })
}

/// A request with everything that can come with one.
pub fn request(number: u64, op: Op) -> Up {
    let on_behalf = OnBehalf {
        session: SessionId([7; 16]),
        number: RequestNumber(number),
        settled_below: RequestNumber(2),
        claim: Claim(4),
        principal: "someone else".into(),
        is_mover: false,
        evidence: Some(Box::new(crossing::evidence())),
    };
    Up::Request(Request {
        number: RequestNumber(number),
        settled_below: RequestNumber(1),
        on_behalf: Some(on_behalf),
        guard: Some(sequencer()),
        caches: true,
        trace: None,
        op,
    })
}

/// Requests as a proxy asks them whose client shows no sequencer.
pub fn behind(requests: impl IntoIterator<Item = Up>) -> Vec<Up> {
    let unguarded = |up| match up {
        Up::Request(request) => Up::Request(Request { guard: None, ..request }),
        other => other,
    };
    requests.into_iter().map(unguarded).collect()
}

/// Items as a batch.
pub fn up_batch(items: impl IntoIterator<Item = Up>) -> Vec<u8> {
    v1::UpBatch { items: items.into_iter().map(Into::into).collect() }.encode_to_vec()
}

/// Items as a batch.
pub fn down_batch(items: impl IntoIterator<Item = Down>) -> Vec<u8> {
    v1::DownBatch { items: items.into_iter().map(Into::into).collect() }.encode_to_vec()
}

fn ops() -> Vec<Op> {
    let create = Create {
        must: true,
        kind: NodeKind::File,
        contents: Bytes::from_static(b"contents"),
        ephemeral: true,
        acls: Some(AclNames::default()),
    };
    let open = Open {
        name: name(),
        r#use: Use::ChangeAcl,
        create: Some(create),
        lock_delay: Duration::from_secs(3),
        relative_to: Some(handle()),
        events: EventMask::ALL,
    };
    let if_generation = Some(Generation(8));
    vec![
        Op::Open(open),
        Op::Open(Open::existing(name(), Use::Read)),
        Op::Close(handle()),
        Op::GetContentsAndStat(handle()),
        Op::GetStat(handle()),
        Op::ReadDir(handle()),
        Op::SetContents { handle: handle(), contents: Bytes::from_static(b"new"), if_generation },
        Op::Delete(handle()),
        Op::Acquire(handle(), LockMode::Shared),
        Op::TryAcquire(handle(), LockMode::Exclusive),
        Op::Release(handle()),
        Op::SetAcl { handle: handle(), acls: AclNames::default(), if_generation },
        Op::GetSequencer(handle()),
        Op::CheckSequencer(sequencer()),
        Op::Refresh(handle()),
        Op::EndClient(EndCause::Failed),
        Op::Settle(vec![(session(), RequestNumber(5)), (SessionId([7; 16]), RequestNumber(6))]),
        Op::Claim,
    ]
    .into_iter()
    .chain(crossing::ops().into_iter().map(Op::Cross))
    .collect()
}

/// Batches of a holder.
pub fn upwards() -> Vec<Named> {
    let requests = || (1..).zip(ops()).map(|(number, op)| request(number, op));
    let rest = [
        hello(Role::Router),
        Up::KeepAlive(KeepAlive { number: 3, settled_below: RequestNumber(2) }),
        Up::Acknowledge(Sequence(4)),
        Up::Cancel(RequestNumber(5)),
        Up::EndSession,
    ];
    let mut seeds = vec![
        ("requests", up_batch(requests())),
        ("rest", up_batch(rest)),
        ("nothing", Vec::new()),
        ("hello", up_batch([hello(Role::Client)])),
    ];
    seeds.extend(requests().map(|request| {
        let Up::Request(Request { op, .. }) = &request else { unreachable!("made above") };
        (op.name(), up_batch([request]))
    }));
    seeds
}

fn replies() -> Vec<Reply> {
    let child = Child { component: "child".into(), stat: stat(NodeKind::Directory) };
    vec![
        Reply::Opened { handle: handle(), created: true, stat: stat(NodeKind::File) },
        Reply::Closed,
        Reply::Contents { contents: Bytes::from_static(b"contents"), stat: stat(NodeKind::File) },
        Reply::Stat(stat(NodeKind::Directory)),
        Reply::Children { children: vec![child.clone(), child], acls: AclNames::default() },
        Reply::Written { content_generation: Generation(3), previous_generation: Generation(2) },
        Reply::Deleted,
        Reply::Acquired { lock_generation: Generation(7) },
        Reply::Released,
        Reply::AclSet { acl_generation: Generation(8) },
        Reply::Sequencer(sequencer()),
        Reply::SequencerStands,
        Reply::Noted,
    ]
    .into_iter()
    .chain(crossing::replies())
    .collect()
}

fn errors() -> Vec<ErrorCode> {
    let retry_after = Duration::from_millis(1_500);
    vec![
        ErrorCode::NotFound,
        ErrorCode::AlreadyExists,
        ErrorCode::NotADirectory,
        ErrorCode::NotEmpty,
        ErrorCode::StaleHandle,
        ErrorCode::GenerationMismatch,
        ErrorCode::PermissionDenied,
        ErrorCode::Unauthenticated,
        ErrorCode::LockHeld,
        ErrorCode::LockNotHeld,
        ErrorCode::LockDelayed { retry_after },
        ErrorCode::SequencerInvalid,
        ErrorCode::SessionExpired,
        ErrorCode::SessionMoved,
        ErrorCode::WrongEpoch,
        ErrorCode::NotMaster { hint: Some("host:2".into()) },
        ErrorCode::WrongCell { map_version: 4 },
        ErrorCode::TooLarge,
        ErrorCode::QuotaExceeded,
        ErrorCode::RateLimited { retry_after },
        ErrorCode::Cancelled,
        ErrorCode::Unavailable,
        ErrorCode::InvalidName,
        ErrorCode::InvalidArgument,
    ]
}

/// An answer with everything that can come with one.
pub fn answer(number: u64, result: Result<Reply, Error>) -> Down {
    let caches = ItemKinds::of(ItemKind::ALL);
    Down::Answer(Answer { number: RequestNumber(number), position: Some(position()), caches, result })
}

fn grant() -> Grant {
    let seconds = Duration::from_secs;
    Grant { held: seconds(8), session: seconds(12), cache: seconds(12) }
}

/// A host's answer to a Hello.
pub fn welcome(resumed: bool) -> Down {
    Down::Welcome(Welcome {
        session: session(),
        resumed,
        grant: grant(),
        master_of: Some((cell(), Epoch(3))),
        handle_keys: Vec::new(),
        lost_cells: if resumed { Vec::new() } else { vec![cell()] },
    })
}

/// A host's answer to a KeepAlive.
pub fn lease(keep_alive: u64) -> Down {
    Down::Lease { keep_alive, grant: grant() }
}

/// One of all news, numbered from 1.
pub fn news() -> Vec<Down> {
    let event = |kind, child: Option<&str>, to| {
        let child = child.map(str::to_owned);
        News::Event(NodeEvent { kind, name: name(), instance: Instance(5), child, to, position: position() })
    };
    let to = HandleId { session: session(), opened_by: RequestNumber(9) };
    let mut all = vec![
        News::FailOver { cell: cell(), epoch: Epoch(4) },
        News::CellLost { cell: cell() },
        News::Invalidate {
            items: ItemKind::ALL.into_iter().map(|kind| Item::new(name(), kind)).collect(),
            floor: position(),
        },
        News::EventsLost { cell: Some(cell()) },
        News::EventsLost { cell: None },
        event(EventKind::LockConflict, None, Some(to)),
    ];
    all.extend(EventKind::ALL.map(|kind| event(kind, Some("child"), None)));
    (1..).zip(all).map(|(number, item)| Down::News { sequence: Sequence(number), item }).collect()
}

/// Batches of a host.
pub fn downwards() -> Vec<Named> {
    let refused = ErrorCode::NotMaster { hint: Some("host:2".into()) }.because("elsewhere");
    let to_proxy = Welcome {
        session: session(),
        resumed: true,
        grant: grant(),
        master_of: None,
        handle_keys: vec![(CellName::new("a"), tokens::key())],
        lost_cells: Vec::new(),
    };
    vec![
        ("replies", down_batch((1..).zip(replies()).map(|(number, reply)| answer(number, Ok(reply))))),
        (
            "errors",
            down_batch((1..).zip(errors()).map(|(number, code)| answer(number, Err(code.because("why"))))),
        ),
        ("news", down_batch(news())),
        ("refused", down_batch([Down::Refused(refused)])),
        ("welcome", down_batch([welcome(true), lease(1)])),
        ("welcome-elsewhere", down_batch([welcome(false), lease(1)])),
        ("welcome-to-a-proxy", down_batch([Down::Welcome(to_proxy)])),
        ("nothing", Vec::new()),
    ]
}

/// A host's word on who it is, with a map of two cells.
pub fn locate() -> Vec<u8> {
    let addresses = |port: u16| vec![format!("one:{port}"), format!("two:{port}"), format!("three:{port}")];
    let cells = BTreeMap::from([(cell(), addresses(1)), (CellName::new("b"), addresses(2))]);
    let rules =
        [("/ls/dev", "a"), ("/ls/dev/shared", "b"), ("/ls/dev/shared/deep", "a"), ("/ls/dev/users/*", "a b")];
    let map = PartitionMap::new(7, "dev", rules, cells).expect("a map");
    v1::LocateReply {
        host: v1::locate_reply::Host::Replica.into(),
        cell: "a".into(),
        master: "one:1".into(),
        map: Some(map_to_wire(&map)),
    }
    .encode_to_vec()
}

fn longest_name() -> Name {
    let component = "x".repeat(COMPONENT_BYTES_MAX);
    let mut text = format!("/ls/dev/{component}/{component}/{component}/");
    text.push_str(&"y".repeat(NAME_BYTES_MAX - text.len()));
    Name::parse(&text).expect("a name at its limit")
}

/// Handles of the known key.
pub fn handles() -> Vec<Named> {
    let token = |name| tokens::key().seal(&handle_body(name)).as_bytes().to_vec();
    vec![("handle", token(name())), ("longest-name", token(longest_name()))]
}

/// Sequencers of the known key.
pub fn sequencers() -> Vec<Named> {
    let token = |name| tokens::key().seal_sequencer(&sequencer_body(name)).as_bytes().to_vec();
    vec![("sequencer", token(name())), ("longest-name", token(longest_name()))]
}

/// Sequencers as text.
pub fn sequencer_texts() -> Vec<Named> {
    vec![("text", sequencer().to_string().into_bytes())]
}

/// Names.
pub fn names() -> Vec<Named> {
    let deepest = format!("/ls{}", "/d".repeat(63));
    vec![
        ("namespace", b"/ls/dev".to_vec()),
        ("file", name().as_str().into()),
        ("longest", longest_name().as_str().into()),
        ("deepest", deepest.into_bytes()),
        ("letters", "/ls/dev/größe/日本/ ".into()),
    ]
}
