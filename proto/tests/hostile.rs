//! A peer that lies: every case ends in an error, none in a panic, a hang or an allocation of what it claims.

use bytes::{BufMut, Bytes, BytesMut};
use zoo_proto::wire::answer::{Outcome, decode_chunk, decode_end, decode_reply, encode_reply};
use zoo_proto::wire::batch::{decode_batch, decode_cancel, decode_credit, decode_describe, encode_body};
use zoo_proto::wire::event::{decode_log, decode_metrics};
use zoo_proto::wire::frame::{Frame, Kind, MAX_PAYLOAD, WireError};
use zoo_proto::wire::start::{Hello, Load, LoadFailed, Loaded};
use zoo_proto::wire::{HeaderBlock, Inbox, Incoming, Outbox};

fn feed(inbox: &mut Inbox, bytes: &[u8]) -> Result<Vec<Incoming>, WireError> {
    let mut seen = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (space, most) = inbox.space();
        let count = most.min(rest.len());
        space.put_slice(&rest[..count]);
        inbox.filled(count);
        rest = &rest[count..];
        while let Some(incoming) = inbox.next()? {
            seen.push(incoming);
        }
    }
    Ok(seen)
}

#[test]
fn an_overlong_frame_is_refused_by_its_header() {
    let mut bytes = BytesMut::new();
    bytes.put_u32_le(MAX_PAYLOAD as u32 + 1);
    bytes.put_slice(&[Kind::Reply as u8, 0, 0, 0]);
    let error = feed(&mut Inbox::default(), &bytes).unwrap_err();
    assert_eq!(error, WireError::TooLong { code: 0x12, length: MAX_PAYLOAD + 1 });
}

#[test]
fn body_bytes_must_be_announced_and_in_order() {
    let body = |offset: u64, bytes: &[u8]| {
        let mut out = Outbox::default();
        out.header(Kind::Body, 0, 24 + bytes.len());
        out.put(&9_u64.to_le_bytes());
        out.put(&offset.to_le_bytes());
        out.put(&[0; 8]);
        out.put(bytes);
        out.take()
    };
    let unannounced = feed(&mut Inbox::default(), &body(0, b"x")).unwrap_err();
    assert_eq!(unannounced, WireError::UnknownItem { kind: Kind::Body, item: 9 });
    let announced = || {
        let mut inbox = Inbox::default();
        inbox.expect_body(9, 0, 3);
        inbox
    };
    assert_eq!(
        feed(&mut announced(), &body(1, b"x")).unwrap_err(),
        WireError::StrayBody { item: 9, offset: 1, expected: 0 }
    );
    assert_eq!(
        feed(&mut announced(), &body(0, b"four")).unwrap_err(),
        WireError::StrayBody { item: 9, offset: 0, expected: 0 }
    );
    let twice = [body(0, b"abc"), body(0, b"abc")].concat();
    assert_eq!(
        feed(&mut announced(), &twice).unwrap_err(),
        WireError::UnknownItem { kind: Kind::Body, item: 9 }
    );
    let short = [&[10, 0, 0, 0, Kind::Body as u8, 0, 0, 0][..], &[0; 10]].concat();
    assert_eq!(
        feed(&mut announced(), &short).unwrap_err(),
        WireError::Short { kind: Kind::Body, wanted: 24, left: 10 }
    );
}

#[test]
fn another_major_version_is_refused() {
    let payload = Bytes::from_static(b"\x02\0\0\0{\"role\": \"worker\"}");
    let error = Hello::decode(&Frame { kind: Kind::Hello, flags: 0, payload }).unwrap_err();
    assert_eq!(error, WireError::Version { theirs: 2 });
    assert_eq!(error.to_string(), "peer speaks version 2 of the worker protocol, this is version 1");
}

/// Decodes with every decoder; what comes out doesn't matter.
fn decode_all(frame: &Frame) {
    let _ = decode_reply(frame).map(|reply| reply.headers.iter().count());
    let _ = decode_batch(frame)
        .map(|(items, _)| items.iter().map(|item| item.headers.iter().count()).sum::<usize>());
    let _ = decode_chunk(frame);
    let _ = decode_end(frame);
    let _ = decode_cancel(frame);
    let _ = decode_credit(frame);
    let _ = decode_describe(frame);
    let _ = decode_metrics(frame);
    let _ = decode_log(frame);
    let _ = Hello::decode(frame);
    let _ = Load::decode(frame);
    let _ = Loaded::decode(frame);
    let _ = LoadFailed::decode(frame);
}

/// The golden frames, mutated with a fixed seed: the same target that a fuzzer would use.
#[test]
fn mutated_frames_are_errors_or_frames_but_never_a_panic() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/wire");
    let mut corpus: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    corpus.retain(|path| path.extension().is_some_and(|extension| extension == "bin"));
    corpus.sort();
    assert!(corpus.len() > 15);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 16) as usize % bound
    };
    for path in corpus {
        let golden = std::fs::read(&path).unwrap();
        let head = &golden[..golden.len().min(4096)];
        for _ in 0..400 {
            let mut bytes = head.to_vec();
            for _ in 0..=next(4) {
                let at = next(bytes.len());
                match next(3) {
                    0 => bytes[at] = next(256) as u8,
                    1 => bytes[at] ^= 1 << next(8),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let mut inbox = Inbox::default();
            inbox.expect_body(7, 0, 100);
            for incoming in feed(&mut inbox, &bytes).unwrap_or_default() {
                if let Incoming::Frame(frame) = incoming {
                    decode_all(&frame);
                }
            }
            for kind in Kind::ALL {
                decode_all(&Frame {
                    kind: *kind,
                    flags: next(256) as u8,
                    payload: Bytes::from(bytes.clone()),
                });
            }
        }
    }
}

#[test]
fn a_large_reply_is_received_in_one_piece_without_being_copied_together() {
    let body = Bytes::from((0..3_000_000_u32).map(|i| i as u8).collect::<Vec<_>>());
    let mut out = Outbox::default();
    encode_reply(4, Outcome::Answered, 200, 0, &HeaderBlock::default(), &body, &mut out);
    let sent = out.take();
    let head = sent.len() - body.len() - body.len().div_ceil(MAX_PAYLOAD - 24) * 32;
    let mut inbox = Inbox::default();
    assert_eq!(feed(&mut inbox, &sent[..head]).unwrap().len(), 1);
    inbox.expect_body(4, 0, body.len());
    let seen = feed(&mut inbox, &sent[head..]).unwrap();
    assert_eq!(seen, [Incoming::Body { item: 4, part: 0, bytes: body.clone() }]);
    let mut pieces = Outbox::default();
    encode_body(4, 0, &[body.slice(..10), body.slice(10..2_000_000), body.slice(2_000_000..)], &mut pieces);
    inbox.expect_body(4, 0, body.len());
    assert_eq!(feed(&mut inbox, &pieces.take()).unwrap(), [Incoming::Body { item: 4, part: 0, bytes: body }]);
}
