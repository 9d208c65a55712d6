//! The partition map, as the home cell's file says; and requests and answers that have to wait for another one.

use hasp_proto::crossing::Root;
use hasp_proto::partition::{Change, Prefix};

use super::*;

const MAP: &str = "/ls/dev/.hasp/partitions";

/// What is below [`D`] goes from `c` to `p`.
pub(super) fn changing() -> PartitionMap {
    let change = Change { prefix: Prefix::Below(name(D)), cells: vec![CellName::new("p")] };
    map().changing(change).expect("a good change")
}

/// It has gone.
pub(super) fn changed() -> PartitionMap {
    changing().after().expect("a change").clone()
}

/// A directory that is in `p` as a whole.
const E: &str = "/ls/dev/p/e";

/// Its children have gone from `p` to `c`.
fn split() -> PartitionMap {
    let change = Change { prefix: Prefix::Below(name(E)), cells: vec![CellName::new("c")] };
    map().changing(change).expect("good").after().expect("a change").clone()
}

pub(super) fn file(map: &PartitionMap) -> Result<Reply, Error> {
    Ok(Reply::Contents { contents: map.to_file().into(), stat: stat() })
}

/// A router that knows the map as it is, and has leave to keep it.
pub(super) fn sure() -> Played {
    let mut played = Played::new();
    played.wait_until(t(0));
    let request = asked(&mut played);
    played.answer_keeping(t(0), "h", &request, data(), file(&map()));
    played.wait_until(t(0));
    assert!(played.map_reads.is_empty());
    played
}

/// The read that is under way to follow the map.
fn asked(played: &mut Played) -> Request {
    let reads = std::mem::take(&mut played.map_reads);
    let [request] = &reads[..] else { panic!("one read: {reads:?}") };
    assert!(request.caches && request.on_behalf.is_none(), "{request:?}");
    request.clone()
}

fn is_asked_at(played: &mut Played, at: Time) {
    played.wait_until(Time::from_micros(at.as_micros() - 1));
    assert!(played.map_reads.is_empty(), "not before {at:?}");
    played.wait_until(at);
    assert_eq!(played.map_reads.len(), 1, "at {at:?}");
}

fn version(played: &Played) -> u64 {
    played.core.map().expect("routed here").version
}

#[test]
fn the_map_is_read_as_soon_as_there_is_a_session_and_kept_as_long_as_nobody_takes_it_back() {
    let mut played = sure();

    for millis in [100, 1_000, 3_000] {
        played.wait_until(t(millis));
        assert!(played.map_reads.is_empty());
    }
    played.tell_changed(t(3_000), &["/ls/dev/.hasp/quotas", "/ls/dev/partitions"]);
    played.wait_until(t(3_000));
    assert!(played.map_reads.is_empty(), "other files");
    let listing =
        News::Invalidate { items: vec![Item::new(name(MAP), ItemKind::Lock)], floor: position("h", 6) };
    played.tell(t(3_000), "h", listing);
    played.wait_until(t(3_000));
    assert!(played.map_reads.is_empty(), "its lock says nothing");

    played.tell_changed(t(3_001), &[MAP]);
    played.wait_until(t(3_001));
    let request = asked(&mut played);
    assert_eq!(version(&played), 1, "the old one until the new one is here");
    played.answer_keeping(t(3_002), "h", &request, data(), file(&changed()));
    assert_eq!(version(&played), 3);
    assert_eq!(
        played.core.map().expect("routed here").cells,
        map().cells,
        "with the addresses configured here"
    );
}

#[test]
fn a_map_that_was_taken_back_while_it_was_read_or_may_not_be_kept_is_read_again_soon() {
    let mut played = sure();
    played.tell_changed(t(100), &[MAP]);
    played.wait_until(t(100));
    let request = asked(&mut played);
    played.tell_changed(t(110), &[MAP]);
    played.answer_keeping(t(120), "h", &request, data(), file(&changing()));
    assert_eq!(version(&played), 2, "it is newer all the same");
    is_asked_at(&mut played, t(140));

    let request = asked(&mut played);
    played.answer(t(150), "h", &request, file(&changing()));
    is_asked_at(&mut played, t(170));

    let request = asked(&mut played);
    played.answer_keeping(t(180), "h", &request, data(), file(&changing()));
    played.wait_until(t(3_000));
    assert!(played.map_reads.is_empty());
}

