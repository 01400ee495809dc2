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
    /// YAML with the graph. Like the two below, files separated by commas.
    pub spec_file: String,
    /// Python file with the functions among the nodes.
    pub handler: Option<String>,
    /// Further files.
    pub extra_files: Option<String>,
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
    spec_file: String,
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
    if !to.export_path.as_os_str().is_empty() && !to.export_path.is_dir() {
        return Err(PackError::ExportPath { path: to.export_path.clone() });
    }
    let path = write::destination(to, &format!("{}.war", spec.name), Noun::Workflow, progress)?;
    let lists = [Some(&spec.spec_file), spec.handler.as_ref(), spec.extra_files.as_ref()];
    let files = lists.into_iter().flatten().filter(|list| !list.is_empty()).flat_map(|list| list.split(','));
    let entries = collect_flat(files.map(Path::new), &path, progress)?;
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
        let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        crate::manifest::python_json(&WorkflowManifest {
            created_on: self.created_on.clone(),
            workflow: Workflow {
                workflow_name: self.name.to_string(),
                spec_file: base(&self.spec_file),
                handler: self.handler.as_deref().map(base),
            },
            archiver_version: env!("CARGO_PKG_VERSION"),
        })
    }
}
