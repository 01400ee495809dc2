//! Reads zips: the `zip` crate finds the entries, their bytes are inflated and checked here.

use std::{
    collections::HashSet,
    io::{Read, SeekFrom},
    path::Path,
};

use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::{Found, ReadSeek, Visitor, content::Content, guard::Guard, read_small};
use crate::{MANIFEST, error::ReadError};

const TYPE_MASK: u32 = 0o170_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_FOLDER: u32 = 0o040_000;
const TYPE_LINK: u32 = 0o120_000;

pub(super) fn visit<R: ReadSeek>(
    reader: R,
    guard: &mut Guard<'_>,
    visitor: &mut dyn Visitor,
) -> Result<(), ReadError> {
    let path = guard.path;
    let mut zip = open(reader, path)?;
    guard.check_entries(zip.len() as u64)?;
    if zip.has_duplicate_names() {
        return Err(duplicate(zip, path));
    }
    if zip.has_overlapping_entries().map_err(|e| damaged(path, "directory", &e))? {
        return Err(ReadError::Overlap { path: path.to_owned() });
    }
    let promised = (0..zip.len()).filter_map(|i| zip.by_index_data(i).ok()).map(|entry| entry.size());
    let promised = promised.fold(0, u64::saturating_add);
    guard.check_size(promised)?;
    guard.begin(promised);
    for i in 0..zip.len() {
        entry(&mut zip, i, guard, visitor)?;
    }
    Ok(())
}

/// The manifest of a zip, whose other entries aren't looked at.
pub(super) fn manifest<R: ReadSeek>(reader: R, path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
    let mut zip = open(reader, path)?;
    match zip.by_name(MANIFEST) {
        Ok(file) => read_small(file, path).map(Some),
        Err(ZipError::FileNotFound) => Ok(None),
        Err(error) => Err(damaged(path, MANIFEST, &error)),
    }
}

fn entry<R: ReadSeek>(
    zip: &mut ZipArchive<R>,
    i: usize,
    guard: &mut Guard<'_>,
    visitor: &mut dyn Visitor,
) -> Result<(), ReadError> {
    let path = guard.path;
    let mut file = zip.by_index_raw(i).map_err(|e| damaged(path, &format!("entry number {i}"), &e))?;
    let raw_name = file.name_raw().to_vec();
    let mode = file.unix_mode().unwrap_or(TYPE_FILE);
    let is_folder = raw_name.ends_with(b"/") || mode & TYPE_MASK == TYPE_FOLDER;
    if is_folder {
        return guard.admit_folder(&raw_name)?.map_or(Ok(()), |name| visitor.folder(&name));
    }
    let name = guard.admit_file(&raw_name)?;
    let refused = |kind| ReadError::Kind { path: path.to_owned(), entry: name.clone(), kind };
    match mode & TYPE_MASK {
        // Archivers without a notion of Unix leave the type at 0.
        TYPE_FILE | 0 => {}
        TYPE_LINK => return Err(refused("a link")),
        _ => return Err(refused("a device or socket")),
    }
    if file.encrypted() {
        return Err(refused("encrypted"));
    }
    let (size, crc, method) = (file.size(), file.crc32(), file.compression());
    let found = Found { name: name.clone(), executable: mode & 0o111 != 0 };
    let mut visit = |reader: &mut dyn Read| {
        visitor.file(&found, &mut Content::new(&found.name, reader, size, guard).with_crc(crc))
    };
    match method {
        CompressionMethod::Stored => visit(&mut file),
        CompressionMethod::Deflated => visit(&mut DeflateDecoder::new(file)),
        other => {
            Err(ReadError::Method { path: path.to_owned(), entry: name.clone(), method: other.to_string() })
        }
    }
}

fn open<R: ReadSeek>(mut reader: R, path: &Path) -> Result<ZipArchive<R>, ReadError> {
    let length = reader.seek(SeekFrom::End(0)).map_err(|e| ReadError::io(path, e))?;
    ZipArchive::new(reader).map_err(|error| match error {
        ZipError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            ReadError::io(path, error)
        }
        error => ReadError::NotAnArchive {
            path: path.to_owned(),
            reason: format!(
                "its {length} bytes have no sound zip directory at their end ({error}); is it cut off?"
            ),
        },
    })
}

/// Names the entry that appears twice. The crate, which keeps the last of them, only says that there is one.
fn duplicate<R: ReadSeek>(zip: ZipArchive<R>, path: &Path) -> ReadError {
    let start = zip.central_directory_start();
    let mut reader = zip.into_inner();
    let mut seen = HashSet::new();
    let mut names = || -> std::io::Result<Vec<u8>> {
        reader.seek(SeekFrom::Start(start))?;
        loop {
            let mut header = [0; 46];
            reader.read_exact(&mut header)?;
            let length = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
            let mut name = vec![0; usize::from(length(28))];
            reader.read_exact(&mut name)?;
            if !seen.insert(name.clone()) {
                return Ok(name);
            }
            reader.seek(SeekFrom::Current(i64::from(length(30)) + i64::from(length(32))))?;
        }
    };
    match names() {
        Ok(name) => {
            let entry = String::from_utf8_lossy(&name).into_owned();
            ReadError::Duplicate { path: path.to_owned(), entry }
        }
        Err(error) => ReadError::io(path, error),
    }
}

fn damaged(path: &Path, place: &str, error: &ZipError) -> ReadError {
    ReadError::Corrupt { path: path.to_owned(), place: place.to_owned(), reason: error.to_string() }
}
