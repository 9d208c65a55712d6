//! `route-1`, `route-3`: what a cell's first entry plants.

use super::*;

/// `/ls/dev` is `a`'s, what is below `/ls/dev/p/x` is `b`'s, below `/ls/dev/p/x/q/y` `a`'s again.
const SPLIT: &[(&str, &str)] = &[("/ls/dev", "a"), ("/ls/dev/p/x", "b"), ("/ls/dev/p/x/q/y", "a")];

fn names(world: &World) -> Vec<&str> {
    world.state.tree.iter().map(|(name, _)| name.as_str()).collect()
}

fn roots(world: &World) -> Vec<&str> {
    world.state.tree.roots().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn each_cell_plants_the_directories_it_owns_and_the_roots_of_the_children_it_owns() {
    let (a, b) = (World::of("a", SPLIT), World::of("b", SPLIT));

    let system = ["/ls/dev/.hasp", "/ls/dev/acl"];
    let acls = ["/ls/dev/acl/admin", "/ls/dev/acl/everyone"];
    assert_eq!(names(&a), [&["/ls/dev"], &system[..], &["/ls/dev/p"], &acls, &["/ls/dev/p/x"]].concat());
    assert_eq!(roots(&a), ["/ls/dev/p/x/q/y"]);
    assert_eq!(names(&b), ["/ls/dev/p/x/q", "/ls/dev/p/x/q/y"]);
    assert_eq!(roots(&b), ["/ls/dev/p/x"]);
}

#[test]
fn the_systems_own_nodes_are_readable_by_all_and_to_be_changed_by_admin_only() {
    let a = World::of("a", SPLIT);

    for text in ["/ls/dev/.hasp", "/ls/dev/acl", "/ls/dev/acl/admin", "/ls/dev/acl/everyone"] {
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

    assert_eq!(names(&a), ["/ls/dev", "/ls/dev/.hasp", "/ls/dev/acl"]);
    assert_eq!(names(&b), ["/ls/dev/acl/admin", "/ls/dev/acl/everyone"]);
    assert_eq!(*a.node("/ls/dev/acl").acls, acls("everyone", "admin", "admin"));
    let denied = b.state.check_access(&name("/ls/dev/acl"), "alice", Access::Write);
    assert_eq!(denied.expect_err("of its root record too").code, ErrorCode::PermissionDenied);
    assert_eq!(b.state.check_access(&name("/ls/dev/acl"), "admin", Access::Write), Ok(()));
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

    let check = |b: &mut World, text: &str, detail: &str| {
        let outcome = b.write(own(1), create(text, NodeKind::File));
        assert_failed(&outcome, &wrong, detail);
        let holder = b.handle(text, 1);
        assert_failed(&b.write(own(1), set(holder, "x")), &wrong, detail);
    };
    check(&mut b, "/ls/dev/f", "belongs to cell a");
    check(&mut b, "/ls/dev/p/x", "belongs to cell a");
    check(&mut b, "/ls/dev/p/x/q/y/f", "belongs to cell a");
    check(&mut b, "/ls/prod/f", "not in namespace dev");
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
