//! `/predictions` and `/explanations`: any method, as TorchServe allows.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::Method;
use http::request::Parts;
use tokio::time::Instant;

use super::{Api, decode, encode, front, path};
use crate::failure::Failure;
use crate::registry::ModelVersion;
use crate::request::{Outcome, Request};

/// Adds the routes of this module.
pub(super) fn routes(router: Router<Arc<Api>>) -> Router<Arc<Api>> {
    router.route("/predictions/{*path}", any(predict)).route("/explanations/{*path}", any(explain))
}

async fn predict(State(api): State<Arc<Api>>, request: HttpRequest) -> Response {
    infer(&api, request, false).await
}

async fn explain(State(api): State<Arc<Api>>, request: HttpRequest) -> Response {
    infer(&api, request, true).await
}

async fn infer(api: &Api, request: HttpRequest, explain: bool) -> Response {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let id = decode::request_id(head.headers.get(front::REQUEST_ID));
    let name = front::response_name(&id);
    let mut response = match outcome(api, &head, body, id, arrived, explain).await {
        Ok(answer) => encode::answer(answer),
        Err(failure) => failure.into_response(),
    };
    // Instead of the one that the handler may have set.
    response.headers_mut().insert(front::REQUEST_ID, name);
    response
}

async fn outcome(
    api: &Api,
    head: &Parts,
    body: Body,
    id: String,
    arrived: Instant,
    explain: bool,
) -> Outcome {
    let limit = api.max_request_size;
    let aim = match Aim::take(api, head, arrived) {
        Ok(aim) => aim,
        Err(failure) => {
            decode::discard(&head.headers, body, limit).await?;
            return Err(failure);
        }
    };
    let request = Request {
        id,
        headers: decode::headers(&head.headers),
        url_path: aim.url_path,
        explain,
        parts: decode::parts(&head.headers, body, limit).await?,
        deadline: aim.deadline,
    };
    // Waiting no more is what cancels a request, so a client that leaves needs no other word.
    aim.version.submit(request, aim.version_named)?.await
}

/// What a request's head says about where it goes and until when.
struct Aim {
    version: Arc<ModelVersion>,
    version_named: bool,
    url_path: String,
    deadline: Option<Instant>,
}

impl Aim {
    fn take(api: &Api, head: &Parts, arrived: Instant) -> Result<Self, Failure> {
        if head.method == Method::OPTIONS {
            return Err(Failure::MethodNotAllowed);
        }
        let path = path::decoded(&head.uri);
        let (model, version, url_path) = target(&path);
        let found = api.registry.resolve(model, version)?;
        let usual: Option<Duration> = found.spec.options.client_timeout;
        let deadline = decode::deadline(&head.headers, arrived, usual)?;
        Ok(Self { version: found, version_named: version.is_some(), url_path: url_path.to_owned(), deadline })
    }
}

/// Model, version and what follows them in `predictions/…`.
fn target(path: &str) -> (&str, Option<&str>, &str) {
    let mut segments = path.splitn(4, '/').skip(1);
    let model = segments.next().unwrap_or_default();
    (model, segments.next(), segments.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_version_goes_to_the_handler() {
        for (path, expected) in [
            ("predictions/m", ("m", None, "")),
            ("predictions/m/1.0", ("m", Some("1.0"), "")),
            ("predictions/m/1.0/a", ("m", Some("1.0"), "a")),
            ("explanations/m/1.0/a/b c/d", ("m", Some("1.0"), "a/b c/d")),
        ] {
            assert_eq!(target(path), expected, "{path}");
        }
    }
}
