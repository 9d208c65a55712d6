//! What was left behind between cells, finished or undone; and whom a cell tells of the children of a directory whose node
//! is in another.

use hasp_proto::crossing::{Chore, Root, SealTicket};
use hasp_proto::event::{EventKind, EventMask};

use super::*;

const SEAL: SealTicket = SealTicket(9);

pub(super) fn chore(played: &mut Played, now: Time, cell: &str, chore: Chore) {
    let number = played.offers.remove(cell).expect("it can tell us");
    let answer = Answer::plain(number, Ok(Reply::Chores(vec![chore])));
    played.receive(now, cell, Down::Answer(answer));
}

fn ending() -> Chore {
    Chore::End { name: name(D), instance: Instance(7) }
}

fn sealed() -> Chore {
    Chore::Unseal { name: name(D), instance: Instance(7), ticket: SEAL }
}

fn propagating() -> Chore {
    Chore::Propagate { name: name(D), instance: Instance(7) }
}

fn root() -> Root {
    let (acls, acl_generation) = (AclNames::default(), Generation(2));
    Root { name: name(D), instance: Instance(7), acls, acl_generation, as_of: position("p", 4) }
}

fn void_seals() -> CrossOp {
    CrossOp::VoidSeals { name: name(D), instance: Instance(7), below: SealTicket(10) }
}

fn unseal() -> CrossOp {
    CrossOp::Unseal { name: name(D), instance: Instance(7), ticket: SEAL }
}

fn drop_root() -> CrossOp {
    CrossOp::DropRoot { name: name(D), instance: Instance(7), as_of: position("p", 5) }
}

fn watch(events: EventMask) -> Op {
    let (name, instance, opened_by) = (name(D), Instance(7), RequestNumber(3));
    Op::Cross(CrossOp::WatchRoot { name, instance, opened_by, events })
}

fn children_events() -> EventMask {
    EventMask::of([EventKind::ChildAdded, EventKind::ChildRemoved])
}

fn watching(events: EventMask) -> HandleToken {
    HandleKey::new(Bytes::from_static(b"key")).seal(&HandleBody {
        cell: CellName::new("p"),
        name: name(D),
        instance: Instance(7),
        kind: NodeKind::Directory,
        r#use: Use::Read,
        session: client(1).session,
        opened_by: RequestNumber(3),
        epoch: Epoch(1),
        lock_delay: Duration::ZERO,
        events,
        ephemeral: false,
    })
}

#[test]
fn every_cell_has_somebody_to_tell_and_after_that_again() {
    let mut played = Played::new();
    let all: Vec<String> = played.offers.keys().cloned().collect();
    assert_eq!(all, ["c", "h", "p"]);

    chore(&mut played, t(1), "p", ending());
    assert!(played.offers.contains_key("p"), "there may be more");
    let number = played.offers.remove("c").expect("asked");
    let code = ErrorCode::InvalidArgument.because("of an older program");
    played.receive(
        t(2),
        "c",
        Down::Answer(Answer { position: Some(position("c", 5)), ..Answer::plain(number, Err(code)) }),
    );
    played.wait_until(t(5_001));
    assert!(!played.offers.contains_key("c"), "not at once");
    played.extend_all(t(4_000));
    played.wait_until(t(5_002));
    assert!(played.offers.contains_key("c"));
}

#[test]
fn an_application_is_told_nothing_of_it() {
    let played = Played::of(UpstreamConfig::application(Hosts::Cells(map()), "alice", [3; 32]));
    assert!(played.offers.is_empty());
}

#[test]
fn an_ephemeral_directory_that_is_empty_goes() {
    let mut played = Played::new();
    chore(&mut played, t(1), "p", ending());

    let seal = played.reply(t(2), "c", Ok(Reply::Sealed(SEAL)));
    assert_eq!(cross(&seal), CrossOp::Seal { name: name(D), instance: Instance(7) });
    let reap = played.reply(t(3), "p", Ok(Reply::Noted));
    assert_eq!(cross(&reap), CrossOp::ReapRoot { name: name(D), instance: Instance(7), ticket: SEAL });
    assert_eq!(cross(&played.reply(t(4), "c", Ok(Reply::Noted))), drop_root());
    played.assert_nothing_asked();
}

#[test]
fn one_with_children_stays_and_one_that_was_opened_meanwhile_is_unsealed() {
    let mut played = Played::new();
    chore(&mut played, t(1), "p", ending());
    played.reply(t(2), "c", error(ErrorCode::NotEmpty));
    played.assert_nothing_asked();

    chore(&mut played, t(3), "p", ending());
    played.reply(t(4), "c", Ok(Reply::Sealed(SEAL)));
    played.reply(t(5), "p", error(ErrorCode::NotEmpty));
    assert_eq!(cross(&played.reply(t(6), "p", Ok(Reply::Noted))), void_seals());
    assert_eq!(cross(&played.reply(t(7), "c", Ok(Reply::Noted))), unseal());
    played.assert_nothing_asked();
}

#[test]
fn a_seal_that_was_left_is_voided_before_it_is_taken_back() {
    let mut played = Played::new();
    chore(&mut played, t(1), "c", sealed());
    let void = played.take("p");
    assert_eq!(cross(&void), void_seals());
    played.assert_nothing_asked();
    played.answer(t(2), "p", &void, Ok(Reply::Noted));
    assert_eq!(cross(&played.reply(t(3), "c", Ok(Reply::Noted))), unseal());

    chore(&mut played, t(4), "c", sealed());
    played.reply(t(5), "p", error(ErrorCode::StaleHandle));
    assert_eq!(cross(&played.reply(t(6), "c", Ok(Reply::Noted))), drop_root(), "the directory is gone");
    played.assert_nothing_asked();
}

