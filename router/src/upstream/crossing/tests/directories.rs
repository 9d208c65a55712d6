//! What cells do about a directory of which one holds the node and another the children.

use hasp_proto::crossing::{Root, SealTicket};

use super::*;

const SEAL: SealTicket = SealTicket(9);

fn root() -> Root {
    Root {
        name: name(D),
        instance: Instance(7),
        acls: AclNames::default(),
        acl_generation: Generation(2),
        as_of: position("p", 4),
    }
}

fn need_root() -> Result<Reply, Error> {
    needs(Need::Root(name(D)))
}

fn need_seal() -> Result<Reply, Error> {
    needs(Need::Seal { name: name(D), instance: Instance(7) })
}

fn need_unseal() -> Result<Reply, Error> {
    needs(Need::Unseal { name: name(D), instance: Instance(7), ticket: SEAL })
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

fn delete() -> Op {
    Op::Delete(directory())
}

fn set_acl() -> Op {
    let acls = AclNames { read: "staff".into(), ..AclNames::default() };
    Op::SetAcl { handle: directory(), acls, if_generation: None }
}

fn acl_set() -> Result<Reply, Error> {
    Ok(Reply::AclSet { acl_generation: Generation(3) })
}

fn list_root() -> Op {
    Op::Cross(CrossOp::ListRoot { name: name(D), instance: Instance(7) })
}

/// A `Delete` that was asked with a seal, under way at `p`.
fn sealed(played: &mut Played) -> (Ticket, Request) {
    let ticket = played.submit(t(0), delete());
    played.reply(t(0), "p", need_seal());
    let seal = played.reply(t(0), "c", Ok(Reply::Sealed(SEAL)));
    assert_eq!(cross(&seal), CrossOp::Seal { name: name(D), instance: Instance(7) });
    let request = played.take("p");
    assert_eq!(evidence(&request).seal, Some(SEAL));
    (ticket, request)
}

#[test]
fn a_cell_is_told_what_the_directory_is() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), open());
    played.reply(t(0), "c", need_root());

    let asked = played.reply(t(1), "p", Ok(Reply::Root(root())));
    assert_eq!(cross(&asked), CrossOp::DescribeRoot(name(D)));
    let again = played.take("c");
    assert_eq!(evidence(&again), Evidence { root: Some(root()), ..Evidence::default() });
    played.answer(t(2), "c", &again, needs_acl("ops"));
    played.keep_acl(t(3), "alice");

    let again = played.take("c");
    assert_eq!((evidence(&again).root, evidence(&again).is_member("ops")), (Some(root()), Some(true)));
    assert_eq!(played.code(ticket), None);
}

#[test]
fn what_the_other_cell_says_of_the_directory_is_what_the_client_is_told() {
    let check = |op: Op, said: Result<Reply, Error>, code: ErrorCode, detail: &str, is_its_word: bool| {
        let mut played = Played::new();
        let ticket = played.submit(t(0), op);
        played.reply(t(0), "c", need_root());
        played.reply(t(1), "p", said);
        assert_eq!(played.code(ticket), Some(code));
        assert!(played.detail(ticket).contains(detail), "{}", played.detail(ticket));
        let answer = &played.answers[&ticket];
        assert_eq!(answer.position, is_its_word.then(|| position("p", 5)));
        assert!(answer.caches.is_empty());
    };
    let not_found = "the parent directory /ls/dev/p/d does not exist";
    check(open(), error(ErrorCode::NotFound), ErrorCode::NotFound, not_found, true);
    check(open(), error(ErrorCode::NotADirectory), ErrorCode::NotADirectory, "played", true);
    check(open(), error(ErrorCode::InvalidArgument), ErrorCode::Unavailable, "played", false);
    check(open(), Ok(Reply::Noted), ErrorCode::Unavailable, "makes no sense", false);
    let other = Root { name: name("/ls/dev/p/e"), ..root() };
    check(open(), Ok(Reply::Root(other)), ErrorCode::Unavailable, "makes no sense", false);
    check(list_root(), error(ErrorCode::NotFound), ErrorCode::StaleHandle, "is gone", true);
    let relative = |base| {
        let open = Open::existing(name("/ls/dev/p/d/f"), Use::Read);
        Op::Open(Open { relative_to: Some(base), ..open })
    };
    check(relative(directory()), error(ErrorCode::NotFound), ErrorCode::StaleHandle, "is gone", true);
    let above = handle("p", "/ls/dev/p", NodeKind::Directory);
    check(relative(above), error(ErrorCode::NotFound), ErrorCode::NotFound, not_found, true);
}

