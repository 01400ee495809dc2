//! A model version that is registered, and the folder that goes with it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::cache::PrivateDir;
use super::fetch::Download;
use crate::failure::Failure;
use crate::model::ModelSpec;
use crate::name::{ModelName, Version};
use crate::request::Request;
use crate::request::ticket::Pending;
use crate::worker::pool::Pool;
use crate::worker::state::WorkerState;

/// A version that can be predicted with, as soon as it has workers.
#[derive(Debug)]
pub struct ModelVersion {
    /// The model's name.
    pub name: ModelName,
    /// The version.
    pub version: Version,
    /// Where it was registered from, as the client wrote it.
    pub url: String,
    /// What is known of it.
    pub spec: Arc<ModelSpec>,
    /// Its workers.
    pub pool: Arc<Pool>,
    /// It was named when the server started.
    pub loaded_at_startup: bool,
    /// What was made for it.
    pub(super) files: Mutex<Files>,
}

/// What was made for a version, and goes with it.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Its folder; none for a model that is served from where it lies.
    pub(super) own: Option<PrivateDir>,
    /// Its archive in the model store, if it was fetched from elsewhere.
    pub(super) download: Option<Download>,
}

/// How far a registration has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// Its archive is being found.
    Fetching,
    /// Its archive is being unpacked.
    Unpacking,
    /// Workers that it wants aren't ready yet.
    Loading,
    /// It has its minimum of workers.
    Ready,
    /// It lacks workers, and one of them has failed for long or for good.
    Failed,
}

impl VersionState {
    /// As describe shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetching => "FETCHING",
            Self::Unpacking => "UNPACKING",
            Self::Loading => "LOADING",
            Self::Ready => "READY",
            Self::Failed => "FAILED",
        }
    }
}

/// What a version lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) ready: u32,
    pub(super) wanted: u32,
    /// Why, if a worker has failed for long or for good.
    pub(super) failed: bool,
    /// The last failure of any worker.
    pub(super) last_failure: Option<String>,
}

impl ModelVersion {
    /// Lets a request wait for a worker. `version_named`: the client named the version.
    pub fn submit(&self, request: Request, version_named: bool) -> Result<Pending, Failure> {
        self.pool.submit(request, version_named)
    }

    /// How far it has come.
    pub fn state(&self) -> VersionState {
        match self.shortage() {
            None => VersionState::Ready,
            Some(Shortage { failed: true, .. }) => VersionState::Failed,
            Some(_) => VersionState::Loading,
        }
    }

    /// Whether as many workers as wanted are well, in TorchServe's sense: loading counts, failing for long
    /// doesn't.
    pub(super) fn is_healthy(&self) -> bool {
        let healthy = self.pool.workers().iter().filter(|worker| worker.healthy).count();
        healthy >= self.pool.bounds().0 as usize
    }

    /// What it lacks, if anything.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        let workers = self.pool.workers();
        let (wanted, _) = self.pool.bounds();
        let ready = workers.iter().filter(|worker| worker.state == WorkerState::Ready).count();
        let ready = u32::try_from(ready).unwrap_or(u32::MAX);
        if ready >= wanted {
            return None;
        }
        let failed = workers.iter().any(|worker| !worker.healthy);
        let last_failure = workers.into_iter().find_map(|worker| worker.last_failure);
        Some(Shortage { ready, wanted, failed, last_failure })
    }

    /// That there is such a version already.
    pub(super) fn exists(&self) -> Failure {
        Failure::VersionExists { model: self.name.clone(), version: self.version.clone() }
    }

    /// Removes what was made for it.
    pub(super) async fn remove_files(&self) {
        let Files { own, download } = std::mem::take(&mut *self.files.lock());
        // Many files may take their time. Should the thread fail, it has reported why.
        let _ = tokio::task::spawn_blocking(move || drop((own, download))).await;
    }

    /// Removes what the next start makes again. What was fetched stays in the model store.
    pub(super) async fn leave_files(&self) {
        if let Some(download) = self.files.lock().download.take() {
            download.keep();
        }
        self.remove_files().await;
    }
}
