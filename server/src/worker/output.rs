//! What a worker writes to standard output and standard error.
//!
//! Both are read for the whole life of the worker, line by line, so that it never blocks on a full pipe; memory is
//! bounded whatever it writes. Lines go to a [`LineSink`], lines in TorchServe's metric format apart, and the latest
//! lines are kept: they are the best reason there is when a worker dies.
//!
//! Doesn't know where lines end up, nor what a metric line means.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The longest line that is passed on whole, in bytes.
const LINE_LIMIT: usize = 16 * 1024;
/// Stands for what was cut from a longer line.
const CUT: &str = " […]";
/// How many lines are kept, and how much of each, in bytes.
const KEPT_LINES: usize = 40;
const KEPT_LINE_LIMIT: usize = 2 * 1024;
/// The most that is read after the end of the worker. More than a pipe holds by default; beyond that somebody else
/// is writing.
const LAST_WORDS: usize = 1024 * 1024;

/// Where a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Takes what a worker writes. Must not block: it is called where other workers are served.
pub trait LineSink: Send + Sync + 'static {
    /// A line, without its end and without control characters other than tabs.
    fn line(&self, worker: &str, stream: Stream, line: &str);
    /// What follows the mark in a `[METRICS]` line.
    fn metrics(&self, worker: &str, metrics: &str);
}

/// One kept line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLine {
    /// Where it was written to.
    pub stream: Stream,
    /// The line, or the beginning of a long one.
    pub text: String,
}

/// Reads a worker's output until [`Output::finish`], the end of both streams, or its own drop.
#[derive(Debug)]
pub struct Output {
    kept: Arc<Mutex<VecDeque<KeptLine>>>,
    /// Dropped when the worker has ended.
    ended: watch::Sender<()>,
    readers: [JoinHandle<()>; 2],
}

impl Output {
    /// Starts reading, in the current runtime.
    pub fn read(
        worker: &str,
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
        sink: &Arc<dyn LineSink>,
    ) -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let (ended, has_ended) = watch::channel(());
        let reader = |stream, pipe| {
            let lines =
                Lines { worker: worker.into(), stream, sink: Arc::clone(sink), kept: Arc::clone(&kept) };
            tokio::spawn(read(pipe, lines, has_ended.clone()))
        };
        let readers = [reader(Stream::Out, stdout), reader(Stream::Err, stderr)];
        Self { kept, ended, readers }
    }

    /// The latest lines, oldest first.
    pub fn latest(&self) -> Vec<KeptLine> {
        self.kept.lock().iter().cloned().collect()
    }

    /// To be called when the process has ended: reads what it left in the pipes, doesn't wait for anybody else who
    /// holds them, and gives the latest lines.
    pub async fn finish(self) -> Vec<KeptLine> {
        let Self { kept, ended, readers } = self;
        drop(ended);
        for reader in readers {
            // It failed only if the sink panicked, and that has been reported.
            let _ = reader.await;
        }
        mem::take(&mut *kept.lock()).into()
    }
}

async fn read(mut pipe: pipe::Receiver, lines: Lines, mut has_ended: watch::Receiver<()>) {
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; LINE_LIMIT];
    loop {
        let read = tokio::select! {
            read = pipe.read(&mut buffer) => read,
            _ = has_ended.changed() => break,
        };
        match read {
            // An error of a pipe's reading end is the end of it.
            Ok(0) | Err(_) => return splitter.finish(|line, cut| lines.take(line, cut)),
            Ok(length) => splitter.push(&buffer[..length], |line, cut| lines.take(line, cut)),
        }
    }
    // All that the worker wrote is in the pipe by now.
    let mut left = LAST_WORDS;
    while left > 0 {
        match pipe.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                splitter.push(&buffer[..length], |line, cut| lines.take(line, cut));
                left = left.saturating_sub(length);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    splitter.finish(|line, cut| lines.take(line, cut));
}

/// Where the lines of one stream go.
struct Lines {
    worker: Box<str>,
    stream: Stream,
    sink: Arc<dyn LineSink>,
    kept: Arc<Mutex<VecDeque<KeptLine>>>,
}

impl Lines {
    fn take(&self, raw: &[u8], cut: bool) {
        let mut line = clean(raw);
        if cut {
            line.push_str(CUT);
        } else if let Some(metrics) = metrics_of(&line) {
            return self.sink.metrics(&self.worker, metrics);
        }
        self.sink.line(&self.worker, self.stream, &line);
        self.keep(line);
    }

