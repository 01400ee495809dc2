//! The workers of one model version: how many there are, and the way in for its requests.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::context::WorkerContext;
use super::floor::{Crew, Floor};
use super::gpu::Turns;
use super::orders::Orders;
use super::owner::Owner;
use super::state::WorkerState;
use super::status::{Board, Published, WorkerStatus, resident_bytes};
use crate::batch::job::{Job, Task};
use crate::batch::policy::BatchPolicy;
use crate::batch::queue::{Limits, Queue, Refusal};
use crate::failure::{Failure, Unavailable};
use crate::metrics::Watched;
use crate::model::ModelSpec;
use crate::name::{ModelRef, WorkerName};
use crate::request::Request;
use crate::request::ticket::{Pending, ticket};

/// How long surplus workers may take to finish what they have begun when a pool is made smaller.
const SCALE_DOWN_GRACE: Duration = Duration::from_secs(30);
/// What is left of a stop's time for ending processes after the queue was given its part.
const ENDING: Duration = Duration::from_secs(3);

/// How scaling went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scaled {
    /// As many workers as wanted are ready.
    Done {
        /// How many.
        ready: u32,
    },
    /// At least one worker failed to come up; it is tried again.
    Failed {
        /// For want of memory.
        memory: bool,
        /// Why, traceback included.
        reason: String,
    },
    /// The machine has fewer GPUs than one worker needs.
    NoDevices,
    /// Another scaling came in between.
    Superseded,
}

/// Some workers were still running when the time was up; they were killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StillRunning {
    /// How many.
    pub workers: usize,
}

/// A queue as describe shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueStatus {
    /// Requests that wait.
    pub pending: usize,
    /// Requests that may wait.
    pub capacity: usize,
}

/// The workers of one model version.
pub struct Pool {
    spec: Arc<ModelSpec>,
    context: Arc<WorkerContext>,
    floor: Arc<Floor>,
    staff: Mutex<Staff>,
    /// Whose turn it is among the model's own devices.
    turns: Turns,
    /// Counts scalings, so that a later one is noticed by one that waits.
    generation: AtomicU64,
    /// No worker has been ready for so long that waiting for one makes no sense.
    stalled: AtomicBool,
}

#[derive(Default)]
struct Staff {
    min: u32,
    max: u32,
    members: Vec<Member>,
    /// Nobody is hired any more: a scaling that comes late must not bring a removed version back to life.
    stopped: bool,
}

/// A scaling that isn't finished.
struct Scaling {
    generation: u64,
    /// Those who were dismissed.
    leaving: Vec<JoinHandle<()>>,
}

struct Member {
    id: u32,
    board: Arc<Board>,
    orders: Orders,
    task: JoinHandle<()>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("model", &self.spec.name)
            .field("version", &self.spec.version)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool without workers.
    pub fn new(spec: Arc<ModelSpec>, context: Arc<WorkerContext>) -> Arc<Self> {
        let options = &spec.options;
        // An asynchronous handler gets its requests one by one and gathers them itself.
        let size = if options.asynchronous { 1 } else { options.batch_size.max(1) as usize };
        let policy = BatchPolicy { size, delay: options.max_batch_delay };
        let limits = Limits {
            jobs: options.job_queue_size,
            bytes: options.max_queue_bytes,
            tickets: options.use_job_ticket,
        };
        let meter = context.settings.metrics.meter(spec.name.as_str(), spec.version.as_str());
        let pool = Arc::new(Self {
            floor: Arc::new(Floor::new(Queue::new(policy, limits), meter)),
            spec,
            context,
            staff: Mutex::default(),
            turns: Turns::default(),
            generation: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
        });
        let watched: Weak<Self> = Arc::downgrade(&pool);
        pool.floor.meter.watch(watched);
        tokio::spawn(watch_for_stall(
            Arc::downgrade(&pool),
            pool.floor.watch(),
            pool.spec.options.startup_timeout,
        ));
        pool
    }

    /// Lets a request wait for a worker, or refuses it at once. `version_named`: the client named the version.
    pub fn submit(&self, request: Request, version_named: bool) -> Result<Pending, Failure> {
        if !request.fits_a_frame() {
            let message =
                "The request's headers and parameter names are too large for a worker: 512 KiB in all.";
            return Err(Failure::BadRequest { message: message.into() });
        }
        self.floor.meter.asked(version_named);
        self.enqueue(request, Task::Predict, version_named)
    }

    /// Asks the handler to describe itself.
    pub fn describe_handler(&self, request_id: String) -> Result<Pending, Failure> {
        let request = Request {
            id: request_id,
            headers: Default::default(),
            url_path: String::new(),
            explain: false,
            parts: Vec::new(),
            deadline: Some(Instant::now() + self.spec.options.response_timeout),
        };
        self.enqueue(request, Task::Describe, false).map_err(|failure| match failure {
            Failure::Unavailable { model, .. } => Failure::NoWorkerToDescribe { model: model.model },
            other => other,
        })
    }

