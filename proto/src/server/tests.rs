//! What a host does, input by input.

use std::time::Duration;

use super::*;
use crate::handle::HandleToken;
use crate::id::{Claim, SessionKey};
use crate::lease::LeaseEnds;
use crate::limits::{ARRIVALS_PER_SECOND, LEASE_MAX};
use crate::request::Op;
use crate::stream::Grant;
use crate::time::t;

const C1: ConnectionId = ConnectionId(1);
const C2: ConnectionId = ConnectionId(2);

fn hello(key: u8, claim: u64) -> Hello {
    Hello {
        protocol: PROTOCOL,
        key: SessionKey::new([key; 16]),
        role: Role::Client,
        principal: "alice".into(),
        known_since: (claim > 1).then_some(Claim(1)),
        next_request: RequestNumber(1),
        claim: Claim(claim),
        advertise: String::new(),
        lease_left: Duration::ZERO,
    }
}

fn request(number: u64) -> Request {
    Request {
        number: RequestNumber(number),
        settled_below: RequestNumber(0),
        on_behalf: None,
        guard: None,
        caches: false,
        trace: None,
        op: Op::GetStat(HandleToken::new(bytes::Bytes::new())),
    }
}

struct World {
    core: ServerCore,
    id: SessionId,
}

impl World {
    /// A master with one application's session, welcomed at 0 on connection 1.
    fn new() -> Self {
        Self::of(Role::Client)
    }

    fn of(role: Role) -> Self {
        let mut core = ServerCore::new(LeaseTerms::default());
        core.set_ceiling(t(0), Ceiling::Master);
        core.connected(C1);
        core.received(t(0), C1, Up::Hello(Hello { role, ..hello(1, 1) }));
        core.admit(t(0), C1);
        let mut world = Self { core, id: SessionKey::new([1; 16]).id() };
        world.outputs();
        world
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.core.check_invariants();
        std::iter::from_fn(|| self.core.poll_output()).collect()
    }

    fn keep_alive(&mut self, now: Time, number: u64) {
        let keep_alive = KeepAlive { number, settled_below: RequestNumber(0) };
        self.core.received(now, C1, Up::KeepAlive(keep_alive));
    }

    /// Runs timeouts until something comes out; when, and what.
    fn next(&mut self) -> (Time, Vec<Output>) {
        loop {
            let (at, _) = self.core.poll_timeout().expect("something is due");
            self.core.handle_timeout(at);
            let outputs = self.outputs();
            if !outputs.is_empty() {
                return (at, outputs);
            }
        }
    }
}

fn refusal(outputs: &[Output]) -> Option<&ErrorCode> {
    outputs.iter().find_map(|output| match output {
        Output::Send(_, Down::Refused(error)) => Some(&error.code),
        _ => None,
    })
}

#[test]
fn a_keep_alive_is_held_until_a_third_of_the_lease_is_left() {
    let mut world = World::new();
    world.keep_alive(t(10), 1);
    let (first, _) = world.next();
    assert!(first < t(8_000), "the first hold is shortened by the session's phase");

    assert_eq!(first.as_micros() % 100_000, 0, "answers are given at ticks");

    world.keep_alive(first, 2);
    let (second, outputs) = world.next();

    assert_eq!(second, first + Duration::from_secs(8));
    let grant = Grant {
        held: Duration::from_secs(8),
        session: Duration::from_secs(12),
        cache: Duration::from_secs(12),
    };
    assert_eq!(outputs, vec![Output::Send(C1, Down::Lease { keep_alive: 2, grant })]);
}

#[test]
fn news_is_told_at_once_and_leaves_the_keep_alive_where_it_is() {
    let mut world = World::new();
    world.keep_alive(t(10), 1);

    let item = News::CellLost { cell: CellName::new("b") };
    world.core.tell(t(500), world.id, item.clone());

    let outputs = world.outputs();
    assert_eq!(outputs, [Output::Send(C1, Down::News { sequence: Sequence(1), item })]);
    let (at, outputs) = world.next();
    assert!(matches!(outputs[..], [Output::Send(C1, Down::Lease { keep_alive: 1, .. })]), "{outputs:?}");
    assert!(at > t(500), "when it is due, and not before");
}

