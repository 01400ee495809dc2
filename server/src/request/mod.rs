//! A request and its answer, in no protocol's words.
//!
//! The request is one value that moves: from the connection task into the queue, to the owner of a worker, and back as an
//! [`Answer`] through its [`ticket`]. This module knows neither HTTP frameworks nor workers.

pub mod mailbox;
pub mod stream;
pub mod ticket;

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
use zoo_proto::wire::HeaderBlock;
use zoo_proto::wire::frame::MAX_PAYLOAD;

use crate::failure::Failure;
use stream::Chunks;

/// What a client wants predicted or explained.
#[derive(Debug)]
pub struct Request {
    /// The id that the client and the logs see.
    pub id: String,
    /// The client's headers, names in lower case.
    pub headers: HeaderBlock,
    /// What followed the model's version in the path.
    pub url_path: String,
    /// An explanation rather than a prediction.
    pub explain: bool,
    /// The parameters.
    pub parts: Vec<Part>,
    /// When the client stops waiting.
    pub deadline: Option<Instant>,
}

/// A parameter of a request.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its name; `body` for a request that is one body.
    pub name: Cow<'static, str>,
    /// Its content type without parameters; empty if it has none.
    pub content_type: String,
    /// Its bytes.
    pub body: Payload,
}

/// Bytes in as many pieces as they were received in, so that nobody has to copy them together.
#[derive(Debug, Clone, Default)]
pub struct Payload(Vec<Bytes>);

impl Payload {
    /// No bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a piece; empty ones are dropped.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.0.push(piece);
        }
    }

    /// The pieces.
    pub fn pieces(&self) -> &[Bytes] {
        &self.0
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All bytes in one piece; copies if there are several.
    pub fn into_bytes(mut self) -> Bytes {
        if self.0.len() == 1 {
            return self.0.swap_remove(0);
        }
        let mut all = BytesMut::with_capacity(self.len());
        self.0.iter().for_each(|piece| all.extend_from_slice(piece));
        all.freeze()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        let mut payload = Self::new();
        payload.push(bytes);
        payload
    }
}

impl Request {
    /// What the request weighs in a queue that is bounded by bytes.
    pub fn weight(&self) -> usize {
        let bodies: usize = self.parts.iter().map(|part| part.body.len()).sum();
        self.letterhead() + bodies
    }

    /// Whether a worker can be told of it at all: everything but the bodies must fit one frame of its protocol.
    pub fn fits_a_frame(&self) -> bool {
        let small = |text: &str| text.len() <= usize::from(u16::MAX);
        self.letterhead() <= MAX_LETTERHEAD
            && self.parts.len() <= MAX_PARTS
            && small(&self.id)
            && small(&self.url_path)
            && self.parts.iter().all(|part| small(&part.name) && small(&part.content_type))
    }

    /// Bytes of everything but the bodies.
    fn letterhead(&self) -> usize {
        let names: usize = self.parts.iter().map(|part| part.name.len() + part.content_type.len()).sum();
        self.headers.as_bytes().len() + self.url_path.len() + names
    }
}

/// Half a frame, so that small bodies find room beside it.
const MAX_LETTERHEAD: usize = MAX_PAYLOAD / 2;
/// With the fixed fields of each part, a quarter of a frame.
const MAX_PARTS: usize = MAX_PAYLOAD / 4 / 16;

/// What a handler answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP-like status.
    pub status: u16,
    /// The handler's headers. A name that starts with `:` is ours: `:reason` is the reason phrase.
    pub headers: HeaderBlock,
    /// The body.
    pub body: AnswerBody,
}

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// All of it.
    Whole(Bytes),
    /// Chunks as the handler makes them.
    Stream(Chunks),
}

/// An answer, or why there is none.
pub type Outcome = Result<Answer, Failure>;
