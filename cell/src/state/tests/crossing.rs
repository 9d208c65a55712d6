//! `route-3`, `route-4`: directories whose node is in one cell and whose children are in another.

use hasp_proto::crossing::{Chore, CrossOp, Evidence, Need, Root, SealTicket};

use super::*;

/// What is below `/ls/dev/r` is `a`'s; what is below the directories in it is spread over both.
const RING: &[(&str, &str)] = &[("/ls/dev", "a"), ("/ls/dev/r/*", "a b")];

/// A directory of `a` whose children are `b`'s.
fn split() -> Name {
    let map = genesis("a", RING).map;
    let is_split = |name: &Name| map.children_owner(name) == Some(&CellName::new("b"));
    (0..).map(|at| name(&format!("/ls/dev/r/x{at}"))).find(is_split).expect("one of many")
}

/// Its instance so often, as of that index of `a`.
fn root(instance: u64, index: u64) -> Root {
    let as_of = Position { cell: CellName::new("a"), epoch: Epoch(1), index };
    let acl_generation = Generation(instance);
    Root { name: split(), instance: Instance(instance), acls: AclNames::default(), acl_generation, as_of }
}

fn says(root: Root) -> Option<Evidence> {
    Some(Evidence { root: Some(root), ..Evidence::default() })
}

/// The cell of the children, with a router (9).
fn children() -> World {
    let mut b = World::of("b", RING);
    b.session(9, Role::Router);
    b
}

/// The cell of the node, with a router (9), and with the directory.
fn node() -> (World, Instance) {
    let mut a = World::of("a", RING);
    a.session(1, Role::Client);
    a.session(9, Role::Router);
    let instance = created(&a.write(own(1), create(split().as_str(), NodeKind::Directory)));
    (a, instance)
}

impl World {
    /// A client behind the router writes, with what the router says of other cells.
    fn write_with(&mut self, evidence: Option<Evidence>, write: Write) -> Outcome {
        let number = self.numbers.entry(2).or_default();
        *number += 1;
        let Command::ClientWrite(write) = client_write(through(2, 9, 1), *number, 0, write) else {
            unreachable!("that is what it is")
        };
        self.run(Command::ClientWrite(ClientWrite { evidence: evidence.map(Box::new), ..write }))
    }

    fn make_child(&mut self, child: &str, evidence: Option<Evidence>) -> Outcome {
        let child = split().child(child).expect("short");
        self.write_with(evidence, create(child.as_str(), NodeKind::File))
    }

    fn cross(&mut self, op: CrossOp) -> Outcome {
        self.run(Command::Cross(op))
    }

    fn seal(&mut self, instance: u64) -> Outcome {
        self.cross(CrossOp::Seal { name: split(), instance: Instance(instance) })
    }

    fn drop_root(&mut self, instance: u64, index: u64) -> Outcome {
        let as_of = root(instance, index).as_of;
        self.cross(CrossOp::DropRoot { name: split(), instance: Instance(instance), as_of })
    }

    fn delete_child(&mut self, child: &str) {
        let child = split().child(child).expect("short");
        let holder = self.handle(child.as_str(), 1);
        assert_eq!(self.write_with(None, Write::Delete { holder }), Outcome::Deleted);
    }
}

#[track_caller]
fn ticket(outcome: &Outcome) -> SealTicket {
    match outcome {
        Outcome::Sealed(ticket) => *ticket,
        other => panic!("not sealed: {other:?}"),
    }
}

fn needs_root() -> Outcome {
    Outcome::Needs(Need::Root(split()))
}

fn needs_unseal(instance: u64, ticket: SealTicket) -> Outcome {
    Outcome::Needs(Need::Unseal { name: split(), instance: Instance(instance), ticket })
}

#[test]
fn the_first_child_needs_the_word_of_the_directorys_cell_and_later_ones_do_not() {
    let mut b = children();
    let guarded = Root { acls: acls("everyone", "everyone", "ops"), ..root(5, 10) };

    assert_eq!(b.make_child("c", None), needs_root());
    created(&b.make_child("c", says(guarded.clone())));
    created(&b.make_child("d", None));

    let child = split().child("c").expect("short");
    assert_eq!(*b.node(child.as_str()).acls, guarded.acls, "inherited from there");
}

