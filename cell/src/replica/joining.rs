//! How a replica comes to belong to its cell.
//!
//! A cell that does not exist is founded by the replica with the lowest id, and only after every configured replica has
//! answered that it knows of no cell. First each of them marks its directory as a founder's; only then does the lowest
//! write the first entry. So a replica whose directory is empty although a peer knows the cell has lost its disk: it
//! must not found anything, and may not vote before it holds at least what was committed when the leader heard of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::WatchReceiver as _;
use openraft::{BasicNode, Raft};

use super::applier::Applier;
use super::config::ReplicaConfig;
use super::connect::{Link, Peers};
use super::gate::{Gate, Standing};
use super::identity::{Home, Identity};
use super::machine::Machine;
use super::service::is_initialised;
use super::types::{LogId, Types};
use super::wire::{self, pb};

const ASK_DEADLINE: Duration = Duration::from_millis(500);
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Brings one replica into its cell.
pub struct Joining<M: Machine> {
    pub config: ReplicaConfig,
    pub home: Home,
    pub gate: Arc<Gate>,
    pub peers: Peers,
    pub raft: Raft<Types, Applier<M>>,
}

/// What the peers said when they were asked who they are.
enum Found {
    /// Some peer knows the cell.
    Cell,
    /// All peers answered, and none knows a cell.
    NoCell,
    /// Not all answered.
    Unclear,
}

impl<M: Machine> Joining<M> {
    /// Works until the replica is a member of its cell. Errors are reported and tried again: all of them are the
    /// network's, the disk's or the operator's.
    pub async fn run(self) {
        let mut last_complaint = String::new();
        loop {
            let step = match self.gate.standing() {
                Standing::Member => return,
                Standing::Empty | Standing::Founder => self.look_for_cell().await,
                Standing::Rebuilding { .. } => self.rebuild().await,
            };
            if let Err(complaint) = step
                && complaint != last_complaint
            {
                tracing::warn!(
                    cell = self.config.cell,
                    replica = self.config.id,
                    complaint,
                    "not in the cell yet"
                );
                last_complaint = complaint;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn look_for_cell(&self) -> Result<(), String> {
        if is_initialised(&self.raft) {
            self.gate.become_member();
            return Ok(());
        }
        match self.ask_all().await? {
            Found::Cell => self.begin_rebuild().await,
            Found::NoCell if self.config.peers.keys().next() == Some(&self.config.id) => {
                self.found_cell().await
            }
            Found::NoCell | Found::Unclear => Ok(()),
        }
    }

    async fn ask_all(&self) -> Result<Found, String> {
        let answers =
            join_all(self.peers.iter().map(|(id, peer)| identify(&self.config.cell, id, &peer.control)))
                .await;
        let mut all_answered = true;
        let mut complaint = None;
        for answer in answers {
            match answer {
                Ok(pb::Standing::Initialised | pb::Standing::Rebuilding) => return Ok(Found::Cell),
                Ok(pb::Standing::Empty | pb::Standing::Founder | pb::Standing::Unspecified) => {}
                Err(Unanswered::Silent) => all_answered = false,
                Err(Unanswered::Stranger(text)) => complaint = Some(text),
            }
        }
        match (complaint, all_answered) {
            (Some(complaint), _) => Err(complaint),
            (None, true) => Ok(Found::NoCell),
            (None, false) => Ok(Found::Unclear),
        }
    }

    async fn found_cell(&self) -> Result<(), String> {
        let founded = join_all(self.peers.iter().map(|(_, peer)| found(&peer.control))).await;
        if !founded.into_iter().all(|founded| founded) {
            return Ok(());
        }
        {
            let _one_or_the_other = self.gate.joining.lock().await;
            self.home.claim().await.map_err(|error| format!("write the identity file: {error}"))?;
            if self.gate.found() != Standing::Founder {
                return Ok(());
            }
        }
        let members: BTreeMap<u64, BasicNode> =
            self.config.peers.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
        tracing::info!(cell = self.config.cell, replicas = members.len(), "founding the cell");
        self.raft.initialize(members).await.map_err(|error| format!("found the cell: {error}"))
    }

    /// An empty replica of a cell that exists begins to rebuild; a founder only waits for its leader.
    async fn begin_rebuild(&self) -> Result<(), String> {
        let _one_or_the_other = self.gate.joining.lock().await;
        if self.gate.standing() != Standing::Empty {
            return Ok(());
        }
        self.home.begin_rebuild().await.map_err(|error| format!("mark the rebuild: {error}"))?;
        self.gate.begin_rebuild();
        let Identity { cell, id } = Identity { cell: self.config.cell.clone(), id: self.config.id };
        tracing::warn!(
            cell,
            replica = id,
            "directory is empty but the cell exists: rebuilding from the leader"
        );
        Ok(())
    }

    async fn rebuild(&self) -> Result<(), String> {
        let answers = join_all(self.peers.iter().map(|(_, peer)| rejoin(&peer.control))).await;
        let Some(committed) = answers.into_iter().flatten().max() else { return Ok(()) };
        self.gate.accept_entries();
        let mut metrics = self.raft.metrics();
        let caught_up = metrics.wait_until(|metrics| metrics.last_applied >= Some(committed)).await;
        caught_up.map_err(|_| "raft has stopped".to_owned())?;

        self.home.end_rebuild().await.map_err(|error| format!("end the rebuild: {error}"))?;
        self.gate.become_member();
        tracing::info!(cell = self.config.cell, replica = self.config.id, %committed, "rebuilt");
        Ok(())
    }
}

enum Unanswered {
    Silent,
    /// Somebody else is behind the address.
    Stranger(String),
}

/// Asks a peer for its standing, and confirms that it is the one that the configuration means.
async fn identify(cell: &str, id: u64, link: &Link) -> Result<pb::Standing, Unanswered> {
    let request = pb::IdentifyRequest { addressed: Some(link.addressed()) };
    let answer = link
        .call(ASK_DEADLINE, |mut client| async move { client.identify(request).await })
        .await
        .map_err(|_| Unanswered::Silent)?;
    let standing = answer.standing();
    if answer.cell != cell || answer.id != id {
        let wanted = Identity { cell: cell.to_owned(), id };
        let there = Identity { cell: answer.cell, id: answer.id };
        return Err(Unanswered::Stranger(format!("{} answers with {there}, not {wanted}", link.address())));
    }
    Ok(standing)
}

async fn found(link: &Link) -> bool {
    let request = pb::FoundRequest { addressed: Some(link.addressed()) };
    let answer = link.call(ASK_DEADLINE, |mut client| async move { client.found(request).await }).await;
    answer.is_ok_and(|answer| answer.standing() == pb::Standing::Founder)
}

async fn rejoin(link: &Link) -> Option<LogId> {
    let request = pb::RejoinRequest { addressed: Some(link.addressed()) };
    let answer =
        link.call(ASK_DEADLINE, |mut client| async move { client.rejoin(request).await }).await.ok()?;
    answer.committed.filter(|_| answer.leader).map(wire::get_log_id)
}
