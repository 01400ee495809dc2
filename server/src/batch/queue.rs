//! The queue of one model version: bounded by requests and by bytes, pulled from by the owners of its workers.
//!
//! There is no dispatcher. A worker that has room asks with [`Queue::poll_take`]; if there is nothing for it, it is woken when there may be.
//! Idle workers are served before busy ones that would take work ahead.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::job::Job;
use super::policy::{BatchPolicy, Decision};
use crate::failure::{Failure, Unavailable};

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests.
    pub jobs: usize,
    /// Their bytes. A single larger request is accepted into an empty queue: the body limit is what bounds it.
    pub bytes: usize,
    /// Accept a request only if a worker is idle.
    pub tickets: bool,
}

/// How much a worker wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hunger {
    /// It has nothing to do.
    Idle,
    /// It is busy but would take work ahead if no idle worker wants it.
    Ahead {
        /// Only a whole batch is worth it.
        full_only: bool,
    },
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Jobs were appended to the caller's list.
    Some,
    /// Nothing now; ask again at that time, or when woken.
    Until(Instant),
    /// Nothing; ask again when woken.
    Nothing,
}

/// Jobs of one model version.
#[derive(Debug)]
pub struct Queue {
    policy: BatchPolicy,
    limits: Limits,
    inner: Mutex<Inner>,
    /// Told when a closed queue has been emptied.
    drained: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// How many of the jobs must run alone.
    alone: usize,
    /// Workers that found nothing. They stay listed until they ask again, so that a woken one still counts as idle.
    idle: Vec<Hungry>,
    ahead: Vec<Hungry>,
    /// The one worker that is gathering a batch, and since when.
    gathering: Option<(u32, Instant)>,
    closed: Option<Failure>,
}

#[derive(Debug)]
struct Hungry {
    worker: u32,
    /// `None`: it has been woken.
    waker: Option<Waker>,
}

impl Queue {
    /// An empty queue.
    pub fn new(policy: BatchPolicy, limits: Limits) -> Self {
        Self { policy, limits, inner: Mutex::default(), drained: Notify::new() }
    }

    /// How batches are gathered.
    pub fn policy(&self) -> BatchPolicy {
        self.policy
    }

    /// Appends a job, or gives it back with the reason why not.
    #[expect(
        clippy::result_large_err,
        reason = "the job goes back whole: its promise must be answered by the caller"
    )]
    pub fn push(&self, job: Job) -> Result<(), (Job, Refusal)> {
        let mut inner = self.inner.lock();
        if let Some(refusal) = self.refuses(&mut inner, &job) {
            return Err((job, refusal));
        }
        inner.count_job(&job);
        inner.jobs.push_back(job);
        inner.wake_next(self.policy.size);
        Ok(())
    }

    fn refuses(&self, inner: &mut Inner, job: &Job) -> Option<Refusal> {
        if let Some(failure) = &inner.closed {
            return Some(Refusal::Closed(failure.clone()));
        }
        self.over_bounds(inner, job)?;
        // Those whose client has left hold no place against those who wait.
        inner.sweep(Instant::now());
        self.over_bounds(inner, job).map(Refusal::Full)
    }

    fn over_bounds(&self, inner: &Inner, job: &Job) -> Option<Unavailable> {
        let no_ticket = self.limits.tickets && inner.jobs.len() >= inner.idle.len();
        if inner.jobs.len() >= self.limits.jobs || no_ticket {
            return Some(Unavailable::QueueFull);
        }
        let too_heavy = inner.bytes + job.weight > self.limits.bytes && !inner.jobs.is_empty();
        too_heavy.then_some(Unavailable::QueueBytes)
    }

    /// Puts jobs back to the head, in their order; used for what a worker didn't do.
    /// They were admitted before, so no bound applies. If the queue is closed they are answered.
    pub fn put_back(&self, jobs: Vec<Job>) {
        let mut inner = self.inner.lock();
        if let Some(failure) = inner.closed.clone() {
            drop(inner);
            jobs.into_iter().for_each(|job| job.fail(failure.clone()));
            return;
        }
        for job in jobs.into_iter().rev() {
            job.promise().place(None);
            inner.count_job(&job);
            inner.jobs.push_front(job);
        }
        inner.wake_all();
    }

    /// Takes a batch for `worker` if there is one for it, appending it to `into`. Otherwise the worker is woken when it should ask again.
    pub fn poll_take(&self, worker: u32, hunger: Hunger, into: &mut Vec<Job>, cx: &Context<'_>) -> Taken {
        let mut inner = self.inner.lock();
        inner.forget(worker);
        let now = Instant::now();
        let taken = loop {
            let wanted = match hunger {
                Hunger::Idle => self.want_idle(&mut inner, worker, now),
                Hunger::Ahead { full_only } => self.want_ahead(&inner, full_only),
            };
            match wanted {
                Decision::Take(count) if inner.take(count, now, into) == 0 => {} // All of them moot: look again.
                Decision::Take(_) => break Taken::Some,
                Decision::Until(when) => break Taken::Until(when),
                Decision::Nothing => break Taken::Nothing,
            }
        };
        if inner.jobs.is_empty() && inner.closed.is_some() {
            self.drained.notify_waiters();
        }
        if taken == Taken::Some {
            // More may be left than this worker took, and somebody may have been passed over while it was gathering.
            inner.wake_next(self.policy.size);
        } else {
            let hungry = Hungry { worker, waker: Some(cx.waker().clone()) };
            match hunger {
                Hunger::Idle => inner.idle.push(hungry),
                Hunger::Ahead { .. } => inner.ahead.push(hungry),
            }
        }
        taken
    }

    fn want_idle(&self, inner: &mut Inner, worker: u32, now: Instant) -> Decision {
        if inner.jobs.front().is_some_and(Job::runs_alone) {
            inner.stop_gathering(worker);
            return Decision::Take(1);
        }
        // Only one worker gathers at a time; the others would each hold back a part of what makes a batch.
        let waiting = inner.sharing();
        let since = match inner.gathering {
            Some((other, _)) if other != worker && waiting < self.policy.size => return Decision::Nothing,
            Some((gatherer, since)) if gatherer == worker => since,
            _ => now,
        };
        let decision = self.policy.decide(now, waiting, since);
        match decision {
            Decision::Until(_) => inner.gathering = Some((worker, since)),
            Decision::Take(_) | Decision::Nothing => inner.stop_gathering(worker),
        }
        decision
    }

    fn want_ahead(&self, inner: &Inner, full_only: bool) -> Decision {
        if !inner.idle.is_empty() || inner.jobs.front().is_none_or(Job::runs_alone) {
            return Decision::Nothing;
        }
        let waiting = inner.sharing();
        if waiting < self.policy.size && (full_only || self.policy.delay.is_some()) {
            return Decision::Nothing;
        }
        Decision::Take(waiting.min(self.policy.size))
    }

    /// Says that `worker` won't take anything more for now, and passes on what it was woken for.
    pub fn leave(&self, worker: u32) {
        let mut inner = self.inner.lock();
        inner.forget(worker);
        inner.stop_gathering(worker);
        if !inner.jobs.is_empty() {
            inner.wake_all();
        }
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.inner.lock().jobs.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Requests that may wait.
    pub fn capacity(&self) -> usize {
        self.limits.jobs
    }

    /// Refuses everything from now on with `failure`. What waits stays.
    pub fn close(&self, failure: Failure) {
        self.inner.lock().closed = Some(failure);
    }

    /// Why everything is refused, if it is.
    pub fn closed(&self) -> Option<Failure> {
        self.inner.lock().closed.clone()
    }

    /// Accepts again.
    pub fn reopen(&self) {
        self.inner.lock().closed = None;
    }

    /// Waits until nothing is left in a closed queue.
    pub async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            // Listening before looking, so that the last job can't go unnoticed in between.
            drained.as_mut().enable();
            if self.is_empty() {
                return;
            }
            drained.await;
        }
    }

    /// Answers everything that waits.
    pub fn fail_all(&self, failure: &dyn Fn(&Job) -> Failure) {
        let jobs = {
            let mut inner = self.inner.lock();
            (inner.bytes, inner.alone) = (0, 0);
            std::mem::take(&mut inner.jobs)
        };
        for job in jobs {
            let failure = failure(&job);
            job.fail(failure);
        }
    }
}

