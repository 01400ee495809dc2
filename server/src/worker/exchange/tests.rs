//! The exchange against a scripted worker over an in-memory pipe, under paused time.

use bytes::BufMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use zoo_proto::wire::answer::{End, encode_bye, encode_chunk, encode_end, encode_reply};
use zoo_proto::wire::batch::{decode_batch, decode_cancel, decode_credit};
use zoo_proto::wire::{HeaderBlock, Inbox, Outbox, STREAM_CREDIT};

use super::*;
use crate::batch::policy::BatchPolicy;
use crate::batch::queue::{Limits, Queue};
use crate::metrics::Metrics;
use crate::request::ticket::{Pending, ticket};
use crate::request::{Answer, Outcome as Answered, Part as RequestPart};
use crate::worker::loss::{Circumstances, settle_lost};

const MS: Duration = Duration::from_millis(1);

struct Quiet;

impl Sink for Quiet {
    fn log(&self, _: Log) {}
    fn metrics(&self, _: Vec<Metric>) {}
}

/// A version with one exchange and the worker's end of its link.
struct Stage {
    floor: Arc<Floor>,
    orders: Orders,
    task: JoinHandle<(Ended, InFlight)>,
    worker: FakeWorker,
}

/// Says what a test tells it to.
struct FakeWorker {
    stream: DuplexStream,
    inbox: Inbox,
}

impl FakeWorker {
    async fn say(&mut self, encode: impl FnOnce(&mut Outbox)) {
        let mut out = Outbox::default();
        encode(&mut out);
        self.stream.write_all(&out.take()).await.unwrap();
    }

    async fn reply(&mut self, item: u64, text: &'static str) {
        self.reply_as(item, Outcome::Answered, 200, text).await;
    }

    async fn reply_as(&mut self, item: u64, outcome: Outcome, status: u16, text: &'static str) {
        let body = Bytes::from_static(text.as_bytes());
        self.say(|out| encode_reply(item, outcome, status, 10, &HeaderBlock::default(), &body, out)).await;
    }

    async fn hear(&mut self) -> Frame {
        loop {
            if let Some(incoming) = self.inbox.next().unwrap() {
                match incoming {
                    Incoming::Frame(frame) => return frame,
                    Incoming::Body { .. } => continue,
                }
            }
            let mut bytes = [0; 4096];
            let (_, most) = self.inbox.space();
            let count = self.stream.read(&mut bytes[..most.min(4096)]).await.unwrap();
            assert!(count > 0, "the server hung up");
            self.inbox.space().0.put_slice(&bytes[..count]);
            self.inbox.filled(count);
        }
    }

    /// The ids of the next batch.
    async fn batch(&mut self) -> Vec<u64> {
        let frame = self.hear().await;
        assert_eq!(frame.kind, Kind::Batch);
        decode_batch(&frame).unwrap().0.iter().map(|item| item.id).collect()
    }

    /// Whether nothing is said for a while.
    async fn hears_nothing(&mut self) -> bool {
        tokio::time::timeout(MS, self.hear()).await.is_err()
    }
}

fn terms() -> Terms {
    Terms {
        worker: 1,
        window: Window { concurrency: 1, strict: false, batching: false },
        response_timeout: 60 * 1000 * MS,
        max_response_bytes: 1_000_000,
    }
}

impl Stage {
    fn new(size: usize, terms: Terms) -> Self {
        let policy = BatchPolicy { size, delay: None };
        let limits = Limits { jobs: 1000, bytes: 100 << 20, tickets: false };
        let floor = Arc::new(Floor::new(Queue::new(policy, limits), Metrics::default().meter("m", "1")));
        floor.enter();
        let orders = Orders::default();
        let (ours, theirs) = duplex(64 * 1024);
        let mut exchange = Exchange::new(
            terms,
            Link::new(ours),
            floor.clone(),
            orders.clone(),
            Arc::new(Quiet) as Arc<dyn Sink>,
        );
        let task = tokio::spawn(async move {
            let ended = std::future::poll_fn(|cx| exchange.poll(cx, &mut |_| false)).await;
            (ended, exchange.inflight)
        });
        Self { floor, orders, task, worker: FakeWorker { stream: theirs, inbox: Inbox::default() } }
    }

