//! One end of a link: frames over a byte stream, in both directions at once and never waiting for either.
//!
//! Generic over the stream, so that tests talk over an in-memory pipe. Knows no jobs and no processes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;
use zoo_proto::wire::{Inbox, Incoming, Outbox, WireError};

/// Slices in one vectored write.
const SLICES: usize = 32;

/// What came of looking for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// Some came.
    Some,
    /// The other end is closed.
    End,
}

/// A link over `S`.
#[derive(Debug)]
pub struct Link<S> {
    stream: S,
    inbox: Inbox,
    /// What waits to be sent.
    pub outbox: Outbox,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// A link over a stream on which nothing has been said yet.
    pub fn new(stream: S) -> Self {
        Self { stream, inbox: Inbox::default(), outbox: Outbox::default() }
    }

    /// Reads once. Call [`Link::next`] until it has nothing more before reading again.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Filled>> {
        let (space, most) = self.inbox.space();
        let count = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut space.limit(most)))?;
        self.inbox.filled(count);
        Poll::Ready(Ok(if count == 0 { Filled::End } else { Filled::Some }))
    }

    /// The next complete thing that has been read.
    #[expect(clippy::should_implement_trait, reason = "not an iterator: `None` means come back later")]
    pub fn next(&mut self) -> Result<Option<Incoming>, WireError> {
        self.inbox.next()
    }

    /// Announces a body that will follow in Body frames.
    pub fn expect_body(&mut self, item: u64, total: usize) {
        self.inbox.expect_body(item, 0, total);
    }

    /// Writes what waits. Ready when nothing is left.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = self.outbox.io_slices(&mut slices);
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write_vectored(cx, &slices[..filled]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}
