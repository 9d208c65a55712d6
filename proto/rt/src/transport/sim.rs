//! The simulated network: turmoil's, so that whole servers run in virtual time under partitions,
//! held and lost messages, and crashes.
//!
//! Must be used inside a turmoil host. Turmoil never retransmits: a connection that lost a segment
//! stays silent for ever, which is what deadlines and keepalives are for.

#![allow(clippy::disallowed_types, reason = "this module is the simulated network")]

use std::io;

use futures_util::future::BoxFuture;
use turmoil::net::{TcpListener, TcpStream};

use super::{Io, Listener, Transport, at};

/// Connects the hosts of one simulation by their names. Listen at `0.0.0.0:port`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimTransport;

impl Transport for SimTransport {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await;
            let stream = stream.map_err(|error| at("connect to", address, error))?;
            Ok(Box::new(stream) as Io)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|error| at("listen on", address, error))?;
            Ok(Box::new(SimListener { listener }) as Box<dyn Listener>)
        })
    }
}

struct SimListener {
    listener: TcpListener,
}

impl Listener for SimListener {
    fn local_address(&self) -> String {
        self.listener.local_addr().map_or_else(|error| error.to_string(), |local| local.to_string())
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Io, String)>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            Ok((Box::new(stream) as Io, peer.to_string()))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn hosts_of_a_simulation_reach_one_another_by_name() {
        let mut sim = turmoil::Builder::new().build();
        sim.host("server", || async {
            let mut listener = SimTransport.listen("0.0.0.0:7000").await?;
            let (mut stream, _) = listener.accept().await?;
            stream.write_all(b"down").await?;
            Ok(())
        });
        sim.client("client", async {
            let mut stream = SimTransport.connect("server:7000").await?;
            let mut received = [0; 4];
            stream.read_exact(&mut received).await?;
            assert_eq!(&received, b"down");
            Ok(())
        });

        sim.run().unwrap();
    }
}
