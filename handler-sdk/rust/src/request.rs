//! One request, as a handler sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use zoo_proto::wire::batch::{ReceivedItem, ReceivedPart};

use crate::channel::Channel;
use crate::error::HandlerError;
use crate::tensor::{Element, Tensor};

/// Where a client's one body is: the server names it `body`, forms made for TorchServe `data`.
const MAIN_PARTS: [&str; 2] = ["body", "data"];

/// What came over the link, and what the server said about it since.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) received: ReceivedItem,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancelled: AtomicBool,
    /// Bytes that its stream may still send.
    pub(crate) credit: AtomicU64,
}

/// One request of a batch. Cloning it is cheap and copies no body; it may go to other threads.
///
/// Nothing is decoded before it is asked for. What a client got wrong becomes a [`HandlerError`] with status 400 and a text that
/// says what is wrong, to be passed on by `?`.
#[derive(Clone)]
pub struct Request {
    pub(crate) item: Arc<Item>,
    pub(crate) channel: Arc<Channel>,
}

impl Request {
    pub(crate) fn item_id(&self) -> u64 {
        self.item.received.id
    }

    /// The request id that the client and the logs see.
    pub fn id(&self) -> &str {
        &self.item.received.request_id
    }

    /// The bytes of the request. Of a form: its field `body` or `data`, or its only field; otherwise nothing.
    pub fn body(&self) -> &[u8] {
        self.main().map_or(&[], Part::bytes)
    }

    /// The same bytes, to be kept or sent back without a copy.
    pub fn to_bytes(&self) -> Bytes {
        self.main().map_or_else(Bytes::new, Part::to_bytes)
    }

    /// What the client said that the body is, or an empty string.
    pub fn content_type(&self) -> &str {
        self.main().map_or("", Part::content_type)
    }

    /// The body as text; 400 if it isn't UTF-8.
    pub fn text(&self) -> Result<&str, HandlerError> {
        self.main().map_or(Ok(""), Part::text)
    }

    /// The body as JSON, whatever its content type; 400 if it isn't.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        decode_json("The body", self.body())
    }

    /// The part with this name: a form field, an uploaded file, a tensor.
    pub fn part(&self, name: &str) -> Option<Part<'_>> {
        self.parts().find(|part| part.name() == name)
    }

    /// All parts, in the order in which they came.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = Part<'_>> {
        self.item.received.parts.iter().map(Part)
    }

    /// The tensor in the part with this name; 400 if there is none, or not of this type.
    pub fn tensor<T: Element>(&self, name: &str) -> Result<Tensor<'_, T>, HandlerError> {
        let missing = || HandlerError::client(400, format!("The request has no part named {name}"));
        self.part(name).ok_or_else(missing)?.tensor()
    }

    /// The value of a header, if it is text; the name in any case. Of several, the last.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.last().and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All headers; names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.item.received.headers.entries()
    }

    /// What followed the model in the URL.
    pub fn url_path(&self) -> &str {
        &self.item.received.url_path
    }

    /// Whether the client asks for an explanation rather than for a prediction.
    pub fn explain(&self) -> bool {
        self.item.received.explain
    }

    /// When the client gives up, unless it waits for as long as it takes.
    pub fn deadline(&self) -> Option<Instant> {
        self.item.deadline
    }

    /// How long the client goes on waiting.
    pub fn remaining(&self) -> Option<Duration> {
        self.item.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether nobody waits for the answer any more. Looks at the link without waiting: cheap enough to ask in a loop.
    pub fn is_cancelled(&self) -> bool {
        self.channel.poll();
        self.item.cancelled.load(Ordering::Relaxed) || self.channel.is_over()
    }

    fn main(&self) -> Option<Part<'_>> {
        let named = MAIN_PARTS.iter().find_map(|name| self.part(name));
        named.or_else(|| self.parts().next().filter(|_| self.parts().len() == 1))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id())
            .field("parts", &self.parts().collect::<Vec<_>>())
            .finish()
    }
}

/// A named part of a request: a form field, an uploaded file, a tensor, or the whole body.
#[derive(Clone, Copy)]
pub struct Part<'a>(&'a ReceivedPart);

impl<'a> Part<'a> {
    /// Its name.
    pub fn name(self) -> &'a str {
        &self.0.name
    }

    /// Its content type, or an empty string.
    pub fn content_type(self) -> &'a str {
        &self.0.content_type
    }

    /// Its bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.0.body.as_deref().unwrap_or_default()
    }

    /// The same bytes, to be kept or sent back without a copy.
    pub fn to_bytes(self) -> Bytes {
        self.0.body.clone().unwrap_or_default()
    }

    /// Its text; 400 if it isn't UTF-8.
    pub fn text(self) -> Result<&'a str, HandlerError> {
        let complain = |error| HandlerError::client(400, format!("{} is not UTF-8: {error}", self.place()));
        std::str::from_utf8(self.bytes()).map_err(complain)
    }

    /// Its value, if it is JSON; otherwise 400.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, HandlerError> {
        decode_json(&self.place(), self.bytes())
    }

    /// The tensor that it holds; 400 if it holds none, or not of this type. Without a copy if its bytes are aligned.
    pub fn tensor<T: Element>(self) -> Result<Tensor<'a, T>, HandlerError> {
        Tensor::parse(self.content_type(), self.bytes())
            .map_err(|why| HandlerError::client(400, format!("{} {why}", self.place())))
    }

    fn place(self) -> String {
        if MAIN_PARTS.contains(&self.name()) {
            "The body".to_owned()
        } else {
            format!("Part {}", self.name())
        }
    }
}

impl fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}, {} bytes)", self.name(), self.content_type(), self.bytes().len())
    }
}

fn decode_json<T: DeserializeOwned>(place: &str, bytes: &[u8]) -> Result<T, HandlerError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let problem = if error.is_data() { "is not the expected JSON" } else { "is not JSON" };
        HandlerError::client(400, format!("{place} {problem}: {error}"))
    })
}
