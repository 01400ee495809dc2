//! Worker to server: replies, streams, and the last word.

use bytes::{BufMut, Bytes};

use super::batch::{INLINE_UP_TO, encode_body};
use super::cursor::Cursor;
use super::frame::{Frame, Kind, MAX_PAYLOAD, WireError};
use super::headers::HeaderBlock;
use super::outbox::Outbox;

const FAILED: u8 = 1;
const CANCELLED: u8 = 2;
const BODIES: u8 = 4;
const STREAM: u8 = 8;

/// What a Reply says about its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The handler's answer.
    Answered,
    /// A failure; the body is its message, the status its code.
    Failed,
    /// Dropped before it was begun, as the server asked.
    Cancelled,
    /// The head of a stream.
    Stream,
}

/// The answer to an item, its body possibly still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The item.
    pub item: u64,
    /// What kind of answer.
    pub outcome: Outcome,
    /// HTTP-like status.
    pub status: u16,
    /// Time in the handler.
    pub handler_us: u32,
    /// Response headers; `:reason` is the reason phrase.
    pub headers: HeaderBlock,
    /// The length of the whole body.
    pub body_len: u64,
    /// The body, or `None` if it follows in Body frames.
    pub body: Option<Bytes>,
}

/// The end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The item.
    pub item: u64,
    /// Time in the handler.
    pub handler_us: u32,
    /// `Some((status, message))` if the stream broke off.
    pub failed: Option<(u16, String)>,
}

/// Sends a reply with all of `body`, in Body frames if it is large.
pub fn encode_reply(
    item: u64,
    outcome: Outcome,
    status: u16,
    handler_us: u32,
    headers: &HeaderBlock,
    body: &Bytes,
    out: &mut Outbox,
) {
    let headers = headers.as_bytes();
    let deferred = body.len() > INLINE_UP_TO;
    let flags = match outcome {
        Outcome::Answered => 0,
        Outcome::Failed => FAILED,
        Outcome::Cancelled => CANCELLED,
        Outcome::Stream => STREAM,
    } | if deferred { BODIES } else { 0 };
    out.frame(Kind::Reply, 0, |payload| {
        payload.put_u64_le(item);
        payload.put_u64_le(body.len() as u64);
        payload.put_u32_le(headers.len() as u32);
        payload.put_u32_le(handler_us);
        payload.put_u16_le(status);
        payload.put_u8(flags);
        payload.put_u8(0);
        payload.put_u32_le(0);
        payload.put_slice(headers);
        if !deferred {
            payload.put_slice(body);
        }
    });
    if deferred {
        encode_body(item, 0, std::slice::from_ref(body), out);
    }
}

/// Reads a Reply frame.
pub fn decode_reply(frame: &Frame) -> Result<Reply, WireError> {
    let mut payload = Cursor::new(frame.kind, frame.payload.clone());
    let item = payload.get_u64_le()?;
    let body_len = payload.get_u64_le()?;
    let headers_len = payload.get_u32_le()? as usize;
    let handler_us = payload.get_u32_le()?;
    let status = payload.get_u16_le()?;
    let flags = payload.get_u8()?;
    payload.skip(5)?;
    let headers = HeaderBlock::from_bytes(payload.take(headers_len)?);
    let outcome = if flags & CANCELLED != 0 {
        Outcome::Cancelled
    } else if flags & STREAM != 0 {
        Outcome::Stream
    } else if flags & FAILED != 0 {
        Outcome::Failed
    } else {
        Outcome::Answered
    };
    let body = if flags & BODIES != 0 {
        None
    } else {
        Some(payload.take(usize::try_from(body_len).unwrap_or(usize::MAX))?)
    };
    Ok(Reply { item, outcome, status, handler_us, headers, body_len, body })
}

/// Sends a piece of a stream; a piece too large for one frame goes out in several.
pub fn encode_chunk(item: u64, data: &Bytes, out: &mut Outbox) {
    let mut rest = data.clone();
    while !rest.is_empty() {
        let now = rest.split_to(rest.len().min(MAX_PAYLOAD - 8));
        out.header(Kind::Chunk, 0, 8 + now.len());
        out.put(&item.to_le_bytes());
        out.slice(&now);
    }
}

/// Reads a Chunk frame.
pub fn decode_chunk(frame: &Frame) -> Result<(u64, Bytes), WireError> {
    let mut payload = Cursor::new(frame.kind, frame.payload.clone());
    let item = payload.get_u64_le()?;
    Ok((item, payload.rest()))
}

/// Sends the end of a stream.
pub fn encode_end(end: &End, out: &mut Outbox) {
    let (status, message) =
        end.failed.as_ref().map_or((200, ""), |(status, message)| (*status, message.as_str()));
    out.frame(Kind::End, 0, |payload| {
        payload.put_u64_le(end.item);
        payload.put_u32_le(end.handler_us);
        payload.put_u16_le(status);
        payload.put_u8(if end.failed.is_some() { FAILED } else { 0 });
        payload.put_u8(0);
        payload.put_slice(message.as_bytes());
    });
}

/// Reads an End frame.
pub fn decode_end(frame: &Frame) -> Result<End, WireError> {
    let mut payload = Cursor::new(frame.kind, frame.payload.clone());
    let item = payload.get_u64_le()?;
    let handler_us = payload.get_u32_le()?;
    let status = payload.get_u16_le()?;
    let flags = payload.get_u8()?;
    payload.skip(1)?;
    let message = payload.rest_lossy();
    Ok(End { item, handler_us, failed: (flags & FAILED != 0).then_some((status, message)) })
}

/// Says goodbye.
pub fn encode_bye(reason: &str, out: &mut Outbox) {
    out.frame(Kind::Bye, 0, |payload| payload.put_slice(reason.as_bytes()));
}
