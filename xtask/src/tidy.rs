//! What no compiler checks: pure code stays pure, crates keep to their edges, files stay readable.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// Sources that decide protocol rules. They know no clock, runtime, socket, chance or hash order.
const PURE: [&str; 12] = [
    "proto/src/",
    "cell/src/state",
    "cell/src/master",
    "router/src/upstream",
    "router/src/relay",
    "router/src/ring",
    "client/src/core",
    "client/src/fence/ledger",
    "loadtest/src/workload",
    "loadtest/src/check",
    "loadtest/src/options",
    "loadtest/tests/history",
];

/// What must not be named there, and why.
const IMPURE: [(&str, &str); 13] = [
    ("tokio::", "pure code knows no async runtime"),
    ("async fn", "pure code does not wait"),
    (".await", "pure code does not wait"),
    ("Instant::now", "time is handed in"),
    ("SystemTime", "time is handed in"),
    ("std::net", "pure code knows no sockets"),
    ("std::fs", "pure code knows no files"),
    ("std::thread", "pure code knows no threads"),
    ("rand::", "chance is handed in"),
    ("HashMap", "hash order must not decide anything: use an ordered map"),
    ("HashSet", "hash order must not decide anything: use an ordered set"),
    ("static mut", "no global state"),
    ("std::env::", "no environment"),
];

/// Lines of pure files that may be impure: a part of the path, and a part of the line.
const PURE_EXCEPTIONS: [(&str, &str); 4] = [
    ("proto/src/pair.rs", "std::fs"),
    ("proto/src/pair.rs", "std::env::"),
    ("loadtest/src/workload.rs", "hasp_rt::rng"),
    ("loadtest/src/workload.rs", "rand::"),
];

/// Which crates of ours a crate may depend on (outside tests).
const EDGES: [(&str, &[&str]); 10] = [
    ("hasp-proto", &[]),
    ("hasp-rt", &["hasp-proto"]),
    ("hasp-cell", &["hasp-proto", "hasp-rt"]),
    ("hasp-router", &["hasp-proto", "hasp-rt"]),
    ("hasp-client", &["hasp-proto", "hasp-rt", "hasp-router"]),
    ("hasp-proxy", &["hasp-proto", "hasp-rt", "hasp-router"]),
    ("hasp-loadtest", &["hasp-proto", "hasp-rt", "hasp-cell", "hasp-router", "hasp-client", "hasp-proxy"]),
    (
        "hasp",
        &["hasp-proto", "hasp-rt", "hasp-cell", "hasp-router", "hasp-client", "hasp-proxy", "hasp-loadtest"],
    ),
    ("xtask", &[]),
    ("hasp-fuzz", &["hasp-proto", "hasp-cell"]),
];

/// Documents that name files and tests as witnesses of what they say.
const WITNESSES: [&str; 2] = ["docs/CHUBBY.md", "docs/PROTOCOL.md"];

/// A file longer than this is more than one idea.
const LINES_MAX: usize = 1_000;

/// Files that may be longer, and why.
const LONG: [(&str, &str); 0] = [];

/// Checks the whole tree.
///
/// # Errors
/// How many things are wrong; each is printed with its place.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let mut faults = Vec::new();
    let files = sources(root)?;
    let mut functions = BTreeSet::new();
    for file in &files {
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("read {}", file.display()))?;
        check_file(&file.to_string_lossy(), &text, &mut faults);
        functions.extend(functions_in(&text).map(str::to_owned));
    }
    for document in WITNESSES {
        let text = fs::read_to_string(root.join(document)).with_context(|| format!("read {document}"))?;
        check_witnesses(document, &text, &functions, |file| root.join(file).exists(), &mut faults);
    }
    check_edges(root, &mut faults)?;
    for fault in &faults {
        println!("{fault}");
    }
    if !faults.is_empty() {
        bail!("{} things to tidy", faults.len());
    }
    println!("tidy: {} files", files.len());
    Ok(())
}

/// The Rust files that git knows or would take, relative to the root, sorted.
fn sources(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"];
    let listed = Command::new("git").args(list).current_dir(root).output().context("run git ls-files")?;
    if !listed.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    }
    let text = String::from_utf8(listed.stdout).context("read the list of files")?;
    let mut files: Vec<_> =
        text.lines().map(PathBuf::from).filter(|file| root.join(file).is_file()).collect();
    files.sort();
    Ok(files)
}