#[test]
fn a_seal_stays_if_the_cell_of_the_node_does_not_say_what_became_of_it() {
    let mut played = Played::new();
    chore(&mut played, t(1), "c", sealed());
    let void = played.take("p");
    let answer = Answer::plain(void.number, error(ErrorCode::InvalidArgument));
    played.receive(t(2), "p", Down::Answer(answer));
    played.assert_nothing_asked();
}

#[test]
fn acl_names_that_the_other_cell_may_not_know_are_told_to_it() {
    let mut played = Played::new();
    chore(&mut played, t(1), "p", propagating());

    assert_eq!(cross(&played.reply(t(2), "p", Ok(Reply::Root(root())))), CrossOp::DescribeRoot(name(D)));
    assert_eq!(cross(&played.reply(t(3), "c", Ok(Reply::Noted))), CrossOp::UpdateRoot(root()));
    let told = CrossOp::Propagated { name: name(D), instance: Instance(7), acl_generation: Generation(2) };
    assert_eq!(cross(&played.reply(t(4), "p", Ok(Reply::Noted))), told);
    played.assert_nothing_asked();
}

#[test]
fn a_directory_that_is_opened_to_be_told_of_its_children_is_watched_where_they_are() {
    let mut played = Played::new();
    let handle = watching(children_events());
    let opened = |stat| Reply::Opened { handle: handle.clone(), created: false, stat };
    let later = Stat { lock_generation: Generation(4), ..stat() };
    for op in [Op::Open(Open::existing(name(D), Use::Read)), Op::Refresh(handle.clone())] {
        let is_open = matches!(op, Op::Open(_));
        let reply = |stat| if is_open { opened(stat) } else { Reply::Stat(stat) };
        let ticket = played.submit(t(0), op.clone());
        let first = played.reply(t(1), "p", Ok(reply(stat())));
        let number = first.on_behalf.as_ref().map(|it| it.number);
        let watched = played.take("c");
        let its_number = watched.on_behalf.as_ref().map(|it| it.number);
        assert_eq!(its_number, Some(RequestNumber(0)), "that of the other may have an answer");
        assert_eq!((&watched.op, watched.on_behalf.is_some()), (&watch(children_events()), true));
        played.answer(t(2), "c", &watched, needs(Need::Root(name(D))));
        played.reply(t(3), "p", Ok(Reply::Root(root())));
        let watched = played.take("c");
        assert_eq!(evidence(&watched).root, Some(root()));
        played.answer(t(4), "c", &watched, Ok(Reply::Noted));
        assert_eq!(played.result(ticket), None, "what p has told meanwhile nobody has heard");
        let again = played.take("p");
        assert_eq!((&again.op, &again.on_behalf.as_ref().map(|it| it.number)), (&op, &number), "P-ONCE");
        played.answer(t(5), "p", &again, Ok(reply(later.clone())));
        assert_eq!(played.result(ticket), Some(&Ok(reply(later.clone()))));
    }
    played.submit(t(5), Op::Close(handle.clone()));
    played.reply(t(6), "p", Ok(Reply::Closed));
    assert_eq!(played.take("c").op, watch(EventMask::NONE));
}

#[test]
fn a_watch_that_a_new_master_does_not_know_is_set_up_anew_before_the_client_hears() {
    let handle = watching(children_events());
    let opened = || Reply::Opened { handle: handle.clone(), created: false, stat: stat() };
    let mut played = Played::new();
    let ticket = played.submit(t(0), Op::Open(Open::existing(name(D), Use::Read)));
    played.reply(t(1), "p", Ok(opened()));
    played.reply(t(2), "c", Ok(Reply::Noted));
    played.tell(t(3), "c", News::FailOver { cell: CellName::new("c"), epoch: Epoch(2) });
    played.reply(t(4), "p", Ok(opened()));

    assert_eq!(played.result(ticket), None);
    assert_eq!(played.reply(t(5), "c", Ok(Reply::Noted)).op, watch(children_events()));
    played.reply(t(6), "p", Ok(opened()));
    assert_eq!(played.result(ticket), Some(&Ok(opened())));
}

#[test]
fn a_client_that_may_not_be_told_of_the_children_has_the_directory_open_all_the_same() {
    let handle = watching(children_events());
    let opened = || Reply::Opened { handle: handle.clone(), created: true, stat: stat() };
    let refused = [ErrorCode::PermissionDenied, ErrorCode::StaleHandle, ErrorCode::NotFound].map(error);
    for said in refused.into_iter().chain([needs_acl("ops")]) {
        let mut played = Played::new();
        let ticket = played.submit(t(0), Op::Open(Open::existing(name(D), Use::Read)));
        played.reply(t(1), "p", Ok(opened()));
        played.reply(t(2), "c", said);
        assert_eq!(played.result(ticket), None);
        played.reply(t(4), "p", Ok(opened()));
        assert_eq!(played.result(ticket), Some(&Ok(opened())), "its own cell tells of its end after that");
    }
    let mut played = Played::new();
    let ticket = played.submit(t(0), Op::Open(Open::existing(name(D), Use::Read)));
    played.reply(t(1), "p", Ok(opened()));
    played.reply(t(2), "c", error(ErrorCode::InvalidArgument));
    assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable));
}

#[test]
fn a_handle_that_is_told_of_nothing_below_is_no_other_cells_concern() {
    let mut played = Played::new();
    let handle = watching(EventMask::of([EventKind::LockAcquired]));
    let ticket = played.submit(t(0), Op::Open(Open::existing(name(D), Use::Read)));
    played.reply(t(1), "p", Ok(Reply::Opened { handle, created: false, stat: stat() }));

    assert!(played.result(ticket).is_some());
    played.assert_nothing_asked();
}
