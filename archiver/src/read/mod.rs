//! Reads an archive: `open` → `extract`, or `stage` where the caller decides late about the name, or `check`.
//!
//! Whoever sends an archive may be hostile or have a bad disk. Every entry goes through `guard`: names that
//! stay below the root, plain files and folders only, no name twice, limits on count, size, ratio and disk; and
//! through `content`: lengths, CRC-32 and SHA-256. Nothing is visible under its final name before all of it
//! has passed, and nothing is left if it hasn't.

mod content;
mod folder;
mod guard;
mod index;
pub(crate) mod name;
mod stage;
mod tgz;
mod verify;
mod zip;

use std::{
    fs::{self, File},
    io::{self, Cursor, Read, Seek},
    path::{Path, PathBuf},
};

pub use folder::model_root;
pub use guard::Limits;
pub use index::{Contents, FileInfo};
pub use stage::{Extracted, Staged};
pub use verify::{Finding, Verified};

use crate::{
    MANIFEST,
    error::ReadError,
    manifest::Manifest,
    progress::Progress,
    read::{content::Content, guard::Guard, index::Index},
};

/// A model archive (`.mar`, `.tar.gz`) or model folder.
#[derive(Debug, Clone)]
pub struct Archive {
    path: PathBuf,
    form: Form,
    limits: Limits,
}

/// What an archive is made of. Told by its first bytes: the name may say anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A zip.
    Zip,
    /// A gzipped tar.
    TarGz,
    /// A folder.
    Folder,
}

/// An entry before its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Checked path below the root.
    pub(crate) name: String,
    pub(crate) executable: bool,
}

/// Told about each entry in the order of the archive.
pub(crate) trait Visitor {
    fn folder(&mut self, name: &str) -> Result<(), ReadError>;
    fn file(&mut self, found: &Found, content: &mut Content<'_, '_>) -> Result<(), ReadError>;
}

