//! The models that are served: names, versions, which version is the default, and what happens between a
//! registration and the first worker.
//!
//! Readers take the current [`Snapshot`], which never changes; writers make the next one, one at a time.
//!
//! ```text
//! register ─► store (where is it) ─► cache (unpacked, a folder of its own) ─► load (manifest, configuration)
//!               │ address: may it?  ▲                                            │
//!               └─► fetch ──────────┘                                            │
//!                               snapshot ◄── publish ◄── ModelVersion (its pool) ◄┘
//! ```
//!
//! Knows no protocol and no process: requests go through a version's pool.

mod address;
mod cache;
mod fetch;
mod load;
mod native;
mod options;
mod register;
mod scale;
mod snapshot;
mod startup;
mod store;
mod version;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

pub use cache::CacheError;
pub use register::{Fetched, Registered, Registering, Registration};
pub use scale::{ScaleReport, Scaling};
pub use snapshot::Which;
pub use startup::{Missing, Readiness};
pub use version::{ModelVersion, VersionState};

use crate::config::Config;
use crate::failure::{Failure, Unavailable};
use crate::name::{ModelRef, Version};
use crate::worker::context::WorkerContext;
use crate::worker::pool::StillRunning;
use address::Rules;
use cache::Cache;
use fetch::{Fetcher, Outside};
use register::lost;
use snapshot::Snapshot;
use startup::Startup;
use store::Store;

/// All models of a server.
#[derive(Debug)]
pub struct Registry {
    config: Arc<Config>,
    context: Arc<WorkerContext>,
    models: ArcSwap<Snapshot>,
    /// Whoever makes the next snapshot holds it.
    writing: Mutex<Writing>,
    store: Store,
    fetcher: Fetcher,
    cache: Cache,
    startup: Startup,
}

#[derive(Debug, Default)]
struct Writing {
    /// Registrations that aren't finished.
    registering: Vec<Arc<Registering>>,
    /// The server is stopping.
    closed: bool,
}

/// What an unregistration found.
enum Unregistering {
    Version(Arc<ModelVersion>),
    CalledOff(Vec<Arc<Registering>>),
}

impl Registry {
    /// An empty registry. Takes the cache for this process.
    ///
    /// # Errors
    /// If another server uses the cache, or it can't be written to.
    pub fn new(config: Arc<Config>, context: Arc<WorkerContext>) -> Result<Arc<Self>, CacheError> {
        Self::open(config, context, Outside::real())
    }

    fn open(
        config: Arc<Config>,
        context: Arc<WorkerContext>,
        outside: Outside,
    ) -> Result<Arc<Self>, CacheError> {
        let cache = Cache::open(&config.cache_dir, config.cache_size, Default::default())?;
        if let Some(store) = &config.model_store {
            fetch::sweep(store);
        }
        let rules = Arc::new(Rules::new(config.allowed_urls.clone(), config.model_store.clone()));
        Ok(Arc::new(Self {
            store: Store::new(config.model_store.clone(), rules.clone()),
            fetcher: Fetcher::new(rules, &config, outside),
            startup: Startup::new(&config.models),
            models: ArcSwap::default(),
            writing: Mutex::default(),
            cache,
            context,
            config,
        }))
    }

    /// A version to predict with; the default one if none is named. Takes no lock.
    ///
    /// # Errors
    /// If there is no such model or version.
    pub fn resolve(&self, model: &str, version: Option<&str>) -> Result<Arc<ModelVersion>, Failure> {
        self.models.load().resolve(model, version).cloned()
    }

