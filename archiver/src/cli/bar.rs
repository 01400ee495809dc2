//! The progress bar: on a terminal only, and only for work that takes more than a second.

use std::{
    io::{IsTerminal, stderr},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{interrupt, log};
use crate::{collect::Warning, progress::Progress};

/// Shows progress, and warnings as they come.
pub(super) struct Bar {
    started: Instant,
    terminal: bool,
    /// Whether to say what doesn't call for anything to be done. The peers show no line below a warning.
    notes: bool,
    total: AtomicU64,
    done: AtomicU64,
    bar: OnceLock<ProgressBar>,
}

/// Work shorter than this passes in silence.
const PATIENCE: Duration = Duration::from_secs(1);

impl Bar {
    pub(super) fn new() -> Self {
        Self::with_notes(true)
    }

    pub(super) fn with_notes(notes: bool) -> Self {
        Self {
            notes,
            started: Instant::now(),
            terminal: stderr().is_terminal(),
            total: AtomicU64::new(0),
            done: AtomicU64::new(0),
            bar: OnceLock::new(),
        }
    }

    fn show(&self) -> ProgressBar {
        let total = self.total.load(Ordering::Relaxed);
        let (bar, template) = match total {
            0 => (ProgressBar::new_spinner(), "{spinner} {bytes} ({bytes_per_sec})"),
            _ => (ProgressBar::new(total), "{bar:40} {bytes} of {total_bytes} ({bytes_per_sec}, {eta} left)"),
        };
        bar.with_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        )
    }
}

impl Progress for Bar {
    fn begin(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.terminal && self.started.elapsed() >= PATIENCE {
            self.bar.get_or_init(|| self.show()).set_position(done);
        }
    }

    fn cancelled(&self) -> bool {
        interrupt::asked()
    }

    fn warn(&self, warning: &Warning) {
        match warning.is_note() {
            false => log::warning(&warning.to_string()),
            true if self.notes => log::info(&warning.to_string()),
            true => {}
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}
