//! Files that others read: the cell takes nothing that they could not.

use super::*;

const PROXIES: &str = "/ls/dev/.hasp/proxies";

#[test]
fn a_list_of_proxies_that_cannot_be_read_is_refused_and_the_old_one_stays() {
    let mut world = World::new();
    world.session(1, Role::Client);
    let outcome = world.put(1, PROXIES, "p1:7001\n");
    assert!(matches!(outcome, Outcome::Created { created: true, .. }), "{outcome:?}");

    let refused = world.put(1, PROXIES, "p1:7001\np2\n");
    assert_failed(&refused, &ErrorCode::InvalidArgument, "list of proxies: line 2: \"p2\" is not HOST:PORT");
    let contents = world.state.node(&name(PROXIES)).map(|node| node.contents.clone());
    assert_eq!(contents.as_deref(), Some(&b"p1:7001\n"[..]));

    let taken = world.put(1, PROXIES, "p1:7001\np2:7001\n");
    assert!(!matches!(taken, Outcome::Failed(_)), "{taken:?}");
}
