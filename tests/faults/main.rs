//! Pools against workers that misbehave, in each state of their life.
//!
//! Each test says what happens to requests, what scaling answers, what the status shows, and that the pool recovers.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod busy;
mod devices;
mod drain;
mod flow;
mod load;
mod python;
mod start;

use zoo_e2e::pools::Bench;
use zoo_server::failure::{Failure, Unavailable};

fn bench() -> Bench {
    Bench::new(env!("CARGO_BIN_EXE_unruly-worker"))
}

const DIED: Failure = Failure::WorkerDied { memory: false };

fn is_no_worker(failure: &Failure) -> bool {
    matches!(failure, Failure::Unavailable { why: Unavailable::NoWorker, .. })
}
