//! Directories that become split, or whole, or are split otherwise (`route-1` to `route-4`).

use hasp_proto::crossing::{Evidence, Root, SealTicket};
use hasp_proto::position::Position;

use super::*;

/// Directories in `/ls/dev/r` have their children on a ring.
const RING: &[(&str, &str)] = &[("/ls/dev", "a"), ("/ls/dev/r/*", "a b")];

/// The first name in `/ls/dev/r` of whose directory the children are in these cells before and after the ring has those
/// cells.
fn on_rings(before: (&str, &str), after: (&str, &str)) -> String {
    let map = |ring: &str| {
        let cells = ["a", "b", "c"].map(|cell| (CellName::new(cell), vec![])).into();
        PartitionMap::new(1, "dev", [("/ls/dev", "a"), ("/ls/dev/r/*", ring)], cells).expect("good")
    };
    let (first, second) = (map(before.0), map(after.0));
    let is_it = |text: &String| {
        let cell = |map: &PartitionMap| map.children_owner(&name(text)).map(ToString::to_string);
        cell(&first).as_deref() == Some(before.1) && cell(&second).as_deref() == Some(after.1)
    };
    (0..).map(|at| format!("/ls/dev/r/x{at}")).find(is_it).expect("one of many")
}

fn root(cells: &mut Cells, text: &str) -> Root {
    let node = cells.a().node(text);
    let (instance, acls, acl_generation) = (node.instance, (*node.acls).clone(), node.acl_generation);
    Root { name: name(text), instance, acls, acl_generation, as_of: cells.a().state.position() }
}

/// A file in a directory of `a`, in the cell of its children.
fn fill(cells: &mut Cells, cell: &str, directory: &str) {
    let child = format!("{directory}/f");
    let root = root(cells, directory);
    let Command::ClientWrite(write) =
        client_write(through(6, ROUTER, 1), 1, 1, create(&child, NodeKind::File))
    else {
        unreachable!("that is what it is")
    };
    let number = cells.numbers.entry(6).or_default();
    *number += 1;
    let number = RequestNumber(*number);
    let evidence = Some(Box::new(Evidence { root: Some(root), ..Evidence::default() }));
    let write = ClientWrite { number, settled_below: number, evidence, ..write };
    created(&cells.of(cell).run(Command::ClientWrite(write)));
}

fn roots(cells: &mut Cells, cell: &str) -> Vec<String> {
    cells.of(cell).state.roots().map(|(name, _)| name.to_string()).collect()
}

fn guard(cells: &mut Cells, text: &str, write: &str) -> Outcome {
    let holder = cells.a().handle(text, 1);
    let names = acls("everyone", write, "everyone");
    let as_admin = Speaker { principal: "admin", ..client() };
    cells.write("a", as_admin, Write::SetAcl { holder, acls: names, if_generation: None })
}

#[test]
fn a_split_makes_a_root_record_whose_acl_names_children_inherit_and_a_merge_drops_it() {
    let mut cells = filled();
    assert!(matches!(guard(&mut cells, P, "everyone"), Outcome::AclSet { .. }));
    let node = cells.a().node(P).stat();

    cells.move_all("/ls/dev/p b");

    assert_eq!((roots(&mut cells, "a"), roots(&mut cells, "b")), (vec![], vec![P.to_owned()]));
    let record = cells.b().state.root(&name(P)).expect("there").clone();
    assert_eq!((record.instance, &*record.acls), (node.instance, &node.acls));
    assert_eq!(record.acl_generation, node.acl_generation);
    created(&cells.write("b", client(), create("/ls/dev/p/new", NodeKind::File)));
    assert_eq!(*cells.b().node("/ls/dev/p/new").acls, node.acls);
    let holder = cells.a().handle(P, 1);
    let delete = cells.write("a", client(), Write::Delete { holder });
    assert_failed(&delete, &ErrorCode::NotEmpty, "has a rule");

    cells.move_all("/ls/dev/p -");
    assert_eq!((roots(&mut cells, "a"), roots(&mut cells, "b")), (vec![], vec![]));
    created(&cells.write("a", client(), create("/ls/dev/p/newer", NodeKind::File)));
}

