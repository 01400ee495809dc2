//! Deflate on all cores: each block becomes a piece of one stream, whoever compresses it.
//!
//! A block ends on a byte border (a sync flush, or the end of the stream) and may refer to the 32 KiB before
//! it, which are preset as dictionary. So the pieces joined in order are one ordinary deflate stream, and no
//! piece depends on which thread made it or what that thread made before.

use std::{io, num::NonZeroUsize, thread};

use crossbeam_channel::{Receiver, Sender, bounded};
use flate2::{Compress, Compression, FlushCompress, Status};

use crate::digest::Block;

/// How far back a deflate stream may refer.
const WINDOW: usize = 32 << 10;

/// Threads that compress blocks.
pub(crate) struct Pool {
    jobs: Sender<Job>,
    /// Blocks that should be under way at once, so that no thread waits and memory stays flat.
    depth: usize,
}

/// What to make of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// A piece of a stream; the last one ends it.
    Deflate { last: bool },
    /// The whole of a file: deflated if that makes it smaller.
    Smaller,
    /// The block as it is.
    Store,
}

/// A block, done.
pub(crate) struct Piece {
    /// Of the bytes before compression.
    pub(crate) crc: crc32fast::Hasher,
    /// Bytes before compression.
    pub(crate) length: u64,
    pub(crate) payload: Payload,
}

pub(crate) enum Payload {
    Raw(Block),
    Deflated(Vec<u8>),
}

/// A [`Piece`] that may still be in the making.
pub(crate) struct Ticket(Receiver<Piece>);

struct Job {
    task: Task,
    block: Block,
    before: Option<Block>,
    reply: Sender<Piece>,
}

impl Pool {
    pub(crate) fn start(threads: NonZeroUsize) -> io::Result<Self> {
        let depth = 2 * threads.get() + 2;
        let (jobs, inbox) = bounded::<Job>(depth);
        for _ in 0..threads.get() {
            let inbox = inbox.clone();
            thread::Builder::new().name("deflate".into()).spawn(move || {
                for job in inbox {
                    // Whoever dropped its ticket doesn't want the piece any more.
                    drop(job.reply.send(piece(job.task, job.block, job.before.as_deref())));
                }
            })?;
        }
        Ok(Self { jobs, depth })
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Hands in a block; `before` is the one before it in the same stream.
    pub(crate) fn submit(&self, task: Task, block: Block, before: Option<Block>) -> io::Result<Ticket> {
        let (reply, ticket) = bounded(1);
        self.jobs.send(Job { task, block, before, reply }).map_err(|_| gone())?;
        Ok(Ticket(ticket))
    }
}

impl Ticket {
    pub(crate) fn wait(self) -> io::Result<Piece> {
        self.0.recv().map_err(|_| gone())
    }
}

impl Payload {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Raw(block) => block,
            Self::Deflated(bytes) => bytes,
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("a compressing thread has ended")
}

/// Whether deflate would win less than a tenth: not worth the time of packing nor that of each unpacking.
pub(crate) fn incompressible(sample: &[u8]) -> bool {
    let mut fast = Compress::new(Compression::fast(), false);
    let mut out = Vec::with_capacity(sample.len());
    // If it doesn't fit into as many bytes, it isn't smaller.
    let status = fast.compress_vec(sample, &mut out, FlushCompress::Finish);
    !matches!(status, Ok(Status::StreamEnd)) || out.len() * 10 > sample.len() * 9
}

fn piece(task: Task, block: Block, before: Option<&Vec<u8>>) -> Piece {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&block);
    let length = block.len() as u64;
    let payload = match task {
        Task::Store => Payload::Raw(block),
        Task::Deflate { last } => Payload::Deflated(stream_piece(&block, before, last)),
        Task::Smaller => {
            let deflated = stream_piece(&block, None, true);
            if deflated.len() < block.len() { Payload::Deflated(deflated) } else { Payload::Raw(block) }
        }
    };
    Piece { crc, length, payload }
}

fn stream_piece(block: &[u8], before: Option<&Vec<u8>>, last: bool) -> Vec<u8> {
    if incompressible(&inner_sample(block)) {
        return stored(block, last);
    }
    // The compressor refuses for misuse only; a stored block is right in any case.
    deflate(block, before, last).unwrap_or_else(|| stored(block, last))
}

