//! The REST API, as TorchServe's clients know it: inference, health and management.
//!
//! [`front`] is what every request passes; `inference`, `health` and `management` are the routes; `decode` and `encode`
//! translate between HTTP and the server's own words.

mod decode;
mod describe;
mod encode;
pub mod front;
mod health;
mod inference;
mod list;
mod management;
mod origin;
mod params;
mod path;
mod scrape;

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, any};

use self::origin::Names;
use crate::config::Config;
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::registry::Registry;

/// What the routes work with.
#[derive(Debug)]
pub struct Api {
    registry: Arc<Registry>,
    max_request_size: usize,
    enable_model_api: bool,
    names: Names,
}

impl Api {
    /// The API to the models in `registry`.
    pub fn new(registry: Arc<Registry>, config: &Config) -> Arc<Self> {
        // Without its name the machine is still known by its addresses.
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Arc::new(Self {
            registry,
            max_request_size: config.max_request_size,
            enable_model_api: config.enable_model_api,
            names: Names::new(&machine, &config.allowed_hosts),
        })
    }

    fn may_change_models(&self) -> Result<(), Failure> {
        if self.enable_model_api { Ok(()) } else { Err(Failure::MethodNotAllowed) }
    }
}

/// What is served where predictions are asked for.
pub fn inference(api: Arc<Api>) -> Router {
    rest(inference::routes(health::routes(Router::new()))).with_state(api)
}

/// What is served where models are managed.
pub fn management(api: Arc<Api>) -> Router {
    rest(management::routes(Router::new())).with_state(api)
}

/// Both, for a server with one address.
pub fn combined(api: Arc<Api>) -> Router {
    rest(management::routes(inference::routes(health::routes(Router::new())))).with_state(api)
}

/// What is served where metrics are read.
pub fn metrics(metrics: Arc<Metrics>) -> Router {
    rest(scrape::routes(metrics))
}

/// The same beside something else.
pub fn with_metrics(router: Router, metrics: Arc<Metrics>) -> Router {
    router.merge(scrape::routes(metrics))
}

/// Everything that isn't a route.
fn rest<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.route("/", any(async || Failure::MethodNotAllowed)).fallback(async || Failure::RouteNotFound)
}

/// A route with and without a trailing slash.
fn both(router: Router<Arc<Api>>, path: &str, handler: MethodRouter<Arc<Api>>) -> Router<Arc<Api>> {
    router.route(&format!("{path}/"), handler.clone()).route(path, handler)
}
