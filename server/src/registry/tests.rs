//! The registry with archives on disk and no workers.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::fixture::{Place, archive, context, manifest};
use super::*;
use crate::config::{StartupModel, StartupModels};
use crate::name::{ModelName, Version};
use crate::worker::pool::Pool;

fn without_workers(model: &str, version: &str) -> Result<Registered, Failure> {
    Ok(Registered::WithoutWorkers { model: model.into(), version: version.into() })
}

fn not_found(model: &str) -> Failure {
    Failure::ModelNotFound { model: model.to_owned() }
}

fn exists(model: &str, version: &str) -> Failure {
    Failure::VersionExists { model: model.into(), version: version.into() }
}

fn default_of(registry: &Registry, model: &str) -> String {
    registry.resolve(model, None).unwrap().version.to_string()
}

fn versions(registry: &Registry, model: &str) -> Vec<String> {
    let all = registry.versions(model, Which::All).unwrap();
    all.iter().map(|version| version.version.to_string()).collect()
}

#[tokio::test]
async fn versions_defaults_and_unregistering_follow_torchserve() {
    let place = Place::new();
    place.mar("one.mar", "m", "1.0");
    place.mar("two.mar", "m", "2.0");
    place.mar("other.mar", "another", "1.0");
    let registry = place.registry();
    assert_eq!(registry.resolve("m", None).unwrap_err(), not_found("m"));
    assert_eq!(registry.add("one.mar").await, without_workers("m", "1.0"));
    assert_eq!(registry.add("two.mar").await, without_workers("m", "2.0"));
    assert_eq!(registry.add("other.mar").await, without_workers("another", "1.0"));
    assert_eq!(registry.add("one.mar").await, Err(exists("m", "1.0")));

    let listed: Vec<_> =
        registry.list().iter().map(|version| (version.name.to_string(), version.url.clone())).collect();
    assert_eq!(listed, [("another".into(), "other.mar".into()), ("m".to_owned(), "one.mar".to_owned())]);
    assert_eq!(
        (default_of(&registry, "m"), versions(&registry, "m")),
        ("1.0".into(), vec!["1.0".into(), "2.0".into()])
    );
    assert_eq!(registry.versions("m", Which::Named("2.0")).unwrap()[0].url, "two.mar");
    assert_eq!(registry.versions("m", Which::Default).unwrap()[0].url, "one.mar");
    let missing = Failure::VersionNotFound { model: "m".into(), version: "3".into() };
    assert_eq!(registry.resolve("m", Some("3")).unwrap_err(), missing);
    assert_eq!(registry.unregister("m", Some("3")).await, Err(missing));
    assert_eq!(registry.unregister("no", None).await, Err(not_found("no")));

    let no_default = Failure::DefaultNotFound { model: "m".into(), version: "3".into() };
    assert_eq!(registry.set_default("m", "3"), Err(no_default));
    assert_eq!(registry.set_default("no", "1.0"), Err(not_found("no")));
    assert_eq!(registry.set_default("m", "1.0"), Ok(()));
    assert_eq!(registry.set_default("m", "2.0"), Ok(()));
    assert_eq!(default_of(&registry, "m"), "2.0");

    let in_use = Failure::DefaultInUse { model: "m".into() };
    assert_eq!(registry.unregister("m", None).await, Err(in_use.clone()));
    assert_eq!(registry.unregister("m", Some("2.0")).await, Err(in_use));
    assert_eq!(registry.unregister("m", Some("1.0")).await, Ok(()));
    assert_eq!(registry.unregister("m", None).await, Ok(()));
    assert_eq!(registry.resolve("m", None).unwrap_err(), not_found("m"));
    assert_eq!(registry.list().len(), 1);
    assert_eq!(registry.add("two.mar").await, without_workers("m", "2.0"));
}

#[tokio::test]
async fn a_registered_model_has_a_folder_which_goes_with_it() {
    let place = Place::new();
    place.mar("m.mar", "m", "1.0");
    let registry = place.registry();
    registry.add("m.mar").await.unwrap();
    let version = registry.resolve("m", None).unwrap();
    assert_eq!(place.private_dirs(), std::slice::from_ref(&version.spec.dir));
    assert!(version.spec.dir.join("handler.py").is_file());
    assert_eq!((version.loaded_at_startup, version.state()), (false, VersionState::Ready));
    registry.unregister("m", None).await.unwrap();
    // Although somebody still holds the version.
    assert_eq!(place.private_dirs(), Vec::<std::path::PathBuf>::new());
    assert!(place.store().join("m.mar").exists());
    drop(version);
}

