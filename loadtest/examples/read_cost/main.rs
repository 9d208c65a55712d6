//! What an ordinary read costs the master, against the least that gRPC could do.
//!
//! Starts one cell of three replicas as child processes, and beside it a bare echo server: tonic's
//! own server with one bidirectional stream, which answers every message with another and does
//! nothing else. Messages are as long as those of a read: up with a handle, down with contents and
//! metadata. Both are asked over open streams, in turns, and in the same rhythm: so many messages at
//! once on each stream, and the next as soon as all are answered. What counts is the CPU time of the
//! serving process per message.

#[path = "../reading/mod.rs"]
mod reading;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use hasp_loadtest::bench::{Bench, CpuWindow, Figures, Yardstick};
use hasp_loadtest::system::SystemSpec;
use tokio::task::JoinSet;

use reading::echo::{self, Echo};
use reading::{Reader, Side, Tap, start_echo, turn};

/// Measures the CPU time of a read at the master, against a bare tonic echo.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start the cell with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// Streams, with a connection each, and messages sent at once on each; every pair is measured by
    /// itself.
    #[arg(long, value_delimiter = ',', default_value = "1x1,1x16,64x1", value_parser = rhythm)]
    rhythm: Vec<Rhythm>,
    /// Length of one turn of one side.
    #[arg(long, default_value_t = 3)]
    turn_seconds: u64,
    /// Turns of each side for each number at once.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Of the file's contents.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Be the echo server that answers with so many bytes.
    #[arg(long, hide = true)]
    serve_echo: Option<usize>,
}

/// How much is asked at a time.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    streams: usize,
    at_once: usize,
}

fn rhythm(text: &str) -> Result<Rhythm, String> {
    let numbers = text.split_once('x').and_then(|(streams, at_once)| {
        let (streams, at_once) = (streams.parse().ok()?, at_once.parse().ok()?);
        (streams > 0 && at_once > 0).then_some(Rhythm { streams, at_once })
    });
    numbers.ok_or_else(|| "two numbers above 0 with an x between them".to_owned())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    if let Some(bytes) = flags.serve_echo {
        return echo::serve(bytes).await;
    }
    let spec = SystemSpec::cells(1);
    let figures = Bench::run(flags.hasp.clone(), &spec, async |bench| measure(bench, &flags).await).await?;
    figures.publish(flags.json.as_deref())
}

async fn measure(bench: &Bench, flags: &Flags) -> anyhow::Result<Figures> {
    let before = Yardstick::take(&bench.env, bench.processes.logs()).await?;
    let streams = flags.rhythm.iter().map(|rhythm| rhythm.streams).max().context("measure: nothing to do")?;
    let host = bench.master("a").await?.1.address.clone();
    let readers = Reader::open_all(bench, &host, flags.bytes, streams).await?;
    let (up, down) = readers[0].message_bytes().await?;
    let (echo, address) = start_echo(bench, down).await?;
    let setting = format!(
        "sessions at the master, {up} B up and {down} B down per read of {} B; {} turns of {} s each",
        flags.bytes, flags.turns, flags.turn_seconds
    );
    let mut figures = Figures::new("read_cost", setting);
    let master = bench.master("a").await?.1.process.pid();
    let idle = idle_cpu_s(bench, master, flags).await;
    for rhythm in &flags.rhythm {
        let (mut reads, mut echoed) = (Side::default(), Side::default());
        for _ in 0..flags.turns {
            let (tap, mut running) = (Tap::default(), JoinSet::new());
            for reader in &readers[..rhythm.streams] {
                running.spawn(reader.clone().read_on(rhythm.at_once, tap.clone()));
            }
            reads.add(turn(bench, flags.turn_seconds, master, tap, running).await.context("read")?);
            let (tap, mut running) = (Tap::default(), JoinSet::new());
            for _ in 0..rhythm.streams {
                let stream = Echo::open(&address, up).await.context("open a stream to the echo server")?;
                running.spawn(stream.echo_on(rhythm.at_once, tap.clone()));
            }
            echoed.add(turn(bench, flags.turn_seconds, echo.pid(), tap, running).await.context("echo")?);
        }
        note(&mut figures, *rhythm, &reads, &echoed);
    }
    figures.note("master_idle_percent", "CPU of the idle master, % of a core", idle * 100.0);
    let after = Yardstick::take(&bench.env, bench.processes.logs()).await?;
    before.mean(after).note(&mut figures);
    Ok(figures)
}

fn note(figures: &mut Figures, rhythm: Rhythm, reads: &Side, echoed: &Side) {
    let Rhythm { streams, at_once } = rhythm;
    let label = |what: &str| format!("{streams} streams, {at_once} at once: {what}");
    let key = |what: &str| format!("{what}_{streams}x{at_once}");
    figures.note(key("reads_per_s"), label("reads/s"), reads.per_s());
    figures.note(key("echoes_per_s"), label("echoes/s"), echoed.per_s());
    figures.note(key("read_cpu_us"), label("CPU us/read, master"), reads.cpu_us());
    figures.note(key("echo_cpu_us"), label("CPU us/echo, echo server"), echoed.cpu_us());
    figures.at_most(1.5, key("ratio"), label("ratio"), reads.cpu_us() / echoed.cpu_us());
}

/// CPU seconds per second of a process that nobody asks anything.
async fn idle_cpu_s(bench: &Bench, pid: u32, flags: &Flags) -> f64 {
    let window = CpuWindow::begin([("idle".to_owned(), pid)]);
    bench.env.clock.sleep(Duration::from_secs(flags.turn_seconds)).await;
    window.end().total_s("") / flags.turn_seconds.max(1) as f64
}
