//! What the workers of one model version share: their queue, and how many of them are ready.

use tokio::sync::watch;

use crate::batch::queue::Queue;

/// Shared by a pool and the owners of its workers.
#[derive(Debug)]
pub struct Floor {
    /// Where the owners take their work from.
    pub queue: Queue,
    ready: watch::Sender<usize>,
}

impl Floor {
    /// A floor with nobody on it.
    pub fn new(queue: Queue) -> Self {
        Self { queue, ready: watch::Sender::new(0) }
    }

    /// Workers that are ready.
    pub fn ready(&self) -> usize {
        *self.ready.borrow()
    }

    /// Follows the number of ready workers.
    pub fn watch_ready(&self) -> watch::Receiver<usize> {
        self.ready.subscribe()
    }

    /// A worker has become ready.
    pub(super) fn enter(&self) {
        self.ready.send_modify(|ready| *ready += 1);
    }

    /// A worker that was ready is no longer.
    pub(super) fn leave(&self) {
        self.ready.send_modify(|ready| *ready -= 1);
    }
}
