//! A server as a whole: started in order, stopped in order.
//!
//! Up: workers' common ground → registry → listeners → the models named at start. Down: listeners, then registry, so that requests
//! under way find their workers until they are answered.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt, io};

use axum::Router;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tracing::warn;

use crate::api::rest::front::Front;
use crate::api::rest::{self, Api};
use crate::config::{Config, Origin};
use crate::listen::{self, Limits, Listening};
use crate::metrics::{self, Definitions, Metrics, measure_host};
use crate::registry::Registry;
use crate::sdk;
use crate::worker::context::{WorkerContext, WorkerSettings};
use crate::worker::gpu;
use crate::worker::launch::Shim;
use crate::worker::log::ModelLog;
use crate::worker::python::Variables;

/// What is left of the time for stopping when the last connections had theirs: for workers to end in.
const ENDING: Duration = Duration::from_secs(5);

/// The process that the server runs in, as far as workers have to do with it.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// `argv[0]`.
    pub command: Option<OsString>,
    /// The environment.
    pub variables: Variables,
    /// The working directory.
    pub dir: PathBuf,
    /// The program that prepares worker processes.
    pub shim: Shim,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(Self {
            command: env::args_os().next(),
            variables: env::vars_os().collect(),
            dir: env::current_dir()?,
            shim: Shim::default(),
        })
    }
}

/// Where clients connect.
#[derive(Debug)]
pub struct Listeners {
    /// For predictions; for everything, if there is no other.
    pub inference: TcpListener,
    /// For managing models.
    pub management: Option<TcpListener>,
    /// For reading metrics, if that has an address of its own.
    pub metrics: Option<TcpListener>,
}

impl Listeners {
    /// Those that the settings name. Equal addresses mean one listener.
    pub async fn bind(config: &Config) -> Result<Self, StartError> {
        let (inference, management) = (config.inference_address, config.management_address);
        let metrics = match config.metrics_address {
            Some(address) if Beside::of(config).is_none() => Some(bind(address, "metrics").await?),
            _ => None,
        };
        Ok(Self {
            inference: bind(inference, "inference").await?,
            management: if same(inference, management) {
                None
            } else {
                Some(bind(management, "management").await?)
            },
            metrics,
        })
    }
}

/// Two names of one listener.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one == other && one.port() != 0
}

/// What metrics are served beside if they have no address of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Inference,
    Management,
}

impl Beside {
    fn of(config: &Config) -> Option<Self> {
        let metrics = config.metrics_address?;
        if same(metrics, config.inference_address) {
            Some(Self::Inference)
        } else {
            same(metrics, config.management_address).then_some(Self::Management)
        }
    }
}

async fn bind(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|why| StartError::Bind { address, purpose, why })
}

/// A server at work.
#[derive(Debug)]
pub struct Server {
    config: Arc<Config>,
    registry: Arc<Registry>,
    inference: Listening,
    management: Option<Listening>,
    metrics: Option<Listening>,
}

