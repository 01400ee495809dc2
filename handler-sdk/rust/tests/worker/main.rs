//! A worker process and the server's end of its link, scripted: frames in, frames out, and how the process ends.

mod peer;
mod unruly;

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use zoo_proto::wire::answer::{Outcome, encode_bye};
use zoo_proto::wire::batch::{
    encode_body, encode_cancel, encode_credit, encode_describe, encode_drain, encode_token,
};
use zoo_proto::wire::{Kind, STREAM_CREDIT};

use peer::{Peer, item, load_frame};

#[test]
#[ignore = "runs as a child of another test"]
fn worker_process() {
    unruly::serve();
}

#[test]
fn a_worker_starts_answers_and_leaves() {
    let mut peer = Peer::loaded();
    assert_eq!(peer.loaded["describes"], json!(true));
    assert_eq!(peer.loaded["signature"], json!({"inputs": [], "outputs": []}));
    peer.batch(&[item(1, "").body(b"a"), item(2, "").body(b"b")]);
    assert_eq!(peer.reply(1).body, "a");
    assert_eq!(peer.reply(2).body, "b");
    peer.send(encode_drain);
    peer.until_bye();
    assert_eq!(peer.exit_code(), 0);
}

#[test]
fn each_item_has_its_own_outcome() {
    let mut peer = Peer::loaded();
    let paths = ["client", "question", "model", "status", "bad-header", "bad-status", ""];
    let items: Vec<_> = (1..).zip(paths).map(|(id, path)| item(id, path)).collect();
    peer.batch(&items);
    let mut answer = |id| {
        let reply = peer.reply(id);
        (reply.outcome, reply.status, String::from_utf8_lossy(&reply.body).into_owned())
    };
    assert_eq!(answer(1), (Outcome::Failed, 422, "too short".into()));
    assert_eq!(answer(2), (Outcome::Failed, 503, "Prediction failed".into()));
    assert_eq!(answer(3), (Outcome::Failed, 500, "no weights".into()));
    assert_eq!(answer(4), (Outcome::Answered, 201, "made".into()));
    let (outcome, status, text) = answer(5);
    assert!(outcome == Outcome::Failed && status == 500 && text.contains("\"a b\""), "{text}");
    let (outcome, status, text) = answer(6);
    assert!(outcome == Outcome::Failed && status == 500 && text.contains("42"), "{text}");
    assert_eq!(answer(7), (Outcome::Answered, 200, String::new()));
    let created = peer.reply(4);
    assert_eq!(created.headers.get("x-more").as_deref(), Some(&b"1"[..]));
    assert_eq!(created.headers.get(":reason").as_deref(), Some(&b"Made"[..]));
    // What the client doesn't read is in the log.
    assert!(peer.log().iter().any(|line| line.contains("request-2") && line.contains("invalid digit")));
}

#[test]
fn a_panic_fails_its_batch_and_nothing_else() {
    let mut peer = Peer::loaded();
    peer.batch(&[item(1, ""), item(2, "panic")]);
    peer.batch(&[item(3, "").body(b"still here")]);
    for id in [1, 2] {
        let reply = peer.reply(id);
        assert_eq!((reply.outcome, reply.status), (Outcome::Failed, 503));
        assert_eq!(reply.body, "Prediction failed");
    }
    assert_eq!(peer.reply(3).body, "still here");
    let log = peer.log();
    assert!(
        log.iter().any(|line| line.contains("request-1, request-2") && line.contains("out of luck")),
        "{log:?}"
    );
}

#[test]
fn a_load_that_fails_says_how() {
    for (mode, kind, message) in [
        ("error", "Error", "weights.bin: No such file or directory (os error 2)"),
        ("invalid", "Invalid", "no labels"),
        ("memory", "Memory", "needs 3 GB"),
        ("panic", "Error", "the handler panicked while it was loaded: bad weights"),
    ] {
        let mut peer = Peer::start();
        peer.send(|out| load_frame(&json!({"mode": mode})).encode(out));
        let failed = peer.load_failed();
        assert_eq!((format!("{:?}", failed.kind).as_str(), failed.message.as_str()), (kind, message));
        assert_eq!(peer.exit_code(), 1, "{mode}");
    }
}

#[test]
fn what_a_handler_prints_or_reads_is_not_the_link() {
    let mut peer = Peer::loaded();
    peer.batch(&[item(1, "stdio")]);
    assert_eq!(peer.reply(1).body, "read 0 bytes");
    peer.batch(&[item(2, "child")]);
    assert_eq!(peer.reply(2).body, "child has 0 sockets");
}

#[test]
fn large_bodies_go_both_ways_in_pieces() {
    let mut peer = Peer::loaded();
    let large: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    peer.batch(&[item(1, "").body(&large), item(2, "").body(b"small")]);
    assert!(peer.reply(1).body == large);
    assert_eq!(peer.reply(2).body, "small");
}

