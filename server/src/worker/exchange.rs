//! Giving a ready worker its work and taking its answers, until something ends it.
//!
//! One pass of [`Exchange::poll`] does everything that can be done now: news from clients, bytes from the worker, new batches for it, bytes to
//! it, and the clock. It never waits for any one of them, so a slow client, a full socket or a busy handler holds up nothing else.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use zoo_proto::wire::answer::{Outcome, Reply, decode_chunk, decode_end, decode_reply};
use zoo_proto::wire::batch::{
    Item, Part, encode_batch, encode_cancel, encode_credit, encode_describe, encode_drain,
};
use zoo_proto::wire::event::{Log, Metric, decode_log, decode_metrics};
use zoo_proto::wire::{Frame, Incoming, Kind, WireError};

use super::floor::Floor;
use super::inflight::{InFlight, Settled, Slot};
use super::link::{Filled, Link};
use super::loss::Loss;
use super::orders::{Order, Orders};
use super::pace::Pace;
use super::window::Window;
use crate::batch::job::{Job, Stamp, Task};
use crate::batch::queue::Taken;
use crate::failure::Failure;
use crate::request::mailbox::{Mailbox, Notice};
use crate::request::stream::chunks;
use crate::request::{Answer, AnswerBody, Request};

/// Reads in one pass before others on this thread get a turn.
const READS: usize = 16;
/// A worker overruns when it takes so many times its p99 …
const OVERRUN: u32 = 20;
/// … but not before this: a busy machine makes anybody late by some milliseconds.
const OVERRUN_LEAST: Duration = Duration::from_millis(10);
/// When there is nothing to look at the clock for.
const NO_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// How the exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The worker finished everything and said goodbye.
    Drained,
    /// It was lost. What it had is still in [`Exchange::inflight`].
    Lost(Loss),
}

/// What holds for the whole exchange.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The worker's number, for the queue.
    pub worker: u32,
    /// How much may be on the wire.
    pub window: Window,
    /// The longest that the worker may go without answering.
    pub response_timeout: Duration,
    /// The largest answer.
    pub max_response_bytes: u64,
}

/// What a worker says beside its answers.
pub trait Sink: Send + Sync {
    /// A log record.
    fn log(&self, log: Log);
    /// Metrics of the handler.
    fn metrics(&self, metrics: Vec<Metric>);
}

/// The work of one ready worker.
pub struct Exchange<S> {
    terms: Terms,
    link: Link<S>,
    floor: Arc<Floor>,
    orders: Orders,
    sink: Arc<dyn Sink>,
    /// What is on the wire.
    pub inflight: InFlight,
    pace: Pace,
    mailbox: Mailbox,
    taken: Vec<Job>,
    gather_until: Option<Instant>,
    /// The oldest batch overran, and what waited behind it was given back.
    overran: bool,
    leaving: Leaving,
    clock: Pin<Box<Sleep>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// Nothing new is taken; what was begun is finished.
    Finishing,
    /// The worker was told to go.
    Told,
    /// It said goodbye.
    Bye,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// Begins with nothing on the wire.
    pub fn new(terms: Terms, link: Link<S>, floor: Arc<Floor>, orders: Orders, sink: Arc<dyn Sink>) -> Self {
        let now = Instant::now();
        Self {
            terms,
            link,
            floor,
            orders,
            sink,
            inflight: InFlight::new(now),
            pace: Pace::default(),
            mailbox: Mailbox::default(),
            taken: Vec::new(),
            gather_until: None,
            overran: false,
            leaving: Leaving::No,
            clock: Box::pin(sleep_until(now + NO_DEADLINE)),
        }
    }