#[test]
fn a_name_relative_to_a_directory_of_another_cell_needs_that_very_directory() {
    let mut b = children();
    let mut make = |child: &str, base: u64, evidence: Option<Evidence>| {
        let child = split().child(child).expect("short");
        let relative_to = Some((split(), Instance(base)));
        b.write_with(
            evidence,
            create_with(child.as_str(), NodeKind::File, |create| create.relative_to = relative_to),
        )
    };

    assert_eq!(make("c", 5, None), needs_root());
    assert_failed(&make("c", 5, says(root(9, 20))), &ErrorCode::StaleHandle, "directory");
    assert_failed(&make("c", 5, None), &ErrorCode::StaleHandle, "directory");
    created(&make("c", 9, None));
    // Whoever has a handle on a directory that is later than what is known here cannot be told that it is gone.
    created(&make("d", 12, None));
}

#[test]
fn the_word_of_another_cell_or_on_another_directory_is_no_word() {
    let mut b = children();
    let of_b = Root { as_of: Position { cell: CellName::new("b"), ..root(5, 10).as_of }, ..root(5, 10) };
    let of_other = Root { name: name("/ls/dev/r"), ..root(5, 10) };

    assert_eq!(b.make_child("c", says(of_b)), needs_root());
    assert_eq!(b.make_child("c", says(of_other)), needs_root());
}

#[test]
fn a_directory_with_children_is_not_sealed_and_a_sealed_one_gets_none() {
    let mut b = children();
    created(&b.make_child("c", says(root(5, 10))));
    assert_failed(&b.seal(5), &ErrorCode::NotEmpty, "has children");
    b.delete_child("c");

    let seal = ticket(&b.seal(5));
    assert_eq!(b.make_child("c", None), needs_unseal(5, seal));
    assert_eq!(b.make_child("c", says(root(5, 11))), needs_unseal(5, seal), "it is there, and about to go");
    assert_eq!(ticket(&b.seal(5)), seal, "whoever else wants to delete it uses the same");
    assert_eq!(
        b.state.chores(),
        [Chore::Unseal { name: split(), instance: Instance(5), ticket: seal }].into()
    );

    let instance = Instance(5);
    b.cross(CrossOp::Unseal { name: split(), instance, ticket: SealTicket(seal.0 - 1) });
    assert_eq!(b.make_child("c", None), needs_unseal(5, seal), "that was another seal");
    b.cross(CrossOp::Unseal { name: split(), instance, ticket: seal });
    assert_eq!(b.make_child("c", None), needs_root());
    created(&b.make_child("c", says(root(5, 12))));
}

#[test]
fn a_directory_that_was_never_heard_of_can_be_sealed() {
    let mut b = children();

    let seal = ticket(&b.seal(5));

    assert_eq!(b.make_child("c", says(root(5, 11))), needs_unseal(5, seal));
    created(&b.make_child("c", says(root(6, 12))));
    assert_failed(&b.seal(5), &ErrorCode::StaleHandle, "is gone");
}

#[test]
fn what_was_said_before_the_directory_went_brings_no_child_into_being() {
    let mut b = children();
    let late = says(root(5, 10));
    b.seal(5);

    assert_eq!(b.drop_root(5, 20), Outcome::Noted);

    assert_eq!(b.make_child("c", late), needs_root());
    assert_eq!(b.make_child("c", says(root(5, 19))), needs_root());
    assert!(b.state.chores().is_empty());
    created(&b.make_child("c", says(root(21, 21))));
    assert_eq!(b.drop_root(5, 20), Outcome::Noted, "said once more");
    created(&b.make_child("d", None));
}

#[test]
fn of_very_many_directories_that_went_the_last_are_known_by_name_and_the_rest_by_their_cell() {
    let mut b = children();
    b.drop_root(5, 1_000);
    for at in 0..1_024 {
        let as_of = Position { index: 2_000 + at, ..root(1, 1).as_of };
        let gone = name(&format!("/ls/dev/r/gone{at}"));
        b.cross(CrossOp::DropRoot { name: gone, instance: Instance(1), as_of });
    }

    assert_eq!(b.make_child("c", says(root(5, 999))), needs_root(), "pushed out, and still void");
    created(&b.make_child("c", says(root(6, 1_000))));
    b.state = restored(&b.state);
    b.delete_child("c");
    b.seal(6);
    b.drop_root(6, 5_000);
    b.state = restored(&b.state);
    assert_eq!(b.make_child("c", says(root(6, 4_999))), needs_root(), "by name");
}

fn restored(state: &State) -> State {
    let again = State::from_snapshot(state.write_snapshot().into_iter()).expect("as it was written");
    assert!(again == *state, "nothing is lost on the way");
    again.check_invariants();
    again
}

