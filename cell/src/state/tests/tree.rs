//! P-TREE, generations and instance numbers, and what writes refuse.

use hasp_proto::limits::CONTENTS_BYTES_MAX;
use hasp_proto::node::AclNames;

use super::*;

fn world() -> World {
    let mut world = World::new();
    world.session(1, Role::Client);
    world
}

#[test]
fn a_node_needs_a_parent_directory() {
    let mut world = world();
    world.file(1, FILE);

    let orphan = world.write(own(1), create("/ls/dev/d/f", NodeKind::File));
    let below_file = world.write(own(1), create("/ls/dev/f/g", NodeKind::File));

    assert_failed(&orphan, &ErrorCode::NotFound, "parent directory");
    assert_failed(&below_file, &ErrorCode::NotADirectory, "is a file");
    world.directory(1, "/ls/dev/d");
    world.file(1, "/ls/dev/d/f");
}

#[test]
fn create_finds_an_existing_node_unless_it_must_create() {
    let mut world = world();
    let instance = world.file(1, FILE);

    let must = world.write(own(1), create(FILE, NodeKind::File));
    let may = world.write(own(1), create_with(FILE, NodeKind::File, |create| create.must = false));

    assert_failed(&must, &ErrorCode::AlreadyExists, FILE);
    let stat = Box::new(world.node(FILE).stat());
    assert_eq!(stat.instance, instance);
    assert_eq!(may, Outcome::Created { created: false, stat });
}

#[test]
fn contents_have_a_limit_and_directories_none() {
    let mut world = world();
    world.directory(1, "/ls/dev/d");
    let largest = Bytes::from(vec![1; CONTENTS_BYTES_MAX]);
    let larger = Bytes::from(vec![1; CONTENTS_BYTES_MAX + 1]);

    let refused =
        world.write(own(1), create_with(FILE, NodeKind::File, |create| create.contents = larger.clone()));
    assert_failed(&refused, &ErrorCode::TooLarge, "262145");
    created(
        &world.write(own(1), create_with(FILE, NodeKind::File, |create| create.contents = largest.clone())),
    );

    let holder = world.handle(FILE, 1);
    let write = |contents| Write::SetContents { holder: holder.clone(), contents, if_generation: None };
    assert_failed(&world.write(own(1), write(larger)), &ErrorCode::TooLarge, "262145");
    assert!(matches!(world.write(own(1), write(largest)), Outcome::Written { .. }));

    let directory = world.handle("/ls/dev/d", 1);
    assert_failed(&world.write(own(1), set(directory, "x")), &ErrorCode::InvalidArgument, "is a directory");
    let full = create_with(FILE, NodeKind::File, |create| {
        (create.kind, create.contents) = (NodeKind::Directory, Bytes::from_static(b"x"));
    });
    assert_failed(&world.write(own(1), full), &ErrorCode::InvalidArgument, "no contents");
}

#[test]
fn compare_and_swap_writes_only_on_the_current_generation() {
    let mut world = world();
    let instance = world.file(1, FILE);
    let holder = world.handle(FILE, 1);
    let swap = |generation| Write::SetContents {
        holder: holder.clone(),
        contents: Bytes::from_static(b"new"),
        if_generation: Some(Generation(generation)),
    };

    let outcome = world.write(own(1), swap(instance.0));
    let again = world.write(own(1), swap(instance.0));

    let Outcome::Written { content_generation, previous_generation } = outcome else { panic!("{outcome:?}") };
    assert_eq!(previous_generation, Generation(instance.0));
    assert!(content_generation > previous_generation);
    let detail = format!("is {content_generation}, not {instance}");
    assert_failed(&again, &ErrorCode::GenerationMismatch, &detail);
    assert_eq!(world.node(FILE).contents, "new");
    assert_eq!(world.node(FILE).stat().length, 3);
    assert_eq!(world.node(FILE).checksum, hasp_proto::node::checksum(b"new"));
}

#[test]
fn only_a_directory_without_children_is_deleted() {
    let mut world = world();
    world.directory(1, "/ls/dev/d");
    world.file(1, "/ls/dev/d/f");
    // A neighbour that sorts between the directory and its children byte by byte.
    world.directory(1, "/ls/dev/d-");
    world.file(1, "/ls/dev/d-/f");

    let holder = world.handle("/ls/dev/d", 1);
    let full = world.write(own(1), Write::Delete { holder: holder.clone() });
    let child = world.handle("/ls/dev/d/f", 1);
    assert_eq!(world.write(own(1), Write::Delete { holder: child }), Outcome::Deleted);
    let empty = world.write(own(1), Write::Delete { holder });

    assert_failed(&full, &ErrorCode::NotEmpty, "has children");
    assert_eq!(empty, Outcome::Deleted);
}

