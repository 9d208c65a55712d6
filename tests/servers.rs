//! Servers that cannot start say what is wrong, and where, and leave with exit code 2; those that can
//! stop when they are told.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real files and ports are the point")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use assert_cmd::Command;
use hasp_loadtest::ports::free_ports;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

/// To say `ready`, or to leave, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn cell_file(dir: &Path, cell: &str, id: u64, listen: &str, replicas: usize) -> String {
    let addresses = vec![format!("\"{listen}\""); replicas].join(", ");
    format!(
        "cell = \"{cell}\"\nid = {id}\nlisten = \"{listen}\"\ndir = \"{}\"\nnamespace = \"dev\"\n\n\
         [[rules]]\nprefix = \"/ls/dev\"\ncell = \"{cell}\"\n\n[cells]\n{cell} = [{addresses}]\n",
        dir.join("data").display()
    )
}

fn check(command: &str, dir: &Path, text: &str, messages: &[&str]) {
    let file = dir.join("server.toml");
    fs::write(&file, text).expect("writes");
    let output = Command::cargo_bin("hasp")
        .expect("built")
        .args([command, "--config"])
        .arg(&file)
        .timeout(DEADLINE)
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    for message in messages {
        assert!(told.contains(message), "{message:?} is not in {told:?}");
    }
}

#[test]
fn an_unknown_field_is_told_with_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = cell_file(dir.path(), "a", 1, "127.0.0.1:7999", 1).replace("listen =", "lisen =");

    check("cell", dir.path(), &text, &["server.toml, line 3", "unknown field `lisen`"]);
}

#[test]
fn a_missing_file_is_told_by_name() {
    let output = Command::cargo_bin("hasp")
        .expect("built")
        .args(["cell", "--config", "no-such-file.toml"])
        .output()
        .expect("runs");

    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-file.toml"));
}

/// An address where nobody listens just now.
fn free() -> String {
    format!("127.0.0.1:{}", free_ports(1).expect("there are many")[0])
}

fn host_file(listen: &str, cell: &str) -> String {
    format!(
        "listen = \"{listen}\"\nnamespace = \"dev\"\n\n[[rules]]\nprefix = \"/ls/dev\"\ncell = \"a\"\n\n\
         [cells]\na = [\"{cell}\"]\n"
    )
}

#[test]
fn a_port_in_use_is_told_with_the_address() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();

    check("cell", dir.path(), &cell_file(dir.path(), "a", 1, &address, 1), &[&address, "in use"]);
    let proxy = host_file(&address, "127.0.0.1:7999");
    check("proxy", dir.path(), &proxy, &[&address, "in use"]);
    check("router", dir.path(), &proxy, &[&address, "in use"]);
}

#[test]
fn the_data_directory_of_another_replica_is_refused_by_both_names() {
    let dir = tempfile::tempdir().expect("a directory");
    // A cell of one founds itself and writes down who it is.
    let file = dir.path().join("first.toml");
    fs::write(&file, cell_file(dir.path(), "a", 1, &free(), 1)).expect("writes");
    let mut first = std::process::Command::new(assert_cmd::cargo::cargo_bin("hasp"))
        .args(["cell", "--config"])
        .arg(&file)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    let stdout = first.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("reads");
    assert!(line.starts_with("ready connect=127.0.0.1:"), "{line:?}");
    first.kill().expect("is killed");
    first.wait().expect("ends");

    let other_id = cell_file(dir.path(), "a", 2, &free(), 2);
    check("cell", dir.path(), &other_id, &["replica 1", "replica 2"]);
    let other_cell = cell_file(dir.path(), "b", 1, &free(), 1);
    check("cell", dir.path(), &other_cell, &["cell \"a\"", "cell \"b\""]);
}

#[test]
fn a_replica_that_its_cell_does_not_list_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");

    check("cell", dir.path(), &cell_file(dir.path(), "a", 4, "127.0.0.1:7999", 3), &["replica 4", "lists 3"]);
}

/// Starts a server, with `stdin` and options besides its file, and waits until it serves.
async fn ready(
    command: &str,
    dir: &Path,
    text: &str,
    options: &[&str],
    stdin: Stdio,
) -> tokio::process::Child {
    let file = dir.join(format!("{command}.toml"));
    fs::write(&file, text).expect("writes");
    let mut server = tokio::process::Command::new(env!("CARGO_BIN_EXE_hasp"))
        .args([command, "--config"])
        .arg(&file)
        .args(options)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    let line = timeout(DEADLINE, lines.next_line()).await.expect("serves in time").expect("reads");
    assert!(line.as_ref().is_some_and(|line| line.starts_with("ready connect=")), "{line:?}");
    server
}

#[tokio::test]
async fn a_server_that_is_to_exit_with_its_input_stops_cleanly_when_that_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let (address, with_stdin) = (free(), ["--exit-with-stdin"]);
    let cell = cell_file(dir.path(), "a", 1, &address, 1);
    let host = host_file("127.0.0.1:0", &address);
    let cell = ready("cell", dir.path(), &cell, &with_stdin, Stdio::piped()).await;
    let proxy = ready("proxy", dir.path(), &host, &with_stdin, Stdio::piped()).await;
    let router = ready("router", dir.path(), &host, &with_stdin, Stdio::piped()).await;

    for mut server in [router, proxy, cell] {
        drop(server.stdin.take().expect("piped"));
        let status = timeout(DEADLINE, server.wait()).await.expect("stops in time").expect("is waited for");
        assert_eq!(status.code(), Some(0));
    }
}

#[tokio::test]
async fn a_server_that_nobody_told_so_serves_without_an_input() {
    let dir = tempfile::tempdir().expect("a directory");
    let cell = cell_file(dir.path(), "a", 1, &free(), 1);

    let mut server = ready("cell", dir.path(), &cell, &[], Stdio::null()).await;

    assert_eq!(server.try_wait().expect("is looked at"), None);
    server.kill().await.expect("is killed");
}

#[tokio::test]
async fn a_server_says_in_its_log_that_principals_are_not_proven() {
    let dir = tempfile::tempdir().expect("a directory");
    let address = free();
    let cell = cell_file(dir.path(), "a", 1, &address, 1);
    let host = host_file("127.0.0.1:0", &address);

    for (command, text) in [("cell", &cell), ("proxy", &host), ("router", &host)] {
        let file = dir.path().join(format!("{command}.toml"));
        fs::write(&file, text).expect("writes");
        let mut server = tokio::process::Command::new(env!("CARGO_BIN_EXE_hasp"))
            .args([command, "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(server.stderr.take().expect("piped")).lines();
        let warned = async {
            loop {
                let line = lines.next_line().await.expect("reads").expect("a warning before the end");
                if line.contains("WARN") && line.contains("principals are declared, not proven") {
                    return;
                }
            }
        };
        timeout(DEADLINE, warned).await.expect("warns in time");
        server.kill().await.expect("is killed");
    }
}
