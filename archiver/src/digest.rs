//! SHA-256 of files, the `SHA256SUMS` file made of them, and the content digest of a whole archive.
//!
//! Hashing runs on a thread of its own beside whoever reads or writes. This module knows no archive formats.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read},
    str::FromStr,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{MANIFEST, SHA256SUMS};

/// One SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A piece of a file, shared between the threads that hash, compress and write it.
pub type Block = Arc<Vec<u8>>;

/// Bytes per [`Block`]: large enough that a preset dictionary of 32 KiB costs little, small enough that a few
/// dozen of them in flight stay far under 64 MiB.
pub const BLOCK: usize = 256 << 10;

impl Digest {
    /// Of bytes that are at hand.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Of all that a reader gives.
    ///
    /// # Errors
    /// If reading fails.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BLOCK];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(Self(hasher.finalize().into())),
                read => hasher.update(&buffer[..read]),
            }
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no SHA-256 in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotADigest);
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| NotADigest)?;
        }
        Ok(Self(bytes))
    }
}

/// Path and SHA-256 of every file of an archive, sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums(pub BTreeMap<String, Digest>);

/// Line of a `SHA256SUMS` file that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is {text:?}; expected 64 hexadecimal digits, two spaces and a path")]
pub struct BadSums {
    /// Counted from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

impl Sums {
    /// Reads what `sha256sum` writes.
    ///
    /// # Errors
    /// Names the first line of another form.
    pub fn parse(text: &str) -> Result<Self, BadSums> {
        let mut sums = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let bad = || BadSums { line: at + 1, text: line.chars().take(200).collect() };
            // The second of the two separators is `*` where a file was read as binary.
            let (hex, path) = line.split_once(' ').ok_or_else(bad)?;
            let path = path.strip_prefix([' ', '*']).ok_or_else(bad)?;
            let path = path.strip_prefix("./").unwrap_or(path);
            if sums.insert(path.to_owned(), hex.parse().map_err(|_| bad())?).is_some() {
                return Err(bad());
            }
        }
        Ok(Self(sums))
    }

    /// Identity of the content, whenever and by whichever version it was packed: the SHA-256 over the lines
    /// of all files but `SHA256SUMS`, where the manifest counts without `createdOn` and `archiverVersion`.
    #[must_use]
    pub fn content_digest(&self, manifest: Option<&[u8]>) -> Digest {
        let mut lines = self.clone();
        lines.0.remove(SHA256SUMS);
        if let Some(manifest) = manifest {
            lines.0.insert(MANIFEST.to_owned(), timeless(manifest));
        }
        Digest::of(lines.to_string().as_bytes())
    }
}

impl fmt::Display for Sums {
    /// As `sha256sum` writes it and `sha256sum -c` reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(path, digest)| writeln!(f, "{digest}  {path}"))
    }
}

/// Digest of a manifest without the keys that change at each packing; of its bytes if it isn't JSON.
fn timeless(manifest: &[u8]) -> Digest {
    let Ok(mut value) = serde_json::from_slice::<serde_json::Map<_, _>>(manifest) else {
        return Digest::of(manifest);
    };
    value.remove("createdOn");
    value.remove("archiverVersion");
    let mut canonical = Value::Object(value);
    canonical.sort_all_objects();
    Digest::of(canonical.to_string().as_bytes())
}

/// A thread that hashes one file after the other while the caller goes on reading and writing.
#[derive(Debug)]
pub struct HashThread {
    work: SyncSender<Work>,
}

#[derive(Debug)]
enum Work {
    Data(Block),
    End(SyncSender<Digest>),
}

/// The digest of a file that may still be in the making.
#[derive(Debug)]
pub struct Pending(Receiver<Digest>);

impl HashThread {
    /// Starts it. It ends when this value is dropped.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn start() -> io::Result<Self> {
        // Blocks that may wait: enough to keep both sides busy, little enough to keep memory flat.
        let (work, inbox) = sync_channel(16);
        thread::Builder::new().name("hash".into()).spawn(move || {
            let mut hasher = Sha256::new();
            for item in inbox {
                match item {
                    Work::Data(block) => hasher.update(block.as_slice()),
                    // Whoever dropped its `Pending` doesn't want to know.
                    Work::End(reply) => drop(reply.send(Digest(hasher.finalize_reset().into()))),
                }
            }
        })?;
        Ok(Self { work })
    }

    /// The next block of the current file.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn update(&self, block: &Block) -> io::Result<()> {
        self.work.send(Work::Data(Arc::clone(block))).map_err(|_| gone())
    }

    /// Ends the current file.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn end(&self) -> io::Result<Pending> {
        let (reply, digest) = sync_channel(1);
        self.work.send(Work::End(reply)).map_err(|_| gone())?;
        Ok(Pending(digest))
    }
}

impl Pending {
    /// Waits for it.
    ///
    /// # Errors
    /// If the thread has ended.
    pub fn wait(self) -> io::Result<Digest> {
        self.0.recv().map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::other("the hashing thread has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn hashes_file_after_file() {
        let thread = HashThread::start().unwrap();
        let empty = thread.end().unwrap();
        thread.update(&Arc::new(b"ab".to_vec())).unwrap();
        thread.update(&Arc::new(b"c".to_vec())).unwrap();
        let abc = thread.end().unwrap().wait().unwrap();
        assert_eq!(empty.wait().unwrap().to_string(), EMPTY);
        assert_eq!(abc, Digest::of(b"abc"));
        assert_eq!(abc.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn sums_survive_a_round_trip_and_name_a_bad_line() {
        let text = format!("{EMPTY}  a b.txt\n{EMPTY}  sub/c\n");
        assert_eq!(Sums::parse(&text).unwrap().to_string(), text);
        assert_eq!(Sums::parse(&format!("{EMPTY} *./x")).unwrap().to_string(), format!("{EMPTY}  x\n"));
        for bad in ["abc  x", EMPTY, &format!("{EMPTY} x"), &format!("{EMPTY}  x\n{EMPTY}  x")] {
            let error = Sums::parse(bad).unwrap_err();
            assert!(error.to_string().contains("expected 64 hexadecimal digits"), "{bad}");
        }
    }

    #[test]
    fn the_content_digest_forgets_when_and_by_whom() {
        let digest = |manifest: &str, file: &[u8]| {
            let mut sums = Sums::default();
            sums.0.insert("a".into(), Digest::of(file));
            sums.0.insert(MANIFEST.into(), Digest::of(manifest.as_bytes()));
            sums.0.insert(SHA256SUMS.into(), Digest::of(manifest.as_bytes()));
            sums.content_digest(Some(manifest.as_bytes()))
        };
        let one = digest(r#"{"createdOn": "1", "runtime": "python", "archiverVersion": "1"}"#, b"x");
        assert_eq!(one, digest(r#"{"createdOn": "2", "runtime":  "python", "archiverVersion": "2"}"#, b"x"));
        let of = |manifest: &str| digest(manifest, b"x");
        assert_eq!(of(r#"{"a": {"b": 1, "c": 2}, "d": 3}"#), of(r#"{"d": 3, "a": {"c": 2, "b": 1}}"#));
        assert_ne!(one, digest(r#"{"createdOn": "1", "runtime": "python3"}"#, b"x"));
        assert_ne!(one, digest(r#"{"createdOn": "1", "runtime": "python"}"#, b"y"));
    }
}
