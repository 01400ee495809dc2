//! From a folder to a [`ModelSpec`]: reads the manifest and `model-config.yaml`, and refuses what can't be
//! served.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path};

use serde_json::{Map, Value, json};
use tracing::{debug, warn};
use zoo_archiver::{MANIFEST, Manifest, ManifestError};

use super::native;
use super::options;
use super::register::Registration;
use crate::config::Config;
use crate::failure::Failure;
use crate::model::{ModelSpec, Runtime};
use crate::yaml;

/// The longest manifest or configuration that is read.
const MAX_TEXT: u64 = 1 << 20;

/// A model that can be served.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) spec: ModelSpec,
    /// Least and most workers, if the archive says.
    pub(super) workers: Option<(u32, u32)>,
}

/// Reads the model in `dir`. `fallback` is its name if neither the registration nor the manifest has one.
pub(super) fn load(
    dir: &Path,
    given: &Registration,
    fallback: Option<&str>,
    config: &Config,
) -> Result<Loaded, Failure> {
    let (manifest, raw) = manifest(dir)?;
    let runtime = runtime(given.runtime.as_deref(), &manifest)?;
    let name = manifest.name_or(given.model_name.as_deref());
    let name = name.or_else(|error| fallback.ok_or_else(|| refuse_manifest(&error, dir)))?.to_owned();
    let keys = model_config(dir, &manifest)?;
    let settled = options::settle(&keys, given, config);
    let version = manifest.model.version().to_owned();
    for warning in &settled.warnings {
        warn!(
            model = name,
            version,
            "{}: {warning}",
            manifest.model.config_file.as_deref().unwrap_or_default()
        );
    }
    debug!(model = name, version, "{}", settled.origins.join(", "));
    let handler = given.handler.clone().filter(|handler| !handler.is_empty()).or(manifest.model.handler);
    if runtime == Runtime::Native {
        native::check(dir, handler.as_deref(), manifest.target.as_deref())
            .map_err(|message| Failure::InvalidArchive { message })?;
    }
    let spec = ModelSpec {
        manifest: raw.unwrap_or_else(
            || json!({"runtime": runtime.as_str(), "model": {"modelName": name, "modelVersion": version}}),
        ),
        name: name.into(),
        version: version.into(),
        dir: dir.to_owned(),
        runtime,
        handler: handler.or_else(|| config.default_service_handler.clone()),
        envelope: config.service_envelope.clone(),
        config: keys,
        options: settled.options,
    };
    Ok(Loaded { spec, workers: settled.workers })
}

/// What a client is told of a manifest that can't be used.
pub(super) fn refuse_manifest(error: &ManifestError, path: &Path) -> Failure {
    warn!("{}: {MANIFEST}: {}", path.display(), error.detail());
    Failure::InvalidArchive { message: error.to_string() }
}

/// The manifest, and its text as it stands there. One that is missing stands for the defaults.
fn manifest(dir: &Path) -> Result<(Manifest, Option<Value>), Failure> {
    let path = dir.join(MANIFEST);
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Manifest::default(), None)),
        Err(error) => {
            let reason = format!("can't be read: {error}");
            return Err(refuse_manifest(&ManifestError::NotJson { reason }, dir));
        }
    };
    let manifest = Manifest::from_json(&text).map_err(|error| refuse_manifest(&error, dir))?;
    let bare = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text);
    Ok((manifest, serde_json::from_slice(bare).ok()))
}

/// The runtime, if it is one that can be served.
fn runtime(given: Option<&str>, manifest: &Manifest) -> Result<Runtime, Failure> {
    let named = match given {
        Some(value) => value.parse().map_err(|_| Failure::InvalidRuntime { value: value.to_owned() })?,
        None => manifest.runtime,
    };
    let message = match named {
        zoo_archiver::Runtime::Python => return Ok(Runtime::Python),
        zoo_archiver::Runtime::Python3 => return Ok(Runtime::Python3),
        zoo_archiver::Runtime::Native => return Ok(Runtime::Native),
        zoo_archiver::Runtime::Lsp => "Runtime LSP (the C++ backend of TorchServe) can't be served here. \
                                       Write the handler in Python and use runtime python."
            .to_owned(),
        other => {
            format!("Runtime {other} can't be served by this build. It serves python, python3 and native.")
        }
    };
    Err(Failure::InvalidArchive { message })
}