/// A piece from a new compressor: one that is reset instead makes other bytes than a new one.
fn deflate(block: &[u8], before: Option<&Vec<u8>>, last: bool) -> Option<Vec<u8>> {
    let mut compress = Compress::new(Compression::default(), false);
    if let Some(before) = before {
        compress.set_dictionary(&before[before.len().saturating_sub(WINDOW)..]).ok()?;
    }
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut out = Vec::with_capacity(block.len() / 2 + 64);
    loop {
        let taken = usize::try_from(compress.total_in()).ok()?;
        let status = compress.compress_vec(&block[taken..], &mut out, flush).ok()?;
        // A flush is complete when it leaves room behind it.
        if status == Status::StreamEnd || (!last && out.len() < out.capacity()) {
            return Some(out);
        }
        out.reserve(block.len() / 4 + 64);
    }
}

/// Four pieces of the block, 16 KiB in all: enough to tell, too little to cost.
fn inner_sample(block: &[u8]) -> Vec<u8> {
    const PIECE: usize = 4 << 10;
    if block.len() <= 4 * PIECE {
        return block.to_vec();
    }
    block.chunks(block.len() / 4).take(4).flat_map(|quarter| &quarter[..PIECE]).copied().collect()
}

/// The block as stored deflate blocks. The stream is on a byte border before and after.
fn stored(block: &[u8], last: bool) -> Vec<u8> {
    const MOST: usize = 0xFFFF;
    let pieces = block.len().div_ceil(MOST).max(1);
    let mut out = Vec::with_capacity(block.len() + 5 * pieces);
    for i in 0..pieces {
        let piece = &block[i * MOST..block.len().min((i + 1) * MOST)];
        // At most 0xFFFF by the line above.
        let length = piece.len() as u16;
        out.push(u8::from(last && i + 1 == pieces));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(piece);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{io::Read, sync::Arc};

    use super::*;
    use crate::digest::BLOCK;

    /// Text, noise, nothing and a single byte, in blocks whose borders cut matches in two.
    fn content() -> Vec<u8> {
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let mut all: Vec<u8> =
            b"all work and no play ".iter().copied().cycle().take(BLOCK * 2 + 77).collect();
        all.extend(std::iter::repeat_with(&mut noise).take(BLOCK + 5));
        all.extend(std::iter::repeat_with(|| b"acgt"[usize::from(noise() & 3)]).take(BLOCK * 2));
        all
    }

    fn joined(content: &[u8], threads: usize) -> (Vec<u8>, u32) {
        let pool = Pool::start(NonZeroUsize::new(threads).unwrap()).unwrap();
        let blocks: Vec<Block> = content.chunks(BLOCK).map(|chunk| Arc::new(chunk.to_vec())).collect();
        let (mut stream, mut crc, mut before) = (Vec::new(), crc32fast::Hasher::new(), None);
        for (i, block) in blocks.iter().enumerate() {
            let task = Task::Deflate { last: i + 1 == blocks.len() };
            let piece = pool.submit(task, Arc::clone(block), before).unwrap().wait().unwrap();
            stream.extend_from_slice(piece.payload.bytes());
            crc.combine(&piece.crc);
            before = Some(Arc::clone(block));
        }
        (stream, crc.finalize())
    }

    #[test]
    fn pieces_join_to_one_stream_whatever_the_number_of_threads() {
        let content = content();
        let (stream, crc) = joined(&content, 1);
        let mut unpacked = Vec::new();
        flate2::read::DeflateDecoder::new(stream.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == content);
        assert_eq!(crc, crc32fast::hash(&content));
        assert!(stream.len() < content.len() * 6 / 10, "{} of {}", stream.len(), content.len());
        assert!(joined(&content, 3).0 == stream);
    }

    #[test]
    fn noise_is_stored_and_small_files_only_shrink() {
        let noise = &content()[BLOCK * 2 + 77..BLOCK * 3];
        assert!(incompressible(noise));
        assert!(!incompressible(&content()[..BLOCK]));
        let payload = |bytes: Vec<u8>| piece(Task::Smaller, Arc::new(bytes), None).payload;
        assert!(matches!(payload(noise.to_vec()), Payload::Raw(_)));
        assert!(matches!(payload(vec![b'a'; 1000]), Payload::Deflated(bytes) if bytes.len() < 100));
    }
}
