//! Finds the files that a [`PackSpec`] means, and says under which name each goes into the archive.
//!
//! TorchServe's rules: everything lies flat at the root, of folders the contents go there, a later file takes
//! the place of an earlier one of the same name, and hidden folders and caches below the root stay out.
//! `DEST/=PATH` puts a tree under a folder instead. This module reads folders and sizes, never contents.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use crate::{
    MANIFEST, SHA256SUMS,
    error::PackError,
    pattern,
    progress::Progress,
    read::name,
    spec::{Extra, HandlerFile, PackSpec},
};

/// One file of the archive to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path inside the archive.
    pub name: String,
    /// Path outside.
    pub source: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Whether it may be executed.
    pub executable: bool,
}

/// Something the user should know, though packing goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the text beside each variant says what its fields are")]
pub enum Warning {
    #[error("Export directory ({}) does not exist. Creating...", path.display())]
    CreatingExportPath { path: PathBuf },
    #[error("Overwriting {} ...", path.display())]
    Overwriting { path: PathBuf },
    #[error("Given wildcard pattern did not match any file: {pattern}")]
    NoMatch { pattern: String },
    #[error("{name}: {} takes the place of {}", later.display(), earlier.display())]
    Replaced { name: String, earlier: PathBuf, later: PathBuf },
    #[error("{} stays out: the archiver writes its own {name}", source_path.display())]
    Own { name: String, source_path: PathBuf },
    #[error("{} stays out: it is the archive that is being replaced", path.display())]
    Output { path: PathBuf },
}

impl Warning {
    /// Whether it is just a note: nothing that the user named is missing from the archive.
    #[must_use]
    pub fn is_note(&self) -> bool {
        matches!(self, Self::Own { .. } | Self::Output { .. })
    }
}

/// Finds the files of `spec`, sorted by their name in the archive. `output` never becomes a part of itself.
///
/// # Errors
/// Names the first file that is missing or can't be packed.
pub fn collect(spec: &PackSpec, output: &Path, progress: &dyn Progress) -> Result<Vec<Entry>, PackError> {
    let mut collector = Collector::new(output, progress);
    // The order of torch-model-archiver: it decides which file wins and which missing one is named.
    let files = [spec.model_file.as_deref(), spec.serialized_file.as_deref()];
    files.into_iter().flatten().try_for_each(|file| collector.file(file))?;
    if let HandlerFile::File(handler) = spec.handler_file() {
        collector.file(&handler)?;
    }
    spec.extra_files.iter().try_for_each(|extra| collector.extra(extra))?;
    let files = [spec.requirements_file.as_deref(), spec.config_file.as_deref()];
    files.into_iter().flatten().try_for_each(|file| collector.file(file))?;
    collector.finish()
}

/// Finds plain files that go to the root. See [`collect`].
///
/// # Errors
/// Names the first file that is missing or can't be packed.
pub fn collect_flat<'a>(
    files: impl IntoIterator<Item = &'a Path>,
    output: &Path,
    progress: &dyn Progress,
) -> Result<Vec<Entry>, PackError> {
    let mut collector = Collector::new(output, progress);
    files.into_iter().try_for_each(|file| collector.file(file))?;
    collector.finish()
}

struct Collector<'a> {
    entries: BTreeMap<String, Entry>,
    /// Folders at the root and where each came from.
    folders: BTreeMap<String, PathBuf>,
    output: Option<PathBuf>,
    progress: &'a dyn Progress,
}

impl<'a> Collector<'a> {
    fn new(output: &Path, progress: &'a dyn Progress) -> Self {
        let output = fs::canonicalize(output).ok();
        Self { entries: BTreeMap::new(), folders: BTreeMap::new(), output, progress }
    }

    /// A file that a flag names.
    fn file(&mut self, path: &Path) -> Result<(), PackError> {
        if fs::metadata(path).map_err(|e| PackError::os(path, e))?.is_dir() {
            return Err(PackError::is_a_directory(path));
        }
        let name = path.file_name().unwrap_or_default();
        self.add("", name, path)
    }

    fn extra(&mut self, extra: &Extra) -> Result<(), PackError> {
        match extra {
            Extra::Flat(item) => expand(item, self.progress)?.iter().try_for_each(|path| self.flat(path)),
            Extra::Under { dest, source } => {
                let bad = |why| PackError::ExtraDest { dest: dest.clone(), why };
                let dest = name::enclosed(dest.as_bytes()).map_err(bad)?;
                expand(source, self.progress)?.iter().try_for_each(|path| self.under(&dest, path))
            }
        }
    }

