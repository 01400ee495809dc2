//! Sink for `tgz`: a tar in one gzip stream that all cores deflate.

use std::{
    collections::VecDeque,
    io::{self, BufWriter, Write},
    mem,
    path::Path,
    sync::Arc,
};

use super::{
    Blocks, Head, Sink, WriteOptions,
    deflate::{Pool, Task, Ticket},
    output::{EagerFile, PendingFile},
};
use crate::{
    digest::{BLOCK, Block},
    error::PackError,
};

/// Everything lies in one top folder, as in TorchServe's `.tar.gz` archives.
pub struct TarGz {
    tar: tar::Builder<GzWriter>,
    pending: PendingFile,
    top: String,
}

/// 1980-01-01, the earliest moment that a zip can hold too. tar complains about the epoch itself.
const FIXED_TIME: u64 = 315_532_800;

impl TarGz {
    /// Begins an archive with the top folder `top`.
    ///
    /// # Errors
    /// If nothing can be written beside it.
    pub fn create(path: &Path, top: &str, options: WriteOptions) -> Result<Self, PackError> {
        let pending = PendingFile::create(path)?;
        let file = pending.writer()?;
        let gz = Pool::start(options.threads).and_then(|pool| GzWriter::start(file, pool));
        let tar = tar::Builder::new(gz.map_err(|e| pending.failed(e))?);
        Ok(Self { tar, pending, top: top.to_owned() })
    }
}

impl Sink for TarGz {
    fn file(&mut self, head: &Head, content: &mut Blocks<'_>) -> Result<(), PackError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(head.size);
        header.set_mode(if head.executable { 0o755 } else { 0o644 });
        header.set_mtime(FIXED_TIME);
        header.set_entry_type(tar::EntryType::Regular);
        let name = format!("{}/{}", self.top, head.name);
        let appended = self.tar.append_data(&mut header, name, &mut *content);
        appended.map_err(|e| content.take_failure().unwrap_or_else(|| self.pending.failed(e)))
    }

    fn finish(self: Box<Self>) -> Result<(), PackError> {
        let gz = self.tar.into_inner().and_then(GzWriter::finish);
        gz.map_err(|e| self.pending.failed(e))?;
        self.pending.persist()
    }
}

/// A gzip stream whose blocks are deflated by a [`Pool`].
struct GzWriter {
    file: BufWriter<EagerFile>,
    pool: Pool,
    /// Blocks under way, in order.
    tickets: VecDeque<Ticket>,
    filling: Vec<u8>,
    before: Option<Block>,
    crc: crc32fast::Hasher,
    length: u64,
}

impl GzWriter {
    fn start(file: EagerFile, pool: Pool) -> io::Result<Self> {
        let mut file = BufWriter::new(file);
        // Deflate, no name, no time, "unknown" system: nothing that differs between two runs.
        file.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
        let filling = Vec::with_capacity(BLOCK);
        let (tickets, crc) = (VecDeque::new(), crc32fast::Hasher::new());
        Ok(Self { file, pool, tickets, filling, before: None, crc, length: 0 })
    }

    fn submit(&mut self, last: bool) -> io::Result<()> {
        let block = Arc::new(mem::replace(&mut self.filling, Vec::with_capacity(BLOCK)));
        let before = self.before.replace(Arc::clone(&block));
        if self.tickets.len() == self.pool.depth() {
            self.write_oldest()?;
        }
        self.tickets.push_back(self.pool.submit(Task::Deflate { last }, block, before)?);
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(ticket) = self.tickets.pop_front() else { return Ok(()) };
        let piece = ticket.wait()?;
        self.crc.combine(&piece.crc);
        self.length += piece.length;
        self.file.write_all(piece.payload.bytes())
    }

    fn finish(mut self) -> io::Result<()> {
        self.submit(true)?;
        while !self.tickets.is_empty() {
            self.write_oldest()?;
        }
        let crc = self.crc.clone().finalize();
        self.file.write_all(&crc.to_le_bytes())?;
        // gzip keeps the length modulo 2^32.
        self.file.write_all(&(self.length as u32).to_le_bytes())?;
        self.file.into_inner()?.finish()
    }
}

impl Write for GzWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(BLOCK - self.filling.len());
        self.filling.extend_from_slice(&bytes[..length]);
        if self.filling.len() == BLOCK {
            self.submit(false)?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
