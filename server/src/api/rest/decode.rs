//! From an HTTP request to the parameters, headers, id and deadline of a [`Request`](crate::request::Request).
//!
//! Bodies stay in the pieces in which they came. Their size is checked before and while they are read. This module knows no models.

use std::borrow::Cow;
use std::mem;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use multer::{Constraints, Field, Multipart, SizeLimit};
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use zoo_proto::wire::HeaderBlock;

use crate::failure::Failure;
use crate::request::{Part, Payload};

/// The longest that a client may take over the next piece of a body.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long, and how far, a body is read that was refused for its size.
const LINGER: Duration = Duration::from_secs(10);
const LINGER_BYTES: usize = 64 << 20;
/// The most parts of a form. Each costs a worker an entry in a dict.
const MAX_PARTS: usize = 4096;
/// The longest request id that is taken from a client.
const MAX_ID: usize = 128;

const TIMEOUT: &str = "x-request-timeout-ms";

/// The id of a request: the client's, if it is one that can safely be put into logs and headers, or a new one.
pub(super) fn request_id(asked: Option<&HeaderValue>) -> String {
    let usable = |id: &&[u8]| {
        (1..=MAX_ID).contains(&id.len())
            && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
    };
    asked.map(HeaderValue::as_bytes).filter(usable).map_or_else(
        || Uuid::new_v4().as_hyphenated().to_string(),
        |id| String::from_utf8_lossy(id).into_owned(),
    )
}

/// The headers as workers get them. Of several with one name, readers take the last.
pub(super) fn headers(headers: &HeaderMap) -> HeaderBlock {
    let length = headers.iter().map(|(name, value)| 6 + name.as_str().len() + value.len()).sum();
    let mut block = BytesMut::with_capacity(length);
    for (name, value) in headers {
        HeaderBlock::push(&mut block, name.as_str(), value.as_bytes());
    }
    block.into()
}

/// When the client stops waiting: by what it says, or else by what the model says.
pub(super) fn deadline(
    headers: &HeaderMap,
    arrived: Instant,
    usual: Option<Duration>,
) -> Result<Option<Instant>, Failure> {
    let Some(asked) = headers.get(TIMEOUT) else {
        return Ok(usual.and_then(|limit| arrived.checked_add(limit)));
    };
    let millis = asked.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(|millis| *millis > 0);
    match millis {
        Some(millis) => Ok(arrived.checked_add(Duration::from_millis(millis))),
        None => Err(Failure::BadRequest {
            message: format!("{TIMEOUT}: {asked:?} is not a whole number of milliseconds above 0."),
        }),
    }
}

/// The parameters that the handler gets: the fields of a form, or else one named `body`.
pub(super) async fn parts(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<Part>, Failure> {
    let full_type = content_type(headers);
    let mime = without_parameters(full_type);
    let pieces = Pieces::new(headers, body, limit)?;
    if mime.eq_ignore_ascii_case("multipart/form-data") {
        return multipart(full_type, pieces).await;
    }
    let payload = pieces.payload().await?;
    if mime.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return form(payload);
    }
    Ok(vec![Part { name: Cow::Borrowed("body"), content_type: mime.to_owned(), body: payload }])
}

