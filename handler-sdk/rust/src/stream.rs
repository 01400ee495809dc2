//! Answers in chunks: under credit, ended by a Cancel, each item at its own pace.
//!
//! A chunk that the server hasn't asked for waits here, and so does whoever makes the next one.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use zoo_proto::wire::HeaderBlock;
use zoo_proto::wire::answer::{End, Outcome, encode_chunk, encode_end, encode_reply};

use crate::channel::{Channel, Halt, cut};
use crate::error::{HandlerError, panic_text};
use crate::request::Item;
use crate::response::{Chunks, Writes};
use crate::service::{micros, report};

const CANCELLED: (u16, &str) = (499, "Cancelled");

/// The streaming answer of one item. Its head is sent with the first chunk, so that an error before it is a whole answer.
pub(crate) struct Stream<'c> {
    channel: &'c Channel,
    item: Arc<Item>,
    head: Option<(u16, HeaderBlock)>,
    started: Instant,
    /// What waits for credit.
    pending: Bytes,
}

impl<'c> Stream<'c> {
    pub(crate) fn new(
        channel: &'c Channel,
        item: Arc<Item>,
        status: u16,
        headers: HeaderBlock,
        started: Instant,
    ) -> Self {
        Self { channel, item, head: Some((status, headers)), started, pending: Bytes::new() }
    }

    fn is_cancelled(&self) -> bool {
        self.item.cancelled.load(Ordering::Relaxed) || self.channel.is_over()
    }

    /// Takes the next chunk; the one before has been pushed out.
    fn put(&mut self, chunk: Bytes) {
        self.open();
        self.pending = chunk;
    }

    fn open(&mut self) {
        let Some((status, headers)) = self.head.take() else { return };
        let (id, spent) = (self.item.received.id, micros(self.started));
        self.channel.outgoing(|out| {
            encode_reply(id, Outcome::Stream, status, spent, &headers, &Bytes::new(), out);
        });
    }

    /// Sends as much as there is credit for. True if nothing is left.
    fn push(&mut self) -> bool {
        if self.is_cancelled() {
            self.pending.clear();
        }
        // Only this thread takes credit away, so what was read is still there.
        let credit = self.item.credit.load(Ordering::Relaxed);
        let now = self.pending.len().min(usize::try_from(credit).unwrap_or(usize::MAX));
        if now > 0 {
            let piece = self.pending.split_to(now);
            self.item.credit.fetch_sub(now as u64, Ordering::Relaxed);
            self.channel.outgoing(|out| encode_chunk(self.item.received.id, &piece, out));
        }
        self.pending.is_empty()
    }

    /// Says the last word.
    fn end(mut self, result: Result<(), HandlerError>) {
        let id = self.item.received.id;
        let failed = if self.is_cancelled() {
            Some((CANCELLED.0, CANCELLED.1.to_owned()))
        } else {
            result.err().map(|error| {
                report(&self.item, &error);
                (error.status(), cut(error.message()).to_owned())
            })
        };
        let handler_us = micros(self.started);
        match (failed, &self.head) {
            (Some((status, message)), Some(_)) => {
                self.channel.fail(id, handler_us, &HandlerError::client(status, message));
            }
            (failed, _) => {
                self.open();
                self.channel.outgoing(|out| encode_end(&End { item: id, handler_us, failed }, out));
            }
        }
    }
}

/// Runs streams until all have ended, taking turns. One without credit is passed over, so it delays no other.
pub(crate) fn run_all<'c>(
    channel: &'c Channel,
    mut streams: Vec<(Stream<'c>, Chunks<'_>)>,
) -> Result<(), Halt> {
    while !streams.is_empty() {
        let mut moved = false;
        let mut index = 0;
        while let Some((stream, chunks)) = streams.get_mut(index) {
            if !stream.push() {
                index += 1;
                continue;
            }
            moved = true;
            channel.receive(false)?;
            match step(stream, chunks) {
                None => index += 1,
                Some(result) => {
                    let (stream, chunks) = streams.remove(index);
                    let dropped = guarded(move || {
                        drop(chunks);
                        Ok(())
                    });
                    stream.end(result.and(dropped));
                }
            }
            channel.flush()?;
        }
        if !moved {
            channel.flush()?;
            channel.receive(true)?;
        }
    }
    Ok(())
}

/// Sends the next chunk, or tells how the stream ends.
fn step(stream: &mut Stream<'_>, chunks: &mut Chunks<'_>) -> Option<Result<(), HandlerError>> {
    if stream.is_cancelled() {
        return Some(Ok(()));
    }
    match guarded(|| chunks.next().transpose()) {
        Ok(Some(chunk)) => {
            stream.put(chunk);
            stream.push();
            None
        }
        Ok(None) => Some(Ok(())),
        Err(error) => Some(Err(error)),
    }
}

/// Lets a handler write a stream by itself.
pub(crate) fn run_writer(channel: &Channel, stream: Stream<'_>, write: Writes<'_>) -> Result<(), Halt> {
    let mut writer = ChunkWriter { stream };
    let result = guarded(|| write(&mut writer));
    // A link that ended while the handler wrote is seen here.
    channel.receive(false)?;
    writer.stream.end(result);
    channel.flush()
}

/// Code of a handler, whose panics are failures.
fn guarded<T>(run: impl FnOnce() -> Result<T, HandlerError>) -> Result<T, HandlerError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        Err(HandlerError::unexpected(format!("the handler panicked: {}", panic_text(payload.as_ref()))))
    })
}

/// Sends the chunks of one answer, for [`Response::write_with`](crate::Response::write_with).
pub struct ChunkWriter<'a> {
    stream: Stream<'a>,
}

impl ChunkWriter<'_> {
    /// Sends a chunk, waiting as long as the client has too much of this answer to read. An error says that nobody reads it any more:
    /// stop, and pass the error on by `?`.
    pub fn write(&mut self, chunk: impl Into<Bytes>) -> Result<(), Cancelled> {
        self.stream.put(chunk.into());
        let channel = self.stream.channel;
        channel.poll();
        loop {
            let done = self.stream.push();
            channel.flush().map_err(|_| Cancelled)?;
            if self.stream.is_cancelled() {
                return Err(Cancelled);
            }
            if done {
                return Ok(());
            }
            channel.receive(true).map_err(|_| Cancelled)?;
        }
    }

    /// Whether nobody reads the answer any more.
    pub fn is_cancelled(&self) -> bool {
        self.stream.channel.poll();
        self.stream.is_cancelled()
    }
}

impl fmt::Debug for ChunkWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkWriter")
            .field("request", &self.stream.item.received.request_id)
            .finish_non_exhaustive()
    }
}

/// The client of a stream has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CANCELLED.1)
    }
}

impl Error for Cancelled {}
