//! What a relay does between real holders of sessions and cells.

mod admissions;
mod caching;
pub(crate) mod cell;
mod crossing;
mod events;
mod histories;
mod layers;
mod routes;
mod world;

use std::time::Duration;

use hasp_proto::client::{Ask, Event};
use hasp_proto::error::ErrorCode;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::{CellName, Epoch, RequestNumber};
use hasp_proto::limits::CLAIM_WINDOW;
use hasp_proto::name::Name;
use hasp_proto::node::LockMode;
use hasp_proto::request::{Answer, EndCause, OnBehalf, Op, Open, Reply, Use};
use hasp_proto::stream::{News, Role};
use hasp_proto::trace::TraceContext;

use crate::upstream::{Hosts, Output, UpstreamConfig, UpstreamCore};
use world::{World, t};

const A: &str = "/ls/dev/x";
const B: &str = "/ls/dev/b/x";

fn open(name: &str, r#use: Use) -> Op {
    let name = Name::parse(name).expect("good");
    Op::Open(Open::existing(name, r#use))
}

fn for_client(op: Op, client: OnBehalf) -> Ask {
    Ask { on_behalf: Some(client), ..op.into() }
}

fn write(handle: &HandleToken) -> Op {
    Op::SetContents { handle: handle.clone(), contents: bytes::Bytes::from_static(b"x"), if_generation: None }
}

fn opened(world: &mut World, client: usize, name: &str) -> HandleToken {
    match world.ask(client, open(name, Use::WriteAndLock)) {
        Some(Answer { result: Ok(Reply::Opened { handle, .. }), .. }) => handle,
        other => panic!("not opened: {other:?}"),
    }
}

fn code(answer: Option<&Answer>) -> Option<ErrorCode> {
    answer?.result.as_ref().err().map(|error| error.code.clone())
}

fn is_lost(event: &Event, cell: &str) -> bool {
    matches!(event, Event::News(_, News::CellLost { cell: lost }) | Event::CellLost(lost) if lost.as_str() == cell)
}

#[test]
fn requests_go_to_the_cell_that_owns_the_name_for_their_client_and_back() {
    let mut world = World::new(&["p"]);
    let (one, two) = (world.add_client(&["p"]), world.add_client(&["p"]));

    let in_a = world.submit(one, open(A, Use::Read));
    let in_b = world.submit(two, open(B, Use::Read));
    world.run_for(100);

    let check = |cell: &str, asks: usize, idle: usize, ticket| {
        let asked = world.asked(cell, asks);
        assert_eq!(asked.len(), 1);
        let client = asked[0].1.on_behalf.clone().expect("for the client");
        assert_eq!((client.number, client.claim.0, &*client.principal), (RequestNumber(1), 1, "alice"));
        assert!(world.asked(cell, idle).is_empty());
        let Some(Answer { number, result: Ok(Reply::Opened { handle, .. }), .. }) =
            world.clients[asks].answer(ticket)
        else {
            panic!("opened")
        };
        let body = handle.claimed_body().expect("a handle");
        assert_eq!((number.0, body.session, body.cell.as_str()), (1, world.clients[asks].session(), cell));
    };
    check("a", one, two, in_a);
    check("b", two, one, in_b);
}

#[test]
fn a_relay_costs_each_cell_one_session_whatever_the_number_of_clients() {
    let mut world = World::new(&["p"]);
    for _ in 0..50 {
        world.add_client(&["p"]);
    }

    world.run_until(t(120_000));

    let status = world.relays["p"].status();
    assert_eq!((status.sessions, status.upstream_sessions), (50, 2));
    assert_eq!(world.cells["a"].core.session_count(), 1);
    assert!(status.keepalives > 50 * 12 && status.upstream_keepalives < 2 * 20, "{status:?}");
}

#[test]
fn no_lease_below_outlives_the_lease_above_when_the_cells_go_silent() {
    let mut world = World::new(&["p"]);
    world.add_client(&["p"]);
    world.add_client(&["p"]);
    world.check = |world| {
        let Some(held) = world.relays["p"].upstream.sessions().min_by_key(|held| held.ends.cache) else {
            return;
        };
        for client in &world.clients {
            for (_, ends) in client.core.lease_ends() {
                let is_over = |end| end <= world.now;
                assert!(
                    is_over(ends.cache) || ends.cache < held.ends.cache,
                    "lease-1: {ends:?} {:?}",
                    held.ends
                );
                let bound = held.ends.session + CLAIM_WINDOW;
                assert!(is_over(ends.session) || ends.session < bound, "lease-2: {ends:?} {bound:?}");
            }
        }
    };
    world.run_until(t(20_000));

    world.silence("a");
    world.silence("b");
    let upstream = world.relays["p"].upstream.sessions().map(|held| held.ends.session).min().expect("two");
    world.run_until(upstream + Duration::from_secs(44));
    assert!(
        world.clients[0].core.lease_ends().all(|(_, ends)| ends.session > world.now),
        "served on meanwhile"
    );

    world.check = |_| {};
    world.run_until(upstream + Duration::from_secs(170));
    assert_eq!(world.clients[0].saw(|event| matches!(event, Event::Expired(_))), 1);
}

#[test]
fn losing_a_cell_fails_only_what_is_there_and_says_so() {
    let mut world = World::new(&["p"]);
    let (one, two) = (world.add_client(&["p"]), world.add_client(&["p"]));
    let (in_a, in_b) = (opened(&mut world, one, A), opened(&mut world, one, B));
    opened(&mut world, two, A);

    world.silence("b");
    let waiting = world.submit(one, write(&in_b));
    world.run_for(30_000);
    assert!(
        matches!(world.ask(one, write(&in_a)), Some(Answer { result: Ok(_), .. })),
        "the other cell serves"
    );
    world.run_for(60_000);

    assert_eq!(world.clients[one].saw(|event| is_lost(event, "b")), 1);
    assert_eq!(world.clients[two].saw(|event| is_lost(event, "b")), 0, "it has nothing there");
    assert_eq!(world.clients[one].saw(|event| matches!(event, Event::Jeopardy | Event::Expired(_))), 0);
    assert!(matches!(world.ask(one, write(&in_a)), Some(Answer { result: Ok(_), .. })));
    assert_eq!(world.clients[one].answer(waiting), None, "asked again and again, not failed");

    world.unsilence("b");
    world.run_for(5_000);
    assert!(world.clients[one].answer(waiting).is_some_and(|answer| answer.result.is_ok()));
    let numbers: Vec<_> =
        world.asked("b", one).iter().map(|(_, r)| r.on_behalf.clone().expect("for it").number).collect();
    assert_eq!(numbers.last(), Some(&RequestNumber(3)), "with the number it had");
}

#[test]
fn a_client_whose_proxy_dies_asks_again_through_the_next_with_the_same_number_and_a_newer_claim() {
    let mut world = World::new(&["p", "q"]);
    let client = world.add_client(&["p", "q"]);
    let handle = opened(&mut world, client, A);
    world.cell("a").holds = true;
    let ticket = world.submit(client, write(&handle));
    world.run_for(100);
    let first =
        world.relays.iter().find(|(_, relay)| relay.status().sessions == 1).expect("one has it").0.clone();

    world.kill(&first);
    world.cell("a").answer_held();
    world.run_for(15_000); // The dead proxy may have cached the file: its cache lease has to end first.

    assert!(world.clients[client].answer(ticket).is_some_and(|answer| answer.result.is_ok()));
    let asked = world.asked("a", client);
    let writes: Vec<_> = asked.iter().filter(|(_, request)| request.op.name() == "set_contents").collect();
    let [(via_first, before), (via_next, after)] = writes[..] else { panic!("twice: {writes:?}") };
    let (before, after) =
        (before.on_behalf.as_ref().expect("for it"), after.on_behalf.as_ref().expect("for it"));
    assert_ne!(via_first, via_next);
    assert_eq!((before.session, before.number), (after.session, after.number));
    assert!(after.claim > before.claim);
    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Expired(_) | Event::Jeopardy)), 0);
}

