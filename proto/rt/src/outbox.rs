//! What waits to be written to one connection.
//!
//! Many push, one takes *everything that is ready* as one batch, so a burst leaves in one write.
//! An outbox is bounded in items and bytes: a reader that does not read costs its host no more
//! than the limits, and whoever pushes learns of it. It does not know what it carries.
//!
//! There are thousands in a process, so an idle one owns no buffer.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio_util::sync::CancellationToken;

/// How much an outbox may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most items.
    pub items_max: usize,
    /// Most bytes, as counted by those who push. A single item may be larger if nothing else waits.
    pub bytes_max: usize,
}

/// Why an item was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Too many items wait. The peer does not read: give its connection up.
    #[error("too many items wait")]
    Items,
    /// Too many bytes wait. The peer does not read: give its connection up.
    #[error("too many bytes wait")]
    Bytes,
    /// The connection is gone, or about to go. Nothing to do.
    #[error("closed")]
    Closed,
}

/// A bounded queue with many producers and one consumer.
pub struct Outbox<T> {
    limits: Limits,
    /// Of the connection that its consumer writes to.
    stop: Option<CancellationToken>,
    queue: Mutex<Queue<T>>,
}

struct Queue<T> {
    items: VecDeque<T>,
    /// Of each item, in the same order.
    sizes: VecDeque<usize>,
    bytes: usize,
    is_closed: bool,
    consumer: Option<Waker>,
}

impl<T> Outbox<T> {
    /// An empty outbox.
    pub fn new(limits: Limits) -> Self {
        Self::with(None, limits)
    }

    /// An empty outbox on a connection that is closed when `stop` is cancelled.
    pub fn on(stop: CancellationToken, limits: Limits) -> Self {
        Self::with(Some(stop), limits)
    }

    fn with(stop: Option<CancellationToken>, limits: Limits) -> Self {
        let queue = Queue {
            items: VecDeque::new(),
            sizes: VecDeque::new(),
            bytes: 0,
            is_closed: false,
            consumer: None,
        };
        Self { limits, stop, queue: Mutex::new(queue) }
    }

    /// Puts an item of about `bytes` bytes at the end.
    ///
    /// # Errors
    /// If a limit is reached or the outbox is closed; the item is dropped then.
    pub fn push(&self, item: T, bytes: usize) -> Result<(), Full> {
        let consumer = {
            let mut queue = self.queue();
            queue.check_room(self.limits, bytes)?;
            queue.items.push_back(item);
            queue.sizes.push_back(bytes);
            queue.bytes += bytes;
            queue.consumer.take()
        };
        wake(consumer);
        Ok(())
    }

    /// Refuses what comes from now on. What is held is still taken, then the consumer sees the end.
    pub fn close(&self) {
        let consumer = {
            let mut queue = self.queue();
            queue.is_closed = true;
            queue.consumer.take()
        };
        wake(consumer);
    }

    /// Closes, and drops what is held: nobody will take it.
    pub fn discard(&self) {
        let (consumer, dropped) = {
            let mut queue = self.queue();
            queue.is_closed = true;
            queue.bytes = 0;
            queue.sizes = VecDeque::new();
            (queue.consumer.take(), std::mem::take(&mut queue.items))
        };
        drop(dropped);
        wake(consumer);
    }

    /// Discards, and has the connection closed: its peer does not read, so the consumer may wait for
    /// it for ever and see nothing of the end here.
    pub fn abandon(&self) {
        self.discard();
        if let Some(stop) = &self.stop {
            stop.cancel();
        }
    }

    /// Whether it refuses what comes.
    pub fn is_closed(&self) -> bool {
        self.queue().is_closed
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.queue().bytes
    }

    /// Items and bytes that wait.
    pub fn waiting(&self) -> (usize, usize) {
        let queue = self.queue();
        (queue.items.len(), queue.bytes)
    }

