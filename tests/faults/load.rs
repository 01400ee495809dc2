//! Workers that are killed while clients keep asking.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;
use zoo_e2e::pools::Station;
use zoo_e2e::unruly::{Mode, Plan};
use zoo_e2e::{eventually, kill, within};
use zoo_server::failure::Failure;
use zoo_server::model::ModelOptions;

use crate::{DIED, bench};

const CLIENTS: usize = 8;

/// What became of the requests of some clients who asked one after another until they were told to stop.
struct Load {
    station: Arc<Station>,
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<Vec<(String, Result<String, Failure>)>>,
}

impl Load {
    fn begin(station: Station) -> Self {
        let station = Arc::new(station);
        let over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (station, over, answered) = (station.clone(), over.clone(), answered.clone());
            clients.spawn(async move {
                let mut outcomes = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let text = format!("{client}-{}", outcomes.len());
                    let outcome = station.ask(&text).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                    outcomes.push((text, outcome));
                }
                outcomes
            });
        }
        Self { station, over, answered, clients }
    }

    async fn until_answered(&self, more: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        eventually("more answers", || self.answered.load(Ordering::Relaxed) >= goal).await;
    }

    /// Kills workers one after another, each in the middle of its work.
    async fn kill_workers(&self, times: usize) {
        for round in 0..times {
            self.until_answered(200).await;
            let pid = self.station.pool.workers().iter().filter_map(|worker| worker.pid).nth(round % 2);
            if let Some(pid) = pid {
                kill(pid);
            }
        }
        self.until_answered(200).await;
    }

    async fn end(self) -> (Arc<Station>, Vec<(String, Result<String, Failure>)>) {
        self.over.store(true, Ordering::Relaxed);
        let outcomes = within(self.clients.join_all()).await;
        (self.station, outcomes.into_iter().flatten().collect())
    }
}

async fn killed_under_load(change: impl FnOnce(&mut ModelOptions)) {
    let bench = bench();
    let load = Load::begin(bench.unruly(Plan::always(Mode::Polite), change).ready(2).await);
    load.kill_workers(4).await;
    let (station, outcomes) = load.end().await;
    for (text, outcome) in &outcomes {
        assert_eq!(outcome.as_ref(), Ok(text));
    }
    assert!(station.started() > 2, "at least one was replaced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_under_load_fails_no_request() {
    killed_under_load(|_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_under_load_fails_no_request_with_batches() {
    killed_under_load(|options| options.batch_size = 4).await;
}

/// Without retries, a request fails if and only if its worker had begun it; none runs twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_retries_nothing_runs_twice() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |options| {
        options.retry_on_worker_death = false;
        options.batch_size = 2;
    });
    let load = Load::begin(station.ready(2).await);
    load.kill_workers(4).await;
    let (station, outcomes) = load.end().await;
    let mut ran = HashMap::new();
    for text in station.ran() {
        *ran.entry(text).or_insert(0) += 1;
    }
    let mut failed = 0;
    for (text, outcome) in outcomes {
        match outcome {
            Ok(answer) => assert_eq!(answer, text),
            Err(failure) => {
                assert_eq!(failure, DIED);
                failed += 1;
            }
        }
        let times = ran.remove(&text).unwrap_or(0);
        assert!(times <= 1, "{text} ran {times} times");
    }
    assert!(ran.is_empty(), "ran without having been asked: {ran:?}");
    assert!(failed <= 8, "a killed worker has two requests at most, {failed} failed");
}
