//! What the server knows of a model version before any worker runs: where its files are, how it wants to be served.
//!
//! Values come from `model-config.yaml`, the registration and the defaults; `registry` merges them, everything else reads them.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::name::{ModelName, Version};

/// How a worker of a model is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// The configured Python.
    Python,
    /// `python3` on the path.
    Python3,
    /// A Rust executable from the archive.
    Native,
}

impl Runtime {
    /// The name in manifests, registrations and descriptions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Python3 => "python3",
            Self::Native => "native",
        }
    }
}

/// A model version, ready to be served.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// The model's name.
    pub name: ModelName,
    /// The version.
    pub version: Version,
    /// Its files: a folder of its own, which handlers may write into.
    pub dir: PathBuf,
    /// How a worker is made.
    pub runtime: Runtime,
    /// The handler as the registration or the manifest names it.
    pub handler: Option<String>,
    /// The request envelope to wrap it in.
    pub envelope: Option<String>,
    /// `MAR-INF/MANIFEST.json`.
    pub manifest: Value,
    /// `model-config.yaml`.
    pub config: Map<String, Value>,
    /// How it wants to be served.
    pub options: ModelOptions,
}

/// How a model version wants to be served.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelOptions {
    /// The most requests in one call of the handler.
    pub batch_size: u32,
    /// How long to wait for a batch to fill. `None`: it was never set, so an idle worker takes what is there at once
    /// (and describe shows TorchServe's 100 ms).
    pub max_batch_delay: Option<Duration>,
    /// The longest that a worker may go without answering.
    pub response_timeout: Duration,
    /// The longest that a worker may take to load.
    pub startup_timeout: Duration,
    /// How long a client waits; `None` for as long as it takes.
    pub client_timeout: Option<Duration>,
    /// The longest run of failures before a worker counts as unhealthy.
    pub max_retry_timeout: Duration,
    /// The most requests that wait.
    pub job_queue_size: usize,
    /// The most bytes that wait.
    pub max_queue_bytes: usize,
    /// A request is accepted only if a worker is idle.
    pub use_job_ticket: bool,
    /// A request whose worker died may be tried once more.
    pub retry_on_worker_death: bool,
    /// The handler's entry point is a coroutine.
    pub asynchronous: bool,
    /// The devices that its workers use.
    pub devices: Devices,
    /// Threads that the libraries in each worker may use; `None` for cores ÷ workers.
    pub threads: Option<u32>,
}

/// The devices that the workers of a model use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// CPU or GPU; `None` for a GPU if there is one.
    pub kind: Option<DeviceType>,
    /// The GPUs to use, by number; empty for all.
    pub ids: Vec<u32>,
    /// How the model is spread over several GPUs.
    pub parallel: Option<Parallel>,
    /// GPUs for each worker of a model that is spread; 0 if workers share them.
    pub per_worker: u32,
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// On the CPU.
    Cpu,
    /// On a GPU.
    Gpu,
}

/// How a model is spread over several GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallel {
    /// By stages: one process for each GPU, started by torchrun.
    Pipeline,
    /// By tensors: one process for each GPU, started by torchrun.
    Tensor,
    /// By both.
    PipelineAndTensor,
    /// The handler does it itself, in one process that sees several GPUs.
    Custom,
}

impl Parallel {
    /// TorchServe's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pipeline => "pp",
            Self::Tensor => "tp",
            Self::PipelineAndTensor => "pptp",
            Self::Custom => "custom",
        }
    }
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            batch_size: 1,
            max_batch_delay: None,
            response_timeout: Duration::from_secs(120),
            startup_timeout: Duration::from_secs(120),
            client_timeout: None,
            max_retry_timeout: Duration::from_secs(300),
            job_queue_size: 100,
            max_queue_bytes: 256 << 20,
            use_job_ticket: false,
            retry_on_worker_death: true,
            asynchronous: false,
            devices: Devices::default(),
            threads: None,
        }
    }
}
