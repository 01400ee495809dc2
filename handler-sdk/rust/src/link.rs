//! The worker's end of the link: a connected socket, and nothing of what its bytes mean.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};

use bytes::BufMut;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use zoo_proto::wire::{Inbox, Outbox};

/// Small enough that an idle worker is small, large enough that a window of small batches comes in one read.
const BUFFER: usize = 64 * 1024;
/// Pieces in one write; the kernel's limit is 1024.
const PIECES: usize = 64;

#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

/// Where the kernel puts what was received. A buffer of its own costs one copy, but no clearing of fresh memory before each read.
#[derive(Debug)]
pub(crate) struct Buffer(Box<[u8]>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; BUFFER].into())
    }
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// As much as asked for; there may be more.
    Full,
    /// All there was.
    Everything,
    /// The server has closed the link.
    End,
}

impl Link {
    /// Moves the link from descriptor 0 to one that no child inherits, and puts /dev/null in its place.
    pub(crate) fn take_standard_input() -> io::Result<Self> {
        let end = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        // Connected, or it isn't a link.
        rustix::net::getpeername(&end)?;
        rustix::io::ioctl_fionbio(&end, false)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self(end))
    }

    /// Reads once; waits for the first byte if `wait` says so.
    pub(crate) fn receive(&self, inbox: &mut Inbox, buffer: &mut Buffer, wait: bool) -> io::Result<Received> {
        let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let (space, most) = inbox.space();
        let room = most.min(BUFFER);
        let count = loop {
            match recv(self.0.as_fd(), &mut buffer.0[..room], flags) {
                Ok((_, count)) => break count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Everything),
                Err(Errno::CONNRESET) => return Ok(Received::End),
                Err(error) => return Err(error.into()),
            }
        };
        if count == 0 {
            return Ok(Received::End);
        }
        space.put_slice(&buffer.0[..count]);
        inbox.filled(count);
        Ok(if count < room { Received::Everything } else { Received::Full })
    }

    /// Writes all that waits; returns when the kernel has it.
    pub(crate) fn send(&self, out: &mut Outbox) -> io::Result<()> {
        while !out.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let filled = out.io_slices(&mut pieces);
            let mut control = SendAncillaryBuffer::default();
            match sendmsg(self.0.as_fd(), &pieces[..filled], &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => out.advance(count),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