    fn ask(&self) -> Pending {
        self.ask_with(b"x".to_vec())
    }

    fn ask_with(&self, body: Vec<u8>) -> Pending {
        let (promise, pending) = ticket(None);
        let request = Request {
            id: "r".into(),
            headers: HeaderBlock::default(),
            url_path: String::new(),
            explain: false,
            parts: vec![RequestPart {
                name: "body".into(),
                content_type: String::new(),
                body: Bytes::from(body).into(),
            }],
            deadline: None,
        };
        assert!(self.floor.queue.push(Job::new(request, Task::Predict, false, promise)).is_ok());
        pending
    }

    /// Has the handler seen to be fast, so that work goes ahead.
    async fn warm_up(&mut self) {
        for _ in 0..20 {
            let pending = self.ask();
            let ids = self.worker.batch().await;
            self.worker.reply(ids[0], "warm").await;
            pending.await.unwrap();
        }
    }

    async fn ended(self) -> (Ended, InFlight) {
        self.task.await.unwrap()
    }
}

fn text(outcome: Answered) -> String {
    match outcome.unwrap() {
        Answer { body: AnswerBody::Whole(bytes), .. } => String::from_utf8(bytes.to_vec()).unwrap(),
        Answer { body: AnswerBody::Stream(_), .. } => panic!("a stream"),
    }
}

#[tokio::test(start_paused = true)]
async fn each_item_of_a_batch_has_an_answer_of_its_own() {
    let mut stage = Stage::new(3, terms());
    let pending = [stage.ask(), stage.ask(), stage.ask()];
    assert_eq!(stage.worker.batch().await, [1, 2, 3]);
    stage.worker.reply(3, "three").await;
    stage.worker.reply_as(2, Outcome::Failed, 418, "teapot").await;
    stage.worker.reply(1, "one").await;
    let [one, two, three] = pending;
    assert_eq!(text(one.await), "one");
    assert_eq!(two.await.unwrap_err(), Failure::Handler { status: 418, message: "teapot".into() });
    assert_eq!(text(three.await), "three");
}

