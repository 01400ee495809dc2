//! What all workers of the server have in common: who launches them, which Python and which SDK they get, how they are numbered.

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::exchange::Sink;
use super::gpu::Gpus;
use super::launch::{Launcher, Shim, StartError};
use super::output::LineSink;
use super::python::{Hidden, NoPython, Python, Search, Threads, Variables};
use crate::metrics::Metrics;
use crate::model::ModelOptions;

/// What is decided once for all workers.
pub struct WorkerSettings {
    /// The program that prepares a new process.
    pub shim: Shim,
    /// The setting `python`, and where it was made.
    pub python: Option<(OsString, String)>,
    /// The server's `argv[0]`.
    pub command: Option<OsString>,
    /// The server's environment.
    pub variables: Variables,
    /// The server's working directory.
    pub dir: PathBuf,
    /// Where the Python SDK lies.
    pub sdk: PathBuf,
    /// The number of the first worker.
    pub first_id: u32,
    /// The GPUs that workers may use.
    pub gpus: u32,
    /// The largest answer of a worker.
    pub max_response_bytes: u64,
    /// JSON and text are decoded before handlers see them.
    pub decode_input: bool,
    /// Pillow's limit on image sizes stays on.
    pub limit_max_image_pixels: bool,
    /// Environment variables that workers don't see.
    pub blacklist: Option<String>,
    /// Where the output of workers goes.
    pub lines: Arc<dyn LineSink>,
    /// Where their log records and metrics go.
    pub sink: Arc<dyn Sink>,
    /// Where what is measured of workers goes.
    pub metrics: Arc<Metrics>,
}

/// What all workers have in common.
pub struct WorkerContext {
    pub(super) settings: WorkerSettings,
    pub(super) launcher: Launcher,
    pub(super) hidden: Hidden,
    pub(super) gpus: Gpus,
    python: Result<Python, NoPython>,
    python3: Result<Python, NoPython>,
    next_id: AtomicU32,
    workers: AtomicUsize,
}

impl fmt::Debug for WorkerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerContext")
            .field("sdk", &self.settings.sdk)
            .field("python", &self.python)
            .finish_non_exhaustive()
    }
}

impl WorkerContext {
    /// Gets ready to launch workers. Within a runtime, once in a process.
    pub fn start(settings: WorkerSettings) -> Result<Arc<Self>, ContextError> {
        let hidden = Hidden::new(settings.blacklist.as_deref().unwrap_or_default())
            .map_err(|error| ContextError::Blacklist(error.to_string()))?;
        let search = Search {
            setting: settings.python.as_ref().map(|(name, place)| (name.as_os_str(), place.as_str())),
            command: settings.command.as_deref(),
            variables: &settings.variables,
            dir: &settings.dir,
        };
        let (python, python3) = (search.python(), search.python3());
        let launcher = Launcher::start(settings.shim.clone()).map_err(ContextError::Launcher)?;
        let next_id = AtomicU32::new(settings.first_id);
        let gpus = Gpus::new(settings.gpus);
        Ok(Arc::new(Self {
            settings,
            launcher,
            hidden,
            gpus,
            python,
            python3,
            next_id,
            workers: AtomicUsize::new(0),
        }))
    }

    /// The interpreter of the runtime `python`.
    pub fn python(&self) -> Result<&Python, &NoPython> {
        self.python.as_ref()
    }

    /// The interpreter of the runtime `python3`.
    pub fn python3(&self) -> Result<&Python, &NoPython> {
        self.python3.as_ref()
    }

    /// Where the Python SDK lies.
    pub fn sdk(&self) -> &Path {
        &self.settings.sdk
    }

    /// A number that no worker had before.
    pub(super) fn number(&self) -> u32 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a worker in; it counts until the returned value is dropped.
    pub(super) fn count_in(self: &Arc<Self>) -> Counted {
        self.workers.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// How many CPU threads a worker may use: what the model says, or its share of the machine.
    pub(super) fn threads(&self, options: &ModelOptions) -> Threads {
        let configured = options.threads.and_then(|threads| NonZeroUsize::new(threads as usize));
        configured.map_or_else(
            || {
                let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
                let workers = self.workers.load(Ordering::Relaxed).max(1);
                Threads::Share(NonZeroUsize::new(cores / workers).unwrap_or(NonZeroUsize::MIN))
            },
            Threads::Configured,
        )
    }
}

/// A worker that counts when the machine is shared out.
#[derive(Debug)]
pub(super) struct Counted(Arc<WorkerContext>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.workers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why no worker could be launched here.
#[derive(Debug)]
pub enum ContextError {
    /// The pattern of hidden variables isn't a regular expression.
    Blacklist(String),
    /// The launcher couldn't be started.
    Launcher(StartError),
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blacklist(why) => write!(f, "blacklist_env_vars is not a regular expression: {why}"),
            Self::Launcher(why) => write!(f, "failed to prepare for worker processes: {why}"),
        }
    }
}

impl std::error::Error for ContextError {}
