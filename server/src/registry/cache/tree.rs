//! What the cache does with whole trees of files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use zoo_archiver::ReadError;
use zoo_archiver::progress::Progress;

use super::CacheError;

/// How much is read at once.
const BLOCK: usize = 256 << 10;

/// The SHA-256 of a file, in hexadecimal.
pub(super) fn digest(path: &Path, progress: &dyn Progress) -> Result<String, CacheError> {
    let mut file = File::open(path).map_err(CacheError::io("read", path))?;
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        if progress.cancelled() {
            return Err(ReadError::Cancelled { path: path.to_owned() }.into());
        }
        let read = file.read(&mut block).map_err(CacheError::io("read", path))?;
        if read == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&block[..read]);
    }
}

/// Takes away everybody's right to write, the owner's too.
pub(super) fn make_read_only(path: &Path) -> io::Result<()> {
    let data = fs::symlink_metadata(path)?;
    if data.is_dir() {
        for entry in fs::read_dir(path)? {
            make_read_only(&entry?.path())?;
        }
    }
    set_mode(path, data.permissions().mode() & !0o222)
}

/// Removes a tree or file, write-protected or not. It is no error if there is none.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let data = match fs::symlink_metadata(path) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !data.is_dir() {
        return fs::remove_file(path);
    }
    make_folders_writable(path)?;
    fs::remove_dir_all(path)
}

fn make_folders_writable(path: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(path)?.permissions().mode();
    if mode & 0o700 != 0o700 {
        set_mode(path, mode | 0o700)?;
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_folders_writable(&entry.path())?;
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
