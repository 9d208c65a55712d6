//! Ports for servers that are started as processes and keep their addresses when they are started again.
//!
//! The system hands ports out of a range of its own to connections, and to whoever listens at port 0. One
//! of these may be free now and the end of somebody's connection when the server begins or is back. So these are
//! chosen below that range, where nothing takes a port that it does not name.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "which real ports of a real machine are free is the question"
)]

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{fs, io};

use anyhow::Context as _;

/// Below are the ports of well-known services.
const FIRST: u16 = 10_000;
/// So many have to be there, or they are chosen out of those of the system.
const ENOUGH: u16 = 1_000;
/// First and last port of the system's own, apart by a tab.
const RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Where Linux begins if nobody says otherwise.
const USUAL_END: u16 = 32_768;

/// Ports of the loopback address that nobody listens on just now, all different, and different from those of each other call
/// in this process.
///
/// # Errors
/// There are not so many.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    static CHOICE: LazyLock<Choice> = LazyLock::new(|| {
        // Programs that choose at the same time begin at different places.
        Choice::new(FIRST..own_range_begins(), RandomState::new().hash_one(std::process::id()))
    });
    CHOICE.take(count).context("look for free ports")
}

fn own_range_begins() -> u16 {
    let first = |text: String| text.split_whitespace().next()?.parse().ok();
    fs::read_to_string(RANGE_FILE).ok().and_then(first).unwrap_or(USUAL_END)
}

/// Goes through the ports of a range, round and round.
#[derive(Debug)]
struct Choice {
    range: Range<u16>,
    next: AtomicU16,
}

impl Choice {
    fn new(range: Range<u16>, start: u64) -> Self {
        let length = u64::from(range.end.saturating_sub(range.start).max(1));
        let start = u16::try_from(start % length).expect("less than its modulus");
        Self { next: AtomicU16::new(range.start.saturating_add(start)), range }
    }

    fn take(&self, count: usize) -> io::Result<Vec<u16>> {
        if self.range.len() < usize::from(ENOUGH) {
            let listeners = (0..count).map(|_| listen(0)).collect::<io::Result<Vec<_>>>()?;
            return listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect();
        }
        let ports: Vec<_> = (0..self.range.len())
            .map(|_| self.step())
            .filter(|port| listen(*port).is_ok())
            .take(count)
            .collect();
        if ports.len() < count {
            let Range { start, end } = self.range;
            return Err(io::Error::other(format!("of {start} to {end} only {} are free", ports.len())));
        }
        Ok(ports)
    }

    fn step(&self) -> u16 {
        let Range { start, end } = self.range;
        let after = |port: u16| if port + 1 < end { port + 1 } else { start };
        self.next.update(Ordering::Relaxed, Ordering::Relaxed, after)
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_all_different_and_none_that_the_system_gives_to_connections() {
        let take = || free_ports(20).expect("there are many");
        let mut ports = [take(), take()].concat();
        ports.sort_unstable();
        ports.dedup();

        assert_eq!(ports.len(), 40);
        assert!(own_range_begins() < FIRST + ENOUGH || *ports.last().expect("many") < own_range_begins());
    }

    #[test]
    fn who_listens_is_passed_over_and_the_last_port_is_followed_by_the_first() {
        let listens = listen(0).expect("there are many");
        let taken = listens.local_addr().expect("bound").port().clamp(FIRST, u16::MAX - ENOUGH);
        let choice = Choice::new(taken..taken + ENOUGH, u64::from(ENOUGH) - 100);

        let ports = choice.take(usize::from(ENOUGH) / 2).expect("half of them are free");

        assert!(!ports.contains(&taken), "somebody listens there: {ports:?}");
        assert!(!ports.is_sorted(), "some are from the end of the range, some from its beginning: {ports:?}");
    }

    #[test]
    fn without_a_range_of_ones_own_the_system_chooses() {
        let ports = Choice::new(1_024..1_024, 7).take(3).expect("there are many");

        assert_eq!(ports.len(), 3);
        assert!(ports.iter().all(|port| *port >= 1_024));
    }

    #[test]
    fn more_than_there_are_is_an_error_that_says_so() {
        let choice = Choice::new(FIRST..FIRST + ENOUGH, 0);
        let error = choice.take(usize::from(ENOUGH) + 1).expect_err("too many");

        assert!(error.to_string().starts_with("of 10000 to 11000 only "), "{error}");
    }
}