    /// The default versions, by name.
    pub fn list(&self) -> Vec<Arc<ModelVersion>> {
        let mut list: Vec<_> = self.models.load().defaults().cloned().collect();
        list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// Versions of a model.
    ///
    /// # Errors
    /// If there is no such model or version.
    pub fn versions(&self, model: &str, which: Which<'_>) -> Result<Vec<Arc<ModelVersion>>, Failure> {
        self.models.load().versions(model, which)
    }

    /// Registrations of a model that aren't finished; those without a name of their own under that of their
    /// file.
    pub fn registering(&self, model: &str) -> Vec<Arc<Registering>> {
        let writing = self.writing.lock();
        writing.registering.iter().filter(|candidate| candidate.model().as_str() == model).cloned().collect()
    }

    /// Makes a version the default one.
    ///
    /// # Errors
    /// If there is no such model or version.
    pub fn set_default(&self, model: &str, version: &str) -> Result<(), Failure> {
        let _writing = self.writing.lock();
        let next = self.models.load().with_default(model, version)?;
        self.models.store(Arc::new(next));
        info!(model, version, "is the default version");
        Ok(())
    }

    /// Removes a version, the default one if none is named, or calls off its registration. Once this has been
    /// polled, dropping it changes nothing.
    ///
    /// # Errors
    /// If there is no such version, it is the default of several, or its workers didn't stop in time.
    pub async fn unregister(self: &Arc<Self>, model: &str, version: Option<&str>) -> Result<(), Failure> {
        match self.withdraw_or_call_off(model, version)? {
            Unregistering::CalledOff(registrations) => {
                for registering in registrations {
                    registering.finished().await;
                }
                Ok(())
            }
            Unregistering::Version(version) => {
                let registry = self.clone();
                let ending = tokio::spawn(async move {
                    let ended = registry.end(&version).await;
                    info!(model = %version.name, version = %version.version, "unregistered");
                    ended.map_err(|killed| {
                        report(&version, killed);
                        Failure::CleanupTimeout { model: version.name.clone() }
                    })
                });
                ending.await.unwrap_or_else(|error| Err(lost(&error)))
            }
        }
    }

    fn withdraw_or_call_off(&self, model: &str, version: Option<&str>) -> Result<Unregistering, Failure> {
        let writing = self.writing.lock();
        let failure = match self.models.load().without(model, version) {
            Ok((next, version)) => {
                self.models.store(Arc::new(next));
                return Ok(Unregistering::Version(version));
            }
            Err(failure @ (Failure::ModelNotFound { .. } | Failure::VersionNotFound { .. })) => failure,
            Err(failure) => return Err(failure),
        };
        let meant = |candidate: &&Arc<Registering>| {
            let named = candidate.version().map(Version::as_str);
            candidate.model().as_str() == model && (version.is_none() || version == named)
        };
        let found: Vec<_> = writing.registering.iter().filter(meant).cloned().collect();
        if found.is_empty() {
            return Err(failure);
        }
        found.iter().for_each(|registering| registering.cancel());
        Ok(Unregistering::CalledOff(found))
    }

    /// Stops the workers of a version that is no longer in the snapshot, and removes its files.
    async fn end(&self, version: &ModelVersion) -> Result<(), StillRunning> {
        let model = ModelRef { model: version.name.clone(), version: Some(version.version.clone()) };
        let failure = Failure::Unavailable { model, why: Unavailable::Stopping };
        let stopped = version.pool.stop(failure, self.config.unregister_timeout).await;
        version.remove_files().await;
        stopped
    }

    /// TorchServe's notion of health: no model's default version has fewer workers than it should that aren't
    /// failing for long.
    pub fn ping(&self) -> bool {
        self.models.load().defaults().all(|version| version.is_healthy())
    }

    /// Refuses new requests; those that wait are finished, or answered if no worker is there to do it.
    pub fn drain(&self) {
        for version in self.models.load().all() {
            version.pool.drain(&Failure::ShuttingDown);
        }
    }

    /// Ends everything within `limit`: registrations are called off, queues finished as far as there is time,
    /// workers stopped.
    pub async fn shutdown(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let registering = {
            let mut writing = self.writing.lock();
            writing.closed = true;
            writing.registering.clone()
        };
        registering.iter().for_each(|registering| registering.cancel());
        let versions: Vec<_> = self.models.load().all().cloned().collect();
        let mut stopping = JoinSet::new();
        for version in versions {
            stopping.spawn(async move {
                if let Err(killed) = version.pool.stop(Failure::ShuttingDown, limit).await {
                    report(&version, killed);
                }
                version.leave_files().await;
            });
        }
        stopping.join_all().await;
        for registering in registering {
            // What it has made is swept at the next start.
            let _ = timeout_at(deadline, registering.finished()).await;
        }
    }
}

fn report(version: &ModelVersion, StillRunning { workers }: StillRunning) {
    warn!(model = %version.name, version = %version.version, workers, "killed: didn't stop in time");
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