#[test]
fn a_client_that_moved_and_is_idle_is_not_ended_by_its_old_proxy() {
    let mut world = World::new(&["p", "q"]);
    let client = world.add_client(&["p", "q"]);
    opened(&mut world, client, A);

    world.break_links(client); // It goes on to the other proxy, and the first one waits for it.
    world.run_for(30_000);

    let asked = world.asked("a", client);
    let ends: Vec<_> = asked.iter().filter(|(_, request)| request.op.name() == "end_client").collect();
    let [(old, end)] = ends[..] else { panic!("the old proxy gives it up: {asked:?}") };
    let claims: Vec<_> = asked.iter().filter(|(_, request)| request.op.name() == "claim").collect();
    let [(new, claim)] = claims[..] else { panic!("the new one claims it: {asked:?}") };
    assert_ne!(old, new);
    assert!(claim.on_behalf.as_ref().expect("for it").claim > end.on_behalf.as_ref().expect("for it").claim);
    let order: Vec<_> = asked.iter().map(|(_, request)| request.op.name()).collect();
    assert_eq!(order, ["open", "claim", "end_client"], "the claim comes first");
}

#[test]
fn marks_of_settled_requests_go_up_together_once_a_second_and_only_where_something_was_written() {
    let mut world = World::new(&["p"]);
    let (one, two) = (world.add_client(&["p"]), world.add_client(&["p"]));
    let handles = [opened(&mut world, one, A), opened(&mut world, two, A)];
    for _ in 0..20 {
        for (client, handle) in handles.iter().enumerate() {
            world.submit(client, write(handle));
        }
        world.run_for(100);
    }
    world.run_for(10_000);

    let batches: Vec<_> = world.cells["a"]
        .seen
        .iter()
        .filter_map(|(_, request)| match &request.op {
            Op::Settle(marks) => Some(marks.clone()),
            _ => None,
        })
        .collect();
    assert!((2..=8).contains(&batches.len()), "about one a second: {batches:?}");
    assert!(batches.iter().any(|marks| marks.len() == 2), "of both together: {batches:?}");
    let last = batches.iter().flatten().filter(|(session, _)| *session == world.clients[one].session()).max();
    assert_eq!(last.map(|(_, below)| *below), Some(RequestNumber(22)));
    assert!(world.cells["b"].ops().is_empty(), "nothing was written there");
}

