//! The worker's end of the conversation, shared by the loop, the requests that ask whether they are cancelled, and the logger.
//!
//! Only the main thread waits for the link. Others look at it in passing, and never while the main thread does.
//! Locks are taken in the order of the fields; none is held while a handler's code runs.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use zoo_proto::wire::answer::{Outcome, encode_reply};
use zoo_proto::wire::{HeaderBlock, Outbox};

use crate::arrivals::Arrivals;
use crate::error::HandlerError;
use crate::link::{Link, Received};

/// Messages to clients beyond this are cut.
const MAX_MESSAGE: usize = 16 * 1024;

/// Why the worker can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The server closed the link: time to leave.
    Closed,
    /// The link or what came over it is broken.
    Broken(String),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected => Self::Closed,
            _ => Self::Broken(format!("the link to the server failed: {error}")),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Channel {
    /// `None` in a trial without a server: nothing comes by itself, and what is sent stays in the outbox.
    link: Option<Link>,
    arrivals: Mutex<Arrivals>,
    out: Mutex<Outbox>,
    over: AtomicBool,
}

impl Channel {
    pub(crate) fn new(link: Option<Link>) -> Self {
        Self { link, arrivals: Mutex::default(), out: Mutex::default(), over: AtomicBool::new(false) }
    }

    /// What has come and isn't done yet. For the main thread.
    pub(crate) fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all that is readable; with `wait`, at least something.
    pub(crate) fn receive(&self, wait: bool) -> Result<(), Halt> {
        self.fill(&mut self.arrivals(), wait)
    }

    /// The same, for who has the arrivals already.
    pub(crate) fn fill(&self, arrivals: &mut Arrivals, wait: bool) -> Result<(), Halt> {
        if let Some(halt) = &arrivals.halted {
            return Err(halt.clone());
        }
        let Some(link) = &self.link else { return Ok(()) };
        let result = self.fill_from(link, arrivals, wait);
        if let Err(halt) = &result {
            arrivals.halted = Some(halt.clone());
            self.over.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Takes bytes as if they had come over the link.
    pub(crate) fn feed(&self, mut bytes: &[u8]) -> Result<(), Halt> {
        let mut arrivals = self.arrivals();
        while !bytes.is_empty() {
            let (space, most) = arrivals.inbox.space();
            let (now, rest) = bytes.split_at(most.min(bytes.len()));
            space.extend_from_slice(now);
            arrivals.inbox.filled(now.len());
            bytes = rest;
            arrivals.digest(&mut self.lock_out())?;
        }
        Ok(())
    }

    fn fill_from(&self, link: &Link, arrivals: &mut Arrivals, mut wait: bool) -> Result<(), Halt> {
        loop {
            let received = link.receive(&mut arrivals.inbox, &mut arrivals.buffer, wait)?;
            if received == Received::End {
                return Err(Halt::Closed);
            }
            arrivals.digest(&mut self.lock_out())?;
            if received == Received::Everything {
                return Ok(());
            }
            wait = false;
        }
    }

    /// Looks at the link in passing, unless somebody else does. What is found wrong is reported to the main thread.
    pub(crate) fn poll(&self) {
        let mut arrivals = match self.arrivals.try_lock() {
            Ok(arrivals) => arrivals,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // The result stays in `halted`.
        let _ = self.fill(&mut arrivals, false);
    }

    /// Whether the link has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Adds frames to what waits to be sent.
    pub(crate) fn outgoing<R>(&self, add: impl FnOnce(&mut Outbox) -> R) -> R {
        add(&mut self.lock_out())
    }

    /// Sends what waits.
    pub(crate) fn flush(&self) -> Result<(), Halt> {
        let Some(link) = &self.link else { return Ok(()) };
        link.send(&mut self.lock_out()).inspect_err(|_| self.over.store(true, Ordering::Relaxed))?;
        Ok(())
    }

    /// Answers an item with a failure.
    pub(crate) fn fail(&self, item: u64, handler_us: u32, error: &HandlerError) {
        let message = cut(error.message()).as_bytes().to_vec().into();
        let headers = HeaderBlock::default();
        self.outgoing(|out| {
            encode_reply(item, Outcome::Failed, error.status(), handler_us, &headers, &message, out);
        });
    }

    fn lock_out(&self) -> MutexGuard<'_, Outbox> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As much of a message as is sent.
pub(crate) fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MAX_MESSAGE)]
}
