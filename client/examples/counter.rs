//! Counts together with other such programs, without a lock: read, add one, compare and swap.
//!
//! ```sh
//! cargo run -p hasp-client --example counter -- --connect 127.0.0.1:7000
//! ```
//!
//! However many run at once, the file ends at the sum of all they counted.

use anyhow::{Context as _, bail};
use hasp_client::{Client, ConnectOptions, Env, ErrorCode, Handle, OpenOptions};

const FILE: &str = "/ls/local/example-counter";
const COUNTS: usize = 100;
/// Others can always be faster, but hardly this often in a row.
const TRIES_MAX: usize = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let connect = arguments()?;
    let env = Env::system().context("draw random numbers")?;
    let client = Client::connect(ConnectOptions::new(connect), &env).await.context("connect")?;
    let counter = client.open(FILE, OpenOptions::create_file("0")).await.context("open the file")?.handle;
    let (mut conflicts, mut last) = (0, 0);
    for _ in 0..COUNTS {
        let (value, lost) = increment(&counter).await?;
        conflicts += lost;
        last = value;
    }
    println!("counted {COUNTS} times up to {last}; {conflicts} times another was faster");
    client.close().await;
    Ok(())
}

/// Adds one. Gives the new value, and how often another was faster.
async fn increment(counter: &Handle) -> anyhow::Result<(u64, usize)> {
    for lost in 0..TRIES_MAX {
        let file = counter.get_contents_and_stat().await.context("read the counter")?;
        let text = std::str::from_utf8(&file.contents).context("read the counter's digits")?;
        let value = text.trim().parse::<u64>().context("read the counter's digits")? + 1;
        let writing = counter.set_contents(value.to_string(), Some(file.stat.content_generation)).await;
        match writing {
            Ok(_) => return Ok((value, lost)),
            Err(error) if error.code == ErrorCode::GenerationMismatch => {}
            Err(error) => return Err(error).context("write the counter"),
        }
    }
    bail!("others were faster {TRIES_MAX} times in a row")
}

fn arguments() -> anyhow::Result<Vec<String>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [option, addresses] if option == "--connect" => Ok(addresses.split(',').map(str::to_owned).collect()),
        _ => bail!("usage: counter --connect HOST:PORT[,HOST:PORT...]"),
    }
}
