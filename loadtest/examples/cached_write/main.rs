//! What a write to a file costs that a thousand sessions have cached.
//!
//! Starts one cell of three replicas as child processes, and workers: one holds many sessions that
//! read one file and cache it, another holds one more. A session of the benchmark's own writes the
//! file: the master tells every session to drop it and waits for all of them before it commits
//! (`cache-1`). After each write all read again. In the end the other worker is paused with its
//! connection open, so that its session acknowledges nothing: the write must wait for that session's
//! cache lease and no longer, and reads must be answered meanwhile.
//!
//! Once a write has returned nobody may still believe in the old contents, and nobody may read them:
//! that is checked in every session after every write.

mod order;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use hasp_client::{Client, ConnectOptions, Handle, OpenOptions};
use hasp_loadtest::bench::{BareSession, Bench, Connector, Cpu, CpuWindow, Figures, Scrape, Yardstick};
use hasp_loadtest::measure::Latencies;
use hasp_loadtest::processes::{Process, Processes, Spec};
use hasp_loadtest::system::{NAMESPACE, SystemSpec};
use hasp_proto::handle::HandleToken;
use hasp_proto::limits::LEASE;
use hasp_proto::request::Op;
use hasp_rt::env::Env;

use order::{Order, ReadAll, Said};

/// How long a worker may take for an order.
const WORKER_DEADLINE: Duration = Duration::from_secs(70);
/// How much later than the end of a dead session's cache lease a write may return.
const A_LITTLE: Duration = Duration::from_millis(1_000);
/// No write may take longer, whoever is dead: the benchmark gives up.
const WRITE_DEADLINE: Duration = Duration::from_secs(70);
/// Pause between two reads beside a write that waits.
const READ_PAUSE: Duration = Duration::from_millis(20);

/// Measures writes to a file that many sessions have cached.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start the servers with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// Sessions that cache the file.
    #[arg(long, default_value_t = 1_000)]
    sessions: usize,
    /// Sessions that share a connection.
    #[arg(long, default_value_t = 1)]
    sessions_per_connection: usize,
    /// How many times it is written.
    #[arg(long, default_value_t = 50)]
    writes: usize,
    /// Of its contents.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Where the sessions are held: with 0 only at the master, else also through so many proxies, a share at each.
    #[arg(long, default_value_t = 1)]
    proxies: usize,
    /// Writes with a dead session among the readers, each time with a fresh one.
    #[arg(long, default_value_t = 1)]
    dead: usize,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Be a worker.
    #[arg(long, hide = true)]
    worker: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    if flags.worker {
        return worker::work().await;
    }
    let spec = SystemSpec::cells(1).behind(flags.proxies);
    let figures = Bench::run(flags.hasp.clone(), &spec, async |bench| measure(bench, &flags).await).await?;
    figures.publish(flags.json.as_deref())
}

async fn measure(bench: &Bench, flags: &Flags) -> anyhow::Result<Figures> {
    let before = Yardstick::take(&bench.env, bench.processes.logs()).await?;
    let setting = format!(
        "{} sessions cache one file, {} to a connection; {} writes of {} B; one cell of 3 replicas, {} proxies, fsync on",
        flags.sessions, flags.sessions_per_connection, flags.writes, flags.bytes, flags.proxies
    );
    let mut figures = Figures::new("cached_write", setting);
    let master = bench.master("a").await?.1.address.clone();
    let proxies = bench.system.proxy_addresses();
    let mut paths = vec![("direct", vec![master])];
    match proxies.len() {
        0 => {}
        1 => paths.push(("proxy", proxies)),
        _ => paths.push(("proxies", proxies)),
    }
    for (path, hosts) in paths {
        let way = Way { bench, flags, path, hosts };
        way.measure(&mut figures).await.with_context(|| format!("measure {path}"))?;
    }
    let after = Yardstick::take(&bench.env, bench.processes.logs()).await?;
    before.mean(after).note(&mut figures);
    Ok(figures)
}

/// The readers at one host, or a share of them at each of several.
struct Way<'a> {
    bench: &'a Bench,
    flags: &'a Flags,
    /// For keys and people.
    path: &'static str,
    hosts: Vec<String>,
}

