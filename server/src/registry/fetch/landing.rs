//! Where a file lies while it arrives, and afterwards.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};
use tracing::{debug, warn};

/// How the names of files begin that aren't complete. Hidden, so that nothing lists them.
const PREFIX: &str = ".zoo-fetch-";
const SUFFIX: &str = ".part";

/// Whether a file of this name isn't complete.
pub(in crate::registry) fn is_partial(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// A file that arrives. Vanishes with the value.
#[derive(Debug)]
pub(super) struct Landing {
    file: NamedTempFile,
    store: PathBuf,
}

impl Landing {
    /// An empty one. It is locked, so that a server that starts can tell it from one that was left behind.
    pub(super) fn create(store: &Path) -> io::Result<Self> {
        let mut builder = Builder::new();
        // As other files in the store: the umask decides who reads it.
        builder.prefix(PREFIX).suffix(SUFFIX).permissions(fs::Permissions::from_mode(0o666));
        let file = builder.tempfile_in(store)?;
        if let Err(error) = file.as_file().try_lock() {
            debug!("can't lock {}: {error}", file.path().display());
        }
        Ok(Self { file, store: store.to_owned() })
    }

    /// To write to.
    pub(super) fn writer(&self) -> io::Result<File> {
        self.file.as_file().try_clone()
    }

    /// Refuses what wouldn't fit on the disk.
    pub(super) fn check_room(&self, bytes: u64) -> io::Result<()> {
        let disk = rustix::fs::statvfs(&self.store)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if bytes <= free {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::StorageFull, format!("{bytes} bytes don't fit, {free} are free")))
    }

    /// Gives a complete file its name, unless there is one of that name. Blocks.
    pub(super) fn settle(self, target: &Path) -> io::Result<Option<Download>> {
        self.file.as_file().sync_all()?;
        let data = self.file.as_file().metadata()?;
        match self.file.persist_noclobber(target) {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error.error),
        }
        // From here on, an error removes it.
        let download = Download { path: target.to_owned(), identity: (data.dev(), data.ino()), keep: false };
        File::open(&self.store)?.sync_all()?;
        Ok(Some(download))
    }
}

/// An archive that was fetched into the model store. Removed with the value, unless it is kept.
#[derive(Debug)]
pub(in crate::registry) struct Download {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    keep: bool,
}

impl Download {
    /// Where it is.
    pub(in crate::registry) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it in the store.
    pub(in crate::registry) fn keep(mut self) {
        self.keep = true;
    }

    fn remove(&self) -> io::Result<()> {
        let data = match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            data => data?,
        };
        // Somebody may have put another file there in the meantime.
        if (data.dev(), data.ino()) == self.identity { fs::remove_file(&self.path) } else { Ok(()) }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = self.remove() {
            warn!("can't remove {}: {error}", self.path.display());
        }
    }
}

/// Removes what servers that were killed left half-done in the model store.
pub(in crate::registry) fn sweep(store: &Path) {
    let Ok(entries) = fs::read_dir(store) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_str().is_some_and(is_partial) {
            continue;
        }
        let path = entry.path();
        // Whoever writes to it holds its lock.
        let abandoned = File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if abandoned && let Err(error) = fs::remove_file(&path) {
            warn!("can't remove {}: {error}", path.display());
        }
    }
}
