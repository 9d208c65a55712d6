//! What a read costs a proxy that has the file in its cache, against the least that gRPC could do.
//!
//! Starts one cell of three replicas and one proxy as child processes, and beside them a bare echo server: tonic's own
//! with one bidirectional stream, which answers every message with another of the size of a read's answer. Both serve
//! with one thread. Clients keep one read at a time each under way, and cache nothing themselves, so that every read is
//! a message to the proxy; the proxy and the echo server are asked in turns. What counts is the CPU time of the serving
//! process per message.
//!
//! That the proxy answers from its cache is checked by its own count, and that it does so strictly by a writer beside
//! the readers: no read that began after a write had returned may bring what was before.

#[path = "../reading/mod.rs"]
mod reading;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use hasp_client::{Client, ConnectOptions, OpenOptions};
use hasp_loadtest::bench::{Bench, Figures, Scrape, Yardstick};
use hasp_loadtest::system::{NAMESPACE, SystemSpec};
use hasp_proto::request::Reply;
use tokio::task::JoinSet;

use reading::echo::{self, Echo};
use reading::{FILE, Reader, Side, Tap, start_echo, turn};

/// Reads that may miss the cache: the first of each client, and what was asked beside.
const MISSES_SHARE: f64 = 0.01;

/// Measures reads that a proxy answers from its cache, against a bare tonic echo.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start the servers with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// Clients, each with a session, a connection, and one read at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Length of one turn of one side.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    turn_seconds: u64,
    /// Turns of each side.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    turns: u32,
    /// Of the file's contents.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Writes beside the readers, to check that no read is stale.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    writes: u32,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Be the echo server that answers with so many bytes.
    #[arg(long, hide = true)]
    serve_echo: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(bytes) = flags.serve_echo {
        // As the proxy.
        return builder.worker_threads(1).enable_all().build()?.block_on(echo::serve(bytes));
    }
    builder.enable_all().build()?.block_on(async {
        let spec = SystemSpec::cells(1).behind(1);
        let figures =
            Bench::run(flags.hasp.clone(), &spec, async |bench| measure(bench, &flags).await).await?;
        figures.publish(flags.json.as_deref())
    })
}

async fn measure(bench: &Bench, flags: &Flags) -> anyhow::Result<Figures> {
    let before = Yardstick::take(&bench.env, bench.processes.logs()).await?;
    let proxy = &bench.system.proxies[0];
    let readers = Reader::open_all(bench, &proxy.address, flags.bytes, flags.clients as usize).await?;
    let (up, down) = readers[0].message_bytes().await?;
    let (echo, address) = start_echo(bench, down).await?;
    let counted = Scrape::take(&proxy.admin).await?;
    let (mut reads, mut echoed) = (Side::default(), Side::default());
    let mut asked = 0;
    for _ in 0..flags.turns {
        let (tap, mut running) = (Tap::default(), JoinSet::new());
        for reader in &readers {
            running.spawn(reader.clone().read_on(1, tap.clone()));
        }
        reads.add(
            turn(bench, flags.turn_seconds, proxy.process.pid(), tap.clone(), running)
                .await
                .context("read")?,
        );
        asked += tap.count();
        let (tap, mut running) = (Tap::default(), JoinSet::new());
        for _ in 0..flags.clients {
            let stream = Echo::open(&address, up).await.context("open a stream to the echo server")?;
            running.spawn(stream.echo_on(1, tap.clone()));
        }
        echoed.add(turn(bench, flags.turn_seconds, echo.pid(), tap, running).await.context("echo")?);
    }
    let hits = Scrape::take(&proxy.admin).await?.grown(&counted, "hasp_cache_hits_total")?;
    ensure!(
        hits >= asked as f64 * (1.0 - MISSES_SHARE),
        "the proxy answered only {hits} of {asked} reads from its cache"
    );
    let checked = read_beside_a_writer(bench, flags, &readers).await?;

    let setting = format!(
        "{} clients at one proxy, one read at a time each, {up} B up and {down} B down per read of {} B; {} turns of {} s each",
        flags.clients, flags.bytes, flags.turns, flags.turn_seconds
    );
    let mut figures = Figures::new("proxy_read", setting);
    figures.at_least(40_000.0, "reads_per_s", "reads/s", reads.per_s());
    figures.note("echoes_per_s", "echoes/s", echoed.per_s());
    figures.at_most(20.0, "read_cpu_us", "CPU us/read, proxy", reads.cpu_us());
    figures.note("echo_cpu_us", "CPU us/echo, echo server", echoed.cpu_us());
    figures.at_most(1.25, "ratio", "ratio", reads.cpu_us() / echoed.cpu_us());
    figures.note("hits_percent", "answered from the proxy's cache, %", 100.0 * hits / asked as f64);
    figures.note("reads_checked", "reads beside a writer, none of them stale", checked as f64);
    let after = Yardstick::take(&bench.env, bench.processes.logs()).await?;
    before.mean(after).note(&mut figures);
    Ok(figures)
}

/// All read while the file is written again and again; gives how many reads there were.
async fn read_beside_a_writer(bench: &Bench, flags: &Flags, readers: &[Reader]) -> anyhow::Result<u64> {
    let options = ConnectOptions::new(bench.system.replica_addresses());
    let client = Client::connect(options, &bench.env).await.context("connect to write")?;
    let opened = client
        .open(format!("/ls/{NAMESPACE}/{FILE}"), OpenOptions::write())
        .await
        .context("open to write")?;
    let floor = Arc::new(AtomicU64::new(opened.stat.content_generation.0));
    let (tap, mut running) = (Tap::default(), JoinSet::new());
    for reader in readers {
        running.spawn(check_on(reader.clone(), floor.clone(), tap.clone()));
    }
    let writing = async {
        for _ in 0..flags.writes {
            let written = opened.handle.set_contents(vec![b'w'; flags.bytes], None).await.context("write")?;
            floor.store(written.content_generation.0, Ordering::Release);
        }
        anyhow::Ok(())
    };
    let wrote = writing.await;
    tap.end();
    while let Some(done) = running.join_next().await {
        done.context("join")??;
    }
    wrote?;
    ensure!(tap.count() > 0, "nothing was read beside the writer");
    client.close().await;
    Ok(tap.count())
}

/// Reads until it is told to stop; fails at the first read that is older than a write that had returned.
async fn check_on(reader: Reader, floor: Arc<AtomicU64>, tap: Tap) -> anyhow::Result<()> {
    while !tap.is_over() {
        let known = floor.load(Ordering::Acquire);
        match reader.session.ask(reader.op().into()).await? {
            (Reply::Contents { stat, .. }, _) => {
                let found = stat.content_generation.0;
                ensure!(found >= known, "a read brought generation {found} after {known} had been written");
            }
            (other, _) => bail!("a read was answered with {other:?}"),
        }
        tap.answered(1);
    }
    Ok(())
}
