//! The bytes of one entry: counted, compared with what the headers say, handed on in blocks.

use std::{
    io::{self, Read},
    sync::Arc,
};

use super::guard::Guard;
use crate::{
    digest::{BLOCK, Block},
    error::ReadError,
};

/// The content of one entry.
pub(crate) struct Content<'a, 'g> {
    pub(crate) name: &'a str,
    reader: &'a mut dyn Read,
    guard: &'a mut Guard<'g>,
    expected: u64,
    found: u64,
    crc: Option<(u32, crc32fast::Hasher)>,
}

impl<'a, 'g> Content<'a, 'g> {
    pub(crate) fn new(
        name: &'a str,
        reader: &'a mut dyn Read,
        expected: u64,
        guard: &'a mut Guard<'g>,
    ) -> Self {
        Self { name, reader, guard, expected, found: 0, crc: None }
    }

    pub(crate) fn with_crc(mut self, expected: u32) -> Self {
        self.crc = Some((expected, crc32fast::Hasher::new()));
        self
    }

    /// The size that the header says.
    pub(crate) fn size(&self) -> u64 {
        self.expected
    }

    /// The next block; `None` after the last, when size and CRC-32 have been found right.
    pub(crate) fn next_block(&mut self) -> Result<Option<Block>, ReadError> {
        let mut bytes =
            Vec::with_capacity(usize::try_from(self.expected - self.found).map_or(BLOCK, |n| n.min(BLOCK)));
        // One byte beyond the promised size shows that there is more.
        let most = (BLOCK as u64).min((self.expected - self.found).saturating_add(1));
        let read = (&mut *self.reader).take(most).read_to_end(&mut bytes);
        read.map_err(|error| self.unreadable(bytes.len() as u64, &error))?;
        self.found += bytes.len() as u64;
        self.guard.spend(bytes.len() as u64)?;
        if self.found > self.expected {
            let (path, entry) = self.place();
            return Err(ReadError::Longer { path, entry, expected: self.expected, found: self.found });
        }
        if bytes.is_empty() {
            return self.check_end().map(|()| None);
        }
        if let Some((_, crc)) = &mut self.crc {
            crc.update(&bytes);
        }
        Ok(Some(Arc::new(bytes)))
    }

    fn check_end(&self) -> Result<(), ReadError> {
        let (path, entry) = self.place();
        if self.found < self.expected {
            return Err(ReadError::Truncated { path, entry, expected: self.expected, found: self.found });
        }
        match self.crc.clone().map(|(expected, crc)| (expected, crc.finalize())) {
            Some((expected, found)) if expected != found => {
                Err(ReadError::Crc { path, entry, expected, found })
            }
            _ => Ok(()),
        }
    }

    fn unreadable(&self, more: u64, error: &io::Error) -> ReadError {
        let (path, entry) = self.place();
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return ReadError::Truncated { path, entry, expected: self.expected, found: self.found + more };
        }
        let place = format!("entry {entry:?} after {} of {} bytes", self.found + more, self.expected);
        ReadError::Corrupt { path, place, reason: error.to_string() }
    }

    fn place(&self) -> (std::path::PathBuf, String) {
        (self.guard.path.to_owned(), self.name.to_owned())
    }
}
