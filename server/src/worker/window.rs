//! How much work may be on the wire to one worker at a time. Pure.
//!
//! A next batch normally stays in the queue, where any worker can take it, until the answer to the previous one has arrived. It goes ahead
//! early only for handlers so fast that the round trip is what costs.

use std::time::Duration;

use crate::batch::queue::Hunger;

/// Handlers up to this p99 are fed ahead with whatever is there; slower ones with whole batches only.
const FAST: Duration = Duration::from_micros(200);
/// The most p99 work on the wire.
const WORK_AHEAD: Duration = Duration::from_millis(1);
/// What a call costs at least, beyond the time in the handler.
const CALL_COST: Duration = Duration::from_micros(15);
/// Batches of several items gather in the queue while the worker is busy; one on the wire beside the one that runs keeps it busy.
const BATCHES_AHEAD: usize = 2;

/// What the model allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Batches that the handler declared to take at a time.
    pub concurrency: usize,
    /// Nothing goes ahead: what was sent and not answered must have been begun.
    pub strict: bool,
    /// Batches hold more than one item.
    pub batching: bool,
}

impl Window {
    /// Whether, and how, a worker with `open` batches on the wire should ask for more.
    pub fn hunger(&self, open: usize, runs_alone: bool, p99: Option<Duration>) -> Option<Hunger> {
        if open == 0 {
            return Some(Hunger::Idle);
        }
        if runs_alone {
            return None;
        }
        if self.concurrency > 1 {
            return (open < self.concurrency).then_some(Hunger::Ahead { full_only: false });
        }
        if self.strict || self.batching && open >= BATCHES_AHEAD {
            return None;
        }
        let p99 = p99?;
        let ahead = (p99 + CALL_COST) * (open as u32 + 1);
        (ahead <= WORK_AHEAD).then_some(Hunger::Ahead { full_only: p99 >= FAST })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let us = |us| Some(Duration::from_micros(us));
        let plain = Window { concurrency: 1, strict: false, batching: false };
        let batching = Window { batching: true, ..plain };
        let strict = Window { strict: true, ..plain };
        let many = Window { concurrency: 3, ..plain };
        let some = Some(Hunger::Ahead { full_only: false });
        let full = Some(Hunger::Ahead { full_only: true });
        // (window, open, runs alone, p99, hunger)
        let cases = [
            (plain, 0, false, None, Some(Hunger::Idle)),
            (strict, 0, false, us(5), Some(Hunger::Idle)),
            (plain, 1, false, None, None),
            (plain, 1, false, us(5), some),
            (plain, 49, false, us(5), some),
            (plain, 50, false, us(5), None),
            (plain, 1, true, us(5), None),
            (plain, 1, false, us(199), some),
            (plain, 1, false, us(200), full),
            (plain, 3, false, us(200), full),
            (plain, 4, false, us(200), None),
            (plain, 1, false, us(600), None),
            (plain, 1, false, us(50_000), None),
            (batching, 1, false, us(5), some),
            (batching, 2, false, us(5), None),
            (strict, 1, false, us(5), None),
            (many, 1, false, us(50_000), some),
            (many, 2, false, None, some),
            (many, 3, false, us(5), None),
            (many, 1, true, us(5), None),
        ];
        for (window, open, alone, p99, expected) in cases {
            assert_eq!(window.hunger(open, alone, p99), expected, "{window:?} {open} {alone} {p99:?}");
        }
    }
}
