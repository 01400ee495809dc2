//! Says all that is wrong with an archive, where extraction stops at the first.

use std::path::PathBuf;

use super::{Archive, Contents, guard::Guard, index::Index};
use crate::{
    error::ReadError,
    manifest::{Manifest, ManifestError, Runtime},
    progress::Progress,
    spec::{HandlerFile, handler_file},
};

/// What a verification found.
#[derive(Debug)]
pub struct Verified {
    /// What is inside, if it could be read to the end.
    pub contents: Option<Contents>,
    /// What is wrong; nothing, if it is empty.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Finding {
    #[error(transparent)]
    Broken(#[from] ReadError),
    #[error("{}: there is no MAR-INF/MANIFEST.json", path.display())]
    NoManifest { path: PathBuf },
    #[error("{}: MAR-INF/MANIFEST.json: {}", path.display(), source.detail())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("{}: MAR-INF/MANIFEST.json names the {what} {file:?}, which isn't there", path.display())]
    NoSuchFile { path: PathBuf, what: &'static str, file: String },
    #[error("{}: MAR-INF/MANIFEST.json names no {what}, which runtime {runtime} needs", path.display())]
    Needs { path: PathBuf, what: &'static str, runtime: Runtime },
    #[error("{}: {file:?} isn't listed in MAR-INF/SHA256SUMS", path.display())]
    Unlisted { path: PathBuf, file: String },
}

impl Archive {
    /// Reads all of it and collects what is wrong: with its bytes, its digests, its manifest, and the files
    /// that the manifest names. Bytes that can't be read end the search.
    #[must_use]
    pub fn verify(&self, progress: &dyn Progress) -> Verified {
        let survey = || {
            let mut guard = Guard::new(self.path(), self.limits(), self.packed_size()?, progress);
            let mut index = Index::start(self.path())?;
            self.visit(&mut guard, &mut index)?;
            index.survey(self.form())
        };
        let (contents, broken) = match survey() {
            Ok(survey) => survey,
            Err(error) => return Verified { contents: None, findings: vec![error.into()] },
        };
        let mut findings: Vec<Finding> = broken.into_iter().map(Finding::from).collect();
        let unlisted = contents.unlisted.iter().cloned();
        findings.extend(unlisted.map(|file| Finding::Unlisted { path: self.path().to_owned(), file }));
        self.check_manifest(&contents, &mut findings);
        Verified { contents: Some(contents), findings }
    }

    fn check_manifest(&self, contents: &Contents, findings: &mut Vec<Finding>) {
        let path = || self.path().to_owned();
        let Some(manifest) = &contents.manifest else {
            let broken = findings.iter().any(|f| matches!(f, Finding::Broken(ReadError::Manifest { .. })));
            if !broken {
                findings.push(Finding::NoManifest { path: path() });
            }
            return;
        };
        if let Err(source) = manifest.name_or(None) {
            findings.push(Finding::Manifest { path: path(), source });
        }
        for (what, file) in named_files(manifest) {
            if !contents.files.iter().any(|found| found.name == file) {
                findings.push(Finding::NoSuchFile { path: path(), what, file });
            }
        }
        let (runtime, model) = (manifest.runtime, &manifest.model);
        if runtime.needs_handler() && model.handler.is_none() {
            findings.push(Finding::Needs { path: path(), what: "handler", runtime });
        }
        if !runtime.needs_handler() && model.serialized_file.is_none() {
            findings.push(Finding::Needs { path: path(), what: "serializedFile", runtime });
        }
    }
}

/// The files that a manifest names, and as what.
fn named_files(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let model = &manifest.model;
    let handler = match handler_file(manifest.runtime, model.handler.as_deref()) {
        HandlerFile::BuiltIn => None,
        HandlerFile::File(path) => Some(path.to_string_lossy().into_owned()),
    };
    let named = [
        ("handler", handler),
        ("serializedFile", model.serialized_file.clone()),
        ("modelFile", model.model_file.clone()),
        ("requirementsFile", model.requirements_file.clone()),
        ("configFile", model.config_file.clone()),
    ];
    named.into_iter().filter_map(|(what, file)| Some((what, file?))).collect()
}
