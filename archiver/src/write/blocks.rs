//! The content of one file on its way into an archive: read once, hashed on the way.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{buffer::spare_capacity, io::Errno};

use crate::{
    collect::Entry,
    digest::{BLOCK, Block, HashThread, Pending},
    error::PackError,
    progress::Progress,
};

/// The content of one file, block by block. All blocks but the last have [`BLOCK`] bytes.
pub struct Blocks<'a> {
    from: Origin<'a>,
    path: PathBuf,
    size: u64,
    left: u64,
    hash: &'a HashThread,
    progress: &'a dyn Progress,
    /// For `Read`: the block at hand and how much of it is taken.
    current: (Block, usize),
    /// For `Read`, which can't carry our error.
    failure: Option<PackError>,
}

enum Origin<'a> {
    File(File),
    Bytes(&'a [u8]),
}

impl<'a> Blocks<'a> {
    pub(crate) fn open(
        entry: &Entry,
        hash: &'a HashThread,
        progress: &'a dyn Progress,
    ) -> Result<Self, PackError> {
        let file = File::open(&entry.source).map_err(|e| PackError::os(&entry.source, e))?;
        Ok(Self::new(Origin::File(file), entry.source.clone(), entry.size, hash, progress))
    }

    pub(crate) fn of(bytes: &'a [u8], name: &str, hash: &'a HashThread, progress: &'a dyn Progress) -> Self {
        Self::new(Origin::Bytes(bytes), name.into(), bytes.len() as u64, hash, progress)
    }

    fn new(
        from: Origin<'a>,
        path: PathBuf,
        size: u64,
        hash: &'a HashThread,
        progress: &'a dyn Progress,
    ) -> Self {
        Self { from, path, size, left: size, hash, progress, current: (Block::default(), 0), failure: None }
    }

    /// The file outside of the archive.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes not yet taken.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next block.
    ///
    /// # Errors
    /// If the file can't be read or is shorter or longer than it was when it was collected.
    pub fn next_block(&mut self) -> Result<Option<Block>, PackError> {
        if self.progress.cancelled() {
            return Err(PackError::Cancelled { path: self.path.clone() });
        }
        if self.left == 0 {
            return self.nothing_follows().map(|()| None);
        }
        let wanted = usize::try_from(self.left).map_or(BLOCK, |left| left.min(BLOCK));
        let mut bytes = Vec::with_capacity(wanted);
        let read = match &mut self.from {
            Origin::File(file) => read_whole(file, &mut bytes, wanted),
            Origin::Bytes(rest) => rest.take(wanted as u64).read_to_end(&mut bytes),
        };
        let read = read.map_err(|e| PackError::os(&self.path, e))?;
        if read != wanted {
            return Err(self.changed(self.size - self.left + read as u64));
        }
        self.left -= read as u64;
        let block = Arc::new(bytes);
        self.hash.update(&block).map_err(|e| PackError::os(&self.path, e))?;
        self.progress.advance(read as u64);
        Ok(Some(block))
    }

    /// Up to `pieces` pieces of `length` bytes spread evenly over the file, without taking them.
    pub(crate) fn sample(&self, pieces: u64, length: usize) -> Result<Vec<u8>, PackError> {
        let mut sample = vec![0; usize::try_from(pieces).unwrap_or(1) * length];
        let Origin::File(file) = &self.from else { return Ok(Vec::new()) };
        for (piece, at) in sample.chunks_mut(length).zip((0..pieces).map(|i| self.size / pieces * i)) {
            file.read_exact_at(piece, at).map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => self.changed(at),
                _ => PackError::os(&self.path, e),
            })?;
        }
        Ok(sample)
    }

    /// Ends the file; its digest may still be in the making.
    pub(crate) fn end(self) -> Result<Pending, PackError> {
        self.hash.end().map_err(|e| PackError::os(&self.path, e))
    }

    /// Why the last `read` failed.
    pub(crate) fn take_failure(&mut self) -> Option<PackError> {
        self.failure.take()
    }

    fn nothing_follows(&mut self) -> Result<(), PackError> {
        let Origin::File(file) = &mut self.from else { return Ok(()) };
        match file.read(&mut [0]).map_err(|e| PackError::os(&self.path, e))? {
            0 => Ok(()),
            _ => Err(self.changed(self.size + 1)),
        }
    }

    fn changed(&self, read: u64) -> PackError {
        PackError::Changed { path: self.path.clone(), expected: self.size, read }
    }
}

/// Fills `bytes` up to `wanted`, or to the end of the file. One system call where `read_to_end` takes several,
/// and nothing is zeroed first: at 512 MB both show.
fn read_whole(file: &mut File, bytes: &mut Vec<u8>, wanted: usize) -> io::Result<usize> {
    while bytes.len() < wanted {
        match rustix::io::read(&*file, spare_capacity(bytes)) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // An allocation may be larger than asked for, and then more has been read.
    let surplus = bytes.len().saturating_sub(wanted);
    if surplus > 0 {
        file.seek_relative(-(surplus as i64))?;
        bytes.truncate(wanted);
    }
    Ok(bytes.len())
}

impl Read for Blocks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.1 == self.current.0.len() {
            match self.next_block() {
                Ok(block) => self.current = (block.unwrap_or_default(), 0),
                Err(error) => {
                    let text = error.to_string();
                    self.failure = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        let (block, taken) = &mut self.current;
        let length = (&block[*taken..]).read(buffer)?;
        *taken += length;
        Ok(length)
    }
}
