//! Reads a model folder by the rules of an archive.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use walkdir::WalkDir;

use super::{Found, Visitor, content::Content, guard::Guard, read_small, top_folder};
use crate::{MANIFEST, error::ReadError};

pub(super) fn visit(root: &Path, guard: &mut Guard<'_>, visitor: &mut dyn Visitor) -> Result<(), ReadError> {
    for item in WalkDir::new(root).min_depth(1).sort_by_file_name() {
        let item = item.map_err(|e| ReadError::io(root, e.into()))?;
        let inside = item.path().strip_prefix(root).unwrap_or(item.path()).as_os_str().as_encoded_bytes();
        let kind = item.file_type();
        if kind.is_dir() {
            guard.admit_folder(inside)?.map_or(Ok(()), |name| visitor.folder(&name))?;
            continue;
        }
        let name = guard.admit_file(inside)?;
        if !kind.is_file() {
            let kind = if kind.is_symlink() { "a link" } else { "a device or socket" };
            return Err(ReadError::Kind { path: guard.path.to_owned(), entry: name, kind });
        }
        let failed = |e| ReadError::io(item.path(), e);
        let mut file = File::open(item.path()).map_err(failed)?;
        let data = file.metadata().map_err(failed)?;
        let found = Found { name, executable: data.permissions().mode() & 0o111 != 0 };
        let mut content = Content::new(&found.name, &mut file, data.len(), guard);
        visitor.file(&found, &mut content)?;
    }
    Ok(())
}

/// The manifest, at the root or in the one sub-folder.
pub(super) fn manifest(root: &Path) -> Result<Option<Vec<u8>>, ReadError> {
    let root = model_root(root).map_err(|e| ReadError::io(root, e))?;
    let path = root.join(MANIFEST);
    match File::open(&path) {
        Ok(file) => read_small(file, &root).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ReadError::io(&path, error)),
    }
}

/// Where the model of a folder begins: TorchServe goes down into a lone sub-folder.
///
/// # Errors
/// If the folder can't be listed.
pub fn model_root(folder: &Path) -> std::io::Result<std::path::PathBuf> {
    let mut names = Vec::new();
    for item in fs::read_dir(folder)? {
        let item = item?;
        let name = item.file_name().to_string_lossy().into_owned();
        // A folder shows by the slash that an entry below it would have.
        names.push(if fs::metadata(item.path())?.is_dir() { format!("{name}/") } else { name });
    }
    Ok(folder.join(top_folder(super::Form::Folder, names.iter().map(String::as_str))))
}
