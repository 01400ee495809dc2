//! Registration: from a URL to a version that can be predicted with.
//!
//! `accept` → [`Way::prepare`] (find, fetch, unpack, read) → `publish` → workers. From acceptance
//! on it can be seen and called off; a client that leaves changes nothing. Failure leaves neither files nor
//! an entry.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use zoo_archiver::progress::Progress;
use zoo_archiver::read::{Form, model_root};
use zoo_archiver::{Archive, Limits, Manifest, ReadError};

use super::Registry;
use super::address::{Address, loggable};
use super::cache::{CacheError, PrivateDir};
use super::fetch::{Download, Order};
use super::load::{self, Loaded};
use super::store::{Found, default_name};
use super::version::{Files, ModelVersion, VersionState};
use crate::failure::Failure;
use crate::name::{ModelName, Version};
use crate::worker::pool::{Pool, Scaled};

/// What a client wants registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// A file or folder of the model store, the path of a folder, or a URL.
    pub url: String,
    /// The model's name, in place of the archive's.
    pub model_name: Option<String>,
    /// The handler, in place of the archive's.
    pub handler: Option<String>,
    /// The runtime, in place of the archive's.
    pub runtime: Option<String>,
    /// The most requests in one call of the handler.
    pub batch_size: Option<u32>,
    /// How long to wait for a batch to fill.
    pub max_batch_delay: Option<Duration>,
    /// The longest that a worker may go without answering.
    pub response_timeout: Option<Duration>,
    /// The longest that a worker may take to load.
    pub startup_timeout: Option<Duration>,
    /// How many workers to start, unless the archive says.
    pub initial_workers: Option<u32>,
    /// Wait for the workers.
    pub synchronous: bool,
    /// Fetch with S3's header for encryption with keys that are managed there.
    pub s3_sse_kms: bool,
}

impl Registration {
    /// A registration that leaves everything to the archive and the server's settings.
    pub fn of(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model_name: None,
            handler: None,
            runtime: None,
            batch_size: None,
            max_batch_delay: None,
            response_timeout: None,
            startup_timeout: None,
            initial_workers: None,
            synchronous: true,
            s3_sse_kms: false,
        }
    }
}

/// How a registration went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// It is there, and no workers were wanted.
    WithoutWorkers {
        /// The model.
        model: ModelName,
        /// Its version.
        version: Version,
    },
    /// It is there, and so are its workers.
    Ready {
        /// The model.
        model: ModelName,
        /// Its version.
        version: Version,
        /// How many workers.
        workers: u32,
    },
    /// It is there, and its workers are being started.
    Processing,
}

/// Who wants something registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Someone who can reach the management port.
    Client,
    /// Whoever started the server.
    Operator,
}

/// How much of an archive has been fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes that are here.
    pub bytes: u64,
    /// Bytes that there are, if the other end has said.
    pub total: Option<u64>,
}

/// A registration that was accepted and isn't finished.
#[derive(Debug)]
pub struct Registering {
    /// Where it is registered from.
    pub url: String,
    /// The name that was given or that its file has.
    guess: ModelName,
    /// What the archive turned out to be.
    identity: OnceLock<(ModelName, Version)>,
    /// For what comes from elsewhere.
    fetched: Mutex<Option<Fetched>>,
    unpacking: AtomicBool,
    cancelled: CancellationToken,
    finished: watch::Sender<bool>,
}

impl Registering {
    fn new(registration: &Registration) -> Arc<Self> {
        let guess = registration.model_name.clone().unwrap_or_else(|| default_name(&registration.url));
        Arc::new(Self {
            url: registration.url.clone(),
            guess: guess.into(),
            identity: OnceLock::new(),
            fetched: Mutex::default(),
            unpacking: AtomicBool::new(false),
            cancelled: CancellationToken::new(),
            finished: watch::Sender::new(false),
        })
    }

    /// The model's name as far as it is known.
    pub fn model(&self) -> &ModelName {
        self.identity.get().map_or(&self.guess, |(model, _)| model)
    }

