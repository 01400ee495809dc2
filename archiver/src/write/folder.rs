//! Sink for `no-archive`: a plain folder.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use walkdir::WalkDir;

use super::{
    Blocks, Head, Sink,
    output::{folder_of, open_up, pending_folder, sync_folder},
};
use crate::{
    SHA256SUMS,
    digest::{Digest, Sums},
    error::PackError,
    read::name,
};

/// Writes into a temporary sibling. An existing folder isn't replaced as a whole but file by file, as
/// TorchServe does: what else lies in it stays.
pub struct Folder {
    temp: TempDir,
    path: PathBuf,
    files: BTreeSet<String>,
}

impl Folder {
    /// Begins a folder.
    ///
    /// # Errors
    /// If nothing can be written beside it, or a file has its name.
    pub fn create(path: &Path) -> Result<Self, PackError> {
        let failed = |source| PackError::Write { path: path.to_owned(), source };
        if path.is_file() {
            return Err(failed(io::Error::other("it is a file; remove it first")));
        }
        let temp = pending_folder(path).map_err(failed)?;
        open_up(temp.path()).map_err(failed)?;
        Ok(Self { temp, path: path.to_owned(), files: BTreeSet::new() })
    }

    fn failed(&self, source: io::Error) -> PackError {
        PackError::Write { path: self.path.clone(), source }
    }

    fn merge(&self) -> io::Result<()> {
        self.list_stale()?;
        for file in &self.files {
            let to = self.path.join(file);
            fs::create_dir_all(folder_of(&to))?;
            fs::rename(self.temp.path().join(file), to)?;
        }
        Ok(())
    }

    /// Adds what stays in the folder to the digests, which speak of all that lies there.
    fn list_stale(&self) -> io::Result<()> {
        let sums = self.temp.path().join(SHA256SUMS);
        let text = fs::read_to_string(&sums)?;
        let mut all = Sums::parse(&text).map_err(io::Error::other)?;
        for item in WalkDir::new(&self.path).min_depth(1) {
            let item = item?;
            let inside = item.path().strip_prefix(&self.path).unwrap_or(item.path()).as_os_str();
            match name::enclosed(inside.as_encoded_bytes()) {
                Ok(name) if item.file_type().is_file() && !self.files.contains(&name) => {
                    all.0.insert(name, Digest::of_reader(File::open(item.path())?)?);
                }
                // Ours are listed already; links and odd names are refused by every reader anyway.
                Ok(_) | Err(_) => {}
            }
        }
        fs::write(sums, all.to_string())
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
        self.files.insert(head.name.clone());
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