#[tokio::test]
async fn folders_are_used_in_place_and_a_lone_folder_is_entered() {
    let place = Place::new();
    let inner = place.store().join("folder/inner");
    fs::create_dir_all(inner.join("MAR-INF")).unwrap();
    fs::write(inner.join("MAR-INF/MANIFEST.json"), manifest("f", "7")).unwrap();
    let registry = place.registry();
    assert_eq!(registry.add("folder").await, without_workers("f", "7"));
    assert_eq!(registry.resolve("f", None).unwrap().spec.dir, inner);
    registry.unregister("f", None).await.unwrap();
    assert!(inner.join("MAR-INF/MANIFEST.json").exists());
}

#[tokio::test]
async fn a_failed_registration_leaves_nothing() {
    let place = Place::new();
    let store = place.store();
    fs::write(store.join("garbage.mar"), "no archive at all").unwrap();
    fs::write(store.join("tiny.mar"), "PK\x03\x04").unwrap();
    archive(&store.join("escape.mar"), &[("../x", "")]);
    archive(&store.join("nameless.mar"), &[("handler.py", "")]);
    archive(
        &store.join("lsp.mar"),
        &[(zoo_archiver::MANIFEST, &manifest("l", "1").replace("python", "LSP"))],
    );
    archive(&store.join("json.mar"), &[(zoo_archiver::MANIFEST, "{")]);
    let registry = place.registry();
    let cases = [
        ("garbage.mar", "is no archive"),
        ("tiny.mar", "is it cut off?"),
        ("escape.mar", "\"../x\" is refused"),
        ("nameless.mar", "Model name is not defined."),
        ("lsp.mar", "Runtime LSP"),
        ("json.mar", "Failed to parse signature.json."),
        ("missing.mar", "Model not found at: missing.mar"),
        ("", "empty url"),
    ];
    for (url, expected) in cases {
        let failure = registry.add(url).await.unwrap_err();
        assert!(failure.to_string().contains(expected), "{url}: {failure}");
        let status = failure.row().status.as_u16();
        assert!(matches!(status, 400 | 404), "{url}: {status}");
    }
    assert_eq!(registry.list().len(), 0);
    assert_eq!(place.private_dirs(), Vec::<std::path::PathBuf>::new());
    assert!(registry.writing.lock().registering.is_empty());
    // What was found to be an archive stays unpacked; half of one never does.
    assert!(place.trees().iter().all(|tree| !tree.to_string_lossy().contains("unpack")));
}