    /// The version, once the archive was looked into.
    pub fn version(&self) -> Option<&Version> {
        self.identity.get().map(|(_, version)| version)
    }

    /// How far it has come.
    pub fn state(&self) -> VersionState {
        if self.unpacking.load(Ordering::Relaxed) { VersionState::Unpacking } else { VersionState::Fetching }
    }

    /// How much has been fetched of an archive that comes from elsewhere.
    pub fn fetched(&self) -> Option<Fetched> {
        *self.fetched.lock()
    }

    pub(super) fn fetching(&self, bytes: u64, total: Option<u64>) {
        *self.fetched.lock() = Some(Fetched { bytes, total });
    }

    /// Calls it off; it ends soon.
    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Waits until it is called off.
    pub(super) async fn called_off(&self) {
        self.cancelled.cancelled().await;
    }

    /// Waits until it has ended, one way or the other.
    pub(super) async fn finished(&self) {
        // The sender is ours, so it can't be gone.
        let _ = self.finished.subscribe().wait_for(|finished| *finished).await;
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.cancelled() { Err(self.failure()) } else { Ok(()) }
    }

    pub(super) fn failure(&self) -> Failure {
        Failure::RegistrationCancelled { model: self.model().to_string() }
    }
}

impl Progress for Registering {
    fn cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }
}

/// Takes a registration off the list of those that aren't finished, however it ends.
struct Entry {
    registry: Arc<Registry>,
    registering: Arc<Registering>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.writing.lock().registering.retain(|other| !Arc::ptr_eq(other, &self.registering));
        self.registering.finished.send_replace(true);
    }
}

/// What a registration is made from, once it is on this machine.
enum Source {
    /// Used where it is.
    Folder(PathBuf),
    /// To be unpacked; goes with the model if it was fetched for it.
    Archive { path: PathBuf, download: Option<Download> },
}

/// A version that could be published.
#[derive(Debug)]
pub(super) struct Prepared {
    loaded: Loaded,
    files: Files,
}

/// A registration on its way.
pub(super) struct Way {
    registration: Registration,
    trust: Trust,
    entry: Entry,
}

impl Registry {
    /// Registers a model. Once this has been polled, dropping it changes nothing.
    ///
    /// # Errors
    /// If it can't be registered, or its workers were waited for and didn't come up. Then nothing of it is
    /// left.
    pub async fn register(self: &Arc<Self>, registration: Registration) -> Result<Registered, Failure> {
        let way = self.accept(registration, Trust::Client)?;
        let running = tokio::spawn(async move {
            let prepared = way.prepare().await?;
            let (version, min, max) = way.publish(prepared).await?;
            way.staff(version, min, max).await
        });
        running.await.unwrap_or_else(|error| Err(lost(&error)))
    }

    /// Puts a registration on the list of those that can be seen.
    pub(super) fn accept(self: &Arc<Self>, registration: Registration, trust: Trust) -> Result<Way, Failure> {
        let registering = Registering::new(&registration);
        let mut writing = self.writing.lock();
        if writing.closed {
            return Err(Failure::ShuttingDown);
        }
        writing.registering.push(registering.clone());
        drop(writing);
        Ok(Way { registration, trust, entry: Entry { registry: self.clone(), registering } })
    }

    /// Lets readers see a version, unless it is unwanted or there is one already.
    fn publish(&self, version: &Arc<ModelVersion>, registering: &Arc<Registering>) -> Result<(), Failure> {
        let mut writing = self.writing.lock();
        if writing.closed {
            return Err(Failure::ShuttingDown);
        }
        registering.check()?;
        let next = self.models.load().with(version)?;
        self.models.store(Arc::new(next));
        writing.registering.retain(|other| !Arc::ptr_eq(other, registering));
        Ok(())
    }

    /// Takes back what was published.
    async fn withdraw(&self, version: &Arc<ModelVersion>) {
        {
            let _writing = self.writing.lock();
            let next = self.models.load().without_failed(version);
            self.models.store(Arc::new(next));
        }
        // Failure to stop in time is logged by the pool's owner tasks; there is nobody else to tell.
        let _ = self.end(version).await;
    }
}

