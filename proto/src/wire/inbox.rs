//! What has been received: bytes in, frames and body bytes out, each length checked before it is believed.
//!
//! The inbox hands out space to read into. While a large body is under way, that space is the body's own buffer,
//! so its bytes are received where they will stay.

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};

use super::batch::BODY_HEAD;
use super::frame::{Frame, FrameHeader, HEADER_LEN, Kind, WireError};

/// Room to have before a read.
const READ_ROOM: usize = 64 * 1024;

/// Something complete that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A frame of any kind but Body.
    Frame(Frame),
    /// The last byte of a body that was [expected](Inbox::expect_body).
    Body {
        /// The item it belongs to.
        item: u64,
        /// The part of the item.
        part: u16,
        /// All of it.
        bytes: Bytes,
    },
}

#[derive(Debug)]
struct Arriving {
    total: usize,
    bytes: BytesMut,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// A frame's header comes next.
    Frame,
    /// So many bytes of an unknown frame are to be dropped.
    Skip(usize),
    /// So many bytes of a Body frame are still to come.
    Body { item: u64, part: u16, left: usize },
}

/// The receiving direction of a link.
#[derive(Debug)]
pub struct Inbox {
    buffer: BytesMut,
    state: State,
    bodies: HashMap<(u64, u16), Arriving>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), state: State::Frame, bodies: HashMap::new() }
    }
}

impl Inbox {
    /// Announces that Body frames with `total` bytes in all will come for this part of this item.
    /// The caller has checked that `total` is within its limit and above 0.
    pub fn expect_body(&mut self, item: u64, part: u16, total: usize) {
        self.bodies.insert((item, part), Arriving { total, bytes: BytesMut::with_capacity(total) });
    }

    /// Where to read the next bytes into: append to it, then call [`Inbox::next`] until it has nothing more.
    /// The second value is the most that may be appended.
    pub fn space(&mut self) -> (&mut BytesMut, usize) {
        if let State::Body { item, part, left } = self.state
            && self.buffer.is_empty()
            && let Some(body) = self.bodies.get_mut(&(item, part))
        {
            return (&mut body.bytes, left);
        }
        self.buffer.reserve(READ_ROOM);
        (&mut self.buffer, usize::MAX)
    }

    /// Tells that `count` bytes were appended to the space handed out before.
    pub fn filled(&mut self, count: usize) {
        // Bytes in the shared buffer are looked at by `next`; only those that went straight into a body are counted here.
        if self.buffer.is_empty()
            && let State::Body { item, part, left } = self.state
        {
            self.state = State::Body { item, part, left: left - count };
        }
    }

    /// The next complete thing, or `None` until more bytes have come.
    #[expect(clippy::should_implement_trait, reason = "not an iterator: `None` means come back later")]
    pub fn next(&mut self) -> Result<Option<Incoming>, WireError> {
        loop {
            match self.state {
                State::Skip(left) => {
                    let now = left.min(self.buffer.len());
                    self.buffer.advance(now);
                    if now < left {
                        self.state = State::Skip(left - now);
                        return Ok(None);
                    }
                    self.state = State::Frame;
                }
                State::Body { item, part, left } => {
                    let now = left.min(self.buffer.len());
                    if now > 0 {
                        let piece = self.buffer.split_to(now);
                        self.body_mut(item, part)?.bytes.extend_from_slice(&piece);
                    }
                    if now < left {
                        self.state = State::Body { item, part, left: left - now };
                        return Ok(None);
                    }
                    self.state = State::Frame;
                    if let Some(bytes) = self.finished(item, part) {
                        return Ok(Some(Incoming::Body { item, part, bytes }));
                    }
                }
                State::Frame => {
                    let Some(header) = FrameHeader::peek(&self.buffer)? else { return Ok(None) };
                    match header.kind {
                        None => {
                            self.buffer.advance(HEADER_LEN);
                            self.state = State::Skip(header.length);
                        }
                        Some(Kind::Body) => {
                            if !self.begin_body(header)? {
                                return Ok(None);
                            }
                        }
                        Some(kind) => return Ok(self.frame(header, kind)),
                    }
                }
            }
        }
    }

    /// Whether the link may end here: between frames, with no body under way.
    pub fn is_clean(&self) -> bool {
        self.buffer.is_empty() && matches!(self.state, State::Frame) && self.bodies.is_empty()
    }

    fn frame(&mut self, header: FrameHeader, kind: Kind) -> Option<Incoming> {
        if self.buffer.len() < HEADER_LEN + header.length {
            return None;
        }
        self.buffer.advance(HEADER_LEN);
        let payload = self.buffer.split_to(header.length).freeze();
        Some(Incoming::Frame(Frame { kind, flags: header.flags, payload }))
    }

    /// Reads the head of a Body frame; `false` if it isn't all there yet.
    fn begin_body(&mut self, header: FrameHeader) -> Result<bool, WireError> {
        if header.length < BODY_HEAD {
            return Err(WireError::Short { kind: Kind::Body, wanted: BODY_HEAD, left: header.length });
        }
        if self.buffer.len() < HEADER_LEN + BODY_HEAD {
            return Ok(false);
        }
        self.buffer.advance(HEADER_LEN);
        let item = self.buffer.get_u64_le();
        let offset = self.buffer.get_u64_le();
        let part = self.buffer.get_u16_le();
        self.buffer.advance(6);
        let left = header.length - BODY_HEAD;
        let body = self.body_mut(item, part)?;
        let expected = body.bytes.len() as u64;
        if offset != expected || body.bytes.len() + left > body.total {
            return Err(WireError::StrayBody { item, offset, expected });
        }
        self.state = State::Body { item, part, left };
        Ok(true)
    }

    fn body_mut(&mut self, item: u64, part: u16) -> Result<&mut Arriving, WireError> {
        self.bodies.get_mut(&(item, part)).ok_or(WireError::UnknownItem { kind: Kind::Body, item })
    }

    fn finished(&mut self, item: u64, part: u16) -> Option<Bytes> {
        let body = self.bodies.get(&(item, part))?;
        if body.bytes.len() < body.total {
            return None;
        }
        self.bodies.remove(&(item, part)).map(|body| body.bytes.freeze())
    }
}
