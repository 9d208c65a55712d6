//! A whole system on this machine: cells and proxies as child processes, with configurations of
//! their own in a temporary directory.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real processes of a real machine are watched here, never simulated ones"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hasp_rt::env::Env;
use serde::Serialize;

use crate::ports::free_ports;
use crate::processes::{Process, Processes, Spec, stop_all};
use crate::status::StatusReader;
use crate::window::{Member, Role};

/// The namespace of the systems started here.
pub const NAMESPACE: &str = "load";

/// How long a server may take until it serves.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long the cells may take to elect their masters.
const MASTERS_DEADLINE: Duration = Duration::from_secs(30);
/// Directories on the ring, on average, for each cell.
const DIRECTORIES_PER_CELL: usize = 4;
/// Pause between two looks for the masters.
const MASTERS_PAUSE: Duration = Duration::from_millis(100);
/// Tries to find ports that nobody takes in the meantime.
const PORT_TRIES: usize = 5;
/// What a server's process ends with if its configuration cannot be used, as when a port is taken.
const EXIT_USAGE: i32 = 2;

/// What to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemSpec {
    /// Cells, named `a`, `b`, ...; at most 26.
    pub cells: usize,
    /// Replicas of each.
    pub replicas: usize,
    /// Proxies in front of them.
    pub proxies: usize,
    /// Proxies between those and the cells; 0: each proxy has a session with each cell.
    pub upper_proxies: usize,
    /// What is below the directories in [`RING`] is spread over all cells.
    pub has_ring: bool,
}

impl SystemSpec {
    /// So many cells of three replicas, and nothing in front of them.
    pub const fn cells(cells: usize) -> Self {
        Self { cells, replicas: 3, proxies: 0, upper_proxies: 0, has_ring: false }
    }

    /// These behind so many proxies.
    #[must_use]
    pub const fn behind(self, proxies: usize) -> Self {
        Self { proxies, ..self }
    }
}

/// The directory of the ring, in the first cell.
pub const RING: &str = "/ls/load/spread";

/// A server that runs.
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Where clients reach it.
    pub address: String,
    /// Where it shows its metrics.
    pub admin: String,
    /// How it was started.
    spec: Spec,
}

impl Server {
    /// Starts it again after it ended, at the address and with the data that it had.
    ///
    /// # Errors
    /// It does not serve again.
    pub async fn restart(&mut self, processes: &Processes) -> anyhow::Result<()> {
        self.start_again(processes)?;
        self.await_again().await
    }

    /// Starts it again at the address it had.
    fn start_again(&mut self, processes: &Processes) -> anyhow::Result<()> {
        let mut spec = self.spec.clone();
        spec.args.extend(["--listen".into(), self.address.clone().into()]);
        self.process = processes.start(&spec)?;
        Ok(())
    }

    /// Waits until it serves, after it was started again.
    async fn await_again(&mut self) -> anyhow::Result<()> {
        let ports = await_ready(&mut self.process).await?;
        let ports = ports.with_context(|| format!("restart {}: its port is taken", self.process.name()))?;
        (self.address, self.admin) = (ports.connect, ports.admin);
        Ok(())
    }

    /// As somebody to look at.
    pub fn member(&self, role: Role) -> Member {
        Member {
            role,
            name: self.process.name().to_owned(),
            pid: Some(self.process.pid()),
            address: Some(self.address.clone()),
        }
    }
}

/// A system that runs.
pub struct System {
    /// Replicas, by cell, in the order of their ids.
    pub cells: BTreeMap<String, Vec<Server>>,
    /// Between the cells and the other proxies.
    pub upper_proxies: Vec<Server>,
    /// In front of all of these: where clients connect.
    pub proxies: Vec<Server>,
}

/// Names of the first cells.
pub fn cell_names(cells: usize) -> Vec<String> {
    ('a'..='z').take(cells).map(String::from).collect()
}

/// The directory of each cell, in the order of [`cell_names`]: the first has the namespace's root.
pub fn cell_roots(cells: usize) -> Vec<String> {
    let root = |(index, cell): (usize, String)| match index {
        0 => format!("/ls/{NAMESPACE}"),
        _ => format!("/ls/{NAMESPACE}/{cell}"),
    };
    cell_names(cells).into_iter().enumerate().map(root).collect()
}

/// Directories on the ring, some for each cell. Those of the load test are right below the ring: see [`RING`].
pub fn spread_roots(cells: usize) -> Vec<String> {
    (0..DIRECTORIES_PER_CELL * cells).map(|at| format!("{RING}/{at}")).collect()
}