    fn flat(&mut self, path: &Path) -> Result<(), PackError> {
        // A link to nowhere is neither file nor folder.
        let kind = fs::metadata(path).map_err(|_| PackError::InvalidExtra { path: path.to_owned() })?;
        if kind.is_file() {
            return self.add("", path.file_name().unwrap_or_default(), path);
        }
        if !kind.is_dir() {
            return Err(PackError::InvalidExtra { path: path.to_owned() });
        }
        for child in children(path)? {
            let name = child.file_name().unwrap_or_default().to_owned();
            // What a folder holds directly and is neither file nor folder is passed over, as in TorchServe.
            match fs::metadata(&child) {
                Ok(kind) if kind.is_dir() => self.root_folder(&name, &child)?,
                Ok(kind) if kind.is_file() => self.add("", &name, &child)?,
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// A sub-folder of an extra folder: it and all below keep their structure.
    fn root_folder(&mut self, name: &OsStr, path: &Path) -> Result<(), PackError> {
        if stays_out(name) {
            return Ok(());
        }
        let name = name.to_string_lossy().into_owned();
        if let Some(first) = self.folders.insert(name.clone(), path.to_owned()) {
            return Err(PackError::FolderTwice { name, first, second: path.to_owned() });
        }
        self.tree(&name, path)
    }

    fn under(&mut self, dest: &str, path: &Path) -> Result<(), PackError> {
        let kind = fs::metadata(path).map_err(|e| PackError::os(path, e))?;
        if kind.is_file() {
            self.add(dest, path.file_name().unwrap_or_default(), path)
        } else if kind.is_dir() {
            self.tree(dest, path)
        } else {
            Err(PackError::InvalidExtra { path: path.to_owned() })
        }
    }

    /// All files below `root`, links followed.
    fn tree(&mut self, dest: &str, root: &Path) -> Result<(), PackError> {
        let walk = WalkDir::new(root).follow_links(true).min_depth(1).sort_by_file_name().into_iter();
        for item in walk.filter_entry(|item| !(item.file_type().is_dir() && stays_out(item.file_name()))) {
            let item = item.map_err(|error| walk_error(root, &error))?;
            if item.file_type().is_dir() {
                continue;
            }
            let inside = item.path().strip_prefix(root).unwrap_or(item.path());
            let folder = inside.parent().unwrap_or(Path::new(""));
            let folder = Path::new(dest).join(folder);
            if !item.file_type().is_file() {
                return Err(PackError::InvalidExtra { path: item.path().to_owned() });
            }
            self.add(&entry_name(&folder, item.path())?, item.file_name(), item.path())?;
        }
        Ok(())
    }

    fn add(&mut self, folder: &str, file_name: &OsStr, source: &Path) -> Result<(), PackError> {
        let name = entry_name(&Path::new(folder).join(file_name), source)?;
        if name == MANIFEST || name == SHA256SUMS {
            self.progress.warn(&Warning::Own { name, source_path: source.to_owned() });
            return Ok(());
        }
        if self.output.is_some() && fs::canonicalize(source).ok() == self.output {
            self.progress.warn(&Warning::Output { path: source.to_owned() });
            return Ok(());
        }
        let data = fs::metadata(source).map_err(|e| PackError::os(source, e))?;
        if !data.is_file() {
            return Err(PackError::InvalidExtra { path: source.to_owned() });
        }
        let executable = data.permissions().mode() & 0o111 != 0;
        let entry = Entry { name: name.clone(), source: source.to_owned(), size: data.len(), executable };
        if let Some(old) = self.entries.insert(name.clone(), entry).filter(|old| old.source != source) {
            let later = source.to_owned();
            self.progress.warn(&Warning::Replaced { name, earlier: old.source, later });
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Entry>, PackError> {
        for (name, entry) in &self.entries {
            let file = ancestors(name).find_map(|folder| self.entries.get(folder));
            if let Some(file) = file {
                return Err(PackError::FileAndFolder {
                    name: file.name.clone(),
                    file: file.source.clone(),
                    folder: entry.source.parent().unwrap_or(&entry.source).to_owned(),
                });
            }
        }
        Ok(self.entries.into_values().collect())
    }
}

/// The folders that an entry lies in.
pub(crate) fn ancestors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

fn entry_name(inside: &Path, source: &Path) -> Result<String, PackError> {
    let bytes = inside.as_os_str().as_encoded_bytes();
    if bytes.is_empty() {
        return Ok(String::new());
    }
    name::enclosed(bytes).map_err(|why| PackError::EntryName {
        path: source.to_owned(),
        name: inside.to_string_lossy().into_owned(),
        why,
    })
}

/// The paths that one item means.
fn expand(item: &str, progress: &dyn Progress) -> Result<Vec<PathBuf>, PackError> {
    let is_pattern = pattern::is_pattern(item);
    if !is_pattern && !Path::new(item).exists() {
        return Err(PackError::NoSuchExtra { path: item.to_owned() });
    }
    let found = pattern::expand(item.trim());
    if is_pattern && found.is_empty() {
        progress.warn(&Warning::NoMatch { pattern: item.to_owned() });
    }
    Ok(found)
}

fn children(folder: &Path) -> Result<Vec<PathBuf>, PackError> {
    let listed = fs::read_dir(folder).map_err(|e| PackError::os(folder, e))?;
    let mut paths = listed
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| PackError::os(folder, e))?;
    paths.sort();
    Ok(paths)
}

/// Folders that TorchServe leaves out. Files of such names go in.
fn stays_out(folder: &OsStr) -> bool {
    let name = folder.as_encoded_bytes();
    name == b"__MACOSX" || name == b"__pycache__" || name.starts_with(b".")
}

fn walk_error(root: &Path, error: &walkdir::Error) -> PackError {
    let path = error.path().unwrap_or(root).to_owned();
    let reason = match (error.loop_ancestor(), error.io_error()) {
        (Some(ancestor), _) => format!("is a link to {}, the folder that it lies in", ancestor.display()),
        (None, Some(io)) => io.to_string(),
        (None, None) => error.to_string(),
    };
    PackError::Walk { path, reason }
}
