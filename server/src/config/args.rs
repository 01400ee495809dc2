//! The flags of `zoo-server`. Values stay text here, so that [`resolve`](super::resolve()) can report all
//! wrong ones at once.

use clap::Parser;

/// Serves models from archives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(name = "zoo-server", version, about)]
pub struct Args {
    /// Where predictions are asked for [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub inference_address: Option<String>,
    /// Where models are managed [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    pub management_address: Option<String>,
    /// Where metrics are read [default: 127.0.0.1:8082]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_address: Option<String>,
    /// Listen there [default: true]
    #[arg(long, value_name = "BOOL")]
    pub enable_metrics_api: Option<String>,
    /// Where metrics go: prometheus, log (and Prometheus), legacy [default: prometheus]
    #[arg(long, value_name = "MODE")]
    pub metrics_mode: Option<String>,
    /// Which metrics there are, as a metrics.yaml of TorchServe
    #[arg(long, value_name = "FILE")]
    pub metrics_config: Option<String>,
    /// Keep metrics of handlers that nobody declared
    #[arg(long)]
    pub model_metrics_auto_detect: bool,
    /// Don't measure the machine
    #[arg(long)]
    pub disable_system_metrics: bool,
    /// Seconds between measurements of the machine [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub metric_time_interval: Option<String>,
    /// Folder with archives
    #[arg(long, value_name = "DIR")]
    pub model_store: Option<String>,
    /// Models to register at start: `all`, or each `[NAME=]LOCATION`
    #[arg(long, value_name = "MODEL", num_args = 1..)]
    pub models: Vec<String>,
    /// Folder for unpacked archives and the Python SDK [default: ~/.cache/zoo]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<String>,
    /// Bytes of unpacked archives to keep [default: 20GiB]
    #[arg(long, value_name = "BYTES")]
    pub cache_size: Option<String>,
    /// Interpreter for Python handlers
    #[arg(long, value_name = "PATH")]
    pub python: Option<String>,
    /// Requests that may wait for one model version [default: 100]
    #[arg(long, value_name = "N")]
    pub job_queue_size: Option<String>,
    /// Bytes of requests that may wait for one model version [default: 256MiB]
    #[arg(long, value_name = "BYTES")]
    pub max_queue_bytes: Option<String>,
    /// Seconds that a worker may go without answering [default: 120]
    #[arg(long, value_name = "SECONDS")]
    pub default_response_timeout: Option<String>,
    /// Seconds that a worker may take to load [default: 120]
    #[arg(long, value_name = "SECONDS")]
    pub default_startup_timeout: Option<String>,
    /// Seconds that unregistering waits for workers to stop [default: 120]
    #[arg(long, value_name = "SECONDS")]
    pub unregister_model_timeout: Option<String>,
    /// Workers of a model that is registered without saying how many [default: 1 at start, 0 through the API]
    #[arg(long, value_name = "N")]
    pub default_workers_per_model: Option<String>,
    /// Number of the first worker [default: 9000]
    #[arg(long, value_name = "N")]
    pub initial_worker_port: Option<String>,
    /// Threads that serve requests; the other cores are left to the workers [default: half the cores]
    #[arg(long, value_name = "N")]
    pub frontend_threads: Option<String>,
    /// Most GPUs to use [default: all]
    #[arg(long, value_name = "N")]
    pub number_of_gpu: Option<String>,
    /// Largest request body [default: 6553500]
    #[arg(long, value_name = "BYTES")]
    pub max_request_size: Option<String>,
    /// Largest answer [default: 6553500]
    #[arg(long, value_name = "BYTES")]
    pub max_response_size: Option<String>,
    /// Models can't be registered or removed through the API
    #[arg(long)]
    pub disable_model_api: bool,
    /// Models can be registered and removed through the API (they can, unless disabled)
    #[arg(long, conflicts_with = "disable_model_api")]
    pub enable_model_api: bool,
    /// Serve without tokens even where other machines can connect
    #[arg(long)]
    pub disable_token_auth: bool,
    /// URLs that models may be registered from: full matches of one of these regular expressions, separated by commas
    /// [default: http and https on this machine and in private networks]
    #[arg(long, value_name = "REGEX,…")]
    pub allowed_urls: Option<String>,
    /// Largest archive that is fetched from a URL [default: 64GiB]
    #[arg(long, value_name = "BYTES")]
    pub max_download_size: Option<String>,
    /// Seconds that fetching an archive may take in all [default: 3600]
    #[arg(long, value_name = "SECONDS")]
    pub download_timeout: Option<String>,
    /// Seconds that the other end may be silent while an archive is fetched [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub download_idle_timeout: Option<String>,
    /// Decode JSON and text before handlers see them [default: true]
    #[arg(long, value_name = "BOOL")]
    pub decode_input_request: Option<String>,
    /// Keep Pillow's limit on image sizes in vision handlers [default: true]
    #[arg(long, value_name = "BOOL")]
    pub limit_max_image_pixels: Option<String>,
    /// Handler of models that name none
    #[arg(long, value_name = "HANDLER")]
    pub default_service_handler: Option<String>,
    /// Request envelope of all models: body, json, kserve, kservev2
    #[arg(long, value_name = "ENVELOPE")]
    pub service_envelope: Option<String>,
    /// Environment variables that workers don't see: full matches of this regular expression
    #[arg(long, value_name = "REGEX")]
    pub blacklist_env_vars: Option<String>,
    /// Names, beside IP addresses, `localhost` and the machine's, under which models may be managed: a,b
    #[arg(long, value_name = "NAMES")]
    pub allowed_hosts: Option<String>,
    /// Seconds that stopping may take in all [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub drain_timeout: Option<String>,
}