    /// Does what can be done now. `exited` tells whether the process has exited.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        exited: &mut dyn FnMut(&mut Context<'_>) -> bool,
    ) -> Poll<Ended> {
        self.obey(cx);
        self.hear_clients(cx);
        match self.receive(cx) {
            Ok(Received::Everything) => {}
            Ok(Received::Enough) => cx.waker().wake_by_ref(),
            Ok(Received::End) => return Poll::Ready(self.over()),
            Err(loss) => return Poll::Ready(Ended::Lost(loss)),
        }
        if let Err(loss) = self.look_at_clock(Instant::now()) {
            return Poll::Ready(Ended::Lost(loss));
        }
        self.dismiss();
        self.feed(cx);
        if let Poll::Ready(Err(error)) = self.link.poll_flush(cx)
            && !is_closed(&error)
        {
            // A closed link is left to the reading side: answers may still be in it.
            return Poll::Ready(Ended::Lost(Loss::Link(error.to_string())));
        }
        if exited(cx) {
            // Everything it sent before it died is worth having.
            return Poll::Ready(match self.receive_rest(cx) {
                Ok(()) => self.over(),
                Err(loss) => Ended::Lost(loss),
            });
        }
        self.set_alarm(cx);
        Poll::Pending
    }

    /// Takes everything off the wire of a worker that is gone, in order, with a note whether it can have begun: a plain worker begins a
    /// batch when it has finished the one before, one that declared concurrency begins all it has.
    pub fn take_all(&mut self) -> Vec<(Slot, bool)> {
        let concurrent = self.terms.window.concurrency > 1;
        let slots = self.inflight.take_all();
        slots.into_iter().map(|(slot, oldest)| (slot, oldest || concurrent)).collect()
    }

    fn over(&self) -> Ended {
        if self.leaving == Leaving::Bye { Ended::Drained } else { Ended::Lost(Loss::Gone) }
    }

    fn obey(&mut self, cx: &Context<'_>) {
        if let Order::LeaveBy(_) = self.orders.poll(cx)
            && self.leaving == Leaving::No
        {
            self.leaving = Leaving::Finishing;
            self.floor.queue.leave(self.terms.worker);
            self.give_back_waiting();
        }
    }

    /// Tells a worker to go that has finished what it had.
    fn dismiss(&mut self) {
        if self.leaving == Leaving::Finishing && self.inflight.batches() == 0 {
            self.leaving = Leaving::Told;
            encode_drain(&mut self.link.outbox);
        }
    }

    fn hear_clients(&mut self, cx: &Context<'_>) {
        for notice in self.mailbox.collect(cx) {
            match notice {
                Notice::Abandoned(item) => {
                    if let Some(slot) = self.inflight.slot(item) {
                        *slot = Slot::Recalled;
                        encode_cancel(&[item], &mut self.link.outbox);
                    }
                }
                Notice::Taken { item, bytes } => {
                    if let Some(Slot::Streaming(..)) = self.inflight.slot(item) {
                        encode_credit(item, bytes, &mut self.link.outbox);
                    }
                }
            }
        }
    }

    fn receive(&mut self, cx: &mut Context<'_>) -> Result<Received, Loss> {
        for _ in 0..READS {
            // Before the first read too: what came together with the last word of the start has been read already.
            self.digest()?;
            match self.link.poll_fill(cx) {
                Poll::Pending => return Ok(Received::Everything),
                Poll::Ready(Ok(Filled::End)) => return Ok(Received::End),
                Poll::Ready(Ok(Filled::Some)) => {}
                Poll::Ready(Err(error)) if is_closed(&error) => return Ok(Received::End),
                Poll::Ready(Err(error)) => return Err(Loss::Link(error.to_string())),
            }
        }
        Ok(Received::Enough)
    }

    fn receive_rest(&mut self, cx: &mut Context<'_>) -> Result<(), Loss> {
        while self.receive(cx)? == Received::Enough {}
        Ok(())
    }

    fn digest(&mut self) -> Result<(), Loss> {
        while let Some(incoming) = self.link.next()? {
            match incoming {
                Incoming::Body { item, bytes, .. } => self.take_body(item, bytes)?,
                Incoming::Frame(frame) => self.take_frame(&frame)?,
            }
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: &Frame) -> Result<(), WireError> {
        match frame.kind {
            Kind::Reply => self.take_reply(decode_reply(frame)?),
            Kind::Chunk => {
                let (item, data) = decode_chunk(frame)?;
                self.take_chunk(item, data)
            }
            Kind::End => self.take_end(frame),
            Kind::Metric => {
                self.sink.metrics(decode_metrics(frame)?);
                Ok(())
            }
            Kind::Log => {
                self.sink.log(decode_log(frame)?);
                Ok(())
            }
            Kind::Bye => {
                // A worker that leaves without having been told to is lost, as if it had said nothing.
                if self.leaving == Leaving::Told {
                    self.leaving = Leaving::Bye;
                }
                Ok(())
            }
            kind => Err(WireError::Unexpected { kind, during: "serving" }),
        }
    }

    fn take_reply(&mut self, mut reply: Reply) -> Result<(), WireError> {
        let item = reply.item;
        let unknown = WireError::UnknownItem { kind: Kind::Reply, item };
        if reply.body_len > self.terms.max_response_bytes {
            let limit = self.terms.max_response_bytes;
            return Err(WireError::BodyTooLarge { item, declared: reply.body_len, limit });
        }
        let slot = self.inflight.slot(item).ok_or(unknown.clone())?;
        if reply.outcome == Outcome::Stream {
            self.begin_stream(reply);
            return Ok(());
        }
        if let Some(body) = reply.body.take().or((reply.body_len == 0).then(Bytes::new)) {
            return self.settle(reply, body);
        }
        let total = usize::try_from(reply.body_len).unwrap_or(usize::MAX);
        self.link.expect_body(item, total);
        match std::mem::replace(slot, Slot::Recalled) {
            Slot::Open(job) => *slot = Slot::Receiving(job, Box::new(reply)),
            Slot::Recalled => {}
            other => {
                *slot = other;
                return Err(unknown);
            }
        }
        Ok(())
    }

    fn take_body(&mut self, item: u64, bytes: Bytes) -> Result<(), WireError> {
        let unknown = WireError::UnknownItem { kind: Kind::Body, item };
        let slot = self.inflight.slot(item).ok_or(unknown.clone())?;
        match std::mem::replace(slot, Slot::Recalled) {
            Slot::Receiving(job, reply) => {
                *slot = Slot::Open(job);
                self.settle(*reply, bytes)
            }
            // The large answer to an item that nobody wants any more.
            Slot::Recalled => self.close_item(item, None, Instant::now()).map(drop).ok_or(unknown),
            Slot::Open(_) | Slot::Streaming(..) | Slot::Done => Err(unknown),
        }
    }

    fn begin_stream(&mut self, reply: Reply) {
        self.inflight.progress(Instant::now());
        let (sender, chunks) = chunks(self.mailbox.clone(), reply.item);
        let Some(slot) = self.inflight.slot(reply.item) else { return };
        match std::mem::replace(slot, Slot::Recalled) {
            Slot::Open(job) => {
                *slot = Slot::Streaming(sender, job.stamp());
                let body = AnswerBody::Stream(chunks);
                job.answer(Ok(Answer { status: reply.status, headers: reply.headers, body }));
            }
            other => *slot = other,
        }
    }

    fn take_chunk(&mut self, item: u64, data: Bytes) -> Result<(), WireError> {
        self.inflight.progress(Instant::now());
        match self.inflight.slot(item) {
            Some(Slot::Streaming(sender, _)) if sender.push(data) => Ok(()),
            Some(Slot::Streaming(..)) => {
                Err(WireError::Unexpected { kind: Kind::Chunk, during: "its stream has no credit" })
            }
            Some(Slot::Recalled) => Ok(()),
            _ => Err(WireError::UnknownItem { kind: Kind::Chunk, item }),
        }
    }

    fn take_end(&mut self, frame: &Frame) -> Result<(), WireError> {
        let (end, now) = (decode_end(frame)?, Instant::now());
        let unknown = WireError::UnknownItem { kind: Kind::End, item: end.item };
        match self.close_item(end.item, Some(end.handler_us), now).ok_or(unknown.clone())? {
            Slot::Streaming(sender, stamp) => {
                self.measure(stamp, now, end.handler_us);
                sender.end(match end.failed {
                    None => Ok(()),
                    Some((status, message)) => Err(Failure::Handler { status, message }),
                });
                Ok(())
            }
            Slot::Recalled => Ok(()),
            Slot::Open(_) | Slot::Receiving(..) | Slot::Done => Err(unknown),
        }
    }

    /// Ends an item with a reply whose body is complete.
    fn settle(&mut self, reply: Reply, body: Bytes) -> Result<(), WireError> {
        let unknown = WireError::UnknownItem { kind: Kind::Reply, item: reply.item };
        let ran = (reply.outcome != Outcome::Cancelled).then_some(reply.handler_us);
        let now = Instant::now();
        match self.close_item(reply.item, ran, now).ok_or(unknown.clone())? {
            Slot::Open(job) => {
                if job.task == Task::Predict {
                    self.measure(job.stamp(), now, reply.handler_us);
                }
                answer(job, reply, body);
            }
            Slot::Recalled => {}
            Slot::Streaming(..) | Slot::Receiving(..) | Slot::Done => return Err(unknown),
        }
        Ok(())
    }

    /// Takes an item off the wire. `ran`: the time its handler took, if it ran.
    fn close_item(&mut self, item: u64, ran: Option<u32>, now: Instant) -> Option<Slot> {
        let since = self.inflight.busy_since();
        let (slot, settled) = self.inflight.settle(item)?;
        self.inflight.progress(now);
        if settled == Settled::Batch {
            self.overran = false;
            if let Some(micros) = ran {
                self.pace.record(micros);
                self.floor.meter.finished(now.duration_since(since.unwrap_or(now)), micros);
            }
        }
        Some(slot)
    }

    /// Notes a request that the worker has answered.
    fn measure(&self, Stamp { queued_at, version_named }: Stamp, now: Instant, handler_us: u32) {
        self.floor.meter.answered(version_named, now.duration_since(queued_at), handler_us);
    }

    /// Takes batches from the queue as long as the window has room and there are any.
    fn feed(&mut self, cx: &Context<'_>) {
        self.gather_until = None;
        while self.leaving == Leaving::No && !self.overran {
            let open = self.inflight.batches();
            let Some(hunger) = self.terms.window.hunger(open, self.inflight.runs_alone(), self.pace.p99())
            else {
                return;
            };
            match self.floor.queue.poll_take(self.terms.worker, hunger, &mut self.taken, cx) {
                Taken::Some => self.send(),
                Taken::Until(when) => {
                    self.gather_until = Some(when);
                    return;
                }
                Taken::Nothing => return,
            }
        }
    }

    fn send(&mut self) {
        let now = Instant::now();
        let mut jobs = std::mem::take(&mut self.taken);
        let first = self.inflight.next_id();
        jobs.retain_mut(|job| job.promise().place(None));
        let jobs = self.refuse_unfit(jobs, now);
        if jobs.is_empty() {
            return;
        }
        for (id, job) in (first..).zip(&jobs) {
            job.promise().place(Some((self.mailbox.clone(), id)));
        }
        match jobs.as_slice() {
            [job] if job.task == Task::Describe => {
                encode_describe(first, &job.request.id, &mut self.link.outbox);
            }
            jobs => {
                let items: Vec<_> =
                    (first..).zip(jobs).map(|(id, job)| item(id, &job.request, now)).collect();
                encode_batch(&items, &mut self.link.outbox);
                self.floor.meter.sent(jobs.len());
            }
        }
        self.inflight.open(jobs, now);
    }

    /// Answers the jobs that no frame can hold: their names and headers are too large.
    fn refuse_unfit(&self, jobs: Vec<Job>, now: Instant) -> Vec<Job> {
        let (fit, unfit): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| item(0, &job.request, now).fits());
        for job in unfit {
            let message =
                "The request's headers and parameter names are too large for the worker: 1 MiB in all.";
            job.fail(Failure::BadRequest { message: message.into() });
        }
        fit
    }

    fn give_back_waiting(&mut self) {
        if self.terms.window.concurrency > 1 {
            return;
        }
        let (ids, jobs) = self.inflight.recall_waiting();
        if !ids.is_empty() {
            encode_cancel(&ids, &mut self.link.outbox);
            self.floor.queue.put_back(jobs);
        }
    }

    /// Acts on what is due.
    fn look_at_clock(&mut self, now: Instant) -> Result<(), Loss> {
        let Some(since) = self.inflight.busy_since() else { return Ok(()) };
        if since + self.terms.response_timeout <= now {
            if !self.inflight.waits_for_client() {
                return Err(Loss::TooSlow { what: "answer", waited: self.terms.response_timeout });
            }
            self.inflight.progress(now);
        } else if self.overrun_at(since).is_some_and(|overrun| overrun <= now) {
            self.overran = true;
            self.give_back_waiting();
        }
        Ok(())
    }

    /// Makes sure that the clock is looked at when something will be due.
    fn set_alarm(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        let mut next = self.gather_until.unwrap_or(now + NO_DEADLINE);
        if let Some(since) = self.inflight.busy_since() {
            next = next.min(since + self.terms.response_timeout);
            next = next.min(self.overrun_at(since).unwrap_or(next));
        }
        // An alarm that is set too early is left alone: it rings, nothing is due, and it is set again.
        if next < self.clock.deadline() {
            self.clock.as_mut().reset(next);
        }
        if self.clock.as_mut().poll(cx).is_ready() {
            self.clock.as_mut().reset(now + NO_DEADLINE);
            cx.waker().wake_by_ref();
        }
    }

    /// When the oldest batch will have run for so long that others should have what waits behind it.
    fn overrun_at(&self, since: Instant) -> Option<Instant> {
        let others = self.floor.ready() > 1;
        if self.overran || !others || self.inflight.batches() < 2 || self.terms.window.concurrency > 1 {
            return None;
        }
        let p99 = self.pace.p99()?;
        Some(since + (p99 * OVERRUN).max(OVERRUN_LEAST))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    /// All there was.
    Everything,
    /// As much as one pass takes; there may be more.
    Enough,
    /// The link is closed.
    End,
}