#[test]
fn a_clients_end_is_told_with_its_cause_where_it_wrote_and_nowhere_else() {
    let check = |cause: EndCause| {
        let mut world = World::new(&["p"]);
        let (client, other) = (world.add_client(&["p"]), world.add_client(&["p"]));
        opened(&mut world, client, A);
        world.ask(other, open(B, Use::Read));
        assert!(world.ask(client, open(B, Use::Read)).is_some_and(|answer| answer.result.is_ok()));
        world.run_for(3_000);

        let now = world.now;
        match cause {
            EndCause::Closed => world.clients[client].core.end(now),
            EndCause::Failed => world.silence("p"),
        }
        world.run_for(15_000);

        let (_, last) = world.cells["a"].seen.last().cloned().expect("asked");
        let told = last.on_behalf.expect("for the client");
        assert_eq!((last.op, told.session), (Op::EndClient(cause), world.clients[client].session()));
        let asked = world.cells["b"].seen.iter().filter_map(|(_, it)| it.on_behalf.as_ref());
        let asked: Vec<_> = asked.map(|it| it.session).collect();
        assert!(!asked.contains(&world.clients[client].session()), "its open was answered from the cache");
        let other = usize::from(cause == EndCause::Closed);
        assert_eq!(world.relays["p"].status().sessions, other, "and forgotten");
    };
    check(EndCause::Closed);
    check(EndCause::Failed);
}

/// The node may be ephemeral, and stays as long as somebody has it open.
#[test]
fn a_clients_end_is_told_where_it_opened_for_reading() {
    let mut world = World::new(&["p"]);
    let client = world.add_client(&["p"]);
    world.ask(client, open(B, Use::Read));

    let now = world.now;
    world.clients[client].core.end(now);
    world.run_for(200);

    assert_eq!(world.cells["b"].ops(), ["open", "end_client"]);
    assert!(world.cells["a"].ops().is_empty(), "it asked nothing there");
}

#[test]
fn a_clients_end_comes_after_everything_it_asked() {
    let mut world = World::new(&["p"]);
    let client = world.add_client(&["p"]);
    let handle = opened(&mut world, client, A);
    world.cell("a").refuses = Some(("try_acquire", ErrorCode::Unavailable));
    world.submit(client, Op::TryAcquire(handle, LockMode::Exclusive));
    world.run_for(30); // It was refused, and waits to be asked again.

    let now = world.now;
    world.clients[client].core.end(now);
    world.run_for(1_000);

    let ops = world.cells["a"].ops();
    assert_eq!(
        ops,
        ["open", "try_acquire", "try_acquire", "end_client"],
        "nothing is left behind after the end"
    );
}

#[test]
fn a_cell_that_does_not_take_the_claim_yet_is_asked_again_and_the_client_lives() {
    let check = |code: ErrorCode| {
        let mut world = World::new(&["p"]);
        let client = world.add_client(&["p"]);
        let handle = opened(&mut world, client, A);
        world.cell("a").refuses = Some(("set_contents", code));
        let ticket = world.submit(client, write(&handle));
        world.run_for(1_000);
        assert_eq!(world.clients[client].answer(ticket), None);

        world.cell("a").refuses = None;
        world.run_for(200);

        assert!(world.clients[client].answer(ticket).is_some_and(|answer| answer.result.is_ok()));
        assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Expired(_))), 0);
    };
    check(ErrorCode::SessionMoved);
    check(ErrorCode::Unavailable);
}

