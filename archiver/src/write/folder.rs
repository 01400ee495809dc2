//! Sink for `no-archive`: a plain folder.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    Blocks, Head, Sink,
    output::{folder_of, open_up, pending_folder, sync_folder},
};
use crate::error::PackError;

/// Writes into a temporary sibling. An existing folder isn't replaced as a whole but file by file, as
/// TorchServe does: what else lies in it stays.
pub struct Folder {
    temp: TempDir,
    path: PathBuf,
    files: Vec<String>,
}

impl Folder {
    /// Begins a folder.
    ///
    /// # Errors
    /// If nothing can be written beside it, or a file has its name.
    pub fn create(path: &Path) -> Result<Self, PackError> {
        let failed = |source| PackError::Write { path: path.to_owned(), source };
        if path.is_file() {
            return Err(failed(std::io::Error::other("it is a file; remove it first")));
        }
        let temp = pending_folder(path).map_err(failed)?;
        open_up(temp.path()).map_err(failed)?;
        Ok(Self { temp, path: path.to_owned(), files: Vec::new() })
    }

    fn failed(&self, source: std::io::Error) -> PackError {
        PackError::Write { path: self.path.clone(), source }
    }

    fn merge(&self) -> std::io::Result<()> {
        for file in &self.files {
            let to = self.path.join(file);
            fs::create_dir_all(folder_of(&to))?;
            fs::rename(self.temp.path().join(file), to)?;
        }
        Ok(())
    }
}

impl Sink for Folder {
    fn file(&mut self, head: &Head, content: &mut Blocks<'_>) -> Result<(), PackError> {
        let path = self.temp.path().join(&head.name);
        fs::create_dir_all(folder_of(&path)).map_err(|e| self.failed(e))?;
        let mode = if head.executable { 0o777 } else { 0o666 };
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let mut file = file.map_err(|e| self.failed(e))?;
        while let Some(block) = content.next_block()? {
            file.write_all(&block).map_err(|e| self.failed(e))?;
        }
        self.files.push(head.name.clone());
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), PackError> {
        // One sync for all files: there may be thousands.
        let synced = File::open(self.temp.path()).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
        synced.map_err(|e| self.failed(e))?;
        if self.path.exists() {
            self.merge().map_err(|e| self.failed(e))?;
            return sync_folder(&self.path).map_err(|e| self.failed(e));
        }
        fs::rename(self.temp.path(), &self.path).map_err(|e| self.failed(e))?;
        sync_folder(folder_of(&self.path)).map_err(|e| self.failed(e))
    }
}
