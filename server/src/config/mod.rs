//! The server's settings, typed and checked. The real environment is read in `main` only: [`resolve()`] is
//! told how to look.

mod args;
mod resolve;
mod urls;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use args::Args;
pub use resolve::{SettingError, resolve};
pub use urls::UrlPatterns;

use crate::metrics::Mode;

/// Everything that is set for the whole server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where predictions are asked for.
    pub inference_address: SocketAddr,
    /// Where models are managed.
    pub management_address: SocketAddr,
    /// Where metrics are read; `None`: nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// Where metrics go.
    pub metrics_mode: Mode,
    /// A file that says which metrics there are.
    pub metrics_config: Option<PathBuf>,
    /// Whether metrics of handlers are kept that nobody declared.
    pub model_metrics_auto_detect: bool,
    /// How often the machine is measured; `None`: never.
    pub metric_time_interval: Option<Duration>,
    /// Where archives are found by name.
    pub model_store: Option<PathBuf>,
    /// What is registered at start.
    pub models: StartupModels,
    /// Unpacked archives, remembered digests, the models' private folders, the Python SDK.
    pub cache_dir: PathBuf,
    /// How many bytes of unpacked archives are kept.
    pub cache_size: u64,
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
    /// Workers of a model that is registered without saying how many. Not set: one at start, none through the
    /// API.
    pub default_workers_per_model: Option<u32>,
    /// The number of the first worker.
    pub initial_worker_port: u32,
    /// Threads that serve requests.
    pub frontend_threads: usize,
    /// The most GPUs to use; `None` for all.
    pub number_of_gpu: Option<u32>,
    /// The largest request body.
    pub max_request_size: usize,
    /// The largest answer of a worker.
    pub max_response_size: usize,
    /// Whether models can be registered and removed through the API.
    pub enable_model_api: bool,
    /// URLs that models may be registered from. Not set: depends on who asks.
    pub allowed_urls: Option<UrlPatterns>,
    /// The largest archive that is fetched from a URL.
    pub max_download_size: u64,
    /// How long fetching an archive may take in all.
    pub download_timeout: Duration,
    /// How long the other end may be silent while an archive is fetched.
    pub download_idle_timeout: Duration,
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
    /// Names, beside IP addresses, `localhost` and the machine's own, under which models may be managed.
    pub allowed_hosts: Vec<String>,
    /// How long stopping may take in all.
    pub drain_timeout: Duration,
    /// Where the values that aren't defaults came from.
    pub origins: Origins,
}

/// What is registered at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartupModels {
    /// Each archive and folder of the model store.
    All,
    /// These, in this order.
    Listed(Vec<StartupModel>),
}

/// A model to register at start: `[name=]location`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupModel {
    /// Its name; the archive's if there is none.
    pub name: Option<String>,
    /// A file or folder of the model store, the path of a folder, or a URL.
    pub location: String,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// An environment variable.
    Env(&'static str),
    /// A flag of the command line.
    Flag(&'static str),
    /// The archive's `model-config.yaml`.
    ModelConfig,
    /// A parameter of the registration.
    Api,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::ModelConfig => f.write_str("model config"),
            Self::Api => f.write_str("registration"),
        }
    }
}

/// Where the values came from, by flag name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<&'static str, Origin>);

impl Origins {
    /// Where the value of the flag `name` came from.
    pub fn of(&self, name: &str) -> Origin {
        self.0.get(name).copied().unwrap_or_default()
    }

    fn set(&mut self, name: &'static str, origin: Origin) {
        self.0.insert(name, origin);
    }
}
