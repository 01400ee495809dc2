//! Why a worker was lost, and what that means for the requests it had.

use std::fmt;
use std::time::Duration;

use zoo_proto::wire::WireError;
use zoo_proto::wire::start::{LoadFailed, LoadFailure};

use super::inflight::Slot;
use crate::batch::job::{Job, Task};
use crate::failure::Failure;

/// Why a worker was lost. What its process said of itself is added when it has been reaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// Its process couldn't be made.
    Launch(String),
    /// It didn't do this in time.
    TooSlow {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        waited: Duration,
    },
    /// It was no longer wanted, and hadn't finished when it had to leave.
    Overdue,
    /// It couldn't load the model.
    Load(LoadFailed),
    /// The link ended, or the process did.
    Gone,
    /// It broke the protocol.
    Protocol(WireError),
    /// The link failed.
    Link(String),
}

impl Loss {
    /// Whether trying again is of no use.
    pub fn is_by_nature(&self) -> bool {
        matches!(self, Self::Load(LoadFailed { kind: LoadFailure::Invalid, .. }))
    }

    /// One word, for counting.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Launch(_) => "launch",
            Self::TooSlow { .. } => "timeout",
            Self::Overdue => "overdue",
            Self::Load(_) => "load",
            Self::Gone => "died",
            Self::Protocol(_) => "protocol",
            Self::Link(_) => "link",
        }
    }

    /// Whether memory ran out, as far as the worker itself could tell.
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Load(LoadFailed { kind: LoadFailure::Memory, .. }))
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launch(why) => write!(f, "the process couldn't be started: {why}"),
            Self::TooSlow { what, waited } => write!(f, "no {what} within {} s", waited.as_secs_f64()),
            Self::Overdue => f.write_str("it hadn't finished when it had to leave"),
            Self::Load(failed) => {
                write!(f, "the model couldn't be loaded: {}", failed.message)?;
                if failed.trace.is_empty() { Ok(()) } else { write!(f, "\n{}", failed.trace.trim_end()) }
            }
            Self::Gone => f.write_str("the process died"),
            Self::Protocol(error) => write!(f, "it broke the worker protocol: {error}"),
            Self::Link(why) => write!(f, "its link failed: {why}"),
        }
    }
}

impl From<WireError> for Loss {
    fn from(error: WireError) -> Self {
        Self::Protocol(error)
    }
}

/// What the loss of a worker means for its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// The model allows a second try, and its requests may be run twice.
    pub retry: bool,
    /// The worker was ended because it didn't answer in time.
    pub unresponsive: bool,
    /// The worker was killed for memory.
    pub memory: bool,
}

/// Decides about everything that a lost worker had: fails what may not be tried again, returns what goes back to the queue.
/// `slots` are in order, each with a note whether the worker can have begun it.
pub fn settle_lost(slots: Vec<(Slot, bool)>, circumstances: Circumstances) -> Vec<Job> {
    let mut again = Vec::new();
    for (slot, begun) in slots {
        match slot {
            Slot::Open(mut job) | Slot::Receiving(mut job, _) => {
                if may_run_again(&job, begun, circumstances) {
                    // What had not begun when a hanging worker was killed is not under suspicion.
                    job.deaths += u8::from(!circumstances.unresponsive);
                    again.push(job);
                } else {
                    fail(job, circumstances.memory);
                }
            }
            // A stream breaks off by being dropped.
            Slot::Streaming(..) | Slot::Recalled | Slot::Done => {}
        }
    }
    again
}

fn may_run_again(job: &Job, begun: bool, circumstances: Circumstances) -> bool {
    let begun_and_final = begun && (circumstances.unresponsive || circumstances.memory);
    circumstances.retry && job.deaths == 0 && job.task == Task::Predict && !begun_and_final
}

fn fail(job: Job, memory: bool) {
    let failure = match job.task {
        Task::Predict => Failure::WorkerDied { memory },
        Task::Describe => Failure::DescribeFailed,
    };
    job.fail(failure);
}