    fn enqueue(&self, request: Request, task: Task, version_named: bool) -> Result<Pending, Failure> {
        if self.stalled.load(Ordering::Relaxed) || self.staff.lock().members.is_empty() {
            // A pool that was stopped has no workers either, but that isn't why.
            let closed = self.floor.queue.closed();
            return Err(closed.unwrap_or_else(|| self.unavailable(version_named, Unavailable::NoWorker)));
        }
        let (promise, pending) = ticket(request.deadline);
        match self.floor.queue.push(Job::new(request, task, version_named, promise)) {
            Ok(()) => Ok(pending),
            Err((_, Refusal::Closed(failure))) => Err(failure),
            Err((_, Refusal::Full(why))) => Err(self.unavailable(version_named, why)),
        }
    }

    fn unavailable(&self, version_named: bool, why: Unavailable) -> Failure {
        let version = version_named.then(|| self.spec.version.clone());
        Failure::Unavailable { model: ModelRef { model: self.spec.name.clone(), version }, why }
    }

    /// Brings the number of workers between `min` and `max` and waits until those wanted are ready or have failed,
    /// and the others are gone.
    pub async fn scale(&self, min: u32, max: u32) -> Scaled {
        if min > 0 && self.context.gpus.room_for(&self.spec.options.devices) == Some(0) {
            return Scaled::NoDevices;
        }
        let begun = self.begin(min, max);
        self.finish(begun).await
    }

    /// Does the same without being waited for. The bounds are in force when this returns.
    pub fn start_scaling(self: &Arc<Self>, min: u32, max: u32) {
        let begun = self.begin(min, max);
        let pool = self.clone();
        tokio::spawn(async move { pool.finish(begun).await });
    }

    fn begin(&self, min: u32, max: u32) -> Scaling {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        Scaling { generation, leaving: self.set_bounds(min, max) }
    }

    async fn finish(&self, Scaling { generation, leaving }: Scaling) -> Scaled {
        let settled = self.settled().await;
        for task in leaving {
            // A task that panicked has been reported; its worker died with it.
            let _ = task.await;
        }
        if self.staff.lock().members.is_empty() {
            self.floor.queue.fail_all(&|job| self.unavailable(job.version_named, Unavailable::NoWorker));
        }
        let current = self.generation.load(Ordering::Relaxed) == generation && !self.staff.lock().stopped;
        if current { settled } else { Scaled::Superseded }
    }

    /// Hires and dismisses; returns the tasks of those who leave. There is no autoscaling: `min` are started, `max` matters when there are more.
    fn set_bounds(&self, min: u32, max: u32) -> Vec<JoinHandle<()>> {
        let mut staff = self.staff.lock();
        if staff.stopped {
            return Vec::new();
        }
        // A model that is spread over several GPUs has no more workers than sets of them.
        let room = self.context.gpus.room_for(&self.spec.options.devices).unwrap_or(u32::MAX);
        let (min, max) = (min.min(room), max.min(room));
        (staff.min, staff.max) = (min, max);
        let wanted = (staff.members.len() as u32).clamp(min, max.max(min)) as usize;
        let mut leaving = Vec::new();
        while staff.members.len() > wanted {
            // The youngest leave: the oldest are the warmest.
            if let Some(member) = staff.members.pop() {
                member.orders.leave_by(Instant::now() + SCALE_DOWN_GRACE);
                leaving.push(member.task);
            }
        }
        while staff.members.len() < wanted {
            let member = self.hire();
            staff.members.push(member);
        }
        leaving
    }

    fn hire(&self) -> Member {
        self.floor.hire();
        let id = self.context.number();
        let assigned = self.context.gpus.assign(&self.spec.options.devices, &self.turns);
        let board = Arc::new(Board::new(assigned.clone()));
        let orders = Orders::default();
        let owner = Owner {
            name: WorkerName { id, model: self.spec.name.clone(), version: self.spec.version.clone() },
            spec: self.spec.clone(),
            context: self.context.clone(),
            floor: self.floor.clone(),
            board: board.clone(),
            orders: orders.clone(),
            assigned,
        };
        Member { id, board, orders, task: tokio::spawn(owner.run()) }
    }

