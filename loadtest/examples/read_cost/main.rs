//! What an ordinary read costs the master, against the least that gRPC could do.
//!
//! Starts one cell of three replicas as child processes, and beside it a bare echo server: tonic's
//! own server with one bidirectional stream, which answers every message with another and does
//! nothing else. Messages are as long as those of a read: up with a handle, down with contents and
//! metadata. Both are asked over open streams, in turns, and in the same rhythm: so many messages at
//! once on each stream, and the next as soon as all are answered. What counts is the CPU time of the
//! serving process per message.

mod echo;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use hasp_client::{Client, ConnectOptions, OpenOptions};
use hasp_loadtest::bench::{BareSession, Bench, Connector, Cpu, CpuWindow, Figures, Yardstick};
use hasp_loadtest::processes::{Process, Processes, Spec};
use hasp_loadtest::system::{NAMESPACE, SystemSpec};
use hasp_proto::client::Ask;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::RequestNumber;
use hasp_proto::item::ItemKinds;
use hasp_proto::request::{Answer, Op, Reply, Request};
use hasp_proto::stream::{Down, Up};
use hasp_proto::wire::v1;
use prost::Message as _;
use tokio::task::JoinSet;

use echo::Echo;

/// How long the echo server may take to be there.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// How long the last reads may take.
const LAST_READS: Duration = Duration::from_secs(10);

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
    let spec = SystemSpec { cells: 1, replicas: 3, proxies: 0 };
    let figures = Bench::run(flags.hasp.clone(), &spec, async |bench| measure(bench, &flags).await).await?;
    figures.publish(flags.json.as_deref())
}

async fn measure(bench: &Bench, flags: &Flags) -> anyhow::Result<Figures> {
    let before = Yardstick::take(&bench.env, bench.processes.logs()).await?;
    let streams = flags.rhythm.iter().map(|rhythm| rhythm.streams).max().context("measure: nothing to do")?;
    let readers = Reader::open_all(bench, flags.bytes, streams).await?;
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
            reads.add(turn(bench, flags, master, tap, running).await.context("read")?);
            let (tap, mut running) = (Tap::default(), JoinSet::new());
            for _ in 0..rhythm.streams {
                let stream = Echo::open(&address, up).await.context("open a stream to the echo server")?;
                running.spawn(stream.echo_on(rhythm.at_once, tap.clone()));
            }
            echoed.add(turn(bench, flags, echo.pid(), tap, running).await.context("echo")?);
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

async fn start_echo(bench: &Bench, bytes: usize) -> anyhow::Result<(Process, String)> {
    let program = std::env::current_exe().context("find this program")?;
    // Its end is nobody's business: it ends with its input.
    let (processes, _) = Processes::new(bench.env.clone(), program, bench.processes.logs().to_owned());
    let spec = Spec::new("echo", ["--serve-echo".to_owned(), bytes.to_string()]);
    let mut echo = processes.start(&spec)?;
    let address = echo.line(READY_DEADLINE).await?;
    Ok((echo, address))
}

/// All turns of one side.
#[derive(Default)]
struct Side {
    messages: u64,
    seconds: f64,
    cpu: Cpu,
}

impl Side {
    fn add(&mut self, turn: Side) {
        self.messages += turn.messages;
        self.seconds += turn.seconds;
        self.cpu.add(&turn.cpu);
    }

    fn per_s(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    fn cpu_us(&self) -> f64 {
        self.cpu.us_per("", self.messages)
    }
}

/// What those who ask share with who counts.
#[derive(Clone, Default)]
pub struct Tap {
    answered: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Tap {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn answered(&self, messages: usize) {
        self.answered.fetch_add(messages as u64, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// Lets them ask for a while; counts the answers, and what they cost the server.
async fn turn(
    bench: &Bench,
    flags: &Flags,
    server: u32,
    tap: Tap,
    mut running: JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Side> {
    let clock = &bench.env.clock;
    // The first moments are not like the others.
    clock.sleep(Duration::from_millis(300)).await;
    let window = CpuWindow::begin([("server".to_owned(), server)]);
    let (began, counted) = (clock.now(), tap.count());
    clock.sleep(Duration::from_secs(flags.turn_seconds)).await;
    let messages = tap.count() - counted;
    let seconds = clock.now().saturating_since(began).as_secs_f64();
    let cpu = window.end();
    tap.is_over.store(true, Ordering::Release);
    let joining = async {
        while let Some(done) = running.join_next().await {
            done.context("join")??;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LAST_READS, joining).await.context("wait for the last answers")??;
    ensure!(messages > 0, "nothing was answered");
    Ok(Side { messages, seconds, cpu })
}

/// A session at the master with a handle on a file; asks never to cache.
#[derive(Clone)]
struct Reader {
    session: Arc<BareSession>,
    handle: HandleToken,
}

impl Reader {
    /// So many sessions, with a connection each, that read the same file.
    async fn open_all(bench: &Bench, bytes: usize, count: usize) -> anyhow::Result<Vec<Self>> {
        let name = format!("/ls/{NAMESPACE}/read");
        let writer =
            Client::connect(ConnectOptions::new(bench.system.replica_addresses()), &bench.env).await?;
        writer.open(&name, OpenOptions::create_file(vec![b'r'; bytes])).await.context("create a file")?;
        writer.close().await;
        let (_, master) = bench.master("a").await?;
        let connector = Connector::new(&bench.env, 1);
        let mut readers = Vec::new();
        for _ in 0..count {
            let session = BareSession::start(&bench.env, &connector, vec![master.address.clone()]);
            let handle = session.open(&name).await?;
            readers.push(Self { session: Arc::new(session), handle });
        }
        Ok(readers)
    }

    fn op(&self) -> Op {
        Op::GetContentsAndStat(self.handle.clone())
    }

    async fn read_on(self, at_once: usize, tap: Tap) -> anyhow::Result<()> {
        while !tap.is_over() {
            self.session.ask_all(vec![self.op().into(); at_once]).await?;
            tap.answered(at_once);
        }
        Ok(())
    }

    /// Bytes of a read on the wire, up and down, each as a batch of its own.
    async fn message_bytes(&self) -> anyhow::Result<(usize, usize)> {
        let number = RequestNumber(100_000);
        let Ask { op, on_behalf, guard, caches } = self.op().into();
        let request = Request { number, settled_below: number, on_behalf, guard, caches, op };
        let up = v1::UpBatch { items: vec![Up::Request(request).into()] };
        let (reply, position) = self.session.ask(self.op().into()).await?;
        ensure!(matches!(reply, Reply::Contents { .. }), "a read was answered with {reply:?}");
        let answer = Answer { number, position, caches: ItemKinds::NONE, result: Ok(reply) };
        let down = v1::DownBatch { items: vec![Down::Answer(answer).into()] };
        Ok((up.encoded_len(), down.encoded_len()))
    }
}
