//! Reads of one file and messages of as many bytes to a bare echo server, asked in turns and counted alike: what the
//! benchmarks of reads share.

pub mod echo;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hasp_client::{Client, ConnectOptions, OpenOptions};
use hasp_loadtest::bench::{BareSession, Bench, Connector, Cpu, CpuWindow};
use hasp_loadtest::processes::{Process, Processes, Spec};
use hasp_loadtest::system::NAMESPACE;
use hasp_proto::client::Ask;
use hasp_proto::handle::HandleToken;
use hasp_proto::id::RequestNumber;
use hasp_proto::item::ItemKinds;
use hasp_proto::request::{Answer, Op, Reply, Request};
use hasp_proto::stream::{Down, Up};
use hasp_proto::wire::v1;
use prost::Message as _;
use tokio::task::JoinSet;

/// How long the echo server may take to be there.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// How long the last answers may take.
const LAST_READS: Duration = Duration::from_secs(10);
/// The file that is read.
pub const FILE: &str = "read";

/// Starts an echo server that answers with so many bytes: this program, told so by `--serve-echo`.
pub async fn start_echo(bench: &Bench, bytes: usize) -> anyhow::Result<(Process, String)> {
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
pub struct Side {
    pub messages: u64,
    seconds: f64,
    cpu: Cpu,
}

impl Side {
    pub fn add(&mut self, turn: Side) {
        self.messages += turn.messages;
        self.seconds += turn.seconds;
        self.cpu.add(&turn.cpu);
    }

    pub fn per_s(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    pub fn cpu_us(&self) -> f64 {
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
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    pub fn answered(&self, messages: usize) {
        self.answered.fetch_add(messages as u64, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// Lets them ask for a while; counts the answers, and what they cost the server.
pub async fn turn(
    bench: &Bench,
    turn_seconds: u64,
    server: u32,
    tap: Tap,
    mut running: JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Side> {
    let clock = &bench.env.clock;
    // The first moments are not like the others.
    clock.sleep(Duration::from_millis(300)).await;
    let window = CpuWindow::begin([("server".to_owned(), server)]);
    let (began, counted) = (clock.now(), tap.count());
    clock.sleep(Duration::from_secs(turn_seconds)).await;
    let messages = tap.count() - counted;
    let seconds = clock.now().saturating_since(began).as_secs_f64();
    let cpu = window.end();
    tap.end();
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

/// A session with a handle on a file; asks never to cache.
#[derive(Clone)]
pub struct Reader {
    pub session: Arc<BareSession>,
    pub handle: HandleToken,
}

impl Reader {
    /// So many sessions at that host, with a connection each, that read the same file of so many bytes.
    pub async fn open_all(
        bench: &Bench,
        host: &str,
        bytes: usize,
        count: usize,
    ) -> anyhow::Result<Vec<Self>> {
        let name = format!("/ls/{NAMESPACE}/{FILE}");
        let writer =
            Client::connect(ConnectOptions::new(bench.system.replica_addresses()), &bench.env).await?;
        writer.open(&name, OpenOptions::create_file(vec![b'r'; bytes])).await.context("create a file")?;
        writer.close().await;
        let connector = Connector::new(&bench.env, 1);
        let mut readers = Vec::new();
        for _ in 0..count {
            let session = BareSession::start(&bench.env, &connector, vec![host.to_owned()]);
            let handle = session.open(&name).await?;
            readers.push(Self { session: Arc::new(session), handle });
        }
        Ok(readers)
    }

    /// The read.
    pub fn op(&self) -> Op {
        Op::GetContentsAndStat(self.handle.clone())
    }

    /// Reads so many times at once, waits for all answers, and so on; counts the answers.
    pub async fn read_on(self, at_once: usize, tap: Tap) -> anyhow::Result<()> {
        while !tap.is_over() {
            self.session.ask_all(vec![self.op().into(); at_once]).await?;
            tap.answered(at_once);
        }
        Ok(())
    }

    /// Bytes of a read on the wire, up and down, each as a batch of its own.
    pub async fn message_bytes(&self) -> anyhow::Result<(usize, usize)> {
        let number = RequestNumber(100_000);
        let Ask { op, on_behalf, guard, caches, trace } = self.op().into();
        let request = Request { number, settled_below: number, on_behalf, guard, caches, trace, op };
        let up = v1::UpBatch { items: vec![Up::Request(request).into()] };
        let (reply, position) = self.session.ask(self.op().into()).await?;
        ensure!(matches!(reply, Reply::Contents { .. }), "a read was answered with {reply:?}");
        let answer = Answer { number, position, caches: ItemKinds::NONE, result: Ok(reply) };
        let down = v1::DownBatch { items: vec![Down::Answer(answer).into()] };
        Ok((up.encoded_len(), down.encoded_len()))
    }
}
