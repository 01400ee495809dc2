//! What to pack: the typed result of the flags, with the rules that need no file.
//!
//! This module touches no file and knows no command line. Its texts are the user's, unchanged.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    error::PackError,
    manifest::{Manifest, Model, Runtime},
    native,
};

/// What goes into an archive and what its manifest says.
#[derive(Debug, Clone)]
pub struct PackSpec {
    /// Name of the model.
    pub name: Name,
    /// Free text.
    pub version: String,
    /// How a worker is made.
    pub runtime: Runtime,
    /// Built-in handler, or path of a handler, optionally `path:function`.
    pub handler: Option<String>,
    /// Weights.
    pub serialized_file: Option<PathBuf>,
    /// Python file with the model class.
    pub model_file: Option<PathBuf>,
    /// Further files and trees.
    pub extra_files: Vec<Extra>,
    /// pip requirements.
    pub requirements_file: Option<PathBuf>,
    /// Model configuration.
    pub config_file: Option<PathBuf>,
    /// Target triple, for the native runtime.
    pub target: Option<String>,
    /// When it is packed, for the manifest: `dd/mm/YYYY HH:MM:SS`.
    pub created_on: String,
    /// A manifest to be written as it stands, in place of the one that the rest of this makes.
    pub manifest: Option<String>,
}

/// A checked name of a model or a workflow: what may become a file name and a part of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// What kind of thing an archive holds; the texts of both archivers differ in this word only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noun {
    /// A model.
    Model,
    /// A TorchServe workflow.
    Workflow,
}

/// One item of `--extra-files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extra {
    /// As TorchServe has it: files, and the contents of folders, go to the root.
    Flat(String),
    /// `DEST/=PATH`: a file, or a whole tree, goes under a folder of the archive.
    Under {
        /// Folder of the archive.
        dest: String,
        /// File, folder or pattern.
        source: String,
    },
}

/// The file behind `--handler`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerFile {
    /// None: no handler, or one that the server brings along.
    BuiltIn,
    /// This one.
    File(PathBuf),
}

/// Shape of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// `.mar`, a zip with deflate.
    #[default]
    Default,
    /// `.mar`, a zip without compression.
    ZipStore,
    /// `.tar.gz` with one top folder.
    Tgz,
    /// A plain folder.
    NoArchive,
}

/// Where the output goes.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Folder of the output.
    pub export_path: PathBuf,
    /// Whether an existing output is replaced.
    pub force: bool,
}

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// If it has a character that a file name or URL would have to escape.
    pub fn new(name: &str, noun: Noun) -> Result<Self, PackError> {
        let ordinary = |c: char| c.is_ascii_alphanumeric();
        let valid =
            name.starts_with(ordinary) && name.chars().all(|c| ordinary(c) || matches!(c, '_' | '-' | '.'));
        if valid { Ok(Self(name.to_owned())) } else { Err(PackError::Name { name: name.to_owned(), noun }) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Workflow => "workflow",
        })
    }
}

impl Extra {
    /// Takes a comma-separated list apart. Spaces count, as in TorchServe.
    #[must_use]
    pub fn parse_list(list: &str) -> Vec<Self> {
        list.split(',').filter(|item| !item.is_empty()).map(Self::parse).collect()
    }

    fn parse(item: &str) -> Self {
        match item.split_once("/=") {
            Some((dest, source)) => Self::Under { dest: dest.to_owned(), source: source.to_owned() },
            None => Self::Flat(item.to_owned()),
        }
    }
}

impl Format {
    /// What follows the model name in the name of the output.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Default | Self::ZipStore => ".mar",
            Self::Tgz => ".tar.gz",
            Self::NoArchive => "",
        }
    }
}

impl PackSpec {
    /// The manifest that follows from the flags.
    #[must_use]
    pub fn manifest(&self) -> Manifest {
        Manifest {
            created_on: Some(self.created_on.clone()),
            runtime: self.runtime,
            target: self.target(),
            model: Model {
                model_name: Some(self.name.to_string()),
                serialized_file: self.serialized_file.as_deref().and_then(base_name),
                handler: self.handler.as_deref().map(|handler| after_last_slash(handler).to_owned()),
                model_file: self.model_file.as_deref().and_then(base_name),
                model_version: Some(self.version.clone()).filter(|version| !version.is_empty()),
                requirements_file: self.requirements_file.as_deref().and_then(base_name),
                config_file: self.config_file.as_deref().and_then(base_name),
                ..Model::default()
            },
            archiver_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            ..Manifest::default()
        }
    }

    /// Finds the file that `--handler` means.
    #[must_use]
    pub fn handler_file(&self) -> HandlerFile {
        handler_file(self.runtime, self.handler.as_deref())
    }

    /// The text of the manifest that the archive gets.
    #[must_use]
    pub fn manifest_text(&self) -> String {
        self.manifest.clone().unwrap_or_else(|| self.manifest().to_json())
    }

