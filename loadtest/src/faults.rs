//! What is done to the servers while they are under load, and when.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hasp_rt::env::Env;

use crate::mover::Moves;
use crate::processes::{Processes, stop_all};
use crate::status::StatusReader;
use crate::system::System;

/// How long a server that was killed stays away.
const AWAY: Duration = Duration::from_secs(2);

/// One thing that is done to a server, or to the partition map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A proxy is killed, and started again a little later.
    ProxyKill,
    /// A proxy is told to end, and started again as soon as it has.
    ProxyRestart,
    /// A proxy between the cells and the others is killed, and started again a little later.
    UpperProxyKill,
    /// A master is killed, and its replica started again a little later.
    MasterKill,
    /// A master is told to end, and its replica started again as soon as it has.
    MasterRestart,
    /// A prefix of the load moves to another cell.
    Move,
}

/// Another name for [`Fault::ProxyKill`]: every proxy routes for its clients, and no other router is started.
const ROUTER_KILL: &str = "router-kill";

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ProxyKill,
        Self::ProxyRestart,
        Self::UpperProxyKill,
        Self::MasterKill,
        Self::MasterRestart,
        Self::Move,
    ];

    /// As it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProxyKill => "proxy-kill",
            Self::ProxyRestart => "proxy-restart",
            Self::UpperProxyKill => "upper-proxy-kill",
            Self::MasterKill => "master-kill",
            Self::MasterRestart => "master-restart",
            Self::Move => "move",
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == ROUTER_KILL {
            return Ok(Self::ProxyKill);
        }
        let names = || Self::ALL.map(Self::name).join(", ");
        let fault = Self::ALL.into_iter().find(|fault| fault.name() == text);
        fault.ok_or_else(|| format!("there is no fault {text:?}: they are {}, {ROUTER_KILL}", names()))
    }
}

/// Something that is due at some time of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// This goes wrong.
    Do(Fault),
    /// What was killed is started again.
    Restart(Victim),
}

/// A server, by its place in the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// By its number, from 0.
    Proxy(usize),
    /// By its number, from 0.
    UpperProxy(usize),
    /// By its cell's number and its own, from 0.
    Replica(usize, usize),
}

/// Faults in the order in which they come, evenly over the load; each takes the next proxy of its layer, or the next
/// cell's master.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// By when they are due, since the load began; the next last.
    due: Vec<(Duration, Deed)>,
    proxies_hit: Turns,
    upper_proxies_hit: Turns,
    masters_hit: Turns,
}

impl Faults {
    /// These, over a load of that length.
    pub fn over(duration: Duration, faults: &[Fault]) -> Self {
        let count = u32::try_from(faults.len()).unwrap_or(u32::MAX);
        let at = |number: u32| duration * number / (count + 1);
        let due = (1..).zip(faults).map(|(number, fault)| (at(number), Deed::Do(*fault)));
        let mut due: Vec<_> = due.collect();
        due.reverse();
        Self { due, ..Self::default() }
    }

    /// When the next thing is due.
    pub fn next_at(&self) -> Option<Duration> {
        self.due.last().map(|(at, _)| *at)
    }

    /// Takes what is due by then.
    pub fn take_due(&mut self, passed: Duration) -> Option<Deed> {
        self.due.pop_if(|(at, _)| *at <= passed).map(|(_, deed)| deed)
    }

    /// What is still to be started again, due or not.
    pub fn take_restarts(&mut self) -> Vec<Victim> {
        let victim = |(_, deed): (Duration, Deed)| match deed {
            Deed::Restart(victim) => Some(victim),
            Deed::Do(_) => None,
        };
        std::mem::take(&mut self.due).into_iter().rev().filter_map(victim).collect()
    }

    fn restart_later(&mut self, passed: Duration, victim: Victim) {
        let at = passed + AWAY;
        let place = self.due.partition_point(|(other, _)| *other > at);
        self.due.insert(place, (at, Deed::Restart(victim)));
    }
}

/// Whose turn it is among some of a kind: one after the other, and then the first again.
#[derive(Clone, Copy, Debug, Default)]
struct Turns(usize);

impl Turns {
    fn next_of(&mut self, count: usize) -> usize {
        let turn = self.0 % count.max(1);
        self.0 += 1;
        turn
    }
}

/// Does things to the servers of a system.
pub struct Saboteur<'a> {
    /// The world.
    pub env: &'a Env,
    /// Starts them again.
    pub processes: &'a Processes,
    /// Theirs.
    pub system: &'a mut System,
    /// Does the moves.
    pub moves: Option<&'a mut Moves>,
}