#[test]
fn news_that_an_application_leaves_unacknowledged_ends_its_cache_lease_but_not_its_session_lease() {
    let mut world = World::new();
    world.core.tell(t(1_000), world.id, News::CellLost { cell: CellName::new("b") });
    world.outputs();
    world.keep_alive(t(1_000), 1);

    let (at, outputs) = world.next();
    let Some(Output::Send(_, Down::Lease { grant, .. })) = outputs.last() else { panic!("{outputs:?}") };

    assert_eq!(grant.session, Duration::from_secs(12));
    assert_eq!(at + grant.cache, t(12_000), "as it was before");
}

#[test]
fn unacknowledged_news_ends_a_proxys_cache_lease_one_lease_later_but_not_the_session_lease() {
    let mut world = World::of(Role::Proxy);
    world.core.tell(t(1_000), world.id, News::CellLost { cell: CellName::new("b") });
    let mut last = None;
    let mut number = 0;
    while last.is_none_or(|(at, _)| at < t(20_000)) {
        number += 1;
        let now = last.map_or(t(1_000), |(at, _): (Time, Grant)| at);
        world.keep_alive(now, number);
        let (at, outputs) = world.next();
        for output in outputs {
            if let Output::Send(_, Down::Lease { grant, .. }) = output {
                assert!(at + grant.cache <= t(13_000).max(at), "cache lease beyond one lease after the news");
                last = Some((at, grant));
            }
        }
    }
    assert_eq!(last.expect("granted").1.session, Duration::from_secs(12));

    world.core.received(t(21_000), C1, Up::Acknowledge(Sequence(1)));
    assert_eq!(world.outputs(), vec![Output::Acknowledged(world.id, Sequence(1))]);
}

#[test]
fn news_for_a_session_without_a_cache_lease_is_no_sign_of_load() {
    let mut world = World::new();
    let ends = LeaseEnds { session: t(20_000), cache: t(1_000) };
    world.core.adopt(SessionKey::new([2; 16]).id(), holder_of(&hello(2, 1)), ends);

    world.core.tell(t(5_000), SessionKey::new([2; 16]).id(), News::EventsLost { cell: None });
    world.core.set_lease_max(Duration::from_secs(60));
    world.core.handle_timeout(t(5_000));

    assert!(world.outputs().contains(&Output::CacheLeaseOver(SessionKey::new([2; 16]).id())));
    assert_eq!(world.core.lease(), Duration::from_secs(12));
}

#[test]
fn a_keep_alive_that_comes_when_its_answer_was_due_long_ago_is_no_sign_of_load() {
    let mut world = World::new();
    world.core.tell(t(500), world.id, News::EventsLost { cell: None });
    world.core.set_lease_max(Duration::from_secs(60));

    world.keep_alive(t(11_000), 1);
    world.core.received(t(11_000), C1, Up::Acknowledge(Sequence(1)));
    world.core.handle_timeout(t(11_900));
    assert_eq!(world.core.lease(), Duration::from_secs(12));

    world.keep_alive(t(22_500), 2);
    world.core.handle_timeout(t(23_500));
    assert_eq!(world.core.lease(), Duration::from_secs(24), "a second after it came it is one");
}

#[test]
fn a_session_without_keep_alives_runs_out_and_its_connection_is_closed() {
    let mut world = World::new();

    let (at, outputs) = world.next();

    assert_eq!(at, t(12_000));
    assert_eq!(refusal(&outputs), Some(&ErrorCode::SessionExpired));
    assert_eq!(outputs.last(), Some(&Output::Expired(world.id)));
    world.core.received(
        t(12_000),
        C1,
        Up::KeepAlive(KeepAlive { number: 9, settled_below: RequestNumber(0) }),
    );
    assert!(world.outputs().is_empty(), "a KeepAlive that comes too late extends nothing");
}

#[test]
fn no_lease_is_granted_under_a_closed_ceiling_and_the_next_one_when_it_opens() {
    let mut world = World::new();
    world.keep_alive(t(10), 1);
    world.core.set_ceiling(t(20), Ceiling::Closed);
    world.core.handle_timeout(t(9_000));
    assert!(world.outputs().is_empty());

    world.core.set_ceiling(t(9_500), Ceiling::Master);

    assert!(matches!(world.outputs()[..], [Output::Send(C1, Down::Lease { keep_alive: 1, .. })]));
}

