//! Two looks at all processes, and what happened in between.
//!
//! The arithmetic is pure; only [`Snapshot::take`] looks.

use std::collections::BTreeMap;

use hasp_proto::time::Time;
use hasp_rt::env::Env;
use serde::Serialize;

use crate::procfs::{self, Usage};
use crate::status::{ServerStatus, StatusReader};

/// What a process is in the load test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Of a cell.
    Replica,
    /// In front of the cells: where clients connect.
    Proxy,
    /// Between the cells and the other proxies.
    UpperProxy,
    /// Plays clients.
    Worker,
}

/// A process to look at. One that runs elsewhere has no id, one that is no server no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is.
    pub role: Role,
    /// For people.
    pub name: String,
    /// On this machine.
    pub pid: Option<u32>,
    /// Where it is asked for its status.
    pub address: Option<String>,
}

/// One look at all of them.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    at: Time,
    statuses: BTreeMap<String, ServerStatus>,
    usages: BTreeMap<u32, Usage>,
}

impl Snapshot {
    /// Looks at these.
    pub async fn take(env: &Env, reader: &mut StatusReader, members: &[Member]) -> Self {
        let addresses: Vec<_> = members.iter().filter_map(|member| member.address.clone()).collect();
        let statuses = reader.ask_all(&addresses).await;
        let pids = members.iter().filter_map(|member| member.pid);
        let usages = pids.filter_map(|pid| Some((pid, procfs::usage(pid)?))).collect();
        Self { at: env.clock.now(), statuses, usages }
    }

    /// A look at nobody.
    #[cfg(test)]
    pub fn of_nobody(at: Time) -> Self {
        Self { at, ..Self::default() }
    }

    fn status(&self, member: &Member) -> Option<&ServerStatus> {
        self.statuses.get(member.address.as_ref()?)
    }

    fn usage(&self, member: &Member) -> Option<Usage> {
        self.usages.get(&member.pid?).copied()
    }
}

/// What happened between two looks.
#[derive(Clone, Debug, Default)]
pub struct Window {
    members: Vec<Member>,
    before: Snapshot,
    after: Snapshot,
}

/// What a worker did in the window; servers are asked, workers say it at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerShare {
    /// Sessions of its clients.
    pub sessions: u64,
    /// KeepAlives that they sent.
    pub keep_alives: u64,
}

/// What one process used and did, for the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessReport {
    /// `master`, `follower`, `upper-proxy`, `proxy` or `worker`.
    pub role: String,
    /// For people.
    pub name: String,
    /// 0 if it runs elsewhere.
    pub pid: u32,
    /// Within the window.
    pub cpu_s: Option<f64>,
    /// At its end.
    pub rss_mib: Option<f64>,
    /// At its end.
    pub sessions: u64,
    /// CPU time for everything, divided by the KeepAlives received, or sent by a worker.
    pub cpu_us_per_keepalive: Option<f64>,
    /// All memory, divided by the sessions.
    pub rss_kib_per_session: Option<f64>,
}

impl Window {
    /// Between `before` and `after`, of the same members.
    pub const fn new(members: Vec<Member>, before: Snapshot, after: Snapshot) -> Self {
        Self { members, before, after }
    }

    /// Its length.
    pub fn seconds(&self) -> f64 {
        self.after.at.saturating_since(self.before.at).as_secs_f64()
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.role == role)
    }

    /// KeepAlives that a server received; `None` if it was not asked or did not answer.
    fn keep_alives(&self, member: &Member) -> Option<u64> {
        let after = self.after.status(member)?.keep_alives;
        // A counter that began again, or was not seen before, counts from zero.
        let before = self.before.status(member).map_or(0, |status| status.keep_alives);
        Some(if after >= before { after - before } else { after })
    }

    /// KeepAlives per second received by the proxies of clients together; `None` if there are none.
    pub fn at_proxies_per_s(&self) -> Option<f64> {
        self.at_all_per_s(Role::Proxy)
    }

    /// KeepAlives per second received by the upper proxies together; `None` if there are none.
    pub fn at_upper_proxies_per_s(&self) -> Option<f64> {
        self.at_all_per_s(Role::UpperProxy)
    }

    fn at_all_per_s(&self, role: Role) -> Option<f64> {
        let counts: Vec<_> = self.of(role).filter_map(|server| self.keep_alives(server)).collect();
        (!counts.is_empty()).then(|| counts.iter().sum::<u64>() as f64 / self.seconds())
    }

    /// KeepAlives per second received by the master of each cell, or its masters if there were
    /// several one after another.
    pub fn at_masters_per_s(&self) -> BTreeMap<String, f64> {
        let mut by_cell: BTreeMap<String, u64> = BTreeMap::new();
        for replica in self.of(Role::Replica) {
            let cell = self.after.status(replica).and_then(|status| status.cell.clone());
            if let (Some(cell), Some(count)) = (cell, self.keep_alives(replica)) {
                *by_cell.entry(cell).or_default() += count;
            }
        }
        by_cell.into_iter().map(|(cell, count)| (cell, count as f64 / self.seconds())).collect()
    }

    /// For people: cells whose mastership changed in between, and servers that did not answer.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for member in self.members.iter().filter(|member| member.address.is_some()) {
            let (before, after) = (self.before.status(member), self.after.status(member));
            match (before, after) {
                (Some(before), Some(after)) if before.is_master() && !after.is_master() => {
                    remarks
                        .push(format!("{} was master at first and {} in the end", member.name, after.state));
                }
                (Some(before), Some(after)) if after.is_master() && before.epoch != after.epoch => {
                    remarks.push(format!("{} is master under another epoch than at first", member.name));
                }
                (Some(_), Some(_)) => {}
                _ => remarks.push(format!("{} did not say what it counted", member.name)),
            }
        }
        remarks
    }

    /// What every process used and did. `workers` by process id.
    pub fn processes(&self, workers: &BTreeMap<u32, WorkerShare>) -> Vec<ProcessReport> {
        self.members.iter().map(|member| self.process(member, workers)).collect()
    }

    fn process(&self, member: &Member, workers: &BTreeMap<u32, WorkerShare>) -> ProcessReport {
        let status = self.after.status(member);
        let worker = member.pid.and_then(|pid| workers.get(&pid)).copied();
        let sessions =
            worker.map_or_else(|| status.map_or(0, |status| status.sessions), |share| share.sessions);
        let keep_alives =
            worker.map(|share| share.keep_alives).or_else(|| self.keep_alives(member)).unwrap_or(0);
        let (before, after) = (self.before.usage(member), self.after.usage(member));
        let cpu_s = before.zip(after).map(|(before, after)| after.cpu_s - before.cpu_s);
        ProcessReport {
            role: role_name(member.role, status).to_owned(),
            name: member.name.clone(),
            pid: member.pid.unwrap_or(0),
            cpu_s: cpu_s.map(round),
            rss_mib: after.map(|usage| round(usage.rss_kib as f64 / 1_024.0)),
            sessions,
            cpu_us_per_keepalive: cpu_s.and_then(|cpu_s| ratio(cpu_s * 1e6, keep_alives)),
            rss_kib_per_session: after.and_then(|usage| ratio(usage.rss_kib as f64, sessions)),
        }
    }
}