impl Way {
    /// Finds, fetches, unpacks and reads.
    pub(super) async fn prepare(&self) -> Result<Prepared, Failure> {
        let trust = self.trust;
        let found = self.blocking(move |registry, _, given| registry.store.locate(&given.url, trust)).await?;
        let source = match found {
            Found::Folder(path) => Source::Folder(path),
            Found::Archive(path) => Source::Archive { path, download: None },
            Found::Elsewhere { address, store } => {
                let download = self.fetch(&address, &store).await?;
                Source::Archive { path: download.path().to_owned(), download: Some(download) }
            }
        };
        self.blocking(move |registry, registering, given| {
            prepare(registry, registering, given, trust, source)
        })
        .await
    }

    async fn fetch(&self, address: &Address, store: &Path) -> Result<Download, Failure> {
        let (trust, s3_sse_kms) = (self.trust, self.registration.s3_sse_kms);
        let order = Order { address, store, trust, s3_sse_kms, registering: &self.entry.registering };
        self.entry.registry.fetcher.fetch(&order).await
    }

    /// On a thread that may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Registry, &Registering, &Registration) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let registry = self.entry.registry.clone();
        let registering = self.entry.registering.clone();
        let registration = self.registration.clone();
        let running = tokio::task::spawn_blocking(move || work(&registry, &registering, &registration));
        running.await.unwrap_or_else(|error| Err(lost(&error)))
    }

    /// Lets readers see the version; with the bounds of the workers to start.
    pub(super) async fn publish(&self, prepared: Prepared) -> Result<(Arc<ModelVersion>, u32, u32), Failure> {
        let (min, max) = self.workers(&prepared);
        let version = self.version(prepared);
        if let Err(failure) = self.entry.registry.publish(&version, &self.entry.registering) {
            version.remove_files().await;
            return Err(failure);
        }
        let (model, number) = (&version.name, &version.version);
        info!(%model, version = %number, url = %loggable(&version.url), workers = min, "registered");
        Ok((version, min, max))
    }

    /// Starts the workers of a client's model.
    async fn staff(self, version: Arc<ModelVersion>, min: u32, max: u32) -> Result<Registered, Failure> {
        let registry = &self.entry.registry;
        let (model, number) = (version.name.clone(), version.version.clone());
        if max == 0 {
            return Ok(Registered::WithoutWorkers { model, version: number });
        }
        if !self.registration.synchronous {
            version.pool.start_scaling(min, max);
            return Ok(Registered::Processing);
        }
        match version.pool.scale(min, max).await {
            _ if !registry.models.load().holds(&version) => Err(self.entry.registering.failure()),
            Scaled::Done { .. } => Ok(Registered::Ready { model, version: number, workers: min }),
            Scaled::NoDevices => {
                registry.withdraw(&version).await;
                Err(Failure::NoDevices { model, version: number })
            }
            // Somebody scaled it in the meantime, so it is wanted.
            Scaled::Superseded => Ok(Registered::Processing),
            Scaled::Failed { memory, reason } => {
                warn!(model = %model, version = %number, "failed to start workers, unregistering: {reason}");
                registry.withdraw(&version).await;
                Err(Failure::WorkersFailed { model, version: Some(number), memory })
            }
        }
    }

    /// The bounds of the workers to start.
    fn workers(&self, prepared: &Prepared) -> (u32, u32) {
        let configured = self.entry.registry.config.default_workers_per_model;
        let count = match self.trust {
            Trust::Client => self.registration.initial_workers.or(configured).unwrap_or(0),
            // TorchServe's 0 means that the server decides.
            Trust::Operator => configured.filter(|count| *count > 0).unwrap_or(1),
        };
        prepared.loaded.workers.unwrap_or((count, count))
    }

    fn version(&self, prepared: Prepared) -> Arc<ModelVersion> {
        let spec = Arc::new(prepared.loaded.spec);
        Arc::new(ModelVersion {
            name: spec.name.clone(),
            version: spec.version.clone(),
            url: self.registration.url.clone(),
            pool: Pool::new(spec.clone(), self.entry.registry.context.clone()),
            spec,
            loaded_at_startup: self.trust == Trust::Operator,
            files: Mutex::new(prepared.files),
        })
    }
}

