//! What the cache remembers from one start to the next: its trees, and the digests of files it has read.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::CacheError;
use super::shared::Shared;

/// How many digests are remembered. Far more than a model store has archives.
const MAX_DIGESTS: usize = 4096;
/// After this long, a file system shows a further change in the file's times. Network file systems count in
/// seconds.
const SETTLED: Duration = Duration::from_secs(2);

/// A state of a file, as far as the system can tell states apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(path: &Path) -> Result<Self, CacheError> {
        let data = fs::metadata(path).map_err(CacheError::io("read", path))?;
        Ok(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }

    #[cfg(test)]
    pub(super) fn with_inode(self, inode: u64) -> Self {
        Self { inode, ..self }
    }

    /// Whether a change from now on would give another identity.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let latest = self.modified.0.max(self.changed.0);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(now.as_secs()).is_ok_and(|now| now - latest >= SETTLED.as_secs().cast_signed())
    }
}

/// What is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    /// By digest.
    trees: HashMap<String, Tree>,
    /// The latest one last.
    digests: Vec<Known>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Tree {
    bytes: u64,
    used: SystemTime,
    /// The files that models share.
    #[serde(default)]
    shared: Vec<Shared>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    file: Identity,
    digest: String,
}

impl Index {
    /// Reads what the last server wrote; nothing if it can't be read.
    pub(super) fn read(path: &Path) -> Self {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                warn!("can't read {}: {error}; archives will be unpacked again", path.display());
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            warn!("{} is damaged: {error}; archives will be unpacked again", path.display());
            Self::default()
        })
    }

    /// Writes it whole or not at all.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("json.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    }

    pub(super) fn has(&self, digest: &str) -> bool {
        self.trees.contains_key(digest)
    }

    pub(super) fn add(&mut self, digest: &str, bytes: u64, shared: Vec<Shared>, now: SystemTime) {
        self.trees.insert(digest.to_owned(), Tree { bytes, used: now, shared });
    }

    /// The files of a tree that models share; `None` if there is no such tree.
    pub(super) fn shared(&self, digest: &str) -> Option<Vec<Shared>> {
        self.trees.get(digest).map(|tree| tree.shared.clone())
    }

    pub(super) fn used(&mut self, digest: &str, now: SystemTime) {
        if let Some(tree) = self.trees.get_mut(digest) {
            tree.used = now;
        }
    }

    pub(super) fn remove(&mut self, digest: &str) {
        self.trees.remove(digest);
    }

    /// Forgets the trees that aren't there.
    pub(super) fn keep(&mut self, there: impl Fn(&str) -> bool) {
        self.trees.retain(|digest, _| there(digest));
    }

    /// The tree to drop next, if all together are larger than `room`: the longest unused that isn't busy.
    pub(super) fn surplus(&self, room: u64, busy: impl Fn(&str) -> bool) -> Option<String> {
        let all: u64 = self.trees.values().map(|tree| tree.bytes).sum();
        if all <= room {
            return None;
        }
        let idle = self.trees.iter().filter(|(digest, _)| !busy(digest));
        idle.min_by_key(|(_, tree)| tree.used).map(|(digest, _)| digest.clone())
    }

    pub(super) fn digest(&self, file: &Identity) -> Option<String> {
        self.digests.iter().find(|known| known.file == *file).map(|known| known.digest.clone())
    }

    pub(super) fn remember(&mut self, file: Identity, digest: String) {
        // Another state of the same file can't come back.
        self.digests.retain(|known| (known.file.device, known.file.inode) != (file.device, file.inode));
        if self.digests.len() >= MAX_DIGESTS {
            self.digests.remove(0);
        }
        self.digests.push(Known { file, digest });
    }
}
