//! The server's end of a link to a real worker process.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};
use zoo_proto::wire::answer::{Outcome, Reply, decode_chunk, decode_end, decode_reply};
use zoo_proto::wire::batch::{Item, Part, decode_token, encode_batch};
use zoo_proto::wire::event::{Metric, decode_log, decode_metrics};
use zoo_proto::wire::frame::{Frame, FrameHeader, HEADER_LEN};
use zoo_proto::wire::start::{Hello, Load, LoadFailed, LoadModel};
use zoo_proto::wire::{HeaderBlock, Inbox, Incoming, Kind, Outbox};

/// No answer within this time is an answer, too.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request to be sent.
#[derive(Clone)]
pub(crate) struct TestItem {
    id: u64,
    request_id: String,
    path: String,
    body: [Bytes; 1],
    timeout_ms: u32,
}

pub(crate) fn item(id: u64, path: &str) -> TestItem {
    let request_id = format!("request-{id}");
    TestItem { id, request_id, path: path.into(), body: [Bytes::new()], timeout_ms: 0 }
}

impl TestItem {
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = [Bytes::copy_from_slice(body)];
        self
    }

    pub(crate) fn timeout(mut self, ms: u32) -> Self {
        self.timeout_ms = ms;
        self
    }
}

/// All that the worker has said.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) replies: BTreeMap<u64, Reply>,
    pub(crate) streams: BTreeMap<u64, Vec<u8>>,
    pub(crate) ended: BTreeMap<u64, Option<(u16, String)>>,
    pub(crate) log: Vec<String>,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) pongs: Vec<u64>,
    starts: Vec<Frame>,
    bye: bool,
    closed: bool,
}

/// A whole answer.
pub(crate) struct Whole {
    pub(crate) outcome: Outcome,
    pub(crate) status: u16,
    pub(crate) headers: HeaderBlock,
    pub(crate) body: Bytes,
}

pub(crate) struct Peer {
    child: Child,
    link: Option<UnixStream>,
    inbox: Inbox,
    pub(crate) said: Said,
    pub(crate) loaded: Value,
}

pub(crate) fn load_frame(config: &Value) -> Load {
    let config: Map<_, _> = config.as_object().cloned().unwrap();
    Load {
        model: LoadModel {
            name: "unruly".into(),
            version: "1.0".into(),
            dir: std::env::temp_dir().to_string_lossy().into(),
            handler: Some("unruly".into()),
            manifest: json!({}),
            config,
        },
        worker: "W-9000-unruly_1.0".into(),
        batch_size: 8,
        gpu: None,
        envelope: None,
        concurrency: 8,
        asynchronous: false,
        coalesce: true,
        decode_input: true,
        limit_max_image_pixels: true,
        max_response_bytes: 6_553_500,
        max_request_bytes: None,
        headers: BTreeMap::new(),
        metrics: None,
    }
}