#[test]
fn what_is_said_without_a_position_is_no_cells_word() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), open());
    played.reply(t(0), "c", need_root());
    let request = played.take("p");
    let answer = Answer::plain(request.number, error(ErrorCode::NotFound));
    played.receive(t(1), "p", Down::Answer(answer));

    assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable));
}

#[test]
fn a_directory_that_no_cell_holds_is_nothing_to_ask_for() {
    let mut played = Played::new();
    for need in [
        Need::Root(name("/ls/other/x")),
        Need::Seal { name: name("/ls/other/x"), instance: Instance(1) },
        Need::Unseal { name: name("/ls/other/x"), instance: Instance(1), ticket: SEAL },
    ] {
        let ticket = played.submit(t(0), open());
        played.reply(t(0), "c", needs(need));
        assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable));
    }
}

#[test]
fn the_listing_is_asked_of_the_cell_that_holds_the_children() {
    let mut played = Played::new();
    played.submit(t(0), list_root());

    assert_eq!(played.take("c").op, list_root());
    assert_eq!(UpstreamCore::owner(&map(), &list_root()), Some(CellName::new("c")));
}

#[test]
fn a_seal_that_was_left_behind_is_undone() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), open());
    played.reply(t(0), "c", need_root());
    played.reply(t(0), "p", Ok(Reply::Root(root())));
    played.reply(t(0), "c", need_unseal());

    assert_eq!(cross(&played.reply(t(1), "p", Ok(Reply::Noted))), void_seals());
    assert_eq!(cross(&played.reply(t(2), "c", Ok(Reply::Noted))), unseal());

    assert_eq!(evidence(&played.take("c")), Evidence::default(), "the root is asked for again");
    assert_eq!(played.code(ticket), None);
}

#[test]
fn a_root_record_that_was_left_behind_is_dropped() {
    for gone in [ErrorCode::StaleHandle, ErrorCode::NotFound] {
        let mut played = Played::new();
        let ticket = played.submit(t(0), open());
        played.reply(t(0), "c", need_unseal());

        assert_eq!(cross(&played.reply(t(1), "p", error(gone))), void_seals());
        assert_eq!(cross(&played.reply(t(2), "c", Ok(Reply::Noted))), drop_root());

        assert_eq!(evidence(&played.take("c")), Evidence::default());
        assert_eq!(played.code(ticket), None);
    }
}

#[test]
fn a_seal_that_cannot_be_undone_makes_the_request_unavailable() {
    let mut played = Played::new();
    let first = played.submit(t(0), open());
    played.reply(t(0), "c", need_unseal());
    played.reply(t(1), "p", error(ErrorCode::InvalidArgument));
    let second = played.submit(t(2), open());
    played.reply(t(2), "c", need_unseal());
    played.reply(t(2), "p", Ok(Reply::Noted));
    played.reply(t(2), "c", error(ErrorCode::InvalidArgument));
    let third = played.submit(t(3), open());
    played.reply(t(3), "c", need_unseal());
    let request = played.take("p");
    played.receive(t(3), "p", Down::Answer(Answer::plain(request.number, error(ErrorCode::StaleHandle))));

    for ticket in [first, second, third] {
        assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable));
    }
    played.assert_nothing_asked();
}

#[test]
fn a_directory_is_sealed_deleted_and_its_root_record_dropped_before_the_client_hears() {
    let mut played = Played::new();
    let (ticket, request) = sealed(&mut played);

    played.answer(t(1), "p", &request, Ok(Reply::Deleted));
    assert_eq!(played.result(ticket), None);
    played.cancel(t(1), ticket);
    assert_eq!(cross(&played.reply(t(2), "c", Ok(Reply::Noted))), drop_root());

    assert_eq!(played.result(ticket), Some(&Ok(Reply::Deleted)));
    assert_eq!(played.answers[&ticket].position, Some(position("p", 5)));
}

