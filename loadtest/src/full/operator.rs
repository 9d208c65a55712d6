//! An operator of two cells: changes the partition map while clients are at work, again and again, takes a change back now
//! and then, and goes on with what it finds half done, also after it has died.

use std::time::Duration;

use anyhow::ensure;
use hasp_client::Env;
use hasp_proto::id::CellName;
use hasp_proto::name::Name;
use hasp_proto::partition::{Change, PartitionMap, Prefix, Standing};
use hasp_rt::rng::Rng;

use super::journal::Journal;
use super::layout::Shape;
use super::plan::index;
use super::relocation::Outcome;
use crate::mover::Mover;
use crate::moves;

/// The operator's number among clients.
pub const OPERATOR: usize = 90;
/// Longest time from the end of a change to the next.
const PAUSE_MAX_MS: u64 = 2_500;
/// Before what was refused is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// One of so many changes is taken back.
const RECALLED_IN: u64 = 6;
/// Longest time from the beginning of a change until it is taken back.
const RECALL_MAX_MS: u64 = 400;

/// Who it is, wherever it runs.
#[derive(Clone)]
pub struct Operator {
    /// Addresses of proxies or of replicas of the home cell.
    pub targets: Vec<String>,
    /// Where it notes what it does.
    pub journal: Journal,
    /// What may move.
    pub shape: Shape,
}

impl Operator {
    /// One change after another, until told to stop; the last is over then.
    ///
    /// # Errors
    /// None: what goes wrong is in the journal.
    pub async fn live(self, env: Env) -> turmoil::Result {
        let mut rng = env.seeds.stream("operator");
        let mut mover = None;
        self.journal.is_at(OPERATOR, "the map");
        while !self.journal.is_stopping() || self.journal.relocation().is_some() {
            match self.step(&env, &mut mover, &mut rng).await {
                Ok(()) => self.journal.success(OPERATOR),
                Err(error) => {
                    // Whatever it is, the next try has a session of its own.
                    mover = None;
                    self.journal.tell(&format!("operator: {error:#}"));
                    env.clock.sleep(AGAIN).await;
                }
            }
        }
        self.journal.is_done(OPERATOR);
        Ok(())
    }

    async fn step(&self, env: &Env, mover: &mut Option<Mover>, rng: &mut Rng) -> anyhow::Result<()> {
        let mover = match mover {
            Some(mover) => mover,
            None => mover.insert(Mover::connect(env, self.targets.clone(), "dev").await?),
        };
        let Some(relocation) = self.journal.relocation() else {
            env.clock.sleep(Duration::from_millis(rng.below(PAUSE_MAX_MS))).await;
            return self.begin(mover, rng).await;
        };
        let changing = relocation.changing;
        let (map, generation) = mover.read().await?;
        if map.version < changing.version {
            // It was not written, or not yet: then this is refused.
            mover.write(&changing, generation).await?;
            return Ok(());
        }
        if relocation.is_recalled && map.version == changing.version {
            env.clock.sleep(Duration::from_millis(rng.below(RECALL_MAX_MS))).await;
            // If that is refused it is done.
            mover.write(&map.unchanged(), generation).await?;
        }
        self.await_end(mover, &changing, relocation.is_recalled).await
    }

    /// Notes what is to be, so that it is known whatever becomes of this operator.
    async fn begin(&self, mover: &Mover, rng: &mut Rng) -> anyhow::Result<()> {
        if self.journal.is_stopping() {
            return Ok(());
        }
        let (map, _) = mover.read().await?;
        let changing = map.changing(self.next_change(&map, rng)?)?;
        self.journal.relocates(changing, rng.below(RECALLED_IN) == 0);
        Ok(())
    }

    async fn await_end(
        &self,
        mover: &Mover,
        changing: &PartitionMap,
        is_recalled: bool,
    ) -> anyhow::Result<()> {
        let outcome = match mover.end_of(changing).await? {
            Standing::Done(_) => Outcome::Done,
            Standing::GivenUp(why) => {
                if !is_recalled {
                    self.journal.problem(format!("P-MOVE: a change was given up: {why}"));
                }
                Outcome::GivenUp
            }
            Standing::Moving => unreachable!("waited for its end"),
        };
        self.journal.relocated(outcome);
        Ok(())
    }

    fn next_change(&self, map: &PartitionMap, rng: &mut Rng) -> anyhow::Result<Change> {
        let (plain, rings): (Vec<Prefix>, Vec<Prefix>) =
            self.shape.movable().into_iter().partition(|prefix| matches!(prefix, Prefix::Below(_)));
        if rings.is_empty() || rng.below(2) == 0 {
            let names: Vec<Name> = plain.iter().map(|prefix| prefix.name().clone()).collect();
            return moves::next_change(map, &names, rng);
        }
        let prefix = rings[index(rng, rings.len())].clone();
        let all: Vec<CellName> = map.cells.keys().cloned().collect();
        let now = map.cells_of(&prefix);
        ensure!(!now.is_empty(), "{prefix} has lost its rule");
        let is_whole = now.len() == all.len();
        let cells = if is_whole { vec![all[index(rng, all.len())].clone()] } else { all };
        Ok(Change { prefix, cells })
    }
}