#[test]
fn a_new_connection_with_a_greater_claim_displaces_the_old_one() {
    let mut world = World::new();
    world.core.connected(C2);

    world.core.received(t(100), C2, Up::Hello(hello(1, 2)));

    let outputs = world.outputs();
    assert!(
        matches!(&outputs[0], Output::Send(C2, Down::Welcome(welcome)) if welcome.resumed),
        "{outputs:?}"
    );
    assert_eq!(refusal(&outputs), Some(&ErrorCode::SessionMoved));
    world.core.received(t(200), C1, Up::Request(request(1)));
    assert!(world.outputs().is_empty(), "the old connection has no voice");
}

#[test]
fn a_connection_with_a_smaller_claim_is_refused() {
    let mut world = World::new();
    world.core.connected(C2);

    world.core.received(t(100), C2, Up::Hello(hello(1, 0)));

    assert_eq!(refusal(&world.outputs()), Some(&ErrorCode::SessionMoved));
}

#[test]
fn a_request_asked_twice_is_worked_on_once_until_it_is_answered() {
    let mut world = World::new();
    world.core.received(t(10), C1, Up::Request(request(1)));
    world.core.received(t(11), C1, Up::Request(request(1)));
    assert_eq!(world.outputs(), vec![Output::Request(world.id, request(1))]);

    let answer = Answer::plain(RequestNumber(1), Ok(crate::request::Reply::Noted));
    world.core.answer(world.id, answer.clone());
    world.core.answer(world.id, answer.clone());

    assert_eq!(world.outputs(), vec![Output::Send(C1, Down::Answer(answer))]);
}

#[test]
fn requests_beyond_the_limit_are_refused_one_by_one() {
    let mut world = World::new();
    let limit = u64::try_from(REQUESTS_IN_FLIGHT_PER_CLIENT).expect("small");
    for number in 1..=limit {
        world.core.received(t(10), C1, Up::Request(request(number)));
    }
    assert_eq!(world.outputs().len(), REQUESTS_IN_FLIGHT_PER_CLIENT);

    world.core.received(t(10), C1, Up::Request(request(limit + 1)));

    let outputs = world.outputs();
    let [Output::Send(C1, Down::Answer(answer))] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(matches!(answer.result, Err(Error { code: ErrorCode::RateLimited { .. }, .. })));
}

#[test]
fn a_stream_begins_with_one_hello_of_this_protocol() {
    let check = |items: Vec<Up>| {
        let mut world = World::new();
        world.core.connected(C2);
        items.into_iter().for_each(|up| world.core.received(t(1), C2, up));
        let outputs = world.outputs();
        assert_eq!(refusal(&outputs), Some(&ErrorCode::InvalidArgument), "{outputs:?}");
        assert!(outputs.contains(&Output::Close(C2)));
    };
    check(vec![Up::Request(request(1))]);
    check(vec![Up::EndSession]);
    check(vec![Up::Hello(Hello { protocol: 99, ..hello(2, 1) })]);
    check(vec![Up::Hello(hello(2, 1)), Up::Hello(hello(2, 1))]);
}

#[test]
fn an_adopted_session_stands_until_its_predecessors_promise_ends() {
    let mut core = ServerCore::new(LeaseTerms::default());
    let id = SessionKey::new([1; 16]).id();
    let ends = LeaseEnds { session: t(60_000), cache: t(60_000) };
    core.adopt(id, holder_of(&hello(1, 1)), ends);
    core.set_ceiling(t(0), Ceiling::Master);

    core.handle_timeout(t(59_999));
    assert_eq!(core.poll_output(), None);

    core.handle_timeout(t(60_000));
    assert_eq!(core.poll_output(), Some(Output::Expired(id)));
}

#[test]
fn a_host_that_stops_says_why_to_everybody_and_forgets_all() {
    let mut world = World::new();

    world.core.stop(&ErrorCode::NotMaster { hint: Some("h:1".into()) }.because("deposed"));

    let outputs = world.outputs();
    assert_eq!(refusal(&outputs), Some(&ErrorCode::NotMaster { hint: Some("h:1".into()) }));
    assert!(outputs.contains(&Output::Close(C1)));
    assert_eq!(world.core.session_count(), 0);
    assert_eq!(world.core.poll_timeout(), None);
}

