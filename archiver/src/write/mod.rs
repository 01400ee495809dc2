//! Writes an archive: `pack` checks the destination, collects, and feeds every file to a [`Sink`].
//!
//! The bytes of a file are read once, in blocks that are shared with the thread that hashes them and, in the
//! compressing sinks, with those that deflate them. Same input, same bytes: entries are sorted, times fixed,
//! modes reduced to "executable or not", and block borders don't depend on the number of threads.

mod blocks;
mod deflate;
mod folder;
mod list;
pub(crate) mod output;
mod tgz;
mod zip;

use std::{
    fs, io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
};

pub use blocks::Blocks;
pub use folder::Folder;
pub use list::{List, Listed};
pub use tgz::TarGz;
pub use zip::{Compression, Zip};

use crate::{
    MANIFEST, SHA256SUMS,
    collect::{Entry, Warning, collect},
    digest::{HashThread, Sums},
    error::PackError,
    native,
    progress::Progress,
    spec::{Destination, Format, Noun, PackSpec},
};

/// Takes the files of an archive in order. Nothing is visible under the final name before [`Sink::finish`].
pub trait Sink {
    /// The next file. A sink that doesn't need the bytes leaves `content` alone.
    ///
    /// # Errors
    /// If the file can't be read, or the archive not written.
    fn file(&mut self, head: &Head, content: &mut Blocks<'_>) -> Result<(), PackError>;

    /// Completes the archive and makes it appear.
    ///
    /// # Errors
    /// If it can't be written.
    fn finish(self: Box<Self>) -> Result<(), PackError>;
}

/// What a sink is told of a file before its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Path inside the archive.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Whether it may be executed.
    pub executable: bool,
}

/// How to write.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// Threads that compress. They change how long it takes, never the bytes.
    pub threads: NonZeroUsize,
}

/// What was packed.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The archive.
    pub path: PathBuf,
    /// SHA-256 of every file in it.
    pub sums: Sums,
}

/// More would cost memory (about 1 MiB each) and find nothing to do: one thread reads for all.
const MOST_THREADS: usize = 16;

impl Default for WriteOptions {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { threads: NonZeroUsize::new(cores.min(MOST_THREADS)).unwrap_or(NonZeroUsize::MIN) }
    }
}

/// Packs a model.
///
/// # Errors
/// If anything is missing or can't be written; then no trace of the archive is left.
pub fn pack(
    spec: &PackSpec,
    format: Format,
    to: &Destination,
    options: WriteOptions,
    progress: &dyn Progress,
) -> Result<Packed, PackError> {
    spec.check()?;
    prepare_export_path(&to.export_path, progress)?;
    let (path, entries) = find(spec, format, to, progress)?;
    let sink: Box<dyn Sink> = match format {
        Format::Default => Box::new(Zip::create(&path, Compression::Deflate, options)?),
        Format::ZipStore => Box::new(Zip::create(&path, Compression::Store, options)?),
        Format::Tgz => Box::new(TarGz::create(&path, spec.name.as_str(), options)?),
        Format::NoArchive => Box::new(Folder::create(&path)?),
    };
    let sums = write(&entries, &spec.manifest_text(), sink, &path, progress)?;
    Ok(Packed { path, sums })
}

/// Says what [`pack`] would put into the archive, and writes nothing.
///
/// # Errors
/// As [`pack`], but for those of writing.
pub fn plan(
    spec: &PackSpec,
    format: Format,
    to: &Destination,
    progress: &dyn Progress,
) -> Result<Vec<Listed>, PackError> {
    spec.check()?;
    let (path, entries) = find(spec, format, to, progress)?;
    let list = List::default();
    let listed = list.result();
    write(&entries, &spec.manifest_text(), Box::new(list), &path, progress)?;
    Ok(listed.take())
}

/// The destination, and what goes there.
fn find(
    spec: &PackSpec,
    format: Format,
    to: &Destination,
    progress: &dyn Progress,
) -> Result<(PathBuf, Vec<Entry>), PackError> {
    let path = destination(to, &format!("{}{}", spec.name, format.suffix()), Noun::Model, progress)?;
    if format != Format::NoArchive && path.is_dir() {
        return Err(PackError::is_a_directory(&path));
    }
    let entries = collect(spec, &path, progress)?;
    native::check(spec)?;
    Ok((path, entries))
}

/// Writes `entries`, their digests and the manifest, which comes last as in TorchServe's archives.
///
/// # Errors
/// If a file can't be read, changes meanwhile, or the archive can't be written.
pub fn write(
    entries: &[Entry],
    manifest: &str,
    mut sink: Box<dyn Sink>,
    path: &Path,
    progress: &dyn Progress,
) -> Result<Sums, PackError> {
    let failed = |source: io::Error| PackError::Write { path: path.to_owned(), source };
    let hash = HashThread::start().map_err(failed)?;
    progress.begin(entries.iter().map(|entry| entry.size).sum());
    let mut pending = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut content = Blocks::open(entry, &hash, progress)?;
        let head = Head { name: entry.name.clone(), size: entry.size, executable: entry.executable };
        sink.file(&head, &mut content)?;
        pending.push((entry.name.clone(), content.end()?));
    }
    let mut sums = Sums::default();
    for (name, digest) in pending {
        sums.0.insert(name, digest.wait().map_err(failed)?);
    }
    sums.0.insert(MANIFEST.to_owned(), crate::digest::Digest::of(manifest.as_bytes()));
    for (name, text) in [(SHA256SUMS, sums.to_string().as_str()), (MANIFEST, manifest)] {
        let head = Head { name: name.to_owned(), size: text.len() as u64, executable: false };
        sink.file(&head, &mut Blocks::of(text.as_bytes(), name, &hash, progress))?;
    }
    sink.finish()?;
    Ok(sums)
}

/// Makes the export path if it is missing, as TorchServe does.
fn prepare_export_path(path: &Path, progress: &dyn Progress) -> Result<(), PackError> {
    if !path.exists() && !path.as_os_str().is_empty() {
        progress.warn(&Warning::CreatingExportPath { path: path.to_owned() });
        fs::create_dir_all(path).map_err(|e| PackError::os(path, e))?;
    }
    Ok(())
}

/// Where the output goes, after checking that it may go there.
pub(crate) fn destination(
    to: &Destination,
    file_name: &str,
    noun: Noun,
    progress: &dyn Progress,
) -> Result<PathBuf, PackError> {
    if to.export_path.exists() && !to.export_path.is_dir() {
        return Err(PackError::ExportPath { path: to.export_path.clone() });
    }
    let path = to.export_path.join(file_name);
    if path.exists() {
        if !to.force {
            return Err(PackError::Exists { path, noun });
        }
        progress.warn(&Warning::Overwriting { path: path.clone() });
    }
    Ok(path)
}
