//! Server to worker: batches of items, their bodies, and what the server may say about items later.

use bytes::{BufMut, Bytes};

use super::cursor::Cursor;
use super::frame::{Frame, Kind, MAX_PAYLOAD, WireError};
use super::headers::HeaderBlock;
use super::outbox::Outbox;

/// So many body bytes of an item travel inside its Batch frame; parts that go beyond follow in Body frames.
pub const INLINE_UP_TO: usize = 64 * 1024;
/// Bytes of a Body frame before the body bytes.
pub const BODY_HEAD: usize = 24;

const MORE: u8 = 1;
const BATCH_HEAD: usize = 4;
const ITEM_HEAD: usize = 24;
const PART_HEAD: usize = 16;
const EXPLAIN: u8 = 1;
const DEFERRED: u8 = 1;

/// One part of an item: a parameter of the request.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its content type; empty if it has none.
    pub content_type: &'a str,
    /// Its bytes, in as many slices as they came.
    pub body: &'a [Bytes],
}

impl Part<'_> {
    fn len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }
}

/// One item of a batch: a request.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    /// Its id on this link.
    pub id: u64,
    /// Milliseconds until the client's deadline; 0 for none.
    pub timeout_ms: u32,
    /// The client asks for an explanation.
    pub explain: bool,
    /// The request id that logs show.
    pub request_id: &'a str,
    /// The rest of the path after the model's version.
    pub url_path: &'a str,
    /// The request's headers.
    pub headers: &'a HeaderBlock,
    /// The request's parameters.
    pub parts: Vec<Part<'a>>,
}

impl Item<'_> {
    /// Bytes that the item takes in a Batch frame.
    pub fn encoded_len(&self) -> usize {
        let parts: usize = self
            .placed_parts()
            .map(|(part, inline)| {
                PART_HEAD + part.name.len() + part.content_type.len() + if inline { part.len() } else { 0 }
            })
            .sum();
        ITEM_HEAD + self.request_id.len() + self.url_path.len() + self.headers.as_bytes().len() + parts
    }

    /// Whether the item can be sent at all: its own frame must hold it, and its counts their fields.
    pub fn fits(&self) -> bool {
        let short = |text: &str| text.len() <= usize::from(u16::MAX);
        BATCH_HEAD + self.encoded_len() <= MAX_PAYLOAD
            && self.parts.len() <= usize::from(u16::MAX)
            && short(self.request_id)
            && short(self.url_path)
            && self.parts.iter().all(|part| short(part.name) && short(part.content_type))
    }

    /// The parts, each with a note whether its bytes travel inside the Batch frame.
    fn placed_parts(&self) -> impl Iterator<Item = (&Part<'_>, bool)> {
        self.parts.iter().scan(0, |inlined, part| {
            let inline = *inlined + part.len() <= INLINE_UP_TO;
            *inlined += if inline { part.len() } else { 0 };
            Some((part, inline))
        })
    }

    fn put(&self, out: &mut Outbox) {
        let mut head = [0_u8; ITEM_HEAD];
        let mut field = &mut head[..];
        field.put_u64_le(self.id);
        field.put_u32_le(self.timeout_ms);
        field.put_u32_le(self.headers.as_bytes().len() as u32);
        field.put_u16_le(self.request_id.len() as u16);
        field.put_u16_le(self.url_path.len() as u16);
        field.put_u16_le(self.parts.len() as u16);
        field.put_u8(if self.explain { EXPLAIN } else { 0 });
        out.put(&head);
        out.put(self.request_id.as_bytes());
        out.put(self.url_path.as_bytes());
        out.put(self.headers.as_bytes());
        for (part, inline) in self.placed_parts() {
            put_part(part, inline, out);
        }
    }
}

fn put_part(part: &Part<'_>, inline: bool, out: &mut Outbox) {
    let mut head = [0_u8; PART_HEAD];
    let mut field = &mut head[..];
    field.put_u64_le(part.len() as u64);
    field.put_u16_le(part.name.len() as u16);
    field.put_u16_le(part.content_type.len() as u16);
    field.put_u8(if inline { 0 } else { DEFERRED });
    out.put(&head);
    out.put(part.name.as_bytes());
    out.put(part.content_type.as_bytes());
    if inline {
        for piece in part.body {
            out.put(piece);
        }
    }
}

/// Sends a batch: as many Batch frames as its items need, then the Body frames of its large parts.
/// Every item must [fit](Item::fits).
pub fn encode_batch(items: &[Item<'_>], out: &mut Outbox) {
    let mut rest = items;
    loop {
        let (count, length) = first_frame(rest);
        let (now, later) = rest.split_at(count);
        out.header(Kind::Batch, if later.is_empty() { 0 } else { MORE }, length);
        out.put(&(count as u16).to_le_bytes());
        out.put(&[0, 0]);
        for item in now {
            item.put(out);
        }
        for item in now {
            put_deferred(item, out);
        }
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}

/// How many of `items` go into one frame, and its payload's length.
fn first_frame(items: &[Item<'_>]) -> (usize, usize) {
    let mut length = BATCH_HEAD;
    let mut count = 0;
    for item in items.iter().take(usize::from(u16::MAX)) {
        let with = length + item.encoded_len();
        if with > MAX_PAYLOAD && count > 0 {
            break;
        }
        length = with;
        count += 1;
    }
    (count, length)
}

fn put_deferred(item: &Item<'_>, out: &mut Outbox) {
    for (index, (part, inline)) in item.placed_parts().enumerate() {
        if !inline {
            encode_body(item.id, index as u16, part.body, out);
        }
    }
}

/// Sends bytes that were declared before, in Body frames that point into `pieces`.
pub fn encode_body(item: u64, part: u16, pieces: &[Bytes], out: &mut Outbox) {
    let mut offset = 0_u64;
    for piece in pieces {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            let now = rest.split_to(rest.len().min(MAX_PAYLOAD - BODY_HEAD));
            out.header(Kind::Body, 0, BODY_HEAD + now.len());
            out.put(&item.to_le_bytes());
            out.put(&offset.to_le_bytes());
            out.put(&part.to_le_bytes());
            out.put(&[0; 6]);
            out.slice(&now);
            offset += now.len() as u64;
        }
    }
}

/// A part as the worker's end receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedPart {
    /// Its name.
    pub name: String,
    /// Its content type; empty if it has none.
    pub content_type: String,
    /// How long its body is.
    pub length: u64,
    /// The body, or `None` if it follows in Body frames.
    pub body: Option<Bytes>,
}

/// An item as the worker's end receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedItem {
    /// Its id on this link.
    pub id: u64,
    /// Milliseconds until the client's deadline; 0 for none.
    pub timeout_ms: u32,
    /// The client asks for an explanation.
    pub explain: bool,
    /// The request id that logs show.
    pub request_id: String,
    /// The rest of the path after the model's version.
    pub url_path: String,
    /// The request's headers.
    pub headers: HeaderBlock,
    /// The request's parameters.
    pub parts: Vec<ReceivedPart>,
}

