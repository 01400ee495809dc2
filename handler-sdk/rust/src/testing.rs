//! Runs a handler in a unit test: requests in, replies out, with no server and no process.
//!
//! Requests and replies are encoded and decoded as they are on the way to a server, and go through the same code as in a worker.
//!
//! ```
//! use zoo_handler::testing::{Setup, TestRequest};
//! # use zoo_handler::{Answers, Batch, Context, Handler, LoadError};
//! # struct Upper;
//! # impl Handler for Upper {
//! #     fn load(_: &Context) -> Result<Self, LoadError> { Ok(Upper) }
//! #     fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> { batch.each(|request| Ok(request.text()?.to_uppercase())) }
//! # }
//!
//! let mut trial = Setup::new().load::<Upper>()?;
//! assert_eq!(trial.predict(TestRequest::text("zoo")).text(), "ZOO");
//!
//! let replies = trial.predict_batch([TestRequest::bytes("a"), TestRequest::bytes(vec![0xff])]);
//! assert_eq!(replies[0].status, 200);
//! assert_eq!(replies[1].status, 400);
//! # Ok::<(), zoo_handler::LoadError>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use zoo_proto::wire::answer::{Outcome, decode_chunk, decode_end, decode_reply};
use zoo_proto::wire::batch::{Item, Part, encode_batch, encode_describe};
use zoo_proto::wire::event::decode_metrics;
use zoo_proto::wire::start::{Hello, Load, LoadModel};
use zoo_proto::wire::{Frame, HeaderBlock, Inbox, Incoming, Kind, Outbox};

use crate::arrivals::Begun;
use crate::channel::{Channel, Halt};
use crate::context::Context;
use crate::error::LoadError;
use crate::handler::Handler;
use crate::metrics::Metric;
use crate::service::Service;
use crate::tensor::{Element, content_type};
use crate::worker;

/// The model that the handler of a trial finds.
#[derive(Debug, Clone)]
pub struct Setup {
    load: Load,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// A model named `model`, version `1.0`, with the current folder, no configuration and batches of any size.
    pub fn new() -> Self {
        let model = LoadModel {
            name: "model".into(),
            version: "1.0".into(),
            dir: ".".into(),
            handler: None,
            manifest: json!({}),
            config: Map::new(),
        };
        let load = Load {
            model,
            worker: "W-9000-model_1.0".into(),
            batch_size: 1,
            gpu: None,
            envelope: None,
            concurrency: 1,
            asynchronous: false,
            coalesce: false,
            decode_input: true,
            limit_max_image_pixels: true,
            max_response_bytes: 0,
            max_request_bytes: None,
            headers: BTreeMap::new(),
            metrics: None,
        };
        Self { load }
    }

    /// The folder with the model's files.
    #[must_use]
    pub fn model_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.load.model.dir = dir.as_ref().to_string_lossy().into_owned();
        self
    }

    /// A key of `model-config.yaml`.
    #[must_use]
    pub fn setting(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.load.model.config.insert(key.to_owned(), value.into());
        self
    }

    /// What [`Context::batch_size`] says.
    #[must_use]
    pub fn batch_size(mut self, items: u32) -> Self {
        self.load.batch_size = items;
        self
    }

    /// The largest answer; there is no limit otherwise.
    #[must_use]
    pub fn max_response_bytes(mut self, bytes: u64) -> Self {
        self.load.max_response_bytes = bytes;
        self
    }

    /// Loads the handler.
    pub fn load<H: Handler>(self) -> Result<Trial<H>, LoadError> {
        let channel = Arc::new(Channel::new(None));
        let mut out = Outbox::default();
        Hello { role: "server".into(), name: "trial".into(), pid: std::process::id() }.encode(&mut out);
        self.load.encode(&mut out);
        channel.feed(&out.take()).map_err(|halt| LoadError::new(format!("{halt:?}")))?;
        let context = Context::new(self.load);
        let handler = worker::load::<H>(&context)?;
        Ok(Trial {
            service: Service::new(handler, context, channel.clone()),
            channel,
            next: 1,
            metrics: Vec::new(),
        })
    }
}

/// A loaded handler, ready for requests.
pub struct Trial<H> {
    service: Service<H>,
    channel: Arc<Channel>,
    next: u64,
    metrics: Vec<Metric>,
}

impl<H: Handler> Trial<H> {
    /// Answers one request.
    pub fn predict(&mut self, request: TestRequest) -> Reply {
        self.predict_batch([request]).swap_remove(0)
    }

