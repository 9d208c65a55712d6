//! The operations of the load, one function each, with the checks of what they bring back.

use std::time::Duration;

use hasp_client::{CallError, OpenOptions};
use hasp_proto::node::checksum;
use hasp_proto::time::Time;

use crate::audit;
use crate::check::ViolationKind;
use crate::fleet::{Fleet, LoadClient};
use crate::tree::{Place, contents};
use crate::workload::{Arrival, OpKind, file_bytes};

/// Why an operation failed, for people.
pub type Failed = String;

/// Does what arrived; gives its latency since `intended`, without steps that only prepare or clean up.
pub async fn perform(fleet: &Fleet, arrival: &Arrival, intended: Time) -> Result<Duration, Failed> {
    let client = &fleet.clients()[arrival.client % fleet.clients().len()];
    let cell = (arrival.salt % fleet.job().tree.cells() as u64) as usize;
    let place = fleet.job().tree.file_of(client.number, cell);
    match arrival.kind {
        OpKind::GetStat => get_stat(fleet, client, place).await?,
        OpKind::GetContentsAndStat => get_contents_and_stat(fleet, client, place).await?,
        OpKind::SetContents => set_contents(fleet, client, place, arrival.salt >> 8).await?,
        OpKind::Open => return open(fleet, client, place, intended).await,
        OpKind::CreateSession => return create_session(fleet, place, intended).await,
        OpKind::Acquire => {
            let lock = (arrival.salt >> 8) as usize % fleet.job().tree.locks();
            let held = audit::hold_exclusively(fleet, client, cell, lock).await?;
            return Ok(held.acquired.saturating_since(intended).saturating_sub(held.opening));
        }
    }
    Ok(fleet.env().clock.now().saturating_since(intended))
}

/// As text for people.
pub fn text(error: CallError) -> Failed {
    error.to_string()
}

async fn get_stat(fleet: &Fleet, client: &LoadClient, place: Place) -> Result<(), Failed> {
    let marks = fleet.marks(client, place);
    let stated = client.file(place.cell).get_stat().await.map_err(text)?;
    fleet
        .check(client, place, &marks, stated.position.as_ref(), |floor, mark| floor.read(mark, &stated.stat));
    Ok(())
}

/// Reads the client's file and checks it.
pub async fn get_contents_and_stat(fleet: &Fleet, client: &LoadClient, place: Place) -> Result<(), Failed> {
    let marks = fleet.marks(client, place);
    let read = client.file(place.cell).get_contents_and_stat().await.map_err(text)?;
    fleet.check(client, place, &marks, read.position.as_ref(), |floor, mark| {
        let sum = checksum(&read.contents);
        if sum != read.stat.checksum || read.contents.len() as u64 != read.stat.length {
            return Err(ViolationKind::WrongContents.because(format!(
                "{} bytes with checksum {sum:016x}, and the metadata says {} bytes with {:016x}",
                read.contents.len(),
                read.stat.length,
                read.stat.checksum
            )));
        }
        floor.read(mark, &read.stat)
    });
    Ok(())
}

/// Writes the client's file and checks the generation it got.
pub async fn set_contents(fleet: &Fleet, client: &LoadClient, place: Place, salt: u64) -> Result<(), Failed> {
    let writer = format!("client {}", client.number);
    let contents = contents(&writer, fleet.next_write(), file_bytes(salt));
    let sum = checksum(&contents);
    let marks = fleet.marks(client, place);
    let written = client.file(place.cell).set_contents(contents, None).await;
    let written = written.inspect_err(|error| note_unknown(fleet, error)).map_err(text)?;
    fleet.check(client, place, &marks, written.position.as_ref(), |floor, mark| {
        floor.written(mark, written.content_generation.0, sum)
    });
    Ok(())
}

/// Counts a write that failed in a way that leaves open whether it took effect.
pub fn note_unknown(fleet: &Fleet, error: &CallError) {
    use hasp_client::ErrorCode::{Cancelled, SessionExpired, SessionMoved, Unavailable};
    if matches!(error.code, Unavailable | SessionExpired | SessionMoved | Cancelled) {
        fleet.tally().findings().checks.unknown_writes += 1;
    }
}

async fn open(fleet: &Fleet, client: &LoadClient, place: Place, intended: Time) -> Result<Duration, Failed> {
    let marks = fleet.marks(client, place);
    let name = fleet.job().tree.file_name(place);
    let opened = client.client.open(name, OpenOptions::read()).await.map_err(text)?;
    let latency = fleet.env().clock.now().saturating_since(intended);
    fleet
        .check(client, place, &marks, opened.position.as_ref(), |floor, mark| floor.read(mark, &opened.stat));
    opened.handle.close().await.map_err(text)?;
    Ok(latency)
}

async fn create_session(fleet: &Fleet, place: Place, intended: Time) -> Result<Duration, Failed> {
    let client = fleet.connect().await.map_err(|error| error.to_string())?;
    if client.session_id().is_none() {
        // Straight at the cells a session begins when something is asked of it.
        client.open(fleet.job().tree.file_name(place), OpenOptions::read()).await.map_err(text)?;
    }
    let latency = fleet.env().clock.now().saturating_since(intended);
    fleet.disconnected(&client);
    client.close().await;
    Ok(latency)
}
