//! What it costs that the ACL of a node is a file of another cell.
//!
//! Starts two cells of three replicas and one proxy as child processes. The home cell has the file of the ACL, the other
//! cell the file that it guards. Clients open that one at a fixed rate and close it again, while somebody changes the ACL a
//! few times. The proxy tells the cell who is a member: it may fetch the ACL once, and once after each change, however many
//! clients open what it guards. What the home cell is asked is counted there, and so is what it is asked when the ACL
//! changes as often while nobody opens anything: the fetches are the difference.
//!
//! Checked as well: a client that the ACL does not name is refused, and so is a member from the moment that the write
//! which takes its name out has returned.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use hasp_client::{AclNames, Client, ConnectOptions, ErrorCode, Handle, OpenOptions};
use hasp_loadtest::bench::{Bench, CpuWindow, Figures, Scrape, Yardstick};
use hasp_loadtest::measure::Latencies;
use hasp_loadtest::system::{NAMESPACE, SystemSpec, cell_roots};
use hasp_rt::env::Env;
use tokio::task::JoinSet;

/// Named by the ACL all the time.
const MEMBER: &str = "member";
/// Taken out at the end.
const GUEST: &str = "guest";
/// Never named.
const STRANGER: &str = "stranger";
/// What a master has been asked.
const REQUESTS: &str = "hasp_cell_requests_total";

/// Measures Opens that an ACL in another cell decides.
#[derive(Parser)]
struct Flags {
    /// The `hasp` program to start the servers with.
    #[arg(long, default_value = "target/release/hasp")]
    hasp: PathBuf,
    /// Clients of the proxy, with a session each.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Opens a second, of all clients.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Length of the measurement, and of that without Opens.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Changes of the ACL meanwhile.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    changes: u32,
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let spec = SystemSpec::cells(2).behind(1);
    let figures = Bench::run(flags.hasp.clone(), &spec, async |bench| measure(bench, &flags).await).await?;
    figures.publish(flags.json.as_deref())
}

async fn measure(bench: &Bench, flags: &Flags) -> anyhow::Result<Figures> {
    let before = Yardstick::take(&bench.env, bench.processes.logs()).await?;
    let admin = connect(bench, "admin").await?;
    let guarded = Guarded::make(&admin).await?;
    let mut members = Vec::new();
    for _ in 0..flags.clients {
        let member = connect(bench, MEMBER).await?;
        guarded.open_as(&member).await.context("open as a member")?;
        members.push(member);
    }

    let home = bench.master("a").await?.1;
    let start = Scrape::take(&home.admin).await?;
    guarded.change(bench, flags).await?;
    let quiet = Scrape::take(&home.admin).await?;
    let cpu = CpuWindow::of_servers(&bench.system);
    let (latencies, late) = open_all(bench, flags, members, &guarded).await?;
    let asked = Scrape::take(&home.admin).await?.grown(&quiet, REQUESTS)?;
    let asked_quietly = quiet.grown(&start, REQUESTS)?;
    let cpu = cpu.end();
    guarded.check_refusals(bench).await?;

    let opens = latencies.count();
    let per_s = opens as f64 / flags.seconds as f64;
    let setting = format!(
        "two cells of 3 replicas, one proxy; {} clients open and close a file of cell b that an ACL of cell a guards; {} \
         changes of it in {} s",
        flags.clients, flags.changes, flags.seconds
    );
    let mut figures = Figures::new("acl_across", setting);
    figures.at_least(0.95 * f64::from(flags.rate), "opens_per_s", "Opens/s", per_s);
    // The first fetch was before.
    let fetches = (asked - asked_quietly) / f64::from(flags.changes.max(1));
    figures.at_most(1.0, "fetches_per_change", "fetches of the ACL for each change of it", fetches);
    figures.note("requests_home", "requests to the home cell", asked);
    figures.note("requests_home_quiet", "  the same while nobody opens", asked_quietly);
    let (summary, ms) = (latencies.summary(), |micros: u64| micros as f64 / 1e3);
    figures.note("open_p50_ms", "Open p50, ms", ms(summary.p50_us));
    figures.note("open_p99_ms", "Open p99, ms", ms(summary.p99_us));
    figures.note("late", "Opens that began late, since the one before took long", late as f64);
    for name in ["cell-a", "cell-b", "proxy"] {
        let label = format!("CPU us/Open and Close, {name}");
        figures.note(format!("cpu_us_{}", name.replace('-', "_")), label, cpu.us_per(name, opens));
    }
    let after = Yardstick::take(&bench.env, bench.processes.logs()).await?;
    before.mean(after).note(&mut figures);
    Ok(figures)
}