impl System {
    /// Starts everything below the directory `home` and waits until every cell has its master.
    ///
    /// # Errors
    /// A server cannot be started or ends, with the end of its log; or a cell finds no master.
    pub async fn start(
        env: &Env,
        processes: &Processes,
        spec: &SystemSpec,
        home: &Path,
    ) -> anyhow::Result<System> {
        for attempt in 1..=PORT_TRIES {
            let home = home.join(format!("system-{attempt}"));
            if let Some(mut system) = System::start_once(processes, spec, &home).await? {
                system.await_masters(env).await?;
                return Ok(system);
            }
        }
        bail!("start the cells: other programs took the ports chosen, {PORT_TRIES} times")
    }

    /// `None` if a port was taken.
    async fn start_once(
        processes: &Processes,
        spec: &SystemSpec,
        home: &Path,
    ) -> anyhow::Result<Option<System>> {
        let ports = free_ports(spec.cells * spec.replicas)?;
        let layout = Layout::new(spec, &ports);
        let mut cells = Vec::new();
        for (cell, addresses) in &layout.cells {
            for id in 1..=addresses.len() {
                let config = layout.replica(cell, id, home);
                let started = start_server(processes, "cell", &format!("cell-{cell}-{id}"), &config, home)?;
                cells.push((cell.clone(), started));
            }
        }
        // The first layer is started beside the cells; a second one has to know where the first is.
        let first = if spec.upper_proxies > 0 {
            ("upper-proxy", spec.upper_proxies)
        } else {
            ("proxy", spec.proxies)
        };
        let mut first = layout.start_proxies(processes, first, &[], home)?;
        let Some(cells) = ready(cells).await? else {
            stop_quietly(first.iter_mut().map(|(_, (process, _))| process)).await;
            return Ok(None);
        };
        let mut by_cell: BTreeMap<String, Vec<Server>> = BTreeMap::new();
        for (cell, server) in cells {
            by_cell.entry(cell).or_default().push(server);
        }
        let Some(first) = proxies_ready(first).await? else { return Ok(None) };
        if spec.upper_proxies == 0 {
            return Ok(Some(System { cells: by_cell, upper_proxies: Vec::new(), proxies: first }));
        }
        let upstream: Vec<_> = first.iter().map(|upper| upper.address.clone()).collect();
        let second = layout.start_proxies(processes, ("proxy", spec.proxies), &upstream, home)?;
        let Some(proxies) = proxies_ready(second).await? else { return Ok(None) };
        Ok(Some(System { cells: by_cell, upper_proxies: first, proxies }))
    }

    /// Addresses of all replicas of all cells.
    pub fn replica_addresses(&self) -> Vec<String> {
        self.cells.values().flatten().map(|server| server.address.clone()).collect()
    }

    /// Addresses of all proxies that clients connect to.
    pub fn proxy_addresses(&self) -> Vec<String> {
        self.proxies.iter().map(|server| server.address.clone()).collect()
    }

    /// Every server.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.cells.values().flatten().chain(&self.upper_proxies).chain(&self.proxies)
    }

    /// Waits until every cell has a master that serves.
    ///
    /// # Errors
    /// One has none in time.
    pub async fn await_masters(&mut self, env: &Env) -> anyhow::Result<()> {
        let mut reader = StatusReader::new(env.clone());
        let deadline = env.clock.now() + MASTERS_DEADLINE;
        loop {
            let answers = reader.ask_all(&self.replica_addresses()).await;
            let has_master = |servers: &Vec<Server>| {
                servers
                    .iter()
                    .any(|server| answers.get(&server.address).is_some_and(|status| status.is_master()))
            };
            let Some((cell, _)) = self.cells.iter().find(|(_, servers)| !has_master(servers)) else {
                return Ok(());
            };
            if env.clock.now() >= deadline {
                let states = answers.iter().map(|(address, status)| format!("{address} is {}", status.state));
                let states = states.collect::<Vec<_>>().join(", ");
                bail!("cell {cell} has no master after {MASTERS_DEADLINE:?}: {states}");
            }
            tokio::time::sleep(MASTERS_PAUSE).await;
        }
    }

    /// Starts all proxies again at once after they ended, at the addresses they had.
    ///
    /// # Errors
    /// One does not serve again.
    pub async fn restart_proxies(&mut self, processes: &Processes) -> anyhow::Result<()> {
        for server in &mut self.proxies {
            server.start_again(processes)?;
        }
        for server in &mut self.proxies {
            server.await_again().await?;
        }
        Ok(())
    }

    /// Every server, to look at.
    pub fn members(&self) -> Vec<Member> {
        let replicas = self.cells.values().flatten().map(|server| server.member(Role::Replica));
        let upper = self.upper_proxies.iter().map(|server| server.member(Role::UpperProxy));
        let proxies = self.proxies.iter().map(|server| server.member(Role::Proxy));
        replicas.chain(upper).chain(proxies).collect()
    }

    /// Stops the proxies, then the upper ones, then the cells.
    ///
    /// # Errors
    /// The first server that had to be killed or did not end cleanly; all are gone nevertheless.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let proxies = stop_all(self.proxies.iter_mut().map(|server| &mut server.process)).await;
        let upper = stop_all(self.upper_proxies.iter_mut().map(|server| &mut server.process)).await;
        let cells = stop_all(self.cells.values_mut().flatten().map(|server| &mut server.process)).await;
        proxies.and(upper).and(cells)
    }
}

