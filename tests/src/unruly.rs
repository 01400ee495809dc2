//! How an unruly worker misbehaves: a plan in its model's folder, and words in the requests.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The file with the plan.
pub const PLAN: &str = "plan.json";
/// The file with a line for each item that was begun: a pid and the item.
pub const RAN: &str = "ran";
/// The file with a line for each process that was started.
pub const STARTED: &str = "started";
/// The file with a line for each process that left when it was told to.
pub const LEFT: &str = "left";
/// While this file is missing, items that say [`HOLD`] aren't answered.
pub const RELEASE: &str = "release";
/// The file that says that a plan for [`Plan::once`] has been carried out.
pub const MISBEHAVED: &str = "misbehaved";
/// The file with the pid of the process that was left behind.
pub const ORPHAN: &str = "orphan";

/// An item that begins with this is answered when there is a file [`RELEASE`].
pub const HOLD: &str = "hold";
/// An item that begins with this kills the worker.
pub const POISON: &str = "poison";

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its manners.
    pub mode: Mode,
    /// They are bad once only, for all workers of the model together.
    pub once: bool,
}

impl Plan {
    /// Always like this.
    pub fn always(mode: Mode) -> Self {
        Self { mode, once: false }
    }

    /// Like this once, then polite.
    pub fn once(mode: Mode) -> Self {
        Self { mode, once: true }
    }

    /// Writes the plan where the workers of a model look for it.
    pub fn write(self, dir: &Path) {
        fs::write(dir.join(PLAN), serde_json::to_vec(&self).unwrap()).unwrap();
    }

    /// Reads it.
    pub fn read(dir: &Path) -> Self {
        serde_json::from_slice(&fs::read(dir.join(PLAN)).unwrap()).unwrap()
    }
}

/// The manners of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Obeys the protocol. The answer to an item is its text.
    Polite,

    /// Writes to standard error and exits with status 3 before it says anything.
    ExitsBeforeHello,
    /// Kills itself before it says anything.
    KilledBeforeHello,
    /// Speaks another major version.
    WrongMajor,
    /// Says nothing.
    NeverHello,
    /// Says something else.
    GarbageForHello,
    /// Declares a frame that is too long.
    OversizeForHello,

    /// Never answers Load.
    NeverLoads,
    /// Exits while it loads.
    ExitsInLoad,
    /// Fails to load, for now.
    LoadError,
    /// Fails to load for want of memory.
    LoadMemory,
    /// Can't load this archive by nature.
    LoadInvalid,

    /// Exits with status 3 in a batch.
    Dies,
    /// Exits with status 137 in a batch, as after a kill for want of memory.
    DiesOfMemory,
    /// Answers the first half of a batch, and dies.
    DiesHalfway,
    /// Dies when half of the bytes of the answers are out.
    DiesMidReply,
    /// Answers, and dies.
    DiesAfterReply,
    /// Never ends a batch.
    Hangs,
    /// Answers with a frame that is too long.
    OversizeReply,
    /// Answers with noise.
    Garbage,
    /// Answers an item that nobody sent.
    UnknownItem,
    /// Answers everything twice.
    AnswersTwice,
    /// Answers all items of a batch but the last.
    TooFew,
    /// Answers the last item first.
    OutOfOrder,
    /// Fails every third item.
    FailsSome,
    /// Writes megabytes to both outputs in each batch.
    Floods,
    /// Writes one byte at a time.
    OneByteWrites,
    /// Leaves a process with the link and both outputs behind, and dies in the batch.
    LeavesOrphan,
    /// Streams more than it has credit for.
    StreamsWithoutCredit,
    /// Begins to stream, and dies.
    StreamBreaksOff,
    /// Declares a concurrency of 8, waits for 8 batches and answers the last one first.
    Concurrent,

    /// Says something that nobody asked for once it is idle.
    TalksWhenIdle,
    /// Says Bye in place of an answer, and leaves.
    ByeUnasked,
    /// Takes no notice of Drain, SIGTERM and the end of its link.
    IgnoresDrain,
    /// Exits with status 3 when it is told to drain.
    DiesInDrain,
}
