//! What the server has sent and the worker hasn't done yet: batches, cancelled items, credit, the wish to stop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use zoo_proto::wire::batch::{
    ReceivedItem, decode_batch, decode_cancel, decode_credit, decode_describe, decode_token, encode_token,
};
use zoo_proto::wire::start::{Hello, Load};
use zoo_proto::wire::{Frame, HeaderBlock, Inbox, Incoming, Kind, Outbox, STREAM_CREDIT, WireError};

use crate::channel::Halt;
use crate::link::Buffer;
use crate::request::Item;

impl From<WireError> for Halt {
    fn from(error: WireError) -> Self {
        Self::Broken(format!("the server broke the worker protocol: {error}"))
    }
}

/// A batch that is complete, or will be.
#[derive(Debug, Default)]
struct Pending {
    items: Vec<Arc<Item>>,
    describe: bool,
    /// Bodies that haven't come.
    missing: usize,
    /// Further items follow in another frame.
    more: bool,
}

/// A batch to run now.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) items: Vec<Arc<Item>>,
    /// The one item asks for the handler's description.
    pub(crate) describe: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) inbox: Inbox,
    pub(crate) buffer: Buffer,
    /// In the order in which they must begin; only the last can have more to come.
    batches: VecDeque<Pending>,
    running: Vec<Arc<Item>>,
    /// The highest id so far.
    last: u64,
    greeted: bool,
    load: Option<Box<Load>>,
    /// The largest request, from when a Load has come.
    limit: Option<u64>,
    draining: bool,
    pub(crate) halted: Option<Halt>,
}

