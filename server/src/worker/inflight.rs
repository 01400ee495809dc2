//! What is on the wire to one worker: batches in the order in which they were sent, and the job of each item until it is answered.
//!
//! Ids count up, so an item is found by its distance from the oldest one that is still open; there is no table to look it up in.

use std::collections::VecDeque;

use tokio::time::Instant;
use zoo_proto::wire::answer::Reply;

use crate::batch::job::{Job, Stamp};
use crate::request::stream::ChunkSender;

/// An item on the wire.
#[derive(Debug)]
pub enum Slot {
    /// Not answered.
    Open(Job),
    /// Its answer is streaming.
    Streaming(ChunkSender, Stamp),
    /// A reply with a large body has begun.
    Receiving(Job, Box<Reply>),
    /// Nobody wants its answer any more, or it was given back to the queue; the worker will still say something about it.
    Recalled,
    /// Answered.
    Done,
}

#[derive(Debug)]
struct Batch {
    first: u64,
    count: usize,
    left: usize,
    alone: bool,
}

/// Everything on the wire to one worker.
#[derive(Debug)]
pub struct InFlight {
    slots: VecDeque<Slot>,
    batches: VecDeque<Batch>,
    /// The id of the first slot.
    base: u64,
    /// Since when the oldest batch has had the worker's attention: its sending or the previous answer, whichever is later.
    since: Instant,
}

/// What settling an item led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Its batch has more open items.
    Item,
    /// It was the last one of its batch.
    Batch,
}

impl InFlight {
    /// Nothing on the wire.
    pub fn new(now: Instant) -> Self {
        Self { slots: VecDeque::new(), batches: VecDeque::new(), base: 1, since: now }
    }

    /// The id that the next item will get.
    pub fn next_id(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// Notes a batch that is being sent.
    pub fn open(&mut self, jobs: impl IntoIterator<Item = Job>, now: Instant) {
        let first = self.next_id();
        let mut alone = false;
        for job in jobs {
            alone |= job.runs_alone();
            self.slots.push_back(Slot::Open(job));
        }
        let count = (self.next_id() - first) as usize;
        if self.batches.is_empty() {
            self.since = now;
        }
        self.batches.push_back(Batch { first, count, left: count, alone });
    }

    /// Batches that are not finished.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Whether something is on the wire that must run alone.
    pub fn runs_alone(&self) -> bool {
        self.batches.iter().any(|batch| batch.alone)
    }

    /// Since when the worker has been busy with the oldest batch.
    pub fn busy_since(&self) -> Option<Instant> {
        (!self.batches.is_empty()).then_some(self.since)
    }

    /// Notes that the worker said something about its work.
    pub fn progress(&mut self, now: Instant) {
        self.since = now;
    }

    /// The slot of an open item.
    pub fn slot(&mut self, item: u64) -> Option<&mut Slot> {
        let index = usize::try_from(item.checked_sub(self.base)?).ok()?;
        self.slots.get_mut(index).filter(|slot| !matches!(slot, Slot::Done))
    }

    /// Takes the slot of an open item and marks it answered.
    pub fn settle(&mut self, item: u64) -> Option<(Slot, Settled)> {
        let slot = std::mem::replace(self.slot(item)?, Slot::Done);
        let index = self.batches.partition_point(|batch| batch.first <= item).checked_sub(1)?;
        let batch = self.batches.get_mut(index)?;
        batch.left -= 1;
        let finished = batch.left == 0;
        if finished {
            self.batches.remove(index);
        }
        // A concurrent handler may finish batches in any order; the table shrinks from the front only.
        while matches!(self.slots.front(), Some(Slot::Done)) {
            self.slots.pop_front();
            self.base += 1;
        }
        Some((slot, if finished { Settled::Batch } else { Settled::Item }))
    }

    /// Whether a streaming item has chunks that its client hasn't taken: the worker may be waiting for credit.
    pub fn waits_for_client(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Streaming(sender, _) if sender.is_backed_up()))
    }

    /// Takes the jobs of all batches but the oldest, leaving their items recalled; for giving them to other workers.
    /// Returns the ids beside the jobs. Items that have begun to answer stay.
    pub fn recall_waiting(&mut self) -> (Vec<u64>, Vec<Job>) {
        let Some(second) = self.batches.get(1).map(|batch| batch.first) else {
            return (Vec::new(), Vec::new());
        };
        let mut ids = Vec::new();
        let mut jobs = Vec::new();
        let start = (second - self.base) as usize;
        for (offset, slot) in self.slots.iter_mut().enumerate().skip(start) {
            match std::mem::replace(slot, Slot::Recalled) {
                Slot::Open(job) => {
                    ids.push(self.base + offset as u64);
                    jobs.push(job);
                }
                other => *slot = other,
            }
        }
        (ids, jobs)
    }

    /// Takes everything off the wire: the worker is gone. In order, with a note whether the item was in the oldest batch.
    pub fn take_all(&mut self) -> Vec<(Slot, bool)> {
        let head_end = self.batches.front().map_or(self.base, |head| head.first + head.count as u64);
        let base = self.base;
        self.base = self.next_id();
        self.batches.clear();
        let slots = std::mem::take(&mut self.slots);
        slots.into_iter().enumerate().map(|(i, slot)| (slot, base + (i as u64) < head_end)).collect()
    }
}
