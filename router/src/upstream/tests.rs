//! What a holder of sessions does, with its hosts played by hand.

use std::time::Duration;

use hasp_proto::client::{Ask, Attempt, Event, Status};
use hasp_proto::crossing::CrossOp;
use hasp_proto::error::ErrorCode;
use hasp_proto::event::EventMask;
use hasp_proto::handle::{HandleBody, HandleKey, HandleToken};
use hasp_proto::id::{CellName, Claim, Epoch, Instance, RequestNumber, SessionId, SessionKey};
use hasp_proto::limits::LOCK_DELAY;
use hasp_proto::name::Name;
use hasp_proto::node::NodeKind;
use hasp_proto::partition::PartitionMap;
use hasp_proto::request::{Answer, OnBehalf, Op, Open, Reply, Request, Use};
use hasp_proto::stream::{Down, Grant, Role, Up, Welcome};
use hasp_proto::time::Time;

use super::{Hosts, LinkId, Output, Ticket, UpstreamConfig, UpstreamCore};

const fn t(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn cell(name: &str) -> CellName {
    CellName::new(name)
}

fn map() -> PartitionMap {
    let cells = ["a", "b"].map(|name| (cell(name), vec![format!("{name}:1")])).into();
    PartitionMap::new(1, "dev", [("/ls/dev", "a"), ("/ls/dev/b", "b")], cells).expect("a good map")
}

fn application(hosts: Hosts) -> Played {
    Played::new(UpstreamConfig::application(hosts, "alice", [3; 32]))
}

fn open(name: &str) -> Op {
    let name = Name::parse(name).expect("good");
    Op::Open(Open::existing(name, Use::Read))
}

/// Of a node of that cell, made there.
fn handle(cell_name: &str, session: SessionId) -> HandleToken {
    let directory = if cell_name == "b" { "/ls/dev/b" } else { "/ls/dev" };
    HandleKey::new(bytes::Bytes::from_static(&[1; 32])).seal(&HandleBody {
        cell: cell(cell_name),
        name: Name::parse(&format!("{directory}/x")).expect("good"),
        instance: Instance(1),
        kind: NodeKind::File,
        r#use: Use::Read,
        session,
        opened_by: RequestNumber(1),
        epoch: Epoch(1),
        lock_delay: LOCK_DELAY,
        events: EventMask::NONE,
        ephemeral: false,
    })
}

fn on_behalf() -> OnBehalf {
    OnBehalf {
        session: SessionKey::new([9; 16]).id(),
        number: RequestNumber(4),
        settled_below: RequestNumber(4),
        claim: Claim(1),
        principal: "bob".into(),
        is_mover: false,
        evidence: None,
    }
}

/// A holder whose hosts welcome every Hello and answer nothing.
struct Played {
    core: UpstreamCore,
    connects: Vec<(LinkId, String)>,
    hellos: Vec<(LinkId, SessionKey)>,
    requests: Vec<(LinkId, Request)>,
    answers: Vec<(Ticket, Answer)>,
    events: Vec<(Option<CellName>, Event)>,
}

impl Played {
    fn new(config: UpstreamConfig) -> Self {
        Self {
            core: UpstreamCore::new(t(0), config),
            connects: Vec::new(),
            hellos: Vec::new(),
            requests: Vec::new(),
            answers: Vec::new(),
            events: Vec::new(),
        }
    }

    fn play(&mut self, now: Time) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect(link, address) => {
                    self.core.connected(now, &link);
                    self.connects.push((link, address));
                }
                Output::Send(link, Up::Hello(hello)) => {
                    self.hellos.push((link.clone(), hello.key));
                    let lease = Duration::from_secs(12);
                    let grant = Grant { held: Duration::ZERO, session: lease, cache: lease };
                    let welcome = Welcome {
                        session: hello.key.id(),
                        resumed: false,
                        grant,
                        master_of: None,
                        handle_keys: Vec::new(),
                        lost_cells: Vec::new(),
                    };
                    self.core.received(now, &link, Down::Welcome(welcome));
                }
                Output::Send(_, Up::Request(request))
                    if matches!(request.op, Op::Cross(CrossOp::Chores | CrossOp::ReadMap)) => {}
                Output::Send(link, Up::Request(request)) => self.requests.push((link, request)),
                Output::Answered(ticket, answer) => self.answers.push((ticket, answer)),
                Output::Event(cell, event) => self.events.push((cell, event)),
                Output::Send(..) | Output::Routes(_) | Output::Disconnect(_) => {}
            }
        }
        self.core.check_invariants();
    }

    fn submit(&mut self, now: Time, op: Op, on_behalf: Option<OnBehalf>) -> Ticket {
        let ticket = self.core.submit(now, Ask { on_behalf, ..op.into() });
        self.play(now);
        ticket
    }

    /// The host of the last request answers it with an error.
    fn refuse_last(&mut self, now: Time, code: ErrorCode) {
        let (link, request) = self.requests.last().cloned().expect("asked");
        let answer = Answer::plain(request.number, Err(code.because("played")));
        self.core.received(now, &link, Down::Answer(answer));
        self.play(now);
    }

    fn code(&self, ticket: Ticket) -> Option<ErrorCode> {
        let (_, answer) = self.answers.iter().find(|(answered, _)| *answered == ticket)?;
        answer.result.as_ref().err().map(|error| error.code.clone())
    }

    fn wait_until(&mut self, now: Time) {
        self.core.handle_timeout(now);
        self.play(now);
    }
}