#[test]
fn a_map_that_cannot_be_read_or_is_another_one_is_read_again_later() {
    let other = PartitionMap::new(9, "prod", [("/ls/prod", "h")], map().cells).expect("good");
    let nonsense = Ok(Reply::Contents { contents: Bytes::from_static(b"nonsense"), stat: stat() });
    for result in [error(ErrorCode::InvalidArgument), file(&other), nonsense] {
        let mut played = sure();
        played.tell_changed(t(100), &[MAP]);
        played.wait_until(t(100));
        let request = asked(&mut played);
        played.answer_keeping(t(110), "h", &request, data(), result);
        assert_eq!(version(&played), 1);
        is_asked_at(&mut played, t(1_110));
    }
}

#[test]
fn an_older_map_is_not_gone_by() {
    let mut played = sure();
    played.tell_changed(t(100), &[MAP]);
    played.wait_until(t(100));
    let request = asked(&mut played);
    played.answer_keeping(t(110), "h", &request, data(), file(&changed()));
    played.tell_changed(t(120), &[MAP]);
    played.wait_until(t(120));
    let request = asked(&mut played);

    played.answer_keeping(t(130), "h", &request, data(), file(&changing()));

    assert_eq!(version(&played), 3);
}

#[test]
fn the_map_is_read_again_when_the_leave_to_keep_it_is_gone() {
    let mut played = sure();
    let fail_over = |cell: &str| News::FailOver { cell: CellName::new(cell), epoch: Epoch(2) };
    played.tell(t(100), "c", fail_over("c"));
    played.wait_until(t(100));
    assert!(played.map_reads.is_empty(), "of another cell");
    played.tell(t(200), "h", fail_over("h"));
    played.wait_until(t(200));
    asked(&mut played);

    let mut played = sure();
    let (keep_alive, sent) = played.keep_alives["h"];
    let of_session = Grant { held: t(8_000).saturating_since(sent), cache: Duration::ZERO, ..grant() };
    played.receive(t(8_000), "h", Down::Lease { keep_alive, grant: of_session });
    played.wait_until(LEASE_END);
    assert!(
        played.map_reads.is_empty(),
        "no cell of whose lease nothing is left may be asked, nor has to be"
    );
    let regained = Time::from_micros(LEASE_END.as_micros() + 1);
    played.extend(regained, "h");
    played.wait_until(regained);
    asked(&mut played);
}

#[test]
fn a_request_about_what_is_on_its_way_waits_and_goes_where_it_went_under_its_own_number() {
    let mut played = sure();
    let ticket = played.submit(t(100), open());
    let first = played.reply(t(110), "c", needs(Need::Map(2)));
    played.assert_nothing_asked();
    played.wait_until(t(110));
    let request = asked(&mut played);
    played.answer_keeping(t(120), "h", &request, data(), file(&changing()));
    let second = played.reply(t(130), "c", needs(Need::Map(2)));
    assert_eq!(second.on_behalf, first.on_behalf, "the rules before hold until it is done");
    played.wait_until(t(229));
    played.assert_nothing_asked();
    played.wait_until(t(230));
    played.reply(t(231), "c", needs(Need::Map(2)));
    for round in 0..20 {
        played.wait_until(t(331 + round * 100));
        played.reply(t(331 + round * 100), "c", needs(Need::Map(2)));
    }
    played.assert_nothing_asked();

    played.tell_changed(t(2_240), &[MAP]);
    played.wait_until(t(2_240));
    let request = asked(&mut played);
    played.answer_keeping(t(2_250), "h", &request, data(), file(&changed()));

    let last = played.reply(t(2_251), "p", Ok(Reply::Noted));
    assert_eq!(
        (&last.on_behalf, &last.op),
        (&first.on_behalf, &first.op),
        "P-ONCE: at once, under its number"
    );
    assert_eq!(played.result(ticket), Some(&Ok(Reply::Noted)));
    played.assert_nothing_asked();
}

#[test]
fn a_cell_with_another_map_is_asked_again_until_they_agree_and_one_with_the_same_is_believed() {
    let wrong = |map_version| error(ErrorCode::WrongCell { map_version });
    let mut played = sure();
    let ticket = played.submit(t(0), open());
    for round in 0..10 {
        played.reply(t(round * 100), "c", wrong(2));
        played.assert_nothing_asked();
        played.wait_until(t(round * 100 + 99));
        played.assert_nothing_asked();
        played.wait_until(t(round * 100 + 100));
    }
    assert_eq!(played.code(ticket), None, "it is ahead of us");
    let request = asked(&mut played);
    played.answer_keeping(t(1_000), "h", &request, data(), file(&changed()));
    played.take("c");

    let ticket = played.submit(t(1_000), open());
    for round in 0..10 {
        played.reply(t(1_000 + round * 20), "p", wrong(2));
        played.wait_until(t(1_000 + round * 20 + 19));
        played.assert_nothing_asked();
        played.wait_until(t(1_000 + round * 20 + 20));
    }
    assert_eq!(played.code(ticket), None, "it is behind, for a moment");
    for round in 0..4 {
        assert_eq!(played.code(ticket), None);
        played.reply(t(1_300 + round * 200), "p", wrong(3));
        played.wait_until(t(1_400 + round * 200));
    }
    assert_eq!(played.code(ticket), Some(ErrorCode::WrongCell { map_version: 3 }));
}