/// A child on its way, and how it was started.
type Starting = (Process, Spec);

fn start_server(
    processes: &Processes,
    command: &str,
    name: &str,
    config: &impl Serialize,
    home: &Path,
) -> anyhow::Result<Starting> {
    fs::create_dir_all(home).with_context(|| format!("make directory {}", home.display()))?;
    let path: PathBuf = home.join(format!("{name}.toml"));
    let text = toml::to_string(config).context("write configuration")?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    // So that none outlives the load test, however that ends.
    let mut args = vec![command.into(), "--config".into(), path.into_os_string(), "--exit-with-stdin".into()];
    // All of them and the clients share this machine's cores: a thread for each core in each process would
    // mostly wake the others.
    args.extend(["--threads".into(), "1".into()]);
    let spec = Spec::new(name, args);
    Ok((processes.start(&spec)?, spec))
}

/// Waits until all of these serve; `None`, and all are stopped, if a port was taken.
async fn ready(starting: Vec<(String, Starting)>) -> anyhow::Result<Option<Vec<(String, Server)>>> {
    let mut waiting = starting.into_iter();
    let mut servers = Vec::new();
    for (cell, (mut process, spec)) in waiting.by_ref() {
        match await_ready(&mut process).await? {
            Some(Ports { connect: address, admin }) => {
                servers.push((cell, Server { process, address, admin, spec }));
            }
            None => {
                let others = servers.iter_mut().map(|(_, server): &mut (_, Server)| &mut server.process);
                stop_quietly(others).await;
                stop_quietly(waiting.map(|(_, (process, _))| process).collect::<Vec<_>>().iter_mut()).await;
                return Ok(None);
            }
        }
    }
    Ok(Some(servers))
}

/// The same for proxies, which are of no cell.
async fn proxies_ready(starting: Vec<(String, Starting)>) -> anyhow::Result<Option<Vec<Server>>> {
    Ok(ready(starting).await?.map(|proxies| proxies.into_iter().map(|(_, proxy)| proxy).collect()))
}

async fn stop_quietly(processes: impl IntoIterator<Item = &mut Process>) {
    if let Err(error) = stop_all(processes).await {
        tracing::debug!(%error, "stop a server that is to be started again");
    }
}

/// Where a server says that it serves.
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    connect: String,
    admin: String,
}

impl Ports {
    /// Of the line that a server prints when it serves.
    fn of_line(line: &str) -> Option<Self> {
        let word = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
        Some(Self { connect: word("connect=")?, admin: word("admin=")? })
    }
}

/// Waits until a server says where it serves; `None` if it could not use its configuration.
async fn await_ready(process: &mut Process) -> anyhow::Result<Option<Ports>> {
    let line = loop {
        match process.line(READY_DEADLINE).await {
            Ok(line) if line.starts_with("ready ") => break line,
            Ok(_) => {}
            Err(error) => {
                let status = process.exited(Duration::ZERO).await.and_then(|status| status.code());
                let is_port = status == Some(EXIT_USAGE) && process.log_tail().contains("in use");
                return if is_port { Ok(None) } else { Err(error) };
            }
        }
    };
    process.ignore_lines();
    process.must_run()?;
    let ports = Ports::of_line(&line);
    Ok(Some(ports.with_context(|| format!("read where {} serves from {line:?}", process.name()))?))
}

/// Who listens where and owns what.
#[derive(Clone, Debug)]
struct Layout {
    rules: Vec<Rule>,
    cells: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Serialize)]
struct Rule {
    prefix: String,
    cell: String,
}

#[derive(Serialize)]
struct ReplicaConfig<'a> {
    cell: &'a str,
    id: usize,
    listen: &'a str,
    admin: &'static str,
    dir: PathBuf,
    namespace: &'static str,
    rules: &'a [Rule],
    cells: &'a BTreeMap<String, Vec<String>>,
}

#[derive(Serialize)]
struct ProxyConfig<'a> {
    listen: &'static str,
    admin: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    upstream: &'a [String],
    namespace: &'static str,
    rules: &'a [Rule],
    cells: &'a BTreeMap<String, Vec<String>>,
}