    /// The target triple of a native handler: the given one, else that of this program.
    #[must_use]
    pub fn target(&self) -> Option<String> {
        let target = || self.target.clone().unwrap_or_else(|| native::HOST.to_owned());
        (self.runtime == Runtime::Native).then(target)
    }

    /// Checks what concerns more than one flag.
    ///
    /// # Errors
    /// If the runtime needs something that isn't given.
    pub fn check(&self) -> Result<(), PackError> {
        let runtime = self.runtime.as_str();
        if self.runtime.needs_handler() && self.handler.is_none() {
            return Err(PackError::Needs { runtime, flag: "--handler" });
        }
        if !self.runtime.needs_handler() && self.serialized_file.is_none() {
            return Err(PackError::Needs { runtime, flag: "--serialized-file" });
        }
        Ok(())
    }
}

/// Finds the file that a handler text means.
#[must_use]
pub fn handler_file(runtime: Runtime, handler: Option<&str>) -> HandlerFile {
    let Some(handler) = handler.filter(|handler| !handler.is_empty()) else {
        return HandlerFile::BuiltIn;
    };
    match runtime {
        Runtime::Lsp if matches!(handler, "BaseHandler" | "TorchScriptHandler") => HandlerFile::BuiltIn,
        Runtime::Lsp => {
            HandlerFile::File(format!("{}{}", before_colon(handler), std::env::consts::DLL_SUFFIX).into())
        }
        Runtime::Native => HandlerFile::File(handler.into()),
        Runtime::Python | Runtime::Python3 | Runtime::TorchScript | Runtime::Onnx => python_file(handler),
    }
}

/// Handlers that the server brings along.
const BUILT_IN: [&str; 8] = [
    "base_handler",
    "text_classifier",
    "image_classifier",
    "object_detector",
    "image_segmenter",
    "dali_image_classifier",
    "vllm_handler",
    "trt_llm_handler",
];

fn python_file(handler: &str) -> HandlerFile {
    if BUILT_IN.contains(&handler) {
        HandlerFile::BuiltIn
    } else if !handler.contains(".py") {
        HandlerFile::File(format!("{}.py", before_colon(handler)).into())
    } else if let Some((file, _function)) = handler.rsplit_once(':').filter(|(file, _)| file.ends_with(".py"))
    {
        HandlerFile::File(file.into())
    } else {
        HandlerFile::File(handler.into())
    }
}

fn before_colon(text: &str) -> &str {
    text.split(':').next().unwrap_or(text)
}

fn after_last_slash(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or(text)
}

fn base_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(runtime: Runtime, handler: &str) -> PackSpec {
        PackSpec {
            name: Name::new("m", Noun::Model).unwrap(),
            version: "1".into(),
            runtime,
            handler: Some(handler.into()),
            serialized_file: None,
            model_file: None,
            extra_files: Vec::new(),
            requirements_file: None,
            config_file: None,
            target: None,
            created_on: String::new(),
            manifest: None,
        }
    }

    #[test]
    fn names_follow_the_rule() {
        for good in ["a", "9", "A-b_c.1"] {
            assert_eq!(Name::new(good, Noun::Model).unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "_a", "a b", "a/b", "é", "a\n"] {
            let error = Name::new(bad, Noun::Model).unwrap_err();
            assert!(error.to_string().starts_with("Model name contains special characters.\nThe allowed"));
        }
    }

    #[test]
    fn the_handler_names_a_file_by_torchserves_rule() {
        let cases = [
            (Runtime::Python, "image_classifier", None, "image_classifier"),
            (Runtime::Python, "densenet_handler", Some("densenet_handler.py"), "densenet_handler"),
            (Runtime::Python, "dir/h", Some("dir/h.py"), "h"),
            (Runtime::Python3, "dir/h.py", Some("dir/h.py"), "h.py"),
            (Runtime::Python, "dir/h:entry", Some("dir/h.py"), "h:entry"),
            // torch-model-archiver looks for a file called `h.py:entry` here.
            (Runtime::Python, "dir/h.py:entry", Some("dir/h.py"), "h.py:entry"),
            (Runtime::Lsp, "BaseHandler", None, "BaseHandler"),
            (Runtime::Lsp, "x/libh:Class", Some("x/libh.so"), "libh:Class"),
            (Runtime::Native, "bin/serve", Some("bin/serve"), "serve"),
        ];
        for (runtime, handler, file, in_manifest) in cases {
            let spec = spec(runtime, handler);
            let expected = file.map_or(HandlerFile::BuiltIn, |file| HandlerFile::File(file.into()));
            assert_eq!(spec.handler_file(), expected, "{handler}");
            assert_eq!(spec.manifest().model.handler.as_deref(), Some(in_manifest));
        }
    }

    #[test]
    fn extra_files_keep_their_spaces_and_may_name_a_folder() {
        let under = Extra::Under { dest: "assets".into(), source: "./my/assets".into() };
        assert_eq!(
            Extra::parse_list("a, b,,assets/=./my/assets"),
            [Extra::Flat("a".into()), Extra::Flat(" b".into()), under]
        );
    }
}
