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
}

/// Name and bytes of each file of a template. `MODEL` in a text stands for the name of the model.
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
        }
    }
}

pub(super) fn run(args: Vec<OsString>) -> Result<(), Failure> {
    let Init { folder, template } = parse(args)?;
    let failed = |e: io::Error| Failure::Message(format!("cannot write {}: {e}", folder.display()));
    if folder.symlink_metadata().is_ok() {
        let taken = format!("{} already exists; name a folder that doesn't", folder.display());
        return Err(Failure::Message(taken));
    }
    let name = model_name(&folder)?;
    fs::create_dir_all(folder_of(&folder)).map_err(failed)?;
    let temp = pending_folder(&folder).map_err(failed)?;
    open_up(temp.path()).map_err(failed)?;
    for (file, bytes) in template.files() {
        let filled = std::str::from_utf8(bytes).map(|text| text.replace("MODEL", &name).into_bytes());
        fs::write(temp.path().join(file), filled.unwrap_or_else(|_| bytes.to_vec())).map_err(failed)?;
    }
    fs::rename(temp.path(), &folder).map_err(failed)?;
    log::info(&format!("Made {}; its README.md says how to pack, serve and ask", folder.display()));
    Ok(())
}

/// The name of the folder, if it can be one of a model.
fn model_name(folder: &Path) -> Result<String, Failure> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    Ok(crate::spec::Name::new(&name, crate::spec::Noun::Model)?.to_string())
}
