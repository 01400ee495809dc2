//! Why packing or reading failed. Each variant carries the file and both values, and reads as one line.
//!
//! Where `torch-model-archiver` fails too, the text is that of its exception, because scripts look for it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::{
    digest::{BadSums, Digest},
    manifest::ManifestError,
    spec::Noun,
};

/// Why an archive couldn't be packed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text beside each variant says what its fields are")]
pub enum PackError {
    #[error(
        "{} name contains special characters.\nThe allowed regular expression filter for {noun} name is: \
         ^[A-Za-z0-9][A-Za-z0-9_\\-.]*$",
        capital(*noun)
    )]
    Name { name: String, noun: Noun },
    #[error(
        "Given export-path {} is not a directory. Point to a valid export-path directory.",
        path.display()
    )]
    ExportPath { path: PathBuf },
    #[error(
        "{} already exists.\nPlease specify --force/-f option to overwrite the {noun} archive output file.\n\
         See -h/--help for more details.",
        path.display()
    )]
    Exists { path: PathBuf, noun: Noun },
    #[error("File does not exist: {path}")]
    NoSuchExtra { path: String },
    #[error("Invalid extra file given {}", path.display())]
    InvalidExtra { path: PathBuf },
    /// In Python's words, so that it equals the last line of the peer's traceback.
    #[error("[Errno {}] {}: {}", source.raw_os_error().unwrap_or_default(), os_text(source), Quoted(path))]
    Os { path: PathBuf, source: io::Error },
    #[error("{}: {reason}", path.display())]
    Walk { path: PathBuf, reason: String },
    #[error(
        "--extra-files: {} and {} both bring a folder {name:?}; put one elsewhere with DEST/=PATH",
        first.display(), second.display()
    )]
    FolderTwice { name: String, first: PathBuf, second: PathBuf },
    #[error(
        "{} would be both a file ({}) and a folder ({}) in the archive; rename one, or use DEST/=PATH",
        name, file.display(), folder.display()
    )]
    FileAndFolder { name: String, file: PathBuf, folder: PathBuf },
    #[error("{}: can't be packed under the name {name:?}: {why}; rename it", path.display())]
    EntryName { path: PathBuf, name: String, why: BadName },
    #[error("--extra-files {dest}/=…: {why}; give a relative folder such as assets")]
    ExtraDest { dest: String, why: BadName },
    #[error("--runtime {runtime} needs {flag}")]
    Needs { runtime: &'static str, flag: &'static str },
    #[error("{} isn't executable (mode {mode:o}); run chmod +x on it", path.display())]
    NotExecutable { path: PathBuf, mode: u32 },
    #[error(
        "{} is built for {found}, but the target is {target}; name its target triple with --target",
        path.display()
    )]
    Target { path: PathBuf, found: String, target: String },
    #[error("SOURCE_DATE_EPOCH is {value:?}; it must be a number of seconds since 1970")]
    SourceDateEpoch { value: String },
    #[error("{} changed while it was packed: expected {expected} bytes, read {read}", path.display())]
    Changed { path: PathBuf, expected: u64, read: u64 },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: cancelled", path.display())]
    Cancelled { path: PathBuf },
}