#[test]
fn a_session_that_was_elsewhere_meanwhile_is_its_owners_to_admit_and_is_not_said_to_be_resumed() {
    let welcomed = |outputs: &[Output]| match &outputs[0] {
        Output::Send(C2, Down::Welcome(welcome)) => welcome.resumed,
        other => panic!("not welcomed: {other:?}"),
    };
    let greet = |claim: u64| {
        let mut world = World::new();
        world.core.connected(C2);
        world.core.received(t(100), C2, Up::Hello(hello(1, claim)));
        let outputs = world.outputs();
        (world, outputs)
    };

    assert!(welcomed(&greet(2).1));
    let (mut world, outputs) = greet(3);
    assert!(matches!(outputs[..], [Output::Admit(C2, ..)]), "{outputs:?}");
    world.core.admit(t(110), C2);
    assert!(!welcomed(&world.outputs()));
}

#[test]
fn a_session_from_elsewhere_is_not_ended_while_its_holder_counts_on_what_it_was_promised_there() {
    let expires_at = |role: Role, known_since: Option<Claim>, left: u64| {
        let mut core = ServerCore::new(LeaseTerms::default());
        core.set_ceiling(t(0), Ceiling::Master);
        core.connected(C1);
        let lease_left = Duration::from_millis(left);
        core.received(t(0), C1, Up::Hello(Hello { role, known_since, lease_left, ..hello(1, 5) }));
        core.admit(t(2_000), C1);
        let mut world = World { core, id: SessionKey::new([1; 16]).id() };
        world.outputs(); // Its holder never hears it.
        expired_at(&mut world)
    };

    assert_eq!(expires_at(Role::Router, None, 0), t(14_000), "twelve seconds after the Welcome");
    assert_eq!(expires_at(Role::Router, Some(Claim(4)), 9_000), t(14_000));
    let late = expires_at(Role::Router, Some(Claim(4)), 40_000);
    assert!(t(40_400) < late && late < t(40_401), "by the slowest clock that there may be: {late:?}");
    let bounded = expires_at(Role::Client, Some(Claim(4)), u64::MAX / 2_000);
    assert!(t(60_000) < bounded && bounded < t(60_601), "no host promises more than a minute: {bounded:?}");
}

#[test]
fn a_session_that_was_elsewhere_is_kept_for_a_holder_that_may_have_left_before_it_was_welcomed() {
    let greeted = |known_since: Option<Claim>| {
        let mut core = ServerCore::new(LeaseTerms::default());
        core.set_ceiling(t(0), Ceiling::Master);
        core.connected(C1);
        core.received(t(0), C1, Up::Hello(Hello { known_since, ..hello(1, 5) }));
        core.admit(t(2_000), C1);
        let mut world = World { core, id: SessionKey::new([1; 16]).id() };
        world.outputs();
        world
    };

    let mut left = greeted(Some(Claim(4)));
    left.core.disconnected(C1);
    assert_eq!(expired_at(&mut left), t(60_000), "it may look for a host as long as its grace period lasts");

    let mut heard = greeted(Some(Claim(4)));
    heard.core.received(
        t(2_001),
        C1,
        Up::KeepAlive(KeepAlive { number: 1, settled_below: RequestNumber(0) }),
    );
    heard.core.disconnected(C1);
    assert_eq!(expired_at(&mut heard), t(14_000), "it has heard its Welcome");

    let mut new = greeted(None);
    new.core.disconnected(C1);
    assert_eq!(expired_at(&mut new), t(14_000), "it was nowhere else, and has nothing");
}

/// When the session runs out of which nothing more is heard.
fn expired_at(world: &mut World) -> Time {
    loop {
        let (at, _) = world.core.poll_timeout().expect("it runs out");
        world.core.handle_timeout(at);
        if world.outputs().iter().any(|output| matches!(output, Output::Expired(_))) {
            return at;
        }
    }
}

