//! A worker with bad manners, for tests: what it does is planned in its model's folder (see [`zoo_e2e::unruly`]).
//!
//! It is also the shim through which workers are launched, so that these tests need no other program.
#![expect(clippy::unwrap_used, reason = "a defect here should end the worker loudly")]

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio, exit};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use zoo_e2e::unruly::{HOLD, LEFT, MISBEHAVED, Mode, ORPHAN, POISON, Plan, RAN, RELEASE, STARTED};
use zoo_proto::wire::answer::{End, Outcome, encode_bye, encode_chunk, encode_end, encode_reply};
use zoo_proto::wire::batch::{decode_batch, decode_cancel, decode_describe};
use zoo_proto::wire::start::{Hello, LoadFailed, LoadFailure, Loaded};
use zoo_proto::wire::{Frame, HeaderBlock, Inbox, Incoming, Kind, MAJOR, Outbox, STREAM_CREDIT};
use zoo_server::worker::shim;

/// Set in a process whose SIGTERM is ignored.
const DEAF: &str = "ZOO_TEST_DEAF";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == shim::COMMAND) {
        return shim::run(args);
    }
    let plan = Plan::read(Path::new("."));
    if plan.mode == Mode::IgnoresDrain && std::env::var_os(DEAF).is_none() {
        return go_deaf();
    }
    note(STARTED, &std::process::id().to_string());
    Worker { plan, link: Link::new(plan.mode == Mode::OneByteWrites), waiting: Vec::new() }.run();
    ExitCode::SUCCESS
}

/// Becomes itself with SIGTERM ignored, which needs a shell: ignored signals survive an exec.
fn go_deaf() -> ExitCode {
    let own = std::env::current_exe().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "trap '' TERM; exec \"$0\" worker"]).arg(own).env(DEAF, "1");
    eprintln!("no shell: {}", shell.exec());
    ExitCode::FAILURE
}

fn note(file: &str, line: &str) {
    // One write for each line: several processes append to the file.
    let mut file = OpenOptions::new().append(true).create(true).open(file).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn die(status: i32) -> ! {
    eprintln!("the sky is falling");
    exit(status)
}

fn sleep_for_ever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(60));
    }
}

/// An item with its text.
#[derive(Clone)]
struct Item {
    id: u64,
    text: String,
}

struct Worker {
    plan: Plan,
    link: Link,
    /// Batches that a concurrent worker has begun.
    waiting: Vec<Item>,
}

impl Worker {
    /// Whether to misbehave like this now.
    fn is(&self, mode: Mode) -> bool {
        if self.plan.mode != mode {
            return false;
        }
        !self.plan.once || OpenOptions::new().write(true).create_new(true).open(MISBEHAVED).is_ok()
    }

    fn run(mut self) {
        self.start();
        self.load();
        if self.is(Mode::TalksWhenIdle) {
            self.reply(77, "by the way");
            self.link.flush();
        }
        while let Some(frame) = self.link.next() {
            match frame.kind {
                Kind::Batch => self.batch(&frame),
                Kind::Describe => {
                    let (item, _) = decode_describe(&frame).unwrap();
                    self.reply(item, "[]");
                    self.link.flush();
                }
                Kind::Drain if self.is(Mode::DiesInDrain) => die(3),
                Kind::Drain if self.plan.mode == Mode::IgnoresDrain => {}
                Kind::Drain => {
                    note(LEFT, &std::process::id().to_string());
                    encode_bye("", &mut self.link.outbox);
                    self.link.flush();
                    return;
                }
                _ => {}
            }
        }
        if self.plan.mode == Mode::IgnoresDrain {
            sleep_for_ever();
        }
    }