/// Why an archive couldn't be read, or was refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text beside each variant says what its fields are")]
pub enum ReadError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is no archive: {reason}", path.display())]
    NotAnArchive { path: PathBuf, reason: String },
    #[error("{}: entry {entry:?} is refused: {why}", path.display())]
    Name { path: PathBuf, entry: String, why: BadName },
    #[error("{}: entry {entry:?} is {kind}; only plain files and folders are allowed", path.display())]
    Kind { path: PathBuf, entry: String, kind: &'static str },
    #[error("{}: entry {entry:?} appears twice", path.display())]
    Duplicate { path: PathBuf, entry: String },
    #[error("{}: {entry:?} is both a file and a folder", path.display())]
    FileAndFolder { path: PathBuf, entry: String },
    #[error("{}: entries share bytes of the archive (a zip bomb, or damage)", path.display())]
    Overlap { path: PathBuf },
    #[error("{}: has {found} entries; the limit is {limit}", path.display())]
    TooManyEntries { path: PathBuf, found: u64, limit: u64 },
    #[error("{}: unpacks to {size} bytes or more; the limit is {limit}", path.display())]
    TooLarge { path: PathBuf, size: u64, limit: u64 },
    #[error("{}: unpacks to {size} bytes or more; {} has {free} free", path.display(), disk.display())]
    NoSpace { path: PathBuf, size: u64, disk: PathBuf, free: u64 },
    #[error(
        "{}: unpacks from {packed} to {size} bytes or more, above the limit of {limit}:1 (a zip bomb?)",
        path.display()
    )]
    Ratio { path: PathBuf, packed: u64, size: u64, limit: u64 },
    #[error("{}: {entry:?} has {size} bytes; the limit is {limit}", path.display())]
    Metadata { path: PathBuf, entry: String, size: u64, limit: u64 },
    #[error("{}: entry {entry:?} is packed by {method}; only store and deflate are known", path.display())]
    Method { path: PathBuf, entry: String, method: String },
    #[error("{}: entry {entry:?} is cut off: expected {expected} bytes, found {found}", path.display())]
    Truncated { path: PathBuf, entry: String, expected: u64, found: u64 },
    #[error("{}: entry {entry:?} has {found} bytes or more, but its header says {expected}", path.display())]
    Longer { path: PathBuf, entry: String, expected: u64, found: u64 },
    #[error(
        "{}: entry {entry:?} is damaged: CRC-32 is {found:08x}, expected {expected:08x}",
        path.display()
    )]
    Crc { path: PathBuf, entry: String, expected: u32, found: u32 },
    #[error("{}: damaged {place}: {reason}", path.display())]
    Corrupt { path: PathBuf, place: String, reason: String },
    #[error(
        "{}: {entry:?} isn't what MAR-INF/SHA256SUMS says: sha256 is {found}, expected {expected}",
        path.display()
    )]
    Digest { path: PathBuf, entry: String, expected: Digest, found: Digest },
    #[error("{}: {entry:?} is listed in MAR-INF/SHA256SUMS but missing", path.display())]
    Missing { path: PathBuf, entry: String },
    #[error("{}: MAR-INF/SHA256SUMS: {source}", path.display())]
    Sums { path: PathBuf, source: BadSums },
    #[error("{}: MAR-INF/MANIFEST.json: {}", path.display(), source.detail())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("{} already exists; name a folder that doesn't", path.display())]
    DestinationExists { path: PathBuf },
    #[error("{}: cancelled", path.display())]
    Cancelled { path: PathBuf },
}

/// Why a name can't be the name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum BadName {
    #[error("the name is empty")]
    Empty,
    #[error("the name isn't UTF-8")]
    NotUtf8,
    #[error("the name has a NUL or a line break")]
    Control,
    #[error("the name has a backslash")]
    Backslash,
    #[error("the path is absolute")]
    Absolute,
    #[error("the path has a drive letter")]
    Drive,
    #[error("the path leaves the archive with ..")]
    Parent,
    #[error("the path is longer than 4000 bytes, or a part of it longer than 255")]
    TooLong,
}

impl PackError {
    pub(crate) fn os(path: &Path, source: io::Error) -> Self {
        Self::Os { path: path.to_owned(), source }
    }

    /// Where Python would report a plain system error that ours didn't come from.
    pub(crate) fn is_a_directory(path: &Path) -> Self {
        Self::os(path, rustix::io::Errno::ISDIR.into())
    }
}

impl ReadError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

fn capital(noun: Noun) -> &'static str {
    match noun {
        Noun::Model => "Model",
        Noun::Workflow => "Workflow",
    }
}

/// The system's text without Rust's "(os error N)".
fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.rfind(" (os error").map_or(text.clone(), |end| text[..end].to_owned())
}

/// A path in the quotes that Python's `repr` takes.
struct Quoted<'a>(&'a Path);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string_lossy();
        let escaped =
            text.replace('\\', r"\\").replace('\n', r"\n").replace('\t', r"\t").replace('\r', r"\r");
        match (escaped.contains('\''), escaped.contains('"')) {
            (true, false) => write!(f, "\"{escaped}\""),
            (true, true) => write!(f, "'{}'", escaped.replace('\'', r"\'")),
            (false, _) => write!(f, "'{escaped}'"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_read_as_in_python() {
        let error = |path: &str| PackError::os(Path::new(path), io::Error::from_raw_os_error(2)).to_string();
        assert_eq!(error("a b"), "[Errno 2] No such file or directory: 'a b'");
        assert_eq!(error("it's"), "[Errno 2] No such file or directory: \"it's\"");
        assert_eq!(error("a\\b"), "[Errno 2] No such file or directory: 'a\\\\b'");
        assert_eq!(PackError::is_a_directory(Path::new("d")).to_string(), "[Errno 21] Is a directory: 'd'");
    }
}
