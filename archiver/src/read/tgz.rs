//! Reads gzipped tars in one pass, as they come.

use std::{
    cell::Cell,
    io::{self, Read},
    path::Path,
    rc::Rc,
};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

use super::{
    Found, Limits, Visitor,
    content::Content,
    guard::{Guard, MANIFEST_LIMIT, check_metadata},
    is_metadata,
};
use crate::{MANIFEST, error::ReadError, progress::Quiet};

/// Bytes that headers may take before an entry: long names and PAX records, which the `tar` crate collects in
/// memory and would collect without end.
const HEADER_ALLOWANCE: u64 = 1 << 20;

pub(super) fn visit(
    reader: impl Read,
    guard: &mut Guard<'_>,
    visitor: &mut dyn Visitor,
) -> Result<(), ReadError> {
    guard.begin(0);
    let path = guard.path;
    let allowance = Allowance::default();
    let mut tar =
        tar::Archive::new(Metered { inner: MultiGzDecoder::new(reader), allowance: allowance.clone() });
    let mut entries = tar.entries().map_err(|e| damaged(path, "start", &e))?;
    let mut last = "its start".to_owned();
    loop {
        allowance.limit(HEADER_ALLOWANCE);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|e| damaged(path, &format!("header after {last}"), &e))?;
        allowance.lift();
        if let Some(name) = one(&mut entry, guard, visitor)? {
            last = format!("{name:?}");
        }
    }
    drain(tar.into_inner(), &allowance, guard)
}

/// The manifest of a tar, which is read up to there.
pub(super) fn manifest(
    reader: impl Read,
    path: &Path,
    limits: &Limits,
) -> Result<Option<Vec<u8>>, ReadError> {
    let mut guard = Guard::new(path, limits, None, &Quiet);
    let mut finder = Finder { path, manifest: None };
    match visit(reader, &mut guard, &mut finder) {
        // What lies behind the manifest isn't looked at.
        Err(ReadError::Cancelled { .. }) if finder.manifest.is_some() => Ok(finder.manifest),
        Err(error) => Err(error),
        Ok(()) => Ok(finder.manifest),
    }
}

/// Shows one entry; returns its name for the next error message.
fn one<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    guard: &mut Guard<'_>,
    visitor: &mut dyn Visitor,
) -> Result<Option<String>, ReadError> {
    let raw_name = entry.path_bytes().into_owned();
    let kind = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => None,
        EntryType::Directory => {
            guard.admit_folder(&raw_name)?.map_or(Ok(()), |name| visitor.folder(&name))?;
            return Ok(None);
        }
        // Comments of whoever packed, such as git's commit.
        EntryType::XGlobalHeader => return Ok(None),
        EntryType::Symlink | EntryType::Link => Some("a link"),
        EntryType::Block | EntryType::Char | EntryType::Fifo => Some("a device or pipe"),
        _ => Some("of an unknown kind"),
    };
    let name = guard.admit_file(&raw_name)?;
    if let Some(kind) = kind {
        return Err(ReadError::Kind { path: guard.path.to_owned(), entry: name, kind });
    }
    let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
    let size = entry.size();
    let found = Found { name, executable };
    visitor.file(&found, &mut Content::new(&found.name, entry, size, guard))?;
    Ok(Some(found.name))
}

/// Reads on to the end of the gzip stream, whose checksum stands there.
fn drain<R: Read>(mut rest: R, allowance: &Allowance, guard: &mut Guard<'_>) -> Result<(), ReadError> {
    let path = guard.path;
    allowance.lift();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => guard.spend(read as u64)?,
            Err(error) => return Err(damaged(path, "end", &error)),
        }
    }
}

/// Ends the visit when it has the manifest.
struct Finder<'a> {
    path: &'a Path,
    manifest: Option<Vec<u8>>,
}

impl Visitor for Finder<'_> {
    fn folder(&mut self, _name: &str) -> Result<(), ReadError> {
        Ok(())
    }

    fn file(&mut self, found: &Found, content: &mut Content<'_, '_>) -> Result<(), ReadError> {
        let wanted = is_metadata(&found.name, MANIFEST);
        if wanted {
            check_metadata(self.path, &found.name, content.size(), MANIFEST_LIMIT)?;
        }
        let mut bytes = Vec::new();
        while let Some(block) = content.next_block()? {
            if wanted {
                bytes.extend_from_slice(&block);
            }
        }
        if wanted {
            self.manifest = Some(bytes);
            return Err(ReadError::Cancelled { path: self.path.to_owned() });
        }
        Ok(())
    }
}

/// How many bytes may be read before somebody looks again.
#[derive(Clone, Default)]
struct Allowance(Rc<Cell<Option<u64>>>);

impl Allowance {
    fn limit(&self, bytes: u64) {
        self.0.set(Some(bytes));
    }

    fn lift(&self) {
        self.0.set(None);
    }
}

struct Metered<R> {
    inner: R,
    allowance: Allowance,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(left) = self.allowance.0.get() {
            let left = left.checked_sub(read as u64);
            let left = left.ok_or_else(|| {
                io::Error::other(format!("the headers of one entry take more than {HEADER_ALLOWANCE} bytes"))
            })?;
            self.allowance.limit(left);
        }
        Ok(read)
    }
}

fn damaged(path: &Path, place: &str, error: &io::Error) -> ReadError {
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the file ends too early".to_owned(),
        _ => error.to_string(),
    };
    ReadError::Corrupt { path: path.to_owned(), place: place.to_owned(), reason }
}
