//! `route-1`, `route-3`: what a cell's first entry plants.

use super::*;

/// `/ls/dev` is `a`'s, what is below `/ls/dev/p/x` is `b`'s, below `/ls/dev/p/x/q/y` `a`'s again.
const SPLIT: &[(&str, &str)] = &[("/ls/dev", "a"), ("/ls/dev/p/x", "b"), ("/ls/dev/p/x/q/y", "a")];

fn names(world: &World) -> Vec<&str> {
    world.state.tree.iter().map(|(name, _)| name.as_str()).collect()
}

fn roots(world: &World) -> Vec<&str> {
    world.state.tree.roots().records().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn each_cell_plants_the_directories_it_owns_and_the_roots_of_the_children_it_owns() {
    let (a, b) = (World::of("a", SPLIT), World::of("b", SPLIT));

    let system = ["/ls/dev/.hasp", "/ls/dev/acl"];
    let files = ["/ls/dev/.hasp/partitions", "/ls/dev/acl/admin", "/ls/dev/acl/everyone"];
    assert_eq!(names(&a), [&["/ls/dev"], &system[..], &["/ls/dev/p"], &files, &["/ls/dev/p/x"]].concat());
    assert_eq!(roots(&a), ["/ls/dev/p/x/q/y"]);
    assert_eq!(names(&b), ["/ls/dev/p/x/q", "/ls/dev/p/x/q/y"]);
    assert_eq!(roots(&b), ["/ls/dev/p/x"]);
}

#[test]
fn the_systems_own_nodes_are_readable_by_all_and_to_be_changed_by_admin_only() {
    let a = World::of("a", SPLIT);

    let files = ["/ls/dev/.hasp/partitions", "/ls/dev/acl/admin", "/ls/dev/acl/everyone"];
    for text in ["/ls/dev/.hasp", "/ls/dev/acl"].iter().chain(&files) {
        assert_eq!(*a.node(text).acls, acls("everyone", "admin", "admin"), "{text}");
    }
    assert_eq!(a.node("/ls/dev/acl/everyone").contents, "*\n");
    assert_eq!(a.node("/ls/dev/acl/admin").contents, "admin\n");
    assert_eq!(*a.node("/ls/dev").acls, acls("everyone", "everyone", "admin"));
}

#[test]
fn a_rule_for_the_directory_of_the_acls_puts_its_files_into_the_other_cell() {
    let rules = &[("/ls/dev", "a"), ("/ls/dev/acl", "b")];
    let (a, b) = (World::of("a", rules), World::of("b", rules));

    assert_eq!(names(&a), ["/ls/dev", "/ls/dev/.hasp", "/ls/dev/acl", "/ls/dev/.hasp/partitions"]);
    assert_eq!(names(&b), ["/ls/dev/acl/admin", "/ls/dev/acl/everyone"]);
    assert_eq!(*a.node("/ls/dev/acl").acls, acls("everyone", "admin", "admin"));
    let may = |who| b.state.check_access(&name("/ls/dev/acl"), Who::alone(who), Access::Write);
    let denied = may("alice").expect_err("of its root record too").into_error();
    assert_eq!(denied.code, ErrorCode::PermissionDenied);
    assert_eq!(may("admin"), Ok(()));
}

/// Directories below `/ls/dev/p/x` are spread. By the hash, what is below `/ls/dev/p/x/0` is `b`'s and what is below
/// `/ls/dev/p/x/1` is `a`'s.
const SPREAD: &[(&str, &str)] =
    &[("/ls/dev", "a"), ("/ls/dev/p/x/*", "a b"), ("/ls/dev/p/x/1/q", "b"), ("/ls/dev/p/x/0/q/*", "a b")];

#[test]
fn the_directory_of_a_ring_is_planted_and_of_those_below_only_what_a_rule_speaks_of() {
    let (a, b) = (World::of("a", SPREAD), World::of("b", SPREAD));

    let above = ["/ls/dev", "/ls/dev/.hasp", "/ls/dev/acl", "/ls/dev/p"];
    let files = ["/ls/dev/.hasp/partitions", "/ls/dev/acl/admin", "/ls/dev/acl/everyone"];
    let below = ["/ls/dev/p/x", "/ls/dev/p/x/0", "/ls/dev/p/x/1", "/ls/dev/p/x/1/q"];
    assert_eq!(names(&a), [&above[..], &files, &below].concat());
    assert_eq!(roots(&a), [""; 0]);
    assert_eq!(names(&b), ["/ls/dev/p/x/0/q"]);
    assert_eq!(roots(&b), ["/ls/dev/p/x/0", "/ls/dev/p/x/1/q"]);
}

#[test]
fn a_directory_on_a_ring_is_created_with_its_parent_and_what_is_below_it_belongs_to_its_cell() {
    let mut a = World::of("a", SPREAD);
    a.session(1, Role::Client);

    a.directory(1, "/ls/dev/p/x/2");

    let outcome = a.write(own(1), create("/ls/dev/p/x/0/f", NodeKind::File));
    assert_failed(&outcome, &ErrorCode::WrongCell { map_version: 1 }, "belongs to cell b");
    a.file(1, "/ls/dev/p/x/1/f");
}

#[test]
fn a_ring_at_the_root_takes_the_systems_files_to_where_it_says() {
    let rules = &[("/ls/dev", "a"), ("/ls/dev/*", "b")];
    let (a, b) = (World::of("a", rules), World::of("b", rules));

    assert_eq!(names(&a), ["/ls/dev", "/ls/dev/.hasp", "/ls/dev/acl"]);
    assert_eq!(names(&b), ["/ls/dev/.hasp/partitions", "/ls/dev/acl/admin", "/ls/dev/acl/everyone"]);
    assert_eq!(roots(&b), ["/ls/dev/.hasp", "/ls/dev/acl"]);
    let denied = b.state.check_access(&name("/ls/dev/.hasp"), Who::alone("alice"), Access::Write);
    let denied = denied.expect_err("of its root record too").into_error();
    assert_eq!(denied.code, ErrorCode::PermissionDenied);
}

#[test]
fn a_directory_whose_directories_are_spread_cannot_be_deleted() {
    let mut a = World::of("a", &[("/ls/dev", "a"), ("/ls/dev/p/x/*", "a b")]);
    a.session(1, Role::Client);
    a.directory(1, "/ls/dev/p/x/0");

    let holder = a.handle("/ls/dev/p/x", 1);
    assert_failed(&a.write(own(1), Write::Delete { holder }), &ErrorCode::NotEmpty, "has a rule for");

    let holder = a.handle("/ls/dev/p/x/0", 1);
    let outcome = a.write(own(1), Write::Delete { holder });
    assert!(matches!(outcome, Outcome::Needs(_)), "that is for the other cell to say: {outcome:?}");
}

#[test]
fn a_child_is_created_under_a_root_record_and_inherits_its_acl_names() {
    let mut b = World::of("b", SPLIT);
    b.session(1, Role::Client);

    b.file(1, "/ls/dev/p/x/f");

    assert_eq!(*b.node("/ls/dev/p/x/f").acls, hasp_proto::node::AclNames::default());
    let children: Vec<&str> = b.state.children(&name("/ls/dev/p/x")).map(|(name, _)| name.as_str()).collect();
    assert_eq!(children, ["/ls/dev/p/x/f", "/ls/dev/p/x/q"]);
}

#[test]
fn names_of_other_cells_and_namespaces_are_refused() {
    let mut b = World::of("b", SPLIT);
    b.session(1, Role::Client);
    let wrong = ErrorCode::WrongCell { map_version: 1 };

    let check_code = |b: &mut World, text: &str, code: &ErrorCode, detail: &str| {
        let outcome = b.write(own(1), create(text, NodeKind::File));
        assert_failed(&outcome, code, detail);
        let holder = b.handle(text, 1);
        assert_failed(&b.write(own(1), set(holder, "x")), code, detail);
    };
    let check = |b: &mut World, text: &str, detail: &str| check_code(b, text, &wrong, detail);
    check(&mut b, "/ls/dev/f", "belongs to cell a");
    check(&mut b, "/ls/dev/p/x", "belongs to cell a");
    check(&mut b, "/ls/dev/p/x/q/y/f", "belongs to cell a");
    check_code(&mut b, "/ls/prod/f", &ErrorCode::NotFound, "this cell serves the namespace dev");
}

#[test]
fn a_directory_with_a_rule_cannot_be_deleted_and_its_neighbour_can() {
    let mut a = World::of("a", SPLIT);
    a.session(1, Role::Client);
    a.directory(1, "/ls/dev/p/y");

    for text in ["/ls/dev", "/ls/dev/p/x"] {
        let holder = a.handle(text, 1);
        assert_failed(&a.write(own(1), Write::Delete { holder }), &ErrorCode::NotEmpty, "has a rule for");
    }

    let holder = a.handle("/ls/dev/p/y", 1);
    assert_eq!(a.write(own(1), Write::Delete { holder }), Outcome::Deleted);
}
