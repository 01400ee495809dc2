//! The answer to one request.

use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use zoo_proto::wire::HeaderBlock;

use crate::error::HandlerError;
use crate::stream::ChunkWriter;
use crate::tensor::{Element, content_type};

/// Header blocks up to this size are sent; a client couldn't read larger ones either.
const MAX_HEADERS: usize = 64 * 1024;

/// Chunks made one by one when there is credit for them.
pub(crate) type Chunks<'a> = Box<dyn Iterator<Item = Result<Bytes, HandlerError>> + 'a>;
/// Writes the chunks of a stream by itself.
pub(crate) type Writes<'a> = Box<dyn FnOnce(&mut ChunkWriter<'_>) -> Result<(), HandlerError> + 'a>;

pub(crate) enum Body<'a> {
    Whole(Bytes),
    Chunks(Chunks<'a>),
    Writes(Writes<'a>),
    Failed(HandlerError),
}

/// The answer to one request: a status, headers, and a body, whole or as a stream. `'a` is what a stream borrows.
///
/// Texts and bytes are answers too, and so are results: whatever a handler answers with becomes a `Response` by `into()`.
pub struct Response<'a> {
    pub(crate) status: u16,
    reason: Option<String>,
    headers: BytesMut,
    /// The first thing that was wrong with a header.
    problem: Option<String>,
    pub(crate) body: Body<'a>,
}

impl<'a> Response<'a> {
    fn new(body: Body<'a>) -> Self {
        Self { status: 200, reason: None, headers: BytesMut::new(), problem: None, body }
    }

    /// These bytes, with no content type of their own.
    pub fn bytes(body: impl Into<Bytes>) -> Self {
        Self::new(Body::Whole(body.into()))
    }

    /// This text, as `text/plain`.
    pub fn text(text: impl Into<String>) -> Self {
        Self::bytes(text.into()).content_type("text/plain; charset=utf-8")
    }

    /// This value, as `application/json`. A value that JSON can't express fails the request.
    pub fn json(value: impl Serialize) -> Self {
        match serde_json::to_vec(&value) {
            Ok(body) => Self::bytes(body).content_type("application/json"),
            Err(error) => {
                HandlerError::unexpected(format!("the answer can't be written as JSON: {error}")).into()
            }
        }
    }

    /// A tensor, row by row. Values that don't fill the shape fail the request.
    pub fn tensor<T: Element>(shape: &[usize], values: &[T]) -> Self {
        match T::to_bytes(shape, values) {
            Ok(body) => Self::bytes(body).content_type(&content_type::<T>(shape)),
            Err(why) => HandlerError::unexpected(why).into(),
        }
    }

    /// A stream of what an iterator yields. It is asked for the next chunk when the client has taken enough of those before, and
    /// dropped when the client leaves; several streams of a batch take turns. An error ends the stream.
    pub fn stream<C: Into<Bytes>>(
        chunks: impl IntoIterator<Item = Result<C, HandlerError>, IntoIter: 'a>,
    ) -> Self {
        Self::new(Body::Chunks(Box::new(chunks.into_iter().map(|chunk| chunk.map(Into::into)))))
    }

    /// A stream whose chunks are written by `write`, for models that call back with each piece. It runs after the batch's other answers,
    /// and [`ChunkWriter::write`] waits for a client that is slow: where it can be an iterator, [`Response::stream`] is kinder to others.
    pub fn write_with(write: impl FnOnce(&mut ChunkWriter<'_>) -> Result<(), HandlerError> + 'a) -> Self {
        Self::new(Body::Writes(Box::new(write)))
    }

    /// The same answer with another status than 200.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same answer with this reason phrase.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// The same answer with this content type.
    #[must_use]
    pub fn content_type(self, value: &str) -> Self {
        self.header("content-type", value)
    }

    /// The same answer with one more header; of two with the same name, the later counts. A name or value that HTTP doesn't allow fails
    /// the request.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if !name.is_empty() && name.bytes().all(is_token) && is_line(value) {
            HeaderBlock::push(&mut self.headers, &name.to_ascii_lowercase(), value.as_bytes());
        } else {
            self.problem.get_or_insert_with(|| {
                format!("The handler set a response header that can't be sent: {name:?}")
            });
        }
        self
    }

    /// The parts to be sent, or what is wrong with the answer.
    pub(crate) fn finish(self, max_bytes: u64) -> Result<(u16, HeaderBlock, Body<'a>), HandlerError> {
        let Self { status, reason, mut headers, problem, body } = self;
        if let Body::Failed(error) = body {
            return Err(error);
        }
        if let Some(problem) = problem {
            return Err(HandlerError::model(problem));
        }
        if !(100..=999).contains(&status) {
            return Err(HandlerError::model(format!(
                "The handler set a response status that is none: {status}"
            )));
        }
        if let Some(reason) = reason.filter(|reason| is_line(reason)) {
            HeaderBlock::push(&mut headers, ":reason", reason.as_bytes());
        }
        if headers.len() > MAX_HEADERS {
            return Err(HandlerError::model(format!(
                "The response headers of {} bytes are too large",
                headers.len()
            )));
        }
        if let Body::Whole(bytes) = &body
            && bytes.len() as u64 > max_bytes
        {
            let text = format!(
                "The response of {} bytes is larger than max_response_size ({max_bytes})",
                bytes.len()
            );
            return Err(HandlerError::model(text));
        }
        Ok((status, headers.into(), body))
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_line(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

impl Default for Response<'_> {
    /// An empty body.
    fn default() -> Self {
        Self::bytes(Bytes::new())
    }
}

impl From<String> for Response<'_> {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<&str> for Response<'_> {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<Vec<u8>> for Response<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::bytes(bytes)
    }
}

impl From<Bytes> for Response<'_> {
    fn from(bytes: Bytes) -> Self {
        Self::bytes(bytes)
    }
}

impl From<HandlerError> for Response<'_> {
    fn from(error: HandlerError) -> Self {
        Self::new(Body::Failed(error))
    }
}

impl<'a, R: Into<Response<'a>>> From<Result<R, HandlerError>> for Response<'a> {
    fn from(result: Result<R, HandlerError>) -> Self {
        result.map_or_else(Into::into, Into::into)
    }
}

impl fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Whole(bytes) => write!(f, "Response {} with {} bytes", self.status, bytes.len()),
            Body::Chunks(_) | Body::Writes(_) => write!(f, "Response {} as a stream", self.status),
            Body::Failed(error) => write!(f, "Response {error:?}"),
        }
    }
}
