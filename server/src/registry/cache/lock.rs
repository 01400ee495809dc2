//! One server for each cache: a lock that ends with the process that holds it, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::CacheError;

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct CacheLock {
    _file: File,
}

impl CacheLock {
    /// Takes the lock of the cache at `root`.
    pub(super) fn take(root: &Path) -> Result<Self, CacheError> {
        let path = root.join("lock");
        // Not truncated: it may say who holds it.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(CacheError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CacheError::InUse { path: root.to_owned(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(CacheError::io("lock", &path)(error)),
        }
        let pid = std::process::id();
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{pid}"));
        written.map_err(CacheError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    let pid = text.trim();
    if read.is_ok() && !pid.is_empty() { pid.to_owned() } else { "unknown".to_owned() }
}