#[test]
fn a_client_that_a_cell_has_given_up_hears_of_it() {
    let mut world = World::new(&["p"]);
    let client = world.add_client(&["p"]);
    let handle = opened(&mut world, client, A);
    world.cell("a").refuses = Some(("set_contents", ErrorCode::SessionExpired));

    world.submit(client, write(&handle));
    world.run_for(1_000);

    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Expired(_))), 1);
}

#[test]
fn a_waiting_acquire_is_cancelled_by_its_client_and_by_its_clients_end() {
    let mut world = World::new(&["p"]);
    let client = world.add_client(&["p"]);
    let handle = opened(&mut world, client, A);
    world.cell("a").holds = true;
    let first = world.submit(client, Op::Acquire(handle.clone(), LockMode::Exclusive));
    world.submit(client, Op::Acquire(handle, LockMode::Exclusive));
    world.run_for(100);

    let now = world.now;
    world.clients[client].core.cancel(now, first);
    world.run_for(100);
    assert_eq!(code(world.clients[client].answer(first)), Some(ErrorCode::Cancelled));
    assert_eq!(world.cells["a"].held.len(), 1, "the other waits on");

    let now = world.now;
    world.clients[client].core.end(now);
    world.run_for(100);
    assert_eq!(world.cells["a"].ops().last(), Some(&"end_client"));
}

#[test]
fn only_proxies_and_routers_speak_for_others() {
    let mut world = World::new(&["p"]);
    let (liar, victim) = (world.add_client(&["p"]), world.add_client(&["p"]));
    let session = world.clients[victim].session();
    let on_behalf = OnBehalf {
        session,
        number: RequestNumber(1),
        settled_below: RequestNumber(1),
        claim: Default::default(),
        principal: "root".into(),
        is_mover: false,
        evidence: None,
    };
    let now = world.now;
    let core = &mut world.clients[liar].core;

    let refused = [
        core.submit(now, for_client(open(A, Use::Read), on_behalf.clone())),
        core.submit(now, for_client(Op::EndClient(EndCause::Failed), on_behalf)),
        core.submit(now, Op::Settle(vec![(session, RequestNumber(9))]).into()),
    ];
    world.run_for(100);

    for ticket in refused {
        assert_eq!(code(world.clients[liar].answer(ticket)), Some(ErrorCode::PermissionDenied));
    }
    assert!(world.cells["a"].ops().is_empty() && world.cells["b"].ops().is_empty());
}

#[test]
fn news_of_a_fail_over_reaches_every_client() {
    let mut world = World::new(&["p"]);
    let clients = [world.add_client(&["p"]), world.add_client(&["p"])];
    let news = News::FailOver { cell: CellName::new("a"), epoch: Epoch(2) };
    let now = world.now;
    let core = &mut world.cell("a").core;
    let session = core.sessions().next().expect("the relay's");

    core.tell(now, session, news.clone());
    world.run_for(100);

    for client in clients {
        assert_eq!(
            world.clients[client].saw(|event| matches!(event, Event::News(_, item) if *item == news)),
            1
        );
    }
}

#[test]
fn clients_are_refused_until_a_cell_has_welcomed_the_relay() {
    let mut world = World::new(&["p"]);
    world.silence("a");
    world.silence("b");
    world.run_until(t(75_000));

    let client = world.add_client(&["p"]);
    world.run_for(1_000);
    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Welcomed { .. })), 0);

    world.unsilence("a");
    world.run_for(5_000);
    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Welcomed { .. })), 1);
}

fn guest(claim: u64) -> OnBehalf {
    OnBehalf {
        session: hasp_proto::id::SessionId([7; 16]),
        number: RequestNumber(5),
        settled_below: RequestNumber(5),
        claim: hasp_proto::id::Claim(claim),
        principal: "bob".into(),
        is_mover: false,
        evidence: None,
    }
}

