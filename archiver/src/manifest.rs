//! `MAR-INF/MANIFEST.json`: what an archive says about itself.
//!
//! Written exactly as `torch-model-archiver` writes it; read as leniently as TorchServe reads it: unknown keys
//! of older archivers are ignored, numbers are taken as text, and only what serving needs is required.
//! This module knows no files and no archive formats.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// What an archive says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// When it was packed, as `dd/mm/YYYY HH:MM:SS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_on: Option<String>,
    /// Free text of hand-made manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How a worker for this model is made.
    pub runtime: Runtime,
    /// Target triple of a native handler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The model itself.
    pub model: Model,
    /// Version of the program that packed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archiver_version: Option<String>,
}

/// The `model` entry of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Model {
    /// Name under which it is registered if the caller gives none.
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// File with the weights.
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub serialized_file: Option<String>,
    /// Built-in handler, or file with an optional `:function`.
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Python file with the model class of an eager model.
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub model_file: Option<String>,
    /// Version; see [`Model::version`].
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub model_version: Option<String>,
    /// Free object of hand-made manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Value>,
    /// pip requirements.
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub requirements_file: Option<String>,
    /// Model configuration in YAML.
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub config_file: Option<String>,
    /// Free text of hand-made manifests.
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Vocabulary file of TorchServe's text handlers.
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub source_vocab: Option<String>,
}

/// How a worker for a model is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Runtime {
    /// The Python that the server is configured with.
    #[default]
    #[serde(rename = "python")]
    Python,
    /// `python3` on the search path.
    #[serde(rename = "python3")]
    Python3,
    /// TorchServe's C++ backend: packed, not served.
    #[serde(rename = "LSP")]
    Lsp,
    /// A scripted module, run by the TorchScript worker.
    #[serde(rename = "torchscript")]
    TorchScript,
    /// An ONNX graph, run by the ONNX worker.
    #[serde(rename = "onnx")]
    Onnx,
    /// An executable inside the archive.
    #[serde(rename = "native")]
    Native,
}

/// Why a manifest can't be served. The texts are TorchServe's, which clients compare; [`ManifestError::detail`]
/// says what is wrong in the file at hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a key of the wrong type.
    #[error("Failed to parse signature.json.")]
    NotJson {
        /// What the parser said.
        reason: String,
    },
    /// There is no `model` object.
    #[error("Missing Model entry in manifest file.")]
    NoModel,
    /// Neither the manifest nor the caller names the model.
    #[error("Model name is not defined.")]
    NoName,
    /// `runtime` is missing or isn't one of ours.
    #[error("Runtime is not defined or invalid.")]
    NoRuntime {
        /// What stands there, if anything does.
        value: Option<String>,
    },
}

/// A text that names no runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid RuntimeType value: {value}")]
pub struct UnknownRuntime {
    /// The text.
    pub value: String,
}

impl Manifest {
    /// The version that a manifest without one stands for.
    pub const DEFAULT_VERSION: &'static str = "1.0";

    /// Reads a manifest.
    ///
    /// # Errors
    /// If it isn't a JSON object, has no `model`, or has no known `runtime`.
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        let json = json.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(json);
        let top: serde_json::Map<String, Value> =
            serde_json::from_slice(json).map_err(ManifestError::from)?;
        let field = |key: &str| text(top.get(key).unwrap_or(&Value::Null)).map_err(ManifestError::from);
        let model = match top.get("model") {
            None | Some(Value::Null) => return Err(ManifestError::NoModel),
            Some(model) => Model::deserialize(model).map_err(ManifestError::from)?,
        };
        let runtime = match field("runtime")? {
            None => return Err(ManifestError::NoRuntime { value: None }),
            Some(name) => name
                .parse()
                .map_err(|UnknownRuntime { value }| ManifestError::NoRuntime { value: Some(value) })?,
        };
        Ok(Self {
            created_on: field("createdOn")?,
            description: field("description")?,
            runtime,
            target: field("target")?,
            model,
            archiver_version: field("archiverVersion")?,
        })
    }

    /// The text that goes into an archive: byte for byte what Python's `json.dumps(…, indent=2)` makes of it.
    #[must_use]
    pub fn to_json(&self) -> String {
        python_json(self)
    }

    /// The name to register under: the caller's, else the manifest's.
    ///
    /// # Errors
    /// If neither is there.
    pub fn name_or<'a>(&'a self, given: Option<&'a str>) -> Result<&'a str, ManifestError> {
        given
            .or(self.model.model_name.as_deref())
            .filter(|name| !name.is_empty())
            .ok_or(ManifestError::NoName)
    }
}