#[test]
fn a_directory_whose_node_moves_while_its_children_stay_leaves_a_root_record_behind() {
    let mut cells = Cells::new(&[("/ls/dev", "a"), ("/ls/dev/p/q", "a")]);
    let q = "/ls/dev/p/q";
    cells.put("a", "/ls/dev/p/q/f", "stays");
    cells.put("a", "/ls/dev/p/f", "goes");
    let node = cells.a().node(q).stat();
    let before = cells.seen("a", P);
    let check_whole = |cells: &mut Cells| {
        assert_eq!(cells.seen("a", P), before);
        assert_eq!((roots(cells, "a"), roots(cells, "b")), (vec![], vec![]));
    };

    cells.begin("/ls/dev/p b");
    cells.carry_all();
    assert!(cells.a().state.node(&name("/ls/dev/p/q/f")).is_some(), "it is served on");
    cells.undone();
    check_whole(&mut cells);
    cells.move_all("/ls/dev/p b");

    assert_eq!((roots(&mut cells, "a"), roots(&mut cells, "b")), (vec![q.to_owned()], vec![P.to_owned()]));
    assert_eq!(cells.b().node(q).stat(), node);
    assert_eq!(cells.a().state.root(&name(q)).map(|root| root.instance), Some(node.instance));
    created(&cells.write("a", client(), create("/ls/dev/p/q/g", NodeKind::File)));
    let holder = cells.a().handle("/ls/dev/p/q/g", 1);
    cells.write("a", client(), Write::Delete { holder });
    cells.move_all("/ls/dev/p -");
    check_whole(&mut cells);
}

#[test]
fn a_ring_that_loses_a_cell_and_one_that_gains_one_move_no_more_than_they_must() {
    let mut cells = Cells::named(&["a", "b", "c"], &[("/ls/dev", "a"), ("/ls/dev/r/*", "a b")]);
    let both = ("a b", "a c");
    let gone = on_rings((both.0, "b"), (both.1, "c"));
    let to_a = on_rings((both.0, "b"), (both.1, "a"));
    let from_a = on_rings((both.0, "a"), (both.1, "c"));
    let stays = on_rings((both.0, "a"), (both.1, "a"));
    for (cell, directory) in [("b", &gone), ("b", &to_a), ("a", &from_a), ("a", &stays)] {
        cells.create("a", directory, NodeKind::Directory);
        fill(&mut cells, cell, directory);
    }
    let before = [("b", &gone), ("b", &to_a), ("a", &from_a), ("a", &stays)]
        .map(|(cell, directory)| cells.seen(cell, directory));

    cells.move_all("/ls/dev/r/* a c");

    let after = [("c", &gone), ("a", &to_a), ("c", &from_a), ("a", &stays)]
        .map(|(cell, directory)| cells.seen(cell, directory));
    assert_eq!(after, before);
    assert!(cells.seen("b", "/ls/dev").is_empty() && roots(&mut cells, "b").is_empty());
    let mut split = [gone, from_a];
    split.sort();
    assert_eq!(roots(&mut cells, "c"), split, "two sources");
    assert_eq!(roots(&mut cells, "a"), [""; 0], "what is whole there needs none");
}

#[test]
fn a_directory_is_not_deleted_while_its_children_are_on_their_way() {
    let mut cells = filled();
    cells.begin("/ls/dev/p b");
    cells.carry_all();

    let holder = cells.a().handle(P, 1);
    assert_eq!(cells.write("a", client(), Write::Delete { holder }), goes(2), "P-TREE");

    cells.done();
    let holder = cells.a().handle(P, 1);
    let delete = cells.write("a", client(), Write::Delete { holder });
    assert_failed(&delete, &ErrorCode::NotEmpty, "has a rule");
}

