//! What the system knows of a process: CPU time and memory used, and how many files it may open.
#![allow(
    clippy::disallowed_methods,
    reason = "real processes of a real machine are watched here, never simulated ones"
)]

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// Ticks per second of the CPU times in `/proc`: fixed by Linux for all its architectures.
const TICKS_PER_S: f64 = 100.0;

/// Most open files worth asking for: beyond it some kernels refuse, and nobody here needs more.
const OPEN_FILES_WANTED: u64 = 1 << 20;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time since its start, in seconds; steps of 10 ms.
    pub cpu_s: f64,
    /// Resident memory, in KiB.
    pub rss_kib: u64,
}

/// Reads what process `pid` has used; `None` if it is gone, or where there is no `/proc`.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage { cpu_s: cpu_s(&stat)?, rss_kib: rss_kib(&status)? })
}

/// User and system time of a `/proc/<pid>/stat` line: fields 14 and 15 of proc(5).
fn cpu_s(stat: &str) -> Option<f64> {
    // The command's name, in brackets, may hold anything; the state follows the last bracket.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_S)
}

/// `VmRSS` of `/proc/<pid>/status`.
fn rss_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Raises this process's limit of open files as far as it may, and says what it is.
///
/// Children inherit it. A limit that cannot be read counts as 1,024.
pub fn raise_open_files() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1_024 };
    let wanted = hard.min(OPEN_FILES_WANTED).max(soft);
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => wanted,
        Err(_) => soft,
    };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_brackets_and_spaces() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 3 0 5 1000 200 18446";

        assert_eq!(cpu_s(stat), Some(4.0));
        assert_eq!(cpu_s("7 (short) S 1"), None);
    }

    #[test]
    fn resident_memory_is_found_in_the_status() {
        assert_eq!(rss_kib("Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t  1234 kB\n"), Some(1_234));
        assert_eq!(rss_kib("Name:\tzombie\n"), None);
    }

    #[test]
    fn the_limit_of_open_files_is_positive_and_stays_when_asked_again() {
        let limit = raise_open_files();

        assert!(limit > 0);
        assert_eq!(raise_open_files(), limit);
    }
}
