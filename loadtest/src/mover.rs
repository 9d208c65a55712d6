//! Lets prefixes move to other cells, as an administrator would, and waits until they have.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hasp_client::{
    Client, ConnectOptions, Env, ErrorCode, EventKind, EventMask, Generation, Handle, HandleEvent, LockMode,
    OpenOptions,
};
use hasp_proto::partition::{Change, PARTITIONS_FILE, PartitionMap, Standing};
use hasp_proto::time::Time;
use hasp_rt::rng::{Rng, Seeds};
use tokio::sync::mpsc;

use crate::moves::{self, MoveRecord};
use crate::tree::TreeSpec;

/// Who may change the map.
const ADMIN: &str = "admin";
/// How long a move of the load test may take.
const MOVE_DEADLINE: Duration = Duration::from_secs(30);
/// How long it may take to reach the service, and to look at what came of a move.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);
/// The map file is looked at so often even if nothing is told of it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// From one write of the probe to the next.
const PULSE: Duration = Duration::from_millis(10);
/// Moves waiting to be done, more than there are ever faults.
const ORDERS: usize = 1_024;

/// Writes changes into the map file.
pub struct Mover {
    env: Env,
    /// Kept: the session ends with it.
    _client: Client,
    file: Handle,
}

/// A change that is done.
#[derive(Clone, Debug)]
pub struct Moved {
    /// The map with the change under way.
    pub changing: PartitionMap,
    /// When it was written.
    pub began: Time,
    /// When the file said that it was done.
    pub ended: Time,
}

impl Mover {
    /// Connects to one of these proxies or replicas.
    ///
    /// # Errors
    /// None is reached, or the map file cannot be opened to be written.
    pub async fn connect(env: &Env, targets: Vec<String>, namespace: &str) -> anyhow::Result<Self> {
        let options =
            ConnectOptions { principal: ADMIN.into(), ends_idle: false, ..ConnectOptions::new(targets) };
        let client = Client::connect(options, env).await.context("connect as admin")?;
        let events = EventMask::of([EventKind::ContentsModified, EventKind::HandleInvalid]);
        let opened = client
            .open(format!("/ls/{namespace}/{PARTITIONS_FILE}"), OpenOptions::write().events(events))
            .await;
        let file = opened.context("open the partition map")?.handle;
        Ok(Self { env: env.clone(), _client: client, file })
    }

    /// Makes the change that `decide` wants of the map as it is, and waits until it is done.
    ///
    /// # Errors
    /// It is refused or given up: why. It takes longer than `deadline`.
    pub async fn change(
        &self,
        mut decide: impl FnMut(&PartitionMap) -> anyhow::Result<Change>,
        deadline: Duration,
        mut begun: impl FnMut(&PartitionMap),
    ) -> anyhow::Result<Moved> {
        let changing = async {
            let (changing, began) = self.begin(&mut decide).await?;
            begun(&changing);
            if let Standing::GivenUp(why) = self.end_of(&changing).await? {
                bail!("given up: {why}");
            }
            let ended = self.env.clock.now();
            anyhow::Ok(Moved { changing, began, ended })
        };
        let done = tokio::time::timeout(deadline, changing).await;
        done.with_context(|| format!("not done after {} s", deadline.as_secs()))?
    }

    async fn begin(
        &self,
        decide: &mut impl FnMut(&PartitionMap) -> anyhow::Result<Change>,
    ) -> anyhow::Result<(PartitionMap, Time)> {
        loop {
            let (map, generation) = self.read().await?;
            let changing = map.changing(decide(&map)?)?;
            let began = self.env.clock.now();
            // If not: the end of the change before, seen late.
            if self.write(&changing, generation).await? {
                return Ok((changing, began));
            }
        }
    }

