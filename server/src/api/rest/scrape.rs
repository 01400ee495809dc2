//! `GET /metrics`, for Prometheus. Knows no metric.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::path;
use crate::failure::Failure;
use crate::metrics::{self, Metrics};

/// The route of this module.
pub(super) fn routes(metrics: Arc<Metrics>) -> Router {
    let scrape = get(scrape).fallback(async || Failure::MethodNotAllowed);
    Router::new().route("/metrics/", scrape.clone()).route("/metrics", scrape).with_state(metrics)
}

async fn scrape(State(metrics): State<Arc<Metrics>>, request: Request) -> Response {
    let names: Vec<_> = path::query(request.uri())
        .filter(|(key, _)| key == "name[]")
        .map(|(_, name)| name.into_owned())
        .collect();
    let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
    ([(CONTENT_TYPE, kind)], metrics.text(&names)).into_response()
}