#[test]
fn an_application_begins_a_session_at_a_cell_when_it_asks_something_there() {
    let mut played = application(Hosts::Cells(map()));
    assert_eq!(played.core.sessions().count(), 0);

    played.submit(t(0), open("/ls/dev/b/x"), None);
    assert_eq!(played.connects.len(), 1);
    assert_eq!(played.requests[0].0.cell, Some(cell("b")));

    played.submit(t(0), open("/ls/local/b/y"), None);
    played.submit(t(0), open("/ls/local/x"), None);
    let asked: Vec<_> = played
        .requests
        .iter()
        .map(|(link, request)| match &request.op {
            Op::Open(open) => (link.cell.clone().expect("at a cell").to_string(), open.name.to_string()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [("b", "/ls/dev/b/x"), ("b", "/ls/dev/b/y"), ("a", "/ls/dev/x")];
    assert_eq!(asked, expected.map(|(cell, name)| (cell.to_owned(), name.to_owned())));
    assert_eq!(played.connects.len(), 2);
}

#[test]
fn what_belongs_to_no_cell_is_answered_here() {
    let mut played = application(Hosts::Cells(map()));
    let session = SessionKey::new([1; 16]).id();
    let check = |played: &mut Played, op: Op, on_behalf: Option<OnBehalf>, code: ErrorCode| {
        let ticket = played.submit(t(0), op.clone(), on_behalf);
        assert_eq!(played.code(ticket), Some(code), "{op:?}");
    };

    check(&mut played, open("/ls/prod/x"), None, ErrorCode::NotFound);
    let nonsense = HandleToken::new(bytes::Bytes::from_static(b"nonsense"));
    check(&mut played, Op::GetStat(nonsense.clone()), None, ErrorCode::StaleHandle);
    check(&mut played, Op::GetStat(handle("c", session)), Some(on_behalf()), ErrorCode::StaleHandle);
    check(&mut played, Op::GetStat(handle("a", session)), None, ErrorCode::SessionExpired);
    check(&mut played, Op::Settle(Vec::new()), None, ErrorCode::InvalidArgument);
    assert!(played.connects.is_empty(), "nobody was asked");
    let mut one = application(Hosts::one(vec!["p:1".into()]));
    check(&mut one, Op::GetStat(nonsense), None, ErrorCode::StaleHandle);
}

#[test]
fn a_request_for_a_client_goes_by_its_handle_whatever_session_opened_it() {
    let mut played = application(Hosts::Cells(map()));
    let session = SessionKey::new([1; 16]).id();

    played.submit(t(0), Op::GetStat(handle("b", session)), Some(on_behalf()));

    let (link, request) = &played.requests[0];
    assert_eq!((link.cell.clone(), request.on_behalf.clone()), (Some(cell("b")), Some(on_behalf())));
}

#[test]
fn a_cell_that_does_not_own_the_name_is_asked_a_few_times_and_then_believed() {
    let mut played = application(Hosts::Cells(map()));
    let ticket = played.submit(t(0), open("/ls/dev/x"), None);

    for tries in 1..4_u64 {
        played.refuse_last(t(tries * 200), ErrorCode::WrongCell { map_version: 2 });
        assert_eq!(played.code(ticket), None);
        played.wait_until(t(tries * 200 + 99));
        assert_eq!(played.requests.len() as u64, tries, "not before its time");
        played.wait_until(t(tries * 200 + 100));
        assert_eq!(played.requests.len() as u64, tries + 1);
    }
    played.refuse_last(t(900), ErrorCode::WrongCell { map_version: 2 });

    assert_eq!(played.code(ticket), Some(ErrorCode::WrongCell { map_version: 2 }));
}

#[test]
fn a_request_that_waits_to_be_routed_again_can_be_cancelled() {
    let mut played = application(Hosts::Cells(map()));
    let ticket = played.submit(t(0), open("/ls/dev/x"), None);
    played.refuse_last(t(10), ErrorCode::WrongCell { map_version: 2 });

    played.core.cancel(t(20), ticket);
    played.play(t(20));

    assert_eq!(played.code(ticket), Some(ErrorCode::Cancelled));
    assert_eq!(played.core.waiting(), 0);
}

#[test]
fn a_session_that_expires_at_one_cell_is_followed_by_another_at_the_next_use() {
    let mut played = application(Hosts::Cells(map()));
    played.submit(t(0), open("/ls/dev/x"), None);
    played.submit(t(0), open("/ls/dev/b/x"), None);
    let waiting = played.submit(t(0), open("/ls/dev/y"), None);
    let held: Vec<_> = played.core.sessions().map(|held| held.session).collect();
    let old_link = played.connects[0].0.clone();

    let expired = ErrorCode::SessionExpired.because("played");
    played.core.received(t(50), &old_link, Down::Refused(expired.clone()));
    played.play(t(50));

    assert!(played.events.contains(&(Some(cell("a")), Event::Expired(expired))));
    assert_eq!(played.code(waiting), Some(ErrorCode::SessionExpired));
    assert_eq!(played.core.sessions().map(|held| held.session).collect::<Vec<_>>(), held[1..], "b's stands");
    let stale = played.submit(t(60), Op::GetStat(handle("a", held[0])), None);
    assert_eq!(played.code(stale), Some(ErrorCode::SessionExpired), "its handles went with it");
    assert_eq!(played.core.sessions().count(), 1, "and begin nothing");

    played.submit(t(70), open("/ls/dev/x"), None);
    let (link, key) = played.hellos.last().cloned().expect("greeted");
    assert_ne!(key.id(), held[0]);
    assert!(link.attempt > old_link.attempt, "connections are numbered on");
    played.core.disconnected(t(80), &old_link);
    played.play(t(80));
    assert_eq!(
        played.core.sessions().next().map(|held| held.status),
        Some(Status::Safe),
        "late words are ignored"
    );
}

#[test]
fn a_tier_host_begins_everywhere_at_once_and_again_when_a_session_expires() {
    let mut played = Played::new(UpstreamConfig::tier(Hosts::Cells(map()), Role::Proxy, "p:1", [3; 32]));
    played.wait_until(t(0));
    assert_eq!(played.core.sessions().count(), 2);

    let expired = ErrorCode::SessionExpired.because("played");
    let link = played.connects[0].0.clone();
    played.core.received(t(50), &link, Down::Refused(expired.clone()));
    played.play(t(50));
    assert_eq!(played.connects.len(), 3, "at once");

    let mut refused =
        UpstreamCore::new(t(0), UpstreamConfig::tier(Hosts::Cells(map()), Role::Proxy, "p:1", [3; 32]));
    refused.handle_timeout(t(0));
    let link = LinkId { cell: Some(cell("a")), attempt: Attempt(1) };
    refused.connected(t(0), &link);
    refused.received(t(0), &link, Down::Refused(expired));
    assert_eq!(refused.sessions().count(), 1, "one that nobody wanted is followed after a pause");
    refused.handle_timeout(t(999));
    assert_eq!(refused.sessions().count(), 1);
    refused.handle_timeout(t(1_000));
    assert_eq!(refused.sessions().count(), 2);
}

#[test]
fn the_end_of_the_only_session_is_final() {
    let mut played = application(Hosts::one(vec!["p:1".into()]));
    played.submit(t(0), open("/ls/prod/whatever"), None);
    let link = played.connects[0].0.clone();

    played.core.received(t(50), &link, Down::Refused(ErrorCode::SessionExpired.because("played")));
    played.play(t(50));
    let later = played.submit(t(60), open("/ls/dev/x"), None);

    assert_eq!(played.code(later), Some(ErrorCode::SessionExpired));
    assert_eq!(played.connects.len(), 1);
}

#[test]
fn hosts_are_tried_in_the_order_that_follows_from_the_session() {
    let addresses: Vec<String> = (1..=5).map(|n| format!("p{n}:1")).collect();
    let mut played = application(Hosts::one(addresses.clone()));
    played.submit(t(0), open("/ls/dev/x"), None);
    let session = played.core.sessions().next().expect("begun").session;
    let order = crate::ring::HostList::from(addresses.clone()).candidates(&session.0);

    assert_eq!(played.connects[0].1, order[0]);
    let link = played.connects[0].0.clone();
    played.core.disconnected(t(10), &link);
    played.wait_until(t(1_100));
    assert_eq!(played.connects[1].1, order[1]);
}

#[test]
fn keys_follow_from_the_seed_and_are_all_different() {
    let keys = |seed: [u8; 32]| {
        let mut played = Played::new(UpstreamConfig::application(Hosts::Cells(map()), "alice", seed));
        played.submit(t(0), open("/ls/dev/x"), None);
        played.submit(t(0), open("/ls/dev/b/x"), None);
        played.hellos.iter().map(|(_, key)| *key.as_bytes()).collect::<Vec<_>>()
    };

    assert_eq!(keys([1; 32]), keys([1; 32]));
    assert_ne!(keys([1; 32])[0], keys([1; 32])[1]);
    assert_ne!(keys([1; 32])[0], keys([2; 32])[0]);
}

#[test]
fn a_cell_that_does_not_answer_fills_its_own_share_and_no_other() {
    let config = UpstreamConfig {
        waiting_max: 2,
        ..UpstreamConfig::tier(Hosts::Cells(map()), Role::Proxy, "p:1", [3; 32])
    };
    let mut played = Played::new(config);
    played.wait_until(t(0));
    played.submit(t(0), open("/ls/dev/x"), None);
    played.submit(t(0), open("/ls/dev/x"), None);

    let third = played.submit(t(0), open("/ls/dev/x"), None);
    let elsewhere = played.submit(t(0), open("/ls/dev/b/x"), None);

    assert!(matches!(played.code(third), Some(ErrorCode::RateLimited { .. })));
    assert_eq!(played.code(elsewhere), None);
    assert_eq!(played.requests.last().map(|(link, _)| link.cell.clone()), Some(Some(cell("b"))));
}

#[test]
fn after_the_end_nothing_begins_and_everything_fails() {
    let mut played = application(Hosts::Cells(map()));
    played.submit(t(0), open("/ls/dev/x"), None);
    let link = played.connects[0].0.clone();

    played.core.end(t(10));
    played.play(t(10));
    assert!(!played.core.is_over(), "the host has to hear of it");
    played.core.disconnected(t(20), &link);
    played.play(t(20));

    assert!(played.core.is_over());
    assert!(played.events.contains(&(Some(cell("a")), Event::Closed)));
    let late = played.submit(t(30), open("/ls/dev/b/x"), None);
    assert_eq!(played.code(late), Some(ErrorCode::SessionExpired));
    assert_eq!(played.connects.len(), 1);
}

#[test]
fn an_answer_comes_with_the_ticket_of_its_request() {
    let mut played = application(Hosts::Cells(map()));
    let first = played.submit(t(0), open("/ls/dev/x"), None);
    let second = played.submit(t(0), open("/ls/dev/b/x"), None);
    let (link, request) = played.requests[1].clone();

    let answer = Answer::plain(request.number, Ok(Reply::Noted));
    played.core.received(t(10), &link, Down::Answer(answer));
    played.play(t(10));

    assert_eq!(played.answers.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [second]);
    assert_eq!(played.core.waiting(), 1);
    assert_eq!(played.core.cell_of(first), Some(&cell("a")));
}

/// Ends the session's stream, as a host does that was told of the session's end.
fn hang_up(played: &mut Played, now: Time) {
    let link = played.connects.last().expect("connected").0.clone();
    played.core.disconnected(now, &link);
    played.play(now);
}

#[test]
fn a_session_that_rests_is_followed_by_another_at_the_next_use_and_nothing_is_told() {
    for hosts in [Hosts::one(vec!["p:1".into()]), Hosts::Cells(map())] {
        let mut played = application(hosts);
        played.submit(t(0), open("/ls/dev/x"), None);
        played.refuse_last(t(5), ErrorCode::NotFound);
        let at = played.connects[0].0.cell.clone();
        assert_eq!(played.core.idle_since(at.as_ref()), Some(t(5)));

        played.core.rest(t(60_005), at.as_ref());
        played.play(t(60_005));
        hang_up(&mut played, t(60_006));
        assert_eq!(played.core.sessions().count(), 0);
        let told = played.events.len();
        played.submit(t(70_000), open("/ls/dev/x"), None);

        assert_eq!(played.requests.len(), 2);
        assert_ne!(played.hellos[0].1, played.hellos[1].1, "a session of its own");
        let is_end = |(_, event): &(_, Event)| matches!(event, Event::Closed | Event::Expired(_));
        assert!(!played.events.iter().any(is_end));
        assert!(told < played.events.len(), "the new one is told of");
    }
}

#[test]
fn what_is_asked_while_a_session_comes_to_its_end_waits_for_the_next() {
    let mut played = application(Hosts::one(vec!["p:1".into()]));
    played.submit(t(0), open("/ls/dev/x"), None);
    played.refuse_last(t(5), ErrorCode::NotFound);
    let old = handle("a", played.hellos[0].1.id());

    played.core.rest(t(10), None);
    played.play(t(10));
    let cancelled = played.submit(t(11), open("/ls/dev/y"), None);
    let waiting = played.submit(t(11), open("/ls/dev/z"), None);
    let of_the_old = played.submit(t(11), Op::GetStat(old), None);
    played.core.cancel(t(12), cancelled);
    played.play(t(12));
    assert_eq!(played.requests.len(), 1, "the host has not closed the stream yet");
    hang_up(&mut played, t(13));

    assert_eq!(played.requests.len(), 2);
    assert!(matches!(&played.requests[1].1.op, Op::Open(open) if open.name.component() == "z"));
    assert_eq!(played.code(cancelled), Some(ErrorCode::Cancelled));
    assert_eq!(played.code(of_the_old), Some(ErrorCode::SessionExpired));
    assert_eq!(played.code(waiting), None, "it is under way");
}

#[test]
fn a_session_with_a_request_under_way_does_not_rest() {
    let mut played = application(Hosts::one(vec!["p:1".into()]));
    played.submit(t(0), open("/ls/dev/x"), None);
    assert_eq!(played.core.idle_since(None), None);

    played.core.rest(t(60_000), None);
    played.play(t(60_000));
    played.submit(t(60_001), open("/ls/dev/y"), None);

    assert_eq!(played.requests.len(), 2);
    assert_eq!(played.hellos.len(), 1);
}

#[test]
fn an_end_while_a_session_rests_is_an_end() {
    let mut played = application(Hosts::one(vec!["p:1".into()]));
    played.submit(t(0), open("/ls/dev/x"), None);
    played.refuse_last(t(5), ErrorCode::NotFound);

    played.core.rest(t(10), None);
    played.play(t(10));
    let waiting = played.submit(t(11), open("/ls/dev/y"), None);
    played.core.end(t(12));
    played.play(t(12));
    hang_up(&mut played, t(13));

    assert_eq!(played.code(waiting), Some(ErrorCode::SessionExpired));
    assert!(played.core.is_over());
    assert!(matches!(played.events.last(), Some((None, Event::Closed))));
}
