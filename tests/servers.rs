//! Servers that cannot start say what is wrong, and where, and leave with exit code 2.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real files and ports are the point")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use assert_cmd::Command;

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
        .timeout(std::time::Duration::from_secs(60))
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

#[test]
fn a_port_in_use_is_told_with_the_address() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();

    check("cell", dir.path(), &cell_file(dir.path(), "a", 1, &address, 1), &[&address, "in use"]);
    let proxy = format!(
        "listen = \"{address}\"\nnamespace = \"dev\"\n\n[[rules]]\nprefix = \"/ls/dev\"\ncell = \"a\"\n\n\
         [cells]\na = [\"127.0.0.1:7999\"]\n"
    );
    check("proxy", dir.path(), &proxy, &[&address, "in use"]);
    check("router", dir.path(), &proxy, &[&address, "in use"]);
}

#[test]
fn the_data_directory_of_another_replica_is_refused_by_both_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound").to_string()
    };
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