    fn keep(&self, mut line: String) {
        if line.is_empty() {
            return;
        }
        if line.len() > KEPT_LINE_LIMIT {
            line.truncate(line.floor_char_boundary(KEPT_LINE_LIMIT));
            line.push_str(CUT);
        }
        line.shrink_to_fit();
        let mut kept = self.kept.lock();
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(KeptLine { stream: self.stream, text: line });
    }
}

/// `^(INFO > )?\[METRICS](.*)`; the prefix comes from loggers that put the level before the text.
fn metrics_of(line: &str) -> Option<&str> {
    line.strip_prefix("INFO > ").unwrap_or(line).strip_prefix("[METRICS]")
}

/// Text that can't move a terminal's cursor or forge a line of a log.
fn clean(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).chars().filter(|&c| c == '\t' || !c.is_control()).collect()
}

/// Cuts a stream of bytes into lines. A carriage return ends a line as well, or a progress bar would be one line that
/// never ends.
#[derive(Default)]
struct Splitter {
    line: Vec<u8>,
    /// The rest of the line is dropped.
    cut: bool,
    /// A line feed now belongs to the carriage return before it.
    after_return: bool,
}

impl Splitter {
    fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        if mem::take(&mut self.after_return) {
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.add(&bytes[..end]);
            self.emit(&mut emit);
            let rest = &bytes[end + 1..];
            bytes = match (bytes[end], rest) {
                (b'\r', [b'\n', rest @ ..]) => rest,
                (b'\r', []) => {
                    self.after_return = true;
                    rest
                }
                _ => rest,
            };
        }
        self.add(bytes);
    }

    /// The stream has ended: what there is of a line is one.
    fn finish(mut self, mut emit: impl FnMut(&[u8], bool)) {
        if !self.line.is_empty() {
            self.emit(&mut emit);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = LINE_LIMIT - self.line.len();
        self.cut |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn emit(&mut self, emit: &mut impl FnMut(&[u8], bool)) {
        emit(&self.line, mem::take(&mut self.cut));
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let mut lines = Vec::new();
        let mut splitter = Splitter::default();
        let mut emit = |line: &[u8], cut| lines.push((clean(line), cut));
        for piece in pieces {
            splitter.push(piece, &mut emit);
        }
        splitter.finish(&mut emit);
        lines
    }

    #[test]
    fn lines_end_at_feeds_and_returns_wherever_the_pieces_end() {
        let text = b"one\ntwo\r\nthree\rfour\n\nsix";
        let whole = split(&[text]);
        let texts: Vec<_> = whole.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(texts, ["one", "two", "three", "four", "", "six"]);
        for cut in 0..text.len() {
            let (left, right) = text.split_at(cut);
            assert_eq!(split(&[left, right]), whole, "cut at {cut}");
        }
        assert_eq!(split(&[b"x\r", b"\r", b"\n"]), split(&[b"x\n\n"]));
    }

    #[test]
    fn long_lines_are_cut_once_and_cost_no_memory() {
        let flood = vec![b'x'; 3 * LINE_LIMIT];
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for _ in 0..100 {
            splitter.push(&flood, |_, _| unreachable!("no line has ended"));
            assert!(splitter.line.capacity() <= 2 * LINE_LIMIT);
        }
        splitter.push(b"tail\nnext\n", |line, cut| lines.push((line.len(), cut)));
        assert_eq!(lines, [(LINE_LIMIT, true), (4, false)]);
        assert!(!split(&[&flood[..LINE_LIMIT], b"\n"])[0].1, "exactly the limit is not too long");
    }

    #[test]
    fn lines_are_made_harmless() {
        assert_eq!(clean(b"a\tb\x1b[31m\x00\x07\x7f\xc2\x9bc"), "a\tb[31mc");
        assert_eq!(clean(b"\xff\xfeok \xe2\x82\xac"), "\u{fffd}\u{fffd}ok €");
    }

    #[test]
    fn metric_lines_are_told_from_others() {
        assert_eq!(metrics_of("[METRICS]a.ms:1|#L:v|#hostname:h,1"), Some("a.ms:1|#L:v|#hostname:h,1"));
        assert_eq!(metrics_of("INFO > [METRICS]x"), Some("x"));
        assert_eq!(metrics_of("see [METRICS]x"), None);
        assert_eq!(metrics_of("WARN > [METRICS]x"), None);
    }
}
