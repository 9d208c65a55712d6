//! How a client finds its service: asks the addresses it was given what they are.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use hasp_proto::client::cache::CACHE_BYTES;
use hasp_proto::convert::map_from_wire;
use hasp_proto::limits::{GRACE, GRACE_MAX, PRINCIPAL_BYTES_MAX};
use hasp_proto::wire::v1::locate_reply::Host;
use hasp_proto::wire::v1::{LocateReply, LocateRequest};
use hasp_router::links::Connections;
use hasp_router::upstream::Hosts;
use hasp_rt::env::Env;
use hasp_rt::rpc::Profile;
use hasp_rt::rpc::client::dial;

use crate::error::CallError;
use crate::timers::Timers;

/// How long one address may take to say what it is, however many there are.
const LOCATE_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// The same, however few there are.
const LOCATE_TIMEOUT_MAX: Duration = Duration::from_secs(2);
/// Pause after the first round in which nobody answered; doubles with every round.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two rounds.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How to connect.
#[derive(Clone)]
pub struct ConnectOptions {
    /// `host:port` of proxies or routers, or of replicas of any cell.
    pub targets: Vec<String>,
    /// As whom to act.
    pub principal: String,
    /// How long to try to reach the service.
    pub timeout: Duration,
    /// Which TCP connections to use; `None`: one of its own.
    pub connections: Option<Connections>,
    /// How long a session in jeopardy waits for a host before it expires, at most a minute.
    pub grace: Duration,
    /// Who wakes the client; `None`: a task of its own. Thousands of clients should share one.
    pub timers: Option<Timers>,
    /// Whether to keep what is read and answer with it, as strict as if the service were asked.
    pub cache: bool,
    /// How many bytes to keep, about.
    pub cache_bytes: usize,
    /// Whether to end a session that has had no handles and no calls for a minute. The next call begins
    /// another, and nobody is told.
    pub ends_idle: bool,
    /// Whether to learn from the namespace which proxies there are (`/ls/<ns>/.hasp/proxies`), and to go to these when
    /// the one in use is lost. Until there is such a list the targets are used.
    pub follows_list: bool,
}

impl ConnectOptions {
    /// The service at these addresses, as nobody in particular, tried for ten seconds.
    pub fn new<T: Into<String>>(targets: impl IntoIterator<Item = T>) -> Self {
        Self {
            targets: targets.into_iter().map(Into::into).collect(),
            principal: "anonymous".into(),
            timeout: Duration::from_secs(10),
            connections: None,
            grace: GRACE,
            timers: None,
            cache: true,
            cache_bytes: CACHE_BYTES,
            ends_idle: true,
            follows_list: true,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConnectError> {
        let invalid = |text: String| Err(ConnectError::Invalid(text));
        if self.principal.is_empty() || self.principal.len() > PRINCIPAL_BYTES_MAX {
            return invalid(format!("a principal has 1 to {PRINCIPAL_BYTES_MAX} bytes"));
        }
        if self.targets.is_empty() {
            return invalid("no address to connect to".into());
        }
        if self.grace > GRACE_MAX {
            return invalid(format!("a grace period of {:?}, the longest is {GRACE_MAX:?}", self.grace));
        }
        Ok(())
    }
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The options make no sense. The calling program is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Nobody answered in time. Try again later, or elsewhere.
    #[error("{}", list(.0))]
    Unreachable(Vec<Tried>),
    /// Who answered does not want this session. Trying again does not help.
    #[error("{0}")]
    Refused(CallError),
}

/// An address that was tried, and why it was of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// As it was given.
    pub address: String,
    /// For people.
    pub why: String,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Errors of connections name the address already.
        if self.why.contains(&self.address) {
            return f.write_str(&self.why);
        }
        write!(f, "{}: {}", self.address, self.why)
    }
}

fn list(tried: &[Tried]) -> String {
    tried.iter().map(Tried::to_string).collect::<Vec<_>>().join("; ")
}