#[tokio::test]
async fn workers_that_fail_to_start_take_the_registration_with_them() {
    let place = Place::new();
    place.mar("m.mar", "m", "1.0");
    let registry = place.registry();
    let with_worker =
        |synchronous| Registration { initial_workers: Some(1), synchronous, ..Registration::of("m.mar") };
    let failed = |version: Option<&str>| Failure::WorkersFailed {
        model: "m".into(),
        version: version.map(Version::from),
        memory: false,
    };
    assert_eq!(registry.register(with_worker(true)).await, Err(failed(Some("1.0"))));
    assert_eq!(registry.resolve("m", None).unwrap_err(), not_found("m"));
    assert_eq!(place.private_dirs(), Vec::<std::path::PathBuf>::new());

    // Nobody waits, so it stays, and shows what it lacks.
    assert_eq!(registry.register(with_worker(false)).await, Ok(Registered::Processing));
    let version = registry.resolve("m", None).unwrap();
    let scaling = Scaling { min: Some(1), max: None, synchronous: true };
    assert_eq!(registry.scale("m", None, scaling).await, Err(failed(None)));
    assert_eq!(registry.scale("m", Some("1.0"), scaling).await, Err(failed(Some("1.0"))));
    assert!(registry.resolve("m", None).is_ok());
    let shortage = version.shortage().unwrap();
    assert_eq!((shortage.ready, shortage.wanted), (0, 1));
    assert!(shortage.last_failure.is_some_and(|reason| reason.contains("/nonexistent/python")));

    let none = Scaling { min: Some(0), max: None, synchronous: true };
    assert_eq!(registry.scale("m", None, none).await, Ok(ScaleReport::Done { workers: 0 }));
    assert_eq!(version.state(), VersionState::Ready);
    let processing = registry.scale("m", None, Scaling { synchronous: false, ..none }).await;
    assert_eq!(processing, Ok(ScaleReport::Processing));
    assert_eq!(registry.scale("no", None, none).await, Err(not_found("no")));
    let bounds = Scaling { min: Some(2), max: Some(1), synchronous: false };
    assert_eq!(registry.scale("m", None, bounds).await, Err(Failure::WorkerBounds));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_register_the_same_version_one_wins() {
    let place = Place::new();
    place.mar("m.mar", "m", "1.0");
    let registry = place.registry();
    let mut running = JoinSet::new();
    for _ in 0..8 {
        let registry = registry.clone();
        running.spawn(async move { registry.add("m.mar").await });
    }
    let outcomes = running.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert!(
        outcomes
            .iter()
            .filter_map(|outcome| outcome.as_ref().err())
            .all(|failure| *failure == exists("m", "1.0"))
    );
    assert_eq!((place.private_dirs().len(), place.trees().len()), (1, 1));
}

/// A registration that waits on the blocking thread until its archive is let go: the archive is a pipe that
/// nobody writes to.
struct Stuck {
    path: std::path::PathBuf,
}

impl Stuck {
    fn new(place: &Place, file: &str) -> Self {
        let path = place.store().join(file);
        fs::create_dir(&path).unwrap();
        fs::create_dir(path.join("MAR-INF")).unwrap();
        let pipe = path.join("MAR-INF/MANIFEST.json");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        Self { path }
    }

    /// Lets it go on with this manifest.
    async fn go_on(&self, manifest: String) {
        let pipe = self.path.join("MAR-INF/MANIFEST.json");
        tokio::task::spawn_blocking(move || fs::write(pipe, manifest)).await.unwrap().unwrap();
    }
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the condition didn't come true");
}

#[tokio::test]
async fn a_registration_can_be_seen_before_it_is_finished_and_goes_on_without_its_client() {
    let place = Place::new();
    let stuck = Stuck::new(&place, "slow");
    let registry = place.registry();
    let client = tokio::spawn({
        let registry = registry.clone();
        async move { registry.add("slow").await }
    });
    until(|| !registry.registering("slow").is_empty()).await;
    let seen = registry.registering("slow").remove(0);
    until(|| seen.state() == VersionState::Unpacking).await;
    assert_eq!((seen.model().as_str(), seen.version()), ("slow", None));
    assert_eq!(registry.resolve("slow", None).unwrap_err(), not_found("slow"));
    assert!(registry.list().is_empty());

    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    stuck.go_on(manifest("slow", "3")).await;
    until(|| registry.resolve("slow", Some("3")).is_ok()).await;
    seen.finished().await;
    assert_eq!(seen.version().map(Version::as_str), Some("3"));
    assert!(registry.registering("slow").is_empty());
}

#[tokio::test]
async fn a_delete_calls_a_registration_off() {
    let place = Place::new();
    let stuck = Stuck::new(&place, "slow");
    let registry = place.registry();
    let client = tokio::spawn({
        let registry = registry.clone();
        async move { registry.add("slow").await }
    });
    until(|| !registry.registering("slow").is_empty()).await;
    // It isn't known yet which version it will be.
    assert_eq!(registry.unregister("slow", Some("9")).await, Err(not_found("slow")));
    let deleting = tokio::spawn({
        let registry = registry.clone();
        async move { registry.unregister("slow", None).await }
    });
    let seen = registry.registering("slow").remove(0);
    until(|| seen.check().is_err()).await;
    stuck.go_on(manifest("slow", "3")).await;
    assert_eq!(deleting.await.unwrap(), Ok(()));
    let cancelled = Failure::RegistrationCancelled { model: "slow".into() };
    assert_eq!(client.await.unwrap(), Err(cancelled));
    assert_eq!(registry.resolve("slow", None).unwrap_err(), not_found("slow"));
    assert!(registry.registering("slow").is_empty());
}

#[tokio::test]
async fn shutdown_calls_registrations_off_and_lets_no_new_ones_in() {
    let place = Place::new();
    place.mar("m.mar", "m", "1.0");
    let stuck = Stuck::new(&place, "slow");
    let registry = place.registry();
    registry.add("m.mar").await.unwrap();
    let client = tokio::spawn({
        let registry = registry.clone();
        async move { registry.add("slow").await }
    });
    until(|| !registry.registering("slow").is_empty()).await;
    let seen = registry.registering("slow").remove(0);
    let stopping = tokio::spawn({
        let registry = registry.clone();
        async move { registry.shutdown(Duration::from_secs(20)).await }
    });
    until(|| seen.check().is_err()).await;
    stuck.go_on(manifest("slow", "3")).await;
    stopping.await.unwrap();
    assert!(client.await.unwrap().is_err());
    assert_eq!(registry.add("m.mar").await, Err(Failure::ShuttingDown));
    assert_eq!(place.private_dirs(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn the_models_of_the_start_are_registered_in_order_and_failures_dont_stop_the_others() {
    let mut place = Place::new();
    place.mar("two.mar", "m", "2.0");
    place.mar("one.mar", "m", "1.0");
    archive(&place.store().join("bare file.mar"), &[("handler.py", "")]);
    let outside = place.path().join("outside");
    fs::create_dir_all(outside.join("MAR-INF")).unwrap();
    fs::write(outside.join("MAR-INF/MANIFEST.json"), manifest("o", "1")).unwrap();
    let listed = |name: Option<&str>, location: &str| StartupModel {
        name: name.map(str::to_owned),
        location: location.to_owned(),
    };
    place.config.models = StartupModels::Listed(vec![
        listed(None, "two.mar"),
        listed(Some("gone"), "gone.mar"),
        listed(None, "one.mar"),
        listed(None, "bare file.mar"),
        listed(Some("named"), "one.mar"),
        listed(None, outside.to_str().unwrap()),
    ]);
    let registry = place.registry();
    assert!(!registry.readiness().is_ready() && registry.ping());
    registry.load_at_startup().await;

    let names: Vec<_> = registry.list().iter().map(|version| version.name.to_string()).collect();
    assert_eq!(names, ["bare_file", "m", "named", "o"]);
    assert_eq!(
        (default_of(&registry, "m"), versions(&registry, "m")),
        ("2.0".into(), vec!["2.0".into(), "1.0".into()])
    );
    let version = registry.resolve("m", None).unwrap();
    assert_eq!((version.pool.bounds(), version.loaded_at_startup), ((1, 1), true));

    let missing = registry.readiness().missing;
    let gone = missing.iter().find(|missing| missing.model == "gone").unwrap();
    assert_eq!(gone.reason, "failed to load: Model not found at: gone.mar");
    let short = missing.iter().find(|missing| missing.version == Some("2.0".into())).unwrap();
    assert!(short.reason.starts_with("0 of 1 workers are ready"), "{}", short.reason);

    // What nobody wants any more isn't waited for, and what was registered by hand counts.
    for model in ["bare_file", "named", "o"] {
        registry.unregister(model, None).await.unwrap();
    }
    registry.unregister("m", Some("1.0")).await.unwrap();
    registry.unregister("m", None).await.unwrap();
    let left: Vec<_> = registry.readiness().missing.into_iter().map(|missing| missing.model).collect();
    assert_eq!(left, ["gone"]);
    let by_hand = Registration { model_name: Some("gone".into()), ..Registration::of("one.mar") };
    registry.register(by_hand).await.unwrap();
    assert!(registry.readiness().is_ready());
    // Reached once, it stays.
    registry.unregister("gone", None).await.unwrap();
    assert!(registry.readiness().is_ready());
}

#[tokio::test]
async fn all_models_of_the_store_are_registered() {
    let mut place = Place::new();
    place.mar("b.mar", "b", "1");
    place.mar("a.mar", "a", "1");
    fs::write(place.store().join("notes.txt"), "").unwrap();
    place.config.models = StartupModels::All;
    let registry = place.registry();
    assert_eq!(registry.readiness().missing[0].model, "all of the model store");
    registry.load_at_startup().await;
    let names: Vec<_> = registry.list().iter().map(|version| version.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn ping_looks_at_the_default_versions_workers() {
    let mut place = Place::new();
    place.config.default_startup_timeout = Duration::from_secs(1);
    let file = place.store().join("m.mar");
    let text = r#"{"runtime": "python", "model": {"modelName": "m", "configFile": "c.yaml"}}"#;
    let yaml = "maxRetryTimeoutInSec: 1\nminWorkers: 1\n";
    archive(&file, &[(zoo_archiver::MANIFEST, text), ("c.yaml", yaml)]);
    let registry = place.registry();
    assert!(registry.ping());
    let registration = Registration { synchronous: false, ..Registration::of("m.mar") };
    assert_eq!(registry.register(registration).await, Ok(Registered::Processing));
    until(|| !registry.ping()).await;
    assert_eq!(registry.resolve("m", None).unwrap().state(), VersionState::Failed);
    registry.unregister("m", None).await.unwrap();
    assert!(registry.ping());
}

#[tokio::test]
async fn an_unwritable_cache_is_named() {
    let mut place = Place::new();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    place.config.cache_dir = file.join("cache");
    let error = Registry::new(Arc::new(place.config.clone()), context()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("can't create {}", place.config.cache_dir.display())));
}

/// A version that exists in a snapshot only.
fn version(
    context: &Arc<WorkerContext>,
    place: &Place,
    model: &ModelName,
    version: &Version,
) -> Arc<ModelVersion> {
    let registration = Registration { model_name: Some(model.to_string()), ..Registration::of("x") };
    let mut spec = load::load(place.path(), &registration, None, &place.config).unwrap().spec;
    spec.version = version.clone();
    let spec = Arc::new(spec);
    Arc::new(ModelVersion {
        name: model.clone(),
        version: version.clone(),
        url: String::new(),
        pool: Pool::new(spec.clone(), context.clone()),
        spec,
        loaded_at_startup: false,
        files: Mutex::default(),
    })
}

/// The same small generator as elsewhere: xorshift.
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state % 1_000_003) as usize
}

#[tokio::test]
async fn readers_never_see_a_default_that_doesnt_exist() {
    let place = Place::new();
    let context = context();
    let models: Vec<ModelName> = ["a", "b"].map(ModelName::from).into();
    let numbers: Vec<Version> = ["1", "2", "3"].map(Version::from).into();
    let shown = Arc::new(ArcSwap::new(Arc::new(Snapshot::default())));
    let done = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (shown, done) = (shown.clone(), done.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                check(&shown.load());
            }
        }
    });
    for seed in 1..=20_u64 {
        let mut random = seed;
        let mut snapshot = Snapshot::default();
        // What the walk believes: the versions of each model, the default one first.
        let mut believed: HashMap<ModelName, Vec<Version>> = HashMap::new();
        for step in 0..300 {
            let model = &models[next(&mut random) % models.len()];
            let number = &numbers[next(&mut random) % numbers.len()];
            let list = believed.entry(model.clone()).or_default();
            let at = list.iter().position(|known| known == number);
            let changed = match next(&mut random) % 4 {
                0 => {
                    let changed = snapshot.with(&version(&context, &place, model, number));
                    assert_eq!(changed.is_ok(), at.is_none(), "seed {seed}, step {step}");
                    if at.is_none() {
                        list.push(number.clone());
                    }
                    changed
                }
                1 => {
                    let changed = snapshot.with_default(model.as_str(), number.as_str());
                    assert_eq!(changed.is_ok(), at.is_some(), "seed {seed}, step {step}");
                    if let Some(at) = at {
                        list.swap(0, at);
                    }
                    changed
                }
                2 => {
                    let changed = snapshot.without(model.as_str(), Some(number.as_str()));
                    let allowed = at.is_some_and(|at| at > 0 || list.len() == 1);
                    assert_eq!(changed.is_ok(), allowed, "seed {seed}, step {step}");
                    if let Some(at) = at.filter(|_| allowed) {
                        list.remove(at);
                    }
                    changed.map(|(next, _)| next)
                }
                _ => match snapshot.resolve(model.as_str(), Some(number.as_str())) {
                    Ok(failed) => {
                        list.retain(|known| known != number);
                        Ok(snapshot.without_failed(failed))
                    }
                    Err(failure) => Err(failure),
                },
            };
            if let Ok(next) = changed {
                check(&next);
                shown.store(Arc::new(next.clone()));
                snapshot = next;
            }
            for model in &models {
                let list = &believed.get(model).cloned().unwrap_or_default();
                let seen = snapshot.versions(model.as_str(), Which::All).unwrap_or_default();
                let seen: Vec<_> = seen.iter().map(|version| version.version.clone()).collect();
                assert_eq!(&seen, list, "seed {seed}, step {step}");
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    reader.join().unwrap();
}

/// What holds of each snapshot.
fn check(snapshot: &Snapshot) {
    for default in snapshot.defaults() {
        assert!(snapshot.holds(default));
        let all = snapshot.versions(default.name.as_str(), Which::All).unwrap();
        assert!(Arc::ptr_eq(&all[0], default) && all.iter().all(|version| version.name == default.name));
        let unique: std::collections::HashSet<_> = all.iter().map(|version| &version.version).collect();
        assert_eq!(unique.len(), all.len());
    }
}