#[test]
fn children_are_listed_by_component_and_only_children() {
    let mut world = world();
    for directory in ["/ls/dev/d", "/ls/dev/d-", "/ls/dev/d/sub"] {
        world.directory(1, directory);
    }
    for file in ["/ls/dev/d/b", "/ls/dev/d/ ", "/ls/dev/d/a", "/ls/dev/d-/x", "/ls/dev/d/sub/y"] {
        world.file(1, file);
    }

    let children = |directory: &str| -> Vec<String> {
        world.state.children(&name(directory)).map(|(name, _)| name.component().to_owned()).collect()
    };

    assert_eq!(children("/ls/dev/d"), [" ", "a", "b", "sub"]);
    assert_eq!(children("/ls/dev/d-"), ["x"]);
    assert_eq!(children("/ls/dev/d/a"), Vec::<String>::new());
    assert_eq!(children("/ls/dev"), [".hasp", "acl", "d", "d-"]);
    let deepest = format!("/ls/dev/{}", vec!["x"; 61].join("/"));
    assert!(!world.state.has_children(&name(&deepest)), "and a name too deep to have any has none");
}

#[test]
fn acl_names_are_inherited_unless_given() {
    let mut world = world();
    let acls = acls("r", "everyone", "c");

    let given = create_with("/ls/dev/d", NodeKind::Directory, |create| create.acls = Some(acls.clone()));
    world.write(own(1), given);
    world.file(1, "/ls/dev/d/f");
    world.file(1, FILE);

    assert_eq!(*world.node("/ls/dev/d/f").acls, acls);
    assert_eq!(*world.node(FILE).acls, AclNames::default());
}

#[test]
fn a_handle_of_an_earlier_instance_is_stale_for_everything_but_close() {
    let mut world = world();
    let first = world.file(1, FILE);
    let holder = world.handle(FILE, 1);
    world.write(own(1), Write::Delete { holder: holder.clone() });
    let uses = || {
        let holder = holder.clone();
        [
            set(holder.clone(), "x"),
            Write::Delete { holder: holder.clone() },
            Write::Acquire { holder: holder.clone(), mode: LockMode::Exclusive },
            Write::Release { holder },
        ]
    };

    for write in uses() {
        assert_failed(&world.write(own(1), write), &ErrorCode::StaleHandle, "is gone");
    }
    let second = world.file(1, FILE);
    for write in uses() {
        assert_failed(&world.write(own(1), write), &ErrorCode::StaleHandle, "is gone");
    }

    assert!(second > first);
    assert_eq!(world.write(own(1), Write::CloseHandle { holder }), Outcome::Closed);
    assert_eq!(world.node(FILE).contents, "");
}

#[test]
fn no_number_is_used_again_for_a_name_that_is_deleted_and_created_again() {
    let mut world = world();
    world.file(1, FILE);
    let holder = world.handle(FILE, 1);
    world.write(own(1), set(holder.clone(), "x"));
    assert_acquired(&world.acquire(own(1), FILE, 1, LockMode::Exclusive));
    let node = world.node(FILE);
    let highest = node.content_generation.max(node.lock_generation);

    world.write(own(1), Write::Delete { holder });
    let instance = world.file(1, FILE);

    assert!(instance.0 > highest.0);
    let node = world.node(FILE);
    assert_eq!(
        [node.content_generation, node.lock_generation, node.acl_generation],
        [Generation(instance.0); 3],
        "all begin with the instance number"
    );
}

#[test]
fn a_name_relative_to_a_directory_needs_that_very_directory() {
    let mut world = world();
    let instance = world.directory(1, "/ls/dev/d");
    let below = |world: &mut World, text: &str, base: &str, instance| {
        let relative_to = Some((name(base), instance));
        world.write(own(1), create_with(text, NodeKind::File, |create| create.relative_to = relative_to))
    };

    created(&below(&mut world, "/ls/dev/d/f", "/ls/dev/d", instance));
    let other = below(&mut world, "/ls/dev/d/g", "/ls/dev/d", Instance(instance.0 + 1));
    assert_failed(&other, &ErrorCode::StaleHandle, "directory");
    let gone = below(&mut world, "/ls/dev/e/f", "/ls/dev/e", instance);
    assert_failed(&gone, &ErrorCode::StaleHandle, "of /ls/dev/e is gone");
    created(&below(&mut world, "/ls/dev/d/h", "/ls/prod/d", instance));
}
