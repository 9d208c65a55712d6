//! A worker process: holds sessions that cache a file.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hasp_loadtest::bench::{BareSession, Connector};
use hasp_loadtest::procfs::raise_open_files;
use hasp_proto::client::Ask;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::Generation;
use hasp_proto::request::{Op, Reply};
use hasp_rt::env::Env;
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};
use tokio::task::JoinSet;

use crate::order::{Order, ReadAll, Said};

/// How long all sessions together may take for one order.
const DEADLINE: Duration = Duration::from_secs(60);
/// Sessions being opened at a time.
const OPENING: usize = 64;

/// A session and its handle on the file.
struct Cacher {
    session: BareSession,
    handle: HandleToken,
}

/// Does what standard input says until that ends.
pub async fn work() -> anyhow::Result<()> {
    raise_open_files();
    let env = Env::system().context("look at the world")?;
    let mut lines = BufReader::new(stdin()).lines();
    let mut cachers: Vec<Arc<Cacher>> = Vec::new();
    while let Some(line) = lines.next_line().await.context("read an order")? {
        let order = serde_json::from_str(&line).with_context(|| format!("understand {line:?}"))?;
        let doing = async {
            anyhow::Ok(match order {
                Order::Hold { targets, sessions, per_connection, file } => {
                    let connector = Connector::new(&env, per_connection);
                    cachers = hold(&env, &connector, &targets, sessions, &file).await?;
                    Said::Holding
                }
                Order::Read { generation } => Said::Read(read(&env, &cachers, Generation(generation)).await?),
            })
        };
        let said =
            tokio::time::timeout(DEADLINE, doing).await.with_context(|| format!("do {line}: no end"))??;
        println!("{}", serde_json::to_string(&said).context("write a line")?);
    }
    Ok(())
}

async fn hold(
    env: &Env,
    connector: &Arc<Connector>,
    targets: &[String],
    sessions: usize,
    file: &str,
) -> anyhow::Result<Vec<Arc<Cacher>>> {
    let (mut opening, mut cachers) = (JoinSet::new(), Vec::new());
    for number in 0..sessions {
        if opening.len() >= OPENING {
            cachers.extend(next(&mut opening).await?);
        }
        // They go to the first that takes them: an equal share to each.
        let mut targets = targets.to_vec();
        let first = number % targets.len().max(1);
        targets.rotate_left(first);
        let session = BareSession::start(env, connector, targets);
        let file = file.to_owned();
        opening.spawn(async move {
            let handle = session.open(&file).await?;
            anyhow::Ok(Arc::new(Cacher { session, handle }))
        });
    }
    while let Some(cacher) = next(&mut opening).await? {
        cachers.push(cacher);
    }
    Ok(cachers)
}

async fn next<T: 'static>(running: &mut JoinSet<anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
    running.join_next().await.map(|done| done.context("join")?).transpose()
}

/// Looks at what each session believes, then lets each read.
async fn read(env: &Env, cachers: &[Arc<Cacher>], written: Generation) -> anyhow::Result<ReadAll> {
    let is_stale = |cacher: &&Arc<Cacher>| cacher.session.cached().is_some_and(|cached| cached < written);
    let stale = cachers.iter().filter(is_stale).count();
    let mut all = ReadAll { stale, ..ReadAll::default() };
    let began = env.clock.now();
    let mut reading = JoinSet::new();
    for cacher in cachers {
        let cacher = cacher.clone();
        reading.spawn(async move { cacher.read().await });
    }
    while let Some(read) = reading.join_next().await {
        match read.context("join")? {
            Ok(generation) if generation < written => all.stale_reads += 1,
            Ok(_) => {}
            Err(error) => all.failure = all.failure.or_else(|| Some(format!("{error:#}"))),
        }
    }
    all.took_ms = env.clock.now().saturating_since(began).as_secs_f64() * 1e3;
    all.cached = cachers.iter().filter(|cacher| cacher.session.cached().is_some()).count();
    all.lost = cachers.iter().filter(|cacher| cacher.session.is_over()).count();
    let left = cachers.iter().map(|cacher| cacher.session.cache_lease_left()).max();
    all.cache_lease_left_ms = left.unwrap_or_default().as_secs_f64() * 1e3;
    Ok(all)
}

impl Cacher {
    async fn read(&self) -> anyhow::Result<Generation> {
        let ask = Ask { caches: true, ..Op::GetContentsAndStat(self.handle.clone()).into() };
        match self.session.ask(ask).await? {
            (Reply::Contents { stat, .. }, _) => Ok(stat.content_generation),
            (other, _) => bail!("read: answered with {other:?}"),
        }
    }
}