/// The whole body.
pub(super) async fn whole(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Failure> {
    Ok(Pieces::new(headers, body, limit)?.payload().await?.into_bytes())
}

/// Reads a body that nobody wants, as far as it may be large, so that its connection can be used again.
pub(super) async fn discard(headers: &HeaderMap, body: Body, limit: usize) -> Result<(), Failure> {
    let mut pieces = Pieces::new(headers, body, limit)?;
    while pieces.next().await?.is_some() {}
    Ok(())
}

/// The media type, without its parameters.
pub(super) fn mime(headers: &HeaderMap) -> &str {
    without_parameters(content_type(headers))
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn without_parameters(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// A body on its way in, never more than its limit.
struct Pieces {
    body: Body,
    left: usize,
    limit: usize,
}

impl Pieces {
    fn new(headers: &HeaderMap, body: Body, limit: usize) -> Result<Self, Failure> {
        let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if declared.and_then(|text| text.parse::<usize>().ok()).is_some_and(|length| length > limit) {
            // A client that asked first sends nothing once it is refused.
            if !headers.contains_key(EXPECT) {
                linger(body);
            }
            return Err(Failure::BodyTooLarge { limit });
        }
        Ok(Self { body, left: limit, limit })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = match timeout(PATIENCE, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Err(bad(format!("The request body broke off before its end: {error}.")));
                }
                Err(_) => {
                    let seconds = PATIENCE.as_secs();
                    return Err(bad(format!("The request body stopped coming: nothing for {seconds} s.")));
                }
            };
            // Trailers aren't parameters.
            let Ok(piece) = frame.into_data() else { continue };
            match self.left.checked_sub(piece.len()) {
                Some(left) => self.left = left,
                None => {
                    linger(mem::take(&mut self.body));
                    return Err(Failure::BodyTooLarge { limit: self.limit });
                }
            }
            return Ok(Some(piece));
        }
    }

    async fn payload(mut self) -> Result<Payload, Failure> {
        let mut payload = Payload::new();
        while let Some(piece) = self.next().await? {
            payload.push(piece);
        }
        Ok(payload)
    }
}

/// Reads on for a while beside the answer: closing a connection on a client that is still sending resets it, and the client may
/// never see why.
fn linger(mut body: Body) {
    let reading = async move {
        let mut left = LINGER_BYTES;
        while let (Some(Ok(frame)), 1..) = (body.frame().await, left) {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    tokio::spawn(timeout(LINGER, reading));
}

fn bad(message: String) -> Failure {
    Failure::BadRequest { message }
}

fn form(payload: Payload) -> Result<Vec<Part>, Failure> {
    let bytes = payload.into_bytes();
    let parts: Vec<Part> = form_urlencoded::parse(&bytes)
        .take(MAX_PARTS + 1)
        .map(|(name, value)| Part {
            name: Cow::Owned(name.into_owned()),
            content_type: String::new(),
            body: Bytes::from(value.into_owned()).into(),
        })
        .collect();
    if parts.len() > MAX_PARTS { Err(too_many_parts()) } else { Ok(parts) }
}

fn too_many_parts() -> Failure {
    bad(format!("The form has more than {MAX_PARTS} fields."))
}

async fn multipart(content_type: &str, pieces: Pieces) -> Result<Vec<Part>, Failure> {
    let boundary = multer::parse_boundary(content_type).map_err(broken)?;
    let limits = SizeLimit::new().whole_stream(pieces.limit as u64);
    let pieces = stream::try_unfold(pieces, |mut pieces| async move {
        Ok::<_, Failure>(pieces.next().await?.map(|piece| (piece, pieces)))
    });
    let mut form = Multipart::with_constraints(pieces, boundary, Constraints::new().size_limit(limits));
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        if parts.len() == MAX_PARTS {
            return Err(too_many_parts());
        }
        parts.push(part(field).await?);
    }
    Ok(parts)
}

/// A field with a file name is a file and has a content type; one without is text and has none, whatever it says.
async fn part(mut field: Field<'_>) -> Result<Part, Failure> {
    let Some(name) = field.name().map(str::to_owned) else {
        return Err(bad("The form has a part without a name.".to_owned()));
    };
    let content_type = match (field.file_name(), field.content_type()) {
        (None, _) => String::new(),
        (Some(_), None) => "application/octet-stream".to_owned(),
        (Some(_), Some(mime)) => mime.essence_str().to_owned(),
    };
    let mut body = Payload::new();
    while let Some(piece) = field.chunk().await.map_err(broken)? {
        body.push(piece);
    }
    Ok(Part { name: Cow::Owned(name), content_type, body })
}

/// What a form parser's complaint means to the client: our own failure if it came from reading the body.
fn broken(error: multer::Error) -> Failure {
    match error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(cause) => bad(format!("The form can't be read: {cause}.")),
        },
        error => bad(format!("The form can't be read: {error}.")),
    }
}

#[cfg(test)]
mod tests;
