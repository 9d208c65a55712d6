//! P-LOCK and P-SEQ: those who believe that they hold a lock may do so together; and nothing is done under a sequencer
//! once a newer acquisition stands.

use hasp_proto::node::LockMode;
use hasp_proto::request::Reply;

use super::super::history::{History, What};
use super::super::world::World;
use super::Findings;
use super::reads::describe;

impl World {
    /// To be called when somebody may have begun to believe that a lock is held.
    pub fn check_locks(&mut self) {
        let held = self.believed_locks();
        for (at, (name, client, mode, generation)) in held.iter().enumerate() {
            for (other_name, other, other_mode, other_generation) in &held[at + 1..] {
                let is_shared = *mode == LockMode::Shared && *other_mode == LockMode::Shared;
                self.counts.checks += 1;
                if name == other_name && client != other && !is_shared {
                    self.break_promise(format!(
                        "P-LOCK: c{} holds {name} {mode:?} of generation {generation}, and c{} {other_mode:?} of generation \
                         {other_generation}",
                        client + 1,
                        other + 1
                    ));
                }
            }
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
        let Some(truth) =
            history.truths.values().find(|truth| truth.versions[lock].iter().any(|it| it.node.is_some()))
        else {
            continue;
        };
        if !truth.state.position().cell.eq(&position.cell) {
            continue;
        }
        let current = truth.node_at(lock, position.index).map(|(stat, _)| stat.lock_generation.0);
        findings.expect(current == Some(*lock_generation), || {
            format!(
                "P-SEQ: {} was done at {position}, when the lock's generation was {current:?}",
                describe(asked)
            )
        });
    }
}
