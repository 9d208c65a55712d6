//! Session streams to and from the master: wire items in, domain items through, wire items out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hasp_proto::convert::request::BadRequest;
use hasp_proto::error::ErrorCode;
use hasp_proto::server::ConnectionId;
use hasp_proto::stream::{Down, Up};
use hasp_proto::trace::TraceContext;
use hasp_proto::wire::v1;
use hasp_rt::driver::{self, Driver};
use hasp_rt::outbox::Outbox;
use hasp_rt::rpc::outboxes::Outboxes;
use hasp_rt::rpc::session::{LocateHandler, SessionHandler};
use hasp_rt::telemetry::trace::{Stage, Waiting};
use tokio::sync::mpsc;

use super::pump::LeaseView;
use crate::master::{BatchId, Input, MasterCore, Output};
use crate::state::LogEntry;

/// A replica's machine and what carries its outputs out.
pub(super) type MasterDriver = Driver<MasterCore, Effects>;

/// An entry on its way to the pump.
pub(super) struct Proposed {
    pub(super) batch: BatchId,
    pub(super) entry: LogEntry,
    /// Of the requests that it is for, those that are followed.
    pub(super) traces: Vec<TraceContext>,
}

/// Carries the master's outputs out: items into outboxes, entries to the pump.
pub(super) struct Effects {
    outboxes: Outboxes,
    proposals: mpsc::UnboundedSender<Proposed>,
    /// Of the batch that is proposed next.
    traces: Mutex<Vec<TraceContext>>,
    /// Requests that are followed.
    steps: Waiting,
}

impl Effects {
    /// `proposals` is bounded by the number of batches that the machine has under way.
    pub(super) fn new(proposals: mpsc::UnboundedSender<Proposed>) -> Self {
        Self { outboxes: Outboxes::default(), proposals, traces: Mutex::default(), steps: Waiting::default() }
    }

    fn traces(&self) -> MutexGuard<'_, Vec<TraceContext>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where items go.
    pub(super) const fn outboxes(&self) -> &Outboxes {
        &self.outboxes
    }
}

impl driver::Effects<Output> for Effects {
    fn effect(&self, output: Output) {
        match output {
            Output::Send(connection, Down::Answer(answer)) => {
                self.steps.answered(connection, answer.number);
                self.outboxes.send(connection, Down::Answer(answer));
            }
            Output::Send(connection, down) => self.outboxes.send(connection, down),
            Output::Close(connection) => self.outboxes.close(connection),
            Output::Traced(_, traces) => *self.traces() = traces,
            Output::Propose(batch, entry) => {
                let traces = std::mem::take(&mut *self.traces());
                // Fails only when the replica stops, and then nobody waits for the outcome.
                let _ = self.proposals.send(Proposed { batch, entry, traces });
            }
        }
    }
}

/// The listener's side: hands what comes in to the machine.
pub(super) struct Sessions {
    driver: Arc<MasterDriver>,
    lease: LeaseView,
}

impl Sessions {
    pub(super) fn new(driver: Arc<MasterDriver>, lease: LeaseView) -> Self {
        Self { driver, lease }
    }
}

impl SessionHandler for Sessions {
    fn connected(&self, outbox: Arc<Outbox<v1::Down>>, peer: &str) -> u64 {
        let connection = self.driver.effects().outboxes.add(outbox);
        tracing::trace!(connection = connection.0, peer, "connected");
        self.driver.input(Input::Connected(connection));
        connection.0
    }

    fn received(&self, connection: u64, items: Vec<v1::Up>) {
        let mut inputs: Vec<_> =
            self.lease.acknowledged().map(Input::QuorumAcknowledged).into_iter().collect();
        let connection = ConnectionId(connection);
        if items.iter().any(is_hello_of_tier) {
            self.driver.effects().outboxes.is_tier(connection);
        }
        read_items(connection, items, &self.driver.effects().steps, &mut inputs);
        self.driver.inputs(inputs);
    }

    fn disconnected(&self, connection: u64) {
        self.driver.effects().outboxes.remove(ConnectionId(connection));
        self.driver.effects().steps.disconnected(ConnectionId(connection));
        self.driver.input(Input::Disconnected(ConnectionId(connection)));
    }
}

/// Whether a proxy or router says hello, which reads for many.
fn is_hello_of_tier(item: &v1::Up) -> bool {
    matches!(&item.item, Some(v1::up::Item::Hello(hello)) if matches!(hello.role(), v1::Role::Proxy | v1::Role::Router))
}

/// What a peer's items mean to the machine, in their order; nothing after the first that makes no sense.
fn read_items(connection: ConnectionId, items: Vec<v1::Up>, steps: &Waiting, inputs: &mut Vec<Input>) {
    let mut ups = Vec::with_capacity(items.len());
    for item in items {
        match Up::try_from(item) {
            Ok(mut up) => {
                if let Up::Request(request) = &mut up {
                    steps.take_up(Stage::Master, connection, request);
                }
                ups.push(up);
            }
            Err(BadRequest::Refuse(number, error)) => {
                inputs.push(Input::Received(connection, std::mem::take(&mut ups)));
                inputs.push(Input::Unreadable(connection, number, error));
            }
            Err(BadRequest::Malformed(malformed)) => {
                inputs.push(Input::Received(connection, ups));
                let error = ErrorCode::InvalidArgument.because(malformed.to_string());
                inputs.push(Input::Broken(connection, error));
                return;
            }
        }
    }
    inputs.push(Input::Received(connection, ups));
}

impl LocateHandler for Sessions {
    fn locate(&self) -> v1::LocateReply {
        self.driver.inspect(|master| v1::LocateReply {
            host: v1::locate_reply::Host::Replica.into(),
            cell: master.cell().to_string(),
            master: master.master_address().unwrap_or_default(),
            map: Some(hasp_proto::convert::map_to_wire(&master.map())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hasp_proto::id::{RequestNumber, Sequence};

    fn open(number: u64, name: &str) -> v1::Up {
        let open = v1::Open { name: name.into(), r#use: 1, ..Default::default() };
        let op = Some(v1::request::Op::Open(open));
        let request = v1::Request { number, op, ..Default::default() };
        v1::Up { item: Some(v1::up::Item::Request(request)) }
    }

    #[test]
    fn a_bad_name_is_answered_in_its_place_and_nonsense_ends_the_connection() {
        let connection = ConnectionId(7);
        let fine = || v1::Up::from(Up::Acknowledge(Sequence(1)));
        let mut inputs = Vec::new();

        let items = vec![fine(), open(5, "no name"), fine(), v1::Up { item: None }, fine()];
        read_items(connection, items, &Waiting::default(), &mut inputs);

        let [
            Input::Received(_, before),
            Input::Unreadable(_, number, error),
            Input::Received(_, between),
            Input::Broken(_, broken),
        ] = &inputs[..]
        else {
            panic!("{inputs:?}")
        };
        assert_eq!((before.len(), between.len()), (1, 1));
        assert_eq!((*number, &error.code), (RequestNumber(5), &ErrorCode::InvalidName));
        assert_eq!(broken.code, ErrorCode::InvalidArgument);
    }
}