#[test]
fn a_delete_that_is_asked_again_drops_the_root_record_whatever_comes_of_that() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), delete());
    played.reply(t(0), "p", Ok(Reply::Deleted));
    assert_eq!(cross(&played.take("c")), drop_root());

    played.expire(t(1), "c");

    assert_eq!(played.result(ticket), Some(&Ok(Reply::Deleted)));
}

#[test]
fn what_is_not_split_is_deleted_and_changed_by_one_cell() {
    let mut played = following::sure();
    let file = handle("p", D, NodeKind::File);
    let whole = handle("p", "/ls/dev/p/e", NodeKind::Directory);
    let acls = AclNames::default();
    for handle in [file, whole] {
        let deleted = played.submit(t(0), Op::Delete(handle.clone()));
        played.reply(t(0), "p", Ok(Reply::Deleted));
        let acls = acls.clone();
        let changed = played.submit(t(0), Op::SetAcl { handle, acls, if_generation: None });
        played.reply(t(0), "p", acl_set());
        assert_eq!(played.result(deleted), Some(&Ok(Reply::Deleted)));
        assert_eq!(played.result(changed), Some(&acl_set()));
    }
    played.assert_nothing_asked();
}

#[test]
fn a_directory_with_children_stays() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), delete());
    played.reply(t(0), "p", need_seal());
    played.reply(t(1), "c", error(ErrorCode::NotEmpty));

    assert_eq!(played.code(ticket), Some(ErrorCode::NotEmpty));
    assert_eq!(played.answers[&ticket].position, Some(position("c", 5)));
    let ticket = played.submit(t(2), delete());
    played.reply(t(2), "p", need_seal());
    played.reply(t(2), "c", error(ErrorCode::PermissionDenied));
    assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable));
    played.assert_nothing_asked();
}

#[test]
fn the_seal_of_a_delete_that_was_refused_is_undone() {
    let mut played = Played::new();
    let (ticket, request) = sealed(&mut played);

    played.answer(t(1), "p", &request, error(ErrorCode::PermissionDenied));
    assert_eq!(cross(&played.reply(t(2), "p", Ok(Reply::Noted))), void_seals());
    assert_eq!(played.code(ticket), None);
    assert_eq!(cross(&played.reply(t(3), "c", Ok(Reply::Noted))), unseal());

    assert_eq!(played.code(ticket), Some(ErrorCode::PermissionDenied));
}

#[test]
fn the_root_record_goes_if_the_directory_went_otherwise() {
    let mut played = Played::new();
    let (ticket, request) = sealed(&mut played);

    played.answer(t(1), "p", &request, error(ErrorCode::StaleHandle));
    played.reply(t(2), "p", error(ErrorCode::StaleHandle));
    assert_eq!(cross(&played.reply(t(3), "c", error(ErrorCode::InvalidArgument))), drop_root());

    assert_eq!(played.code(ticket), Some(ErrorCode::StaleHandle));
}

#[test]
fn a_delete_of_which_nothing_is_known_keeps_its_seal() {
    let mut played = Played::new();
    let (ticket, _) = sealed(&mut played);

    played.expire(t(1), "p");
    assert_eq!(played.code(ticket), Some(ErrorCode::SessionExpired));
    played.assert_nothing_asked();

    let mut played = Played::new();
    let (ticket, request) = sealed(&mut played);
    played.receive(t(1), "p", Down::Answer(Answer::plain(request.number, error(ErrorCode::SessionMoved))));
    assert_eq!(played.code(ticket), Some(ErrorCode::SessionMoved), "at once");
    played.assert_nothing_asked();
}

