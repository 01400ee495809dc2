//! The model that a handler serves, and what surrounds it.

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use zoo_proto::wire::start::Load;

use crate::error::LoadError;
use crate::metrics::Metrics;

/// What the server says about the model, and where the handler reports to. Cloning it is cheap: a handler may keep one.
#[derive(Debug, Clone)]
pub struct Context {
    load: Arc<Load>,
    metrics: Arc<Metrics>,
}

impl Context {
    pub(crate) fn new(load: Load) -> Self {
        let metrics = Arc::new(Metrics::new(&load.model.name));
        Self { load: Arc::new(load), metrics }
    }

    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    /// The model's name.
    pub fn model_name(&self) -> &str {
        &self.load.model.name
    }

    /// The model's version.
    pub fn model_version(&self) -> &str {
        &self.load.model.version
    }

    /// The folder with the files of the archive.
    pub fn model_dir(&self) -> &Path {
        Path::new(&self.load.model.dir)
    }

    /// `MAR-INF/MANIFEST.json`.
    pub fn manifest(&self) -> &Value {
        &self.load.model.manifest
    }

    /// `model-config.yaml`, the server's keys and the handler's own.
    pub fn config(&self) -> &Map<String, Value> {
        &self.load.model.config
    }

    /// The value of one key of `model-config.yaml`; `None` if it isn't there.
    pub fn setting<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, LoadError> {
        let read = |value: &Value| {
            T::deserialize(value)
                .map_err(|error| LoadError::invalid(format!("model-config.yaml: {key}: {error}")))
        };
        self.config().get(key).map(read).transpose()
    }

    /// The most requests that one batch holds.
    pub fn batch_size(&self) -> usize {
        self.load.batch_size as usize
    }

    /// The number of the GPU that this worker should use, if any.
    pub fn gpu(&self) -> Option<u32> {
        self.load.gpu
    }

    /// The name of this worker, as it appears in logs.
    pub fn worker(&self) -> &str {
        &self.load.worker
    }

    /// Where to report metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