/// What is at the addresses: found once, good for any number of clients.
#[derive(Clone, Debug)]
pub struct Service {
    pub(crate) hosts: Hosts,
    /// As they were given, if any of them will do.
    pub(crate) names: Vec<String>,
}

/// Names that may stand for other addresses later: looked up again when no host is to be found.
#[derive(Clone)]
pub(crate) struct Names {
    env: Env,
    names: Vec<String>,
}

impl Names {
    pub(crate) fn new(env: &Env, names: Vec<String>) -> Self {
        Self { env: env.clone(), names }
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The addresses that they stand for, each once.
    pub(crate) async fn look_up(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for name in &self.names {
            // A name that cannot be looked up now may be when it is connected to.
            let addresses = self.env.transport.resolve(name).await.unwrap_or_else(|_| vec![name.clone()]);
            found.extend(addresses);
        }
        let mut seen = BTreeSet::new();
        found.retain(|address| seen.insert(address.clone()));
        found
    }
}

impl Service {
    /// Asks the addresses, round and round, until one says what it is.
    ///
    /// Behind a proxy or router one session serves all cells, and all addresses, and all that a name stands
    /// for, are held to be of that kind. A replica tells its map, and the client goes to each cell's master by itself.
    ///
    /// # Errors
    /// If there is no address, or nobody answers within `timeout`: why not, for each address.
    pub async fn locate(targets: &[String], timeout: Duration, env: &Env) -> Result<Self, ConnectError> {
        if targets.is_empty() {
            return Err(ConnectError::Invalid("no address to connect to".into()));
        }
        let end = env.clock.now() + timeout;
        // One that is silent leaves time for the others.
        let share = timeout / u32::try_from(targets.len()).unwrap_or(u32::MAX);
        let patience = share.clamp(LOCATE_TIMEOUT_MIN, LOCATE_TIMEOUT_MAX);
        let mut tried: Vec<Tried> = Vec::new();
        let mut pause = PAUSE_MIN;
        loop {
            for address in starting_anywhere(targets, env) {
                let left = end.saturating_since(env.clock.now());
                if left.is_zero() {
                    return Err(ConnectError::Unreachable(complete(tried, targets)));
                }
                match ask(&address, left.min(patience), env).await {
                    Ok(reply) => match hosts(&reply, targets) {
                        Ok(Hosts::One(_)) => {
                            let names = Names::new(env, targets.to_vec());
                            return Ok(Self { hosts: Hosts::one(names.look_up().await), names: names.names });
                        }
                        Ok(hosts) => return Ok(Self { hosts, names: Vec::new() }),
                        Err(why) => note(&mut tried, address, why),
                    },
                    Err(why) => note(&mut tried, address, why),
                }
            }
            let left = end.saturating_since(env.clock.now());
            env.clock.sleep(pause.min(left)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// All of them, in their order, from a random one on: many clients should not all ask the first.
fn starting_anywhere(targets: &[String], env: &Env) -> Vec<String> {
    let count = targets.len();
    let first = env.seeds.stream("locate").below(count as u64);
    let mut order = targets.to_vec();
    order.rotate_left(usize::try_from(first).unwrap_or(0));
    order
}

async fn ask(address: &str, timeout: Duration, env: &Env) -> Result<LocateReply, String> {
    let asking = async {
        let connection = dial(env, address, &Profile::clients(), timeout).await;
        let mut hasp = connection.map_err(|error| error.to_string())?.hasp();
        hasp.locate(LocateRequest {}).await.map_err(|status| status.message().to_owned())
    };
    match tokio::time::timeout(timeout, asking).await {
        Ok(reply) => reply.map(tonic::Response::into_inner),
        Err(_) => Err("no answer in time".into()),
    }
}

/// Where sessions are to be held, by what the host says that it is.
fn hosts(reply: &LocateReply, targets: &[String]) -> Result<Hosts, String> {
    match reply.host() {
        Host::Proxy | Host::Router => Ok(Hosts::one(targets.to_vec())),
        Host::Replica => {
            let map = reply.map.as_ref().ok_or("the replica knows no partition map yet")?;
            let map = map_from_wire(map).map_err(|error| format!("bad partition map: {error}"))?;
            Ok(Hosts::Cells(map))
        }
        Host::Unspecified => Err("it does not say what it is".into()),
    }
}

/// The last reason for each address.
fn note(tried: &mut Vec<Tried>, address: String, why: String) {
    match tried.iter_mut().find(|tried| tried.address == address) {
        Some(known) => known.why = why,
        None => tried.push(Tried { address, why }),
    }
}

/// In the order given, with those that the time did not suffice for.
fn complete(mut tried: Vec<Tried>, targets: &[String]) -> Vec<Tried> {
    for address in targets {
        if tried.iter().all(|tried| tried.address != *address) {
            tried.push(Tried { address: address.clone(), why: "not tried, the time was up".into() });
        }
    }
    tried.sort_by_key(|tried| targets.iter().position(|address| *address == tried.address));
    tried
}

#[cfg(test)]
mod tests {
    use hasp_proto::wire::v1::PartitionMap;

    use super::*;

    fn targets() -> Vec<String> {
        ["h:1", "h:2"].map(str::to_owned).to_vec()
    }

    fn reply(host: Host, map: Option<PartitionMap>) -> LocateReply {
        LocateReply { host: host.into(), cell: String::new(), master: String::new(), map }
    }

    #[test]
    fn a_proxy_is_one_host_and_a_replica_shows_the_cells() {
        let map = PartitionMap {
            version: 1,
            namespace: "dev".into(),
            rules: vec![hasp_proto::wire::v1::PartitionRule { prefix: "/ls/dev".into(), cell: "a".into() }],
            cells: vec![hasp_proto::wire::v1::CellAddresses { cell: "a".into(), replicas: targets() }],
            rings: vec![],
            next: None,
        };

        assert!(
            matches!(hosts(&reply(Host::Proxy, None), &targets()), Ok(Hosts::One(all)) if all.members() == targets())
        );
        assert!(matches!(hosts(&reply(Host::Router, None), &targets()), Ok(Hosts::One(_))));
        assert!(matches!(hosts(&reply(Host::Replica, Some(map)), &targets()), Ok(Hosts::Cells(_))));
    }

    #[test]
    fn a_host_that_cannot_say_where_the_cells_are_is_of_no_use() {
        assert!(hosts(&reply(Host::Replica, None), &targets()).is_err());
        assert!(hosts(&reply(Host::Replica, Some(PartitionMap::default())), &targets()).is_err());
        assert!(hosts(&reply(Host::Unspecified, None), &targets()).is_err());
    }

    #[test]
    fn the_error_says_why_each_address_failed_in_the_order_given() {
        let mut tried = Vec::new();
        note(&mut tried, "h:2".into(), "connect to h:2: refused".into());
        note(&mut tried, "h:2".into(), "connect to h:2: reset".into());

        let error = ConnectError::Unreachable(complete(tried, &targets()));

        assert_eq!(error.to_string(), "h:1: not tried, the time was up; connect to h:2: reset");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_there_is_told_after_the_timeout() {
        let env = Env::in_memory(1);

        let error = Service::locate(&targets(), Duration::from_secs(10), &env).await.err().unwrap();

        assert_eq!(env.clock.now().as_micros(), 10_000_000);
        assert!(matches!(error, ConnectError::Unreachable(tried) if tried.len() == 2));
    }

    #[test]
    fn options_without_address_or_principal_are_refused() {
        let good = ConnectOptions::new(["h:1"]);
        assert_eq!(good.check(), Ok(()));
        assert!(ConnectOptions::new::<String>([]).check().is_err());
        assert!(ConnectOptions { principal: String::new(), ..good.clone() }.check().is_err());
        assert!(ConnectOptions { principal: "x".repeat(256), ..good }.check().is_err());
    }
}
