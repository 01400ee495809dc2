//! The models that are named when the server starts, and whether they are there yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tracing::{error, info};

use super::Registry;
use super::address::loggable;
use super::register::{Registration, Trust, lost};
use super::store::default_name;
use super::version::{ModelVersion, Shortage};
use crate::config::{StartupModel, StartupModels};
use crate::failure::Failure;
use crate::name::Version;

/// Archives that are unpacked at a time.
const AT_ONCE: usize = 4;

/// Whether the models that were named at the start have their workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Those that haven't; none if the server is ready.
    pub missing: Vec<Missing>,
}

impl Readiness {
    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.missing.is_empty()
    }
}

/// A model that was named at the start and can't be predicted with as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name, or where it was to be found.
    pub model: String,
    /// Its version, if it is known.
    pub version: Option<Version>,
    /// What it lacks, and why.
    pub reason: String,
}

/// What the start has promised.
#[derive(Debug)]
pub(super) struct Startup {
    promises: Mutex<Vec<Promise>>,
    /// Everything has been there once.
    reached: AtomicBool,
}

#[derive(Debug)]
struct Promise {
    /// Its name as far as it is known.
    model: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Failed(Failure),
    Registered(Arc<ModelVersion>),
}

impl Startup {
    pub(super) fn new(models: &StartupModels) -> Self {
        let promises = match models {
            StartupModels::All => {
                vec![Promise { model: "all of the model store".to_owned(), state: State::Waiting }]
            }
            StartupModels::Listed(listed) => listed.iter().map(Promise::of).collect(),
        };
        Self { promises: Mutex::new(promises), reached: AtomicBool::new(false) }
    }
}

impl Promise {
    fn of(model: &StartupModel) -> Self {
        let name = model.name.clone().unwrap_or_else(|| default_name(&model.location));
        Self { model: name, state: State::Waiting }
    }

    /// What is missing, if anything.
    fn missing(&self, registry: &Registry) -> Option<Missing> {
        let missing = |reason: String| Missing { model: self.model.clone(), version: None, reason };
        match &self.state {
            State::Waiting => Some(missing("is being registered".to_owned())),
            // Registered later, by hand.
            State::Failed(failure) => match registry.models.load().resolve(&self.model, None) {
                Ok(version) => lacks(version),
                Err(_) => Some(missing(format!("failed to load: {failure}"))),
            },
            // Unregistered by somebody, so nobody waits for it.
            State::Registered(version) if !registry.models.load().holds(version) => None,
            State::Registered(version) => lacks(version),
        }
    }
}

fn lacks(version: &ModelVersion) -> Option<Missing> {
    let Shortage { ready, wanted, last_failure, .. } = version.shortage()?;
    let mut reason = format!("{ready} of {wanted} workers are ready");
    if let Some(failure) = last_failure {
        reason.push_str("; last failure: ");
        reason.push_str(&failure);
    }
    Some(Missing { model: version.name.to_string(), version: Some(version.version.clone()), reason })
}

impl Registry {
    /// Registers the models that were named at the start, without waiting for their workers. Failures are
    /// logged, and the others go on.
    pub async fn load_at_startup(self: &Arc<Self>) {
        let models = self.named_at_startup();
        *self.startup.promises.lock() = models.iter().map(Promise::of).collect();
        // Unpacked side by side, but published in order: the first version of a model becomes its default.
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut running = Vec::new();
        for model in &models {
            let registration = Registration {
                model_name: model.name.clone(),
                synchronous: false,
                ..Registration::of(&model.location)
            };
            let accepted = self.accept(registration, Trust::Operator);
            let turns = turns.clone();
            running.push(tokio::spawn(async move {
                let way = accepted?;
                let _turn = turns.acquire().await;
                let prepared = way.prepare().await?;
                Ok((way, prepared))
            }));
        }
        for (index, (model, running)) in models.iter().zip(running).enumerate() {
            let finished = match running.await.unwrap_or_else(|error| Err(lost(&error))) {
                Ok((way, prepared)) => way.publish(prepared).await,
                Err(failure) => Err(failure),
            };
            let state = match finished {
                Ok((version, min, max)) => {
                    version.pool.start_scaling(min, max);
                    State::Registered(version)
                }
                Err(failure) => {
                    // TorchServe's words.
                    let shown = loggable(&model.location);
                    let failure_shown = failure.to_string().replace(&model.location, &shown);
                    error!("Failed to load model: {shown}: {failure_shown}");
                    State::Failed(failure)
                }
            };
            self.startup.promises.lock()[index].state = state;
        }
        info!(models = models.len(), "models named at the start are registered");
    }

    fn named_at_startup(&self) -> Vec<StartupModel> {
        match &self.config.models {
            StartupModels::Listed(models) => models.clone(),
            StartupModels::All => match self.store.all() {
                Ok(names) => {
                    names.into_iter().map(|location| StartupModel { name: None, location }).collect()
                }
                Err(problem) => {
                    error!("can't list the model store: {problem}");
                    Vec::new()
                }
            },
        }
    }

    /// Whether the models that were named at the start have their workers, or have had them once.
    pub fn readiness(&self) -> Readiness {
        if self.startup.reached.load(Ordering::Relaxed) {
            return Readiness { missing: Vec::new() };
        }
        let missing: Vec<_> =
            self.startup.promises.lock().iter().filter_map(|promise| promise.missing(self)).collect();
        if missing.is_empty() {
            self.startup.reached.store(true, Ordering::Relaxed);
        }
        Readiness { missing }
    }
}
