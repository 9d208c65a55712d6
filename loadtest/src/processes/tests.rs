use super::*;

const SOON: Duration = Duration::from_secs(20);

fn shell(directory: &Path) -> (Processes, Ended) {
    let env = Env::system().expect("a world");
    Processes::new(env, "/bin/sh".into(), directory.to_owned())
}

fn script(text: &str) -> Spec {
    Spec::new("child", ["-c", text])
}

#[tokio::test]
async fn a_child_is_listened_to_and_spoken_to_and_stops_when_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let (processes, _ended) = shell(directory.path());
    let text = "trap 'exit 0' TERM; echo ready; read word; echo heard $word; while :; do sleep 0.01; done";
    let mut child = processes.start(&script(text)).expect("starts");

    assert_eq!(child.line(SOON).await.expect("a line"), "ready");
    child.tell("this").await.expect("told");
    assert_eq!(child.line(SOON).await.expect("a line"), "heard this");

    stop_all([&mut child]).await.expect("clean");
    assert!(!child.is_running());
}

#[tokio::test]
async fn the_end_of_a_child_that_nobody_asked_for_is_reported_with_its_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let (processes, mut ended) = shell(directory.path());
    let mut child = processes.start(&script("echo no such disk >&2; read go; exit 3")).expect("starts");
    child.must_run().expect("it waits");

    child.tell("go").await.expect("told");
    let why = ended.unasked().await.to_string();

    assert!(why.contains("child ended by itself") && why.contains("no such disk"), "{why}");
    assert_eq!(child.exited(SOON).await.and_then(|status| status.code()), Some(3));
    let silent = child.line(SOON).await.expect_err("it is gone").to_string();
    assert!(silent.contains("no such disk"), "{silent}");
}

#[tokio::test]
async fn a_paused_child_says_nothing_until_it_is_resumed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (processes, _ended) = shell(directory.path());
    let mut child =
        processes.start(&script("echo up; while read word; do echo $word; done")).expect("starts");
    child.line(SOON).await.expect("a line");

    child.pause();
    // Signals are carried out in order, by a task: this one shows that the first was.
    let is_stopped = || process_state(child.pid()) == Some('T');
    while !is_stopped() {
        tokio::task::yield_now().await;
    }
    child.tell("hello").await.expect("told");
    assert!(child.line(Duration::from_millis(100)).await.is_err(), "it is paused");

    child.resume();
    assert_eq!(child.line(SOON).await.expect("a line"), "hello");
}

/// As in `/proc/<pid>/stat`.
fn process_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[tokio::test]
async fn a_killed_child_is_gone_and_no_surprise() {
    let directory = tempfile::tempdir().expect("a directory");
    let (processes, mut ended) = shell(directory.path());
    let mut child =
        processes.start(&script("trap '' TERM; echo up; while :; do sleep 0.01; done")).expect("starts");
    child.line(SOON).await.expect("a line");
    child.must_run().expect("it does");

    child.kill().await.expect("gone");

    assert!(!child.is_running());
    assert!(ended.ended.try_recv().is_err());
}