    /// Answers requests that come as one batch: one reply for each, in order.
    ///
    /// # Panics
    ///
    /// If a request is larger than what can be sent at all: a megabyte of headers and names.
    pub fn predict_batch(&mut self, requests: impl IntoIterator<Item = TestRequest>) -> Vec<Reply> {
        let mut requests: Vec<_> = requests.into_iter().collect();
        let first = self.next;
        for (id, request) in (first..).zip(&mut requests) {
            request.id = format!("request-{id}");
        }
        self.next += requests.len() as u64;
        let items: Vec<_> = (first..).zip(&requests).map(|(id, request)| request.item(id)).collect();
        assert!(items.iter().all(Item::fits), "a request has more headers and names than a frame can hold");
        let mut out = Outbox::default();
        if !items.is_empty() {
            encode_batch(&items, &mut out);
        }
        let cancelled: Vec<_> = requests.iter().map(|request| request.cancelled).collect();
        self.run(&out.take(), &cancelled)
    }

    /// The handler's description of itself.
    pub fn describe(&mut self) -> Reply {
        let mut out = Outbox::default();
        encode_describe(self.next, "describe", &mut out);
        self.next += 1;
        self.run(&out.take(), &[false]).swap_remove(0)
    }

    /// The metrics that the handler has reported since this was last asked.
    pub fn take_metrics(&mut self) -> Vec<Metric> {
        std::mem::take(&mut self.metrics)
    }

    fn run(&mut self, frames: &[u8], cancelled: &[bool]) -> Vec<Reply> {
        let result = self.channel.feed(frames).and_then(|()| {
            let begun = self.channel.arrivals().begin();
            begun.map_or(Ok(Vec::new()), |begun| self.answer(&begun, cancelled))
        });
        #[expect(clippy::expect_used, reason = "there is no link that could end, and the frames are our own")]
        result.expect("run a batch without a server")
    }

    fn answer(&mut self, begun: &Begun, cancelled: &[bool]) -> Result<Vec<Reply>, Halt> {
        for (item, cancelled) in begun.items.iter().zip(cancelled) {
            item.cancelled.store(*cancelled, Ordering::Relaxed);
            // Whoever reads the replies takes everything at once.
            item.credit.store(u64::MAX, Ordering::Relaxed);
        }
        if begun.describe { self.service.describe(&begun.items) } else { self.service.handle(&begun.items) }?;
        self.channel.arrivals().finish();
        let mut replies =
            Replies { first: begun.items.first().map_or(0, |item| item.received.id), all: Vec::new() };
        replies.all.resize_with(begun.items.len(), Reply::default);
        self.metrics.extend(replies.read(&self.channel.outgoing(Outbox::take))?);
        Ok(replies.all)
    }
}

impl<H> fmt::Debug for Trial<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("requests", &(self.next - 1)).finish_non_exhaustive()
    }
}

/// Puts what the worker has sent together, item by item.
struct Replies {
    first: u64,
    all: Vec<Reply>,
}

impl Replies {
    fn read(&mut self, bytes: &[u8]) -> Result<Vec<Metric>, Halt> {
        let mut inbox = Inbox::default();
        let mut metrics = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (space, most) = inbox.space();
            let (now, later) = rest.split_at(most.min(rest.len()));
            space.extend_from_slice(now);
            inbox.filled(now.len());
            rest = later;
            while let Some(incoming) = inbox.next()? {
                match incoming {
                    Incoming::Body { item, bytes, .. } => self.of(item, |reply| reply.body = bytes),
                    Incoming::Frame(frame) => self.take(&frame, &mut inbox, &mut metrics)?,
                }
            }
        }
        Ok(metrics)
    }

    fn take(&mut self, frame: &Frame, inbox: &mut Inbox, metrics: &mut Vec<Metric>) -> Result<(), Halt> {
        match frame.kind {
            Kind::Reply => {
                let head = decode_reply(frame)?;
                if head.body.is_none() {
                    inbox.expect_body(head.item, 0, usize::try_from(head.body_len).unwrap_or(usize::MAX));
                }
                self.of(head.item, |reply| {
                    reply.status = head.status;
                    reply.headers = head.headers;
                    reply.body = head.body.unwrap_or_default();
                    reply.failed = head.outcome == Outcome::Failed;
                    reply.streamed = head.outcome == Outcome::Stream;
                });
            }
            Kind::Chunk => {
                let (item, chunk) = decode_chunk(frame)?;
                self.of(item, |reply| {
                    let whole = BytesMut::from_iter(reply.body.iter().chain(&chunk).copied());
                    reply.body = whole.freeze();
                    reply.chunks.push(chunk);
                });
            }
            Kind::End => {
                let end = decode_end(frame)?;
                self.of(end.item, |reply| reply.broken = end.failed);
            }
            Kind::Metric => metrics.extend(decode_metrics(frame)?.into_iter().map(Metric::received)),
            _ => {}
        }
        Ok(())
    }

    fn of(&mut self, item: u64, change: impl FnOnce(&mut Reply)) {
        let index = usize::try_from(item - self.first).unwrap_or(usize::MAX);
        if let Some(reply) = self.all.get_mut(index) {
            change(reply);
        }
    }
}

