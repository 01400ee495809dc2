//! Workers that misbehave while they have work, or right after it.

use std::collections::BTreeSet;
use std::time::Duration;

use zoo_e2e::unruly::{HOLD, Mode, POISON, Plan};
use zoo_e2e::{eventually, exists, kill, within};
use zoo_server::failure::Failure;
use zoo_server::model::ModelOptions;
use zoo_server::request::AnswerBody;
use zoo_server::worker::state::WorkerState;

use crate::{DIED, bench};

fn strict(options: &mut ModelOptions) {
    options.retry_on_worker_death = false;
}

fn batches_of(size: u32) -> impl Fn(&mut ModelOptions) {
    move |options| {
        options.batch_size = size;
        // Long enough that a batch is always full; tests fill it.
        options.max_batch_delay = Some(Duration::from_secs(40));
    }
}

/// The worker breaks off once: the request is answered by its successor.
async fn retried(mode: Mode, reason: &str) {
    let bench = bench();
    let station = bench.unruly(Plan::once(mode), |_| {}).ready(1).await;
    let before = station.pid();
    assert_eq!(station.ask("a").await.unwrap(), "a", "{mode:?}");
    assert_eq!(station.ran(), ["a", "a"], "{mode:?}");
    let worker = station.worker();
    assert_ne!(worker.pid, Some(before), "{mode:?}");
    assert!(!exists(before), "{mode:?}: the lost worker's process is gone");
    let failure = worker.last_failure.unwrap();
    assert!(failure.contains(reason), "{mode:?}: {reason:?} is missing in {failure:?}");

    // A model that forbids it gets no second try.
    let station = bench.unruly(Plan::once(mode), strict).ready(1).await;
    assert_eq!(station.ask("a").await, Err(DIED), "{mode:?}");
    assert_eq!(station.ran(), ["a"], "{mode:?}");
    assert_eq!(station.ask("b").await.unwrap(), "b", "{mode:?} recovers");

    // Two tries are enough for anybody.
    let station = bench.unruly(Plan::always(mode), |_| {}).ready(1).await;
    assert_eq!(station.ask("a").await, Err(DIED), "{mode:?}");
    assert_eq!(station.ran(), ["a", "a"], "{mode:?}");
}

macro_rules! retried {
    ($($name:ident: $mode:ident, $reason:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            retried(Mode::$mode, $reason).await;
        })*
    };
}

