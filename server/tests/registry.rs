//! The registry with real worker processes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on should stop")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Bench, body, request};
use serde_json::json;
use zoo_server::config::{Args, StartupModel, StartupModels, resolve};
use zoo_server::failure::{Failure, Unavailable};
use zoo_server::name::ModelRef;
use zoo_server::registry::{Registered, Registration, Registry, ScaleReport, Scaling, VersionState};

/// A handler that says its model's version, and takes its time to load where its folder says so.
const HANDLER: &str = r"
import os, time

class Handler:
    def initialize(self, context):
        folder = context.system_properties['model_dir']
        while os.path.exists(os.path.join(folder, 'wait')):
            time.sleep(0.01)
        if os.path.exists(os.path.join(folder, 'fail')):
            raise ValueError('no weights here')
        self.version = context.manifest['model']['modelVersion']

    def handle(self, data, context):
        return [self.version for _ in data]
";

struct Place {
    bench: Bench,
    registry: Arc<Registry>,
}

impl Place {
    fn new(models: Vec<StartupModel>) -> Self {
        let bench = Bench::new();
        let store = bench.dir.path().join("store");
        std::fs::create_dir(&store).unwrap();
        for version in ["1", "2"] {
            model(&store.join(format!("m{version}")), version);
        }
        let path = |path: &Path| Some(path.to_str().unwrap().to_owned());
        let args = Args {
            cache_dir: path(&bench.dir.path().join("cache")),
            model_store: path(&store),
            ..Args::default()
        };
        let mut config = resolve(args, |_| None).unwrap();
        config.models = StartupModels::Listed(models);
        let registry = Registry::new(Arc::new(config), bench.context.clone()).unwrap();
        Self { bench, registry }
    }

    /// Makes the folder of a model say something to its handler.
    fn mark(&self, model: &str, mark: &str) -> std::path::PathBuf {
        let path = self.bench.dir.path().join("store").join(model).join(mark);
        std::fs::write(&path, "").unwrap();
        path
    }

    async fn register(&self, url: &str, synchronous: bool) -> Result<Registered, Failure> {
        let registration = Registration { initial_workers: Some(1), synchronous, ..Registration::of(url) };
        self.registry.register(registration).await
    }

    async fn predict(&self, version: Option<&str>) -> Result<String, Failure> {
        let found = self.registry.resolve("m", version)?;
        Ok(body(found.submit(request("x"), version.is_some())?.await?).await)
    }
}

fn model(dir: &Path, version: &str) {
    std::fs::create_dir_all(dir.join("MAR-INF")).unwrap();
    std::fs::write(dir.join("handler.py"), HANDLER).unwrap();
    let model = json!({"modelName": "m", "modelVersion": version, "handler": "handler.py"});
    let manifest = json!({"runtime": "python", "model": model});
    std::fs::write(dir.join("MAR-INF/MANIFEST.json"), manifest.to_string()).unwrap();
}