/// The program of this test, as a worker.
pub(crate) fn worker() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["worker_process", "--exact", "--ignored", "--nocapture"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Peer {
    /// A worker that has said Hello.
    pub(crate) fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        ours.set_write_timeout(Some(PATIENCE)).unwrap();
        let child = worker().stdin(OwnedFd::from(theirs)).spawn().unwrap();
        let (inbox, said) = (Inbox::default(), Said::default());
        let mut peer = Self { child, link: Some(ours), inbox, said, loaded: Value::Null };
        peer.send(|out| Hello { role: "server".into(), name: "test".into(), pid: 1 }.encode(out));
        let hello = peer.start_frame();
        let hello = Hello::decode(&hello).unwrap();
        assert_eq!((hello.role.as_str(), hello.pid), ("worker", peer.child.id()));
        peer
    }

    /// A worker that is ready.
    pub(crate) fn loaded() -> Self {
        let mut peer = Self::start();
        peer.load(&load_frame(&json!({})));
        peer
    }

    pub(crate) fn load(&mut self, load: &Load) {
        self.send(|out| load.encode(out));
        let frame = self.start_frame();
        assert_eq!(frame.kind, Kind::Loaded);
        self.loaded = serde_json::from_slice(&frame.payload).unwrap();
    }

    pub(crate) fn load_failed(&mut self) -> LoadFailed {
        let frame = self.start_frame();
        LoadFailed::decode(&frame).unwrap()
    }

    fn start_frame(&mut self) -> Frame {
        self.until(|said| !said.starts.is_empty());
        self.said.starts.remove(0)
    }

    pub(crate) fn send(&mut self, encode: impl FnOnce(&mut Outbox)) {
        let mut out = Outbox::default();
        encode(&mut out);
        self.raw(&out.take());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.link.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(crate) fn batch(&mut self, items: &[TestItem]) {
        self.raw(&batch_frames(items));
    }

    /// The Batch frame alone, without the Body frames that follow.
    pub(crate) fn batch_head(&mut self, items: &[TestItem]) {
        let frames = batch_frames(items);
        let header = FrameHeader::peek(&frames).unwrap().unwrap();
        self.raw(&frames[..HEADER_LEN + header.length]);
    }

    /// The whole answer to an item, or the head of its stream.
    pub(crate) fn reply(&mut self, id: u64) -> Whole {
        self.until(|said| said.replies.get(&id).is_some_and(|reply| reply.body.is_some()));
        let Reply { outcome, status, headers, body, .. } = self.said.replies[&id].clone();
        Whole { outcome, status, headers, body: body.unwrap() }
    }

    pub(crate) fn log(&self) -> &[String] {
        &self.said.log
    }

    pub(crate) fn until_bye(&mut self) {
        self.until(|said| said.bye);
    }

    /// Listens until something has been said.
    pub(crate) fn until(&mut self, done: impl Fn(&Said) -> bool) {
        while !done(&self.said) {
            assert!(!self.said.closed, "the worker has gone: {}", self.stderr());
            self.listen();
        }
    }

    fn listen(&mut self) {
        let mut bytes = [0; 65536];
        let (space, most) = self.inbox.space();
        let room = most.min(bytes.len());
        let count = self.link.as_mut().unwrap().read(&mut bytes[..room]).expect("the worker says something");
        self.said.closed = count == 0;
        space.put_slice(&bytes[..count]);
        self.inbox.filled(count);
        while let Some(incoming) = self.inbox.next().unwrap() {
            match incoming {
                Incoming::Body { item, bytes, .. } => {
                    self.said.replies.get_mut(&item).unwrap().body = Some(bytes);
                }
                Incoming::Frame(frame) => self.take(frame),
            }
        }
    }

    fn take(&mut self, frame: Frame) {
        let said = &mut self.said;
        match frame.kind {
            Kind::Hello | Kind::Loaded | Kind::LoadFailed => said.starts.push(frame),
            Kind::Reply => {
                let reply = decode_reply(&frame).unwrap();
                if reply.body.is_none() {
                    self.inbox.expect_body(reply.item, 0, reply.body_len as usize);
                }
                if reply.outcome == Outcome::Stream {
                    said.streams.insert(reply.item, Vec::new());
                }
                assert!(said.replies.insert(reply.item, reply).is_none(), "an item is answered once");
            }
            Kind::Chunk => {
                let (item, data) = decode_chunk(&frame).unwrap();
                said.streams.get_mut(&item).expect("a stream begins with its head").extend_from_slice(&data);
            }
            Kind::End => {
                let end = decode_end(&frame).unwrap();
                assert!(said.ended.insert(end.item, end.failed).is_none(), "a stream ends once");
            }
            Kind::Log => said.log.push(decode_log(&frame).unwrap().message),
            Kind::Metric => said.metrics.extend(decode_metrics(&frame).unwrap()),
            Kind::Pong => said.pongs.push(decode_token(&frame).unwrap()),
            Kind::Bye => said.bye = true,
            kind => panic!("a worker never sends {kind:?}"),
        }
    }

    pub(crate) fn hang_up(&mut self) {
        self.link = None;
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// How the process ended; it must end by itself.
    pub(crate) fn exit_code(&mut self) -> i32 {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| panic!("the worker was killed: {status}"));
            }
            assert!(std::time::Instant::now() < deadline, "the worker doesn't end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it wrote to standard error, after its end.
    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text).unwrap();
        }
        text
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn batch_frames(items: &[TestItem]) -> Bytes {
    let mut pairs = BytesMut::new();
    HeaderBlock::push(&mut pairs, "x-test", b"yes");
    let headers = HeaderBlock::from(pairs);
    let items: Vec<_> = items
        .iter()
        .map(|item| Item {
            id: item.id,
            timeout_ms: item.timeout_ms,
            explain: false,
            request_id: &item.request_id,
            url_path: &item.path,
            headers: &headers,
            parts: vec![Part { name: "body", content_type: "", body: &item.body }],
        })
        .collect();
    let mut out = Outbox::default();
    encode_batch(&items, &mut out);
    out.take()
}
