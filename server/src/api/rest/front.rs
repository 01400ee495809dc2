//! What every request passes on its way in and every response on its way out: the headers that all responses carry, and the
//! access log, and the count of responses. One for each connection, because the log names the peer.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, EXPIRES, PRAGMA};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service as _;
use tracing::{Level, enabled, info};

use super::decode;
use crate::metrics::Metrics;

/// The response header that names the request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A router as one connection sees it.
#[derive(Debug, Clone)]
pub struct Front {
    router: Router,
    peer: SocketAddr,
    metrics: Arc<Metrics>,
}

impl Front {
    /// The `router` for the connection from `peer`.
    pub fn new(router: Router, peer: SocketAddr, metrics: Arc<Metrics>) -> Self {
        Self { router, peer, metrics }
    }
}

impl<B> hyper::service::Service<Request<B>> for Front
where
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Passing;

    fn call(&self, request: Request<B>) -> Passing {
        // Decided first: a log that nobody reads costs nothing.
        let entry = enabled!(target: "ACCESS_LOG", Level::INFO).then(|| Entry::new(self.peer, &request));
        let asked = request.headers().get(REQUEST_ID).cloned();
        let response = self.router.clone().call(request.map(Body::new));
        Passing { response, asked, entry, metrics: self.metrics.clone() }
    }
}

pin_project! {
    /// A request on its way to its response.
    pub struct Passing {
        #[pin]
        response: RouteFuture<Infallible>,
        asked: Option<HeaderValue>,
        entry: Option<Entry>,
        metrics: Arc<Metrics>,
    }
}

impl Future for Passing {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.response.poll(cx));
        common_headers(response.headers_mut(), this.asked.as_ref());
        this.metrics.responded(response.status().as_u16());
        if let Some(entry) = this.entry {
            entry.log(&response);
        }
        Poll::Ready(Ok(response))
    }
}

/// What names a response after its request. Ids are printable by construction.
pub(super) fn response_name(id: &str) -> HeaderValue {
    HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static(""))
}

fn common_headers(headers: &mut HeaderMap, asked: Option<&HeaderValue>) {
    if !headers.contains_key(REQUEST_ID) {
        headers.insert(REQUEST_ID, response_name(&decode::request_id(asked)));
    }
    // A handler that sets one of these knows better than a default.
    for (name, value) in [
        (PRAGMA, HeaderValue::from_static("no-cache")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache; no-store, must-revalidate, private")),
        (EXPIRES, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 UTC")),
    ] {
        headers.entry(name).or_insert(value);
    }
}

/// A line of the access log, in the making.
struct Entry {
    peer: SocketAddr,
    method: Method,
    uri: Uri,
    version: Version,
    began: Instant,
}

impl Entry {
    fn new<B>(peer: SocketAddr, request: &Request<B>) -> Self {
        Self {
            peer,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            began: Instant::now(),
        }
    }

    /// In TorchServe's form, slash included: tools parse it.
    fn log(&self, response: &Response) {
        let Self { peer, method, uri, version, began } = self;
        let (status, millis) = (response.status().as_u16(), began.elapsed().as_millis());
        info!(target: "ACCESS_LOG", "/{peer} \"{method} {uri} {version:?}\" {status} {millis}");
    }
}