impl Server {
    /// Starts serving. Models named in the settings come with [`load_models`](Self::load_models).
    pub fn start(
        config: Config,
        surroundings: Surroundings,
        listeners: Listeners,
    ) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let metrics = Arc::new(metrics(&config)?);
        if let Some(interval) = config.metric_time_interval {
            measure_host(&metrics, interval).map_err(StartError::because)?;
        }
        let context = WorkerContext::start(worker_settings(&config, surroundings, metrics.clone())?)
            .map_err(StartError::because)?;
        let registry = Registry::new(config.clone(), context).map_err(StartError::because)?;
        let api = Api::new(registry.clone(), &config);
        let serve = |listener, beside, router| {
            let here = Beside::of(&config).is_some_and(|found| found == beside);
            serve(listener, if here { rest::with_metrics(router, metrics.clone()) } else { router }, &metrics)
        };
        let (inference, management) = match listeners.management {
            None => (rest::combined(api), None),
            Some(listener) => {
                let management = serve(listener, Beside::Management, rest::management(api.clone()))?;
                (rest::inference(api), Some(management))
            }
        };
        let inference = serve(listeners.inference, Beside::Inference, inference)?;
        let own = |listener| self::serve(listener, rest::metrics(metrics.clone()), &metrics);
        let metrics = listeners.metrics.map(own).transpose()?;
        Ok(Self { config, registry, inference, management, metrics })
    }

    /// Where predictions are asked for.
    pub fn inference_address(&self) -> SocketAddr {
        self.inference.address()
    }

    /// Where models are managed.
    pub fn management_address(&self) -> SocketAddr {
        self.management.as_ref().map_or(self.inference.address(), Listening::address)
    }

    /// Where metrics are read, if they have an address of their own.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Listening::address)
    }

    /// Registers the models named in the settings, and doesn't wait for their workers. One that can't be registered is reported, and
    /// keeps the server from being ready, but not from serving the others.
    pub async fn load_models(&self) {
        self.registry.load_at_startup().await;
    }

    /// Finishes what is under way, within the time that the settings allow, and ends everything.
    pub async fn stop(self) {
        let deadline = Instant::now() + self.config.drain_timeout;
        // First, or connections would wait for requests that nobody will answer.
        self.registry.drain();
        let for_connections =
            self.config.drain_timeout.saturating_sub(ENDING).max(self.config.drain_timeout / 2);
        let management = async {
            match self.management {
                Some(listening) => listening.drain(for_connections).await,
                None => 0,
            }
        };
        let (inference, management) = tokio::join!(self.inference.drain(for_connections), management);
        if inference + management > 0 {
            warn!(connections = inference + management, "closing connections that are still busy");
        }
        self.registry.shutdown(deadline.saturating_duration_since(Instant::now())).await;
        // Until now: how a server stops is worth watching.
        drop(self.metrics);
    }
}

fn serve(listener: TcpListener, router: Router, metrics: &Arc<Metrics>) -> Result<Listening, StartError> {
    let metrics = metrics.clone();
    let front = move |peer| Front::new(router.clone(), peer, metrics.clone());
    listen::serve(listener, Limits::default(), front).map_err(StartError::because)
}

fn metrics(config: &Config) -> Result<Metrics, StartError> {
    let definitions = match &config.metrics_config {
        Some(file) => Definitions::read(file).map_err(StartError::because)?,
        None => Definitions::default(),
    };
    let settings = metrics::Settings {
        mode: config.metrics_mode,
        auto_detect: config.model_metrics_auto_detect,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        definitions,
    };
    Ok(Metrics::new(settings))
}

fn worker_settings(
    config: &Config,
    surroundings: Surroundings,
    metrics: Arc<Metrics>,
) -> Result<WorkerSettings, StartError> {
    let Surroundings { command, variables, dir, shim } = surroundings;
    let python = config.python.as_ref().map(|python| {
        let place = match config.origins.of("python") {
            // Named like this in the log: `python: /usr/bin/python3 (--python)`.
            Origin::Default => "python".to_owned(),
            origin => origin.to_string(),
        };
        (python.clone().into_os_string(), place)
    });
    Ok(WorkerSettings {
        shim,
        python,
        command,
        variables,
        dir,
        sdk: sdk::unpack(&config.cache_dir, &config.cache_dir).map_err(StartError::because)?,
        first_id: config.initial_worker_port,
        gpus: config.number_of_gpu.unwrap_or(u32::MAX).min(gpu::detect(Path::new("/"))),
        max_response_bytes: config.max_response_size as u64,
        decode_input: config.decode_input_request,
        limit_max_image_pixels: config.limit_max_image_pixels,
        blacklist: config.blacklist_env_vars.clone(),
        lines: Arc::new(ModelLog::new(metrics.clone())),
        sink: Arc::new(ModelLog::new(metrics.clone())),
        metrics,
    })
}

/// Why a server can't start.
#[derive(Debug)]
pub enum StartError {
    /// An address can't be listened on.
    Bind {
        /// The address.
        address: SocketAddr,
        /// What it is for, as in `--inference-address`.
        purpose: &'static str,
        /// The system's reason.
        why: io::Error,
    },
    /// Something else, in its own words.
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl StartError {
    /// Some other error.
    pub fn because(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(why.into())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { address, purpose, why } if why.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "{address} is in use, by another server perhaps; stop that one or choose with --{purpose}-address"
            ),
            Self::Bind { address, purpose, why } => {
                write!(f, "can't listen on {address} (--{purpose}-address): {why}")
            }
            Self::Other(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}
