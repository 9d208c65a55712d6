//! CPU time of some processes within a window, from `/proc`.

use crate::procfs::{Usage, usage};
use crate::system::System;

/// A window that has begun: what each process had used then.
#[derive(Clone, Debug)]
pub struct CpuWindow {
    began: Vec<(String, u32, Usage)>,
}

/// CPU time of each process within a window, in seconds; steps of 10 ms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpu {
    /// By name, in the order asked for.
    pub seconds: Vec<(String, f64)>,
    /// Resident memory at the end, in KiB, in the same order.
    pub rss_kib: Vec<u64>,
}

impl CpuWindow {
    /// Begins now, for these processes by name and id. One that is gone counts as using nothing.
    pub fn begin(processes: impl IntoIterator<Item = (String, u32)>) -> Self {
        let with_usage = |(name, pid)| (name, pid, usage(pid).unwrap_or_default());
        Self { began: processes.into_iter().map(with_usage).collect() }
    }

    /// Begins now, for all servers of a system.
    pub fn of_servers(system: &System) -> Self {
        Self::begin(system.servers().map(|server| (server.process.name().to_owned(), server.process.pid())))
    }

    /// What was used since.
    pub fn end(&self) -> Cpu {
        let now = self.began.iter().map(|(name, pid, began)| (name, began, usage(*pid).unwrap_or(*began)));
        let mut cpu = Cpu::default();
        for (name, began, ended) in now {
            cpu.seconds.push((name.clone(), ended.cpu_s - began.cpu_s));
            cpu.rss_kib.push(ended.rss_kib);
        }
        cpu
    }
}

impl Cpu {
    /// Of all processes whose name begins so; an empty text means all.
    pub fn total_s(&self, prefix: &str) -> f64 {
        self.seconds.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, seconds)| seconds).sum()
    }

    /// Microseconds per operation, of all processes whose name begins so.
    pub fn us_per(&self, prefix: &str, operations: u64) -> f64 {
        self.total_s(prefix) * 1e6 / operations.max(1) as f64
    }

    /// Adds what was used in another window by the same processes.
    pub fn add(&mut self, other: &Cpu) {
        if self.seconds.is_empty() {
            self.clone_from(other);
            return;
        }
        for ((name, seconds), (of, more)) in self.seconds.iter_mut().zip(&other.seconds) {
            assert_eq!(name, of, "windows of the same processes");
            *seconds += more;
        }
        self.rss_kib.clone_from(&other.rss_kib);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(seconds: &[(&str, f64)]) -> Cpu {
        let named = seconds.iter().map(|(name, seconds)| ((*name).to_owned(), *seconds));
        Cpu { seconds: named.collect(), rss_kib: vec![1; seconds.len()] }
    }

    #[test]
    fn cpu_per_operation_counts_only_the_processes_named() {
        let mut cpu = cpu(&[("cell-a-1", 1.0), ("cell-a-2", 0.5), ("proxy-1", 4.0)]);

        assert_eq!(cpu.us_per("cell", 10_000), 150.0);
        assert_eq!(cpu.us_per("", 1_000_000), 5.5);
        assert_eq!(cpu.us_per("cell", 0), 1_500_000.0, "no division by zero");

        cpu.add(&cpu.clone());
        assert_eq!(cpu.us_per("proxy", 1_000_000), 8.0);
    }

    #[test]
    fn a_process_that_is_gone_has_used_nothing() {
        let window = CpuWindow::begin([("gone".to_owned(), u32::MAX)]);

        assert_eq!(window.end().total_s(""), 0.0);
    }
}
