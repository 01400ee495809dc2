//! The real Python worker under handlers that do what handlers shouldn't.

use std::time::Duration;

use zoo_e2e::pools::text_of;
use zoo_e2e::{eventually, exists, within};
use zoo_server::failure::Failure;
use zoo_server::request::AnswerBody;
use zoo_server::worker::pool::Scaled;
use zoo_server::worker::state::WorkerState;

use crate::{DIED, bench};

/// `bodies` is what the handler was called with.
const BODIES: &str = "bodies = [row['body'].decode() for row in data]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_answers() {
    let bench = bench();
    let station = bench.python("return [row['body'].decode()[::-1] for row in data]", |_| {}).ready(1).await;
    assert_eq!(station.ask("abc").await.unwrap(), "cba");
    let worker = station.worker();
    let pid = worker.pid.unwrap();
    assert!(worker.memory_bytes > 0 && worker.last_failure.is_none());
    within(station.pool.stop(Failure::ShuttingDown, Duration::from_secs(10))).await.unwrap();
    assert!(station.pool.workers().is_empty() && !exists(pid));
}

/// A handler whose code is run with `bodies`, after which it answers them as they are.
fn echo_after(code: &str) -> String {
    format!("{BODIES}{code}\nreturn bodies")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_in_a_handler() {
    let bench = bench();
    for (code, how) in [
        ("sys.exit(7)", "exited with status 7"),
        ("os._exit(8)", "exited with status 8"),
        ("os.abort()", "was killed by signal 6 (SIGABRT)"),
    ] {
        let station = bench.python(&echo_after(&format!("if 'x' in bodies:\n    {code}")), |_| {});
        let station = station.ready(1).await;
        assert_eq!(station.ask("a").await.unwrap(), "a");
        assert_eq!(station.ask("x").await, Err(DIED), "{code}");
        assert_eq!(station.ask("b").await.unwrap(), "b", "{code} takes nobody with it");
        let failure = station.worker().last_failure.unwrap();
        assert!(failure.contains(how), "{code}: {failure}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_in_a_handler() {
    let bench = bench();
    let code = "child = os.fork()\nif child == 0:\n    time.sleep(300)\n    os._exit(0)\nopen('child', 'w').write(str(child))";
    let station = bench.python(&echo_after(code), |_| {}).ready(1).await;
    assert_eq!(station.ask("a").await.unwrap(), "a");
    let child: u32 = station.lines("child")[0].parse().unwrap();
    let pid = station.pid();
    assert!(exists(child));
    // The child holds everything that the worker had; its death is noticed all the same, and the child dies with it.
    zoo_e2e::kill(pid);
    station.until(WorkerState::BackingOff).await;
    eventually("the child is gone", || !exists(child)).await;
    assert_eq!(station.ask("b").await.unwrap(), "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forked_child_that_returns_from_the_handler() {
    let bench = bench();
    // The child runs on in the worker's loop as if it were the worker.
    let code = "if 'x' in bodies and os.fork() == 0:\n    return ['child']";
    let station = bench.python(&echo_after(code), |_| {}).ready(1).await;
    let answer = station.ask("x").await;
    assert!(answer == Ok("x".into()) || answer == Ok("child".into()) || answer == Err(DIED), "{answer:?}");
    for text in ["a", "b", "c"] {
        assert_eq!(station.ask(text).await.unwrap(), text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_prints() {
    let bench = bench();
    let code = "for i in range(50000):\n    print('x' * 99)\nsys.stderr.write('y' * 5000000)";
    let station = bench.python(&echo_after(code), |_| {}).ready(1).await;
    assert_eq!(station.ask("a").await.unwrap(), "a");
    assert!(station.worker().last_failure.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_that_are_left_running() {
    let bench = bench();
    let code = "import threading\nthreading.Thread(target=time.sleep, args=(300,)).start()";
    let station = bench.python(&echo_after(code), |_| {}).ready(1).await;
    assert_eq!(station.ask("a").await.unwrap(), "a");
    assert_eq!(station.ask("b").await.unwrap(), "b");
    let pid = station.pid();
    // Python waits for such threads at its end; the worker must not.
    assert_eq!(within(station.pool.scale(0, 0)).await, Scaled::Done { ready: 0 });
    assert!(!exists(pid));
}

/// Who hasn't finished when it has to leave is asked by SIGTERM before it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_asks_before_it_kills() {
    let bench = bench();
    let source = "import os, signal, time\n\n\ndef asked(*_):\n    open('asked', 'w').write('yes')\n    os._exit(0)\n\n\n\
                  def handle(data, context):\n    if data is None:\n        return\n    signal.signal(signal.SIGTERM, asked)\n\
                  \x20   open('begun', 'w').write('yes')\n    time.sleep(300)\n";
    let station = bench.python_source(source, |_| {}).ready(1).await;
    let running = station.spawn("a");
    eventually("it is begun", || station.lines("begun").len() == 1).await;
    let stopped = station.pool.stop(Failure::ShuttingDown, Duration::from_millis(100));
    assert_eq!(within(stopped).await, Ok(()));
    assert_eq!(station.lines("asked"), ["yes"]);
    assert_eq!(within(running).await.unwrap().unwrap_err(), DIED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_that_are_closed() {
    let bench = bench();
    // The standard ones are nothing to the link.
    let station = bench.python(&echo_after("for fd in (0, 1, 2):\n    os.close(fd)"), |_| {}).ready(1).await;
    assert_eq!(station.ask("a").await.unwrap(), "a");
    let station = bench.python(&echo_after("if 'x' in bodies:\n    os.closerange(0, 256)"), |_| {});
    let station = station.ready(1).await;
    assert_eq!(station.ask("x").await, Err(DIED));
    assert_eq!(station.ask("b").await.unwrap(), "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exception_in_initialize() {
    let bench = bench();
    let source = "class Model:\n    def initialize(self, context):\n        raise RuntimeError('no weights here')\n\n\
                  \x20   def handle(self, data, context):\n        return data\n";
    let station = bench.python_source(source, |_| {});
    let (memory, reason) = station.fails().await;
    assert!(!memory);
    for expected in ["no weights here", "Traceback", "handler.py", "in initialize"] {
        assert!(reason.contains(expected), "{expected:?} is missing in {reason}");
    }
    assert_eq!(station.worker().last_failure.unwrap(), reason);
    std::fs::write(
        station.dir.join("handler.py"),
        "def handle(data, context):\n    return ['fine'] * len(data or [])\n",
    )
    .unwrap();
    assert_eq!(station.ask("a").await.unwrap(), "fine", "it is tried again, with what is there then");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_error_in_initialize() {
    let bench = bench();
    let source = "class Model:\n    def initialize(self, context):\n        raise MemoryError()\n\n\
                  \x20   def handle(self, data, context):\n        return data\n";
    let (memory, reason) = bench.python_source(source, |_| {}).fails().await;
    assert!(memory, "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_doesnt_parse_is_not_tried_again() {
    let bench = bench();
    let station = bench.python_source("def handle(data, context:\n", |_| {});
    let (_, reason) = station.fails().await;
    assert!(reason.contains("SyntaxError") && reason.contains("handler.py"), "{reason}");
    assert_eq!(station.worker().state, WorkerState::Failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_number_of_answers_fails_the_batch_and_nothing_else() {
    let bench = bench();
    let code = format!("{BODIES}return bodies[1:] if 'x' in bodies else bodies");
    let station = bench
        .python(&code, |options| {
            options.batch_size = 3;
            options.max_batch_delay = Some(Duration::from_secs(40));
        })
        .ready(1)
        .await;
    let pid = station.pid();
    for asked in ["a", "x", "b"].map(|text| station.spawn(text)) {
        let failure = within(asked).await.unwrap().unwrap_err();
        let Failure::Handler { status, message } = failure else { panic!("{failure:?}") };
        assert_eq!((status, message.as_str()), (503, "number of batch response mismatched"));
    }
    for (text, asked) in ["c", "d", "e"].map(|text| (text, station.spawn(text))) {
        assert_eq!(text_of(within(asked).await.unwrap().unwrap()).await, text);
    }
    assert_eq!(station.pid(), pid);
}

const STREAM: &str = "
def handle(data, context):
    if data is None:
        return
    return stream(data, context)


def stream(data, context):
    for i in range(64):
        open('made', 'a').write('%d\\n' % i)
        yield [str(i % 10) * 65536]
";

/// 4 MiB in pieces of 64 KiB, of which 256 KiB may be under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_a_slow_reader() {
    let bench = bench();
    let station = bench.python_source(STREAM, |_| {}).ready(1).await;
    let answer = within(station.submit("a")).await.unwrap();
    let AnswerBody::Stream(mut chunks) = answer.body else { panic!("expected a stream") };
    eventually("the producer has used its credit", || station.lines("made").len() >= 4).await;
    let first = within(chunks.next()).await.unwrap().unwrap();
    assert!(station.lines("made").len() < 16, "it waits for its reader");
    let mut length = first.len();
    while let Some(chunk) = within(chunks.next()).await {
        length += chunk.unwrap().len();
    }
    assert_eq!((length, station.lines("made").len()), (64 * 65536, 64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_who_leaves_ends_the_stream() {
    let bench = bench();
    let station = bench.python_source(STREAM, |_| {}).ready(1).await;
    let answer = within(station.submit("a")).await.unwrap();
    let AnswerBody::Stream(mut chunks) = answer.body else { panic!("expected a stream") };
    within(chunks.next()).await.unwrap().unwrap();
    drop(chunks);
    let pid = station.pid();
    // The worker is free for the next one, which it couldn't be before the stream is over.
    let answer = within(station.submit("b")).await.unwrap();
    assert_eq!(text_of(answer).await.len(), 64 * 65536);
    assert!(station.lines("made").len() < 128);
    assert_eq!(station.pid(), pid);
}
