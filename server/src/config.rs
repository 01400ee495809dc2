//! The server's settings, typed and checked. Where they come from is decided in `main`; nothing here reads the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that is set for the whole server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where predictions are asked for.
    pub inference_address: SocketAddr,
    /// Where models are managed.
    pub management_address: SocketAddr,
    /// Where archives are found by name.
    pub model_store: Option<PathBuf>,
    /// Unpacked archives, remembered digests, the Python SDK.
    pub cache_dir: PathBuf,
    /// The interpreter for Python handlers; `None` to look for one.
    pub python: Option<PathBuf>,
    /// Requests that may wait for one model version.
    pub job_queue_size: usize,
    /// Bytes of requests that may wait for one model version.
    pub max_queue_bytes: usize,
    /// The longest that a worker may go without answering, unless the model says otherwise.
    pub default_response_timeout: Duration,
    /// The longest that a worker may take to load, unless the model says otherwise.
    pub default_startup_timeout: Duration,
    /// How long unregistering waits for workers to stop.
    pub unregister_timeout: Duration,
    /// Workers of a model that is registered without saying how many.
    pub default_workers_per_model: u32,
    /// The number of the first worker.
    pub initial_worker_port: u32,
    /// The largest request body.
    pub max_request_size: usize,
    /// The largest answer of a worker.
    pub max_response_size: usize,
    /// Whether models can be registered and removed through the API.
    pub enable_model_api: bool,
    /// Whether JSON and text are decoded before handlers see them.
    pub decode_input_request: bool,
    /// Whether Pillow's limit on image sizes stays on in vision handlers.
    pub limit_max_image_pixels: bool,
    /// The handler of models that name none.
    pub default_service_handler: Option<String>,
    /// The request envelope of all models.
    pub service_envelope: Option<String>,
    /// Environment variables that workers don't see: full matches of this pattern.
    pub blacklist_env_vars: Option<String>,
    /// How long stopping may take in all.
    pub drain_timeout: Duration,
}
