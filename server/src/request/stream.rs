//! A streamed body on its way from the owner of a worker to a client.
//!
//! The worker may have [`STREAM_CREDIT`] bytes under way that the client hasn't taken; that bounds the buffer here, so pushing never waits
//! and a slow client stalls nobody else.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use zoo_proto::wire::STREAM_CREDIT;

use super::mailbox::{Mailbox, Notice};
use crate::failure::Failure;

/// Bytes that the client takes before the worker is told.
const ACKNOWLEDGE: u32 = STREAM_CREDIT / 4;

/// The owner's end.
#[derive(Debug)]
pub struct ChunkSender(Arc<Mutex<Inner>>);

/// The client's end.
#[derive(Debug)]
pub struct Chunks {
    inner: Arc<Mutex<Inner>>,
    mailbox: Mailbox,
    item: u64,
    taken: u32,
}

#[derive(Debug, Default)]
struct Inner {
    chunks: VecDeque<Bytes>,
    waiting: usize,
    end: Option<Result<(), Failure>>,
    reader: Option<Waker>,
    left: bool,
}

/// Makes the two ends of the stream of `item`, whose news go to `mailbox`.
pub fn chunks(mailbox: Mailbox, item: u64) -> (ChunkSender, Chunks) {
    let inner = Arc::new(Mutex::new(Inner::default()));
    (ChunkSender(inner.clone()), Chunks { inner, mailbox, item, taken: 0 })
}

impl ChunkSender {
    /// Hands on a chunk. `false` if more bytes wait than the worker has credit for: it broke the protocol.
    pub fn push(&self, chunk: Bytes) -> bool {
        let mut inner = self.0.lock();
        if inner.left {
            return true;
        }
        inner.waiting += chunk.len();
        // Credit is returned in steps, so bytes that were taken but not yet acknowledged are within the bound too.
        let within = inner.waiting <= STREAM_CREDIT as usize;
        inner.chunks.push_back(chunk);
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
        within
    }

    /// Whether chunks wait that the client hasn't taken.
    pub fn is_backed_up(&self) -> bool {
        self.0.lock().waiting > 0
    }

    /// Ends the stream.
    pub fn end(self, how: Result<(), Failure>) {
        self.finish(how);
    }

    fn finish(&self, how: Result<(), Failure>) {
        let mut inner = self.0.lock();
        if inner.end.is_none() {
            inner.end = Some(how);
        }
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Drop for ChunkSender {
    fn drop(&mut self) {
        self.finish(Err(Failure::WorkerDied { memory: false }));
    }
}

impl Chunks {
    /// The next chunk; `None` after the last one.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        let mut inner = self.inner.lock();
        if let Some(chunk) = inner.chunks.pop_front() {
            inner.waiting -= chunk.len();
            drop(inner);
            self.acknowledge(chunk.len());
            return Poll::Ready(Some(Ok(chunk)));
        }
        match &inner.end {
            None => {
                inner.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(failure)) => {
                let failure = failure.clone();
                inner.end = Some(Ok(()));
                Poll::Ready(Some(Err(failure)))
            }
        }
    }

    /// The next chunk; `None` after the last one.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn acknowledge(&mut self, bytes: usize) {
        self.taken += bytes as u32;
        if self.taken >= ACKNOWLEDGE {
            self.mailbox.leave(Notice::Taken { item: self.item, bytes: self.taken });
            self.taken = 0;
        }
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        let mut inner = self.inner.lock();
        inner.left = true;
        inner.chunks.clear();
        if inner.end.is_none() {
            drop(inner);
            self.mailbox.leave(Notice::Abandoned(self.item));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_arrive_in_order_and_are_acknowledged_in_steps() {
        let mailbox = Mailbox::default();
        let (sender, mut chunks) = chunks(mailbox.clone(), 3);
        let piece = Bytes::from(vec![1; ACKNOWLEDGE as usize / 2]);
        assert!(sender.push(piece.clone()));
        assert!(sender.push(piece.clone()));
        assert_eq!(chunks.next().await.unwrap().unwrap(), piece);
        let seen = || poll_fn(|cx| Poll::Ready(mailbox.collect(cx)));
        assert_eq!(seen().await, []);
        assert_eq!(chunks.next().await.unwrap().unwrap(), piece);
        assert_eq!(seen().await, [Notice::Taken { item: 3, bytes: ACKNOWLEDGE }]);
        sender.end(Ok(()));
        assert!(chunks.next().await.is_none());
    }

    #[tokio::test]
    async fn more_than_the_credit_is_noticed() {
        let (sender, _chunks) = chunks(Mailbox::default(), 3);
        assert!(sender.push(Bytes::from(vec![0; STREAM_CREDIT as usize])));
        assert!(!sender.push(Bytes::from_static(b"x")));
    }

    #[tokio::test]
    async fn a_lost_worker_breaks_the_stream_off() {
        let (sender, mut chunks) = chunks(Mailbox::default(), 3);
        drop(sender);
        assert!(matches!(chunks.next().await, Some(Err(Failure::WorkerDied { .. }))));
        assert!(chunks.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_who_leaves_is_noticed() {
        let mailbox = Mailbox::default();
        let (sender, chunks) = chunks(mailbox.clone(), 3);
        drop(chunks);
        assert!(sender.push(Bytes::from_static(b"x")));
        assert_eq!(poll_fn(|cx| Poll::Ready(mailbox.collect(cx))).await, [Notice::Abandoned(3)]);
    }
}
