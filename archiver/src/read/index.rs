//! What an archive holds: sizes and digests of all files, collected while they pass by.

use std::path::{Path, PathBuf};

use super::{
    Form, Found, Visitor,
    content::Content,
    guard::{MANIFEST_LIMIT, SUMS_LIMIT, check_metadata},
    is_metadata, parse_manifest, top_folder,
};
use crate::{
    MANIFEST, SHA256SUMS,
    digest::{BadSums, Block, Digest, HashThread, Pending, Sums},
    error::ReadError,
    manifest::Manifest,
};

/// An archive that has been read and checked as a whole.
#[derive(Debug, Clone)]
pub struct Contents {
    /// What it says about itself; an archive without a manifest stands for the defaults.
    pub manifest: Option<Manifest>,
    /// All files, sorted by name.
    pub files: Vec<FileInfo>,
    /// Identity of the content, whenever and however it was packed.
    pub digest: Digest,
    /// Whether the archive brought digests. Unless an error says otherwise they were found right.
    pub has_sums: bool,
    /// Files that the archive's digests don't list, if it brought any.
    pub unlisted: Vec<String>,
}

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Path below the root, a top folder removed.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Of its bytes.
    pub sha256: Digest,
    /// Whether the archive marks it as executable.
    pub executable: bool,
}

/// Collects [`Contents`].
pub(crate) struct Index {
    path: PathBuf,
    hash: HashThread,
    files: Vec<(Found, u64, Pending)>,
    manifest: Option<Vec<u8>>,
    sums: Option<Vec<u8>>,
}

impl Index {
    pub(crate) fn start(path: &Path) -> Result<Self, ReadError> {
        let hash = HashThread::start().map_err(|e| ReadError::io(path, e))?;
        Ok(Self { path: path.to_owned(), hash, files: Vec::new(), manifest: None, sums: None })
    }

    /// Takes in one file, showing each block to `also`.
    pub(crate) fn take(
        &mut self,
        found: &Found,
        content: &mut Content<'_, '_>,
        mut also: impl FnMut(&Block) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let mut kept = self.keeps(found, content.size())?.then(Vec::new);
        let mut size = 0;
        while let Some(block) = content.next_block()? {
            self.hash.update(&block).map_err(|e| ReadError::io(&self.path, e))?;
            size += block.len() as u64;
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(&block);
            }
            also(&block)?;
        }
        let digest = self.hash.end().map_err(|e| ReadError::io(&self.path, e))?;
        self.files.push((found.clone(), size, digest));
        if is_metadata(&found.name, MANIFEST) {
            self.manifest = kept;
        } else if kept.is_some() {
            self.sums = kept;
        }
        Ok(())
    }

    /// Whether a file is kept in memory too, if it isn't too large for that.
    fn keeps(&self, found: &Found, size: u64) -> Result<bool, ReadError> {
        let limit = match found.name.as_str() {
            name if is_metadata(name, MANIFEST) => MANIFEST_LIMIT,
            name if is_metadata(name, SHA256SUMS) => SUMS_LIMIT,
            _ => return Ok(false),
        };
        check_metadata(&self.path, &found.name, size, limit).map(|()| true)
    }

    /// Checks the whole; the first problem is the error.
    pub(crate) fn finish(self, form: Form) -> Result<Contents, ReadError> {
        let (contents, broken) = self.survey(form)?;
        broken.into_iter().next().map_or(Ok(contents), Err)
    }

    /// Checks the whole and returns every problem. A manifest that can't be understood counts as absent.
    pub(crate) fn survey(self, form: Form) -> Result<(Contents, Vec<ReadError>), ReadError> {
        let top = top_folder(form, self.files.iter().map(|(found, ..)| found.name.as_str()));
        let mut files = Vec::with_capacity(self.files.len());
        for (found, size, digest) in self.files {
            let sha256 = digest.wait().map_err(|e| ReadError::io(&self.path, e))?;
            let name = found.name[top.len()..].to_owned();
            files.push(FileInfo { name, size, sha256, executable: found.executable });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let found = Sums(files.iter().map(|file| (file.name.clone(), file.sha256)).collect());
        // One in a folder that isn't the top folder is just a file.
        let manifest = self.manifest.filter(|_| found.0.contains_key(MANIFEST));
        let sums = self.sums.filter(|_| found.0.contains_key(SHA256SUMS));
        let mut broken = Vec::new();
        let listed = sums.as_deref().map(|sums| parse(sums, &self.path)).transpose();
        let listed = listed.unwrap_or_else(|error| {
            broken.push(error);
            None
        });
        let unlisted = listed.map(|listed| compare(&listed, &found, &self.path, &mut broken));
        let parsed = parse_manifest(manifest.as_deref(), &self.path).unwrap_or_else(|error| {
            broken.push(error);
            None
        });
        let digest = found.content_digest(manifest.as_deref());
        let (has_sums, unlisted) = (sums.is_some(), unlisted.unwrap_or_default());
        Ok((Contents { manifest: parsed, digest, files, has_sums, unlisted }, broken))
    }
}

impl Visitor for Index {
    fn folder(&mut self, _name: &str) -> Result<(), ReadError> {
        Ok(())
    }

    fn file(&mut self, found: &Found, content: &mut Content<'_, '_>) -> Result<(), ReadError> {
        self.take(found, content, |_| Ok(()))
    }
}

fn parse(sums: &[u8], path: &Path) -> Result<Sums, ReadError> {
    let sums = match std::str::from_utf8(sums) {
        Ok(text) => Sums::parse(text),
        Err(error) => {
            let text = String::from_utf8_lossy(&sums[error.valid_up_to()..]).chars().take(40).collect();
            Err(BadSums { line: sums[..error.valid_up_to()].split(|b| *b == b'\n').count(), text })
        }
    };
    sums.map_err(|source| ReadError::Sums { path: path.to_owned(), source })
}

/// Every listed file must be there and be the same; says which files aren't listed.
fn compare(listed: &Sums, found: &Sums, path: &Path, broken: &mut Vec<ReadError>) -> Vec<String> {
    for (entry, expected) in &listed.0 {
        let (path, entry, expected) = (path.to_owned(), entry.clone(), *expected);
        match found.0.get(&entry) {
            None => broken.push(ReadError::Missing { path, entry }),
            Some(found) if *found != expected => {
                broken.push(ReadError::Digest { path, entry, expected, found: *found });
            }
            Some(_) => {}
        }
    }
    let unlisted = found.0.keys().filter(|name| *name != SHA256SUMS && !listed.0.contains_key(*name));
    unlisted.cloned().collect()
}
