//! What the workers of one model version share: their queue, their meter, and how many of them are ready.

use std::sync::Arc;

use tokio::sync::watch;

use crate::batch::queue::Queue;
use crate::metrics::Meter;

/// Shared by a pool and the owners of its workers.
#[derive(Debug)]
pub struct Floor {
    /// Where the owners take their work from.
    pub queue: Queue,
    /// Where the work is measured.
    pub meter: Arc<Meter>,
    crew: watch::Sender<Crew>,
}

/// How many are at work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crew {
    /// Workers that are ready.
    pub ready: usize,
    /// Workers that have ever been hired; tells a fresh attempt from waiting for the last one.
    pub hired: u64,
}

impl Floor {
    /// A floor with nobody on it.
    pub fn new(queue: Queue, meter: Arc<Meter>) -> Self {
        Self { queue, meter, crew: watch::Sender::default() }
    }

    /// Workers that are ready.
    pub fn ready(&self) -> usize {
        self.crew.borrow().ready
    }

    /// Follows the crew.
    pub fn watch(&self) -> watch::Receiver<Crew> {
        self.crew.subscribe()
    }

    /// A worker has been hired.
    pub(super) fn hire(&self) {
        self.crew.send_modify(|crew| crew.hired += 1);
    }

    /// A worker has become ready.
    pub(super) fn enter(&self) {
        self.crew.send_modify(|crew| crew.ready += 1);
    }

    /// A worker that was ready is no longer.
    pub(super) fn leave(&self) {
        self.crew.send_modify(|crew| crew.ready -= 1);
    }
}
