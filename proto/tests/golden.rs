//! The golden frames: what each frame looks like on the link, byte by byte. The Python SDK's tests read the same files.
//!
//! `UPDATE_EXPECT=1 cargo test -p zoo-proto` writes them anew; a change of an existing file is a change of the protocol.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};
use zoo_proto::wire::answer::*;
use zoo_proto::wire::batch::*;
use zoo_proto::wire::event::*;
use zoo_proto::wire::start::*;
use zoo_proto::wire::{HeaderBlock, Inbox, Incoming, Kind, Outbox};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire")
}

fn frame(encode: impl FnOnce(&mut Outbox)) -> Bytes {
    let mut out = Outbox::default();
    encode(&mut out);
    out.take()
}

fn load() -> Load {
    Load {
        model: LoadModel {
            name: "mnist".into(),
            version: "1.0".into(),
            dir: "/models/mnist".into(),
            handler: Some("mnist_handler.py:handle".into()),
            manifest: json!({"model": {"modelName": "mnist"}}),
            config: json!({"minWorkers": 1}).as_object().cloned().unwrap_or_default(),
        },
        worker: "W-9000-mnist_1.0".into(),
        batch_size: 4,
        gpu: None,
        envelope: None,
        concurrency: 4,
        asynchronous: false,
        coalesce: true,
        decode_input: true,
        limit_max_image_pixels: true,
        max_response_bytes: 6_553_500,
        max_request_bytes: None,
        headers: BTreeMap::from([("sequence_id".into(), "ts_request_sequence_id".into())]),
        metrics: Some(json!({"gauge": [
            {"name": "HandlerTime", "unit": "ms", "dimensions": ["ModelName", "Level"]},
        ]})),
    }
}

fn batch() -> Bytes {
    let headers = HeaderBlock::from_pairs([("content-type", &b"application/json"[..]), ("x-a", &b""[..])]);
    let json = [Bytes::from_static(b"{\"a\": 1}")];
    let image = [Bytes::from_static(b"\x89PN"), Bytes::from_static(b"G\0")];
    let large = [Bytes::from(vec![7; INLINE_UP_TO + 1])];
    let part = |name, content_type, body| Part { name, content_type, body };
    let items = [
        Item {
            id: 1,
            timeout_ms: 0,
            explain: false,
            request_id: "6b1f",
            url_path: "",
            headers: &headers,
            parts: vec![part("body", "application/json", &json)],
        },
        Item {
            id: 2,
            timeout_ms: 1500,
            explain: true,
            request_id: "7c2e",
            url_path: "v1/ü",
            headers: &HeaderBlock::default(),
            parts: vec![part("data", "image/png", &image), part("large", "", &large), part("empty", "", &[])],
        },
    ];
    frame(|out| encode_batch(&items, out))
}

