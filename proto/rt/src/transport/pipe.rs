//! A network in memory: listeners are names, connections are pipes.
//!
//! For tests and for `hasp dev` inside one process. It keeps the order and loses nothing; faults
//! are the business of the simulated network.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::{Io, Listener, Transport, at};

/// What a pipe holds in each direction before its writer has to wait.
const PIPE_BYTES: usize = 64 << 10;

/// How many connections may wait to be accepted.
const BACKLOG: usize = 1_024;

/// Connects whoever holds a clone of it. `name:0` listens at a port of its own.
#[derive(Clone, Default)]
pub struct PipeTransport {
    network: Arc<Mutex<Network>>,
}

#[derive(Default)]
struct Network {
    listeners: BTreeMap<String, mpsc::Sender<(Io, String)>>,
    ports: u32,
    connections: u64,
}

impl Network {
    fn listen(&mut self, address: &str) -> io::Result<PipeListener> {
        let address = self.with_port(address);
        if self.listeners.get(&address).is_some_and(|taken| !taken.is_closed()) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "the address is taken"));
        }
        let (sender, incoming) = mpsc::channel(BACKLOG);
        self.listeners.insert(address.clone(), sender);
        Ok(PipeListener { address, incoming })
    }

    fn with_port(&mut self, address: &str) -> String {
        match address.strip_suffix(":0") {
            Some(host) => {
                self.ports += 1;
                format!("{host}:{}", 50_000 + self.ports)
            }
            None => address.to_owned(),
        }
    }

    fn connect(&mut self, address: &str) -> io::Result<(mpsc::Sender<(Io, String)>, String)> {
        let listener = self.listeners.get(address).filter(|listener| !listener.is_closed());
        let listener = listener.cloned().ok_or_else(refused)?;
        self.connections += 1;
        Ok((listener, format!("pipe:{}", self.connections)))
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there")
}

impl PipeTransport {
    /// A network with nobody on it.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<R>(&self, work: impl FnOnce(&mut Network) -> R) -> R {
        work(&mut self.network.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Transport for PipeTransport {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        Box::pin(async move {
            let found = self.with(|network| network.connect(address));
            let (listener, name) = found.map_err(|error| at("connect to", address, error))?;
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let sent = listener.send((Box::new(far) as Io, name)).await;
            sent.map_err(|_| at("connect to", address, refused()))?;
            Ok(Box::new(near) as Io)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = self.with(|network| network.listen(address));
            let listener = listener.map_err(|error| at("listen on", address, error))?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

struct PipeListener {
    address: String,
    incoming: mpsc::Receiver<(Io, String)>,
}

impl Listener for PipeListener {
    fn local_address(&self) -> String {
        self.address.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Io, String)>> {
        Box::pin(async move { self.incoming.recv().await.ok_or_else(refused) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_go_through_and_the_end_is_seen() {
        let transport = PipeTransport::new();
        let mut listener = transport.listen("a:0").await.unwrap();
        let address = listener.local_address();

        let (near, far) = tokio::join!(transport.connect(&address), listener.accept());
        let (mut near, (mut far, _)) = (near.unwrap(), far.unwrap());
        near.write_all(b"all").await.unwrap();
        drop(near);

        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"all");
    }

    #[tokio::test]
    async fn an_address_is_free_again_once_its_listener_is_dropped() {
        let transport = PipeTransport::new();
        let first = transport.listen("a:1").await.unwrap();
        let taken = transport.listen("a:1").await.err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(taken.to_string().contains("a:1"));

        drop(first);

        assert!(transport.listen("a:1").await.is_ok());
    }

    #[tokio::test]
    async fn connecting_to_nobody_is_refused() {
        let transport = PipeTransport::new();

        let error = transport.connect("a:1").await.err().unwrap();

        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