fn check_file(file: &str, text: &str, faults: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX && !LONG.iter().any(|(long, _)| *long == file) {
        faults.push(format!("{file}: {lines} lines; split it, or list it with a reason"));
    }
    if !file.ends_with("tests.rs") && !text.starts_with("//!") && !text.starts_with("#![") {
        faults.push(format!("{file}:1: begins without a //! paragraph"));
    }
    let is_pure = PURE.iter().any(|pure| file.starts_with(pure));
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or(line);
        if is_pure {
            for (word, why) in IMPURE {
                let is_exception = PURE_EXCEPTIONS.iter().any(|(f, w)| file == *f && code.contains(w));
                if code.contains(word) && !is_exception {
                    faults.push(format!("{file}:{number}: {word}: {why}"));
                }
            }
        }
        let is_tidy_itself = file.starts_with("xtask/");
        for word in ["todo!(", "unimplemented!(", "#[ignore", "dbg!(", "FIXME", "XXX", "HACK"] {
            if line.contains(word) && !is_tidy_itself {
                faults.push(format!("{file}:{number}: {word} is not for the main line"));
            }
        }
        let is_test = file.contains("tests") || file.contains("examples/") || file.ends_with("memory_log.rs");
        let is_unnamed = code.contains("tokio::spawn(") && !is_test;
        if is_unnamed && !file.starts_with("proto/rt/src/tasks") && !is_tidy_itself {
            faults.push(format!("{file}:{number}: tasks are spawned by name (hasp_rt::tasks)"));
        }
    }
}

/// The names of the functions that a file defines.
fn functions_in(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let (before, after) = line.split_once("fn ")?;
        let is_definition = before.chars().all(|c| c.is_ascii_lowercase() || "() ".contains(c));
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
        is_definition.then(|| &after[..end])
    })
}

/// The files and tests that a document names as its witnesses must be there. A test's name is a
/// sentence: three underscores at least.
fn check_witnesses(
    document: &str,
    text: &str,
    functions: &BTreeSet<String>,
    is_there: impl Fn(&str) -> bool,
    faults: &mut Vec<String>,
) {
    for (number, line) in (1..).zip(text.lines()) {
        for name in line.split('`').skip(1).step_by(2) {
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let is_test = name.matches('_').count() >= 3 && name.chars().all(is_word);
            let is_file = name.ends_with(".rs") && name.contains('/') && !name.contains(['*', '{', '<']);
            if is_test && !functions.contains(name) {
                faults.push(format!("{document}:{number}: there is no test {name}"));
            }
            if is_file && !is_there(name) {
                faults.push(format!("{document}:{number}: there is no file {name}"));
            }
        }
    }
}

fn check_edges(root: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let metadata = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let told =
        Command::new("cargo").args(metadata).current_dir(root).output().context("run cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_slice(&told.stdout).context("read cargo metadata")?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = EDGES.iter().find(|(of, _)| *of == name) else {
            faults.push(format!("{name}: a crate without a list of allowed edges (xtask/src/tidy.rs)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let is_ours = EDGES.iter().any(|(of, _)| *of == to);
            if is_ours && dependency["kind"].is_null() && !allowed.contains(&to) {
                faults.push(format!("{name}: must not depend on {to}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(file: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check_file(file, text, &mut faults);
        faults
    }

    #[test]
    fn impure_words_are_found_in_pure_code_only() {
        let text = "//! Doc.\nlet now = Instant::now();\n";

        assert_eq!(faults("cell/src/master/lease.rs", text).len(), 1);
        assert_eq!(faults("cell/src/service.rs", text).len(), 0);
        assert_eq!(faults("cell/src/master.rs", "//! Doc.\n// not Instant::now()\n").len(), 0);
    }

    #[test]
    fn witnesses_that_are_not_there_are_found() {
        let code = "    fn a_test_that_is_there() {\n    pub(super) async fn another_one_of_them(x: u8) {\n";
        let functions: BTreeSet<String> = functions_in(code).map(str::to_owned).collect();
        assert_eq!(functions.len(), 2, "{functions:?}");
        let text = "`a_test_that_is_there`, `src/main.rs`\n`a_test_that_is_gone` `src/gone.rs` `cache_1`\n";
        let mut faults = Vec::new();

        check_witnesses("D.md", text, &functions, |file| file == "src/main.rs", &mut faults);

        let expected =
            ["D.md:2: there is no test a_test_that_is_gone", "D.md:2: there is no file src/gone.rs"];
        assert_eq!(faults, expected);
    }

    #[test]
    fn a_file_has_a_paragraph_and_a_length() {
        assert_eq!(faults("src/main.rs", "fn main() {}\n").len(), 1);
        let long = format!("//! Doc.\n{}", "x\n".repeat(LINES_MAX));
        assert_eq!(faults("src/main.rs", &long).len(), 1);
        assert_eq!(faults("src/main.rs", "//! Doc.\nfn main() {}\n").len(), 0);
    }
}