fn is_closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    matches!(error.kind(), K::BrokenPipe | K::ConnectionReset | K::NotConnected | K::WriteZero)
}

fn item(id: u64, request: &Request, now: Instant) -> Item<'_> {
    let timeout = request
        .deadline
        .map_or(0, |deadline| deadline.duration_since(now).as_millis().clamp(1, u32::MAX.into()));
    Item {
        id,
        timeout_ms: timeout as u32,
        explain: request.explain,
        request_id: &request.id,
        url_path: &request.url_path,
        headers: &request.headers,
        parts: request
            .parts
            .iter()
            .map(|part| Part { name: &part.name, content_type: &part.content_type, body: part.body.pieces() })
            .collect(),
    }
}

fn answer(job: Job, reply: Reply, body: Bytes) {
    match reply.outcome {
        Outcome::Answered | Outcome::Stream => {
            let body = AnswerBody::Whole(body);
            job.answer(Ok(Answer { status: reply.status, headers: reply.headers, body }));
        }
        Outcome::Failed => {
            let message = String::from_utf8_lossy(&body).into_owned();
            job.fail(Failure::Handler { status: reply.status, message });
        }
        Outcome::Cancelled => {
            job.fail(Failure::Internal {
                message: "The worker dropped the request without being told to.".into(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