#[test]
fn an_answer_above_the_limit_fails_its_item_only() {
    let mut peer = Peer::start();
    let mut load = load_frame(&json!({}));
    load.max_response_bytes = 1000;
    peer.load(&load);
    peer.batch(&[item(1, "").body(&[b'x'; 1001]), item(2, "").body(&[b'x'; 1000])]);
    let refused = peer.reply(1);
    assert_eq!((refused.outcome, refused.status), (Outcome::Failed, 500));
    assert_eq!(refused.body, "The response of 1001 bytes is larger than max_response_size (1000)");
    assert_eq!(peer.reply(2).body.len(), 1000);
}

#[test]
fn a_stream_waits_for_credit_and_nobody_waits_for_it() {
    let mut peer = Peer::loaded();
    // 40 chunks of 16 KiB: more than twice the credit.
    peer.batch(&[item(1, "stream").body(b"40 16384"), item(2, "stream").body(b"3 10")]);
    peer.until(|said| said.ended.contains_key(&2));
    assert_eq!(peer.said.streams[&2].len(), 30);
    // Two chunks end exactly where the credit does, and no further byte comes before some is given.
    peer.until(|said| said.streams[&1].len() == STREAM_CREDIT as usize);
    peer.send(|out| encode_token(Kind::Ping, 5, out));
    peer.until(|said| said.pongs.contains(&5));
    assert_eq!(peer.said.streams[&1].len(), STREAM_CREDIT as usize);
    peer.send(|out| encode_credit(1, 5, out));
    peer.until(|said| said.streams[&1].len() > STREAM_CREDIT as usize);
    assert_eq!(peer.said.streams[&1].len(), STREAM_CREDIT as usize + 5);
    peer.send(|out| encode_credit(1, 2 * STREAM_CREDIT, out));
    peer.until(|said| said.ended.contains_key(&1));
    assert_eq!(peer.said.streams[&1].len(), 40 * 16384);
    assert_eq!(peer.said.ended[&1], None);
    assert_eq!(peer.reply(1).outcome, Outcome::Stream);
}

#[test]
fn a_writer_waits_for_credit_too() {
    let mut peer = Peer::loaded();
    peer.batch(&[item(1, "write").body(b"20 20000"), item(2, "").body(b"whole")]);
    assert_eq!(peer.reply(2).body, "whole");
    peer.until(|said| said.streams.get(&1).is_some_and(|stream| stream.len() == STREAM_CREDIT as usize));
    peer.send(|out| encode_credit(1, 200_000, out));
    peer.until(|said| said.ended.contains_key(&1));
    assert_eq!(peer.said.streams[&1].len(), 400_000);
}

#[test]
fn a_stream_that_breaks_says_why() {
    let mut peer = Peer::loaded();
    peer.batch(&[
        item(1, "stream-breaks"),
        item(2, "stream-panics"),
        item(3, "stream-never"),
        item(4, "stream-empty"),
    ]);
    peer.until(|said| said.ended.len() == 3);
    assert_eq!(peer.said.ended[&1], Some((507, "full".into())));
    assert_eq!(peer.said.ended[&2], Some((503, "Prediction failed".into())));
    // Before the first chunk a failure is a whole answer.
    let never = peer.reply(3);
    assert_eq!((never.outcome, never.status, &*never.body), (Outcome::Failed, 409, &b"not now"[..]));
    assert_eq!((peer.reply(4).outcome, &peer.said.ended[&4]), (Outcome::Stream, &None));
    peer.batch(&[item(5, "").body(b"on")]);
    assert_eq!(peer.reply(5).body, "on");
}

#[test]
fn cancel_drops_what_waits_and_tells_what_runs() {
    let mut peer = Peer::loaded();
    peer.batch(&[item(1, "until-cancelled")]);
    peer.until(|said| said.log.iter().any(|line| line == "running"));
    peer.batch(&[item(2, "").body(b"b"), item(3, "").body(b"c")]);
    peer.send(|out| encode_cancel(&[2, 77], out));
    peer.send(|out| encode_cancel(&[1], out));
    assert_eq!(peer.reply(1).body, "cancelled");
    assert_eq!(peer.reply(2).outcome, Outcome::Cancelled);
    assert_eq!(peer.reply(3).body, "c");
}

#[test]
fn a_cancelled_stream_ends_and_its_iterator_is_dropped() {
    for path in ["stream", "write"] {
        let mut peer = Peer::loaded();
        peer.batch(&[item(1, path).body(b"1000000 1000")]);
        peer.until(|said| said.streams.get(&1).is_some_and(|stream| stream.len() == STREAM_CREDIT as usize));
        peer.send(|out| encode_cancel(&[1], out));
        peer.until(|said| said.ended.contains_key(&1));
        assert_eq!(peer.said.ended[&1], Some((499, "Cancelled".into())), "{path}");
        peer.until(|said| said.log.iter().any(|line| line == "dropped"));
    }
}

#[test]
fn a_request_is_answered_though_the_next_is_incomplete() {
    let mut peer = Peer::loaded();
    let large = Bytes::from(vec![1; 70_000]);
    peer.batch_head(&[item(1, "").body(b"first")]);
    peer.batch_head(&[item(2, "").body(&large)]);
    assert_eq!(peer.reply(1).body, "first");
    peer.send(|out| encode_body(2, 0, std::slice::from_ref(&large), out));
    assert_eq!(peer.reply(2).body, large);
}

