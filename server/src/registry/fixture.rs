//! What the registry's tests share: a place with a model store, a registry on top of it, and archives to put
//! there. Workers can't be started, because there is no Python; tests with workers are in `server/tests`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::fetch::{Lookup, Outside};
use super::{Registered, Registration, Registry};
use crate::config::{Args, Config, resolve};
use crate::failure::Failure;
use crate::worker::context::{WorkerContext, WorkerSettings};
use crate::worker::launch::Shim;
use crate::worker::log::ModelLog;

/// The settings of a server that was started without flags, with a cache that doesn't exist.
pub(super) fn config() -> Config {
    let args = Args { cache_dir: Some("/nonexistent".into()), ..Args::default() };
    resolve(args, |_| None).unwrap()
}

/// Ready for pools, but not for workers.
pub(super) fn context() -> Arc<WorkerContext> {
    let settings = WorkerSettings {
        shim: Shim::default(),
        python: Some(("/nonexistent/python".into(), "a test".into())),
        command: None,
        variables: Default::default(),
        dir: "/".into(),
        sdk: "/nonexistent".into(),
        first_id: 9000,
        gpus: 0,
        max_response_bytes: 1 << 20,
        decode_input: true,
        limit_max_image_pixels: true,
        blacklist: None,
        lines: Arc::new(ModelLog::default()),
        sink: Arc::new(ModelLog::default()),
        metrics: Arc::default(),
    };
    WorkerContext::start(settings).unwrap()
}

pub(super) struct Place {
    dir: TempDir,
    pub(super) config: Config,
}

impl Place {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config();
        config.cache_dir = dir.path().join("cache");
        config.model_store = Some(dir.path().join("store"));
        fs::create_dir(dir.path().join("store")).unwrap();
        Self { dir, config }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Registry::new(Arc::new(self.config.clone()), context()).unwrap()
    }

    /// A registry to which the names of machines mean this, and which tries again at once.
    pub(super) fn registry_that_knows(
        &self,
        names: &'static [(&'static str, &'static str)],
    ) -> Arc<Registry> {
        self.registry_outside(Lookup::fixed(names))
    }

    pub(super) fn registry_outside(&self, lookup: Lookup) -> Arc<Registry> {
        let outside = Outside { lookup, pause: Duration::from_millis(1) };
        Registry::open(Arc::new(self.config.clone()), context(), outside).unwrap()
    }

    /// All that is in the store, hidden files too.
    pub(super) fn stored(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Puts a `.mar` into the store.
    pub(super) fn mar(&self, file: &str, model: &str, version: &str) -> PathBuf {
        let path = self.store().join(file);
        archive(&path, &[("MAR-INF/MANIFEST.json", &manifest(model, version)), ("handler.py", "")]);
        path
    }

    /// What is in the folder for the models' own folders.
    pub(super) fn private_dirs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.config.cache_dir.join("run")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// What is in the folder of unpacked archives.
    pub(super) fn trees(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.config.cache_dir.join("archives")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

pub(super) fn manifest(model: &str, version: &str) -> String {
    let model = json!({"modelName": model, "modelVersion": version, "handler": "handler.py"});
    json!({"runtime": "python", "model": model}).to_string()
}

/// Writes an archive.
pub(super) fn archive(path: &Path, files: &[(&str, &str)]) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, text) in files {
        zip.start_file(*name, stored).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap();
}

impl Registry {
    pub(super) async fn add(self: &Arc<Self>, url: &str) -> Result<Registered, Failure> {
        self.register(Registration::of(url)).await
    }
}

/// A small generator for reproducible tests: xorshift.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % 1_000_003) as usize % bound
    }
}