#[test]
fn an_ephemeral_directory_is_not_reaped_while_its_children_are_on_their_way_or_elsewhere() {
    let mut cells = Cells::named(&["a", "b", "c"], RING);
    let x = on_rings(("a b", "a"), ("b c", "c"));
    let make = create_with(&x, NodeKind::Directory, |create| create.ephemeral = true);
    let instance = created(&cells.write("a", client(), make));
    let opened_by = cells.numbers[&5];
    cells.put("a", &format!("{x}/f"), "");
    let holder = cells.a().handle(&x, opened_by);
    cells.write("a", client(), Write::CloseHandle { holder });
    cells.begin("/ls/dev/r/* b c");
    cells.pack("a");
    cells.pack("b");

    let reap = || Command::Reap { name: name(&x), instance };
    let reap_root = CrossOp::ReapRoot { name: name(&x), instance, ticket: SealTicket(1_000) };
    assert_eq!(cells.a().state.abandoned().count(), 0);
    assert_eq!(cells.a().state.left_elsewhere().count(), 0, "nobody can say whether it has children");
    assert_eq!(cells.a().run(reap()), Outcome::Reaped { deleted: false }, "P-TREE");
    assert_eq!(cells.cross("a", reap_root), Outcome::Reaped { deleted: false });
    cells.carry_all();
    cells.done();

    assert_eq!(cells.a().run(reap()), Outcome::Reaped { deleted: false });
    assert_eq!(cells.a().state.left_elsewhere().count(), 1, "c knows");
}

#[test]
fn an_ephemeral_directory_that_comes_to_where_its_children_are_is_not_abandoned() {
    let mut cells = Cells::new(RING);
    let x = on_rings(("a b", "b"), ("a b", "b"));
    let make = create_with(&x, NodeKind::Directory, |create| create.ephemeral = true);
    let instance = created(&cells.write("a", client(), make));
    let opened_by = cells.numbers[&5];
    fill(&mut cells, "b", &x);
    let holder = cells.a().handle(&x, opened_by);
    cells.write("a", client(), Write::CloseHandle { holder });

    cells.move_all("/ls/dev/r b");

    assert_eq!(cells.b().state.abandoned().count(), 0);
    let reap = Command::Reap { name: name(&x), instance };
    assert_eq!(cells.b().run(reap), Outcome::Reaped { deleted: false }, "P-TREE");
}

#[test]
fn acl_names_of_a_directory_stay_while_its_children_are_on_their_way() {
    let mut cells = filled();
    cells.begin("/ls/dev/p b");
    assert!(matches!(guard(&mut cells, P, "everyone"), Outcome::AclSet { .. }));
    cells.carry_all();

    assert_eq!(guard(&mut cells, P, "everyone"), goes(2), "P-ACL: what children inherit is in the parcel");

    cells.done();
    let (of_node, of_root) = (cells.a().node(P).acl_generation, cells.b().state.root(&name(P)).cloned());
    assert_eq!(of_root.map(|root| root.acl_generation), Some(of_node));
    assert!(matches!(guard(&mut cells, P, "everyone"), Outcome::AclSet { .. }));
    let instance = cells.a().node(P).instance;
    assert_eq!(cells.a().state.chores(), [Chore::Propagate { name: name(P), instance }].into());
}

#[test]
fn a_seal_goes_along_with_the_children_that_there_are_not() {
    let mut cells = Cells::named(&["a", "b", "c"], RING);
    let sealed = on_rings(("a b", "b"), ("a c", "c"));
    cells.create("a", &sealed, NodeKind::Directory);
    let instance = cells.a().node(&sealed).instance;
    let seal = CrossOp::Seal { name: name(&sealed), instance };
    let Outcome::Sealed(ticket) = cells.cross("b", seal.clone()) else { panic!("sealed") };

    cells.move_all("/ls/dev/r/* a c");

    assert_eq!(cells.cross("c", seal), Outcome::Sealed(ticket), "whoever wants to delete it uses the same");
    let chores = cells.of("c").state.chores();
    assert_eq!(chores, [Chore::Unseal { name: name(&sealed), instance, ticket }].into());
    assert!(cells.b().state.chores().is_empty());
    let holder = cells.a().handle(&sealed, 1);
    let Command::ClientWrite(write) = client_write(client(), 500, 0, Write::Delete { holder }) else {
        unreachable!("that is what it is")
    };
    let evidence = Some(Box::new(Evidence { seal: Some(ticket), ..Evidence::default() }));
    let write = Command::ClientWrite(ClientWrite { evidence, ..write });
    assert_eq!(cells.a().run(write), Outcome::Deleted, "and it counts");
}