    /// Takes what is ready, in order: as many items as fit into `bytes_max`, at least one.
    ///
    /// `None` once it is closed and empty. For one consumer: only the last to poll is woken.
    pub fn poll_take(&self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<Option<Vec<T>>> {
        let mut queue = self.queue();
        if !queue.items.is_empty() {
            return Poll::Ready(Some(queue.take(bytes_max)));
        }
        if queue.is_closed {
            return Poll::Ready(None);
        }
        match &mut queue.consumer {
            Some(consumer) => consumer.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// As [`poll_take`](Self::poll_take), for consumers that do nothing else. Cancel-safe.
    pub async fn take(&self, bytes_max: usize) -> Option<Vec<T>> {
        std::future::poll_fn(|cx| self.poll_take(cx, bytes_max)).await
    }

    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outside the lock, since the woken may come for the items at once.
fn wake(consumer: Option<Waker>) {
    if let Some(consumer) = consumer {
        consumer.wake();
    }
}

impl<T> Queue<T> {
    fn check_room(&self, limits: Limits, bytes: usize) -> Result<(), Full> {
        if self.is_closed {
            return Err(Full::Closed);
        }
        if self.items.len() >= limits.items_max {
            return Err(Full::Items);
        }
        if !self.items.is_empty() && self.bytes.saturating_add(bytes) > limits.bytes_max {
            return Err(Full::Bytes);
        }
        Ok(())
    }

    fn take(&mut self, bytes_max: usize) -> Vec<T> {
        if self.bytes <= bytes_max {
            self.bytes = 0;
            self.sizes = VecDeque::new();
            return std::mem::take(&mut self.items).into();
        }
        let count = self.count_within(bytes_max);
        self.bytes -= self.sizes.drain(..count).sum::<usize>();
        self.items.drain(..count).collect()
    }

    fn count_within(&self, bytes_max: usize) -> usize {
        let mut total = 0;
        let fitting = self.sizes.iter().take_while(|size| {
            total += **size;
            total <= bytes_max
        });
        fitting.count().max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;

    const LIMITS: Limits = Limits { items_max: 3, bytes_max: 100 };

    fn outbox(items: &[(u32, usize)]) -> Outbox<u32> {
        let outbox = Outbox::new(LIMITS);
        for (item, bytes) in items {
            outbox.push(*item, *bytes).unwrap();
        }
        outbox
    }

    fn taken(outbox: &Outbox<u32>, bytes_max: usize) -> Option<Option<Vec<u32>>> {
        outbox.take(bytes_max).now_or_never()
    }

    #[test]
    fn all_that_is_ready_leaves_in_one_batch_in_order() {
        let outbox = outbox(&[(1, 10), (2, 10), (3, 10)]);

        assert_eq!(taken(&outbox, 1_000), Some(Some(vec![1, 2, 3])));
        assert_eq!(taken(&outbox, 1_000), None);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn a_batch_ends_before_its_byte_limit_but_has_at_least_one_item() {
        let outbox = outbox(&[(1, 40), (2, 10), (3, 10)]);

        assert_eq!(taken(&outbox, 20), Some(Some(vec![1])));
        assert_eq!(taken(&outbox, 10), Some(Some(vec![2])));
        assert_eq!(taken(&outbox, 10), Some(Some(vec![3])));
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn too_many_items_are_refused_and_room_comes_back() {
        let outbox = outbox(&[(1, 1), (2, 1), (3, 1)]);
        assert_eq!(outbox.push(4, 1), Err(Full::Items));

        taken(&outbox, 1_000).unwrap();

        assert_eq!(outbox.push(5, 1), Ok(()));
    }

    #[test]
    fn too_many_bytes_are_refused_unless_nothing_else_waits() {
        let outbox = outbox(&[(1, 300)]);

        assert_eq!(outbox.push(2, 1), Err(Full::Bytes));
        assert_eq!(taken(&outbox, 1_000), Some(Some(vec![1])));
    }

    #[test]
    fn a_closed_outbox_gives_what_it_holds_and_then_the_end() {
        let outbox = outbox(&[(1, 1)]);

        outbox.close();

        assert_eq!(outbox.push(2, 1), Err(Full::Closed));
        assert_eq!(taken(&outbox, 1_000), Some(Some(vec![1])));
        assert_eq!(taken(&outbox, 1_000), Some(None));
    }

    #[test]
    fn a_discarded_outbox_gives_nothing_more() {
        let outbox = outbox(&[(1, 1)]);

        outbox.discard();

        assert_eq!(taken(&outbox, 1_000), Some(None));
    }

    #[test]
    fn an_idle_outbox_owns_no_buffer() {
        let outbox = outbox(&[(1, 1), (2, 1)]);

        taken(&outbox, 1_000).unwrap();

        let queue = outbox.queue();
        assert_eq!((queue.items.capacity(), queue.sizes.capacity()), (0, 0));
    }

    #[tokio::test]
    async fn the_consumer_is_woken_by_a_push_and_by_the_close() {
        let outbox = Arc::new(outbox(&[]));
        let producer = outbox.clone();
        let (batch, ()) = tokio::join!(outbox.take(100), async move { producer.push(7, 1).unwrap() });
        assert_eq!(batch, Some(vec![7]));

        let closer = outbox.clone();
        let (end, ()) = tokio::join!(outbox.take(100), async move { closer.close() });
        assert_eq!(end, None);
    }
}
