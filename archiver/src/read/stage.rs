//! Extraction: into a temporary folder beside the destination, and by one rename into place.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{Archive, Contents, Found, Visitor, content::Content, guard::Guard, index::Index, top_folder};
use crate::{
    error::ReadError,
    manifest::Runtime,
    progress::Progress,
    write::output::{folder_of, sync_folder},
};

/// An archive that lies checked and unpacked in a temporary folder, which vanishes if this is dropped.
#[derive(Debug)]
pub struct Staged {
    temp: TempDir,
    /// Where the model begins inside the temporary folder.
    root: PathBuf,
    contents: Contents,
}

/// An archive that has been extracted.
#[derive(Debug, Clone)]
pub struct Extracted {
    /// The folder.
    pub path: PathBuf,
    /// What is in it.
    pub contents: Contents,
}

impl Archive {
    /// Extracts into `destination`, which must not exist.
    ///
    /// # Errors
    /// If a rule is broken, a limit reached, a byte damaged, or nothing can be written. Then nothing is left.
    pub fn extract(&self, destination: &Path, progress: &dyn Progress) -> Result<Extracted, ReadError> {
        refuse_existing(destination)?;
        self.stage(folder_of(destination), progress)?.persist(destination)
    }

    /// Extracts into a temporary folder in `parent`. For whoever names the folder by its content.
    ///
    /// # Errors
    /// As [`Archive::extract`].
    pub fn stage(&self, parent: &Path, progress: &dyn Progress) -> Result<Staged, ReadError> {
        let failed = |e| ReadError::io(parent, e);
        let temp =
            tempfile::Builder::new().prefix(".unpack.").suffix(".tmp").tempdir_in(parent).map_err(failed)?;
        let free = free_bytes(parent).map_err(failed)?;
        let mut guard =
            Guard::new(self.path(), self.limits(), self.packed_size()?, progress).with_disk(parent, free);
        // One level down, because the temporary folder itself is private and can't be the model's.
        let unpacked = temp.path().join("root");
        fs::create_dir(&unpacked).map_err(failed)?;
        let index = Index::start(self.path())?;
        let mut unpacker = Unpacker { index, root: unpacked, names: Vec::new() };
        self.visit(&mut guard, &mut unpacker)?;
        let top = top_folder(self.form(), unpacker.names.iter().map(String::as_str));
        let contents = unpacker.index.finish(self.form())?;
        let root = unpacker.root.join(top);
        set_modes(&root, &contents).map_err(failed)?;
        Ok(Staged { temp, root, contents })
    }
}

impl Staged {
    /// What is in it.
    #[must_use]
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Where the model lies now.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Moves it to its name, on the same file system.
    ///
    /// # Errors
    /// If there is something already, or it can't be moved.
    pub fn persist(self, destination: &Path) -> Result<Extracted, ReadError> {
        refuse_existing(destination)?;
        let failed = |e| ReadError::io(destination, e);
        fs::rename(&self.root, destination).map_err(failed)?;
        sync_folder(folder_of(destination)).map_err(failed)?;
        drop(self.temp);
        Ok(Extracted { path: destination.to_owned(), contents: self.contents })
    }
}

fn refuse_existing(destination: &Path) -> Result<(), ReadError> {
    match destination.symlink_metadata() {
        Ok(_) => Err(ReadError::DestinationExists { path: destination.to_owned() }),
        Err(_) => Ok(()),
    }
}

fn free_bytes(folder: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Writes what it is shown.
struct Unpacker {
    index: Index,
    root: PathBuf,
    names: Vec<String>,
}

impl Unpacker {
    fn create(&self, name: &str) -> Result<(PathBuf, File), ReadError> {
        let path = self.root.join(name);
        fs::create_dir_all(folder_of(&path)).map_err(|e| ReadError::io(&path, e))?;
        // Never through something that lies there, and never with a mode from the archive.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path);
        let file = file.map_err(|e| ReadError::io(&path, e))?;
        Ok((path, file))
    }
}

impl Visitor for Unpacker {
    fn folder(&mut self, name: &str) -> Result<(), ReadError> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(|e| ReadError::io(&path, e))
    }

    fn file(&mut self, found: &Found, content: &mut Content<'_, '_>) -> Result<(), ReadError> {
        let (path, mut file) = self.create(&found.name)?;
        self.names.push(found.name.clone());
        self.index.take(found, content, |block| file.write_all(block).map_err(|e| ReadError::io(&path, e)))
    }
}

/// Only a native archive has anything to execute: its handler, and what it marks.
fn set_modes(root: &Path, contents: &Contents) -> std::io::Result<()> {
    let Some(manifest) = contents.manifest.as_ref().filter(|manifest| manifest.runtime == Runtime::Native)
    else {
        return Ok(());
    };
    let handler = manifest.model.handler.as_deref();
    for file in contents.files.iter().filter(|file| file.executable || Some(file.name.as_str()) == handler) {
        make_executable(&root.join(&file.name))?;
    }
    Ok(())
}

/// Lets everybody execute who may read.
fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut mode = fs::metadata(path)?.permissions();
    mode.set_mode(mode.mode() | (mode.mode() & 0o444) >> 2);
    fs::set_permissions(path, mode)
}