impl Layout {
    fn new(spec: &SystemSpec, ports: &[u16]) -> Self {
        let names = cell_names(spec.cells);
        let ring = spec.has_ring.then(|| Rule { prefix: format!("{RING}/*"), cell: names.join(" ") });
        let rules = cell_roots(spec.cells).into_iter().zip(&names);
        let rules = rules.map(|(prefix, cell)| Rule { prefix, cell: cell.clone() });
        let addresses = ports.chunks(spec.replicas.max(1));
        let addresses = addresses.map(|ports| ports.iter().map(|port| format!("127.0.0.1:{port}")).collect());
        Self { rules: rules.chain(ring).collect(), cells: names.into_iter().zip(addresses).collect() }
    }

    /// Starts so many proxies, numbered from 1.
    fn start_proxies(
        &self,
        processes: &Processes,
        (kind, count): (&str, usize),
        upstream: &[String],
        home: &Path,
    ) -> anyhow::Result<Vec<(String, Starting)>> {
        let start = |number| {
            let name = format!("{kind}-{number}");
            Ok((String::new(), start_server(processes, "proxy", &name, &self.proxy(upstream), home)?))
        };
        (1..=count).map(start).collect()
    }

    /// Of the replica `id`, counted from 1.
    fn replica<'a>(&'a self, cell: &'a str, id: usize, home: &Path) -> ReplicaConfig<'a> {
        ReplicaConfig {
            cell,
            id,
            listen: &self.cells[cell][id - 1],
            admin: "127.0.0.1:0",
            dir: home.join(format!("data-{cell}-{id}")),
            namespace: NAMESPACE,
            rules: &self.rules,
            cells: &self.cells,
        }
    }

    /// Of a proxy behind these, or before the cells if there are none.
    fn proxy<'a>(&'a self, upstream: &'a [String]) -> ProxyConfig<'a> {
        ProxyConfig {
            listen: "127.0.0.1:0",
            admin: "127.0.0.1:0",
            upstream,
            namespace: NAMESPACE,
            rules: &self.rules,
            cells: &self.cells,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(&SystemSpec { replicas: 2, ..SystemSpec::cells(2).behind(1) }, &[1, 2, 3, 4])
    }

    #[test]
    fn a_replica_is_told_who_it_is_and_where_everybody_else_is() {
        let text = toml::to_string(&layout().replica("b", 2, Path::new("/tmp/x"))).expect("plain");

        assert_eq!(
            text,
            r#"cell = "b"
id = 2
listen = "127.0.0.1:4"
admin = "127.0.0.1:0"
dir = "/tmp/x/data-b-2"
namespace = "load"

[[rules]]
prefix = "/ls/load"
cell = "a"

[[rules]]
prefix = "/ls/load/b"
cell = "b"

[cells]
a = ["127.0.0.1:1", "127.0.0.1:2"]
b = ["127.0.0.1:3", "127.0.0.1:4"]
"#
        );
    }

    #[test]
    fn with_a_ring_there_is_one_rule_more() {
        let spec = SystemSpec { replicas: 2, has_ring: true, ..SystemSpec::cells(2).behind(1) };
        let text = toml::to_string(&Layout::new(&spec, &[1, 2, 3, 4]).proxy(&[])).expect("plain");

        assert!(text.contains("[[rules]]\nprefix = \"/ls/load/spread/*\"\ncell = \"a b\"\n"), "{text}");
    }

    #[test]
    fn a_proxy_is_told_where_the_cells_are() {
        let text = toml::to_string(&layout().proxy(&[])).expect("plain");

        assert!(text.starts_with("listen = \"127.0.0.1:0\"\n") && !text.contains("upstream"), "{text}");
        assert!(text.ends_with("b = [\"127.0.0.1:3\", \"127.0.0.1:4\"]\n"), "{text}");

        let upper = ["127.0.0.1:5".to_owned(), "127.0.0.1:6".to_owned()];
        let text = toml::to_string(&layout().proxy(&upper)).expect("plain");
        assert!(text.contains("\nupstream = [\"127.0.0.1:5\", \"127.0.0.1:6\"]\n"), "{text}");
    }

    #[test]
    fn a_server_says_where_it_serves_and_a_line_without_either_port_is_refused() {
        let ports = Ports { connect: "127.0.0.1:1".into(), admin: "127.0.0.1:2".into() };

        assert_eq!(Ports::of_line("ready connect=127.0.0.1:1 admin=127.0.0.1:2"), Some(ports));
        assert_eq!(Ports::of_line("ready connect=127.0.0.1:1"), None);
        assert_eq!(Ports::of_line("ready admin=127.0.0.1:2"), None);
    }
}