#[test]
fn a_holder_that_never_heard_that_it_was_welcomed_anew_is_not_said_to_be_resumed() {
    let mut world = World::new();
    world.core.connected(C2);
    world.core.received(t(100), C2, Up::Hello(hello(1, 3)));
    world.core.admit(t(110), C2); // The Welcome is lost with its connection.
    world.outputs();
    world.core.disconnected(C2);
    let greet = |world: &mut World, connection: ConnectionId, claim: u64, since: u64| {
        world.core.connected(connection);
        let hello = Hello { known_since: Some(Claim(since)), ..hello(1, claim) };
        world.core.received(t(200), connection, Up::Hello(hello));
        world.outputs().remove(0)
    };

    let unheard = greet(&mut world, ConnectionId(8), 4, 1);
    assert!(matches!(unheard, Output::Admit(..)), "{unheard:?}");
    let heard = greet(&mut world, ConnectionId(9), 4, 3);
    assert!(matches!(heard, Output::Send(_, Down::Welcome(Welcome { resumed: true, .. }))), "{heard:?}");
}

#[test]
fn a_holder_that_begins_anew_is_told_what_it_must_drop_again_and_not_the_events_of_before() {
    let mut world = World::new();
    let event = NodeEvent {
        kind: crate::event::EventKind::ContentsModified,
        name: crate::name::Name::parse("/ls/dev/f").expect("good"),
        instance: crate::id::Instance(1),
        child: None,
        to: None,
        position: Default::default(),
    };
    world.core.tell_event(t(10), world.id, event);
    world.core.tell(t(10), world.id, News::CellLost { cell: CellName::new("a") });
    world.core.tell_events_lost(t(10), world.id);
    world.outputs();
    let told = |claim: u64| {
        let mut world = World { core: world.core.clone(), id: world.id };
        world.core.connected(C2);
        world.core.received(t(100), C2, Up::Hello(hello(1, claim)));
        world.core.admit(t(110), C2);
        let is_news = |output: &Output| matches!(output, Output::Send(C2, Down::News { .. }));
        world.outputs().iter().filter(|output| is_news(output)).count()
    };

    assert_eq!((told(2), told(3)), (3, 1));
}

#[test]
fn who_waits_to_be_admitted_is_refused_if_its_session_ends_or_moves_on_meanwhile() {
    let refused = |world: &mut World| match &world.outputs()[0] {
        Output::Send(C2, Down::Refused(error)) => error.code.clone(),
        other => panic!("not refused: {other:?}"),
    };
    let waiting = || {
        let mut world = World::new();
        world.core.connected(C2);
        world.core.received(t(100), C2, Up::Hello(hello(1, 3)));
        world
    };

    let mut world = waiting();
    world.core.received(t(105), C1, Up::EndSession);
    world.outputs();
    world.core.admit(t(110), C2);
    assert_eq!(refused(&mut world), ErrorCode::SessionExpired);

    let mut world = waiting();
    world.core.connected(ConnectionId(9));
    world.core.received(t(105), ConnectionId(9), Up::Hello(hello(1, 4)));
    world.core.admit(t(106), ConnectionId(9));
    world.outputs();
    world.core.admit(t(110), C2);
    assert_eq!(refused(&mut world), ErrorCode::SessionMoved);
}

#[test]
fn who_is_expelled_is_told_so_whenever_it_comes_and_ends_when_its_lease_does() {
    let mut world = World::new();
    let gone = || ErrorCode::SessionExpired.because("given up elsewhere");

    world.core.expel(world.id, gone());

    let told =
        |outputs: &[Output], to: ConnectionId| outputs.contains(&Output::Send(to, Down::Refused(gone())));
    assert!(told(&world.outputs(), C1));
    for (connection, claim) in [(C2, 2), (ConnectionId(9), 5)] {
        world.core.connected(connection);
        world.core.received(t(100), connection, Up::Hello(hello(1, claim)));
        assert!(told(&world.outputs(), connection), "claim {claim}");
    }
    world.core.handle_timeout(t(11_999));
    assert!(world.outputs().is_empty(), "what it was promised stands");
    world.core.handle_timeout(t(12_000));
    assert_eq!(world.outputs(), [Output::Expired(world.id)]);
}

#[test]
fn a_loss_of_events_is_told_once_until_it_is_acknowledged() {
    let mut world = World::new();
    let told = |world: &mut World| {
        world.core.tell_events_lost(t(10), world.id);
        world.outputs().iter().filter(|output| matches!(output, Output::Send(_, Down::News { .. }))).count()
    };

    assert_eq!((told(&mut world), told(&mut world)), (1, 0));
    world.core.received(t(20), C1, Up::Acknowledge(crate::id::Sequence(1)));
    assert_eq!(told(&mut world), 1);
}

