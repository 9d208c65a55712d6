//! P-LOCK and P-SEQ: those who believe that they hold a lock may do so together; and nothing is done under a sequencer
//! once a newer acquisition stands.

use hasp_proto::name::Name;
use hasp_proto::node::LockMode;
use hasp_proto::request::Reply;

use super::super::history::{History, What};
use super::super::world::World;
use super::Findings;
use super::reads::describe;

/// A lock that somebody believes to hold.
#[derive(Clone, Debug)]
pub struct Believed {
    /// Of which node.
    pub name: Name,
    /// Who.
    pub client: usize,
    /// How.
    pub mode: LockMode,
    /// Of the acquisition.
    pub lock_generation: u64,
}

impl World {
    /// To be called when somebody may have begun to believe that a lock is held.
    pub fn check_locks(&mut self) {
        let mut findings = Findings::default();
        check_together(&self.believed_locks(), &mut findings);
        self.counts.checks += findings.checks;
        findings.broken.into_iter().for_each(|what| self.break_promise(what));
    }
}

/// Whoever holds one lock at the same moment may do so together.
pub fn check_together(held: &[Believed], findings: &mut Findings) {
    for (at, one) in held.iter().enumerate() {
        for other in &held[at + 1..] {
            let is_shared = one.mode == LockMode::Shared && other.mode == LockMode::Shared;
            let may_be = one.name != other.name || one.client == other.client || is_shared;
            findings.expect(may_be, || {
                let who = |it: &Believed| {
                    format!("c{} {:?} under generation {}", it.client + 1, it.mode, it.lock_generation)
                };
                format!("P-LOCK: {} is held by {} and by {}", one.name, who(one), who(other))
            });
        }
    }
}

/// Checks what was done under sequencers.
pub fn check(history: &History, findings: &mut Findings) {
    for asked in &history.asked {
        let (What::Guarded { lock, lock_generation, .. }, Some(Reply::Written { .. })) =
            (&asked.what, asked.reply())
        else {
            continue;
        };
        let Some(position) = asked.told.as_ref().and_then(|told| told.position.as_ref()) else { continue };
        let Some(truth) = history.truth(position).filter(|truth| !truth.versions[lock].is_empty()) else {
            continue;
        };
        let current = truth.node_at(lock, position.index).map(|(stat, _)| stat.lock_generation.0);
        findings.expect(current == Some(*lock_generation), || {
            format!(
                "P-SEQ: {} was done at {position}, when the lock's generation was {current:?}",
                describe(asked)
            )
        });
    }
}