#[test]
fn a_deletion_needs_a_seal_that_counts() {
    let (mut a, instance) = node();
    let holder = a.handle(split().as_str(), 1);
    let seal = |ticket| Some(Evidence { seal: Some(SealTicket(ticket)), ..Evidence::default() });
    let needs_seal = Outcome::Needs(Need::Seal { name: split(), instance });
    let delete = || Write::Delete { holder: holder.clone() };

    assert_eq!(a.write_with(None, delete()), needs_seal);
    let below = SealTicket(8);
    assert_eq!(a.cross(CrossOp::VoidSeals { name: split(), instance, below }), Outcome::Noted);
    a.state = restored(&a.state);
    assert_eq!(a.write_with(seal(7), delete()), needs_seal, "voided");
    let below = SealTicket(3);
    a.cross(CrossOp::VoidSeals { name: split(), instance, below });
    assert_eq!(a.write_with(seal(7), delete()), needs_seal, "and never counts again");
    assert_eq!(a.write_with(seal(8), delete()), Outcome::Deleted);

    let gone = a.cross(CrossOp::VoidSeals { name: split(), instance, below: SealTicket(9) });
    assert_failed(&gone, &ErrorCode::StaleHandle, "is gone");
    created(&a.write(own(1), create(split().as_str(), NodeKind::Directory)));
    let holder = a.handle(split().as_str(), 2);
    assert_eq!(
        a.write_with(seal(1), Write::Delete { holder }),
        Outcome::Deleted,
        "of the next none was voided"
    );
}

#[test]
fn a_file_and_a_directory_with_all_of_it_here_go_without_a_seal() {
    let (mut a, _) = node();
    let map = genesis("a", RING).map;
    let whole = (0..)
        .map(|at| name(&format!("/ls/dev/r/y{at}")))
        .find(|name| map.children_owner(name) == map.owner(name))
        .expect("one of many");
    created(&a.write(own(1), create(whole.as_str(), NodeKind::Directory)));
    created(&a.write(own(1), create(whole.child("c").expect("short").as_str(), NodeKind::File)));
    let holder = a.handle(whole.as_str(), 1);
    assert_failed(&a.write_with(None, Write::Delete { holder: holder.clone() }), &ErrorCode::NotEmpty, "");
    let child = a.handle(whole.child("c").expect("short").as_str(), 1);
    a.write_with(None, Write::Delete { holder: child });

    assert_eq!(a.write_with(None, Write::Delete { holder }), Outcome::Deleted);
    let holder = a.handle(split().as_str(), 1);
    assert_eq!(a.write_with(seal_of(1), Write::Delete { holder }), Outcome::Deleted);
    created(&a.write(own(1), create(split().as_str(), NodeKind::File)));
    let holder = a.handle(split().as_str(), 2);
    assert_eq!(a.write_with(None, Write::Delete { holder }), Outcome::Deleted);
}

fn seal_of(ticket: u64) -> Option<Evidence> {
    Some(Evidence { seal: Some(SealTicket(ticket)), ..Evidence::default() })
}

#[test]
fn new_acl_names_of_a_directory_are_news_until_the_other_cell_knows_them() {
    let (mut a, instance) = node();
    let holder = a.handle(split().as_str(), 1);
    let names = acls("everyone", "ops", "everyone");
    let set = Write::SetAcl { holder: holder.clone(), acls: names, if_generation: None };
    a.put(1, "/ls/dev/acl/chiefs", "somebody\n");
    let free = Write::SetAcl { holder, acls: acls("everyone", "everyone", "chiefs"), if_generation: None };
    assert_failed(&a.write_with(None, set.clone()), &ErrorCode::PermissionDenied, "\"admin\"");
    assert!(a.state.chores().is_empty());
    let mut as_admin = |write: Write| a.write(who(1, "admin"), write);
    as_admin(free);
    let news = Chore::Propagate { name: split(), instance };
    assert_eq!(a.state.chores(), [news.clone()].into());
    a.state = restored(&a.state);

    let acl_generation = a.node(split().as_str()).acl_generation;
    let told =
        |generation: Generation| CrossOp::Propagated { name: split(), instance, acl_generation: generation };
    a.cross(told(Generation(acl_generation.0 - 1)));
    assert_eq!(a.state.chores(), [news].into(), "of these it does not know yet");
    a.cross(told(acl_generation));
    assert!(a.state.chores().is_empty());
}

