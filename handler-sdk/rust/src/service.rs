//! Runs one batch: calls the handler, and answers each item. When answers are sent is decided elsewhere, except for streams.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use zoo_proto::wire::HeaderBlock;
use zoo_proto::wire::answer::{Outcome, encode_reply};

use crate::arrivals::Begun;
use crate::batch::{Answers, Batch};
use crate::channel::{Channel, Halt};
use crate::context::Context;
use crate::error::{HandlerError, panic_text};
use crate::handler::Handler;
use crate::request::{Item, Request};
use crate::response::{Body, Chunks, Response, Writes};
use crate::stream::{Stream, run_all, run_writer};

pub(crate) struct Service<H> {
    handler: H,
    context: Context,
    channel: Arc<Channel>,
    max_response: u64,
}

impl<H: Handler> Service<H> {
    pub(crate) fn new(handler: H, context: Context, channel: Arc<Channel>) -> Self {
        let max_response = match context.load().max_response_bytes {
            0 => u64::MAX,
            limit => limit,
        };
        Self { handler, context, channel, max_response }
    }

    /// Handles a batch. Its answers are in the outbox afterwards, or sent already if they stream.
    pub(crate) fn run(&mut self, batch: Begun) -> Result<(), Halt> {
        let mut items = batch.items;
        items.retain(|item| {
            let cancelled = item.cancelled.load(Ordering::Relaxed);
            if cancelled {
                self.drop_item(item);
            }
            !cancelled
        });
        match (items.is_empty(), batch.describe) {
            (true, _) => Ok(()),
            (false, true) => self.describe(&items),
            (false, false) => self.handle(&items),
        }
    }

    fn drop_item(&self, item: &Item) {
        let headers = HeaderBlock::default();
        self.channel.outgoing(|out| {
            encode_reply(item.received.id, Outcome::Cancelled, 0, 0, &headers, &Bytes::new(), out);
        });
    }

    /// Gives items to the handler and answers them.
    pub(crate) fn handle(&mut self, items: &[Arc<Item>]) -> Result<(), Halt> {
        let channel = &self.channel;
        let requests = items.iter().map(|item| Request { item: item.clone(), channel: channel.clone() });
        let batch = Batch { requests: requests.collect(), context: &self.context };
        let handler = &mut self.handler;
        let started = Instant::now();
        let answers = catch_unwind(AssertUnwindSafe(move || handler.handle(batch)));
        let spent = micros(started);
        send_metrics(channel, &self.context, items);
        let answering = Answering { channel, max_response: self.max_response, started, spent };
        match answers {
            Ok(answers) => answering.answer(items, answers)?,
            Err(panic) => answering.panicked(items, panic_text(panic.as_ref())),
        }
        // What was measured while answers were streamed.
        send_metrics(channel, &self.context, items);
        Ok(())
    }

    /// Answers the one item with the handler's description.
    pub(crate) fn describe(&mut self, items: &[Arc<Item>]) -> Result<(), Halt> {
        let started = Instant::now();
        let handler = &mut self.handler;
        let description = catch_unwind(AssertUnwindSafe(move || handler.describe()));
        let answering = Answering {
            channel: &self.channel,
            max_response: self.max_response,
            started,
            spent: micros(started),
        };
        match description {
            Ok(description) => {
                let first = items.first().map_or(0, |item| item.received.id);
                answering.answer(items, Answers { first, responses: vec![Response::json(description)] })
            }
            Err(panic) => {
                answering.panicked(items, panic_text(panic.as_ref()));
                Ok(())
            }
        }
    }
}

/// What all answers of one call have in common.
struct Answering<'c> {
    channel: &'c Channel,
    max_response: u64,
    started: Instant,
    spent: u32,
}

impl<'c> Answering<'c> {
    fn answer(&self, items: &[Arc<Item>], answers: Answers<'_>) -> Result<(), Halt> {
        let first = items.first().map_or(0, |item| item.received.id);
        if answers.first != first || answers.responses.len() != items.len() {
            // Somebody kept the answers of an earlier batch.
            log::error!("The handler has answered another batch than the one it got");
            self.fail(items, &HandlerError::client(503, "Invalid model predict output"));
            return Ok(());
        }
        let mut streams: Vec<(Stream<'c>, Chunks<'_>)> = Vec::new();
        let mut writers: Vec<(Stream<'c>, Writes<'_>)> = Vec::new();
        for (item, response) in items.iter().zip(answers.responses) {
            match response.finish(self.max_response) {
                Ok((status, headers, Body::Whole(body))) => self.channel.outgoing(|out| {
                    encode_reply(
                        item.received.id,
                        Outcome::Answered,
                        status,
                        self.spent,
                        &headers,
                        &body,
                        out,
                    );
                }),
                Ok((status, headers, Body::Chunks(chunks))) => {
                    streams.push((self.stream(item, status, headers), chunks));
                }
                Ok((status, headers, Body::Writes(write))) => {
                    writers.push((self.stream(item, status, headers), write));
                }
                Ok((_, _, Body::Failed(error))) | Err(error) => {
                    report(item, &error);
                    self.channel.fail(item.received.id, self.spent, &error);
                }
            }
        }
        run_all(self.channel, streams)?;
        writers.into_iter().try_for_each(|(stream, write)| run_writer(self.channel, stream, write))
    }

    fn stream(&self, item: &Arc<Item>, status: u16, headers: HeaderBlock) -> Stream<'c> {
        Stream::new(self.channel, item.clone(), status, headers, self.started)
    }

    fn panicked(&self, items: &[Arc<Item>], message: &str) {
        let ids: Vec<_> = items.iter().map(|item| item.received.request_id.as_str()).collect();
        log::error!("The handler panicked while it handled {}: {message}", ids.join(", "));
        self.fail(items, &HandlerError::unexpected(String::new()));
    }

    fn fail(&self, items: &[Arc<Item>], error: &HandlerError) {
        for item in items {
            self.channel.fail(item.received.id, self.spent, error);
        }
    }
}

fn send_metrics(channel: &Channel, context: &Context, items: &[Arc<Item>]) {
    let ids = items.iter().map(|item| item.received.request_id.as_str());
    channel.outgoing(|out| context.metrics().send(ids, out));
}

/// Tells the log why a request failed. What a client did wrong is the client's business.
pub(crate) fn report(item: &Item, error: &HandlerError) {
    let id = &item.received.request_id;
    match error.detail() {
        Some(detail) => log::error!("Request {id} failed: {detail}"),
        None if error.status() >= 500 => log::error!("Request {id} failed: {error}"),
        None => log::debug!("Request {id} was refused: {error}"),
    }
}

/// Microseconds since then.
pub(crate) fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}
