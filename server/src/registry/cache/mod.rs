//! Unpacked archives: one read-only tree for each content, made once, and for each registration a folder of
//! its own.
//!
//! ```text
//! <cache>/lock                the server that uses the cache
//! <cache>/index.json          sizes and times of the trees; digests of files that were read before
//! <cache>/archives/<sha256>/  what an archive holds, read-only
//! <cache>/run/<n>-<name>/     what a model may write into; gone with the model, or with the next start
//! ```
//!
//! Trees may be dropped at any time: a model has its own copies, or links that keep what they point to. One whose
//! linked files were written to all the same is made anew before it is used again.
//! Everything here blocks. Knows files and digests, but neither models nor manifests.

mod index;
mod lock;
mod private;
mod shared;
mod tree;

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tracing::{debug, warn};
use zoo_archiver::progress::Progress;
use zoo_archiver::{Archive, Limits, ReadError};

use index::{Identity, Index};
use lock::CacheLock;
pub(super) use private::PrivateDir;
use shared::Shared;

/// Why the cache can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It belongs to a server that runs.
    #[error(
        "the cache {} is in use by the server with process id {pid}; stop that one, or give \
         this one a folder of its own with --cache-dir", path.display()
    )]
    InUse {
        /// The cache.
        path: PathBuf,
        /// The other server; `unknown` if it hasn't said.
        pid: String,
    },
    /// The file system refused.
    #[error("can't {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The archive is damaged or breaks a rule.
    #[error(transparent)]
    Archive(#[from] ReadError),
    /// The archive was written to in the meantime.
    #[error("{} changed while it was read; register it again when it is complete", path.display())]
    Changed {
        /// The archive.
        path: PathBuf,
    },
}

impl CacheError {
    /// For `map_err`: with what was tried, and on which path.
    fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// The cache of one server.
#[derive(Debug)]
pub(super) struct Cache {
    archives: PathBuf,
    run: PathBuf,
    index_file: PathBuf,
    index: Mutex<Index>,
    /// Trees that are being made or read. They aren't dropped; two that want the same one take turns.
    busy: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    limits: Limits,
    /// How many bytes of trees may stay.
    room: u64,
    next: AtomicU64,
    _lock: CacheLock,
}

impl Cache {
    /// Takes the cache for this server and sweeps what dead ones left.
    pub(super) fn open(root: &Path, room: u64, limits: Limits) -> Result<Self, CacheError> {
        let archives = root.join("archives");
        let run = root.join("run");
        private_folder(root)?;
        let lock = CacheLock::take(root)?;
        private_folder(&archives)?;
        private_folder(&run)?;
        let index_file = root.join("index.json");
        let mut index = Index::read(&index_file);
        sweep(&run, |_| false)?;
        sweep(&archives, |name| index.has(name))?;
        index.keep(|digest| archives.join(digest).is_dir());
        let (index, busy) = (Mutex::new(index), Mutex::default());
        let cache = Self {
            archives,
            run,
            index_file,
            index,
            busy,
            limits,
            room,
            next: AtomicU64::new(1),
            _lock: lock,
        };
        cache.make_room();
        Ok(cache)
    }

    /// A folder for `model` with what `archive` holds.
    pub(super) fn materialise(
        &self,
        model: &str,
        archive: &Path,
        progress: &dyn Progress,
    ) -> Result<PrivateDir, CacheError> {
        let digest = self.digest(archive, SystemTime::now(), progress)?;
        let turn = Arc::clone(self.busy.lock().entry(digest.hex.clone()).or_default());
        let made = {
            let _turn = turn.lock();
            self.tree(archive, &digest, progress).and_then(|tree| {
                let name = format!("{}-{}", self.next.fetch_add(1, Ordering::Relaxed), plain_name(model));
                PrivateDir::create(&self.run.join(name), &tree, progress)
            })
        };
        drop(turn);
        self.busy.lock().retain(|_, turn| Arc::strong_count(turn) > 1);
        self.make_room();
        made
    }

