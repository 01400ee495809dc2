//! Packs TorchServe workflows, as `torch-workflow-archiver` does. Nothing here serves them.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{
    collect::collect_flat,
    digest::HashThread,
    error::PackError,
    progress::Progress,
    spec::{Destination, Name, Noun},
    write::{self, Blocks, Compression, Head, Sink, WriteOptions, Zip},
};

/// What goes into a workflow archive.
#[derive(Debug, Clone)]
pub struct WorkflowSpec {
    /// Name of the workflow.
    pub name: Name,
    /// YAML with the graph.
    pub spec_file: PathBuf,
    /// Python file with the functions among the nodes.
    pub handler: Option<PathBuf>,
    /// Further files.
    pub extra_files: Vec<PathBuf>,
    /// When it is packed: `dd/mm/YYYY HH:MM:SS`.
    pub created_on: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkflowManifest {
    created_on: String,
    workflow: Workflow,
    archiver_version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Workflow {
    workflow_name: String,
    spec_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handler: Option<String>,
}

/// Packs a workflow into `<name>.war`.
///
/// # Errors
/// If anything is missing or can't be written; then no trace of the archive is left.
pub fn pack(
    spec: &WorkflowSpec,
    to: &Destination,
    options: WriteOptions,
    progress: &dyn Progress,
) -> Result<PathBuf, PackError> {
    if !to.export_path.is_dir() {
        return Err(PackError::ExportPath { path: to.export_path.clone() });
    }
    let path = write::destination(to, &format!("{}.war", spec.name), Noun::Workflow, progress)?;
    let files = [Some(&spec.spec_file), spec.handler.as_ref()].into_iter().flatten().chain(&spec.extra_files);
    let entries = collect_flat(files.map(PathBuf::as_path), &path, progress)?;
    let mut sink: Box<dyn Sink> = Box::new(Zip::create(&path, Compression::Deflate, options)?);
    let hash = HashThread::start().map_err(|source| PackError::Write { path: path.clone(), source })?;
    progress.begin(entries.iter().map(|entry| entry.size).sum());
    for entry in &entries {
        let head = Head { name: entry.name.clone(), size: entry.size, executable: entry.executable };
        sink.file(&head, &mut Blocks::open(entry, &hash, progress)?)?;
    }
    let (name, text) = ("WAR-INF/MANIFEST.json", spec.manifest());
    let head = Head { name: name.to_owned(), size: text.len() as u64, executable: false };
    sink.file(&head, &mut Blocks::of(text.as_bytes(), name, &hash, progress))?;
    sink.finish()?;
    Ok(path)
}

impl WorkflowSpec {
    fn manifest(&self) -> String {
        let base = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
        crate::manifest::python_json(&WorkflowManifest {
            created_on: self.created_on.clone(),
            workflow: Workflow {
                workflow_name: self.name.to_string(),
                spec_file: base(&self.spec_file),
                handler: self.handler.as_deref().and_then(base),
            },
            archiver_version: env!("CARGO_PKG_VERSION"),
        })
    }
}
