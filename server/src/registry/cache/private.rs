//! A folder that belongs to one registration: handlers write into their model's folder.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;
use zoo_archiver::ReadError;
use zoo_archiver::progress::Progress;

use super::{CacheError, tree};

/// Up to this size a file is copied, so that handlers can change it: configuration, code, vocabularies.
/// Larger ones are weights, which are linked.
pub(super) const COPIED: u64 = 1 << 20;

/// Exists as long as the value does.
#[derive(Debug)]
pub(in crate::registry) struct PrivateDir {
    path: PathBuf,
}

impl PrivateDir {
    /// Makes the folder `path` from `tree`.
    pub(super) fn create(path: &Path, tree: &Path, progress: &dyn Progress) -> Result<Self, CacheError> {
        // From here on, an error removes what was made.
        let dir = Self { path: path.to_owned() };
        dir.fill(tree, path, progress)?;
        Ok(dir)
    }

    /// Where it is.
    pub(in crate::registry) fn path(&self) -> &Path {
        &self.path
    }

    fn fill(&self, from: &Path, to: &Path, progress: &dyn Progress) -> Result<(), CacheError> {
        DirBuilder::new().mode(0o700).create(to).map_err(CacheError::io("create", to))?;
        for entry in fs::read_dir(from).map_err(CacheError::io("list", from))? {
            if progress.cancelled() {
                return Err(ReadError::Cancelled { path: from.to_owned() }.into());
            }
            let entry = entry.map_err(CacheError::io("list", from))?;
            let target = to.join(entry.file_name());
            let data = entry.metadata().map_err(CacheError::io("read", from))?;
            if data.is_dir() {
                self.fill(&entry.path(), &target, progress)?;
            } else if data.len() <= COPIED {
                copy(&entry.path(), &target).map_err(CacheError::io("write", &target))?;
            } else {
                link(&entry.path(), &target).map_err(CacheError::io("write", &target))?;
            }
        }
        Ok(())
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.path) {
            warn!("can't remove {}: {error}; the next start will", self.path.display());
        }
    }
}

/// A copy that may be written to.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    let mut mode = fs::metadata(to)?.permissions();
    mode.set_mode(mode.mode() | 0o200);
    fs::set_permissions(to, mode)
}

/// A link, or a copy where the file system has no (more) links.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) => fs::copy(from, to).map(drop).map_err(|_| error),
    }
}

#[cfg(test)]
mod tests {
    use zoo_archiver::progress::Quiet;

    use super::*;

    #[test]
    fn an_error_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir_all(tree.join("a")).unwrap();
        std::os::unix::fs::symlink("nowhere", tree.join("a/dangling")).unwrap();
        let path = temp.path().join("private");
        assert!(PrivateDir::create(&path, &tree, &Quiet).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_cant_be_linked_is_copied() {
        let temp = tempfile::tempdir().unwrap();
        let from = temp.path().join("from");
        fs::write(&from, "weights").unwrap();
        // Another file system than the temporary folder's.
        let to = tempfile::tempdir_in("/dev/shm").unwrap();
        let target = to.path().join("to");
        link(&from, &target).unwrap();
        assert_eq!(fs::read_to_string(target).unwrap(), "weights");
    }
}
