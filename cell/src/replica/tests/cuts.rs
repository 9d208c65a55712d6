//! Cables that are cut or slow: bytes stop or wait, and nobody is told.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use hasp_rt::transport::{Io, Listener, PipeTransport, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::world::address;

/// Which replicas cannot reach which. A connection caught by a cut stays dead after it is mended, as one does whose
/// segments are never sent again. One that is only held goes on where it stopped.
#[derive(Clone, Default)]
pub struct Cuts(Arc<Mutex<Troubles>>);

#[derive(Default)]
struct Troubles {
    cut: BTreeSet<(u64, u64)>,
    held: BTreeSet<(u64, u64)>,
    /// Of those that wait for bytes that are held, or for room for them.
    wakers: Vec<Waker>,
}

impl Cuts {
    /// Cuts `id` off from all others of `count`.
    pub fn isolate(&self, id: u64, count: u64) {
        let mut troubles = self.0.lock().unwrap();
        let others = (1..=count).filter(|other| *other != id);
        troubles.cut.extend(others.flat_map(|other| [(id, other), (other, id)]));
    }

    /// Mends everything that was cut.
    pub fn mend(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    /// Whether a replica is cut off from somebody by its own cable.
    pub fn isolates(&self, id: u64) -> bool {
        self.0.lock().unwrap().cut.iter().filter(|(from, _)| *from == id).count() > 1
    }

    /// From here on what one replica sends to another waits on the way.
    pub fn hold(&self, from: u64, to: u64) {
        self.0.lock().unwrap().held.insert((from, to));
    }

    /// Lets it arrive.
    pub fn release(&self, from: u64, to: u64) {
        let mut troubles = self.0.lock().unwrap();
        troubles.held.remove(&(from, to));
        troubles.wakers.drain(..).for_each(Waker::wake);
    }

    /// The network as replica `from` has it.
    pub fn over(&self, from: u64, network: PipeTransport) -> Cuttable {
        Cuttable { cuts: self.clone(), from, network }
    }

    fn has(&self, pair: (u64, u64)) -> bool {
        self.0.lock().unwrap().cut.contains(&pair)
    }

    fn holds(&self, (from, to): (u64, u64), cx: &Context<'_>) -> bool {
        let mut troubles = self.0.lock().unwrap();
        let holds = troubles.held.contains(&(from, to));
        if holds {
            troubles.wakers.push(cx.waker().clone());
        }
        holds
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

    fn stops_reading(&mut self, cx: &Context<'_>) -> bool {
        let (here, there) = self.pair;
        self.is_dead() || self.cuts.holds((there, here), cx)
    }

    fn stops_writing(&mut self, cx: &Context<'_>) -> bool {
        self.is_dead() || self.cuts.holds(self.pair, cx)
    }
}

impl AsyncRead for Cable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.stops_reading(cx) {
            true => Poll::Pending,
            false => Pin::new(&mut self.io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Cable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.stops_writing(cx) {
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