/// The answer to one request of a trial.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// The status that the client would get.
    pub status: u16,
    /// The body, or the message of a failure; of a stream, all chunks together.
    pub body: Bytes,
    /// The request failed, and `body` is the message.
    pub failed: bool,
    /// The answer came in chunks.
    pub streamed: bool,
    /// The chunks of a stream.
    pub chunks: Vec<Bytes>,
    /// Status and message of the error that ended a stream.
    pub broken: Option<(u16, String)>,
    headers: HeaderBlock,
}

impl Reply {
    /// The body as text; what isn't UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers.entries().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.last().and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// The reason phrase, if the handler set one.
    pub fn reason(&self) -> Option<&str> {
        self.header(":reason")
    }
}

/// A request of a trial.
#[derive(Debug, Clone, Default)]
pub struct TestRequest {
    parts: Vec<(String, String, Bytes)>,
    headers: HeaderBlock,
    id: String,
    url_path: String,
    explain: bool,
    cancelled: bool,
    timeout: Duration,
}

impl TestRequest {
    /// A request without a body, for [`TestRequest::part`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A request with these bytes.
    pub fn bytes(body: impl Into<Bytes>) -> Self {
        Self::new().part("body", "application/octet-stream", body)
    }

    /// A request with this text.
    pub fn text(body: &str) -> Self {
        Self::new().part("body", "text/plain", body.to_owned())
    }

    /// A request with this value as JSON.
    ///
    /// # Panics
    ///
    /// If JSON can't express the value.
    pub fn json(value: impl Serialize) -> Self {
        #[expect(clippy::expect_used, reason = "a test that can't make its request has failed")]
        let body = serde_json::to_vec(&value).expect("make a JSON request");
        Self::new().part("body", "application/json", body)
    }

    /// The same request with one more part.
    #[must_use]
    pub fn part(mut self, name: &str, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.parts.push((name.to_owned(), content_type.to_owned(), body.into()));
        self
    }

    /// The same request with one more part that is a tensor.
    ///
    /// # Panics
    ///
    /// If the values don't fill the shape.
    #[must_use]
    pub fn tensor<T: Element>(self, name: &str, shape: &[usize], values: &[T]) -> Self {
        #[expect(clippy::expect_used, reason = "a test that can't make its request has failed")]
        let body = T::to_bytes(shape, values).expect("make a tensor");
        self.part(name, &content_type::<T>(shape), body)
    }

    /// The same request with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let pairs = self.headers.entries().chain([(name.as_str(), value.as_bytes())]);
        self.headers = HeaderBlock::from_pairs(pairs);
        self
    }

    /// The same request for this path behind the model.
    #[must_use]
    pub fn url_path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.url_path);
        self
    }

    /// The same request, asking for an explanation.
    #[must_use]
    pub fn explain(mut self) -> Self {
        self.explain = true;
        self
    }

    /// The same request of a client that leaves as soon as the handler has it.
    #[must_use]
    pub fn cancelled(mut self) -> Self {
        self.cancelled = true;
        self
    }

    /// The same request of a client that waits for so long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn item(&self, id: u64) -> Item<'_> {
        Item {
            id,
            timeout_ms: u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX),
            explain: self.explain,
            request_id: &self.id,
            url_path: &self.url_path,
            headers: &self.headers,
            parts: self.parts.iter().map(part).collect(),
        }
    }
}

fn part((name, content_type, body): &(String, String, Bytes)) -> Part<'_> {
    Part { name, content_type, body: std::slice::from_ref(body) }
}