retried! {
    death_in_a_batch: Dies, "the process died (exited with status 3)\n  the sky is falling";
    death_in_the_middle_of_a_reply: DiesMidReply, "the process died (exited with status 3)";
    too_long_a_reply: OversizeReply, "frame of kind 0x12 declares 1048577 bytes";
    noise_for_a_reply: Garbage, "broke the worker protocol";
    an_answer_to_nobody: UnknownItem, "Reply frame for item 1001, which is not open";
    goodbye_in_place_of_an_answer: ByeUnasked, "the process died (exited with status 0)";
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_runs_out_of_memory_is_not_tried_again() {
    let bench = bench();
    let station = bench.unruly(Plan::once(Mode::DiesOfMemory), |_| {}).ready(1).await;
    assert_eq!(station.ask("a").await, Err(Failure::WorkerDied { memory: true }));
    assert_eq!(station.ran(), ["a"]);
    assert_eq!(station.ask("b").await.unwrap(), "b");
    assert!(station.worker().last_failure.unwrap().contains("out of memory"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_is_killed_and_not_tried_again() {
    let bench = bench();
    let station = bench.unruly(Plan::once(Mode::Hangs), |options| {
        batches_of(2)(options);
        options.response_timeout = Duration::from_secs(1);
    });
    let station = station.ready(1).await;
    let before = station.pid();
    let (a, b) = (station.spawn("a"), station.spawn("b"));
    assert_eq!(within(a).await.unwrap().unwrap_err(), DIED);
    assert_eq!(within(b).await.unwrap().unwrap_err(), DIED);
    assert_eq!(station.ran(), ["a", "b"]);
    eventually("the worker is killed", || !exists(before)).await;
    let (c, d) = (station.spawn("c"), station.spawn("d"));
    assert!(within(c).await.unwrap().is_ok() && within(d).await.unwrap().is_ok());
    let failure = station.worker().last_failure.unwrap();
    assert!(failure.contains("no answer within 1 s (was killed by signal 9 (SIGKILL))"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_answers_fail_those_without_one() {
    let bench = bench();
    let station = bench.unruly(Plan::once(Mode::TooFew), |options| {
        batches_of(3)(options);
        options.response_timeout = Duration::from_secs(1);
    });
    let station = station.ready(1).await;
    let asked: Vec<_> = ["a", "b", "c"].map(|text| station.spawn(text)).into();
    let mut outcomes = Vec::new();
    for asked in asked {
        outcomes.push(within(asked).await.unwrap().map(drop));
    }
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(DIED)]);
    assert_eq!(station.ran(), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_before_the_death_is_answered() {
    let bench = bench();
    let station = bench.unruly(Plan::once(Mode::DiesHalfway), batches_of(4)).ready(1).await;
    let texts = ["a", "b", "c", "d"];
    for asked in texts.map(|text| station.spawn(text)) {
        assert!(within(asked).await.unwrap().is_ok());
    }
    assert_eq!(texts.map(|text| station.times(text)), [1, 1, 2, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_after_the_reply_fails_nobody() {
    let bench = bench();
    for retries in [false, true] {
        let station = bench.unruly(Plan::once(Mode::DiesAfterReply), |o| o.retry_on_worker_death = retries);
        let station = station.ready(1).await;
        assert_eq!(station.ask("a").await.unwrap(), "a");
        if !retries {
            // What is sent to a worker in the moment of its death may have been begun, as far as anybody can tell.
            eventually("the worker is lost", || station.worker().last_failure.is_some()).await;
        }
        assert_eq!(station.ask("b").await.unwrap(), "b");
        assert_eq!(station.times("a"), 1);
        assert_eq!(station.started(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_answer_ends_the_worker_and_changes_nothing() {
    let bench = bench();
    let station = bench.unruly(Plan::once(Mode::AnswersTwice), |_| {}).ready(1).await;
    assert_eq!(station.ask("a").await.unwrap(), "a");
    eventually("the worker is lost", || station.worker().last_failure.is_some()).await;
    let failure = station.worker().last_failure.unwrap();
    assert!(failure.contains("Reply frame for item 1, which is not open"), "{failure}");
    assert_eq!(station.ask("b").await.unwrap(), "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_in_any_order_reach_whom_they_are_for() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::OutOfOrder), batches_of(8)).ready(1).await;
    let asked: Vec<_> = (0..8).map(|i| (i.to_string(), station.spawn(&i.to_string()))).collect();
    for (text, asked) in asked {
        let answer = within(asked).await.unwrap().unwrap();
        assert_eq!(zoo_e2e::pools::text_of(answer).await, text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_item_fails_no_neighbour() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::FailsSome), batches_of(8)).ready(1).await;
    let asked: Vec<_> = (0..8).map(|i| station.spawn(&i.to_string())).collect();
    for (index, asked) in asked.into_iter().enumerate() {
        let outcome = within(asked).await.unwrap();
        if index % 3 == 2 {
            let failure = Failure::Handler { status: 507, message: format!("no room for {index}") };
            assert_eq!(outcome.unwrap_err(), failure);
        } else {
            assert!(outcome.is_ok(), "{index}");
        }
    }
    assert_eq!(station.started(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_output_hold_up_nobody() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Floods), |_| {}).ready(1).await;
    for text in ["a", "b"] {
        assert_eq!(station.ask(text).await.unwrap(), text);
    }
    assert_eq!(station.started(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphan_that_holds_the_link_and_the_output_delays_nothing() {
    let bench = bench();
    let station = bench.unruly(Plan::once(Mode::LeavesOrphan), |_| {}).ready(1).await;
    assert_eq!(station.ask("a").await.unwrap(), "a");
    let orphan = station.orphan();
    assert!(exists(orphan), "it outlives the death of the worker, the retry and the answer");
    let failure = station.worker().last_failure.unwrap();
    assert!(failure.contains("exited with status 3") && failure.contains("the sky is falling"), "{failure}");
    kill(orphan);
    eventually("the orphan is collected", || !exists(orphan)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_credit_ends_the_worker() {
    let bench = bench();
    let station = bench.unruly(Plan::once(Mode::StreamsWithoutCredit), |_| {}).ready(1).await;
    let answer = within(station.submit("a")).await.unwrap();
    let AnswerBody::Stream(mut chunks) = answer.body else { panic!("expected a stream") };
    // Nothing is taken until the worker has gone too far.
    eventually("the worker is lost", || station.worker().last_failure.is_some()).await;
    let failure = station.worker().last_failure.unwrap();
    assert!(failure.contains("its stream has no credit"), "{failure}");
    let mut end = Ok(());
    while let Some(chunk) = within(chunks.next()).await {
        end = chunk.map(drop);
    }
    assert_eq!(end, Err(DIED));
    assert_eq!(station.ask("b").await.unwrap(), "b");
    assert_eq!(station.times("a"), 1, "nothing is tried again after the first chunk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_off_says_so() {
    let bench = bench();
    let station = bench.unruly(Plan::once(Mode::StreamBreaksOff), |_| {}).ready(1).await;
    let answer = within(station.submit("a")).await.unwrap();
    let AnswerBody::Stream(mut chunks) = answer.body else { panic!("expected a stream") };
    assert_eq!(within(chunks.next()).await.unwrap().unwrap().len(), 1000);
    assert_eq!(within(chunks.next()).await.unwrap(), Err(DIED));
    assert!(within(chunks.next()).await.is_none());
    assert_eq!(station.ask("b").await.unwrap(), "b");
    assert_eq!(station.times("a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poison_item_among_fifteen_innocents() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), batches_of(16)).ready(2).await;
    let texts: Vec<_> =
        (0..16).map(|i| if i == 6 { POISON.to_owned() } else { format!("innocent {i}") }).collect();
    let asked: Vec<_> = texts.iter().map(|text| station.spawn(text)).collect();
    for (text, asked) in texts.iter().zip(asked) {
        let outcome = within(asked).await.unwrap();
        if text == POISON {
            assert_eq!(outcome.unwrap_err(), DIED);
        } else {
            assert_eq!(zoo_e2e::pools::text_of(outcome.unwrap()).await, *text);
        }
    }
    assert_eq!(texts.iter().map(|text| station.times(text)).collect::<BTreeSet<_>>(), BTreeSet::from([2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrent_worker_answers_in_any_order() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Concurrent), |_| {}).ready(1).await;
    for round in 0..3 {
        let asked: Vec<_> =
            (0..8).map(|i| format!("{round} {i}")).map(|t| (t.clone(), station.spawn(&t))).collect();
        for (text, asked) in asked {
            let answer = within(asked).await.unwrap().unwrap();
            assert_eq!(zoo_e2e::pools::text_of(answer).await, text);
        }
    }
    assert_eq!(station.ran().len(), 24);
}

/// All that a concurrent worker has was begun, so none of it may be tried again after it was killed for not answering.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrent_worker_that_hangs_takes_all_it_has_with_it() {
    let bench = bench();
    let station =
        bench.unruly(Plan::always(Mode::Concurrent), |o| o.response_timeout = Duration::from_secs(1));
    let station = station.ready(1).await;
    let asked: Vec<_> = (0..3).map(|i| station.spawn(&i.to_string())).collect();
    for asked in asked {
        assert_eq!(within(asked).await.unwrap().unwrap_err(), DIED);
    }
    assert_eq!(station.ran(), ["0", "1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_idle() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |_| {}).ready(1).await;
    let before = station.pid();
    kill(before);
    station.until(WorkerState::BackingOff).await;
    let worker = station.worker();
    assert_eq!(worker.last_failure.unwrap(), "the process died (was killed by signal 9 (SIGKILL))");
    assert!(worker.healthy && worker.pid.is_none());
    assert_eq!(station.ask("a").await.unwrap(), "a");
    assert_eq!(station.times("a"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_talks_while_idle_is_replaced() {
    let bench = bench();
    let station = bench.unruly(Plan::once(Mode::TalksWhenIdle), |_| {}).ready(1).await;
    eventually("the worker is lost", || station.worker().last_failure.is_some()).await;
    let failure = station.worker().last_failure.unwrap();
    assert!(failure.contains("Reply frame for item 77, which is not open"), "{failure}");
    assert_eq!(station.ask("a").await.unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_busy_with_a_second_worker_there() {
    let bench = bench();
    let station = bench.unruly(Plan::always(Mode::Polite), |_| {}).ready(2).await;
    let asked = station.spawn(HOLD);
    station.begun(HOLD).await;
    kill(station.who(HOLD));
    eventually("the other worker has begun it", || station.times(HOLD) == 2).await;
    station.release();
    assert!(within(asked).await.unwrap().is_ok());
}