    /// Waits until every worker is ready or has failed to become so.
    async fn settled(&self) -> Scaled {
        let boards: Vec<_> = self.staff.lock().members.iter().map(|member| member.board.clone()).collect();
        let mut ready = 0;
        for board in boards {
            let settled = |now: &Published| {
                let trying = matches!(now.state, WorkerState::Starting | WorkerState::Loading);
                !trying || now.failing_since.is_some()
            };
            let now = board.wait_until(settled).await;
            match now.state {
                WorkerState::Ready => ready += 1,
                // Dismissed by a later scaling.
                WorkerState::Draining | WorkerState::Stopped => {}
                _ => {
                    let reason = now.last_failure.unwrap_or_default();
                    return Scaled::Failed { memory: now.out_of_memory, reason };
                }
            }
        }
        Scaled::Done { ready }
    }

    /// Whether its workers use a GPU.
    pub fn uses_gpu(&self) -> bool {
        self.context.gpus.used_by(&self.spec.options.devices)
    }

    /// The bounds in force.
    pub fn bounds(&self) -> (u32, u32) {
        let staff = self.staff.lock();
        (staff.min, staff.max)
    }

    /// The workers, by number.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let now = Instant::now();
        let patience = self.spec.options.max_retry_timeout;
        let boards: Vec<_> = {
            let staff = self.staff.lock();
            staff.members.iter().map(|member| (member.id, member.board.read())).collect()
        };
        let status = |(id, published): (u32, Published)| WorkerStatus {
            id,
            state: published.state,
            started: published.started,
            pid: published.pid,
            gpu: published.assigned.gpu,
            healthy: published.state != WorkerState::Failed
                && published.failing_since.is_none_or(|since| now < since + patience),
            last_failure: published.last_failure,
            memory_bytes: published.pid.map_or(0, resident_bytes),
        };
        boards.into_iter().map(status).collect()
    }

    /// The queue.
    pub fn queue(&self) -> QueueStatus {
        QueueStatus { pending: self.floor.queue.len(), capacity: self.floor.queue.capacity() }
    }

    /// Refuses new requests with `failure` and finishes those that wait, if there is anybody to do it.
    pub fn drain(&self, failure: &Failure) {
        self.floor.queue.close(failure.clone());
        if self.floor.ready() == 0 {
            self.floor.queue.fail_all(&|_| failure.clone());
        }
    }

    /// Ends the pool: requests that wait are finished as far as `limit` allows, then the workers leave.
    pub async fn stop(&self, failure: Failure, limit: Duration) -> Result<(), StillRunning> {
        let deadline = Instant::now() + limit;
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.drain(&failure);
        if self.floor.ready() > 0 {
            let for_queue = deadline.checked_sub(ENDING).unwrap_or(deadline);
            let _ = timeout_at(for_queue, self.floor.queue.drained()).await;
        }
        self.floor.queue.fail_all(&|_| failure.clone());
        let leaving: Vec<_> = {
            let mut staff = self.staff.lock();
            (staff.min, staff.max) = (0, 0);
            staff.stopped = true;
            staff.members.drain(..).collect()
        };
        leaving.iter().for_each(|member| member.orders.leave_by(deadline));
        let mut running = 0;
        for member in leaving {
            // The owner ends its process right after the deadline; the extra time is for that.
            if timeout_at(deadline + ENDING, member.task).await.is_err() {
                running += 1;
            }
        }
        if running == 0 { Ok(()) } else { Err(StillRunning { workers: running }) }
    }
}

impl Watched for Pool {
    fn queued(&self) -> usize {
        self.floor.queue.len()
    }

    fn workers(&self) -> Vec<(&'static str, usize)> {
        let states: Vec<_> =
            self.staff.lock().members.iter().map(|member| member.board.read().state).collect();
        let count = |state| states.iter().filter(|&&found| found == state).count();
        WorkerState::ALL.map(|state| (state.as_str(), count(state))).into()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Whoever dropped the pool without stopping it still gets rid of the processes.
        for member in &self.staff.get_mut().members {
            member.orders.leave_by(Instant::now());
        }
    }
}

/// Answers the queue of a pool that has had no ready worker for `patience`, and has it refuse until somebody is ready or hired.
async fn watch_for_stall(pool: Weak<Pool>, mut crew: watch::Receiver<Crew>, patience: Duration) {
    loop {
        let idle = crew.borrow_and_update().ready == 0;
        let limit = if idle { patience } else { Duration::MAX };
        match timeout(limit, crew.changed()).await {
            Ok(Ok(())) => continue,
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        let Some(stalled) = pool.upgrade() else { return };
        stalled.stalled.store(true, Ordering::Relaxed);
        stalled.floor.queue.fail_all(&|job| stalled.unavailable(job.version_named, Unavailable::NoWorker));
        drop(stalled);
        if crew.changed().await.is_err() {
            return;
        }
        let Some(stalled) = pool.upgrade() else { return };
        stalled.stalled.store(false, Ordering::Relaxed);
    }
}
