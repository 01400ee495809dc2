//! Workers that are no longer wanted, and don't make it easy.

use std::time::Duration;

use zoo_e2e::pools::request;
use zoo_e2e::unruly::{HOLD, Mode, POISON, Plan};
use zoo_e2e::{eventually, exists, within};
use zoo_server::failure::Failure;
use zoo_server::worker::pool::Scaled;
use zoo_server::worker::state::WorkerState;

use crate::{DIED, bench, is_no_worker};

const GONE: Failure = Failure::ShuttingDown;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_down_finishes_what_runs() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |_| {}).ready(1).await;
    let pid = station.pid();
    let running = station.spawn(HOLD);
    station.begun(HOLD).await;
    let queued = station.spawn("queued");
    let pool = station.pool.clone();
    let scaled = tokio::spawn(async move { pool.scale(0, 0).await });
    eventually("the worker is dismissed", || station.pool.workers().is_empty()).await;
    assert!(is_no_worker(&station.pool.submit(request("late"), false).unwrap_err()));
    assert!(exists(pid) && !running.is_finished() && !scaled.is_finished());
    station.release();
    assert!(within(running).await.unwrap().is_ok());
    assert_eq!(within(scaled).await.unwrap(), Scaled::Done { ready: 0 });
    assert!(!exists(pid));
    let failure = within(queued).await.unwrap().unwrap_err();
    assert!(is_no_worker(&failure), "{failure:?}");
    assert_eq!((station.ran(), station.left()), (vec![HOLD.to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_down_leaves_the_queue_to_the_others() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |_| {}).ready(3).await;
    let holding: Vec<_> = (0..3).map(|i| station.spawn(&format!("{HOLD} {i}"))).collect();
    eventually("all are busy", || station.ran().len() == 3).await;
    let queued: Vec<_> = (0..20).map(|i| station.spawn(&i.to_string())).collect();
    let pool = station.pool.clone();
    let scaled = tokio::spawn(async move { pool.scale(1, 1).await });
    eventually("two are dismissed", || station.pool.workers().len() == 1).await;
    station.release();
    for asked in holding.into_iter().chain(queued) {
        assert!(within(asked).await.unwrap().is_ok());
    }
    assert_eq!(within(scaled).await.unwrap(), Scaled::Done { ready: 1 });
    assert_eq!((station.ran().len(), station.left()), (23, 2));
}

/// The surplus worker dies with what it has: another one does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_while_draining_loses_nothing() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |_| {}).ready(2).await;
    let asked: Vec<_> = (0..2).map(|i| station.spawn(&format!("{HOLD} {i}"))).collect();
    eventually("both are busy", || station.ran().len() == 2).await;
    let oldest = station.pool.workers()[0].pid.unwrap();
    let youngest = station.pool.workers()[1].pid.unwrap();
    let pool = station.pool.clone();
    let scaled = tokio::spawn(async move { pool.scale(1, 1).await });
    eventually("one is dismissed", || station.pool.workers().len() == 1).await;
    zoo_e2e::kill(youngest);
    assert_eq!(within(scaled).await.unwrap(), Scaled::Done { ready: 1 });
    station.release();
    for asked in asked {
        assert!(within(asked).await.unwrap().is_ok());
    }
    assert_eq!(station.ran().len(), 3);
    assert_eq!(station.pid(), oldest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_instead_of_goodbye_is_no_failure() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::DiesInDrain), |_| {}).ready(1).await;
    let pid = station.pid();
    assert_eq!(within(station.pool.scale(0, 0)).await, Scaled::Done { ready: 0 });
    assert!(!exists(pid));
    assert_eq!(within(station.pool.scale(1, 1)).await, Scaled::Done { ready: 1 });
    assert_eq!(station.ask("a").await.unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ignores_everything_is_killed() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::IgnoresDrain), |_| {}).ready(1).await;
    assert_eq!(station.ask("a").await.unwrap(), "a");
    let pid = station.pid();
    // Neither kind words nor SIGTERM help.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(station.ask("b").await.unwrap(), "b");
    assert_eq!(within(station.pool.stop(GONE, Duration::from_millis(200))).await, Ok(()));
    assert!(!exists(pid));
    assert!(station.pool.workers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_the_queue_if_there_is_time() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |o| o.job_queue_size = 10).ready(1).await;
    let pid = station.pid();
    let running = station.spawn(HOLD);
    station.begun(HOLD).await;
    let queued: Vec<_> = (0..10).map(|i| station.spawn(&i.to_string())).collect();
    let full = station.pool.submit(request("one too many"), false).unwrap_err();
    assert!(matches!(full, Failure::Unavailable { .. }) && !is_no_worker(&full), "{full:?}");
    let pool = station.pool.clone();
    let stopped = tokio::spawn(async move { pool.stop(GONE, Duration::from_secs(40)).await });
    eventually("new requests are refused", || {
        station.pool.submit(request("late"), false).is_err_and(|failure| failure == GONE)
    })
    .await;
    station.release();
    for asked in queued.into_iter().chain([running]) {
        assert!(within(asked).await.unwrap().is_ok());
    }
    assert_eq!(within(stopped).await.unwrap(), Ok(()));
    assert!(!exists(pid));
    assert_eq!(station.left(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_without_time_answers_everything_and_kills() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |o| o.job_queue_size = 10).ready(1).await;
    let pid = station.pid();
    let running = station.spawn(HOLD);
    station.begun(HOLD).await;
    let queued: Vec<_> = (0..10).map(|i| station.spawn(&i.to_string())).collect();
    assert_eq!(within(station.pool.stop(GONE, Duration::from_millis(500))).await, Ok(()));
    assert_eq!(within(running).await.unwrap().unwrap_err(), DIED);
    for asked in queued {
        assert_eq!(within(asked).await.unwrap().unwrap_err(), GONE);
    }
    assert_eq!(station.ran(), [HOLD]);
    assert!(!exists(pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_the_only_worker_recovers_answers_everything() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |_| {}).ready(1).await;
    // Twice as deadly as allowed: the second poisoned worker leaves its pool waiting.
    let poison = station.spawn(POISON);
    station.until(WorkerState::BackingOff).await;
    let queued = station.spawn("queued");
    assert_eq!(within(station.pool.stop(GONE, Duration::from_secs(20))).await, Ok(()));
    for asked in [poison, queued] {
        assert_eq!(within(asked).await.unwrap().unwrap_err(), GONE);
    }
}

/// A server that stops closes the queue first and waits for its clients; with no worker in sight they needn't wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_queue_without_a_ready_worker_is_answered_at_once() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::NeverLoads), |_| {});
    station.pool.start_scaling(1, 1);
    let queued = station.spawn("queued");
    station.pool.drain(&GONE);
    assert_eq!(within(queued).await.unwrap().unwrap_err(), GONE);
    assert_eq!(within(station.pool.stop(GONE, Duration::from_secs(5))).await, Ok(()));
}
