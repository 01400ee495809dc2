//! Output that appears under its name only when it is complete.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempDir};

use crate::error::PackError;

/// A file in the making beside its final name; removed if dropped.
pub(crate) struct PendingFile {
    temp: NamedTempFile,
    path: PathBuf,
}

impl PendingFile {
    pub(crate) fn create(path: &Path) -> Result<Self, PackError> {
        // What the file gets under the user's umask.
        let mode = Permissions::from_mode(0o666);
        let temp = tempfile::Builder::new()
            .prefix(&temp_prefix(path))
            .suffix(".tmp")
            .permissions(mode)
            .tempfile_in(folder_of(path));
        match temp {
            Ok(temp) => Ok(Self { temp, path: path.to_owned() }),
            Err(source) => Err(PackError::Write { path: path.to_owned(), source }),
        }
    }

    /// A second handle for writing; both share the position.
    pub(crate) fn file(&self) -> Result<File, PackError> {
        self.temp.as_file().try_clone().map_err(|e| self.failed(e))
    }

    /// Makes it appear, after its bytes are on the disk.
    pub(crate) fn persist(self) -> Result<(), PackError> {
        self.temp.as_file().sync_all().map_err(|e| self.failed(e))?;
        let path = self.path;
        let failed = |source| PackError::Write { path: path.clone(), source };
        self.temp.persist(&path).map_err(|e| failed(e.error))?;
        sync_folder(folder_of(&path)).map_err(failed)
    }

    pub(crate) fn failed(&self, source: io::Error) -> PackError {
        PackError::Write { path: self.path.clone(), source }
    }
}

/// A folder in the making beside its final name; removed if dropped.
pub(crate) fn pending_folder(path: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new().prefix(&temp_prefix(path)).suffix(".tmp").tempdir_in(folder_of(path))
}

/// The folder that a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a rename in `folder` survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Gives a folder made by [`pending_folder`], private until now, the mode of an ordinary one.
pub(crate) fn open_up(folder: &Path) -> io::Result<()> {
    // The umask can't be read without changing it for all threads; a folder made beside shows it.
    let probe = folder.join(".mode");
    fs::create_dir(&probe)?;
    let mode = fs::metadata(&probe)?.permissions();
    fs::remove_dir(&probe)?;
    fs::set_permissions(folder, mode)
}

fn temp_prefix(path: &Path) -> String {
    format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy())
}
