//! Deadlines, clients who leave, and queues, against workers that are busy for as long as the test wants.

use std::time::Duration;

use tokio::time::Instant;
use zoo_e2e::pools::{Station, request, text_of};
use zoo_e2e::unruly::{HOLD, Mode, Plan};
use zoo_e2e::{eventually, within};
use zoo_server::failure::{Failure, Unavailable};
use zoo_server::model::ModelOptions;
use zoo_server::request::Request;

use crate::bench;

const SOON: Duration = Duration::from_millis(200);

fn due_soon(text: &str) -> Request {
    Request { deadline: Some(Instant::now() + SOON), ..request(text) }
}

/// A polite worker that is busy with an item until it is released.
async fn busy(bench: &zoo_e2e::pools::Bench, change: impl FnOnce(&mut ModelOptions)) -> Station {
    let station = bench.unruly(Plan::always(Mode::Polite), change).ready(1).await;
    station.spawn(HOLD);
    station.begun(HOLD).await;
    station
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_passes_in_the_queue() {
    let bench = bench();
    let station = busy(&bench, |_| {}).await;
    let asked = station.pool.submit(due_soon("late"), false).unwrap();
    assert_eq!(within(asked).await.unwrap_err(), Failure::DeadlineExceeded);
    station.release();
    assert_eq!(station.ask("after").await.unwrap(), "after");
    assert_eq!(station.ran(), [HOLD, "after"], "what nobody waits for is not begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_passes_in_the_handler() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |_| {}).ready(1).await;
    let pid = station.pid();
    let asked = station.pool.submit(due_soon(HOLD), false).unwrap();
    assert_eq!(within(asked).await.unwrap_err(), Failure::DeadlineExceeded);
    station.release();
    assert_eq!(station.ask("after").await.unwrap(), "after");
    assert_eq!((station.pid(), station.times(HOLD)), (pid, 1), "it costs no worker");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_works_for_a_client_who_left() {
    let bench = bench();
    let station = busy(&bench, |_| {}).await;
    let leaving: Vec<_> = (0..10).map(|i| station.submit(&format!("leaves {i}"))).collect();
    let stays = station.spawn("stays");
    drop(leaving);
    station.release();
    assert!(within(stays).await.unwrap().is_ok());
    assert_eq!(station.ran(), [HOLD, "stays"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_who_leaves_a_running_request_harms_nobody() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |_| {}).ready(1).await;
    let pid = station.pid();
    let asked = station.submit(HOLD);
    station.begun(HOLD).await;
    drop(asked);
    station.release();
    assert_eq!(station.ask("after").await.unwrap(), "after");
    assert_eq!(station.pid(), pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_left_hold_no_place_in_a_full_queue() {
    let bench = bench();
    let station = busy(&bench, |o| o.job_queue_size = 3).await;
    let waiting: Vec<_> = (0..3).map(|i| station.submit(&i.to_string())).collect();
    let refused = station.pool.submit(request("refused"), false).unwrap_err();
    assert!(matches!(refused, Failure::Unavailable { why: Unavailable::QueueFull, .. }), "{refused:?}");
    drop(waiting);
    let admitted = station.spawn("admitted");
    station.release();
    assert_eq!(text_of(within(admitted).await.unwrap().unwrap()).await, "admitted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_full_by_bytes() {
    let bench = bench();
    let station = busy(&bench, |o| o.max_queue_bytes = 1000).await;
    let heavy = "x".repeat(900);
    let waiting = station.spawn(&heavy);
    eventually("it waits", || station.pool.queue().pending == 1).await;
    let refused = station.pool.submit(request(&heavy), false).unwrap_err();
    assert!(matches!(refused, Failure::Unavailable { why: Unavailable::QueueBytes, .. }), "{refused:?}");
    let light = station.spawn("light");
    station.release();
    assert!(within(waiting).await.unwrap().is_ok() && within(light).await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tickets_only_idle_workers_accept() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |o| o.use_job_ticket = true).ready(1).await;
    // A worker that has just become ready, or has just answered, is idle a moment later.
    let submit = async |text: &str| loop {
        if let Ok(asked) = station.pool.submit(request(text), false) {
            return asked;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let running = within(submit(HOLD)).await;
    station.begun(HOLD).await;
    let refused = station.pool.submit(request("refused"), false).unwrap_err();
    assert!(matches!(refused, Failure::Unavailable { why: Unavailable::QueueFull, .. }), "{refused:?}");
    station.release();
    assert!(within(running).await.is_ok());
    let again = within(submit("again")).await;
    assert!(within(again).await.is_ok());
}
