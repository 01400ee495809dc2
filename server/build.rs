//! Lists the files of the Python SDK for `src/sdk.rs`, which embeds them.
//!
//! A list of `include_bytes!` rather than a crate that embeds a folder whole: tests, caches and whatever lies beside
//! the packages stay out. Not compressed: a few hundred kilobytes that are compared with the disk at each start.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> io::Result<()> {
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let root = manifest_dir.join("../handler-sdk/python").canonicalize().map_err(|error| {
        io::Error::other(format!(
            "the Python SDK is missing: {}/../handler-sdk/python: {error}",
            manifest_dir.display()
        ))
    })?;
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    for path in sorted(&root)? {
        if path.is_dir() {
            // Packages; `tests` is none.
            if path.join("__init__.py").is_file() {
                collect(&path, &mut files)?;
            }
        } else if path.extension() == Some(OsStr::new("py")) {
            files.push(path);
        }
    }
    let mut list = String::from("&[\n");
    for path in files {
        let name = path.strip_prefix(&root).map_err(io::Error::other)?;
        writeln!(list, "    ({:?}, include_bytes!({:?})),", utf8(name)?, utf8(&path)?)
            .map_err(io::Error::other)?;
    }
    list.push_str("]\n");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(out_dir.join("sdk_files.rs"), list)
}

/// All files of a package but what Python makes of them.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for path in sorted(dir)? {
        if path.is_dir() {
            if path.file_name() != Some(OsStr::new("__pycache__")) {
                collect(&path, files)?;
            }
        } else if path.extension() != Some(OsStr::new("pyc")) {
            files.push(path);
        }
    }
    Ok(())
}

fn sorted(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn utf8(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::other(format!("the name of {} is not UTF-8", path.display())))
}
