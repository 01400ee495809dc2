//! A request on its way to a worker.

use tokio::time::Instant;

use crate::failure::Failure;
use crate::request::ticket::Promise;
use crate::request::{Outcome, Request};

/// What the worker is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Predict or explain.
    Predict,
    /// Let the handler describe itself; never shares a batch.
    Describe,
}

/// What is measured of a job when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When it entered the queue.
    pub queued_at: Instant,
    /// Whether the client named the version.
    pub version_named: bool,
}

/// A request and the promise to answer it. Dropped unanswered, it answers for itself.
#[derive(Debug)]
pub struct Job {
    /// The request.
    pub request: Request,
    /// What is asked.
    pub task: Task,
    /// Whether the client named the version; TorchServe's texts differ.
    pub version_named: bool,
    /// When it entered the queue.
    pub queued_at: Instant,
    /// What it weighs in the queue.
    pub weight: usize,
    /// Workers that died while they had it. Above zero it is a *suspect* and runs alone.
    pub deaths: u8,
    promise: Promise,
}

impl Job {
    /// A fresh job.
    pub fn new(request: Request, task: Task, version_named: bool, promise: Promise) -> Self {
        let weight = request.weight();
        Self { request, task, version_named, queued_at: Instant::now(), weight, deaths: 0, promise }
    }

    /// Answers it.
    pub fn answer(self, outcome: Outcome) {
        self.promise.answer(outcome);
    }

    /// Answers it with a failure.
    pub fn fail(self, failure: Failure) {
        self.promise.answer(Err(failure));
    }

    /// The promise, for telling where the job is.
    pub fn promise(&self) -> &Promise {
        &self.promise
    }

    /// What is measured of it.
    pub fn stamp(&self) -> Stamp {
        Stamp { queued_at: self.queued_at, version_named: self.version_named }
    }

    /// Whether it must run alone.
    pub fn runs_alone(&self) -> bool {
        self.deaths > 0 || self.task == Task::Describe
    }

    /// Whether working on it would be for nobody: its client left, or its deadline has passed.
    pub fn is_moot(&self, now: Instant) -> bool {
        self.request.deadline.is_some_and(|deadline| deadline <= now) || self.promise.is_abandoned()
    }
}
