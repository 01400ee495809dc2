//! Workers that don't come up.

use std::time::Duration;

use zoo_e2e::eventually;
use zoo_e2e::pools::request;
use zoo_e2e::unruly::{Mode, Plan};
use zoo_server::worker::pool::Scaled;
use zoo_server::worker::state::WorkerState;

use crate::{bench, is_no_worker};

/// Fails once for a reason that scaling and status name; what was asked meanwhile is answered by the next process.
async fn fails_once(mode: Mode, reasons: &[&str]) {
    let bench = bench();
    // Most modes don't last this long; those that do should fail soon.
    let soon = matches!(mode, Mode::NeverHello | Mode::NeverLoads);
    let station = bench.unruly(Plan::once(mode), |options| {
        if soon {
            options.startup_timeout = Duration::from_secs(1);
        }
    });
    let (memory, reason) = station.fails().await;
    assert_eq!(memory, mode == Mode::LoadMemory);
    for expected in reasons {
        assert!(reason.contains(expected), "{expected:?} is missing in {reason:?}");
    }
    let worker = station.worker();
    assert_eq!(worker.state, WorkerState::BackingOff);
    assert!(worker.healthy && worker.pid.is_none());
    assert_eq!(worker.last_failure.unwrap(), reason);

    if soon {
        // The startup timeout is also how long requests wait for a first worker.
        station.until(WorkerState::Ready).await;
    }
    assert_eq!(station.ask("patience").await.unwrap(), "patience");
    let worker = station.worker();
    assert_eq!(worker.state, WorkerState::Ready);
    assert_eq!(worker.last_failure.unwrap(), reason, "the last failure stays to be seen");
    assert_eq!(station.started(), 2);
}

macro_rules! fails_once {
    ($($name:ident: $mode:ident, $reasons:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            fails_once(Mode::$mode, &$reasons).await;
        })*
    };
}

fails_once! {
    exit_before_hello: ExitsBeforeHello, ["the process died (exited with status 3)", "the sky is falling"];
    killed_before_hello: KilledBeforeHello, ["the process died (was killed by signal 9 (SIGKILL))"];
    another_major_version: WrongMajor, ["broke the worker protocol: peer speaks version 2"];
    no_hello: NeverHello, ["no greeting within 1 s"];
    noise_for_hello: GarbageForHello, ["broke the worker protocol: frame of kind", "the limit is 1048576"];
    too_long_a_hello: OversizeForHello, ["frame of kind 0x01 declares 1048577 bytes"];
    no_load: NeverLoads, ["no loaded model within 1 s"];
    exit_in_load: ExitsInLoad, ["the process died (exited with status 3)", "the sky is falling"];
    failed_load: LoadError, ["the model couldn't be loaded: bent weights", "weights.bin is bent"];
    failed_load_for_memory: LoadMemory, ["the model couldn't be loaded: bent weights"];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_cant_be_loaded_by_nature_is_not_tried_again() {
    let bench = bench();
    let station =
        bench.unruly(Plan::always(Mode::LoadInvalid), |o| o.startup_timeout = Duration::from_secs(2));
    let (memory, reason) = station.fails().await;
    assert!(!memory && reason.contains("bent weights") && reason.contains("weights.bin is bent"), "{reason}");
    let worker = station.worker();
    assert_eq!((worker.state, worker.healthy), (WorkerState::Failed, false));
    // The queue is given up after the startup timeout, which is longer than the first wait before a restart would be.
    let failure = station.ask("in vain").await.unwrap_err();
    assert!(is_no_worker(&failure), "{failure:?}");
    assert_eq!(station.started(), 1);
    // Whoever scales again gets the same reason, and removing the worker works.
    assert_eq!(station.fails().await.1, reason);
    assert_eq!(station.pool.scale(0, 0).await, Scaled::Done { ready: 0 });
    assert!(station.pool.workers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_isnt_there() {
    let bench = bench();
    let station = bench.missing();
    let (_, reason) = station.fails().await;
    assert!(reason.contains("exited with status 127"), "{reason}");
    assert!(reason.contains("no-such-program: No such file or directory"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_folder_that_is_gone() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |_| {});
    std::fs::remove_dir_all(&station.dir).unwrap();
    let (_, reason) = station.fails().await;
    assert!(reason.contains("its directory") && reason.contains("doesn't exist"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_at_a_time_is_enough() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::OneByteWrites), |_| {}).ready(1).await;
    let long = "x".repeat(5000);
    assert_eq!(station.ask(&long).await.unwrap(), long);
    assert_eq!(station.started(), 1);
}

/// A worker is dismissed in each state before it is ready, and nothing of it is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dismissed_before_it_was_ready() {
    let bench = bench();
    for (mode, state) in [
        (Mode::NeverHello, WorkerState::Starting),
        (Mode::NeverLoads, WorkerState::Loading),
        (Mode::ExitsInLoad, WorkerState::BackingOff),
    ] {
        let station = bench.unruly(Plan::always(mode), |_| {});
        station.pool.start_scaling(1, 1);
        eventually("a worker", || !station.pool.workers().is_empty()).await;
        station.until(state).await;
        eventually("a process", || station.started() > 0).await;
        let pid: u32 = station.lines("started")[0].parse().unwrap();
        let waiting = station.spawn("too early");
        assert_eq!(zoo_e2e::within(station.pool.scale(0, 0)).await, Scaled::Done { ready: 0 });
        eventually("the process is gone", || !zoo_e2e::exists(pid)).await;
        let failure = waiting.await.unwrap().unwrap_err();
        assert!(is_no_worker(&failure), "{mode:?}: {failure:?}");
        assert!(is_no_worker(&station.pool.submit(request("late"), false).unwrap_err()));
    }
}

/// No ready worker for the startup timeout: the queue is answered, and new requests are refused until somebody is hired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_pool_answers_its_queue() {
    let bench = bench();
    let station =
        bench.unruly(Plan::always(Mode::NeverLoads), |o| o.startup_timeout = Duration::from_secs(2));
    station.pool.start_scaling(1, 1);
    eventually("a worker", || !station.pool.workers().is_empty()).await;
    let waiting: Vec<_> = (0..5).map(|i| station.spawn(&i.to_string())).collect();
    for waiting in waiting {
        let failure = waiting.await.unwrap().unwrap_err();
        assert!(is_no_worker(&failure), "{failure:?}");
    }
    assert!(is_no_worker(&station.pool.submit(request("refused"), false).unwrap_err()));
    assert_eq!(station.pool.queue().pending, 0);

    Plan::always(Mode::Polite).write(&station.dir);
    station.pool.start_scaling(2, 2);
    eventually("requests are accepted", || station.pool.submit(request("accepted"), false).is_ok()).await;
    assert_eq!(station.ask("at last").await.unwrap(), "at last");
}
