//! From an [`Answer`] or a [`Failure`] to an HTTP response, in TorchServe's form.
//!
//! This module knows no routes. What every response carries (request id, cache rules) is added in [`front`](super::front).

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use hyper::ext::ReasonPhrase;
use serde::Serialize;
use tracing::{debug, error, warn};
use zoo_proto::wire::HeaderBlock;

use crate::failure::{Failure, Unavailable};
use crate::request::stream::Chunks;
use crate::request::{Answer, AnswerBody};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// TorchServe's mark of a response that comes in chunks.
const STREAM_NEXT: HeaderName = HeaderName::from_static("ts_stream_next");
/// The reason phrase among a handler's headers.
const REASON: &str = ":reason";
/// Headers that belong to a connection, or that are computed here.
const NOT_COPIED: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A handler's answer.
pub(super) fn answer(answer: Answer) -> Response {
    let Some(status) = final_status(answer.status) else {
        let message = format!("The handler chose status {}, which no response can have.", answer.status);
        return Failure::Internal { message }.into_response();
    };
    let mut response = match answer.body {
        AnswerBody::Whole(bytes) => Response::new(Body::from(bytes)),
        AnswerBody::Stream(chunks) => {
            let mut response = Response::new(Body::new(Streamed(chunks)));
            response.headers_mut().insert(STREAM_NEXT, HeaderValue::from_static("true"));
            response
        }
    };
    *response.status_mut() = status;
    copy_headers(&answer.headers, &mut response);
    response
}

/// A status that ends an exchange; 1xx doesn't.
fn final_status(status: u16) -> Option<StatusCode> {
    StatusCode::from_u16(status).ok().filter(|status| !status.is_informational())
}

fn copy_headers(from: &HeaderBlock, response: &mut Response) {
    for entry in from.iter() {
        let (name, value) = match entry {
            Ok(entry) => entry,
            Err(error) => {
                warn!(%error, "the rest of a handler's response headers can't be read");
                return;
            }
        };
        if name == REASON {
            match ReasonPhrase::try_from(&value[..]) {
                Ok(reason) => {
                    response.extensions_mut().insert(reason);
                }
                Err(_) => warn!(?value, "dropped a reason phrase that isn't one"),
            }
        } else {
            copy_header(&name, &value, response.headers_mut());
        }
    }
}

fn copy_header(name: &str, value: &Bytes, to: &mut HeaderMap) {
    if NOT_COPIED.iter().any(|dropped| name.eq_ignore_ascii_case(dropped)) {
        debug!(name, "dropped a handler's header that belongs to the connection");
        return;
    }
    match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_maybe_shared(value.clone())) {
        // One that was set by us is replaced; several by the handler are kept, as cookies need.
        (Ok(name), Ok(value)) if name == STREAM_NEXT => {
            to.insert(name, value);
        }
        (Ok(name), Ok(value)) => {
            to.append(name, value);
        }
        _ => warn!(?name, ?value, "dropped a handler's header that HTTP doesn't allow"),
    }
}

/// Chunks as a response body. If they break off, so does the connection: the status can't be changed any more.
struct Streamed(Chunks);

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.0.poll_next(cx).map(|next| next.map(|chunk| chunk.map(Frame::data)))
    }
}

/// `{"status": "…"}`.
pub(super) fn status(code: StatusCode, text: &str) -> Response {
    #[derive(Serialize)]
    struct Status<'a> {
        status: &'a str,
    }
    json(code, &Status { status: text })
}

/// A value as TorchServe prints JSON: two spaces, a newline at the end.
pub(super) fn json<T: Serialize>(code: StatusCode, value: &T) -> Response {
    let mut text = match serde_json::to_vec_pretty(value) {
        Ok(text) => text,
        Err(error) => {
            error!(%error, "a response can't be written as JSON");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    text.push(b'\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Told<'a> {
            code: u16,
            r#type: &'a str,
            message: String,
        }
        let row = self.row();
        let mut response = match self {
            Self::BodyTooLarge { .. } => refused(row.status),
            _ => {
                let status = final_status(row.status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                json(status, &Told { code: status.as_u16(), r#type: row.kind, message: self.to_string() })
            }
        };
        if let Some(seconds) = retry_after(&self) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A body that wasn't read to its end leaves a connection that can't be used again.
fn refused(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Seconds after which a client may try again. A full queue empties fast; workers take longer to come up.
fn retry_after(failure: &Failure) -> Option<u16> {
    match failure {
        Failure::Unavailable { why: Unavailable::QueueFull | Unavailable::QueueBytes, .. } => Some(1),
        Failure::Unavailable { why: Unavailable::NoWorker | Unavailable::Stopping, .. }
        | Failure::NoWorkerToDescribe { .. }
        | Failure::ShuttingDown => Some(5),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