impl Way<'_> {
    async fn measure(&self, figures: &mut Figures) -> anyhow::Result<()> {
        let Self { flags, path, .. } = self;
        let file = self.create().await?;
        let mut unwritten = Latencies::new();
        for _ in 0..flags.writes {
            unwritten.record(file.write().await?.1);
        }
        let mut readers = self.worker("readers", flags.sessions).await?;
        let mut round = readers.read(0).await?;
        ensure!(round.lost == 0, "{} sessions were lost before the first write", round.lost);
        figures.at_least(
            flags.sessions as f64,
            format!("{path}_cached"),
            format!("{path}: sessions that cache the file"),
            round.cached as f64,
        );
        let (mut writes, mut rereads) = (Latencies::new(), Latencies::new());
        let mut cpu = Cpu::default();
        let before = self.invalidations().await?;
        for _ in 0..flags.writes {
            let window = CpuWindow::of_servers(&self.bench.system);
            let (generation, took) = file.write().await?;
            cpu.add(&window.end());
            writes.record(took);
            round = readers.read(generation).await?;
            rereads.record(Duration::from_secs_f64(round.took_ms / 1e3));
        }
        let told_by_cell = self.invalidations().await? - before;
        let (alone, written, reread) = (unwritten.summary(), writes.summary(), rereads.summary());
        let ms = |micros: u64| micros as f64 / 1e3;
        figures.at_most(60.0, format!("{path}_write_p50_ms"), "  write, p50, ms", ms(written.p50_us));
        let mut note = |key: &str, label: &str, value| {
            figures.note(format!("{path}_{key}"), format!("  {label}"), value);
        };
        note("write_p99_ms", "write, p99, ms", ms(written.p99_us));
        note("write_max_ms", "write, max, ms", ms(written.max_us));
        note("uncached_write_p50_ms", "write while nobody caches it, p50, ms", ms(alone.p50_us));
        note("reread_p50_ms", "all have read again, p50, ms", ms(reread.p50_us));
        let told = written.count * flags.sessions as u64;
        note("cell_cpu_us", "CPU us/session and write, all replicas", cpu.us_per("cell", told));
        if *path != "direct" {
            note("proxy_cpu_us", "CPU us/session and write, all proxies", cpu.us_per("proxy", told));
            ensure!(told_by_cell > 0.0, "the proxies counted no invalidation in {} writes", flags.writes);
            let each = told_by_cell / (written.count as f64 * self.hosts.len() as f64);
            let label = "  invalidations from the cell, per write and proxy";
            figures.at_most(1.0, format!("{path}_invalidations"), label, each);
        }
        for number in 0..flags.dead {
            self.with_dead(&file, &mut readers, number, figures).await.context("with a dead session")?;
        }
        readers.end().await
    }

    /// What cells have told all proxies together to drop since they were started.
    async fn invalidations(&self) -> anyhow::Result<f64> {
        let mut all = 0.0;
        for proxy in &self.bench.system.proxies {
            all += Scrape::take(&proxy.admin).await?.value("hasp_upstream_invalidations_total")?;
        }
        Ok(all)
    }

    /// A session of the benchmark's own at the master, with a file of this way.
    async fn create(&self) -> anyhow::Result<File<'_>> {
        let targets = self.bench.system.replica_addresses();
        let options = ConnectOptions { cache: false, ..ConnectOptions::new(targets) };
        let client = Client::connect(options, &self.bench.env).await.context("connect")?;
        let opened =
            client.open(self.file_name(), OpenOptions::create_file("")).await.context("create the file")?;
        Ok(File { way: self, _client: client, handle: opened.handle })
    }

    fn file_name(&self) -> String {
        format!("/ls/{NAMESPACE}/cached-{}", self.path)
    }

    async fn worker(&self, name: &str, sessions: usize) -> anyhow::Result<Worker> {
        let program = std::env::current_exe().context("find this program")?;
        let logs = self.bench.processes.logs().to_owned();
        // Who waits for its words sees its end.
        let (processes, _) = Processes::new(self.bench.env.clone(), program, logs);
        let process = processes.start(&Spec::new(format!("{}-{name}", self.path), ["--worker"]))?;
        let mut worker = Worker { process };
        let hold = Order::Hold {
            targets: self.hosts.clone(),
            sessions,
            per_connection: self.flags.sessions_per_connection,
            file: self.file_name(),
        };
        match worker.order(&hold).await? {
            Said::Holding => Ok(worker),
            other => bail!("{name} said {other:?}"),
        }
    }

    /// One write while a session that may cache the file is dead.
    async fn with_dead(
        &self,
        file: &File<'_>,
        readers: &mut Worker,
        number: usize,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let path = self.path;
        let clock = &self.bench.env.clock;
        let bystander = self.bystander().await?;
        let mut dead = self.worker(&format!("dead-{number}"), 1).await?;
        let read = dead.read(0).await?;
        ensure!(read.cached == 1, "the session that is to die may not cache the file");
        let asked = clock.now();
        dead.process.pause();
        let (written, beside) = bystander.read_during(&self.bench.env, file.write()).await?;
        let (generation, took) = written?;
        let since_read = clock.now().saturating_since(asked).as_secs_f64();
        let round = readers.read(generation).await?;
        ensure!(round.lost == 0, "{} live sessions were lost beside the dead one", round.lost);
        figures.at_most(
            (LEASE + A_LITTLE).as_secs_f64(),
            format!("{path}_dead_{number}_write_s"),
            "  write with a dead session among the readers, s",
            took.as_secs_f64(),
        );
        let mut note = |key: &str, label: &str, value| {
            figures.note(format!("{path}_dead_{number}_{key}"), format!("    {label}"), value);
        };
        let left = read.cache_lease_left_ms / 1e3;
        note("lease_left_s", "cache lease of that session when it died, by its own clock, s", left);
        note("beyond_lease_s", "write returned after the end of that lease, s", since_read - left);
        note("beside_max_ms", "longest read by another session meanwhile, ms", beside.as_secs_f64() * 1e3);
        dead.process.resume();
        // By then it has most likely lost its session, and must believe in nothing old.
        let Said::Read(all) = dead.order(&Order::Read { generation }).await? else {
            bail!("the worker that was dead said something else")
        };
        ensure!(all.stale + all.stale_reads == 0, "the dead session returned and believed in old contents");
        dead.end().await
    }

    /// A session that reads beside the others, and caches nothing.
    async fn bystander(&self) -> anyhow::Result<Bystander> {
        let connector = Connector::new(&self.bench.env, 1);
        let session = BareSession::start(&self.bench.env, &connector, self.hosts.clone());
        let handle = session.open(&self.file_name()).await?;
        Ok(Bystander { session, handle })
    }
}

