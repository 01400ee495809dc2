//! Sink for `default` and `zip-store`: a zip as TorchServe's Java reads it from a stream.
//!
//! The `zip` crate compresses what it writes itself, on the calling thread, or takes a whole compressed file
//! from memory; neither serves for a file of many gigabytes that several threads deflate. So the few records
//! of the format are written here. Reading, where the format is hard, is left to the crate.
//!
//! Sizes stand in the local headers (no data descriptors): Java's stream reader needs that for stored entries.

use std::{
    collections::VecDeque,
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::Path,
};

use super::{
    Blocks, Head, Sink, WriteOptions,
    deflate::{Payload, Piece, Pool, Task, Ticket, incompressible},
    output::{EagerFile, PendingFile},
};
use crate::{
    digest::{BLOCK, Block},
    error::PackError,
};

/// How a zip holds its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Deflated if that pays.
    Deflate,
    /// As they are.
    Store,
}

/// A zip archive in the making.
pub struct Zip {
    writer: ZipWriter<BufWriter<EagerFile>>,
    pending: PendingFile,
    compression: Compression,
}

impl Zip {
    /// Begins an archive.
    ///
    /// # Errors
    /// If nothing can be written beside it.
    pub fn create(path: &Path, compression: Compression, options: WriteOptions) -> Result<Self, PackError> {
        let pending = PendingFile::create(path)?;
        let pool = Pool::start(options.threads).map_err(|e| pending.failed(e))?;
        let writer = ZipWriter::new(BufWriter::new(pending.writer()?), pool);
        Ok(Self { writer, pending, compression })
    }
}

impl Sink for Zip {
    fn file(&mut self, head: &Head, content: &mut Blocks<'_>) -> Result<(), PackError> {
        let method = choose(self.compression, head, content)?;
        self.writer.begin(head, method).map_err(|e| self.pending.failed(e))?;
        let mut before: Option<Block> = None;
        while let Some(block) = content.next_block()? {
            let task = match method {
                _ if self.compression == Compression::Store => Task::Store,
                Method::Stored => Task::Store,
                Method::Deflated if head.size <= BLOCK as u64 => Task::Smaller,
                Method::Deflated => Task::Deflate { last: content.left() == 0 },
            };
            let before = before.replace(Block::clone(&block));
            self.writer.block(task, block, before).map_err(|e| self.pending.failed(e))?;
        }
        self.writer.end().map_err(|e| self.pending.failed(e))
    }

    fn finish(self: Box<Self>) -> Result<(), PackError> {
        let file = self.writer.finish().and_then(|out| out.into_inner().map_err(io::Error::from));
        file.and_then(EagerFile::finish).map_err(|e| self.pending.failed(e))?;
        self.pending.persist()
    }
}

/// Samples a large file; a small one is tried as a whole.
fn choose(compression: Compression, head: &Head, content: &Blocks<'_>) -> Result<Method, PackError> {
    const PIECES: u64 = 32;
    if compression == Compression::Store || head.size == 0 {
        return Ok(Method::Stored);
    }
    if head.size <= BLOCK as u64 {
        return Ok(Method::Deflated);
    }
    let sample = content.sample(PIECES, 4 << 10)?;
    Ok(if !sample.is_empty() && incompressible(&sample) { Method::Stored } else { Method::Deflated })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Stored = 0,
    Deflated = 8,
}

/// What the two headers of an entry say.
#[derive(Debug, Clone)]
struct Record {
    name: String,
    method: Method,
    executable: bool,
    /// Whether the local header has room for sizes beyond 32 bits.
    wide: bool,
    offset: u64,
    crc: u32,
    size: u64,
    packed: u64,
}

/// Things that are written in this order, when the blocks among them are ready.
enum Step {
    Begin(Box<Record>),
    Block(Ticket),
    End,
}

/// The records of the format, around blocks that are compressed elsewhere.
struct ZipWriter<W: Write + Seek> {
    out: W,
    position: u64,
    pool: Pool,
    steps: VecDeque<Step>,
    /// Blocks among the steps.
    under_way: usize,
    open: Option<Open>,
    done: Vec<Record>,
}

/// The entry that is being written.
struct Open {
    record: Record,
    crc: crc32fast::Hasher,
    /// Held back until something follows: most files have one block, and then their header is complete at once.
    first: Option<Payload>,
    header_written: bool,
}

/// Values of 32 bits that mean "see the zip64 record".
const WIDE: u32 = u32::MAX;
/// 1980-01-01 in the format's own calendar, and midnight.
const FIXED_DATE: u16 = 0x21;
const FIXED_TIME: u16 = 0;

impl<W: Write + Seek> ZipWriter<W> {
    fn new(out: W, pool: Pool) -> Self {
        Self { out, position: 0, pool, steps: VecDeque::new(), under_way: 0, open: None, done: Vec::new() }
    }

    fn begin(&mut self, head: &Head, method: Method) -> io::Result<()> {
        // Deflate may make a file a little larger; 16 MiB cover that for 4 GiB.
        let wide = head.size >= u64::from(WIDE) - (16 << 20);
        let record = Record {
            name: head.name.clone(),
            method,
            executable: head.executable,
            wide,
            offset: 0,
            crc: 0,
            size: 0,
            packed: 0,
        };
        self.steps.push_back(Step::Begin(Box::new(record)));
        self.drain(self.pool.depth())
    }

