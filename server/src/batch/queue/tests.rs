//! The queue under paused time: no test here waits for a real clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, advance};
use zoo_proto::wire::HeaderBlock;

use super::*;
use crate::batch::job::Task;
use crate::request::ticket::{Pending, ticket};
use crate::request::{Part, Request};

const IDLE: Hunger = Hunger::Idle;
const AHEAD: Hunger = Hunger::Ahead { full_only: false };
const MS: Duration = Duration::from_millis(1);

/// Counts how often a worker was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A worker as the queue sees one.
struct Worker {
    id: u32,
    bell: Arc<Bell>,
    taken: Vec<Job>,
}

impl Worker {
    fn new(id: u32) -> Self {
        Self { id, bell: Arc::default(), taken: Vec::new() }
    }

    fn ask(&mut self, queue: &Queue, hunger: Hunger) -> Taken {
        let waker = Waker::from(self.bell.clone());
        queue.poll_take(self.id, hunger, &mut self.taken, &Context::from_waker(&waker))
    }

    /// Asks and tells how many jobs it got.
    fn take(&mut self, queue: &Queue, hunger: Hunger) -> usize {
        self.taken.clear();
        self.ask(queue, hunger);
        self.taken.len()
    }

    fn rings(&self) -> usize {
        self.bell.0.swap(0, Ordering::Relaxed)
    }
}

fn queue(size: usize, delay: Option<Duration>) -> Queue {
    Queue::new(BatchPolicy { size, delay }, Limits { jobs: 4, bytes: 1000, tickets: false })
}

fn job_of(bytes: usize, deadline: Option<Instant>) -> (Job, Pending) {
    let (promise, pending) = ticket(deadline);
    let request = Request {
        id: "r".into(),
        headers: HeaderBlock::default(),
        url_path: String::new(),
        explain: false,
        parts: vec![Part {
            name: "".into(),
            content_type: String::new(),
            body: Bytes::from(vec![0; bytes]).into(),
        }],
        deadline,
    };
    (Job::new(request, Task::Predict, false, promise), pending)
}

/// Pushes a job of one byte that must be admitted.
fn push(queue: &Queue) -> Pending {
    let (job, pending) = job_of(1, None);
    assert!(queue.push(job).is_ok());
    pending
}