impl Archive {
    /// Opens an archive, which looks at its first bytes only.
    ///
    /// # Errors
    /// If it can't be opened, or is neither zip nor gzip nor folder.
    pub fn open(path: impl Into<PathBuf>, limits: Limits) -> Result<Self, ReadError> {
        let path = path.into();
        let form = sniff(&path)?;
        Ok(Self { path, form, limits })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is made of.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// Reads the manifest alone, without checking the rest. An archive may lack one, which stands for the
    /// defaults. Quick for zips and folders; a `.tar.gz` is read up to it.
    ///
    /// # Errors
    /// If the archive is damaged, or the manifest can't be understood.
    pub fn manifest(&self) -> Result<Option<Manifest>, ReadError> {
        let bytes = match self.form {
            Form::Folder => folder::manifest(&self.path)?,
            Form::Zip => zip::manifest(self.file()?, &self.path)?,
            Form::TarGz => tgz::manifest(self.file()?, &self.path, &self.limits)?,
        };
        parse_manifest(bytes.as_deref(), &self.path)
    }

    /// Reads and checks all of it, and says what is inside.
    ///
    /// # Errors
    /// If a rule is broken, a limit reached, or a byte damaged.
    pub fn contents(&self, progress: &dyn Progress) -> Result<Contents, ReadError> {
        let mut guard = Guard::new(&self.path, &self.limits, self.packed_size()?, progress);
        let mut index = Index::start(&self.path)?;
        self.visit(&mut guard, &mut index)?;
        index.finish(self.form)
    }

    /// Shows every entry to `visitor`, checked by `guard`.
    pub(crate) fn visit(&self, guard: &mut Guard<'_>, visitor: &mut dyn Visitor) -> Result<(), ReadError> {
        match self.form {
            Form::Folder => folder::visit(&self.path, guard, visitor),
            Form::Zip => zip::visit(self.file()?, guard, visitor),
            Form::TarGz => tgz::visit(self.file()?, guard, visitor),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of the archive, against which the ratio counts.
    pub(crate) fn packed_size(&self) -> Result<Option<u64>, ReadError> {
        match self.form {
            Form::Folder => Ok(None),
            Form::Zip | Form::TarGz => {
                Ok(Some(fs::metadata(&self.path).map_err(|e| ReadError::io(&self.path, e))?.len()))
            }
        }
    }

    fn file(&self) -> Result<File, ReadError> {
        File::open(&self.path).map_err(|e| ReadError::io(&self.path, e))
    }
}

pub(crate) fn parse_manifest(bytes: Option<&[u8]>, path: &Path) -> Result<Option<Manifest>, ReadError> {
    let manifest = bytes.map(Manifest::from_json).transpose();
    manifest.map_err(|source| ReadError::Manifest { path: path.to_owned(), source })
}

/// Reads and checks an archive that lies in memory.
pub(crate) fn contents_of_bytes(bytes: &[u8], limits: &Limits) -> Result<Contents, ReadError> {
    let path = Path::new("memory");
    let form = form_of(bytes, path)?;
    let mut guard = Guard::new(path, limits, Some(bytes.len() as u64), &crate::progress::Quiet);
    let mut index = Index::start(path)?;
    match form {
        Form::Zip => zip::visit(Cursor::new(bytes), &mut guard, &mut index)?,
        Form::TarGz | Form::Folder => tgz::visit(bytes, &mut guard, &mut index)?,
    }
    index.finish(form)
}

fn sniff(path: &Path) -> Result<Form, ReadError> {
    let failed = |e: io::Error| ReadError::io(path, e);
    let kind = fs::metadata(path).map_err(failed)?;
    if kind.is_dir() {
        return Ok(Form::Folder);
    }
    if !kind.is_file() {
        let reason = "it is neither a file nor a folder".to_owned();
        return Err(ReadError::NotAnArchive { path: path.to_owned(), reason });
    }
    let mut start = Vec::new();
    File::open(path).and_then(|file| file.take(4).read_to_end(&mut start)).map_err(failed)?;
    form_of(&start, path)
}

fn form_of(bytes: &[u8], path: &Path) -> Result<Form, ReadError> {
    let not = |reason: String| Err(ReadError::NotAnArchive { path: path.to_owned(), reason });
    match bytes {
        [b'P', b'K', ..] => Ok(Form::Zip),
        [0x1f, 0x8b, ..] => Ok(Form::TarGz),
        [] => not("it is empty".to_owned()),
        _ => not(format!(
            "it begins with \"{}\"; a .mar begins with \"PK\", a .tar.gz with \"\\x1f\\x8b\"",
            bytes[..bytes.len().min(4)].escape_ascii()
        )),
    }
}

/// Where an archive of one top folder really begins: that folder's name with a slash, or nothing.
/// Ours and SageMaker's `.tar.gz` have one; a zip never does.
pub(crate) fn top_folder<'a>(form: Form, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let Some(top) = names.next().and_then(|first| first.split_once('/')).map(|(top, _)| top) else {
        return String::new();
    };
    let inside = |name: &str| name.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
    if form != Form::Zip && format!("{top}/") != "MAR-INF/" && names.all(inside) {
        format!("{top}/")
    } else {
        String::new()
    }
}

/// Whether an entry of a stream is a manifest, at the root or in a top folder.
pub(crate) fn is_metadata(name: &str, which: &str) -> bool {
    name.strip_suffix(which).is_some_and(|top| top.is_empty() || top.find('/') == Some(top.len() - 1))
}

/// Reads at most `limit` bytes of a file that is kept in memory.
pub(crate) fn read_small(reader: impl Read, path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    let limit = guard::MANIFEST_LIMIT;
    let read = reader.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|e| ReadError::Corrupt {
        path: path.to_owned(),
        place: MANIFEST.into(),
        reason: e.to_string(),
    })?;
    guard::check_metadata(path, MANIFEST, bytes.len() as u64, limit)?;
    Ok(bytes)
}

/// Both, as the zip reader needs it.
pub(crate) trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}