async fn connect(bench: &Bench, principal: &str) -> anyhow::Result<Client> {
    let options = ConnectOptions {
        principal: principal.into(),
        cache: false,
        ..ConnectOptions::new(bench.system.proxy_addresses())
    };
    Client::connect(options, &bench.env).await.with_context(|| format!("connect as {principal}"))
}

/// A file in one cell, and the ACL in the other that guards it.
#[derive(Clone)]
struct Guarded {
    file: String,
    acl: Handle,
}

impl Guarded {
    async fn make(admin: &Client) -> anyhow::Result<Self> {
        let directory = &cell_roots(2)[1];
        let file = format!("{directory}/guarded");
        let acl = format!("/ls/{NAMESPACE}/acl/team");
        let made = admin.open(&acl, OpenOptions::create_file(names(0))).await.context("make the ACL")?;
        admin
            .open(directory, OpenOptions::create_directory())
            .await
            .context("make the other cell's directory")?;
        let acls = AclNames { read: "team".into(), write: "team".into(), change: "admin".into() };
        let options = OpenOptions::create_file("").acls(acls);
        admin.open(&file, options).await.with_context(|| format!("make {file}"))?;
        Ok(Self { file, acl: made.handle })
    }

    /// Changes the ACL at even distances, so often and for so long as the flags say.
    async fn change(&self, bench: &Bench, flags: &Flags) -> anyhow::Result<()> {
        let clock = &bench.env.clock;
        let between = Duration::from_secs(flags.seconds) / (flags.changes + 1);
        let began = clock.now();
        for change in 1..=flags.changes {
            clock.sleep_until(began + between * change).await;
            self.acl.set_contents(names(change), None).await.context("change the ACL")?;
        }
        clock.sleep_until(began + Duration::from_secs(flags.seconds)).await;
        Ok(())
    }

    async fn open_as(&self, client: &Client) -> Result<(), hasp_client::CallError> {
        let opened = client.open(&self.file, OpenOptions::write()).await?;
        opened.handle.close().await.map(drop)
    }

    /// Nobody opens it whom the ACL does not name, or no longer names.
    async fn check_refusals(&self, bench: &Bench) -> anyhow::Result<()> {
        let (stranger, guest) = (connect(bench, STRANGER).await?, connect(bench, GUEST).await?);
        self.open_as(&guest).await.context("open as a guest")?;
        self.acl.set_contents(MEMBER, None).await.context("take the guest out")?;
        for (client, who) in [(stranger, STRANGER), (guest, GUEST)] {
            match self.open_as(&client).await {
                Err(error) if error.code == ErrorCode::PermissionDenied => {}
                other => bail!("an Open as {who}, whom the ACL does not name, came to {other:?}"),
            }
        }
        Ok(())
    }
}

/// The ACL's contents after so many changes.
fn names(changes: u32) -> String {
    format!("{MEMBER}\n{GUEST}\nother-{changes}\n")
}

/// Lets all clients open and close at the rate, while the ACL changes at even distances; gives how long Opens took, and how
/// many could not begin when they should.
async fn open_all(
    bench: &Bench,
    flags: &Flags,
    members: Vec<Client>,
    guarded: &Guarded,
) -> anyhow::Result<(Latencies, u64)> {
    let is_over = Arc::new(AtomicBool::new(false));
    let period = Duration::from_secs(1) * flags.clients / flags.rate;
    let mut running = JoinSet::new();
    for (place, member) in (0..).zip(members) {
        let offset = period * place / flags.clients;
        running.spawn(open_on(bench.env.clone(), member, guarded.clone(), (offset, period), is_over.clone()));
    }
    guarded.change(bench, flags).await?;
    is_over.store(true, Ordering::Relaxed);
    let (mut latencies, mut late) = (Latencies::new(), 0);
    while let Some(done) = running.join_next().await {
        let (of_one, late_of_one) = done.context("join a client")??;
        latencies.merge(&of_one);
        late += late_of_one;
    }
    ensure!(!latencies.is_empty(), "nothing was opened");
    Ok((latencies, late))
}

async fn open_on(
    env: Env,
    client: Client,
    guarded: Guarded,
    (offset, period): (Duration, Duration),
    is_over: Arc<AtomicBool>,
) -> anyhow::Result<(Latencies, u64)> {
    let (mut latencies, mut late) = (Latencies::new(), 0);
    let mut due = env.clock.now() + offset;
    while !is_over.load(Ordering::Relaxed) {
        late += u64::from(env.clock.now() > due + period);
        env.clock.sleep_until(due).await;
        due = due + period;
        let began = env.clock.now();
        let opened = client.open(&guarded.file, OpenOptions::write()).await.context("open")?;
        latencies.record(env.clock.now().saturating_since(began));
        opened.handle.close().await.context("close")?;
    }
    Ok((latencies, late))
}