#[test]
fn what_waits_for_a_map_ends_with_the_session() {
    let mut played = sure();
    let ticket = played.submit(t(100), open());
    played.reply(t(110), "c", needs(Need::Map(2)));

    played.core.end(t(130));
    played.play(t(130));

    assert_eq!(played.code(ticket), Some(ErrorCode::SessionExpired));
}

#[test]
fn a_clients_request_that_is_cancelled_before_it_is_sent_is_answered_by_its_cell() {
    let mut played = Played::with_deaf(Some("c"), Played::config());
    let ticket = played.submit(t(100), open());
    played.cancel(t(120), ticket);

    assert_eq!(played.result(ticket), None, "it may have been asked before, through whatever host");
    played.core.end(t(130));
    played.play(t(130));
    assert_eq!(played.code(ticket), Some(ErrorCode::SessionExpired));
}

#[test]
fn what_became_of_a_request_that_is_cancelled_while_it_waits_for_a_map_its_cell_says() {
    let mut played = sure();
    let ticket = played.submit(t(100), open());
    let first = played.reply(t(110), "c", needs(Need::Map(2)));
    played.wait_until(t(110));
    let request = asked(&mut played);
    played.cancel(t(120), ticket);
    assert_eq!(
        played.result(ticket),
        None,
        "it may have been done before, and its answer have moved with the name"
    );
    played.assert_nothing_asked();

    played.answer_keeping(t(130), "h", &request, data(), file(&changed()));

    let again = played.take("p");
    assert_eq!((&again.op, &again.on_behalf), (&first.op, &first.on_behalf), "P-ONCE");
    assert_eq!(played.cancels, [("p".to_owned(), again.number)]);
    played.answer(t(140), "p", &again, Ok(Reply::Noted));
    assert_eq!(played.result(ticket), Some(&Ok(Reply::Noted)));

    let ticket = played.submit(t(200), open());
    played.cancel(t(210), ticket);
    played.reply(t(220), "p", needs(Need::Map(4)));
    assert_eq!(played.result(ticket), None, "nor does a cell know of which it has gone");
}

#[test]
fn a_directory_that_was_split_while_its_listing_waited_is_listed_by_the_cell_of_its_children() {
    let split = split();
    let mut played = sure();
    let directory = handle("p", E, NodeKind::Directory);
    played.submit(t(100), Op::ReadDir(directory.clone()));
    let first = played.reply(t(110), "p", needs(Need::Map(2)));
    assert_eq!(first.op, Op::ReadDir(directory));
    played.wait_until(t(110));
    let request = asked(&mut played);

    played.answer_keeping(t(120), "h", &request, data(), file(&split));

    let listed = played.take("c");
    let root = CrossOp::ListRoot { name: name(E), instance: Instance(7) };
    assert_eq!((&listed.op, &listed.on_behalf), (&Op::Cross(root), &first.on_behalf));
    played.assert_nothing_asked();
}

#[test]
fn a_directory_that_was_split_while_its_listing_was_on_its_way_is_listed_by_the_cell_of_its_children() {
    let split = split();
    let mut played = sure();
    let directory = handle("p", E, NodeKind::Directory);
    played.submit(t(100), Op::ReadDir(directory));
    played.tell_changed(t(105), &[MAP]);
    played.wait_until(t(105));
    let request = asked(&mut played);
    played.answer_keeping(t(107), "h", &request, data(), file(&split));

    let first = played.reply(t(110), "p", error(ErrorCode::WrongCell { map_version: split.version }));
    played.wait_until(t(210));

    let listed = played.take("c");
    let root = CrossOp::ListRoot { name: name(E), instance: Instance(7) };
    assert_eq!((&listed.op, &listed.on_behalf), (&Op::Cross(root), &first.on_behalf));
    played.assert_nothing_asked();
}

fn new_acls() -> AclNames {
    AclNames { read: "staff".into(), ..AclNames::default() }
}

fn acl_set() -> Result<Reply, Error> {
    Ok(Reply::AclSet { acl_generation: Generation(3) })
}