#[test]
fn voided_seals_and_news_go_along_with_the_node_and_end_where_its_children_are() {
    let voided = on_rings(("a b", "b"), ("a b", "b"));
    let mut cells = Cells::new(RING);
    cells.create("a", &voided, NodeKind::Directory);
    let instance = cells.a().node(&voided).instance;
    let below = SealTicket(800);
    cells.cross("a", CrossOp::VoidSeals { name: name(&voided), instance, below });
    assert!(matches!(guard(&mut cells, &voided, "everyone"), Outcome::AclSet { .. }));
    let news = Chore::Propagate { name: name(&voided), instance };
    assert!(cells.a().state.chores().contains(&news));
    let other = on_rings(("a b", "a"), ("a b", "a"));
    cells.create("a", &other, NodeKind::Directory);
    // Of `other` the children stay with `a` while its node goes: it is split from here on.
    cells.begin("/ls/dev/r b");
    cells.carry_all();
    assert!(!cells.a().state.chores().contains(&news));
    cells.undone();
    assert!(cells.a().state.chores().contains(&news), "back, like the rest");
    assert!(!cells.a().state.tree.roots().counts(&name(&voided), SealTicket(799)));
    cells.move_all("/ls/dev/r b");
    assert!(!cells.b().state.chores().contains(&news), "the names are its own word there");
    assert_eq!(roots(&mut cells, "a"), [other]);
}

#[test]
fn what_was_void_at_the_source_is_void_at_the_destination() {
    let mut cells = Cells::named(&["a", "b", "c"], RING);
    let x = on_rings(("a b", "b"), ("a c", "c"));
    cells.create("a", &x, NodeKind::Directory);
    let early = root(&mut cells, &x);
    let as_of = Position { index: early.as_of.index + 1, ..early.as_of.clone() };
    let void = CrossOp::DropRoot { name: name(&x), instance: early.instance, as_of };
    assert_eq!(cells.cross("b", void), Outcome::Noted);

    cells.move_all("/ls/dev/r/* a c");

    let evidence = |root: Root| Evidence { root: Some(root), ..Evidence::default() };
    let c = cells.of("c");
    assert_eq!(c.state.described(&name(&x), Some(&evidence(early.clone()))), None, "route-4");
    let later = Root { as_of: Position { index: early.as_of.index + 1, ..early.as_of.clone() }, ..early };
    assert!(c.state.described(&name(&x), Some(&evidence(later))).is_some());
}

#[test]
fn the_word_of_a_cell_that_does_not_have_the_node_by_this_map_is_refused() {
    let mut cells = Cells::named(&["a", "b", "c"], RING);
    let x = on_rings(("a b", "b"), ("a b", "b"));
    cells.create("a", &x, NodeKind::Directory);
    fill(&mut cells, "b", &x);
    let root = root(&mut cells, &x);
    let wrong = ErrorCode::WrongCell { map_version: 1 };
    let as_of = Position { cell: CellName::new("c"), ..root.as_of.clone() };
    let before = cells.b().state.tree.clone();

    let drop = CrossOp::DropRoot { name: name(&x), instance: root.instance, as_of: as_of.clone() };
    assert_failed(&cells.cross("b", drop), &wrong, "is not in cell c");
    let update = CrossOp::UpdateRoot(Root { as_of, acl_generation: Generation(900), ..root });
    assert_failed(&cells.cross("b", update), &wrong, "is not in cell c");

    assert!(cells.b().state.tree == before);
}