#[tokio::test(start_paused = true)]
async fn the_next_batch_waits_for_the_answer_until_the_handler_is_known_to_be_fast() {
    let mut stage = Stage::new(1, terms());
    let _slow = [stage.ask(), stage.ask()];
    assert_eq!(stage.worker.batch().await, [1]);
    assert!(stage.worker.hears_nothing().await);
    stage.worker.reply(1, "").await;
    assert_eq!(stage.worker.batch().await, [2]);
    stage.worker.reply(2, "").await;
    stage.warm_up().await;
    let _fast = [stage.ask(), stage.ask(), stage.ask()];
    assert_eq!(stage.worker.batch().await.len(), 1);
    assert_eq!(stage.worker.batch().await.len(), 1);
    assert_eq!(stage.worker.batch().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn large_bodies_travel_both_ways() {
    let mut stage = Stage::new(1, terms());
    let pending = stage.ask_with(vec![9; 300_000]);
    let frame = stage.worker.hear().await;
    let (items, _) = decode_batch(&frame).unwrap();
    assert_eq!((items[0].parts[0].length, &items[0].parts[0].body), (300_000, &None));
    stage.worker.inbox.expect_body(1, 0, 300_000);
    assert!(stage.worker.hears_nothing().await, "the body is no frame to be heard");
    let body = Bytes::from(vec![b'z'; 500_000]);
    stage
        .worker
        .say(|out| encode_reply(1, Outcome::Answered, 200, 10, &HeaderBlock::default(), &body, out))
        .await;
    assert_eq!(text(pending.await).len(), 500_000);
}

#[tokio::test(start_paused = true)]
async fn an_answer_over_the_limit_breaks_the_protocol_before_its_bytes_come() {
    let mut stage = Stage::new(1, terms());
    let _pending = stage.ask();
    stage.worker.batch().await;
    stage.worker.say(|out| out.put(&[32, 0, 0, 0, 0x12, 0, 0, 0])).await;
    let mut head = [0; 32];
    head[..8].copy_from_slice(&1_u64.to_le_bytes());
    head[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    head[26] = 4;
    stage.worker.say(|out| out.put(&head)).await;
    let (ended, _) = stage.ended().await;
    let expected = WireError::BodyTooLarge { item: 1, declared: u64::MAX, limit: 1_000_000 };
    assert_eq!(ended, Ended::Lost(Loss::Protocol(expected)));
}

#[tokio::test(start_paused = true)]
async fn a_client_who_leaves_cancels_and_the_late_answer_is_ignored() {
    let mut stage = Stage::new(1, terms());
    drop((stage.ask(), stage.ask()));
    let gone = stage.ask();
    assert_eq!(stage.worker.batch().await, [1], "those who left before cost nothing");
    drop(gone);
    let frame = stage.worker.hear().await;
    assert_eq!((frame.kind, decode_cancel(&frame).unwrap()), (Kind::Cancel, vec![1]));
    stage.worker.reply(1, "too late").await;
    let next = stage.ask();
    assert_eq!(stage.worker.batch().await, [2]);
    stage.worker.reply(2, "fine").await;
    assert_eq!(text(next.await), "fine");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_credited_as_the_client_reads() {
    let mut stage = Stage::new(1, terms());
    let pending = stage.ask();
    stage.worker.batch().await;
    stage.worker.reply_as(1, Outcome::Stream, 200, "").await;
    let Answer { body: AnswerBody::Stream(mut chunks), .. } = pending.await.unwrap() else {
        panic!("not a stream")
    };
    let piece = Bytes::from(vec![b'c'; STREAM_CREDIT as usize / 4]);
    stage.worker.say(|out| encode_chunk(1, &piece, out)).await;
    assert_eq!(chunks.next().await.unwrap().unwrap(), piece);
    let frame = stage.worker.hear().await;
    assert_eq!((frame.kind, decode_credit(&frame).unwrap()), (Kind::Credit, (1, STREAM_CREDIT / 4)));
    stage.worker.say(|out| encode_end(&End { item: 1, handler_us: 5, failed: None }, out)).await;
    assert!(chunks.next().await.is_none());
    let next = stage.ask();
    assert_eq!(stage.worker.batch().await, [2]);
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_says_so() {
    let mut stage = Stage::new(1, terms());
    let pending = stage.ask();
    stage.worker.batch().await;
    stage.worker.reply_as(1, Outcome::Stream, 200, "").await;
    let Answer { body: AnswerBody::Stream(mut chunks), .. } = pending.await.unwrap() else {
        panic!("not a stream")
    };
    let failed = Some((500, "broke".to_owned()));
    stage.worker.say(|out| encode_end(&End { item: 1, handler_us: 5, failed }, out)).await;
    let expected = Failure::Handler { status: 500, message: "broke".into() };
    assert_eq!(chunks.next().await, Some(Err(expected)));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_streams_without_credit_is_lost_and_a_client_that_does_not_read_harms_nobody() {
    let terms = Terms { window: Window { concurrency: 4, strict: false, batching: false }, ..terms() };
    let mut stage = Stage::new(1, terms);
    let slow = stage.ask();
    stage.worker.batch().await;
    stage.worker.reply_as(1, Outcome::Stream, 200, "").await;
    let _unread = slow.await.unwrap();
    let quarter = Bytes::from(vec![b'c'; STREAM_CREDIT as usize / 4]);
    for _ in 0..4 {
        stage.worker.say(|out| encode_chunk(1, &quarter, out)).await;
    }
    let fast = stage.ask();
    assert_eq!(stage.worker.batch().await, [2]);
    stage.worker.reply(2, "fast").await;
    assert_eq!(text(fast.await), "fast");
    stage.worker.say(|out| encode_chunk(1, &Bytes::from_static(b"x"), out)).await;
    let (ended, _) = stage.ended().await;
    let expected = WireError::Unexpected { kind: Kind::Chunk, during: "its stream has no credit" };
    assert_eq!(ended, Ended::Lost(Loss::Protocol(expected)));
}

#[tokio::test(start_paused = true)]
async fn lies_about_items_end_the_link() {
    let unknown = |kind, item| Ended::Lost(Loss::Protocol(WireError::UnknownItem { kind, item }));
    let mut stage = Stage::new(1, terms());
    stage.worker.reply(1, "nobody asked").await;
    assert_eq!(stage.ended().await.0, unknown(Kind::Reply, 1));

    let mut stage = Stage::new(1, terms());
    let pending = stage.ask();
    stage.worker.batch().await;
    stage.worker.reply(1, "once").await;
    assert_eq!(text(pending.await), "once");
    stage.worker.reply(1, "twice").await;
    assert_eq!(stage.ended().await.0, unknown(Kind::Reply, 1));

    let mut stage = Stage::new(1, terms());
    let _pending = stage.ask();
    stage.worker.batch().await;
    stage.worker.say(|out| encode_chunk(1, &Bytes::from_static(b"headless"), out)).await;
    assert_eq!(stage.ended().await.0, unknown(Kind::Chunk, 1));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_answer_in_time_is_lost() {
    let mut stage = Stage::new(1, terms());
    let _pending = stage.ask();
    stage.worker.batch().await;
    let start = Instant::now();
    let (ended, inflight) = stage.ended().await;
    let waited = terms().response_timeout;
    assert_eq!(ended, Ended::Lost(Loss::TooSlow { what: "answer", waited }));
    assert!(start.elapsed() >= waited && start.elapsed() < waited + 10 * MS);
    assert_eq!(inflight.batches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_waits_for_its_client_is_not_stuck() {
    let mut stage = Stage::new(1, terms());
    let pending = stage.ask();
    stage.worker.batch().await;
    stage.worker.reply_as(1, Outcome::Stream, 200, "").await;
    let Answer { body: AnswerBody::Stream(mut chunks), .. } = pending.await.unwrap() else {
        panic!("not a stream")
    };
    stage.worker.say(|out| encode_chunk(1, &Bytes::from_static(b"unread"), out)).await;
    tokio::time::sleep(terms().response_timeout * 3).await;
    assert!(!stage.task.is_finished());
    chunks.next().await.unwrap().unwrap();
    assert!(matches!(stage.ended().await.0, Ended::Lost(Loss::TooSlow { .. })), "now it is its own fault");
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_slow_batch_goes_to_others() {
    let mut stage = Stage::new(1, terms());
    stage.warm_up().await;
    let pending: Vec<_> = (0..3).map(|_| stage.ask()).collect();
    let ids = [stage.worker.batch().await[0], stage.worker.batch().await[0], stage.worker.batch().await[0]];
    assert!(stage.worker.hears_nothing().await);
    tokio::time::sleep(OVERRUN_LEAST * 2).await;
    assert!(stage.worker.hears_nothing().await, "there is nobody else to do it");
    stage.floor.enter();
    // The clock is looked at whenever something happens.
    let late = stage.ask();
    let frame = stage.worker.hear().await;
    assert_eq!((frame.kind, decode_cancel(&frame).unwrap()), (Kind::Cancel, ids[1..].to_vec()));
    assert_eq!(stage.floor.queue.len(), 3);
    for item in &ids[1..] {
        stage.worker.reply_as(*item, Outcome::Cancelled, 0, "").await;
    }
    stage.worker.reply(ids[0], "at last").await;
    let mut pending = pending.into_iter();
    assert_eq!(text(pending.next().unwrap().await), "at last");
    // They come again, with new numbers, in their old order.
    for waiting in pending.chain([late]) {
        let again = stage.worker.batch().await;
        assert!(again[0] > ids[2]);
        stage.worker.reply(again[0], "again").await;
        assert_eq!(text(waiting.await), "again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dismissed_worker_finishes_what_it_began_and_gives_back_the_rest() {
    let mut stage = Stage::new(1, terms());
    stage.warm_up().await;
    let pending: Vec<_> = (0..2).map(|_| stage.ask()).collect();
    let ids = [stage.worker.batch().await[0], stage.worker.batch().await[0]];
    stage.orders.leave_by(Instant::now() + 1000 * MS);
    let frame = stage.worker.hear().await;
    assert_eq!((frame.kind, decode_cancel(&frame).unwrap()), (Kind::Cancel, vec![ids[1]]));
    assert_eq!(stage.floor.queue.len(), 1);
    stage.worker.reply_as(ids[1], Outcome::Cancelled, 0, "").await;
    stage.worker.reply(ids[0], "done").await;
    assert_eq!(stage.worker.hear().await.kind, Kind::Drain);
    stage.worker.say(|out| encode_bye("drained", out)).await;
    let FakeWorker { stream, .. } = stage.worker;
    drop(stream);
    assert_eq!(stage.task.await.unwrap().0, Ended::Drained);
    assert_eq!(text(pending.into_iter().next().unwrap().await), "done");
}

#[tokio::test(start_paused = true)]
async fn a_dismissed_worker_leaves_as_soon_as_its_last_answer_is_in_even_if_nobody_wanted_it() {
    let mut stage = Stage::new(1, terms());
    let gone = stage.ask();
    stage.worker.batch().await;
    drop(gone);
    assert_eq!(stage.worker.hear().await.kind, Kind::Cancel);
    stage.orders.leave_by(Instant::now() + 1_000_000 * MS);
    assert!(stage.worker.hears_nothing().await, "it is still busy");
    let told = Instant::now();
    stage.worker.reply(1, "for nobody").await;
    assert_eq!(stage.worker.hear().await.kind, Kind::Drain);
    assert!(told.elapsed() < MS, "told at once, not when something else happens");
}

#[tokio::test(start_paused = true)]
async fn answers_that_were_sent_before_the_end_count() {
    let mut stage = Stage::new(2, terms());
    let pending = [stage.ask(), stage.ask()];
    stage.worker.batch().await;
    stage.worker.reply(2, "last words").await;
    let FakeWorker { stream, .. } = stage.worker;
    drop(stream);
    let (ended, mut inflight) = stage.task.await.unwrap();
    assert_eq!(ended, Ended::Lost(Loss::Gone));
    let [one, two] = pending;
    assert_eq!(text(two.await), "last words");
    let again =
        settle_lost(inflight.take_all(), Circumstances { retry: true, unresponsive: false, memory: false });
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].deaths, 1);
    drop(again);
    assert!(one.await.is_err());
}

/// What happens to the requests of a lost worker, case by case.
#[tokio::test(start_paused = true)]
async fn the_table_of_losses() {
    let plain = Circumstances { retry: true, unresponsive: false, memory: false };
    let died = |memory| Some(Failure::WorkerDied { memory });
    // (circumstances, in the oldest batch, deaths before, deaths after or failure)
    let cases = [
        (plain, true, 0, Ok(1)),
        (plain, false, 0, Ok(1)),
        (plain, true, 1, Err(died(false))),
        (Circumstances { retry: false, ..plain }, true, 0, Err(died(false))),
        (Circumstances { retry: false, ..plain }, false, 0, Err(died(false))),
        (Circumstances { unresponsive: true, ..plain }, true, 0, Err(died(false))),
        (Circumstances { unresponsive: true, ..plain }, false, 0, Ok(0)),
        (Circumstances { memory: true, ..plain }, true, 0, Err(died(true))),
        (Circumstances { memory: true, ..plain }, false, 0, Ok(1)),
        (Circumstances { memory: true, ..plain }, false, 1, Err(died(true))),
    ];
    for (circumstances, oldest, deaths, expected) in cases {
        let (promise, pending) = ticket(None);
        let request = Request {
            id: "r".into(),
            headers: HeaderBlock::default(),
            url_path: String::new(),
            explain: false,
            parts: Vec::new(),
            deadline: None,
        };
        let mut job = Job::new(request, Task::Predict, false, promise);
        job.deaths = deaths;
        let again = settle_lost(vec![(Slot::Open(job), oldest)], circumstances);
        match expected {
            Ok(deaths) => assert_eq!(again[0].deaths, deaths, "{circumstances:?} oldest: {oldest}"),
            Err(failure) => {
                assert!(again.is_empty(), "{circumstances:?} oldest: {oldest}");
                assert_eq!(pending.await.err(), failure, "{circumstances:?}");
            }
        }
    }
}