impl Arrivals {
    /// Takes everything that is complete in the inbox. What can be answered at once goes to `out`.
    pub(crate) fn digest(&mut self, out: &mut Outbox) -> Result<(), Halt> {
        while let Some(incoming) = self.inbox.next()? {
            match incoming {
                Incoming::Body { item, part, bytes } => self.take_body(item, part, bytes)?,
                Incoming::Frame(frame) => self.take_frame(&frame, out)?,
            }
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: &Frame, out: &mut Outbox) -> Result<(), Halt> {
        let unexpected = |during| Err(WireError::Unexpected { kind: frame.kind, during }.into());
        match frame.kind {
            Kind::Hello if !self.greeted => {
                Hello::decode(frame)?;
                self.greeted = true;
            }
            _ if !self.greeted => return unexpected("waiting for Hello"),
            Kind::Ping => encode_token(Kind::Pong, decode_token(frame)?, out),
            Kind::Drain => self.draining = true,
            Kind::Load if self.limit.is_none() => {
                let load = Load::decode(frame)?;
                self.limit = Some(load.max_request_bytes.unwrap_or(u64::MAX));
                self.load = Some(Box::new(load));
            }
            _ if self.limit.is_none() => return unexpected("waiting for Load"),
            Kind::Batch => self.take_batch(frame)?,
            Kind::Describe => self.take_describe(frame)?,
            Kind::Cancel => {
                for id in decode_cancel(frame)? {
                    self.find(id).iter().for_each(|item| item.cancelled.store(true, Ordering::Relaxed));
                }
            }
            Kind::Credit => {
                let (id, bytes) = decode_credit(frame)?;
                self.find(id).iter().for_each(|item| {
                    item.credit.fetch_add(bytes.into(), Ordering::Relaxed);
                });
            }
            _ => return unexpected("serving"),
        }
        Ok(())
    }

    fn take_batch(&mut self, frame: &Frame) -> Result<(), Halt> {
        let (received, more) = decode_batch(frame)?;
        let mut batch = self.batches.pop_back_if(|batch| batch.more).unwrap_or_default();
        batch.more = more;
        batch.items.reserve(received.len());
        let now = if received.iter().any(|item| item.timeout_ms > 0) { Some(Instant::now()) } else { None };
        for mut item in received {
            self.number(Kind::Batch, item.id)?;
            batch.missing += self.expect_bodies(&mut item)?;
            batch.items.push(Arc::new(arrived(item, now)));
        }
        self.batches.push_back(batch);
        Ok(())
    }

    fn take_describe(&mut self, frame: &Frame) -> Result<(), Halt> {
        let (id, request_id) = decode_describe(frame)?;
        self.number(Kind::Describe, id)?;
        let received = ReceivedItem {
            id,
            timeout_ms: 0,
            explain: false,
            request_id,
            url_path: String::new(),
            headers: HeaderBlock::default(),
            parts: Vec::new(),
        };
        let items = vec![Arc::new(arrived(received, None))];
        self.batches.push_back(Pending { items, describe: true, ..Pending::default() });
        Ok(())
    }

    /// Ids count up: the next one is higher than all before.
    fn number(&mut self, kind: Kind, id: u64) -> Result<(), WireError> {
        if id <= self.last {
            return Err(WireError::UnknownItem { kind, item: id });
        }
        self.last = id;
        Ok(())
    }

    /// Gets ready for the bodies that follow in frames of their own; returns how many there are.
    fn expect_bodies(&mut self, item: &mut ReceivedItem) -> Result<usize, Halt> {
        let deferred = item.parts.iter().filter(|part| part.body.is_none());
        let declared = deferred.fold(0_u64, |sum, part| sum.saturating_add(part.length));
        let limit = self.limit.unwrap_or(u64::MAX);
        if declared > limit {
            let text = format!("request {} declares {declared} bytes, the limit is {limit}", item.request_id);
            return Err(Halt::Broken(text));
        }
        let mut missing = 0;
        for (index, part) in (0_u16..).zip(&mut item.parts).filter(|(_, part)| part.body.is_none()) {
            if part.length == 0 {
                part.body = Some(Bytes::new());
                continue;
            }
            self.inbox.expect_body(item.id, index, usize::try_from(part.length).unwrap_or(usize::MAX));
            missing += 1;
        }
        Ok(missing)
    }

    fn take_body(&mut self, id: u64, part: u16, bytes: Bytes) -> Result<(), WireError> {
        let stray = WireError::UnknownItem { kind: Kind::Body, item: id };
        // An item that isn't complete hasn't been given to anybody, so it can be changed.
        let (batch, index) = place(&mut self.batches, id).ok_or(stray.clone())?;
        let item = batch.items.get_mut(index).and_then(Arc::get_mut).ok_or(stray.clone())?;
        item.received.parts.get_mut(usize::from(part)).ok_or(stray)?.body = Some(bytes);
        batch.missing -= 1;
        Ok(())
    }

    /// An item on hand, begun or not.
    fn find(&mut self, id: u64) -> Option<Arc<Item>> {
        let running = self.running.iter().find(|item| item.received.id == id).cloned();
        running.or_else(|| {
            place(&mut self.batches, id).and_then(|(batch, index)| batch.items.get(index).cloned())
        })
    }

    /// What to load, once, when it has come.
    pub(crate) fn take_load(&mut self) -> Option<Load> {
        self.load.take().map(|load| *load)
    }

    /// Whether there is a batch, complete or not.
    pub(crate) fn has_any(&self) -> bool {
        !self.batches.is_empty()
    }

    /// Takes the next batch if it is complete; the one before is over.
    pub(crate) fn begin(&mut self) -> Option<Begun> {
        let batch = self.batches.pop_front_if(|batch| batch.missing == 0 && !batch.more)?;
        self.running.clone_from(&batch.items);
        Some(Begun { items: batch.items, describe: batch.describe })
    }

    /// Forgets the batch that ran: its bodies live no longer than it.
    pub(crate) fn finish(&mut self) {
        self.running.clear();
    }

    /// Whether the worker is to leave once it has nothing more to do.
    pub(crate) fn draining(&self) -> bool {
        self.draining
    }
}

fn arrived(received: ReceivedItem, now: Option<Instant>) -> Item {
    let timeout = Duration::from_millis(received.timeout_ms.into());
    let deadline = now.filter(|_| !timeout.is_zero()).map(|now| now + timeout);
    let credit = AtomicU64::new(STREAM_CREDIT.into());
    Item { received, deadline, cancelled: AtomicBool::new(false), credit }
}

/// The batch that an item waits in, and its place there.
fn place(batches: &mut VecDeque<Pending>, id: u64) -> Option<(&mut Pending, usize)> {
    batches.iter_mut().find_map(|batch| {
        let index = batch.items.binary_search_by_key(&id, |item| item.received.id).ok()?;
        Some((batch, index))
    })
}