    /// The map as its file shows it, and that file's generation.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read(&self) -> anyhow::Result<(PartitionMap, Generation)> {
        let read = self.file.get_contents_and_stat().await.context("read the partition map")?;
        let map = PartitionMap::parse(&read.contents).context("read the partition map")?;
        Ok((map, read.stat.content_generation))
    }

    /// Writes a map if the file has not changed since that generation. Whether it has not.
    ///
    /// # Errors
    /// It is refused, or whether it was written is not known.
    pub async fn write(&self, map: &PartitionMap, if_generation: Generation) -> anyhow::Result<bool> {
        match self.file.set_contents(map.to_file(), Some(if_generation)).await {
            Ok(_) => Ok(true),
            Err(error) if error.code == ErrorCode::GenerationMismatch => Ok(false),
            Err(error) => Err(error).context("write the partition map"),
        }
    }

    /// Waits until the change that was under way in a map is done or given up.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub async fn end_of(&self, changing: &PartitionMap) -> anyhow::Result<Standing> {
        let mut events = self.file.events();
        loop {
            let read = self.file.get_contents_and_stat().await.context("read the partition map")?;
            match Standing::of(changing, &read.contents)? {
                Standing::Moving => {}
                ended => return Ok(ended),
            }
            tokio::select! {
                biased;
                told = events.next() => match told {
                    Some(HandleEvent::Happened(_) | HandleEvent::EventsLost(_)) => {}
                    Some(HandleEvent::Invalid(error)) => return Err(error).context("watch the partition map"),
                    None => bail!("the partition map is watched no more"),
                },
                () = self.env.clock.sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

/// Moves of directories of the load, done one after another by a task beside the load.
pub struct Moves {
    orders: mpsc::Sender<Duration>,
    records: mpsc::Receiver<MoveRecord>,
    /// Asked for, and not heard of since.
    waiting: usize,
}

impl Moves {
    /// Of the roots of this tree, drawn from the seed.
    ///
    /// # Errors
    /// A root is no name.
    pub fn start(env: &Env, targets: &[String], tree: &TreeSpec, seed: u64) -> anyhow::Result<Self> {
        let (orders, orders_in) = mpsc::channel(ORDERS);
        let (records_in, records) = mpsc::channel(ORDERS);
        let work = MoveWork {
            env: env.clone(),
            targets: targets.to_vec(),
            directories: moves::directories(&tree.roots)?,
            rng: Seeds::from_seed(seed).stream("moves"),
        };
        env.tasks.spawn("moves", work.run(orders_in, records_in));
        Ok(Self { orders, records, waiting: 0 })
    }

    /// Asks for one; so long after the load began.
    ///
    /// # Errors
    /// Nobody does them any more.
    pub fn ask(&mut self, passed: Duration) -> anyhow::Result<()> {
        self.orders.try_send(passed).context("ask for a move")?;
        self.waiting += 1;
        Ok(())
    }

    /// The next that has ended, if one has.
    pub fn take_ended(&mut self) -> Option<MoveRecord> {
        let record = self.records.try_recv().ok()?;
        self.waiting -= 1;
        Some(record)
    }

    /// Waits for the next that ends; `None` if none is left. Each has its deadline.
    pub async fn ended(&mut self) -> Option<MoveRecord> {
        if self.waiting == 0 {
            return None;
        }
        self.waiting -= 1;
        self.records.recv().await
    }
}

/// Does them.
struct MoveWork {
    env: Env,
    targets: Vec<String>,
    directories: Vec<hasp_proto::name::Name>,
    rng: Rng,
}

impl MoveWork {
    async fn run(mut self, mut orders: mpsc::Receiver<Duration>, records: mpsc::Sender<MoveRecord>) {
        let mut mover = None;
        while let Some(passed) = orders.recv().await {
            let mut record = MoveRecord { at_s: passed.as_secs_f64(), ..MoveRecord::default() };
            if let Err(error) = self.one(&mut mover, &mut record).await {
                // Whatever it is, the next has a session of its own.
                mover = None;
                record.failure = Some(format!("{error:#}"));
            }
            if records.send(record).await.is_err() {
                return;
            }
        }
    }

    async fn one(&mut self, mover: &mut Option<Mover>, record: &mut MoveRecord) -> anyhow::Result<()> {
        let namespace = self.directories[0].namespace().to_owned();
        let mover = match mover {
            Some(mover) => mover,
            None => mover.insert(Mover::connect(&self.env, self.targets.clone(), &namespace).await?),
        };
        // Decided before the probe goes where it is to be.
        let (map, _) = mover.read().await?;
        let change = moves::next_change(&map, &self.directories, &mut self.rng)?;
        moves::kind_of(&map, &change).clone_into(&mut record.kind);
        record.prefix = change.prefix.to_string();
        if let Some((from, to)) = map.changing(change.clone())?.journeys().first() {
            (record.from, record.to) = (from.to_string(), to.to_string());
        }
        let probe = Probe::place(&self.env, &self.targets, change.prefix.name().as_str()).await?;
        let is_over = AtomicBool::new(false);
        let moving = async {
            let moved = mover.change(|_| Ok(change.clone()), MOVE_DEADLINE, |_| {}).await;
            is_over.store(true, Ordering::Release);
            moved
        };
        let (moved, paused) = tokio::join!(moving, probe.pulse(&is_over));
        let moved = moved?;
        record.seconds = Some(moved.ended.saturating_since(moved.began).as_secs_f64());
        record.pause_ms = Some(paused.context("write below the prefix")?.as_secs_f64() * 1_000.0);
        let taken = tokio::time::timeout(LOOK_DEADLINE, probe.take_away()).await;
        taken.context("look at what moved: no answer")?
    }
}

/// A file below a prefix that is written again and again while that moves, by a session that holds its lock.
struct Probe {
    env: Env,
    client: Client,
    file: Handle,
    lock_generation: u64,
}

impl Probe {
    async fn place(env: &Env, targets: &[String], directory: &str) -> anyhow::Result<Self> {
        let options = ConnectOptions {
            principal: "loadtest".into(),
            ends_idle: false,
            ..ConnectOptions::new(targets.to_vec())
        };
        let placing = async {
            let client = Client::connect(options, env).await.context("connect a probe")?;
            let opened = client.open(format!("{directory}/probe"), OpenOptions::create_file("")).await;
            let file = opened.context("create a probe")?.handle;
            let acquired = file.acquire(LockMode::Exclusive).await.context("lock a probe")?;
            anyhow::Ok(Self { env: env.clone(), client, file, lock_generation: acquired.lock_generation.0 })
        };
        tokio::time::timeout(LOOK_DEADLINE, placing).await.context("place a probe: no answer")?
    }

    /// Writes until the move is over; gives the longest time between two answers.
    async fn pulse(&self, is_over: &AtomicBool) -> anyhow::Result<Duration> {
        let mut longest = Duration::ZERO;
        let (mut last, mut last_generation) = (self.env.clock.now(), None);
        loop {
            let was_over = is_over.load(Ordering::Acquire);
            let writing =
                tokio::time::timeout(MOVE_DEADLINE + LOOK_DEADLINE, self.file.set_contents("x", None));
            let written = writing.await.context("no answer")??;
            let now = self.env.clock.now();
            longest = longest.max(now.saturating_since(last));
            last = now;
            ensure!(
                last_generation.is_none_or(|last| written.previous_generation == last),
                "a write was lost or repeated: {last_generation:?} was followed by {written:?}"
            );
            last_generation = Some(written.content_generation);
            if was_over {
                return Ok(longest);
            }
            self.env.clock.sleep(PULSE).await;
        }
    }

    /// Checks that the lock was held all the time.
    async fn take_away(self) -> anyhow::Result<()> {
        let stated = self.file.get_stat().await.context("look at the probe")?;
        let generation = stated.stat.lock_generation.0;
        ensure!(
            generation == self.lock_generation,
            "the probe's lock was acquired with generation {} and has {generation}",
            self.lock_generation
        );
        let sequencer = self.file.get_sequencer().await.context("the probe's lock was lost")?;
        self.client.check_sequencer(&sequencer).await.context("check the probe's sequencer")?;
        self.client.close().await;
        Ok(())
    }
}
