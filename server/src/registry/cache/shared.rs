//! Files that a tree shares with models' folders by links, and whether they are still what was unpacked.
//!
//! They are write-protected, but not against root, nor against an owner who lifts the protection.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A file as it was when it was unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shared {
    /// Below the tree.
    name: String,
    state: State,
}

/// Without the time of the last change of the inode: each new link changes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    inode: u64,
    size: u64,
    mode: u32,
    modified: (i64, i64),
}

impl State {
    fn of(path: &Path) -> io::Result<Self> {
        let data = fs::symlink_metadata(path)?;
        let modified = (data.mtime(), data.mtime_nsec());
        Ok(Self { inode: data.ino(), size: data.size(), mode: data.mode(), modified })
    }
}

impl Shared {
    /// The present state of a file of `tree`.
    pub(super) fn of(tree: &Path, name: &str) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), state: State::of(&tree.join(name))? })
    }

    /// What has become of it, if it isn't what it was.
    pub(super) fn changed(&self, tree: &Path) -> Option<String> {
        match State::of(&tree.join(&self.name)) {
            Ok(state) if state == self.state => None,
            Ok(_) => Some(format!("{} was changed", self.name)),
            Err(error) => Some(format!("{}: {error}", self.name)),
        }
    }
}