#[test]
fn drain_finishes_what_was_sent_before() {
    let mut peer = Peer::loaded();
    for id in 1..=20 {
        peer.batch(&[item(id, "")]);
    }
    peer.send(encode_drain);
    peer.until_bye();
    assert_eq!(peer.said.replies.len(), 20);
    assert_eq!(peer.exit_code(), 0);
}

#[test]
fn drain_before_load_ends_at_once() {
    let mut peer = Peer::start();
    peer.send(encode_drain);
    peer.until_bye();
    assert_eq!(peer.exit_code(), 0);
}

#[test]
fn the_end_of_the_link_is_the_end() {
    let mut idle = Peer::loaded();
    idle.hang_up();
    assert_eq!(idle.exit_code(), 0);
    for path in ["stream", "write", "until-cancelled"] {
        let mut busy = Peer::loaded();
        busy.batch(&[item(1, path).body(b"1000000 1000")]);
        busy.until(|said| {
            !said.log.is_empty() || said.streams.get(&1).is_some_and(|stream| !stream.is_empty())
        });
        busy.hang_up();
        assert_eq!(busy.exit_code(), 0, "{path}");
    }
}

type Misbehaviour = fn(&mut Peer);

#[test]
fn garbage_ends_the_process_with_an_error() {
    let cases: [(&str, Misbehaviour); 7] = [
        ("declares 4294967295 bytes", |peer| peer.raw(&[0xff; 64])),
        ("Batch frame ends early", |peer| peer.raw(&[4, 0, 0, 0, Kind::Batch as u8, 0, 0, 0, 9, 0, 0, 0])),
        ("Body frame for item 9", |peer| {
            peer.send(|out| encode_body(9, 0, &[Bytes::from_static(b"x")], out));
        }),
        ("Bye frame while serving", |peer| peer.send(|out| encode_bye("", out))),
        ("Load frame while serving", |peer| peer.send(|out| load_frame(&json!({})).encode(out))),
        ("Batch frame for item 1", |peer| {
            peer.batch(&[item(1, "")]);
            peer.batch(&[item(1, "")]);
        }),
        ("request request-1 declares 70000 bytes, the limit is 65000", |peer| {
            peer.batch_head(&[item(1, "").body(&[0; 70_000])]);
        }),
    ];
    for (expected, misbehave) in cases {
        let mut peer = Peer::start();
        let mut load = load_frame(&json!({}));
        load.max_request_bytes = Some(65_000);
        peer.load(&load);
        misbehave(&mut peer);
        assert_eq!(peer.exit_code(), 1, "{expected}");
        let text = peer.stderr();
        assert!(
            text.contains("the server broke the worker protocol") || text.contains("the limit is"),
            "{text}"
        );
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn work_before_load_is_an_error() {
    let mut peer = Peer::start();
    peer.batch(&[item(1, "")]);
    assert_eq!(peer.exit_code(), 1);
    assert!(peer.stderr().contains("Batch frame while waiting for Load"));
}

#[test]
fn metrics_come_with_the_ids_of_their_batch() {
    let mut peer = Peer::loaded();
    peer.batch(&[item(1, "metric"), item(2, "")]);
    peer.reply(2);
    let metric = &peer.said.metrics[0];
    assert_eq!((metric.name.as_str(), metric.unit.as_str(), metric.value), ("Tokens", "Count", 3.0));
    assert_eq!(metric.request_ids, "request-1,request-2");
    let dimensions: Vec<_> =
        metric.dimensions.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(dimensions, ["head=a", "ModelName=unruly", "Level=Model"]);
}

#[test]
fn descriptions_and_pings_are_answered() {
    let mut peer = Peer::loaded();
    peer.send(|out| encode_describe(1, "d", out));
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&peer.reply(1).body).unwrap(),
        json!({"kind": "unruly"})
    );
    peer.send(|out| encode_token(Kind::Ping, 7, out));
    peer.until(|said| said.pongs.contains(&7));
}

#[test]
fn an_interrupt_is_not_the_workers_business() {
    let mut peer = Peer::loaded();
    peer.signal(rustix::process::Signal::INT);
    peer.batch(&[item(1, "").body(b"alive")]);
    assert_eq!(peer.reply(1).body, "alive");
}

#[test]
fn without_a_link_the_program_says_what_it_is() {
    let output = peer::worker().stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("standard input is not the link") && text.contains("zoo-archiver"), "{text}");
}

#[test]
fn deadlines_and_headers_arrive() {
    let mut peer = Peer::loaded();
    peer.batch(&[item(1, "deadline").timeout(60_000), item(2, "deadline")]);
    let left: f64 = serde_json::from_slice(&peer.reply(1).body).unwrap();
    assert!(left > 0.0 && left <= Duration::from_secs(60).as_secs_f64(), "{left}");
    assert_eq!(peer.reply(2).body, "null");
}
