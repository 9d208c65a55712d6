//! What the masters had to do at each number of clients that was measured: the points of the report's first plot.
//!
//! Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::window::{ProcessReport, round};

/// One measurement at one number of clients.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// How many clients.
    pub clients: usize,
    /// Whether they were at proxies, or straight at the masters.
    pub proxied: bool,
    /// Length of the measurement.
    pub seconds: f64,
    /// KeepAlives received by the busiest master.
    pub at_master_per_s: f64,
    /// CPU of the busiest master for everything, in cores; `None` if it runs elsewhere.
    pub master_cpu: Option<f64>,
}

/// KeepAlives received by the busiest master; `None` if there was nobody to ask.
pub fn busiest(at_masters_per_s: &BTreeMap<String, f64>) -> Option<f64> {
    at_masters_per_s.values().copied().reduce(f64::max)
}

/// CPU of the busiest master within a window of that length, in cores.
pub fn master_cpu(processes: &[ProcessReport], seconds: f64) -> Option<f64> {
    let masters = processes.iter().filter(|process| process.role == "master");
    let used = masters.filter_map(|master| master.cpu_s).reduce(f64::max)?;
    (seconds > 0.0).then(|| round(used / seconds))
}

/// Those measured through proxies or without, by their clients.
pub fn of_kind(points: &[Point], proxied: bool) -> Vec<&Point> {
    let mut some: Vec<_> = points.iter().filter(|point| point.proxied == proxied).collect();
    some.sort_by_key(|point| point.clients);
    some
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(role: &str, cpu_s: Option<f64>) -> ProcessReport {
        ProcessReport {
            role: role.into(),
            name: role.into(),
            pid: 1,
            cpu_s,
            rss_mib: None,
            sessions: 0,
            cpu_us_per_keepalive: None,
            rss_kib_per_session: None,
        }
    }

    #[test]
    fn the_busiest_master_counts_and_nobody_else() {
        let rates = [("a".to_owned(), 0.5), ("b".to_owned(), 2.0)].into();
        assert_eq!(busiest(&rates), Some(2.0));
        assert_eq!(busiest(&BTreeMap::new()), None);

        let processes =
            [process("master", Some(0.3)), process("master", Some(1.5)), process("proxy", Some(9.0))];
        assert_eq!(master_cpu(&processes, 10.0), Some(0.15));
        assert_eq!(master_cpu(&processes, 0.0), None);
        assert_eq!(master_cpu(&[process("master", None)], 10.0), None, "it runs elsewhere");
    }

    #[test]
    fn points_of_a_kind_are_in_the_order_of_their_clients() {
        let point = |clients, proxied| Point {
            clients,
            proxied,
            seconds: 1.0,
            at_master_per_s: 1.0,
            master_cpu: None,
        };
        let points = [point(300, true), point(100, false), point(200, true)];

        let clients =
            |proxied| of_kind(&points, proxied).iter().map(|point| point.clients).collect::<Vec<_>>();

        assert_eq!((clients(true), clients(false)), (vec![200, 300], vec![100]));
    }
}