fn role_name(role: Role, status: Option<&ServerStatus>) -> &'static str {
    match role {
        Role::Replica if status.is_some_and(ServerStatus::is_master) => "master",
        Role::Replica => "follower",
        Role::Proxy => "proxy",
        Role::UpperProxy => "upper-proxy",
        Role::Worker => "worker",
    }
}

fn ratio(amount: f64, of: u64) -> Option<f64> {
    (of > 0).then(|| round(amount / of as f64))
}

/// To three digits behind the point: more would be noise.
pub fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(role: Role, name: &str, pid: u32) -> Member {
        let address = (role != Role::Worker).then(|| name.to_owned());
        Member { role, name: name.to_owned(), pid: Some(pid), address }
    }

    fn replica(state: &str, keep_alives: u64) -> ServerStatus {
        ServerStatus {
            cell: Some("a".into()),
            state: state.into(),
            epoch: 1,
            sessions: if state == "master" { 3 } else { 0 },
            keep_alives,
            ..ServerStatus::default()
        }
    }

    fn snapshot(seconds: u64, statuses: [(&str, ServerStatus); 4], cpu_s: f64) -> Snapshot {
        let usage = Usage { cpu_s, rss_kib: 2_048 };
        Snapshot {
            at: Time::from_millis(seconds * 1_000),
            statuses: statuses.into_iter().map(|(address, status)| (address.to_owned(), status)).collect(),
            usages: [(1, usage), (2, usage), (3, usage), (4, usage)].into(),
        }
    }

    fn window(second_master: &str) -> Window {
        let members = vec![
            member(Role::Replica, "a1", 1),
            member(Role::Replica, "a2", 2),
            member(Role::Proxy, "p", 3),
            member(Role::Worker, "w", 4),
            member(Role::UpperProxy, "u", 5),
        ];
        let proxy = |keep_alives| ServerStatus {
            state: "proxy".into(),
            sessions: 100,
            keep_alives,
            ..ServerStatus::default()
        };
        let state = |name| if name == second_master { "master" } else { "follower" };
        let before = [
            ("a1", replica("master", 10)),
            ("a2", replica("follower", 0)),
            ("p", proxy(1_000)),
            ("u", proxy(20)),
        ];
        let after = [
            ("a1", replica(state("a1"), 14)),
            ("a2", replica(state("a2"), 6)),
            ("p", proxy(1_500)),
            ("u", proxy(25)),
        ];
        Window::new(members, snapshot(100, before, 1.0), snapshot(110, after, 1.5))
    }

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let window = window("a1");

        assert_eq!(window.seconds(), 10.0);
        assert_eq!(window.at_proxies_per_s(), Some(50.0), "without the upper one");
        assert_eq!(window.at_upper_proxies_per_s(), Some(0.5));
        assert_eq!(window.at_masters_per_s(), [("a".to_owned(), 1.0)].into());
        assert!(window.remarks().is_empty());
    }

    #[test]
    fn a_change_of_mastership_is_remarked() {
        assert_eq!(window("a2").remarks(), ["a1 was master at first and follower in the end"]);
    }

    #[test]
    fn each_process_is_charged_with_what_it_used() {
        let share = WorkerShare { sessions: 200, keep_alives: 500 };

        let processes = window("a1").processes(&[(4, share)].into());

        let of = |name: &str| processes.iter().find(|process| process.name == name).expect("listed").clone();
        assert_eq!((of("a1").role.as_str(), of("a2").role.as_str()), ("master", "follower"));
        assert_eq!(of("p").cpu_us_per_keepalive, Some(1_000.0));
        assert_eq!(of("p").rss_kib_per_session, Some(20.48));
        assert_eq!(of("w").cpu_us_per_keepalive, Some(1_000.0));
        assert_eq!(of("w").rss_kib_per_session, Some(10.24));
        assert_eq!((of("u").role.as_str(), of("u").cpu_s), ("upper-proxy", None));
        assert_eq!(of("a2").rss_kib_per_session, None, "it has no sessions");
    }
}