struct Bystander {
    session: BareSession,
    handle: HandleToken,
}

impl Bystander {
    /// Reads until `work` is done; gives what it brought, and the longest read that ended before.
    async fn read_during<T>(
        &self,
        env: &Env,
        work: impl Future<Output = T>,
    ) -> anyhow::Result<(T, Duration)> {
        let mut longest = Duration::ZERO;
        let mut work = std::pin::pin!(work);
        loop {
            let reading = async {
                env.clock.sleep(READ_PAUSE).await;
                let asked = env.clock.now();
                self.session.ask(Op::GetContentsAndStat(self.handle.clone()).into()).await?;
                anyhow::Ok(env.clock.now().saturating_since(asked))
            };
            tokio::select! {
                biased;
                done = &mut work => return Ok((done, longest)),
                read = reading => longest = longest.max(read?),
            }
        }
    }
}

/// The file that is cached, open for writing.
struct File<'a> {
    way: &'a Way<'a>,
    /// Kept: the session ends with it.
    _client: Client,
    handle: Handle,
}

impl File<'_> {
    /// Writes it; gives the new generation and how long it took.
    async fn write(&self) -> anyhow::Result<(u64, Duration)> {
        let clock = &self.way.bench.env.clock;
        let began = clock.now();
        let writing = self.handle.set_contents(vec![b'w'; self.way.flags.bytes], None);
        let written = tokio::time::timeout(WRITE_DEADLINE, writing).await.context("write: no answer")?;
        let took = clock.now().saturating_since(began);
        Ok((written.context("write")?.content_generation.0, took))
    }
}

/// A worker that runs.
struct Worker {
    process: Process,
}

impl Worker {
    async fn order(&mut self, order: &Order) -> anyhow::Result<Said> {
        self.process.tell(&serde_json::to_string(order).context("write an order")?).await?;
        let line = self.process.line(WORKER_DEADLINE).await?;
        serde_json::from_str(&line).with_context(|| format!("understand {line:?}"))
    }

    /// Lets all of its sessions read; fails if any of them was wrong about a write that had returned.
    async fn read(&mut self, generation: u64) -> anyhow::Result<ReadAll> {
        let Said::Read(all) = self.order(&Order::Read { generation }).await? else {
            bail!("{} said something else", self.process.name())
        };
        if let Some(failure) = &all.failure {
            bail!("{}: {failure}", self.process.name());
        }
        ensure!(all.stale == 0, "{} sessions still believed in old contents after a write", all.stale);
        ensure!(all.stale_reads == 0, "{} reads brought old contents after a write", all.stale_reads);
        Ok(all)
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }
}
