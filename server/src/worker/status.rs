//! What can be seen of a worker from outside its owner.

use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::gpu::Assigned;
use super::state::WorkerState;

/// A worker as describe and readiness show it.
#[derive(Debug, Clone)]
pub struct WorkerStatus {
    /// Its number.
    pub id: u32,
    /// Where it is in its life.
    pub state: WorkerState,
    /// When its present process was started.
    pub started: SystemTime,
    /// Its present process.
    pub pid: Option<u32>,
    /// The device it uses.
    pub gpu: Option<u32>,
    /// Not failing, or not for long.
    pub healthy: bool,
    /// Why it was lost the last time, traceback included.
    pub last_failure: Option<String>,
    /// Resident memory of its process.
    pub memory_bytes: u64,
}

/// What an owner publishes.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) state: WorkerState,
    pub(super) started: SystemTime,
    pub(super) pid: Option<u32>,
    pub(super) failing_since: Option<Instant>,
    pub(super) last_failure: Option<String>,
    pub(super) assigned: Assigned,
    /// The last loss was for want of memory.
    pub(super) out_of_memory: bool,
}

/// Where an owner publishes, and everybody else looks.
#[derive(Debug)]
pub(super) struct Board {
    published: Mutex<Published>,
    changed: watch::Sender<()>,
}

impl Board {
    pub(super) fn new(assigned: Assigned) -> Self {
        let published = Published {
            state: WorkerState::Starting,
            started: SystemTime::now(),
            pid: None,
            failing_since: None,
            last_failure: None,
            assigned,
            out_of_memory: false,
        };
        Self { published: Mutex::new(published), changed: watch::Sender::new(()) }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Published)) {
        change(&mut self.published.lock());
        self.changed.send_replace(());
    }

    pub(super) fn read(&self) -> Published {
        self.published.lock().clone()
    }

    /// Waits until `done` holds of what is published.
    pub(super) async fn wait_until(&self, done: impl Fn(&Published) -> bool) -> Published {
        let mut changed = self.changed.subscribe();
        loop {
            let now = self.read();
            if done(&now) {
                return now;
            }
            // The sender is ours, so it can't be gone.
            let _ = changed.changed().await;
        }
    }
}

/// Resident memory of a process; 0 if it is gone.
pub(super) fn resident_bytes(pid: u32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"))
        .ok()
        .and_then(|statm| statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
