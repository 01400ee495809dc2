//! What the link and the worker's loop cost for each request: a handler that does nothing, and 32 batches of one on the way.
//!
//! `cargo bench -p zoo-handler` starts a worker process and prints, for bodies of three sizes, the time per request that passes and the time
//! that the worker's core is busy.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use serde_json::{Map, json};
use zoo_handler::{Answers, Batch, Context, Handler, LoadError};
use zoo_proto::wire::answer::decode_reply;
use zoo_proto::wire::batch::{Item, Part, encode_batch, encode_drain};
use zoo_proto::wire::start::{Hello, Load, LoadModel};
use zoo_proto::wire::{HeaderBlock, Inbox, Incoming, Kind, Outbox};

const WINDOW: u64 = 32;
const AS_WORKER: &str = "as-worker";

struct Noop;

impl Handler for Noop {
    fn load(_: &Context) -> Result<Self, LoadError> {
        Ok(Self)
    }

    fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
        batch.each(|request| Ok(request.to_bytes()))
    }
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == AS_WORKER) {
        return zoo_handler::serve::<Noop>();
    }
    match [(1, 400_000), (10_000, 100_000), (1_000_000, 2_000)]
        .iter()
        .try_for_each(|(size, count)| run(*size, *count))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(size: usize, count: u64) -> Result<(), Box<dyn Error>> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg(AS_WORKER)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let mut server = Server { link: ours, inbox: Inbox::default(), buffer: vec![0; 65536], loaded: false };
    server.start()?;
    let before = busy(child.id())?;
    let began = Instant::now();
    server.exchange(size, count)?;
    let passed = began.elapsed();
    let worked = busy(child.id())?.saturating_sub(before);
    let per = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    println!("{size:>8} bytes: {:8.2} µs pass, {:8.2} µs in the worker", per(passed), per(worked));
    server.send(encode_drain)?;
    child.wait()?;
    Ok(())
}

/// How long a process has been on a core.
fn busy(pid: u32) -> Result<Duration, Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    Ok(Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?))
}

struct Server {
    link: UnixStream,
    inbox: Inbox,
    buffer: Vec<u8>,
    loaded: bool,
}

impl Server {
    fn start(&mut self) -> Result<(), Box<dyn Error>> {
        self.send(|out| {
            Hello { role: "server".into(), name: "bench".into(), pid: 1 }.encode(out);
            load().encode(out);
        })?;
        while !self.loaded {
            self.listen()?;
        }
        Ok(())
    }

    /// Keeps [`WINDOW`] requests on the way until `count` are answered.
    fn exchange(&mut self, size: usize, count: u64) -> Result<(), Box<dyn Error>> {
        let body = [Bytes::from(vec![b'x'; size])];
        let headers = HeaderBlock::from_pairs([("content-type", &b"text/plain"[..]), ("host", b"localhost")]);
        let (mut sent, mut answered) = (0, 0);
        let mut writer = self.link.try_clone()?;
        std::thread::scope(|scope| {
            // Large requests and large answers would fill both directions: the requests have a thread of their own.
            let (grant, grants) = std::sync::mpsc::channel::<u64>();
            scope.spawn(move || {
                let mut out = Outbox::default();
                for allowed in grants {
                    for _ in 0..allowed.min(count - sent) {
                        sent += 1;
                        let parts = vec![Part { name: "body", content_type: "text/plain", body: &body }];
                        let item = Item {
                            id: sent,
                            timeout_ms: 0,
                            explain: false,
                            request_id: "6b1f7c2e-0000-4000-8000-000000000000",
                            url_path: "",
                            headers: &headers,
                            parts,
                        };
                        encode_batch(&[item], &mut out);
                    }
                    if writer.write_all(&out.take()).is_err() {
                        return;
                    }
                }
            });
            grant.send(WINDOW)?;
            while answered < count {
                let now = self.listen()?;
                answered += now;
                grant.send(now)?;
            }
            Ok(())
        })
    }

    fn send(&mut self, encode: impl FnOnce(&mut Outbox)) -> Result<(), Box<dyn Error>> {
        let mut out = Outbox::default();
        encode(&mut out);
        Ok(self.link.write_all(&out.take())?)
    }

    /// Reads once; returns how many requests were answered.
    fn listen(&mut self) -> Result<u64, Box<dyn Error>> {
        let (space, most) = self.inbox.space();
        let room = most.min(self.buffer.len());
        let count = self.link.read(&mut self.buffer[..room])?;
        if count == 0 {
            return Err("the worker has gone".into());
        }
        space.put_slice(&self.buffer[..count]);
        self.inbox.filled(count);
        let mut answered = 0;
        while let Some(incoming) = self.inbox.next()? {
            match incoming {
                Incoming::Body { .. } => answered += 1,
                Incoming::Frame(frame) if frame.kind == Kind::Reply => {
                    let reply = decode_reply(&frame)?;
                    match reply.body {
                        Some(_) => answered += 1,
                        None => self.inbox.expect_body(reply.item, 0, usize::try_from(reply.body_len)?),
                    }
                }
                Incoming::Frame(frame) => self.loaded |= frame.kind == Kind::Loaded,
            }
        }
        Ok(answered)
    }
}

fn load() -> Load {
    Load {
        model: LoadModel {
            name: "noop".into(),
            version: "1.0".into(),
            dir: ".".into(),
            handler: None,
            manifest: json!({}),
            config: Map::new(),
        },
        worker: "W-9000-noop_1.0".into(),
        batch_size: 1,
        gpu: None,
        envelope: None,
        concurrency: 1,
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