fn refusal(queue: &Queue, job: Job) -> Refusal {
    queue.push(job).expect_err("the job should have been refused").1
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_takes_what_is_there_at_once_when_no_delay_was_set() {
    let queue = queue(4, None);
    let mut worker = Worker::new(1);
    assert_eq!(worker.ask(&queue, IDLE), Taken::Nothing);
    let _pending = [push(&queue), push(&queue)];
    assert_eq!(worker.rings(), 1, "woken once, not for each job");
    assert_eq!(worker.take(&queue, IDLE), 2);
}

#[tokio::test(start_paused = true)]
async fn a_worker_waits_for_the_delay_then_takes_what_came() {
    let queue = queue(4, Some(100 * MS));
    let mut worker = Worker::new(1);
    let mut pending = vec![push(&queue)];
    let start = Instant::now();
    assert_eq!(worker.ask(&queue, IDLE), Taken::Until(start + 100 * MS));
    advance(60 * MS).await;
    pending.push(push(&queue));
    assert_eq!(worker.rings(), 0, "a gatherer isn't disturbed for less than a whole batch");
    assert_eq!(worker.ask(&queue, IDLE), Taken::Until(start + 100 * MS), "counted from its first look");
    advance(40 * MS).await;
    assert_eq!(worker.take(&queue, IDLE), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_wait() {
    let queue = queue(3, Some(100 * MS));
    let mut worker = Worker::new(1);
    let mut pending = vec![push(&queue)];
    assert!(matches!(worker.ask(&queue, IDLE), Taken::Until(_)));
    pending.extend([push(&queue), push(&queue)]);
    assert_eq!(worker.rings(), 1);
    assert_eq!(worker.take(&queue, IDLE), 3);
}

#[tokio::test(start_paused = true)]
async fn only_one_worker_gathers_and_the_others_do_not_take_its_jobs() {
    let queue = queue(3, Some(100 * MS));
    let (mut first, mut second) = (Worker::new(1), Worker::new(2));
    let mut pending = vec![push(&queue)];
    assert!(matches!(first.ask(&queue, IDLE), Taken::Until(_)));
    assert_eq!(second.ask(&queue, IDLE), Taken::Nothing);
    pending.push(push(&queue));
    assert_eq!((first.rings(), second.rings()), (0, 0));
    // The gatherer dies: the other one is woken and starts anew.
    queue.leave(1);
    assert_eq!(second.rings(), 1);
    assert!(matches!(second.ask(&queue, IDLE), Taken::Until(_)));
    advance(100 * MS).await;
    assert_eq!(second.take(&queue, IDLE), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_gatherer_leaves_wakes_the_next_worker() {
    let queue = queue(2, Some(100 * MS));
    let (mut first, mut second) = (Worker::new(1), Worker::new(2));
    let mut pending = vec![push(&queue)];
    assert!(matches!(first.ask(&queue, IDLE), Taken::Until(_)));
    assert_eq!(second.ask(&queue, IDLE), Taken::Nothing);
    pending.extend([push(&queue), push(&queue)]);
    assert_eq!(first.take(&queue, IDLE), 2);
    assert_eq!(second.rings(), 1);
    assert!(matches!(second.ask(&queue, IDLE), Taken::Until(_)));
}

#[tokio::test(start_paused = true)]
async fn idle_workers_come_before_those_that_would_take_work_ahead() {
    let queue = queue(1, None);
    let (mut busy, mut idle) = (Worker::new(1), Worker::new(2));
    assert_eq!(busy.ask(&queue, AHEAD), Taken::Nothing);
    assert_eq!(idle.ask(&queue, IDLE), Taken::Nothing);
    let _pending = push(&queue);
    assert_eq!((busy.rings(), idle.rings()), (0, 1));
    assert_eq!(busy.take(&queue, AHEAD), 0, "the woken idle worker is on its way");
    assert_eq!(idle.take(&queue, IDLE), 1);
    let _pending = push(&queue);
    assert_eq!(busy.rings(), 1);
    assert_eq!(busy.take(&queue, AHEAD), 1);
}

#[tokio::test(start_paused = true)]
async fn work_goes_ahead_in_whole_batches_where_that_is_what_pays() {
    let queue = queue(2, None);
    let mut busy = Worker::new(1);
    let full_only = Hunger::Ahead { full_only: true };
    let _one = push(&queue);
    assert_eq!(busy.take(&queue, full_only), 0);
    let _two = push(&queue);
    assert_eq!(busy.take(&queue, full_only), 2);
}

#[tokio::test(start_paused = true)]
async fn a_set_delay_is_not_cut_short_by_taking_ahead() {
    let queue = queue(2, Some(100 * MS));
    let mut busy = Worker::new(1);
    let _one = push(&queue);
    assert_eq!(busy.take(&queue, AHEAD), 0);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_by_requests() {
    let queue = queue(1, None);
    let pending: Vec<_> = (0..4).map(|_| push(&queue)).collect();
    assert_eq!(refusal(&queue, job_of(1, None).0), Refusal::Full(Unavailable::QueueFull));
    // A client who leaves makes room.
    drop(pending);
    push(&queue);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_by_bytes_but_takes_one_large_request() {
    let queue = queue(1, None);
    let (large, _large) = job_of(5000, None);
    assert!(queue.push(large).is_ok());
    let (small, _small) = job_of(1, None);
    assert_eq!(refusal(&queue, small), Refusal::Full(Unavailable::QueueBytes));
    let mut worker = Worker::new(1);
    assert_eq!(worker.take(&queue, IDLE), 1);
    push(&queue);
}

#[tokio::test(start_paused = true)]
async fn with_tickets_a_request_needs_an_idle_worker() {
    let queue =
        Queue::new(BatchPolicy { size: 1, delay: None }, Limits { jobs: 9, bytes: 1000, tickets: true });
    assert_eq!(refusal(&queue, job_of(1, None).0), Refusal::Full(Unavailable::QueueFull));
    let (mut first, mut second) = (Worker::new(1), Worker::new(2));
    first.ask(&queue, IDLE);
    second.ask(&queue, IDLE);
    let _pending = [push(&queue), push(&queue)];
    assert_eq!((first.rings(), second.rings()), (1, 1));
    assert_eq!(refusal(&queue, job_of(1, None).0), Refusal::Full(Unavailable::QueueFull));
}

#[tokio::test(start_paused = true)]
async fn the_dead_do_not_cost_work() {
    let queue = queue(4, None);
    let mut worker = Worker::new(1);
    drop(push(&queue));
    let (late, late_pending) = job_of(1, Some(Instant::now() + 10 * MS));
    assert!(queue.push(late).is_ok());
    let wanted = push(&queue);
    advance(20 * MS).await;
    assert_eq!(worker.take(&queue, IDLE), 1, "neither the abandoned nor the late one");
    assert!(matches!(late_pending.await, Err(Failure::DeadlineExceeded)));
    drop(wanted);
    drop(push(&queue));
    assert_eq!(worker.ask(&queue, IDLE), Taken::Nothing, "a queue of the dead is empty");
}

#[tokio::test(start_paused = true)]
async fn suspects_run_alone_and_first() {
    let queue = queue(4, Some(100 * MS));
    let mut worker = Worker::new(1);
    let _others = [push(&queue), push(&queue)];
    let (mut suspect, _first) = job_of(1, None);
    suspect.deaths = 1;
    let (mut another, _second) = job_of(1, None);
    another.deaths = 1;
    queue.put_back(vec![suspect, another]);
    assert_eq!(worker.take(&queue, AHEAD), 0);
    assert_eq!(worker.take(&queue, IDLE), 1);
    assert_eq!(worker.taken[0].deaths, 1);
    assert_eq!(worker.take(&queue, IDLE), 1);
    assert_eq!(worker.taken[0].deaths, 1);
    assert!(matches!(worker.ask(&queue, IDLE), Taken::Until(_)), "the innocent gather as ever");
}

#[tokio::test(start_paused = true)]
async fn a_closed_queue_refuses_and_tells_when_it_is_empty() {
    let queue = Arc::new(queue(1, None));
    let _pending = push(&queue);
    queue.close(Failure::ShuttingDown);
    assert_eq!(refusal(&queue, job_of(1, None).0), Refusal::Closed(Failure::ShuttingDown));
    let emptied = tokio::spawn({
        let queue = queue.clone();
        async move { queue.drained().await }
    });
    tokio::task::yield_now().await;
    assert!(!emptied.is_finished());
    let mut worker = Worker::new(1);
    assert_eq!(worker.take(&queue, IDLE), 1);
    emptied.await.expect("the queue is empty");
    let (back, pending) = job_of(1, None);
    queue.put_back(vec![back]);
    assert!(matches!(pending.await, Err(Failure::ShuttingDown)), "a closed queue takes nothing back");
}

/// Whatever workers and clients do, no admitted job is lost or handed out twice, and the counts stay true.
#[tokio::test(start_paused = true)]
async fn a_seeded_walk_loses_nothing() {
    for seed in 1..60_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = move |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let queue = Queue::new(
            BatchPolicy { size: 1 + next(4) as usize, delay: (next(2) == 0).then_some(5 * MS) },
            Limits { jobs: 20, bytes: 100, tickets: false },
        );
        let mut workers = [Worker::new(1), Worker::new(2), Worker::new(3)];
        let (mut admitted, mut answered) = (0, 0);
        let mut waiting = Vec::new();
        for _ in 0..300 {
            match next(6) {
                0 | 1 => {
                    let (job, pending) = job_of(1 + next(9) as usize, None);
                    if queue.push(job).is_ok() {
                        admitted += 1;
                        waiting.push(pending);
                    }
                }
                2 | 3 => {
                    let worker = &mut workers[next(3) as usize];
                    let hunger = if worker.taken.is_empty() { IDLE } else { AHEAD };
                    worker.ask(&queue, hunger);
                }
                4 => {
                    let worker = &mut workers[next(3) as usize];
                    if next(4) == 0 {
                        let mut lost = std::mem::take(&mut worker.taken);
                        lost.iter_mut().for_each(|job| job.deaths = 1);
                        queue.put_back(lost);
                        queue.leave(worker.id);
                    } else {
                        answered += worker.taken.len();
                        worker.taken.drain(..).for_each(|job| job.fail(Failure::ShuttingDown));
                    }
                }
                _ => advance(MS).await,
            }
            let held: usize = workers.iter().map(|worker| worker.taken.len()).sum();
            assert_eq!(queue.len() + held + answered, admitted, "seed {seed}");
        }
        // Everybody who is left gets everything that is left.
        for worker in &mut workers {
            worker.taken.drain(..).for_each(|job| job.fail(Failure::ShuttingDown));
        }
        loop {
            advance(10 * MS).await;
            let taken: usize = workers.iter_mut().map(|worker| worker.take(&queue, IDLE)).sum();
            if taken == 0 && queue.is_empty() {
                break;
            }
        }
        drop(workers);
        for pending in waiting {
            assert!(
                pending.await.is_err(),
                "seed {seed}: answered by a failure or by being dropped, but answered"
            );
        }
    }
}