#[test]
fn where_a_request_comes_from_is_passed_on_and_changes_nothing() {
    let mut world = World::new(&["p"]);
    let (client, proxy) = (world.add_client(&["p"]), world.add_proxy(&["p"]));
    let trace = |step| Some(TraceContext::new([1; 16], [step; 8], 1));
    let now = world.now;

    let own = Ask { trace: trace(2), ..open(A, Use::WriteAndLock).into() };
    let guests = Ask { trace: trace(3), ..for_client(open(B, Use::WriteAndLock), guest(3)) };
    world.clients[client].core.submit(now, own);
    world.clients[proxy].core.submit(now, guests);
    world.clients[client].core.submit(now, open(A, Use::WriteAndLock).into());
    world.run_for(100);

    let traces = |cell: &str| -> Vec<_> {
        world.cells[cell].seen.iter().map(|(_, request)| request.trace.clone()).collect()
    };
    assert_eq!(traces("a"), [trace(2), None]);
    assert_eq!(traces("b"), [trace(3)]);
}

#[test]
fn what_a_proxy_says_of_its_clients_is_passed_on_unchanged() {
    let mut world = World::new(&["p"]);
    let proxy = world.add_proxy(&["p"]);
    let now = world.now;

    world.clients[proxy].core.submit(now, for_client(open(A, Use::WriteAndLock), guest(3)));
    world.run_for(100);
    let ended =
        world.clients[proxy].core.submit(world.now, for_client(Op::EndClient(EndCause::Closed), guest(3)));
    let stale = world.clients[proxy].core.submit(world.now, Op::EndClient(EndCause::Closed).into());
    world.run_for(100);

    assert_eq!(world.cells["a"].seen[0].1.on_behalf, Some(guest(3)));
    assert_eq!(world.cells["a"].seen[1].1.op, Op::EndClient(EndCause::Closed));
    assert_eq!(world.cells["b"].ops(), ["end_client"], "wherever it may have been");
    assert_eq!(
        world.clients[proxy].answer(ended).map(|answer| answer.result.clone()),
        Some(Ok(Reply::Noted))
    );
    assert_eq!(code(world.clients[proxy].answer(stale)), Some(ErrorCode::InvalidArgument));
}

#[test]
fn clients_of_a_lost_proxy_have_the_claim_window_and_are_then_ended() {
    let mut world = World::new(&["p"]);
    let (lost, other) = (world.add_proxy(&["p"]), world.add_proxy(&["p"]));
    let stays = OnBehalf { session: hasp_proto::id::SessionId([8; 16]), ..guest(3) };
    let now = world.now;
    for client in [guest(3), stays.clone()] {
        world.clients[lost].core.submit(now, for_client(open(A, Use::WriteAndLock), client));
    }
    world.run_for(100);

    let now = world.now;
    world.clients[lost].core.end(now);
    let moved = OnBehalf { claim: hasp_proto::id::Claim(4), ..stays };
    world.clients[other].core.submit(now, for_client(open(A, Use::Read), moved));
    world.run_for(59_000);
    assert!(!world.cells["a"].ops().contains(&"end_client"), "within the claim window");
    world.run_for(3_000);

    let ends: Vec<_> =
        world.cells["a"].seen.iter().filter(|(_, r)| r.op == Op::EndClient(EndCause::Failed)).collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].1.on_behalf.as_ref().map(|client| client.session), Some(guest(3).session));
}

#[test]
fn a_stopping_relay_sends_its_clients_elsewhere_and_ends_its_sessions() {
    let mut world = World::new(&["p", "q"]);
    let client = world.add_client(&["p", "q"]);
    let first =
        world.relays.iter().find(|(_, relay)| relay.status().sessions == 1).expect("one has it").0.clone();

    let now = world.now;
    hasp_proto::machine::Core::handle(world.relays.get_mut(&first).expect("there"), now, super::Input::Stop);
    world.run_for(2_000);

    assert_eq!(world.relays[&first].phase(), super::Phase::Stopped);
    assert_eq!(world.cells["a"].core.session_count(), 1, "only the other relay's");
    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Welcomed { .. })), 2);
    assert_eq!(world.clients[client].saw(|event| matches!(event, Event::Expired(_) | Event::Jeopardy)), 0);
}

#[test]
fn outputs_of_a_holder_that_begins_at_once_come_at_its_first_timeout() {
    let config = UpstreamConfig::tier(Hosts::Cells(world::map()), Role::Router, "r", [1; 32]);
    let mut core = UpstreamCore::new(t(5), config);
    assert_eq!(core.poll_output(), None);

    core.handle_timeout(t(5));

    assert!(
        matches!(core.poll_output(), Some(Output::Connect(link, address)) if link.cell == Some(CellName::new("a")) && address == "a")
    );
}
