//! Elects a leader among any number of these programs, and shows who it is (paper §2.6).
//!
//! ```sh
//! cargo run -p hasp-client --example leader_election -- --connect 127.0.0.1:7000 --name alice
//! ```
//!
//! Each campaigns by waiting for the lock of one file. Who gets it writes its name there, and the
//! others are told that the file changed and read who leads. The leader shows its sequencer to the
//! services that it uses, so that they can tell its requests from those of a leader of yesterday. After a few
//! seconds it makes way for the next, a few terms long.

use std::time::Duration;

use anyhow::{Context as _, bail};
use hasp_client::{
    Client, ConnectOptions, Env, EventKind, EventMask, Handle, HandleEvent, LockMode, OpenOptions, Sequencer,
    SessionEvent,
};

const FILE: &str = "/ls/local/example-leader";
const TERMS: usize = 3;
const TERM: Duration = Duration::from_secs(3);
const CAMPAIGN_MAX: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (connect, name) = arguments()?;
    let env = Env::system().context("draw random numbers")?;
    let client = Client::connect(ConnectOptions::new(connect), &env).await.context("connect")?;
    let events = EventMask::of([EventKind::ContentsModified, EventKind::HandleInvalid]);
    let options = OpenOptions::create_file("").events(events);
    let file = client.open(FILE, options).await.context("open the file")?.handle;
    for term in 1..=TERMS {
        let sequencer = tokio::select! {
            elected = campaign(&file, &name) => elected?,
            watched = watch(&file) => return watched,
        };
        println!("{name} leads, term {term} of {TERMS}, lock generation {}", sequencer.lock_generation());
        serve(&client, &sequencer).await?;
        lead(&client).await?;
        file.clear_sequencer();
        file.release().await.context("release")?;
        println!("{name} made way");
        // Who waits gets the lock before we ask again.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    client.close().await;
    Ok(())
}

/// Waits to be elected, then says who leads.
async fn campaign(file: &Handle, name: &str) -> anyhow::Result<Sequencer> {
    // If the time is up, the request is cancelled: nobody is left leading by accident.
    let acquiring = tokio::time::timeout(CAMPAIGN_MAX, file.acquire(LockMode::Exclusive)).await;
    acquiring.context("campaign: others lead for too long")?.context("acquire")?;
    let sequencer = file.get_sequencer().await.context("get a sequencer")?;
    // From here on a write of ours takes effect only while we lead, however late it arrives.
    file.set_sequencer(&sequencer);
    file.set_contents(name.to_owned(), None).await.context("write the name")?;
    Ok(sequencer)
}

/// Tells who leads whenever that changes, for as long as the file is there.
async fn watch(file: &Handle) -> anyhow::Result<()> {
    let mut events = file.events();
    loop {
        let read = file.get_contents_and_stat().await.context("read the name")?;
        match String::from_utf8_lossy(&read.contents) {
            name if name.is_empty() => println!("nobody has led yet"),
            name => println!("elected last: {name}"),
        }
        match events.next().await {
            // What is read after an event is what it told of, or newer.
            Some(HandleEvent::Happened(_) | HandleEvent::EventsLost(_)) => {}
            Some(HandleEvent::Invalid(error)) => bail!("the file is lost: {error}"),
            None => bail!("the file is closed"),
        }
    }
}

/// What a service does that the leader uses: it is shown the sequencer, here as text, and works for
/// the leader only while it stands.
async fn serve(service: &Client, shown: &Sequencer) -> anyhow::Result<()> {
    let sequencer: Sequencer = shown.to_string().parse().context("read the sequencer")?;
    service.check_sequencer(&sequencer).await.context("check the sequencer")?;
    println!("a service takes orders from the holder of generation {}", sequencer.lock_generation());
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