/// The keys of the file that the manifest names as the model's configuration.
fn model_config(dir: &Path, manifest: &Manifest) -> Result<Map<String, Value>, Failure> {
    let Some(name) = manifest.model.config_file.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(Map::new());
    };
    let refuse = |problem: String| {
        warn!("{}: {problem}", dir.join(name).display());
        Failure::InvalidArchive { message: "Failed to parse model config yaml file.".to_owned() }
    };
    let inside =
        Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(refuse("the manifest's configFile must be a file of the archive".to_owned()));
    }
    let text = read(&dir.join(name)).map_err(|error| refuse(format!("can't be read: {error}")))?;
    let text = String::from_utf8(text).map_err(|error| refuse(format!("must be UTF-8: {error}")))?;
    yaml::parse(&text).map_err(|error| refuse(error.to_string()))
}

/// A file that is kept in memory.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_TEXT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_TEXT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {MAX_TEXT} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::registry::fixture::config;

    /// A folder with a manifest, and a configuration if there is one.
    fn folder(manifest: Option<&str>, yaml: Option<&str>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        if let Some(text) = manifest {
            fs::create_dir(dir.path().join("MAR-INF")).unwrap();
            fs::write(dir.path().join(MANIFEST), text).unwrap();
        }
        if let Some(text) = yaml {
            fs::write(dir.path().join("c.yaml"), text).unwrap();
        }
        dir
    }

    const PLAIN: &str =
        r#"{"runtime": "python", "model": {"modelName": "m", "modelVersion": "2", "handler": "h.py"}}"#;

    #[test]
    fn the_registration_wins_over_the_manifest() {
        let dir = folder(Some(PLAIN), None);
        let own = load(dir.path(), &Registration::of("x"), Some("f"), &config()).unwrap().spec;
        assert_eq!((own.name.as_str(), own.version.as_str(), own.runtime), ("m", "2", Runtime::Python));
        assert_eq!((own.handler.as_deref(), own.dir.as_path()), (Some("h.py"), dir.path()));
        assert_eq!(own.manifest["model"]["handler"], "h.py");

        let given = Registration {
            model_name: Some("n".into()),
            handler: Some("other:f".into()),
            runtime: Some("python3".into()),
            ..Registration::of("x")
        };
        let other = load(dir.path(), &given, None, &config()).unwrap().spec;
        assert_eq!((other.name.as_str(), other.runtime), ("n", Runtime::Python3));
        assert_eq!(other.handler.as_deref(), Some("other:f"));
    }

    #[test]
    fn without_a_manifest_the_defaults_hold() {
        let dir = folder(None, None);
        let mut config = config();
        config.default_service_handler = Some("default.py:f".into());
        config.service_envelope = Some("json".into());
        let spec = load(dir.path(), &Registration::of("x"), Some("guess"), &config).unwrap().spec;
        assert_eq!(
            (spec.name.as_str(), spec.version.as_str(), spec.runtime),
            ("guess", "1.0", Runtime::Python)
        );
        assert_eq!((spec.handler.as_deref(), spec.envelope.as_deref()), (Some("default.py:f"), Some("json")));
        assert_eq!(spec.manifest["model"]["modelName"], "guess");

        let nameless = load(dir.path(), &Registration::of("x"), None, &config).unwrap_err();
        assert_eq!(nameless.to_string(), "Model name is not defined.");
    }

    #[test]
    fn what_cant_be_served_is_refused_with_torchserves_text() {
        let manifest = |runtime: &str, config: &str| {
            format!(r#"{{"runtime": "{runtime}", "model": {{"modelName": "m", "configFile": "{config}"}}}}"#)
        };
        let yaml = "Failed to parse model config yaml file.";
        let cases = [
            ("{".to_owned(), None, "Failed to parse signature.json."),
            (r#"{"runtime": "python"}"#.to_owned(), None, "Missing Model entry in manifest file."),
            (r#"{"runtime": "python", "model": {}}"#.to_owned(), None, "Model name is not defined."),
            (r#"{"model": {"modelName": "m"}}"#.to_owned(), None, "Runtime is not defined or invalid."),
            (
                manifest("LSP", ""),
                None,
                "Runtime LSP (the C++ backend of TorchServe) can't be served here. \
                 Write the handler in Python and use runtime python.",
            ),
            (
                manifest("onnx", ""),
                None,
                "Runtime onnx can't be served by this build. It serves python, python3 and native.",
            ),
            (
                manifest("native", ""),
                None,
                "Runtime native needs a handler: the name of a program in the archive.",
            ),
            (manifest("python", "c.yaml"), None, yaml),
            (manifest("python", "c.yaml"), Some("a: [1"), yaml),
            (manifest("python", "c.yaml"), Some("- 1"), yaml),
            (manifest("python", "../c.yaml"), Some("a: 1"), yaml),
            (manifest("python", "/etc/hostname"), None, yaml),
        ];
        for (text, config_text, expected) in cases {
            let dir = folder(Some(&text), config_text);
            let failure = load(dir.path(), &Registration::of("x"), None, &config()).unwrap_err();
            assert_eq!(failure, Failure::InvalidArchive { message: expected.to_owned() }, "{text}");
        }
    }

    #[test]
    fn a_native_handler_is_a_program() {
        let manifest = r#"{"runtime": "native", "model": {"modelName": "m", "handler": "run"}}"#;
        let dir = folder(Some(manifest), None);
        let load = || load(dir.path(), &Registration::of("x"), None, &config());
        let message = "Handler run of runtime native must be a file of the archive.".to_owned();
        assert_eq!(load().unwrap_err(), Failure::InvalidArchive { message });
        fs::write(dir.path().join("run"), "").unwrap();
        fs::set_permissions(dir.path().join("run"), fs::Permissions::from_mode(0o700)).unwrap();
        let spec = load().unwrap().spec;
        assert_eq!((spec.runtime, spec.handler.as_deref()), (Runtime::Native, Some("run")));
    }

    #[test]
    fn a_runtime_parameter_must_exist() {
        let dir = folder(Some(PLAIN), None);
        let cases = [
            ("PYTHON", Failure::InvalidRuntime { value: "PYTHON".into() }),
            ("", Failure::InvalidRuntime { value: String::new() }),
        ];
        for (runtime, expected) in cases {
            let given = Registration { runtime: Some(runtime.into()), ..Registration::of("x") };
            assert_eq!(load(dir.path(), &given, None, &config()).unwrap_err(), expected);
        }
        let given = Registration { runtime: Some("LSP".into()), ..Registration::of("x") };
        assert!(matches!(load(dir.path(), &given, None, &config()), Err(Failure::InvalidArchive { .. })));
    }

    #[test]
    fn the_configuration_reaches_the_handler_whole() {
        let manifest = r#"{"runtime": "python", "model": {"modelName": "m", "configFile": "c.yaml"}}"#;
        let dir = folder(Some(manifest), Some("minWorkers: 2\nbatchSize: 4\nhandler: {profile: yes}\n"));
        let loaded = load(dir.path(), &Registration::of("x"), None, &config()).unwrap();
        assert_eq!(loaded.workers, Some((2, 2)));
        assert_eq!(loaded.spec.options.batch_size, 4);
        let keys = json!({"minWorkers": 2, "batchSize": 4, "handler": {"profile": true}});
        assert_eq!(Value::Object(loaded.spec.config), keys);
    }
}
