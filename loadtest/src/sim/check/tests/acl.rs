//! Of `acl`.

use hasp_client::HandleEvent;
use hasp_proto::error::ErrorCode;
use hasp_proto::event::{EventKind, EventMask, NodeEvent};
use hasp_proto::handle::HandleToken;

use super::*;
use crate::sim::history::{Heard, Watch};

/// What only the checker of rights finds: what was written here nobody has asked for.
fn found(history: History, calls: Vec<Asked>) -> Vec<String> {
    found_by(crate::sim::check::acl::check, history, calls)
}

const GUARDED: &str = "/ls/dev/g0";
const ACL: &str = "/ls/dev/acl/a0";
const DIRECTORY: &str = "/ls/dev/r/g0";
const CHILD: &str = "/ls/dev/r/g0/c0";

/// What was committed of these names in the cell that holds the ACL files.
fn of_home(versions: impl IntoIterator<Item = (&'static str, Vec<Version>)>) -> History {
    let mut history = history_of(versions);
    history.truths.values_mut().for_each(|truth| truth.state = super::states::state(&[]));
    history
}

/// A node whose readers and writers are in the ACL `a0` from 5 on, written again at 40; `a0` lists `user1` from 10 to 20
/// and from 30 on.
fn history() -> History {
    let acls = AclNames { read: "a0".into(), write: "a0".into(), change: "everyone".into() };
    let node = |index, contents| {
        let mut version = version(index, contents);
        version.node.as_mut().unwrap().0.acls = acls.clone();
        version
    };
    let file = vec![version(10, "user1\n# x"), version(20, "# y"), version(30, "user2\nuser1\n# z")];
    of_home([(GUARDED, vec![node(5, "a"), node(40, "b")]), (ACL, file)])
}

/// `user1` reads, between these moments, as of that index.
fn reads(times: (u64, u64), index: u64) -> Asked {
    let mut read = read(1, times, index, 5, "a");
    read.name = name(GUARDED);
    let node = history().truths[&CellName::new("a")].node_at(&name(GUARDED), index).cloned().unwrap();
    read.told.as_mut().unwrap().result = Ok(Reply::Contents { contents: node.1, stat: node.0 });
    read
}

fn refused(times: (u64, u64), index: u64) -> Asked {
    let mut call = reads(times, index);
    call.told.as_mut().unwrap().result = Err(ErrorCode::PermissionDenied);
    call
}

/// `admin` writes the file, acknowledged at that moment.
fn revokes(times: (u64, u64)) -> Asked {
    let mut write = write(0, times, 20, "# y");
    write.name = name(ACL);
    write
}

#[test]
fn what_the_acl_allows_at_its_position_is_right_and_nothing_else() {
    assert_eq!(found(history(), vec![reads((12, 14), 15), reads((31, 32), 31)]), Vec::<String>::new());

    finds(history(), vec![reads((22, 24), 25)], "was not allowed there");
}

#[test]
fn a_read_that_begins_after_the_revocation_was_acknowledged_is_seen_whatever_its_position_says() {
    let revoked = || revokes((18, 22));

    assert_eq!(found(history(), vec![revoked(), reads((21, 25), 19)]), Vec::<String>::new(), "it had begun");

    finds(history(), vec![revoked(), reads((23, 25), 19)], "not allowed at any time since index 20");
}

#[test]
fn a_right_that_came_back_meanwhile_may_be_used() {
    assert_eq!(found(history(), vec![revokes((18, 22)), reads((23, 35), 30)]), Vec::<String>::new());
}

#[test]
fn a_change_is_judged_by_what_was_so_before_it() {
    let writes = |index| {
        let mut write = write(1, (index - 1, index), index, "b");
        write.name = name(GUARDED);
        write
    };
    assert_eq!(found(history(), vec![writes(20)]), Vec::<String>::new());

    finds(history(), vec![writes(21)], "P-ACL: Write");
}

#[test]
fn a_refusal_of_what_is_allowed_is_seen() {
    assert_eq!(found(history(), vec![refused((22, 24), 25)]), Vec::<String>::new());

    finds(history(), vec![refused((12, 14), 15)], "was refused at index 15, where it was allowed");
}

#[test]
fn who_is_told_of_a_node_that_he_may_not_read_is_seen() {
    let told = |client| {
        let mut history = history();
        let watch = Watch {
            client,
            life: 1,
            name: name(GUARDED),
            instance: Instance(1),
            told: EventMask::ALL,
            opened: Moment(1),
            position: at(6),
            is_exact: false,
            ended: None,
        };
        let event = NodeEvent {
            kind: EventKind::ContentsModified,
            name: name(GUARDED),
            instance: Instance(1),
            child: None,
            to: None,
            position: at(40),
        };
        history.watches.push(watch);
        history.heard.push(Heard { watch: 0, at: Moment(41), event: HandleEvent::Happened(event) });
        history
    };

    assert_eq!(found(told(1), Vec::new()), Vec::<String>::new());

    finds(told(0), Vec::new(), "P-ACL: c1 as admin was told");
}

/// A directory in which everybody may write from 5 on, and `admin` alone from 20 on.
fn directory() -> History {
    let named = |index, write: &str| {
        let mut version = version(index, "");
        let (stat, _) = version.node.as_mut().unwrap();
        stat.acls = AclNames { read: "everyone".into(), write: write.into(), change: "everyone".into() };
        stat.acl_generation = Generation(index);
        version
    };
    of_home([(DIRECTORY, vec![named(5, "everyone"), named(20, "admin")])])
}

#[test]
fn names_of_a_directory_count_below_it_until_later_ones_are_acknowledged() {
    let creates = |times| {
        let handle = HandleToken::new(Bytes::new());
        let opened = Reply::Opened { handle, created: true, stat: stat(7) };
        let what = What::Create(Bytes::from_static(b"x"));
        Asked { name: name(CHILD), ..asked(1, what, times, 7, opened) }
    };
    let sets = |times| {
        let set = Reply::AclSet { acl_generation: Generation(20) };
        Asked { name: name(DIRECTORY), ..asked(0, What::SetAcl(AclNames::default()), times, 20, set) }
    };
    let found = |calls| found(directory(), calls);
    assert_eq!(found(vec![sets((18, 24)), creates((22, 25))]), Vec::<String>::new());
    assert_eq!(found(vec![creates((26, 27))]), Vec::<String>::new(), "nobody knows of it");

    let broken = found(vec![sets((18, 24)), creates((26, 27))]);

    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(broken[0].contains("allowed by no names"), "{broken:?}");
}