#[test]
fn the_seal_of_a_delete_that_is_given_up_is_undone() {
    type GiveUp = fn(&mut Played, Ticket);
    let given_up: [(ErrorCode, GiveUp); 3] = [
        (ErrorCode::Cancelled, |played, ticket| played.cancel(t(2), ticket)),
        (ErrorCode::Unavailable, |played, _| {
            drop(played.reply(t(2), "h", error(ErrorCode::InvalidArgument)))
        }),
        (ErrorCode::Unavailable, |played, _| played.expire(t(2), "h")),
    ];
    for (code, give_up) in given_up {
        let mut played = Played::new();
        let (ticket, request) = sealed(&mut played);
        played.answer(t(1), "p", &request, needs_acl("ops"));
        give_up(&mut played, ticket);
        assert_eq!(played.code(ticket), None);

        assert_eq!(cross(&played.reply(t(3), "p", Ok(Reply::Noted))), void_seals());
        assert_eq!(cross(&played.reply(t(4), "c", Ok(Reply::Noted))), unseal());

        assert_eq!(played.code(ticket), Some(code));
    }
}

#[test]
fn a_delete_that_is_cancelled_while_the_directory_is_sealed_leaves_no_seal() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), delete());
    played.reply(t(0), "p", need_seal());
    played.cancel(t(1), ticket);
    assert_eq!(played.code(ticket), None, "it may be sealed already");

    played.reply(t(2), "c", Ok(Reply::Sealed(SEAL)));
    assert_eq!(cross(&played.reply(t(3), "p", Ok(Reply::Noted))), void_seals());
    assert_eq!(cross(&played.reply(t(4), "c", Ok(Reply::Noted))), unseal());

    assert_eq!(played.code(ticket), Some(ErrorCode::Cancelled));
}

#[test]
fn what_others_left_behind_is_not_waited_for_by_who_cancels() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), open());
    played.reply(t(0), "c", need_unseal());
    played.cancel(t(1), ticket);
    assert_eq!(played.code(ticket), Some(ErrorCode::Cancelled));

    played.reply(t(2), "p", Ok(Reply::Noted));

    played.assert_nothing_asked();
}

#[test]
fn new_acl_names_of_a_directory_are_known_to_both_cells_before_the_client_hears() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), set_acl());
    played.reply(t(0), "p", acl_set());
    let Op::SetAcl { acls, .. } = set_acl() else { panic!() };
    let changed = Root { acls, acl_generation: Generation(3), as_of: position("p", 5), ..root() };
    played.cancel(t(1), ticket);
    assert_eq!(played.result(ticket), None);

    assert_eq!(cross(&played.reply(t(1), "c", Ok(Reply::Noted))), CrossOp::UpdateRoot(changed));

    assert_eq!(played.result(ticket), Some(&acl_set()));
}

#[test]
fn new_acl_names_that_one_cell_does_not_know_are_set_again() {
    let mut played = Played::new();
    let refused = played.submit(t(0), set_acl());
    played.reply(t(0), "p", acl_set());
    played.reply(t(1), "c", error(ErrorCode::InvalidArgument));
    let lost = played.submit(t(2), set_acl());
    played.reply(t(2), "p", acl_set());
    played.expire(t(3), "c");
    played.requests.clear();
    let nowhen = played.submit(t(4), set_acl());
    let request = played.take("p");
    played.receive(t(4), "p", Down::Answer(Answer::plain(request.number, acl_set())));

    for ticket in [refused, lost, nowhen] {
        assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable));
    }
}

#[test]
fn a_session_that_ends_ends_every_wait_for_its_cell() {
    let mut played = Played::new();
    let root = played.submit(t(0), open());
    played.reply(t(0), "c", need_root());
    let unseal = played.submit(t(0), open());
    played.reply(t(0), "c", need_unseal());
    let refused = sealed(&mut Played::new()).0;
    assert_eq!(played.code(refused), None, "of another");

    played.expire(t(1), "p");

    for ticket in [root, unseal] {
        assert_eq!(played.code(ticket), Some(ErrorCode::Unavailable));
    }
    assert_eq!(played.core.waiting(), 0);
}

#[test]
fn a_request_whose_cell_is_lost_meanwhile_is_asked_in_the_next_session() {
    let mut played = Played::new();
    let ticket = played.submit(t(0), open());
    played.reply(t(0), "c", need_root());
    played.expire(t(1), "c");

    played.reply(t(2), "p", Ok(Reply::Root(root())));

    assert_eq!(evidence(&played.take("c")).root, Some(root()));
    assert_eq!(played.code(ticket), None);
}
