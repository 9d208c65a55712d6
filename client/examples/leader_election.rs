//! Elects a leader among any number of these programs, and shows who it is.
//!
//! ```sh
//! cargo run -p hasp-client --example leader_election -- --connect 127.0.0.1:7000 --name alice
//! ```
//!
//! Each campaigns by waiting for the lock of one file. Who gets it writes its name there, for
//! others to read, and leads for a few seconds; then it makes way for the next, a few terms long.

use std::time::Duration;

use anyhow::{Context as _, bail};
use hasp_client::{Client, ConnectOptions, Env, Handle, LockMode, OpenOptions, SessionEvent};

const FILE: &str = "/ls/local/example-leader";
const TERMS: usize = 3;
const TERM: Duration = Duration::from_secs(3);
const CAMPAIGN_MAX: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (connect, name) = arguments()?;
    let env = Env::system().context("draw random numbers")?;
    let client = Client::connect(ConnectOptions::new(connect), &env).await.context("connect")?;
    let leader = client.open(FILE, OpenOptions::create_file("")).await.context("open the file")?.handle;
    for term in 1..=TERMS {
        tell_leader(&leader).await?;
        // If the time is up, the request is cancelled: nobody is left leading by accident.
        let acquiring = tokio::time::timeout(CAMPAIGN_MAX, leader.acquire(LockMode::Exclusive)).await;
        let acquired = acquiring.context("campaign: others lead for too long")?.context("acquire")?;
        leader.set_contents(name.clone(), None).await.context("write the name")?;
        println!("{name} leads, term {term} of {TERMS}, lock generation {}", acquired.lock_generation);
        lead(&client).await?;
        leader.release().await.context("release")?;
        println!("{name} made way");
        // Who waits gets the lock before we ask again.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    client.close().await;
    Ok(())
}

/// Leads until the term is over, or until that is not certain any more.
async fn lead(client: &Client) -> anyhow::Result<()> {
    let mut events = client.events();
    let term = tokio::time::sleep(TERM);
    tokio::pin!(term);
    loop {
        tokio::select! {
            () = &mut term => return Ok(()),
            event = events.next() => match event {
                Some(SessionEvent::Jeopardy { .. }) => println!("nobody answers: stop acting as the leader"),
                Some(SessionEvent::Safe { .. }) => println!("still the leader"),
                Some(SessionEvent::FailOver { .. } | SessionEvent::Missed(_)) => {}
                Some(SessionEvent::CellLost { .. } | SessionEvent::Expired(_)) | None => {
                    bail!("the session is lost, and the lock with it")
                }
            },
        }
    }
}

async fn tell_leader(leader: &Handle) -> anyhow::Result<()> {
    let file = leader.get_contents_and_stat().await.context("read the name")?;
    match String::from_utf8_lossy(&file.contents) {
        name if name.is_empty() => println!("nobody has led yet"),
        name => println!("the last to lead was {name}"),
    }
    Ok(())
}

fn arguments() -> anyhow::Result<(Vec<String>, String)> {
    let mut arguments = std::env::args().skip(1);
    let (mut connect, mut name) = (None, format!("process {}", std::process::id()));
    while let (Some(option), Some(value)) = (arguments.next(), arguments.next()) {
        match option.as_str() {
            "--connect" => connect = Some(value.split(',').map(str::to_owned).collect()),
            "--name" => name = value,
            _ => bail!("unknown option {option}"),
        }
    }
    Ok((connect.context("usage: leader_election --connect HOST:PORT[,HOST:PORT...] [--name NAME]")?, name))
}