    fn block(&mut self, task: Task, block: Block, before: Option<Block>) -> io::Result<()> {
        self.drain(self.pool.depth() - 1)?;
        self.steps.push_back(Step::Block(self.pool.submit(task, block, before)?));
        self.under_way += 1;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.steps.push_back(Step::End);
        Ok(())
    }

    /// Writes until at most `limit` blocks are under way.
    fn drain(&mut self, limit: usize) -> io::Result<()> {
        while self.under_way > limit || (self.under_way == 0 && !self.steps.is_empty()) {
            match self.steps.pop_front() {
                Some(Step::Begin(record)) => {
                    let record = Record { offset: self.position, ..*record };
                    let crc = crc32fast::Hasher::new();
                    self.open = Some(Open { record, crc, first: None, header_written: false });
                }
                Some(Step::Block(ticket)) => {
                    self.under_way -= 1;
                    self.write_block(ticket.wait()?)?;
                }
                Some(Step::End) => self.write_end()?,
                None => break,
            }
        }
        Ok(())
    }

    fn write_block(&mut self, piece: Piece) -> io::Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.crc.combine(&piece.crc);
        open.record.size += piece.length;
        open.record.packed += piece.payload.bytes().len() as u64;
        if let Payload::Raw(_) = piece.payload {
            open.record.method = Method::Stored;
        }
        if open.record.size == piece.length {
            open.first = Some(piece.payload);
        } else {
            self.write_first(&mut open)?;
            self.put(piece.payload.bytes())?;
        }
        self.open = Some(open);
        Ok(())
    }

    /// Writes the header, with what is known by now, and the block that was held back.
    fn write_first(&mut self, open: &mut Open) -> io::Result<()> {
        if !open.header_written {
            open.header_written = true;
            self.put(&open.record.local_header())?;
        }
        match open.first.take() {
            Some(first) => self.put(first.bytes()),
            None => Ok(()),
        }
    }

    fn write_end(&mut self) -> io::Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.record.crc = open.crc.clone().finalize();
        if open.header_written {
            self.out.seek(SeekFrom::Start(open.record.offset))?;
            self.out.write_all(&open.record.local_header())?;
            self.out.seek(SeekFrom::Start(self.position))?;
        } else {
            self.write_first(&mut open)?;
        }
        self.done.push(open.record);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn finish(mut self) -> io::Result<W> {
        self.drain(0)?;
        let start = self.position;
        for record in std::mem::take(&mut self.done) {
            self.put(&record.central_header())?;
            self.done.push(record);
        }
        let trailer = trailer(self.done.len() as u64, start, self.position - start);
        self.put(&trailer)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl Record {
    fn local_header(&self) -> Vec<u8> {
        let mut out = Fields::default();
        out.u32(0x0403_4b50);
        self.common(&mut out, self.wide);
        out.u16(if self.wide { 20 } else { 0 });
        out.bytes(self.name.as_bytes());
        if self.wide {
            out.u16(1).u16(16).u64(self.size).u64(self.packed);
        }
        out.0
    }

    fn central_header(&self) -> Vec<u8> {
        let far = self.offset >= u64::from(WIDE);
        let extra = if self.wide { 16 } else { 0 } + if far { 8 } else { 0 };
        let mode: u32 = if self.executable { 0o100_755 } else { 0o100_644 };
        let mut out = Fields::default();
        // Made by version 4.5 on Unix, so that the mode counts.
        out.u32(0x0201_4b50).u16(0x032d);
        self.common(&mut out, self.wide);
        out.u16(if extra == 0 { 0 } else { extra + 4 });
        out.u16(0).u16(0).u16(0).u32(mode << 16);
        out.u32(if far { WIDE } else { self.offset as u32 });
        out.bytes(self.name.as_bytes());
        if extra > 0 {
            out.u16(1).u16(extra);
        }
        if self.wide {
            out.u64(self.size).u64(self.packed);
        }
        if far {
            out.u64(self.offset);
        }
        out.0
    }

    /// From "version needed" to the length of the name, the same in both headers.
    fn common(&self, out: &mut Fields, wide: bool) {
        let utf8 = if self.name.is_ascii() { 0 } else { 1 << 11 };
        out.u16(if wide { 45 } else { 20 }).u16(utf8).u16(self.method as u16).u16(FIXED_TIME).u16(FIXED_DATE);
        out.u32(self.crc);
        out.u32(if wide { WIDE } else { self.packed as u32 });
        out.u32(if wide { WIDE } else { self.size as u32 });
        // Names are checked to be shorter than 4000 bytes.
        out.u16(self.name.len() as u16);
    }
}

/// The end records: zip64's too where a number needs it.
fn trailer(entries: u64, start: u64, length: u64) -> Vec<u8> {
    let mut out = Fields::default();
    if entries >= 0xFFFF || start >= u64::from(WIDE) || length >= u64::from(WIDE) {
        out.u32(0x0606_4b50).u64(44).u16(0x032d).u16(45).u32(0).u32(0);
        out.u64(entries).u64(entries).u64(length).u64(start);
        out.u32(0x0706_4b50).u32(0).u64(start + length).u32(1);
    }
    let entries = entries.min(0xFFFF) as u16;
    let wide = |value: u64| value.min(u64::from(WIDE)) as u32;
    out.u32(0x0605_4b50).u16(0).u16(0).u16(entries).u16(entries);
    out.u32(wide(length)).u32(wide(start)).u16(0);
    out.0
}

/// Little-endian numbers one after the other.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }
}

#[cfg(test)]
mod tests;
