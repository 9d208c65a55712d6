//! What `hasp` says and how it exits when nothing of a service is there.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::time::{Duration, Instant};

use assert_cmd::Command;

fn hasp() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hasp"));
    command.env_remove("HASP_CONNECT").env_remove("HASP_PRINCIPAL").timeout(Duration::from_secs(30));
    command
}

/// Runs `hasp`, checks its exit code and that stdout is empty; gives stderr.
fn refused(line: &str, code: i32) -> String {
    let output = hasp().args(line.split_whitespace()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}: {stderr}");
    assert!(output.stdout.is_empty(), "{line}");
    stderr
}

/// An address where nobody listens.
fn nobody() -> String {
    format!("127.0.0.1:{}", hasp_loadtest::ports::free_ports(1).unwrap()[0])
}

#[test]
fn help_and_version_are_there() {
    let more = ["acl --help", "watch --help", "elect --help", "sequencer check --help"];
    let lines = ["--help", "help lock", "put --help", "status --help", "--version", "stat --version"];
    for line in lines.iter().chain(&more) {
        hasp().args(line.split_whitespace()).assert().code(0);
    }
    let help = hasp().arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let words = ["ls", "cat", "put", "stat", "mkdir", "rm", "acl", "watch", "lock", "elect", "sequencer"];
    for word in words.iter().chain(&["status", "partition", "dev", "loadtest", "Exit codes"]) {
        assert!(help.contains(word), "{word} in\n{help}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let lines = [
        "",
        "frobnicate",
        "cat --connect 127.0.0.1:1",
        "cat /ls/dev/f",
        "cat --connect localhost /ls/dev/f",
        "cat --connect 127.0.0.1:1 --timeout soon /ls/dev/f",
        "cat --connect 127.0.0.1:1 --frobnicate /ls/dev/f",
        "put --connect 127.0.0.1:1 --if-generation x /ls/dev/f v",
        "lock --connect 127.0.0.1:1 /ls/dev/f",
        "lock --connect 127.0.0.1:1 --lock-delay 2m /ls/dev/f -- true",
        "cat --connect 127.0.0.1:1 --principal= /ls/dev/f",
        "acl --connect 127.0.0.1:1",
        "acl --connect 127.0.0.1:1 --if-generation 3 /ls/dev/f",
        "watch --connect 127.0.0.1:1 --events contents /ls/dev/f",
        "watch --connect 127.0.0.1:1 --events child-added,child-moved /ls/dev/f",
        "elect --connect 127.0.0.1:1 /ls/dev/f",
        "elect --connect 127.0.0.1:1 --lock-delay 2m --value v /ls/dev/f",
        "sequencer --connect 127.0.0.1:1",
        "sequencer check --connect 127.0.0.1:1",
        "partition --connect 127.0.0.1:1",
        "partition show",
        "partition split --connect 127.0.0.1:1 /ls/dev/jobs",
        "partition split --connect 127.0.0.1:1 --to b /etc",
        "partition move --connect 127.0.0.1:1 --to B /ls/dev/jobs",
        "partition merge --connect 127.0.0.1:1 --to b /ls/dev/jobs",
        "partition rebalance --connect 127.0.0.1:1 --min-gain 0",
        "partition undo --connect 127.0.0.1:1 /ls/dev/jobs",
        "dev --partition /ls/dev/users/*",
        "dev --partition /ls/dev/users/*=a,c",
        "dev --partition /ls/dev/users=a,b",
    ];
    for line in lines {
        assert!(!refused(line, 2).is_empty(), "{line}: says what is wrong");
    }
}

#[test]
fn a_name_beyond_the_grammar_is_wrong_usage() {
    let commands = ["ls", "cat", "put", "stat", "mkdir", "rm", "acl", "watch", "elect --value v"];
    for command in commands {
        let stderr = refused(&format!("{command} --connect 127.0.0.1:1 /etc/passwd"), 2);
        assert!(stderr.starts_with("InvalidName: \"/etc/passwd\": a name begins with /ls/"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    for name in ["/ls", "/ls/dev/", "/ls/dev//f", "/ls/dev/../f", &format!("/ls/dev/{}", "x".repeat(256))] {
        let stderr = refused(&format!("cat --connect 127.0.0.1:1 {name}"), 2);
        assert!(stderr.starts_with("InvalidName: "), "{stderr}");
    }
    let stderr = refused("lock --connect 127.0.0.1:1 nonsense -- true", 2);
    assert!(stderr.starts_with("InvalidName: "), "{stderr}");
}

#[test]
fn contents_over_the_limit_are_refused_before_anything_is_sent() {
    let put = || {
        let mut command = hasp();
        command.args(["put", "--connect", &nobody(), "--timeout", "300ms", "/ls/dev/f"]);
        command
    };

    let at_the_limit = put().write_stdin(vec![b'x'; 256 * 1024]).output().unwrap();
    let over_it = put().write_stdin(vec![b'x'; 256 * 1024 + 1]).output().unwrap();

    assert_eq!(at_the_limit.status.code(), Some(3), "nobody there to take it");
    assert_eq!(over_it.status.code(), Some(1));
    let stderr = String::from_utf8(over_it.stderr).unwrap();
    assert!(stderr.starts_with("TooLarge: "), "{stderr}");
}

#[test]
fn an_unreachable_service_exits_with_3_and_names_the_addresses() {
    let (one, other) = (nobody(), nobody());
    let commands = ["ls /ls/dev", "cat /ls/dev/f", "put /ls/dev/f v", "stat /ls/dev/f", "mkdir /ls/dev/d"];
    let more = ["rm /ls/dev/f", "lock /ls/dev/f -- true", "status", "acl /ls/dev/f", "watch /ls/dev/f"];
    let rest = ["elect /ls/dev/f --value v", "put /ls/dev/f v --hold"];
    for command in commands.iter().chain(&more).chain(&rest) {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let stderr = refused(&format!("{verb} --connect {one},{other} --timeout 300ms {rest}"), 3);
        assert!(stderr.starts_with("Unreachable: "), "{stderr}");
        assert!(stderr.contains(&one) && stderr.contains(&other), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_load_test_that_could_not_end_well_does_not_begin() {
    let stderr = refused("loadtest --report /nowhere/report.html", 1);
    assert!(stderr.contains("write report /nowhere/report.html"), "{stderr}");
    let stderr = refused("loadtest --faults proxy-kill,disk-full", 2);
    assert!(stderr.contains("disk-full") && stderr.contains("master-restart"), "{stderr}");
    let stderr = refused("loadtest --faults proxy-kill --proxies 1", 1);
    assert!(stderr.contains("--proxies 2"), "{stderr}");
    let stderr = refused("loadtest --faults move --cells 1", 1);
    assert!(stderr.contains("--cells 2"), "{stderr}");
    let stderr = refused("loadtest --mode sprint", 2);
    assert!(stderr.contains("sprint") && stderr.contains("hold, churn, capacity"), "{stderr}");
    let stderr = refused("loadtest --sizes 100,200 --clients 300", 2);
    assert!(stderr.contains("cannot be used with"), "{stderr}");
    let stderr = refused("loadtest --sizes 200,100", 1);
    assert!(stderr.contains("each greater than the one before"), "{stderr}");
    let stderr = refused("loadtest --churn-rate 10", 1);
    assert!(stderr.contains("--churn-rate needs --mode churn"), "{stderr}");
    let stderr = refused("loadtest --mode churn --churn-stay 1m", 1);
    assert!(stderr.contains("--duration 120s"), "{stderr}");
}

#[test]
fn text_that_is_no_sequencer_is_invalid_wherever_it_is_checked() {
    for text in ["sesame", "hasp1.", "hasp1.0", "hasp1.GG"] {
        let stderr = refused(&format!("sequencer check --connect {} {text}", nobody()), 1);
        assert!(stderr.starts_with("SequencerInvalid: not a sequencer: "), "{stderr}");
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a real process takes real time")]
fn the_addresses_may_come_from_the_environment_and_are_tried_as_long_as_asked() {
    let start = Instant::now();

    let assert = hasp().args(["cat", "--timeout", "1s", "/ls/dev/f"]).env("HASP_CONNECT", nobody()).assert();

    assert.code(3);
    assert!(start.elapsed() >= Duration::from_secs(1));
}
