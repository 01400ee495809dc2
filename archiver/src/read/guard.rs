//! What may come out of an archive: limits, and the rules that concern more than one entry.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::name;
use crate::{collect::ancestors, error::ReadError, progress::Progress};

/// What an archive may cost the one who unpacks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Files and folders.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Bytes out per byte in …
    pub ratio: u64,
    /// … which counts from this many bytes on, so that a small file of zeros passes.
    pub ratio_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 100_000, bytes: 64 << 30, ratio: 200, ratio_from: 1 << 30 }
    }
}

/// Bytes of a manifest: it is kept in memory.
pub(crate) const MANIFEST_LIMIT: u64 = 1 << 20;
/// Bytes of `SHA256SUMS`, kept in memory too: 100 000 lines with long names.
pub(crate) const SUMS_LIMIT: u64 = 64 << 20;

/// Refuses a file that would be kept in memory, but is too large for that.
pub(crate) fn check_metadata(path: &Path, entry: &str, size: u64, limit: u64) -> Result<(), ReadError> {
    if size > limit {
        return Err(ReadError::Metadata { path: path.to_owned(), entry: entry.to_owned(), size, limit });
    }
    Ok(())
}

/// Keeps count while an archive is read.
pub(crate) struct Guard<'a> {
    pub(crate) path: &'a Path,
    limits: &'a Limits,
    packed: Option<u64>,
    disk: Option<(PathBuf, u64)>,
    progress: &'a dyn Progress,
    seen: HashMap<String, Kind>,
    entries: u64,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    /// A folder that has an entry of its own.
    Folder,
    /// A folder known from the path of another entry.
    Implied,
}

impl<'a> Guard<'a> {
    pub(crate) fn new(
        path: &'a Path,
        limits: &'a Limits,
        packed: Option<u64>,
        progress: &'a dyn Progress,
    ) -> Self {
        let seen = HashMap::new();
        Self { path, limits, packed, disk: None, progress, seen, entries: 0, bytes: 0 }
    }

    /// Also stays within the `free` bytes of the file system of `disk`.
    pub(crate) fn with_disk(mut self, disk: &Path, free: u64) -> Self {
        self.disk = Some((disk.to_owned(), free));
        self
    }

    pub(crate) fn begin(&self, total: u64) {
        self.progress.begin(total);
    }

    /// The checked name of a file.
    pub(crate) fn admit_file(&mut self, raw: &[u8]) -> Result<String, ReadError> {
        self.admit(raw, Kind::File)
    }

    /// The checked name of a folder; `None` for the root itself.
    pub(crate) fn admit_folder(&mut self, raw: &[u8]) -> Result<Option<String>, ReadError> {
        if matches!(raw, b"." | b"./") {
            return self.count().map(|()| None);
        }
        self.admit(raw, Kind::Folder).map(Some)
    }

    fn admit(&mut self, raw: &[u8], kind: Kind) -> Result<String, ReadError> {
        self.count()?;
        let path = || self.path.to_owned();
        let lossy = || String::from_utf8_lossy(raw).into_owned();
        let name =
            name::enclosed(raw).map_err(|why| ReadError::Name { path: path(), entry: lossy(), why })?;
        for folder in ancestors(&name) {
            match self.seen.get(folder) {
                Some(Kind::File) => {
                    return Err(ReadError::FileAndFolder { path: path(), entry: folder.to_owned() });
                }
                Some(Kind::Folder | Kind::Implied) => {}
                None => drop(self.seen.insert(folder.to_owned(), Kind::Implied)),
            }
        }
        match (self.seen.insert(name.clone(), kind), kind) {
            (None, _) | (Some(Kind::Implied), Kind::Folder) => Ok(name),
            (Some(Kind::File), Kind::File) | (Some(Kind::Folder), Kind::Folder) => {
                Err(ReadError::Duplicate { path: path(), entry: name })
            }
            _ => Err(ReadError::FileAndFolder { path: path(), entry: name }),
        }
    }

    fn count(&mut self) -> Result<(), ReadError> {
        self.entries += 1;
        self.check_entries(self.entries)
    }

    /// Refuses a number of entries that a header promises.
    pub(crate) fn check_entries(&self, found: u64) -> Result<(), ReadError> {
        let limit = self.limits.entries;
        if found > limit {
            return Err(ReadError::TooManyEntries { path: self.path.to_owned(), found, limit });
        }
        Ok(())
    }

    /// Counts bytes that have come out.
    pub(crate) fn spend(&mut self, bytes: u64) -> Result<(), ReadError> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.progress.advance(bytes);
        if self.progress.cancelled() {
            return Err(ReadError::Cancelled { path: self.path.to_owned() });
        }
        self.check_size(self.bytes)
    }

    /// Refuses a size, counted or promised.
    pub(crate) fn check_size(&self, size: u64) -> Result<(), ReadError> {
        let path = || self.path.to_owned();
        let Limits { bytes, ratio, ratio_from, .. } = *self.limits;
        if size > bytes {
            return Err(ReadError::TooLarge { path: path(), size, limit: bytes });
        }
        if let Some((disk, free)) = self.disk.as_ref().filter(|(_, free)| size > *free) {
            return Err(ReadError::NoSpace { path: path(), size, disk: disk.clone(), free: *free });
        }
        match self.packed {
            Some(packed) if size > ratio_from && size / ratio.max(1) > packed => {
                Err(ReadError::Ratio { path: path(), packed, size, limit: ratio })
            }
            _ => Ok(()),
        }
    }
}
