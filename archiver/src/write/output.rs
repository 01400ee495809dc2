//! Output that appears under its name only when it is complete.

use std::{
    fs::{self, File, Permissions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
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

    /// A handle for writing, whose bytes are on their way to the disk while more are written.
    pub(crate) fn writer(&self) -> Result<EagerFile, PackError> {
        let file = self.temp.as_file().try_clone();
        file.and_then(EagerFile::start).map_err(|e| self.failed(e))
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

/// A file whose bytes a second thread pushes to the disk as they come, so that little is left to wait for when
/// it is complete.
pub(crate) struct EagerFile {
    file: File,
    /// Bytes since the thread was last told.
    fresh: usize,
    ticks: SyncSender<()>,
    flusher: JoinHandle<io::Result<()>>,
}

/// Bytes that are worth a push.
const PUSH: usize = 32 << 20;

impl EagerFile {
    fn start(file: File) -> io::Result<Self> {
        let (ticks, inbox) = sync_channel(1);
        let same = file.try_clone()?;
        let push = move || inbox.into_iter().try_for_each(|()| same.sync_data());
        let flusher = thread::Builder::new().name("flush".into()).spawn(push)?;
        Ok(Self { file, fresh: 0, ticks, flusher })
    }

    /// Ends the thread. The system reports a failed write once only, so its errors must not be lost.
    pub(crate) fn finish(self) -> io::Result<()> {
        drop(self.ticks);
        self.flusher.join().unwrap_or_else(|_| Err(io::Error::other("the flushing thread has ended")))
    }
}

impl Write for EagerFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.fresh += written;
        if self.fresh >= PUSH {
            self.fresh = 0;
            // If it is still pushing, it will be told again after as many bytes.
            let _told = self.ticks.try_send(());
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for EagerFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
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