/// Its ACL names are set, and `p` has done that.
fn set_acl(played: &mut Played, now: Time) -> Ticket {
    let handle = handle("p", E, NodeKind::Directory);
    let ticket = played.submit(now, Op::SetAcl { handle, acls: new_acls(), if_generation: None });
    played.reply(now, "p", acl_set());
    ticket
}

/// The same, while the map is read since it was taken back.
fn set_acl_by_an_old_map() -> (Played, Ticket, Request) {
    let mut played = sure();
    played.tell_changed(t(100), &[MAP]);
    played.wait_until(t(100));
    let ticket = set_acl(&mut played, t(101));
    assert_eq!(played.result(ticket), None, "by then its children may be elsewhere");
    played.assert_nothing_asked();
    let request = asked(&mut played);
    (played, ticket, request)
}

#[test]
fn new_acl_names_of_a_directory_are_known_to_the_cell_that_its_children_have_just_gone_to() {
    let (mut played, ticket, request) = set_acl_by_an_old_map();

    played.answer_keeping(t(110), "h", &request, data(), file(&split()));

    let root = Root {
        name: name(E),
        instance: Instance(7),
        acls: new_acls(),
        acl_generation: Generation(3),
        as_of: position("p", 5),
    };
    assert_eq!(played.result(ticket), None);
    assert_eq!(cross(&played.reply(t(120), "c", Ok(Reply::Noted))), CrossOp::UpdateRoot(root));
    assert_eq!(played.result(ticket), Some(&acl_set()));
}

#[test]
fn new_acl_names_of_a_directory_are_answered_when_the_map_that_says_it_is_whole_is_sure() {
    let mut played = sure();
    let ticket = set_acl(&mut played, t(100));
    assert_eq!(played.result(ticket), Some(&acl_set()), "nobody has taken it back");

    let (mut played, ticket, request) = set_acl_by_an_old_map();
    played.answer(t(110), "h", &request, file(&map()));
    assert_eq!(played.result(ticket), None, "it is about to change");
    played.wait_until(t(130));
    let request = asked(&mut played);
    played.tell_changed(t(135), &[MAP]);
    played.answer_keeping(t(140), "h", &request, data(), file(&map()));
    assert_eq!(played.result(ticket), None, "it was taken back meanwhile");
    played.wait_until(t(160));
    let request = asked(&mut played);
    played.answer_keeping(t(170), "h", &request, data(), file(&map()));

    assert_eq!(played.result(ticket), Some(&acl_set()));
    played.assert_nothing_asked();
}

#[test]
fn a_map_is_sure_under_the_cache_lease_only() {
    let mut played = sure();
    played.extend(t(8_000), "p");
    let before = set_acl(&mut played, Time::from_micros(LEASE_END.as_micros() - 1));
    assert_eq!(played.result(before), Some(&acl_set()));

    let after = set_acl(&mut played, LEASE_END);

    assert_eq!(played.result(after), None);
}

#[test]
fn new_acl_names_of_a_directory_are_set_again_if_the_map_cannot_be_read() {
    let (mut played, ticket, request) = set_acl_by_an_old_map();
    played.answer(t(110), "h", &request, error(ErrorCode::InvalidArgument));
    assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable));
    let ticket = set_acl(&mut played, t(120));
    assert_eq!(played.result(ticket), None, "the map is read again later");
    played.wait_until(t(1_110));
    let request = asked(&mut played);
    played.answer_keeping(t(1_120), "h", &request, data(), file(&map()));
    assert_eq!(played.result(ticket), Some(&acl_set()));

    let (mut played, ticket, request) = set_acl_by_an_old_map();
    played.answer(t(110), "h", &request, file(&map()));
    played.expire(t(111), "h");
    assert_eq!(
        played.code(ticket),
        Some(ErrorCode::Unavailable),
        "nobody knows when there is a session again"
    );

    let mut played = Played::with_deaf(Some("h"), Played::config());
    let ticket = set_acl(&mut played, t(100));
    assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable), "there is no home cell to read it at");
}

#[test]
fn an_answer_that_waits_for_the_map_is_not_cancelled_and_ends_with_the_session() {
    let (mut played, ticket, _) = set_acl_by_an_old_map();
    played.cancel(t(110), ticket);
    assert_eq!(played.result(ticket), None);
    assert_eq!(played.core.waiting(), 1);

    played.core.end(t(120));
    played.play(t(120));

    assert_eq!(played.code(ticket), Some(ErrorCode::SessionExpired));
    assert_eq!(played.core.waiting(), 0);
}
