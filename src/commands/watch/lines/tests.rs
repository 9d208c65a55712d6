//! What is printed, byte for byte: scripts rely on it.

use bytes::Bytes;
use hasp_client::{
    AclNames, CellName, Child, Epoch, ErrorCode, EventKind, Generation, Instance, NodeKind, Stat,
};
use serde_json::{Value, json};

use super::*;

fn name() -> Name {
    Name::parse("/ls/dev/d").unwrap()
}

fn event(kind: EventKind, child: Option<&str>) -> NodeEvent {
    NodeEvent {
        kind,
        name: name(),
        instance: Instance(7),
        child: child.map(str::to_owned),
        to: None,
        position: Position { cell: CellName::new("a"), epoch: Epoch(2), ..Position::default() },
    }
}

fn stat(kind: NodeKind) -> Stat {
    Stat {
        kind,
        instance: Instance(7),
        content_generation: Generation(12),
        lock_generation: Generation(3),
        acl_generation: Generation(1),
        checksum: 0xab,
        length: 1,
        ephemeral: false,
        acls: AclNames::default(),
    }
}

fn text(line: &Line<'_>, seen: Option<&Seen>) -> String {
    String::from_utf8(render(Form::Text, line, &name(), seen).unwrap()).unwrap()
}

fn object(line: &Line<'_>, seen: Option<&Seen>) -> Value {
    let bytes = render(Form::Json, line, &name(), seen).unwrap();
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn an_event_is_a_line_with_the_child_last() {
    let added = event(EventKind::ChildAdded, Some("a b"));
    let written = event(EventKind::ContentsModified, None);

    assert_eq!(text(&Line::happened(&added), None), "child-added /ls/dev/d child=a b\n");
    assert_eq!(text(&Line::happened(&written), None), "contents-modified /ls/dev/d\n");
}

#[test]
fn an_event_as_json_leaves_out_what_it_does_not_have() {
    let position = json!({"cell": "a", "epoch": 2, "index": 0});
    let added = json!({
        "event": "child-added", "name": "/ls/dev/d", "instance": 7, "child": "x", "position": position,
    });
    let written =
        json!({"event": "contents-modified", "name": "/ls/dev/d", "instance": 7, "position": position});

    assert_eq!(object(&Line::happened(&event(EventKind::ChildAdded, Some("x"))), None), added);
    assert_eq!(object(&Line::happened(&event(EventKind::ContentsModified, None)), None), written);
}

#[test]
fn lost_events_and_a_fail_over_say_so() {
    let name = name();
    let check = |cause: LossCause, line: &str, json: Value| {
        assert_eq!(text(&Line::lost(&name, &cause), None), line);
        assert_eq!(object(&Line::lost(&name, &cause), None), json);
    };
    let lost = |cause: &str| json!({"event": "events-lost", "name": "/ls/dev/d", "cause": cause});

    check(LossCause::Slow, "events-lost /ls/dev/d cause=slow\n", lost("slow"));
    check(LossCause::Host, "events-lost /ls/dev/d cause=host\n", lost("host"));
    check(LossCause::NewHost, "events-lost /ls/dev/d cause=new-host\n", lost("new-host"));
    check(
        LossCause::FailOver { cell: CellName::new("a"), epoch: Epoch(4) },
        "fail-over /ls/dev/d cell=a epoch=4\n",
        json!({"event": "fail-over", "name": "/ls/dev/d", "cell": "a", "epoch": 4}),
    );
}

#[test]
fn the_end_says_why_in_json_and_on_stderr_else() {
    let error =
        CallError { code: ErrorCode::SessionExpired, detail: "the session is over".into(), position: None };
    let name = name();

    let line = Line::invalid(&name, &error);

    assert_eq!(text(&line, None), "handle-invalid /ls/dev/d\n");
    assert_eq!(object(&line, None)["why"], "SessionExpired: the session is over");
}

#[test]
fn the_state_of_a_file_follows_its_line_and_ends_with_a_line_feed() {
    let file = |contents: &'static str| {
        let contents = Bytes::from_static(contents.as_bytes());
        Seen::Contents(ContentsAndStat { contents, stat: stat(NodeKind::File), position: None })
    };
    let event = event(EventKind::ContentsModified, None);
    let line = Line::happened(&event);

    assert_eq!(text(&line, Some(&file("x"))), "contents-modified /ls/dev/d\nx\n");
    assert_eq!(text(&line, Some(&file("x\n"))), "contents-modified /ls/dev/d\nx\n");
    assert_eq!(text(&line, Some(&file(""))), "contents-modified /ls/dev/d\n");
    let shown = object(&line, Some(&file("x\ny")));
    assert_eq!((&shown["event"], &shown["file"]["contents"]), (&json!("contents-modified"), &json!("x\ny")));
    assert_eq!(shown["file"]["stat"]["content_generation"], 12);
}

#[test]
fn the_state_of_a_directory_is_its_children() {
    let child = Child { component: "x".into(), stat: stat(NodeKind::Directory) };
    let seen = Seen::Children(Children { children: vec![child], position: None });
    let event = event(EventKind::ChildAdded, Some("x"));
    let line = Line::happened(&event);

    assert_eq!(text(&line, Some(&seen)), "child-added /ls/dev/d child=x\nx/\n");
    assert_eq!(object(&line, Some(&seen))["directory"]["children"][0]["component"], "x");
}