impl Model {
    /// The version, `1.0` where the manifest has none.
    #[must_use]
    pub fn version(&self) -> &str {
        self.model_version.as_deref().filter(|v| !v.is_empty()).unwrap_or(Manifest::DEFAULT_VERSION)
    }
}

impl Runtime {
    /// All of them, in the order that help texts show.
    pub const ALL: [Self; 6] =
        [Self::Python, Self::Python3, Self::Lsp, Self::TorchScript, Self::Onnx, Self::Native];

    /// As the manifest writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Python3 => "python3",
            Self::Lsp => "LSP",
            Self::TorchScript => "torchscript",
            Self::Onnx => "onnx",
            Self::Native => "native",
        }
    }

    /// Whether a worker can't be made without a handler.
    #[must_use]
    pub fn needs_handler(self) -> bool {
        !matches!(self, Self::TorchScript | Self::Onnx)
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Runtime {
    type Err = UnknownRuntime;

    fn from_str(text: &str) -> Result<Self, UnknownRuntime> {
        let found = Self::ALL.into_iter().find(|runtime| runtime.as_str() == text);
        found.ok_or_else(|| UnknownRuntime { value: text.to_owned() })
    }
}

impl ManifestError {
    /// What is wrong with the file at hand and what would be right.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::NotJson { reason } => format!("not a manifest in JSON: {reason}"),
            Self::NoModel => r#"no "model" object"#.to_owned(),
            Self::NoName => r#"no "modelName" in "model""#.to_owned(),
            Self::NoRuntime { value: None } => format!(r#"no "runtime"; one of {}"#, known_runtimes()),
            Self::NoRuntime { value: Some(value) } => {
                format!(r#""runtime" is {value:?}; it must be one of {}"#, known_runtimes())
            }
        }
    }
}

fn known_runtimes() -> String {
    Runtime::ALL.map(Runtime::as_str).join(", ")
}

impl From<serde_json::Error> for ManifestError {
    fn from(error: serde_json::Error) -> Self {
        Self::NotJson { reason: error.to_string() }
    }
}

/// Text, or a number or truth value taken as text, as TorchServe's JSON reader does.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Bool(truth) => Ok(Some(truth.to_string())),
        other @ (Value::Array(_) | Value::Object(_)) => {
            Err(serde::de::Error::custom(format!("expected a text, found {other}")))
        }
    }
}

/// JSON byte for byte as Python's `json.dumps(…, indent=2)` writes it.
pub(crate) fn python_json(value: &impl Serialize) -> String {
    // Writing to memory can't fail, and no type here has a map with keys that aren't text.
    let pretty = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut ascii = String::with_capacity(pretty.len());
    pretty.chars().for_each(|c| push_ascii(&mut ascii, c));
    ascii
}