impl Saboteur<'_> {
    /// Does what is due; says what was done.
    ///
    /// # Errors
    /// A server could not be found, ended, or started again.
    pub async fn act(&mut self, faults: &mut Faults, passed: Duration, deed: Deed) -> anyhow::Result<String> {
        let fault = match deed {
            Deed::Restart(victim) => return self.restart(victim).await,
            Deed::Do(fault) => fault,
        };
        match fault {
            Fault::ProxyKill => {
                let proxy = Victim::Proxy(faults.proxies_hit.next_of(self.system.proxies.len()));
                self.kill(faults, passed, proxy).await
            }
            Fault::ProxyRestart => {
                let proxy = Victim::Proxy(faults.proxies_hit.next_of(self.system.proxies.len()));
                self.end_and_restart(proxy).await
            }
            Fault::UpperProxyKill => {
                let upper = faults.upper_proxies_hit.next_of(self.system.upper_proxies.len());
                self.kill(faults, passed, Victim::UpperProxy(upper)).await
            }
            Fault::MasterKill => {
                let master = self.next_master(faults).await?;
                self.kill(faults, passed, master).await
            }
            Fault::MasterRestart => {
                let master = self.next_master(faults).await?;
                self.end_and_restart(master).await
            }
            Fault::Move => {
                self.moves.as_mut().context("move a prefix: nobody does")?.ask(passed)?;
                Ok("a prefix is to move".to_owned())
            }
        }
    }

    async fn next_master(&mut self, faults: &mut Faults) -> anyhow::Result<Victim> {
        let cell = faults.masters_hit.next_of(self.system.cells.len());
        Ok(Victim::Replica(cell, self.master_of(cell).await?))
    }

    async fn kill(
        &mut self,
        faults: &mut Faults,
        passed: Duration,
        victim: Victim,
    ) -> anyhow::Result<String> {
        let process = &mut self.server(victim)?.process;
        process.kill().await?;
        faults.restart_later(passed, victim);
        Ok(format!("{} is killed", process.name()))
    }

    async fn end_and_restart(&mut self, victim: Victim) -> anyhow::Result<String> {
        let process = &mut self.server(victim)?.process;
        let name = process.name().to_owned();
        stop_all([process]).await?;
        self.restart(victim).await?;
        Ok(format!("{name} is restarted"))
    }

    /// Starts a server again.
    ///
    /// # Errors
    /// It does not serve again.
    pub async fn restart(&mut self, victim: Victim) -> anyhow::Result<String> {
        let processes = self.processes;
        let server = self.server(victim)?;
        server.restart(processes).await?;
        Ok(format!("{} is back", server.process.name()))
    }

    fn cell_name(&self, cell: usize) -> anyhow::Result<String> {
        self.system.cells.keys().nth(cell).cloned().context("find a cell")
    }

    fn server(&mut self, victim: Victim) -> anyhow::Result<&mut crate::system::Server> {
        let server = match victim {
            Victim::Proxy(index) => self.system.proxies.get_mut(index),
            Victim::UpperProxy(index) => self.system.upper_proxies.get_mut(index),
            Victim::Replica(cell, index) => {
                self.system.cells.values_mut().nth(cell).and_then(|replicas| replicas.get_mut(index))
            }
        };
        server.context("find a server to do something to")
    }

    /// Which replica of a cell is its master; waits for one.
    async fn master_of(&mut self, cell: usize) -> anyhow::Result<usize> {
        self.system.await_masters(self.env).await?;
        let mut reader = StatusReader::new(self.env.clone());
        let replicas = self.system.cells.values().nth(cell).context("find a cell")?;
        for (index, server) in replicas.iter().enumerate() {
            if reader.ask(&server.address).await.is_ok_and(|status| status.is_master()) {
                return Ok(index);
            }
        }
        bail!("cell {} has lost its master just now", self.cell_name(cell)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn faults_come_evenly_and_what_was_killed_comes_back_between_them() {
        let mut faults = Faults::over(seconds(30), &[Fault::ProxyKill, Fault::MasterKill]);

        assert_eq!(faults.next_at(), Some(seconds(10)));
        assert_eq!(faults.take_due(seconds(9)), None);
        assert_eq!(faults.take_due(seconds(10)), Some(Deed::Do(Fault::ProxyKill)));
        faults.restart_later(seconds(10), Victim::Proxy(0));
        assert_eq!(faults.next_at(), Some(seconds(12)));
        assert_eq!(faults.take_due(seconds(25)), Some(Deed::Restart(Victim::Proxy(0))));
        assert_eq!(faults.take_due(seconds(25)), Some(Deed::Do(Fault::MasterKill)));
        faults.restart_later(seconds(29), Victim::Replica(1, 2));

        assert_eq!(faults.take_restarts(), [Victim::Replica(1, 2)], "although the load is over before");
        assert_eq!(faults.next_at(), None);
    }

    #[test]
    fn faults_take_turns_among_those_that_they_may_hit() {
        let mut turns = Turns::default();

        assert_eq!([0; 3].map(|_| turns.next_of(2)), [0, 1, 0]);
    }

    #[test]
    fn a_fault_is_known_by_its_name_and_another_is_refused_with_those_that_are() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }

        assert_eq!("router-kill".parse(), Ok(Fault::ProxyKill));
        let error = "disk-full".parse::<Fault>().expect_err("refused");

        assert!(
            error.contains("disk-full") && error.contains("master-restart, move, router-kill"),
            "{error}"
        );
    }
}