#[test]
fn children_inherit_the_names_last_heard_and_older_word_changes_nothing() {
    let mut b = children();
    created(&b.make_child("c", says(root(5, 10))));
    let later = |generation, index, write: &str| Root {
        acls: acls("everyone", write, "everyone"),
        acl_generation: Generation(generation),
        ..root(5, index)
    };

    b.cross(CrossOp::UpdateRoot(later(30, 30, "ops")));
    b.cross(CrossOp::UpdateRoot(later(20, 20, "everyone")));
    assert_eq!(b.make_child("d", None), Outcome::Needs(Need::Acl("ops".into())), "who may create is new too");

    b.delete_child("c");
    let seal = ticket(&b.seal(5));
    b.cross(CrossOp::Unseal { name: split(), instance: Instance(5), ticket: seal });
    assert_eq!(b.make_child("d", says(later(20, 29, "everyone"))), needs_root(), "from before the change");
    assert_eq!(b.make_child("d", says(later(30, 31, "ops"))), Outcome::Needs(Need::Acl("ops".into())));
}

#[test]
fn an_ephemeral_directory_goes_only_by_a_seal_that_counts_and_while_nobody_has_it_open() {
    let mut a = World::of("a", RING);
    a.session(1, Role::Client);
    a.session(9, Role::Router);
    let ephemeral = |create: &mut Create| create.ephemeral = true;
    let instance = created(&a.write(own(1), create_with(split().as_str(), NodeKind::Directory, ephemeral)));
    let reap = |ticket| CrossOp::ReapRoot { name: split(), instance, ticket: SealTicket(ticket) };
    assert_eq!(a.cross(reap(4)), Outcome::Reaped { deleted: false }, "it is open");

    let holder = a.handle(split().as_str(), 1);
    a.write(own(1), Write::CloseHandle { holder });
    assert_eq!(a.state.abandoned().count(), 0, "the other cell has to be asked");
    assert_eq!(a.run(Command::Reap { name: split(), instance }), Outcome::Reaped { deleted: false });
    assert_eq!(a.state.chores(), [Chore::End { name: split(), instance }].into());
    a.cross(CrossOp::VoidSeals { name: split(), instance, below: SealTicket(5) });
    assert_eq!(a.cross(reap(4)), Outcome::Reaped { deleted: false }, "voided");
    assert_eq!(a.cross(reap(5)), Outcome::Reaped { deleted: true });
    assert!(a.state.chores().is_empty());
    assert!(a.state.node(&split()).is_none());
}

#[test]
fn what_is_asked_of_the_wrong_cell_or_changes_nothing_is_refused() {
    let (mut a, instance) = node();
    let mut b = children();
    let wrong = ErrorCode::WrongCell { map_version: 1 };

    assert_failed(&a.seal(instance.0), &wrong, "belongs to cell b");
    assert_failed(&a.cross(CrossOp::UpdateRoot(root(1, 1))), &wrong, "belongs to cell b");
    let void = CrossOp::VoidSeals { name: split(), instance, below: SealTicket(1) };
    assert_failed(&b.cross(void), &wrong, "belongs to cell a");
    for reads in [CrossOp::Chores, CrossOp::Vouch(None), CrossOp::DescribeRoot(split())] {
        assert_failed(&b.cross(reads), &ErrorCode::InvalidArgument, "changes nothing");
    }
}

#[test]
fn a_snapshot_that_says_twice_since_when_evidence_is_void_is_refused() {
    use hasp_proto::wire::log::v1 as log;
    use hasp_proto::wire::log::v1::snapshot_record::Record;
    use prost::Message as _;

    let mut b = children();
    b.drop_root(5, 10);
    let refused = |change: fn(&mut log::SnapshotVoid)| {
        let twice = |bytes: Bytes| {
            let mut record = log::SnapshotRecord::decode(bytes).expect("a good record");
            if let Some(Record::Crossing(crossing)) = &mut record.record {
                let mut again = crossing.voids[0].clone();
                change(&mut again);
                crossing.voids.push(again);
            }
            Bytes::from(record.encode_to_vec())
        };
        State::from_snapshot(b.state.write_snapshot().into_iter().map(twice)).is_err()
    };

    assert!(refused(|again| again.order += 1), "one name at two places");
    assert!(refused(|again| again.name.push('x')), "two names at one place");
    assert!(!refused(|again| {
        again.name.push('x');
        again.order += 1;
    }));
}