/// A relay whose own cache lease is extended every eight seconds to twelve, with one session.
struct Below {
    world: World,
    extended: u64,
}

impl Below {
    fn new(role: Role, key: u8) -> Self {
        let mut core = ServerCore::new(LeaseTerms::default());
        core.set_tier_lease(LEASE_MAX);
        let ends = |seconds: u64| LeaseEnds {
            session: t(seconds * 1_000 + 71_500),
            cache: t(seconds * 1_000 + 11_500),
        };
        core.set_ceiling(t(0), Ceiling::Upstream(ends(0)));
        core.connected(C1);
        core.received(t(5_000), C1, Up::Hello(Hello { role, ..hello(key, 1) }));
        core.admit(t(5_000), C1);
        let mut world = World { core, id: SessionKey::new([key; 16]).id() };
        world.outputs();
        Self { world, extended: 0 }
    }

    /// Goes on until `until`, with a KeepAlive out always; returns when each was answered and with what.
    fn run(&mut self, from: u64, until: Time) -> Vec<(Time, Grant)> {
        let mut granted = Vec::new();
        let mut number = from;
        self.world.keep_alive(t(from * 1_000 + 5_000), number);
        loop {
            let extension = t((self.extended + 1) * 8_000);
            let due = self.world.core.poll_timeout().map_or(extension, |(at, _)| at.min(extension));
            if due > until {
                return granted;
            }
            if due == extension {
                self.extended += 1;
                let ends = LeaseEnds { session: due + LEASE_MAX, cache: due + Duration::from_millis(11_500) };
                self.world.core.set_ceiling(due, Ceiling::Upstream(ends));
            } else {
                self.world.core.handle_timeout(due);
            }
            for output in self.world.outputs() {
                if let Output::Send(_, Down::Lease { grant, .. }) = output {
                    granted.push((due, grant));
                    number += 1;
                    self.world.keep_alive(due, number);
                }
            }
        }
    }
}

/// How often nothing could be used any more before the next grant came.
fn lapses(granted: &[(Time, Grant)]) -> usize {
    granted.windows(2).filter(|pair| pair[1].0 > pair[0].0 + pair[0].1.cache).count()
}

#[test]
fn the_cache_lease_of_a_session_that_keeps_copies_does_not_lapse_while_more_can_be_granted() {
    for key in 1..=16 {
        let mut below = Below::new(Role::Client, key);
        let id = below.world.id;
        below.world.core.note_keeps(t(5_000), id);

        let granted = below.run(0, t(60_000));

        assert!(granted[0].0 < t(11_500), "the first one ends then: {granted:?}");
        assert_eq!(lapses(&granted), 0, "{granted:?}");
        assert!((6..=8).contains(&granted.len()), "no more KeepAlives than otherwise: {granted:?}");
    }
}

#[test]
fn sessions_that_keep_nothing_are_held_as_long_as_their_session_leases_allow() {
    let lapses_of = |key: u8| lapses(&Below::new(Role::Client, key).run(0, t(60_000)));

    let lapsed = (1..=16).filter(|key| lapses_of(*key) > 0).count();

    assert!((1..=15).contains(&lapsed), "as they happen to fall: {lapsed}");
}

#[test]
fn a_relay_below_has_a_long_session_lease_and_its_cache_lease_is_extended_with_the_one_above() {
    let mut below = Below::new(Role::Proxy, 1);

    let granted = below.run(0, t(60_000));

    assert!(
        granted.iter().all(|(_, grant)| grant.session > LEASE_MAX - Duration::from_secs(9)),
        "{granted:?}"
    );
    assert!(granted.iter().all(|(_, grant)| grant.cache <= Duration::from_secs(12)), "{granted:?}");
    let times: Vec<_> = granted.iter().map(|(at, _)| *at).collect();
    assert_eq!(
        times,
        [8, 16, 24, 32, 40, 48, 56].map(|second| t(second * 1_000)),
        "as soon as there is more"
    );
}

