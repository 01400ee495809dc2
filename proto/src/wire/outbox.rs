//! What waits to be sent: small pieces gathered in one buffer, large bodies kept as the slices they came in.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frame::{HEADER_LEN, Kind, MAX_PAYLOAD};

/// Slices up to this size are copied into the shared buffer: cheaper than one more entry in a vectored write.
const COPY_UP_TO: usize = 4 * 1024;

/// Bytes on their way out, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    full: VecDeque<Bytes>,
    tail: BytesMut,
    queued: usize,
}

impl Outbox {
    /// Appends a frame whose payload `fill` writes. The payload must stay within [`MAX_PAYLOAD`].
    pub fn frame(&mut self, kind: Kind, flags: u8, fill: impl FnOnce(&mut BytesMut)) {
        let start = self.tail.len();
        self.header(kind, flags, 0);
        fill(&mut self.tail);
        let length = self.tail.len() - start - HEADER_LEN;
        debug_assert!(length <= MAX_PAYLOAD, "{kind:?} frame of {length} bytes");
        self.tail[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
        self.queued += length;
    }

    /// Appends the header of a frame whose `length` bytes of payload follow by [`Outbox::put`] and [`Outbox::slice`].
    pub fn header(&mut self, kind: Kind, flags: u8, length: usize) {
        self.tail.reserve(HEADER_LEN + length.min(COPY_UP_TO));
        self.tail.put_u32_le(length as u32);
        self.tail.put_u8(kind as u8);
        self.tail.put_u8(flags);
        self.tail.put_u16_le(0);
        self.queued += HEADER_LEN;
    }

    /// Appends bytes by copying them.
    pub fn put(&mut self, bytes: &[u8]) {
        self.tail.put_slice(bytes);
        self.queued += bytes.len();
    }

    /// Appends a slice, without copying it if it is large.
    pub fn slice(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPY_UP_TO {
            self.put(bytes);
            return;
        }
        self.queued += bytes.len();
        if !self.tail.is_empty() {
            self.full.push_back(self.tail.split().freeze());
        }
        self.full.push_back(bytes.clone());
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.queued
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Fills `slices` with what comes next, for a vectored write; returns how many were filled.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let waiting =
            self.full.iter().map(|full| &full[..]).chain([&self.tail[..]]).filter(|s| !s.is_empty());
        let mut filled = 0;
        for (slot, bytes) in slices.iter_mut().zip(waiting) {
            *slot = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    /// Forgets the first `count` bytes: they have been written.
    pub fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.queued);
        self.queued -= count;
        while let Some(first) = self.full.front_mut() {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.full.pop_front();
        }
        self.tail.advance(count);
    }

    /// Everything that waits, in one piece; for tests and for blocking writers.
    pub fn take(&mut self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.queued);
        for piece in self.full.drain(..) {
            all.put_slice(&piece);
        }
        all.put_slice(&self.tail.split());
        self.queued = 0;
        all.freeze()
    }
}