/// Why a job wasn't admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A bound is reached.
    Full(Unavailable),
    /// The queue is closed.
    Closed(Failure),
}

impl Inner {
    /// Takes `count` jobs from the front, dropping those that are moot; returns how many are left to work on.
    fn take(&mut self, count: usize, now: Instant, into: &mut Vec<Job>) -> usize {
        let before = into.len();
        for _ in 0..count {
            let Some(job) = self.jobs.pop_front() else { break };
            self.forget_job(&job);
            if job.is_moot(now) {
                job.fail(Failure::DeadlineExceeded);
            } else {
                into.push(job);
            }
        }
        into.len() - before
    }

    fn count_job(&mut self, job: &Job) {
        self.bytes += job.weight;
        self.alone += usize::from(job.runs_alone());
    }

    fn forget_job(&mut self, job: &Job) {
        self.bytes -= job.weight;
        self.alone -= usize::from(job.runs_alone());
    }

    /// How many jobs at the front may share a batch.
    fn sharing(&self) -> usize {
        if self.alone == 0 {
            return self.jobs.len();
        }
        self.jobs.iter().position(Job::runs_alone).unwrap_or(self.jobs.len())
    }

    fn sweep(&mut self, now: Instant) {
        for job in std::mem::take(&mut self.jobs) {
            if job.is_moot(now) {
                self.forget_job(&job);
                job.fail(Failure::DeadlineExceeded);
            } else {
                self.jobs.push_back(job);
            }
        }
    }

    fn forget(&mut self, worker: u32) {
        self.idle.retain(|hungry| hungry.worker != worker);
        self.ahead.retain(|hungry| hungry.worker != worker);
    }

    fn stop_gathering(&mut self, worker: u32) {
        if self.gathering.is_some_and(|(gatherer, _)| gatherer == worker) {
            self.gathering = None;
        }
    }

    /// Wakes whoever should look at what is in the queue now.
    fn wake_next(&mut self, size: usize) {
        if self.jobs.is_empty() {
            return;
        }
        // A gatherer has a timer running: only a whole batch, or a job that runs alone, is news.
        if self.gathering.is_some() && self.jobs.len() < size && self.alone == 0 {
            return;
        }
        let gatherer = self.gathering.map(|(gatherer, _)| gatherer);
        let asleep = |hungry: &&mut Hungry| hungry.waker.is_some();
        let next = match self
            .idle
            .iter()
            .position(|hungry| Some(hungry.worker) == gatherer && hungry.waker.is_some())
        {
            Some(index) => self.idle.get_mut(index),
            None => self.idle.iter_mut().chain(&mut self.ahead).find(asleep),
        };
        if let Some(waker) = next.and_then(|hungry| hungry.waker.take()) {
            waker.wake();
        }
    }

    fn wake_all(&mut self) {
        for waker in self.idle.iter_mut().chain(&mut self.ahead).filter_map(|hungry| hungry.waker.take()) {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