    /// The digest of a file, from memory if it was read before and has been left alone since.
    fn digest(&self, file: &Path, now: SystemTime, progress: &dyn Progress) -> Result<Digest, CacheError> {
        let identity = Identity::of(file)?;
        if let Some(hex) = self.index.lock().digest(&identity) {
            return Ok(Digest { hex, of: identity });
        }
        let hex = tree::digest(file, progress)?;
        if Identity::of(file)? != identity {
            return Err(CacheError::Changed { path: file.to_owned() });
        }
        // A file that was written a moment ago may be written again without its times showing it.
        if identity.is_settled(now) {
            self.change(|index| index.remember(identity, hex.clone()));
        }
        Ok(Digest { hex, of: identity })
    }

    /// The tree of an archive; unpacks if there is none. Only one caller for each digest at a time.
    fn tree(&self, archive: &Path, digest: &Digest, progress: &dyn Progress) -> Result<PathBuf, CacheError> {
        let path = self.archives.join(&digest.hex);
        let now = SystemTime::now();
        if self.is_whole(&path, &digest.hex) {
            self.change(|index| index.used(&digest.hex, now));
            return Ok(path);
        }
        debug!(archive = %archive.display(), sha256 = digest.hex, "unpacking");
        tree::remove(&path).map_err(CacheError::io("remove", &path))?;
        let staged = Archive::open(archive, self.limits.clone())?.stage(&self.archives, progress)?;
        // What was unpacked is what was hashed.
        if Identity::of(archive)? != digest.of {
            return Err(CacheError::Changed { path: archive.to_owned() });
        }
        let contents = staged.persist(&path)?.contents;
        tree::make_read_only(&path).map_err(CacheError::io("write-protect", &path))?;
        let bytes = contents.files.iter().map(|file| file.size).sum();
        let linked = contents.files.iter().filter(|file| file.size > private::COPIED);
        let shared = linked.map(|file| Shared::of(&path, &file.name)).collect::<io::Result<_>>();
        let shared = shared.map_err(CacheError::io("read", &path))?;
        self.change(|index| index.add(&digest.hex, bytes, shared, now));
        Ok(path)
    }

    /// Whether there is a tree, and nobody has written to it.
    fn is_whole(&self, tree: &Path, digest: &str) -> bool {
        let Some(shared) = self.index.lock().shared(digest) else { return false };
        let changed = shared.iter().find_map(|file| file.changed(tree));
        if let Some(what) = &changed {
            warn!(tree = %tree.display(), "{what}: a handler must not write to large files; unpacking again");
        }
        changed.is_none() && tree.is_dir()
    }

    /// Drops trees, the longest unused first, until the rest fits.
    fn make_room(&self) {
        let mut index = self.index.lock();
        let mut dropped = false;
        while let Some(digest) = index.surplus(self.room, |digest| self.busy.lock().contains_key(digest)) {
            let path = self.archives.join(&digest);
            debug!(tree = %path.display(), "dropping the longest unused archive");
            if let Err(error) = tree::remove(&path) {
                warn!("can't remove {}: {error}", path.display());
            }
            index.remove(&digest);
            dropped = true;
        }
        if dropped {
            self.save(&index);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Index)) {
        let mut index = self.index.lock();
        change(&mut index);
        self.save(&index);
    }

    /// Without an index the next start unpacks again, which is all that is lost.
    fn save(&self, index: &Index) {
        if let Err(error) = index.write(&self.index_file) {
            warn!("can't write {}: {error}", self.index_file.display());
        }
    }
}

/// A file's digest, and which state of the file it belongs to.
#[derive(Debug)]
struct Digest {
    hex: String,
    of: Identity,
}

/// Makes a folder that only this user may enter.
fn private_folder(path: &Path) -> Result<(), CacheError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(CacheError::io("create", path))
}

/// Removes what isn't worth keeping from a folder.
fn sweep(folder: &Path, keep: impl Fn(&str) -> bool) -> Result<(), CacheError> {
    for entry in fs::read_dir(folder).map_err(CacheError::io("list", folder))? {
        let entry = entry.map_err(CacheError::io("list", folder))?;
        if !entry.file_name().to_str().is_some_and(&keep) {
            let path = entry.path();
            debug!(path = %path.display(), "sweeping a leftover");
            tree::remove(&path).map_err(CacheError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// A model's name as part of a file's name, for people who look.
fn plain_name(model: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    model.chars().take(64).map(plain).collect()
}

#[cfg(test)]
mod tests;