/// Gives an archive a folder and reads what it says. Blocks.
fn prepare(
    registry: &Registry,
    registering: &Registering,
    registration: &Registration,
    trust: Trust,
    source: Source,
) -> Result<Prepared, Failure> {
    registering.unpacking.store(true, Ordering::Relaxed);
    let (root, files) = match source {
        Source::Folder(path) => {
            let root = model_root(&path).map_err(|error| unreadable(&registration.url, &path, &error))?;
            (root, Files::default())
        }
        Source::Archive { path, download } => {
            let own = unpack(registry, registering, registration, &path)?;
            (own.path().to_owned(), Files { own: Some(own), download })
        }
    };
    // Only a model that the operator named may go without any name of its own.
    let fallback = (trust == Trust::Operator).then(|| registering.guess.as_str());
    let loaded = load::load(&root, registration, fallback, &registry.config)?;
    let _ = registering.identity.set((loaded.spec.name.clone(), loaded.spec.version.clone()));
    registering.check()?;
    Ok(Prepared { loaded, files })
}

fn unpack(
    registry: &Registry,
    registering: &Registering,
    registration: &Registration,
    archive: &Path,
) -> Result<PrivateDir, Failure> {
    let refused = |error: CacheError| refuse(error, registering);
    let given = registration.model_name.as_deref();
    if let Some(manifest) = peek(archive).map_err(|error| refused(error.into()))? {
        refuse_known(registry, given, &manifest)?;
        let model = manifest.name_or(given).unwrap_or(registering.guess.as_str());
        let _ = registering.identity.set((model.into(), manifest.model.version().into()));
    }
    registry.cache.materialise(registering.model().as_str(), archive, registering).map_err(refused)
}

/// The manifest before anything is unpacked, where that is quick.
fn peek(archive: &Path) -> Result<Option<Manifest>, ReadError> {
    let archive = Archive::open(archive, Limits::default())?;
    if archive.form() == Form::Zip { archive.manifest() } else { Ok(None) }
}

/// What would be refused in the end needn't be unpacked.
fn refuse_known(registry: &Registry, given: Option<&str>, manifest: &Manifest) -> Result<(), Failure> {
    let Ok(model) = manifest.name_or(given) else { return Ok(()) };
    match registry.models.load().resolve(model, Some(manifest.model.version())) {
        Ok(version) => Err(version.exists()),
        Err(_) => Ok(()),
    }
}

/// What a client is told of an archive that can't be unpacked.
fn refuse(error: CacheError, registering: &Registering) -> Failure {
    let url = &registering.url;
    match error {
        CacheError::Archive(ReadError::Cancelled { .. }) => registering.failure(),
        CacheError::Archive(ReadError::Manifest { source, path }) => load::refuse_manifest(&source, &path),
        CacheError::Archive(ReadError::Io { .. } | ReadError::NoSpace { .. }) | CacheError::Io { .. } => {
            warn!(url = %loggable(url), "failed to unpack: {error}");
            Failure::SaveFailed { url: url.clone(), why: error.to_string() }
        }
        error => Failure::InvalidArchive { message: error.to_string() },
    }
}

fn unreadable(url: &str, path: &Path, error: &std::io::Error) -> Failure {
    let why = format!("can't list {}: {error}", path.display());
    warn!(url, "failed to read: {why}");
    Failure::SaveFailed { url: url.to_owned(), why }
}

/// A task of ours that panicked; the panic itself has been reported.
pub(super) fn lost(error: &tokio::task::JoinError) -> Failure {
    Failure::Internal { message: format!("A task of the registry failed: {error}") }
}
