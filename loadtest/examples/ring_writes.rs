//! What a write costs when the directories below a prefix are spread over several cells, and what it costs behind a
//! proxy rather than at its cell.
//!
//! For each number of cells starts that many, of three replicas each, and proxies in front of them, as child processes;
//! keeps a number of writers busy on files in directories on a ring over all cells; and prints writes per second and
//! the CPU time of all servers for one. First the same with one cell and without proxies. Clients, proxies and cells
//! share one machine, so the CPU time is what can be compared, not the rate.

mod writing;

use anyhow::{Context as _, ensure};
use clap::Parser;
use hasp_client::{Client, ConnectOptions, Handle, OpenOptions};
use hasp_loadtest::bench::{Bench, Figures, Yardstick};
use hasp_loadtest::system::{RING, SystemSpec};
use hasp_rt::env::Env;

use writing::{Pace, Written, write_all};

/// Measures writes to directories on a ring over several cells.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    pace: Pace,
    /// Numbers of cells; the first is compared with.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4", value_parser = clap::value_parser!(u8).range(1..=26))]
    cells: Vec<u8>,
    /// Proxies in front of the cells.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    proxies: u8,
    /// Sessions, and connections, that the writers share.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    sessions: u16,
    /// Directories on the ring.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    directories: u16,
}

/// One system that was measured.
struct Row {
    written: Written,
    bare: Yardstick,
}

impl Row {
    fn count(&self) -> u64 {
        self.written.latencies.summary().count
    }

    /// CPU time of servers whose name begins so, in microseconds for each write.
    fn us_per_write(&self, servers: &str) -> f64 {
        self.written.servers.us_per(servers, self.count())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    ensure!(!flags.cells.is_empty(), "--cells: no number of cells");
    let setting = format!(
        "{} B, {} in flight over {} sessions and {} directories, {} proxies, 3 replicas a cell, fsync on, {} s each",
        flags.pace.bytes,
        flags.pace.writers,
        flags.sessions,
        flags.directories,
        flags.proxies,
        flags.pace.seconds
    );
    let mut figures = Figures::new("ring_writes", setting);
    let direct = measure(&flags, 1, 0).await?;
    note(&mut figures, "direct", "one cell, no proxy", &direct);
    let mut first = None;
    for cells in &flags.cells {
        let row = measure(&flags, usize::from(*cells), usize::from(flags.proxies)).await?;
        note(&mut figures, &format!("cells_{cells}"), &format!("{cells} cells behind proxies"), &row);
        match first {
            None => {
                let more = row.us_per_write("") - direct.us_per_write("");
                figures.at_most(10.0, "behind_proxy_us", "  more than at the cell itself, us", more);
                first = Some(row.us_per_write("cell"));
            }
            Some(first) => {
                let ratio = row.us_per_write("cell") / first;
                figures.at_most(1.15, format!("ratio_{cells}"), "  cells' CPU against the first", ratio);
            }
        }
    }
    figures.publish(flags.pace.json.as_deref())
}

async fn measure(flags: &Flags, cells: usize, proxies: usize) -> anyhow::Result<Row> {
    let spec = SystemSpec { has_ring: true, ..SystemSpec::cells(cells).behind(proxies) };
    let work = async |bench: &mut Bench| {
        let bare = Yardstick::take(&bench.env, bench.processes.logs()).await?;
        let targets = match proxies {
            0 => bench.system.replica_addresses(),
            _ => bench.system.proxy_addresses(),
        };
        let handles = open_files(&bench.env, &targets, flags).await?;
        let written = write_all(bench, handles, &flags.pace).await?;
        let bare = bare.mean(Yardstick::take(&bench.env, bench.processes.logs()).await?);
        Ok(Row { written, bare })
    };
    Bench::run(flags.pace.hasp.clone(), &spec, work).await
}

fn note(figures: &mut Figures, key: &str, label: &str, row: &Row) {
    let summary = row.written.latencies.summary();
    let ms = |micros: u64| micros as f64 / 1_000.0;
    let rate = summary.count as f64 / row.written.seconds;
    figures.note(format!("{key}_writes_per_s"), format!("{label}: writes/s"), rate);
    figures.note(format!("{key}_p50_ms"), "  p50, ms", ms(summary.p50_us));
    figures.note(format!("{key}_p99_ms"), "  p99, ms", ms(summary.p99_us));
    figures.note(format!("{key}_cells_us"), "  CPU us/write, all replicas", row.us_per_write("cell"));
    figures.note(format!("{key}_proxies_us"), "  CPU us/write, proxies", row.us_per_write("proxy"));
    let own = row.written.own.us_per("", summary.count);
    figures.note(format!("{key}_writers_us"), "  CPU us/write, the writers", own);
    figures.note(
        format!("{key}_bare_sync_us"),
        "  bare machine: 4 KiB appended and synced, us",
        row.bare.sync_us,
    );
    figures.note(
        format!("{key}_bare_step_ns"),
        "  bare machine: step of a counting loop, ns",
        row.bare.step_ns,
    );
}

async fn open_files(env: &Env, targets: &[String], flags: &Flags) -> anyhow::Result<Vec<Handle>> {
    let mut clients = Vec::new();
    for _ in 0..flags.sessions {
        clients.push(Client::connect(ConnectOptions::new(targets.to_vec()), env).await.context("connect")?);
    }
    let directories: Vec<_> = (0..flags.directories).map(|number| format!("{RING}/{number}")).collect();
    for name in std::iter::once(RING).chain(directories.iter().map(String::as_str)) {
        let made = clients[0].open(name, OpenOptions::create_directory()).await;
        made.with_context(|| format!("create {name}"))?;
    }
    let mut handles = Vec::new();
    for ((number, client), directory) in
        (0..flags.pace.writers).zip(clients.iter().cycle()).zip(directories.iter().cycle())
    {
        let name = format!("{directory}/w{number}");
        let opened = client.open(&name, OpenOptions::create_file("")).await;
        handles.push(opened.with_context(|| format!("create {name}"))?.handle);
    }
    Ok(handles)
}