#[test]
fn a_session_that_was_turned_out_is_let_in_by_the_owner_although_it_is_the_next_claim() {
    let mut world = World::new();
    let id = world.id;
    world.core.turn_out(id, ErrorCode::Unavailable.because("come again"));
    let outputs = world.outputs();
    assert!(matches!(&outputs[..], [Output::Send(C1, Down::Refused(_)), Output::Close(C1)]), "{outputs:?}");

    world.core.connected(C2);
    world.core.received(t(1_000), C2, Up::Hello(hello(1, 2)));
    assert!(matches!(&world.outputs()[..], [Output::Admit(C2, session, _)] if *session == id));
    world.core.admit(t(1_000), C2);

    let outputs = world.outputs();
    let is_anew = |output: &Output| matches!(output, Output::Send(C2, Down::Welcome(it)) if !it.resumed);
    assert!(outputs.iter().any(is_anew), "{outputs:?}");
}

#[test]
fn a_session_whose_keep_alives_come_late_is_held_longer_by_a_relay_and_not_by_a_master() {
    let lengths = |ceiling: Ceiling| {
        let mut world = World::new();
        world.core.set_ceiling(t(0), ceiling);
        let mut lengths = Vec::new();
        let mut at = t(0);
        for number in 1..=3 {
            world.keep_alive(at + Duration::from_millis(1_500), number);
            let (answered, outputs) = world.next();
            let lease = outputs.iter().find_map(|output| match output {
                Output::Send(_, Down::Lease { grant, .. }) => Some(grant.session.as_secs()),
                _ => None,
            });
            lengths.push(lease.expect("a KeepAlive is answered"));
            at = answered;
        }
        lengths
    };
    let far = LeaseEnds { session: t(600_000), cache: t(600_000) };
    assert_eq!(lengths(Ceiling::Upstream(far)), [24, 48, 60]);
    assert_eq!(lengths(Ceiling::Master), [12, 12, 12]);
}

#[test]
fn a_relay_to_which_many_come_from_others_at_once_grants_longer_session_leases_and_a_master_does_not() {
    let last = |ceiling: Ceiling, known_since: Option<Claim>| {
        let mut world = World::new();
        world.core.set_ceiling(t(0), ceiling);
        let many = u8::try_from(ARRIVALS_PER_SECOND * 2).expect("not so many");
        for key in 100..100 + many {
            let connection = ConnectionId(key.into());
            world.core.connected(connection);
            let hello = Hello { known_since, ..hello(key, 2) };
            world.core.received(t(1_000), connection, Up::Hello(hello));
            world.core.admit(t(1_000), connection);
        }
        let grant = world.outputs().into_iter().rev().find_map(|output| match output {
            Output::Send(_, Down::Welcome(welcome)) => Some(welcome.grant),
            _ => None,
        });
        grant.map(|grant| (grant.session.as_secs(), grant.cache.as_secs()))
    };
    let far = LeaseEnds { session: t(600_000), cache: t(600_000) };

    assert_eq!(last(Ceiling::Upstream(far), Some(Claim(1))), Some((24, 12)));
    assert_eq!(last(Ceiling::Upstream(far), None), Some((12, 12)), "new ones");
    assert_eq!(last(Ceiling::Master, Some(Claim(1))), Some((12, 12)));
}

#[test]
fn a_keep_alive_after_a_welcome_that_granted_nothing_more_is_not_late() {
    let mut world = World::new();
    let ends = LeaseEnds { session: t(12_000), cache: t(12_000) };
    world.core.set_ceiling(t(100), Ceiling::Upstream(ends));
    world.core.connected(C2);
    world.core.received(t(5_000), C2, Up::Hello(hello(1, 2)));
    let left = world.outputs().into_iter().find_map(|output| match output {
        Output::Send(C2, Down::Welcome(welcome)) => Some(welcome.grant.session),
        _ => None,
    });
    assert_eq!(left, Some(Duration::from_secs(7)), "what is left of the first");

    let keep_alive = KeepAlive { number: 1, settled_below: RequestNumber(0) };
    world.core.received(t(5_100), C2, Up::KeepAlive(keep_alive));
    world.core.set_ceiling(t(5_200), Ceiling::Upstream(LeaseEnds { session: t(600_000), cache: t(600_000) }));
    let (_, outputs) = world.next();

    let Some(Output::Send(C2, Down::Lease { grant, .. })) = outputs.last() else { panic!("{outputs:?}") };
    assert_eq!(grant.session, Duration::from_secs(12), "the usual lease");
}