fn ready(version: &str) -> Registered {
    Registered::Ready { model: "m".into(), version: version.into(), workers: 1 }
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..4000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the condition didn't come true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_registration_to_prediction_and_back() {
    let place = Place::new(vec![]);
    assert_eq!(place.register("m1", true).await, Ok(ready("1")));
    assert_eq!(place.predict(None).await, Ok("1".to_owned()));
    let none = Registration::of("m2");
    let without = Registered::WithoutWorkers { model: "m".into(), version: "2".into() };
    assert_eq!(place.registry.register(none).await, Ok(without));
    let unavailable = Failure::Unavailable {
        model: ModelRef { model: "m".into(), version: Some("2".into()) },
        why: Unavailable::NoWorker,
    };
    assert_eq!(place.predict(Some("2")).await, Err(unavailable));
    let two = Scaling { min: Some(2), max: None, synchronous: true };
    assert_eq!(place.registry.scale("m", Some("2"), two).await, Ok(ScaleReport::Done { workers: 2 }));
    assert_eq!(place.predict(Some("2")).await, Ok("2".to_owned()));
    assert_eq!(place.predict(None).await, Ok("1".to_owned()));
    place.registry.set_default("m", "2").unwrap();
    assert_eq!(place.predict(None).await, Ok("2".to_owned()));
    let version = place.registry.resolve("m", None).unwrap();
    place.registry.unregister("m", Some("1")).await.unwrap();
    place.registry.unregister("m", None).await.unwrap();
    assert!(version.pool.workers().is_empty());
    assert_eq!(place.predict(None).await, Err(Failure::ModelNotFound { model: "m".into() }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_cant_load_takes_a_synchronous_registration_with_it() {
    let place = Place::new(vec![]);
    place.mark("m1", "fail");
    let failed = Failure::WorkersFailed { model: "m".into(), version: Some("1".into()), memory: false };
    assert_eq!(place.register("m1", true).await, Err(failed));
    assert_eq!(place.predict(None).await, Err(Failure::ModelNotFound { model: "m".into() }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_whose_workers_load_can_be_called_off_and_doesnt_come_back() {
    let place = Place::new(vec![]);
    let wait = place.mark("m1", "wait");
    let registry = place.registry.clone();
    let client = tokio::spawn(async move {
        let registration = Registration { initial_workers: Some(1), ..Registration::of("m1") };
        registry.register(registration).await
    });
    until(|| place.registry.resolve("m", None).is_ok_and(|version| !version.pool.workers().is_empty())).await;
    let version = place.registry.resolve("m", None).unwrap();
    assert_eq!(version.state(), VersionState::Loading);
    place.registry.unregister("m", None).await.unwrap();
    assert_eq!(client.await.unwrap(), Err(Failure::RegistrationCancelled { model: "m".into() }));
    std::fs::remove_file(wait).unwrap();
    version.pool.start_scaling(1, 1);
    assert!(version.pool.workers().is_empty());
    assert_eq!(place.register("m1", true).await, Ok(ready("1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scaling_that_another_one_overtakes_is_in_progress() {
    let place = Place::new(vec![]);
    place.register("m1", true).await.unwrap();
    let wait = place.mark("m1", "wait");
    let registry = place.registry.clone();
    let first = tokio::spawn(async move {
        let three = Scaling { min: Some(3), max: None, synchronous: true };
        registry.scale("m", None, three).await
    });
    let version = place.registry.resolve("m", None).unwrap();
    until(|| version.pool.bounds() == (3, 3)).await;
    let two = Scaling { min: Some(2), max: None, synchronous: false };
    assert_eq!(place.registry.scale("m", None, two).await, Ok(ScaleReport::Processing));
    until(|| version.pool.bounds() == (2, 2)).await;
    std::fs::remove_file(wait).unwrap();
    assert_eq!(first.await.unwrap(), Ok(ScaleReport::InProgress));
    until(|| version.state() == VersionState::Ready && version.pool.workers().len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_waits_for_the_models_of_the_start_and_stays() {
    let models = vec![StartupModel { name: None, location: "m1".into() }];
    let place = Place::new(models);
    let wait = place.mark("m1", "wait");
    place.registry.load_at_startup().await;
    assert_eq!(place.registry.readiness().missing[0].reason, "0 of 1 workers are ready");
    assert!(place.registry.ping());
    std::fs::remove_file(wait).unwrap();
    until(|| place.registry.readiness().is_ready()).await;
    assert!(place.registry.resolve("m", None).unwrap().loaded_at_startup);
    let none = Scaling { min: Some(0), max: None, synchronous: true };
    place.registry.scale("m", None, none).await.unwrap();
    assert!(place.registry.readiness().is_ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_ends_all_workers() {
    let place = Place::new(vec![]);
    place.register("m1", true).await.unwrap();
    place.register("m2", true).await.unwrap();
    let versions = ["1", "2"].map(|version| place.registry.resolve("m", Some(version)).unwrap());
    place.registry.shutdown(Duration::from_secs(10)).await;
    assert!(versions.iter().all(|version| version.pool.workers().is_empty()));
    assert_eq!(place.predict(None).await, Err(Failure::ShuttingDown));
    let late = Scaling { min: Some(1), max: None, synchronous: true };
    assert_eq!(place.registry.scale("m", None, late).await, Ok(ScaleReport::InProgress));
    assert!(versions[0].pool.workers().is_empty());
}