/// Python escapes everything outside printable ASCII as UTF-16 units. Such characters stand inside of JSON
/// strings only, so the escape can be put in after serialising.
fn push_ascii(out: &mut String, c: char) {
    if c <= '~' {
        out.push(c);
        return;
    }
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.push_str(&format!("\\u{unit:04x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Manifest {
        Manifest {
            created_on: Some("31/12/2024 23:59:59".into()),
            runtime: Runtime::Python,
            model: Model {
                model_name: Some("mnist".into()),
                serialized_file: Some("mnist_cnn.pt".into()),
                handler: Some("mnist_handler.py".into()),
                model_file: Some("mnist.py".into()),
                model_version: Some("1.0".into()),
                requirements_file: Some("requirements.txt".into()),
                config_file: Some("model-config.yaml".into()),
                ..Model::default()
            },
            archiver_version: Some("0.12.0".into()),
            ..Manifest::default()
        }
    }

    #[test]
    fn writes_the_keys_of_torch_model_archiver_in_its_order_and_indent() {
        let expected = r#"{
  "createdOn": "31/12/2024 23:59:59",
  "runtime": "python",
  "model": {
    "modelName": "mnist",
    "serializedFile": "mnist_cnn.pt",
    "handler": "mnist_handler.py",
    "modelFile": "mnist.py",
    "modelVersion": "1.0",
    "requirementsFile": "requirements.txt",
    "configFile": "model-config.yaml"
  },
  "archiverVersion": "0.12.0"
}"#;
        assert_eq!(full().to_json(), expected);
        assert_eq!(Manifest::from_json(expected.as_bytes()), Ok(full()));
    }

    #[test]
    fn escapes_as_python_does() {
        let mut manifest = Manifest::default();
        manifest.model.model_version = Some("é😀\u{7f}\t\"\\".into());
        assert!(manifest.to_json().contains(r#""modelVersion": "\u00e9\ud83d\ude00\u007f\t\"\\""#));
        assert_eq!(Manifest::from_json(manifest.to_json().as_bytes()), Ok(manifest));
    }

    #[test]
    fn old_and_hand_made_manifests_are_read() {
        let json = br#"{"specificationVersion": "1.0", "implementationVersion": "1.0", "license": "Apache 2.0",
            "publisher": {"author": "x"}, "description": "d", "modelServerVersion": "1.0", "runtime": "python3",
            "engine": {"engineName": "MXNet"},
            "model": {"modelName": "m", "version": "9", "sourceVocab": "v.pt", "envelope": "json", "modelVersion": 2.5}}"#;
        let manifest = Manifest::from_json(json).unwrap();
        assert_eq!(manifest.runtime, Runtime::Python3);
        assert_eq!(manifest.model.version(), "2.5");
        assert_eq!(manifest.model.source_vocab.as_deref(), Some("v.pt"));
        assert_eq!(manifest.created_on, None);
    }

    #[test]
    fn a_missing_version_is_1_0() {
        let manifest = Manifest::from_json(br#"{"runtime": "LSP", "model": {}}"#).unwrap();
        assert_eq!(manifest.model.version(), "1.0");
        assert_eq!(manifest.name_or(None), Err(ManifestError::NoName));
        assert_eq!(manifest.name_or(Some("given")), Ok("given"));
    }

    #[test]
    fn each_defect_has_the_text_of_torchserve_and_a_detail() {
        let cases: [(&str, &str, &str); 6] = [
            ("[]", "Failed to parse signature.json.", "not a manifest in JSON: invalid type: sequence"),
            ("{", "Failed to parse signature.json.", "EOF while parsing"),
            (r#"{"runtime": "python"}"#, "Missing Model entry in manifest file.", r#"no "model" object"#),
            (r#"{"model": {}}"#, "Runtime is not defined or invalid.", "one of python, python3, LSP"),
            (
                r#"{"runtime": "java", "model": {}}"#,
                "Runtime is not defined or invalid.",
                r#"is "java"; it must"#,
            ),
            (
                r#"{"runtime": "python", "model": {"handler": []}}"#,
                "Failed to parse signature.json.",
                "expected a text, found []",
            ),
        ];
        for (json, message, detail) in cases {
            let error = Manifest::from_json(json.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), message, "{json}");
            assert!(error.detail().contains(detail), "{json}: {}", error.detail());
        }
    }
}
