//! `init`: starts a project that packs, serves and predicts at once.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Parser, ValueEnum};

use super::{Failure, log, parse};
use crate::write::output::{folder_of, open_up, pending_folder};

/// Starts a project: a handler or model, its configuration, a test request and a README.
#[derive(Parser)]
#[command(name = "zoo-archiver init", after_help = "Example: zoo-archiver init my-model --template onnx")]
struct Init {
    /// The new folder; its name becomes the name of the model
    folder: PathBuf,
    /// What the model is written in
    #[arg(long, default_value = "python")]
    template: Template,
    /// With --template rust: the folder of zoo-handler in a checkout, in place of its version in the registry
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Template {
    /// A Python handler without any dependency
    Python,
    /// A TorchScript module, no handler
    #[value(name = "torchscript")]
    TorchScript,
    /// An ONNX graph, no handler
    Onnx,
    /// A program in Rust, on top of zoo-handler
    Rust,
}

/// Name and bytes of each file of a template. In a text, `MODEL` stands for the name of the model and `ZOO_HANDLER` for where the Rust
/// SDK comes from.
type Files = &'static [(&'static str, &'static [u8])];

impl Template {
    fn files(self) -> Files {
        match self {
            Self::Python => &[
                ("README.md", include_bytes!("../../templates/python/README.md")),
                ("handler.py", include_bytes!("../../templates/python/handler.py")),
                ("model-config.yaml", include_bytes!("../../templates/python/model-config.yaml")),
                ("request.json", include_bytes!("../../templates/python/request.json")),
            ],
            Self::TorchScript => &[
                ("README.md", include_bytes!("../../templates/torchscript/README.md")),
                ("make_model.py", include_bytes!("../../templates/torchscript/make_model.py")),
                ("model.pt", include_bytes!("../../templates/torchscript/model.pt")),
                ("model-config.yaml", include_bytes!("../../templates/torchscript/model-config.yaml")),
                ("request.json", include_bytes!("../../templates/torchscript/request.json")),
            ],
            Self::Onnx => &[
                ("README.md", include_bytes!("../../templates/onnx/README.md")),
                ("make_model.py", include_bytes!("../../templates/onnx/make_model.py")),
                ("model.onnx", include_bytes!("../../templates/onnx/model.onnx")),
                ("model-config.yaml", include_bytes!("../../templates/onnx/model-config.yaml")),
                ("request.json", include_bytes!("../../templates/onnx/request.json")),
            ],
            // Under other names here than in the project: Cargo and git would take them for their own.
            Self::Rust => &[
                (".gitignore", include_bytes!("../../templates/rust/gitignore")),
                ("Cargo.toml", include_bytes!("../../templates/rust/Cargo.toml.in")),
                ("README.md", include_bytes!("../../templates/rust/README.md")),
                ("model-config.yaml", include_bytes!("../../templates/rust/model-config.yaml")),
                ("request.json", include_bytes!("../../templates/rust/request.json")),
                ("src/main.rs", include_bytes!("../../templates/rust/main.rs")),
                ("weights.json", include_bytes!("../../templates/rust/weights.json")),
            ],
        }
    }
}

pub(super) fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let Init { folder, template, sdk } = parse(args)?;
    let failed = |e: io::Error| Failure::Message(format!("cannot write {}: {e}", folder.display()));
    if folder.symlink_metadata().is_ok() {
        let taken = format!("{} already exists; name a folder that doesn't", folder.display());
        return Err(Failure::Message(taken));
    }
    let name = model_name(&folder)?;
    let sdk = sdk_source(sdk.as_deref(), template)?;
    fs::create_dir_all(folder_of(&folder)).map_err(failed)?;
    let temp = pending_folder(&folder).map_err(failed)?;
    open_up(temp.path()).map_err(failed)?;
    for (file, bytes) in template.files() {
        let fill = |text: &str| text.replace("MODEL", &name).replace("ZOO_HANDLER", &sdk).into_bytes();
        let filled = std::str::from_utf8(bytes).map_or_else(|_| bytes.to_vec(), fill);
        let path = temp.path().join(file);
        fs::create_dir_all(folder_of(&path)).map_err(failed)?;
        fs::write(path, filled).map_err(failed)?;
    }
    fs::rename(temp.path(), &folder).map_err(failed)?;
    log::info(&format!("Made {}; its README.md says how to pack, serve and ask", folder.display()));
    Ok(())
}

/// Where a project gets zoo-handler from, as a value in its `Cargo.toml`.
fn sdk_source(sdk: Option<&Path>, template: Template) -> Result<String, Failure> {
    let Some(sdk) = sdk else { return Ok(format!("{:?}", env!("CARGO_PKG_VERSION"))) };
    if !matches!(template, Template::Rust) {
        return Err(Failure::Message("--sdk is for --template rust".to_owned()));
    }
    let manifest = sdk.join("Cargo.toml");
    let is_sdk = fs::read_to_string(&manifest).is_ok_and(|text| text.contains("name = \"zoo-handler\""));
    let folder = sdk.canonicalize().ok().filter(|_| is_sdk);
    // A JSON string is a TOML string.
    let path = folder.as_deref().and_then(Path::to_str).map(|path| serde_json::Value::from(path).to_string());
    path.map(|path| format!("{{ path = {path} }}")).ok_or_else(|| {
        let sdk = sdk.display();
        Failure::Message(format!(
            "--sdk {sdk} is not the folder of zoo-handler; name handler-sdk/rust of a checkout"
        ))
    })
}

/// The name of the folder, if it can be one of a model.
fn model_name(folder: &Path) -> Result<String, Failure> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    Ok(crate::spec::Name::new(&name, crate::spec::Noun::Model)?.to_string())
}