/// Every case: its name, its bytes, and its content as the Python tests look at it.
fn cases() -> Vec<(&'static str, Bytes, Value)> {
    let hello = Hello { role: "worker".into(), name: "zoo_handler 0.1.0".into(), pid: 4242 };
    let failed =
        LoadFailed { kind: LoadFailure::Invalid, message: "no handler".into(), trace: "Traceback\n".into() };
    let headers =
        HeaderBlock::from_pairs([("content-type", &b"text/plain"[..]), (":reason", &b"Created"[..])]);
    let reply = |outcome, status, body: &Bytes| {
        frame(|out| encode_reply(7, outcome, status, 250, &headers, body, out))
    };
    let metric = Metric {
        name: "HandlerTime".into(),
        unit: "Milliseconds".into(),
        kind: MetricType::Gauge,
        value: 1.5,
        request_ids: "6b1f,7c2e".into(),
        dimensions: vec![("ModelName".into(), "mnist".into()), ("Level".into(), "Model".into())],
    };
    let log = Log { level: 30, logger: "zoo".into(), message: "careful".into() };
    let end = |failed| frame(|out| encode_end(&End { item: 7, handler_us: 9, failed }, out));
    let large = Bytes::from(vec![5; 70_000]);
    let mut unknown = BytesMut::new();
    unknown.put_slice(&[3, 0, 0, 0, 0x7f, 0, 0, 0, 1, 2, 3]);
    unknown.put_slice(&frame(encode_drain));
    vec![
        ("hello", frame(|out| hello.encode(out)), json!({"role": "worker", "pid": 4242})),
        ("load", frame(|out| load().encode(out)), serde_json::to_value(load()).unwrap()),
        (
            "loaded",
            frame(|out| Loaded { concurrency: 1, ..Loaded::default() }.encode(out)),
            json!({"concurrency": 1}),
        ),
        ("load_failed", frame(|out| failed.encode(out)), json!({"kind": "invalid", "message": "no handler"})),
        (
            "batch",
            batch(),
            json!({"items": [
                {"id": 1, "timeout_ms": 0, "explain": false, "request_id": "6b1f", "url_path": "",
                 "headers": {"content-type": "application/json", "x-a": ""},
                 "parts": [{"name": "body", "content_type": "application/json", "body": "{\"a\": 1}"}]},
                {"id": 2, "timeout_ms": 1500, "explain": true, "request_id": "7c2e", "url_path": "v1/ü", "headers": {},
                 "parts": [{"name": "data", "content_type": "image/png", "hex": "89504e4700"},
                           {"name": "large", "content_type": "", "repeat": [7, INLINE_UP_TO + 1]},
                           {"name": "empty", "content_type": "", "body": ""}]}]}),
        ),
        (
            "reply",
            reply(Outcome::Answered, 201, &Bytes::from_static(b"ok")),
            json!({"item": 7, "status": 201, "flags": 0, "handler_us": 250, "body": "ok",
                   "headers": {"content-type": "text/plain", ":reason": "Created"}}),
        ),
        (
            "reply_failed",
            reply(Outcome::Failed, 503, &Bytes::from_static(b"Prediction failed")),
            json!({"item": 7, "status": 503, "flags": 1, "body": "Prediction failed"}),
        ),
        ("reply_cancelled", reply(Outcome::Cancelled, 0, &Bytes::new()), json!({"item": 7, "flags": 2})),
        (
            "reply_large",
            reply(Outcome::Answered, 200, &large),
            json!({"item": 7, "flags": 4, "repeat": [5, 70_000]}),
        ),
        ("reply_stream", reply(Outcome::Stream, 200, &Bytes::new()), json!({"item": 7, "flags": 8})),
        (
            "chunk",
            frame(|out| encode_chunk(7, &Bytes::from_static(b"piece"), out)),
            json!({"item": 7, "data": "piece"}),
        ),
        ("end", end(None), json!({"item": 7, "failed": false})),
        (
            "end_failed",
            end(Some((500, "broke off".into()))),
            json!({"item": 7, "failed": true, "status": 500, "message": "broke off"}),
        ),
        ("credit", frame(|out| encode_credit(7, 65536, out)), json!({"item": 7, "bytes": 65536})),
        ("cancel", frame(|out| encode_cancel(&[7, 9], out)), json!({"items": [7, 9]})),
        ("describe", frame(|out| encode_describe(3, "6b1f", out)), json!({"item": 3, "request_id": "6b1f"})),
        (
            "metric",
            frame(|out| encode_metrics(std::slice::from_ref(&metric), out)),
            json!({"metrics": [{"name": "HandlerTime", "unit": "Milliseconds", "type": 1, "value": 1.5,
                    "request_ids": "6b1f,7c2e", "dimensions": [["ModelName", "mnist"], ["Level", "Model"]]}]}),
        ),
        (
            "log",
            frame(|out| encode_log(&log, out)),
            json!({"level": 30, "logger": "zoo", "message": "careful"}),
        ),
        ("ping", frame(|out| encode_token(Kind::Ping, 77, out)), json!({"token": 77})),
        ("pong", frame(|out| encode_token(Kind::Pong, 77, out)), json!({"token": 77})),
        ("drain", frame(encode_drain), json!({})),
        ("bye", frame(|out| encode_bye("drained", out)), json!({"reason": "drained"})),
        ("unknown_then_drain", unknown.freeze(), json!({})),
    ]
}

#[test]
fn frames_look_as_they_always_did() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut contents = serde_json::Map::new();
    for (name, bytes, content) in cases() {
        let path = folder().join(format!("{name}.bin"));
        if update {
            std::fs::write(&path, &bytes).unwrap();
        }
        let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(golden == bytes, "{name}: the frame has changed");
        contents.insert(name.into(), content);
    }
    let path = folder().join("cases.json");
    let text = serde_json::to_string_pretty(&contents).unwrap() + "\n";
    if update {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

/// Feeds `bytes` in steps of `step` and returns what came out; bodies that a Reply declares are expected as a server would.
fn receive(bytes: &[u8], step: usize) -> Vec<Incoming> {
    let mut inbox = Inbox::default();
    let mut seen = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (space, most) = inbox.space();
        let count = step.min(most).min(rest.len());
        space.put_slice(&rest[..count]);
        inbox.filled(count);
        rest = &rest[count..];
        while let Some(incoming) = inbox.next().unwrap() {
            if let Incoming::Frame(frame) = &incoming {
                expect_bodies(&mut inbox, frame);
            }
            seen.push(incoming);
        }
    }
    assert!(inbox.is_clean());
    seen
}

