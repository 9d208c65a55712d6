//! Cables that are cut: bytes stop, and nobody is told.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hasp_rt::transport::{Io, Listener, PipeTransport, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::world::address;

/// Which replicas cannot reach which. A connection caught by a cut stays dead after it is mended, as one does whose
/// segments are never sent again.
#[derive(Clone, Default)]
pub struct Cuts(Arc<Mutex<BTreeSet<(u64, u64)>>>);

impl Cuts {
    /// Cuts `id` off from all others of `count`.
    pub fn isolate(&self, id: u64, count: u64) {
        let mut cuts = self.0.lock().unwrap();
        cuts.extend((1..=count).filter(|other| *other != id).flat_map(|other| [(id, other), (other, id)]));
    }

    /// Mends everything.
    pub fn mend(&self) {
        self.0.lock().unwrap().clear();
    }

    /// Whether a replica is cut off from somebody by its own cable.
    pub fn isolates(&self, id: u64) -> bool {
        self.0.lock().unwrap().iter().filter(|(from, _)| *from == id).count() > 1
    }

    /// The network as replica `from` has it.
    pub fn over(&self, from: u64, network: PipeTransport) -> Cuttable {
        Cuttable { cuts: self.clone(), from, network }
    }

    fn has(&self, pair: (u64, u64)) -> bool {
        self.0.lock().unwrap().contains(&pair)
    }
}

/// A network with cables to cut.
pub struct Cuttable {
    cuts: Cuts,
    from: u64,
    network: PipeTransport,
}

impl Transport for Cuttable {
    fn connect<'a>(&'a self, to: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        Box::pin(async move {
            let peer = (1..=9).find(|id| address(*id) == to).unwrap();
            let pair = (self.from, peer);
            if self.cuts.has(pair) {
                std::future::pending::<()>().await;
            }
            let io = self.network.connect(to).await?;
            Ok(Box::new(Cable { io, cuts: self.cuts.clone(), pair, dead: false }) as Io)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        self.network.listen(address)
    }
}

struct Cable {
    io: Io,
    cuts: Cuts,
    pair: (u64, u64),
    dead: bool,
}

impl Cable {
    fn is_dead(&mut self) -> bool {
        self.dead |= self.cuts.has(self.pair);
        self.dead
    }
}

impl AsyncRead for Cable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.is_dead() {
            true => Poll::Pending,
            false => Pin::new(&mut self.io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Cable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.is_dead() {
            true => Poll::Pending,
            false => Pin::new(&mut self.io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.is_dead() {
            true => Poll::Pending,
            false => Pin::new(&mut self.io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