/// Reads a Batch frame: its items, and whether more of the same batch follow.
pub fn decode_batch(frame: &Frame) -> Result<(Vec<ReceivedItem>, bool), WireError> {
    let mut payload = Cursor::new(frame.kind, frame.payload.clone());
    let count = payload.get_u16_le()?;
    payload.skip(2)?;
    let items = (0..count).map(|_| decode_item(&mut payload)).collect::<Result<_, _>>()?;
    Ok((items, frame.flags & MORE != 0))
}

fn decode_item(payload: &mut Cursor) -> Result<ReceivedItem, WireError> {
    let id = payload.get_u64_le()?;
    let timeout_ms = payload.get_u32_le()?;
    let headers_len = payload.get_u32_le()? as usize;
    let request_id_len = usize::from(payload.get_u16_le()?);
    let url_path_len = usize::from(payload.get_u16_le()?);
    let part_count = payload.get_u16_le()?;
    let flags = payload.get_u8()?;
    payload.skip(1)?;
    Ok(ReceivedItem {
        id,
        timeout_ms,
        explain: flags & EXPLAIN != 0,
        request_id: payload.text(request_id_len)?,
        url_path: payload.text(url_path_len)?,
        headers: HeaderBlock::from_bytes(payload.take(headers_len)?),
        parts: (0..part_count).map(|_| decode_part(payload)).collect::<Result<_, _>>()?,
    })
}

fn decode_part(payload: &mut Cursor) -> Result<ReceivedPart, WireError> {
    let length = payload.get_u64_le()?;
    let name_len = usize::from(payload.get_u16_le()?);
    let content_type_len = usize::from(payload.get_u16_le()?);
    let flags = payload.get_u8()?;
    payload.skip(3)?;
    let name = payload.text(name_len)?;
    let content_type = payload.text(content_type_len)?;
    let deferred = flags & DEFERRED != 0;
    let body =
        if deferred { None } else { Some(payload.take(usize::try_from(length).unwrap_or(usize::MAX))?) };
    Ok(ReceivedPart { name, content_type, length, body })
}

/// Sends the news that `bytes` of an item's chunks have been taken.
pub fn encode_credit(item: u64, bytes: u32, out: &mut Outbox) {
    out.frame(Kind::Credit, 0, |payload| {
        payload.put_u64_le(item);
        payload.put_u32_le(bytes);
        payload.put_u32_le(0);
    });
}

/// Reads a Credit frame: the item and the bytes.
pub fn decode_credit(frame: &Frame) -> Result<(u64, u32), WireError> {
    let mut payload = Cursor::new(frame.kind, frame.payload.clone());
    Ok((payload.get_u64_le()?, payload.get_u32_le()?))
}

/// Sends the news that nobody wants these items' answers any more.
pub fn encode_cancel(items: &[u64], out: &mut Outbox) {
    for some in items.chunks(MAX_PAYLOAD / 8) {
        out.frame(Kind::Cancel, 0, |payload| some.iter().for_each(|item| payload.put_u64_le(*item)));
    }
}

/// Reads a Cancel frame.
pub fn decode_cancel(frame: &Frame) -> Result<Vec<u64>, WireError> {
    let mut payload = Cursor::new(frame.kind, frame.payload.clone());
    (0..payload.remaining() / 8).map(|_| payload.get_u64_le()).collect()
}

/// Asks for the handler's description; answered like an item.
pub fn encode_describe(item: u64, request_id: &str, out: &mut Outbox) {
    out.frame(Kind::Describe, 0, |payload| {
        payload.put_u64_le(item);
        payload.put_u16_le(request_id.len() as u16);
        payload.put_slice(request_id.as_bytes());
    });
}

/// Reads a Describe frame: the item and the request id.
pub fn decode_describe(frame: &Frame) -> Result<(u64, String), WireError> {
    let mut payload = Cursor::new(frame.kind, frame.payload.clone());
    Ok((payload.get_u64_le()?, payload.str16()?))
}

/// Sends a Ping or Pong.
pub fn encode_token(kind: Kind, token: u64, out: &mut Outbox) {
    out.frame(kind, 0, |payload| payload.put_u64_le(token));
}

/// Reads a Ping or Pong.
pub fn decode_token(frame: &Frame) -> Result<u64, WireError> {
    Cursor::new(frame.kind, frame.payload.clone()).get_u64_le()
}

/// Sends a Drain.
pub fn encode_drain(out: &mut Outbox) {
    out.header(Kind::Drain, 0, 0);
}