    fn start(&mut self) {
        if self.is(Mode::ExitsBeforeHello) {
            die(3);
        }
        if self.is(Mode::KilledBeforeHello) {
            zoo_e2e::kill(std::process::id());
            sleep_for_ever();
        }
        if self.is(Mode::NeverHello) {
            sleep_for_ever();
        }
        if self.is(Mode::GarbageForHello) {
            self.shout(b"Usage: worker [options]\n");
        }
        if self.is(Mode::OversizeForHello) {
            self.shout(&[1, 0, 16, 0, Kind::Hello as u8, 0, 0, 0]);
        }
        if self.is(Mode::WrongMajor) {
            self.link.outbox.frame(Kind::Hello, 0, |payload| {
                payload.put_u16_le(MAJOR + 1);
                payload.put_u16_le(0);
                payload.put_slice(br#"{"role": "worker"}"#);
            });
        } else {
            let hello = Hello { role: "worker".into(), name: "unruly".into(), pid: std::process::id() };
            hello.encode(&mut self.link.outbox);
        }
        self.link.flush();
    }

    fn load(&mut self) {
        while self.link.next().is_some_and(|frame| frame.kind != Kind::Load) {}
        if self.is(Mode::NeverLoads) {
            sleep_for_ever();
        }
        if self.is(Mode::ExitsInLoad) {
            die(3);
        }
        for (mode, kind) in [
            (Mode::LoadError, LoadFailure::Error),
            (Mode::LoadMemory, LoadFailure::Memory),
            (Mode::LoadInvalid, LoadFailure::Invalid),
        ] {
            if self.is(mode) {
                let trace = "Traceback:\n  weights.bin is bent\n".into();
                LoadFailed { kind, message: "bent weights".into(), trace }.encode(&mut self.link.outbox);
                self.link.flush();
                exit(1);
            }
        }
        let concurrency = if self.plan.mode == Mode::Concurrent { 8 } else { 1 };
        Loaded { concurrency, ..Loaded::default() }.encode(&mut self.link.outbox);
        self.link.flush();
    }

    fn batch(&mut self, frame: &Frame) {
        let (items, more) = decode_batch(frame).unwrap();
        assert!(!more, "the tests send small batches only");
        let mut items: Vec<_> = items
            .into_iter()
            .map(|item| {
                let text = item.parts.first().and_then(|part| part.body.clone()).unwrap_or_default();
                Item { id: item.id, text: String::from_utf8(text.to_vec()).unwrap() }
            })
            .collect();
        let cancelled = self.link.cancelled();
        for item in items.extract_if(.., |item| cancelled.contains(&item.id)) {
            self.link.reply(item.id, Outcome::Cancelled, 0, "");
        }
        if items.is_empty() {
            return self.link.flush();
        }
        let begun = Instant::now();
        for item in &items {
            note(RAN, &format!("{} {}", std::process::id(), item.text));
        }
        if self.plan.mode == Mode::Concurrent {
            return self.begin(items);
        }
        self.link.handler_us = 0;
        self.misbehave(&items);
        for item in &items {
            handle(item);
        }
        self.link.handler_us = begun.elapsed().as_micros() as u32;
        self.answer(items);
    }

    /// One of several batches at a time.
    fn begin(&mut self, items: Vec<Item>) {
        if items.iter().any(|item| item.text.starts_with(POISON)) {
            die(3);
        }
        self.waiting.extend(items);
        if self.waiting.len() == 8 {
            while let Some(item) = self.waiting.pop() {
                self.reply(item.id, &item.text);
            }
            self.link.flush();
        }
    }

    /// What happens in place of the handler's work.
    fn misbehave(&mut self, items: &[Item]) {
        if self.is(Mode::Dies) {
            die(3);
        }
        if self.is(Mode::DiesOfMemory) {
            die(137);
        }
        if self.is(Mode::Hangs) {
            sleep_for_ever();
        }
        if self.is(Mode::DiesHalfway) {
            for item in &items[..items.len() / 2] {
                self.reply(item.id, &item.text);
            }
            self.link.flush();
            die(3);
        }
        if self.is(Mode::DiesMidReply) {
            for item in items {
                self.reply(item.id, &item.text);
            }
            let bytes = self.link.outbox.take();
            self.link.stream.write_all(&bytes[..bytes.len() / 2]).unwrap();
            die(3);
        }
        if self.is(Mode::LeavesOrphan) {
            leave_orphan();
        }
        self.misspeak(items);
    }

    /// What is said in place of answers.
    fn misspeak(&mut self, items: &[Item]) {
        if self.is(Mode::OversizeReply) {
            self.shout(&[1, 0, 16, 0, Kind::Reply as u8, 0, 0, 0]);
        }
        if self.is(Mode::Garbage) {
            self.shout(b"Segmentation fault (core dumped)\n");
        }
        if self.is(Mode::UnknownItem) {
            self.reply(items[0].id + 1000, "who?");
            self.link.flush();
            sleep_for_ever();
        }
        if self.is(Mode::ByeUnasked) {
            encode_bye("so long", &mut self.link.outbox);
            self.link.flush();
            exit(0);
        }
        if self.is(Mode::StreamsWithoutCredit) {
            self.stream(items[0].id, 2 * STREAM_CREDIT as usize);
            sleep_for_ever();
        }
        if self.is(Mode::StreamBreaksOff) {
            self.stream(items[0].id, 1000);
            die(3);
        }
        if self.is(Mode::Floods) {
            let line = "x".repeat(99) + "\n";
            let flood = line.repeat(40_000);
            io::stdout().write_all(flood.as_bytes()).unwrap();
            io::stderr().write_all(flood.as_bytes()).unwrap();
        }
    }

    /// Answers, more or less.
    fn answer(&mut self, mut items: Vec<Item>) {
        if self.plan.mode == Mode::OutOfOrder {
            items.reverse();
        }
        if self.is(Mode::TooFew) {
            items.pop();
        }
        let twice = self.is(Mode::AnswersTwice);
        let fails = self.plan.mode == Mode::FailsSome;
        for (index, item) in items.iter().enumerate() {
            if fails && index % 3 == 2 {
                self.link.reply(item.id, Outcome::Failed, 507, &format!("no room for {}", item.text));
            } else {
                self.reply(item.id, &item.text);
            }
        }
        if twice {
            items.iter().for_each(|item| self.reply(item.id, &item.text));
        }
        self.link.flush();
        if self.is(Mode::DiesAfterReply) {
            die(3);
        }
    }

    fn reply(&mut self, item: u64, text: &str) {
        self.link.reply(item, Outcome::Answered, 200, text);
    }

    /// A whole stream if there is credit for it.
    fn stream(&mut self, item: u64, bytes: usize) {
        self.link.reply(item, Outcome::Stream, 200, "");
        encode_chunk(item, &Bytes::from(vec![b'x'; bytes]), &mut self.link.outbox);
        self.link.flush();
        if bytes > STREAM_CREDIT as usize {
            encode_end(&End { item, handler_us: 0, failed: None }, &mut self.link.outbox);
            self.link.flush();
        }
    }

    /// Writes bytes that are no frames, and waits for what comes of it.
    fn shout(&mut self, bytes: &[u8]) {
        let _ = self.link.stream.write_all(bytes);
        sleep_for_ever();
    }
}

/// Leaves a process behind that is in nobody's group and has the link and both outputs.
#[expect(clippy::zombie_processes, reason = "outliving its parent is what it is for")]
fn leave_orphan() -> ! {
    let mut orphan = Command::new("setsid");
    // Its pid is there when it has left the worker's group.
    orphan.args(["sh", "-c", "echo $$ >\"$0.new\" && mv \"$0.new\" \"$0\" && exec sleep 300", ORPHAN]);
    orphan.stdin(Stdio::inherit()).spawn().unwrap();
    while !Path::new(ORPHAN).exists() {
        thread::sleep(Duration::from_millis(2));
    }
    die(3)
}

/// What the handler of an obedient worker does with an item.
fn handle(item: &Item) {
    if item.text.starts_with(POISON) {
        die(9);
    }
    if item.text.starts_with(HOLD) {
        while !Path::new(RELEASE).exists() {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The worker's end of the link, blocking.
struct Link {
    stream: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
    /// Frames that were read before it was their turn.
    ahead: VecDeque<Frame>,
    byte_by_byte: bool,
    handler_us: u32,
}

impl Link {
    fn new(byte_by_byte: bool) -> Self {
        // Standard input stays open too: children inherit the link, as those of a careless worker would.
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
        let (inbox, outbox) = (Inbox::default(), Outbox::default());
        Self { stream, inbox, outbox, ahead: VecDeque::new(), byte_by_byte, handler_us: 0 }
    }

    /// The next frame; `None` when the server has closed the link.
    fn next(&mut self) -> Option<Frame> {
        while self.ahead.is_empty() {
            if !self.read() {
                return None;
            }
        }
        self.ahead.pop_front()
    }

    /// Reads until there are more frames; `false` at the end of the link.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer).unwrap_or(0);
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let (space, most) = self.inbox.space();
            let now = rest.len().min(most);
            space.put_slice(&rest[..now]);
            self.inbox.filled(now);
            rest = &rest[now..];
        }
        while let Some(incoming) = self.inbox.next().unwrap() {
            match incoming {
                Incoming::Frame(frame) => self.ahead.push_back(frame),
                Incoming::Body { .. } => {}
            }
        }
        count > 0
    }

    /// Reads what is readable and says which items need not be begun.
    fn cancelled(&mut self) -> Vec<u64> {
        use rustix::event::{PollFd, PollFlags, poll};
        let readable = |stream: &UnixStream| {
            let mut watched = [PollFd::new(stream, PollFlags::IN)];
            poll(&mut watched, Some(&Default::default())).is_ok_and(|ready| ready > 0)
        };
        while readable(&self.stream) && self.read() {}
        let frames = self.ahead.iter().filter(|frame| frame.kind == Kind::Cancel);
        frames.flat_map(|frame| decode_cancel(frame).unwrap()).collect()
    }

    fn reply(&mut self, item: u64, outcome: Outcome, status: u16, text: &str) {
        let body = Bytes::copy_from_slice(text.as_bytes());
        encode_reply(
            item,
            outcome,
            status,
            self.handler_us,
            &HeaderBlock::default(),
            &body,
            &mut self.outbox,
        );
    }

    fn flush(&mut self) {
        let bytes = self.outbox.take();
        let piece = if self.byte_by_byte { 1 } else { bytes.len().max(1) };
        for piece in bytes.chunks(piece) {
            // A server that has closed the link is noticed by reading.
            if self.stream.write_all(piece).is_err() {
                return;
            }
        }
    }
}