fn expect_bodies(inbox: &mut Inbox, frame: &zoo_proto::wire::Frame) {
    match frame.kind {
        Kind::Reply => {
            let reply = decode_reply(frame).unwrap();
            if reply.body.is_none() {
                inbox.expect_body(reply.item, 0, reply.body_len as usize);
            }
        }
        Kind::Batch => {
            for item in decode_batch(frame).unwrap().0 {
                for (index, part) in item.parts.iter().enumerate().filter(|(_, part)| part.body.is_none()) {
                    inbox.expect_body(item.id, index as u16, part.length as usize);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn what_was_sent_arrives_however_it_is_cut() {
    for (name, bytes, _) in cases() {
        let whole = receive(&bytes, usize::MAX);
        assert!(!whole.is_empty(), "{name}");
        for step in [1, 7, 1000, 65_536] {
            if step > 1 || bytes.len() < 100_000 {
                assert_eq!(receive(&bytes, step), whole, "{name} in steps of {step}");
            }
        }
    }
}

#[test]
fn decoding_gives_what_was_encoded() {
    let by_name: BTreeMap<_, _> = cases().into_iter().map(|(name, bytes, _)| (name, bytes)).collect();
    let frame_of = |name| match receive(&by_name[name], usize::MAX).swap_remove(0) {
        Incoming::Frame(frame) => frame,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(Load::decode(&frame_of("load")).unwrap(), load());
    assert_eq!(Hello::decode(&frame_of("hello")).unwrap().pid, 4242);
    assert_eq!(LoadFailed::decode(&frame_of("load_failed")).unwrap().kind, LoadFailure::Invalid);
    let (items, more) = decode_batch(&frame_of("batch")).unwrap();
    assert!(!more);
    assert_eq!(items[0].headers.get("content-type").unwrap(), "application/json");
    let entries: Vec<_> = items[0].headers.entries().collect();
    assert_eq!(entries, [("content-type", &b"application/json"[..]), ("x-a", &b""[..])]);
    assert_eq!(items[1].parts[0].body.as_deref(), Some(&b"\x89PNG\0"[..]));
    assert_eq!((items[1].parts[1].body.as_ref(), items[1].parts[1].length), (None, INLINE_UP_TO as u64 + 1));
    let reply = decode_reply(&frame_of("reply")).unwrap();
    assert_eq!(
        (reply.status, reply.outcome, reply.body.as_deref()),
        (201, Outcome::Answered, Some(&b"ok"[..]))
    );
    assert_eq!(decode_reply(&frame_of("reply_stream")).unwrap().outcome, Outcome::Stream);
    assert_eq!(decode_end(&frame_of("end_failed")).unwrap().failed, Some((500, "broke off".into())));
    assert_eq!(decode_credit(&frame_of("credit")).unwrap(), (7, 65536));
    assert_eq!(decode_cancel(&frame_of("cancel")).unwrap(), [7, 9]);
    assert_eq!(decode_describe(&frame_of("describe")).unwrap(), (3, "6b1f".into()));
    assert_eq!(decode_metrics(&frame_of("metric")).unwrap()[0].dimensions.len(), 2);
    assert_eq!(decode_log(&frame_of("log")).unwrap().message, "careful");
    assert_eq!(decode_token(&frame_of("pong")).unwrap(), 77);
}

#[test]
fn a_batch_too_large_for_one_frame_goes_out_in_several() {
    let body = [Bytes::from(vec![1; INLINE_UP_TO])];
    let headers = HeaderBlock::default();
    let items: Vec<_> = (1..=40)
        .map(|id| Item {
            id,
            timeout_ms: 0,
            explain: false,
            request_id: "r",
            url_path: "",
            headers: &headers,
            parts: vec![Part { name: "body", content_type: "", body: &body }],
        })
        .collect();
    let received = receive(&frame(|out| encode_batch(&items, out)), 100_000);
    let frames: Vec<_> = received
        .iter()
        .map(|incoming| match incoming {
            Incoming::Frame(frame) => decode_batch(frame).unwrap(),
            Incoming::Body { .. } => panic!("an inline body came in Body frames"),
        })
        .collect();
    let more: Vec<_> = frames.iter().map(|(_, more)| *more).collect();
    assert_eq!(more, [true, true, false]);
    let ids: Vec<_> = frames.iter().flat_map(|(items, _)| items.iter().map(|item| item.id)).collect();
    assert_eq!(ids, (1..=40).collect::<Vec<_>>());
}
