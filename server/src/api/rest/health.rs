//! `/ping` as TorchServe has it, and what orchestrators ask: is the process alive, may it get traffic.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::any;
use http::StatusCode;
use serde::Serialize;

use super::{Api, both, encode};
use crate::registry::Missing;

/// Adds the routes of this module.
pub(super) fn routes(mut router: Router<Arc<Api>>) -> Router<Arc<Api>> {
    router = both(router, "/ping", any(ping));
    router = both(router, "/health/live", any(live));
    both(router, "/health/ready", any(ready))
}

async fn ping(State(api): State<Arc<Api>>) -> Response {
    if api.registry.ping() {
        encode::status(StatusCode::OK, "Healthy")
    } else {
        encode::status(StatusCode::INTERNAL_SERVER_ERROR, "Unhealthy")
    }
}

async fn live() -> Response {
    encode::status(StatusCode::OK, "Live")
}

#[derive(Serialize)]
struct NotReady {
    status: &'static str,
    missing: Vec<Lack>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lack {
    model_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<String>,
    reason: String,
}

impl From<Missing> for Lack {
    fn from(missing: Missing) -> Self {
        Self {
            model_name: missing.model,
            model_version: missing.version.map(|version| version.to_string()),
            reason: missing.reason,
        }
    }
}

async fn ready(State(api): State<Arc<Api>>) -> Response {
    let readiness = api.registry.readiness();
    if readiness.is_ready() {
        return encode::status(StatusCode::OK, "Ready");
    }
    let missing = readiness.missing.into_iter().map(Lack::from).collect();
    encode::json(StatusCode::SERVICE_UNAVAILABLE, &NotReady { status: "Not ready", missing })
}
