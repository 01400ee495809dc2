//! The task that owns one worker: it launches the process, has it load the model, gives it work, and buries it when it is lost.
//!
//! [`super::state::Life`] decides what comes next; each step here does one thing and reports what happened.

use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zoo_proto::wire::event::{decode_log, decode_metrics};
use zoo_proto::wire::start::{Hello, LoadFailed, Loaded};
use zoo_proto::wire::{Frame, Incoming, Kind, WireError};

use super::context::WorkerContext;
use super::exchange::{Ended, Exchange, Terms};
use super::floor::Floor;
use super::gpu::Assigned;
use super::link::{Filled, Link};
use super::loss::{Circumstances, Loss, settle_lost};
use super::orders::{Order, Orders};
use super::output::{KeptLine, Output, Stream};
use super::process::{Exit, Process};
use super::runtime;
use super::state::{Event, Life, Next, WorkerState};
use super::status::Board;
use super::window::Window;
use crate::model::ModelSpec;
use crate::name::WorkerName;

/// How long a process whose link has ended may take to exit by itself, so that its exit status tells something.
const LAST_BREATH: Duration = Duration::from_millis(250);
/// Between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// Lines of a worker's output that are kept with the reason of its loss.
const REASON_LINES: usize = 20;

/// What an owner is made of.
pub(super) struct Owner {
    pub(super) name: WorkerName,
    pub(super) spec: Arc<ModelSpec>,
    pub(super) context: Arc<WorkerContext>,
    pub(super) floor: Arc<Floor>,
    pub(super) board: Arc<Board>,
    pub(super) orders: Orders,
    /// The device that its processes use, one after the other.
    pub(super) assigned: Assigned,
}

/// A process and what is being said with it.
struct Live {
    process: Process,
    output: Output,
    talk: Talk,
}

enum Talk {
    /// It is being started.
    Starting(Box<Link<UnixStream>>),
    /// It serves.
    Serving(Box<Exchange<UnixStream>>),
}

impl Owner {
    /// Lives the worker's life to its end.
    pub(super) async fn run(self) {
        let _counted = self.context.count_in();
        let mut life = Life::new(jitter());
        let mut live: Option<Live> = None;
        let mut next = life.next();
        while next != Next::Finish {
            let event = match next {
                Next::Launch => self.launch(&mut live).await,
                Next::Load => self.load(&mut live).await,
                Next::Serve => self.serve(&mut live).await,
                Next::Drain => self.drain(&mut live).await,
                Next::Wait(wait) => self.back_off(wait).await,
                Next::Rest => {
                    self.orders.dismissed().await;
                    Ok(Event::Dismissed)
                }
                Next::Finish => break,
            };
            let (event, reason) = match event {
                Ok(event) => (event, None),
                Err(loss) => {
                    let event = Event::Lost { by_nature: loss.is_by_nature() };
                    (event, Some(self.bury(live.take(), loss).await))
                }
            };
            next = self.move_on(&mut life, event, reason);
        }
        self.floor.queue.leave(self.name.id);
        if let Some(live) = live {
            self.end(live).await;
        }
        self.board.update(|published| published.pid = None);
    }

    /// Enters the next state and publishes it.
    fn move_on(&self, life: &mut Life, event: Event, reason: Option<Buried>) -> Next {
        let (before, failing) = (life.state(), life.failing_since());
        let next = life.on(event, Instant::now());
        let after = life.state();
        if let Some(Buried { word, out_of_memory, .. }) = &reason
            && after == WorkerState::BackingOff
        {
            self.floor.meter.restarts(if *out_of_memory { "memory" } else { word });
        }
        if before == WorkerState::Ready && after != WorkerState::Ready {
            self.floor.leave();
        }
        self.board.update(|published| {
            published.state = after;
            published.failing_since = life.failing_since();
            if let Some(Buried { reason, out_of_memory, .. }) = reason {
                published.pid = None;
                published.last_failure = Some(reason);
                published.out_of_memory = out_of_memory;
            }
        });
        if before != WorkerState::Ready && after == WorkerState::Ready {
            self.floor.enter();
        }
        self.tell(before, after, failing.is_some(), next);
        next
    }

    /// TorchServe's log lines about its recovery; tests and alarms look for them.
    fn tell(&self, before: WorkerState, after: WorkerState, was_failing: bool, next: Next) {
        let worker = &self.name;
        tracing::debug!(%worker, "state change {before} -> {after}");
        match (after, next) {
            (WorkerState::BackingOff, Next::Wait(wait)) => {
                if was_failing {
                    tracing::info!(%worker, "Auto recovery failed again");
                } else {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    tracing::info!(%worker, "Auto recovery start timestamp: {}", now.as_millis());
                }
                tracing::info!(%worker, "Retry worker: {} in {} seconds.", worker.id, wait.as_secs());
            }
            (WorkerState::Ready, _) if was_failing => {
                tracing::info!(%worker, "Auto recovery succeeded, reset recoveryStartTS");
            }
            (WorkerState::Failed, _) => {
                tracing::error!(%worker, "the archive can't be loaded; the worker is not tried again");
            }
            _ => {}
        }
    }

    /// Makes the process and exchanges greetings.
    async fn launch(&self, live: &mut Option<Live>) -> Result<Event, Loss> {
        let deadline = Instant::now() + self.spec.options.startup_timeout;
        self.board.update(|published| published.started = SystemTime::now());
        let launch = runtime::launch_spec(&self.context, &self.spec, &self.name, &self.assigned)
            .map_err(Loss::Launch)?;
        let launched = tokio::select! {
            () = self.orders.dismissed() => return Ok(Event::Dismissed),
            launched = self.context.launcher.launch(launch) => launched.map_err(|error| Loss::Launch(error.to_string()))?,
        };
        let pid = launched.process.id();
        self.board.update(|published| published.pid = Some(pid));
        let output = Output::read(
            &self.name.to_string(),
            launched.stdout,
            launched.stderr,
            &self.context.settings.lines,
        );
        let stream = UnixStream::from_std(launched.link).map_err(|error| Loss::Link(error.to_string()))?;
        let mut link = Link::new(stream);
        greeting().encode(&mut link.outbox);
        let live =
            live.insert(Live { process: launched.process, output, talk: Talk::Starting(Box::new(link)) });
        let Some(frame) = self.hear(live, "greeting", deadline).await? else { return Ok(Event::Dismissed) };
        if frame.kind != Kind::Hello {
            return Err(WireError::Unexpected { kind: frame.kind, during: "waiting for its greeting" }.into());
        }
        let hello = Hello::decode(&frame)?;
        tracing::info!(worker = %self.name, pid, "{} says hello", hello.name);
        Ok(Event::Launched)
    }

    /// Has the model loaded.
    async fn load(&self, live: &mut Option<Live>) -> Result<Event, Loss> {
        let Some(Live { talk: Talk::Starting(link), .. }) = live else { return Err(Loss::Gone) };
        let deadline = Instant::now() + self.spec.options.startup_timeout;
        runtime::load(&self.context, &self.spec, &self.name, &self.assigned).encode(&mut link.outbox);
        let Some(being) = live else { return Err(Loss::Gone) };
        let Some(frame) = self.hear(being, "loaded model", deadline).await? else {
            return Ok(Event::Dismissed);
        };
        let loaded = match frame.kind {
            Kind::Loaded => Loaded::decode(&frame)?,
            Kind::LoadFailed => return Err(Loss::Load(LoadFailed::decode(&frame)?)),
            kind => return Err(WireError::Unexpected { kind, during: "waiting for the model" }.into()),
        };
        // A clock that was set back has measured nothing.
        let took = self.board.read().started.elapsed().unwrap_or_default();
        self.context.settings.metrics.loaded(&self.name.to_string(), took);
        *live = live.take().map(|live| self.begin_serving(live, &loaded));
        Ok(Event::Loaded)
    }

    fn begin_serving(&self, live: Live, loaded: &Loaded) -> Live {
        let Live { process, output, talk } = live;
        let talk = match talk {
            Talk::Starting(link) => Talk::Serving(Box::new(Exchange::new(
                self.terms(loaded),
                *link,
                self.floor.clone(),
                self.orders.clone(),
                self.context.settings.sink.clone(),
            ))),
            serving @ Talk::Serving(_) => serving,
        };
        Live { process, output, talk }
    }

    fn terms(&self, loaded: &Loaded) -> Terms {
        let options = &self.spec.options;
        Terms {
            worker: self.name.id,
            window: Window {
                concurrency: loaded.concurrency.max(1) as usize,
                strict: !options.retry_on_worker_death,
                batching: options.batch_size > 1,
            },
            response_timeout: options.response_timeout,
            max_response_bytes: self.context.settings.max_response_bytes,
        }
    }

    /// The next frame of a worker that is being started; `None` if it is no longer wanted.
    async fn hear(
        &self,
        live: &mut Live,
        what: &'static str,
        deadline: Instant,
    ) -> Result<Option<Frame>, Loss> {
        let Live { process, talk: Talk::Starting(link), .. } = live else { return Err(Loss::Gone) };
        let sink = self.context.settings.sink.as_ref();
        let hearing = poll_fn(|cx| {
            loop {
                match poll_frame(link, process, cx) {
                    Poll::Ready(Ok(frame)) if frame.kind == Kind::Log => sink.log(decode_log(&frame)?),
                    Poll::Ready(Ok(frame)) if frame.kind == Kind::Metric => {
                        sink.metrics(decode_metrics(&frame)?);
                    }
                    other => return other,
                }
            }
        });
        tokio::select! {
            () = self.orders.dismissed() => Ok(None),
            heard = timeout_at(deadline, hearing) => match heard {
                Ok(frame) => frame.map(Some),
                Err(_) => Err(Loss::TooSlow { what, waited: self.spec.options.startup_timeout }),
            },
        }
    }

    /// Gives it work until it is lost or no longer wanted.
    async fn serve(&self, live: &mut Option<Live>) -> Result<Event, Loss> {
        let Some(Live { process, talk: Talk::Serving(exchange), .. }) = live else { return Err(Loss::Gone) };
        poll_fn(|cx| {
            if let Order::LeaveBy(_) = self.orders.poll(cx) {
                return Poll::Ready(Ok(Event::Dismissed));
            }
            exchange.poll(cx, &mut |cx| process.poll_exited(cx).is_ready()).map(ended)
        })
        .await
    }

    /// Lets it finish what it has begun, as long as the order allows.
    async fn drain(&self, live: &mut Option<Live>) -> Result<Event, Loss> {
        let Some(Live { process, talk: Talk::Serving(exchange), .. }) = live else {
            return Ok(Event::Drained);
        };
        let mut limit = Box::pin(sleep(Duration::ZERO));
        poll_fn(|cx| {
            if let Poll::Ready(over) = exchange.poll(cx, &mut |cx| process.poll_exited(cx).is_ready()) {
                return Poll::Ready(ended(over));
            }
            if let Order::LeaveBy(deadline) = self.orders.poll(cx) {
                limit.as_mut().reset(deadline);
            }
            limit.as_mut().poll(cx).map(|()| Err(Loss::Overdue))
        })
        .await
    }

    async fn back_off(&self, wait: Duration) -> Result<Event, Loss> {
        tokio::select! {
            () = self.orders.dismissed() => Ok(Event::Dismissed),
            () = sleep(wait) => Ok(Event::BackedOff),
        }
    }

    /// Ends a lost worker's process, settles what it had, and writes down why.
    async fn bury(&self, live: Option<Live>, loss: Loss) -> Buried {
        let Some(Live { mut process, output, talk }) = live else {
            tracing::error!(worker = %self.name, "Backend worker error: {loss}");
            return Buried { word: loss.word(), reason: loss.to_string(), out_of_memory: loss.is_memory() };
        };
        if loss == Loss::Gone || loss.is_by_nature() || matches!(loss, Loss::Load(_)) {
            // It is ending by itself; how it does is worth knowing.
            let _ = timeout(LAST_BREATH, process.exited()).await;
        } else if loss == Loss::Overdue {
            process.stop(TERM_GRACE).await;
        }
        process.kill_group();
        let exit = process.reap().await;
        let out_of_memory = exit.out_of_memory || loss.is_memory();
        if let Talk::Serving(mut exchange) = talk {
            self.settle(&mut exchange, &loss, out_of_memory);
        }
        let kept = output.finish().await;
        let reason = reason(&loss, exit, &kept);
        self.report(&loss, &reason);
        Buried { word: loss.word(), reason, out_of_memory }
    }

    fn settle(&self, exchange: &mut Exchange<UnixStream>, loss: &Loss, memory: bool) {
        let options = &self.spec.options;
        let circumstances = Circumstances {
            retry: options.retry_on_worker_death && !options.asynchronous,
            unresponsive: matches!(loss, Loss::TooSlow { .. } | Loss::Overdue),
            memory,
        };
        self.floor.queue.leave(self.name.id);
        let again = settle_lost(exchange.take_all(), circumstances);
        if !again.is_empty() {
            tracing::info!(worker = %self.name, requests = again.len(), "requests of the lost worker are tried again");
            self.floor.queue.put_back(again);
        }
    }

    fn report(&self, loss: &Loss, reason: &str) {
        let worker = &self.name;
        match loss {
            Loss::TooSlow { .. } => tracing::error!(
                %worker,
                "Backend worker error\norg.pytorch.serve.wlm.WorkerInitializationException: \
                 Backend worker did not respond in given time\n{reason}"
            ),
            Loss::Gone | Loss::Link(_) => tracing::error!(%worker, "Worker disconnected. {reason}"),
            Loss::Overdue => tracing::warn!(%worker, "worker stopped: {reason}"),
            Loss::Launch(_) | Loss::Load(_) | Loss::Protocol(_) => {
                tracing::error!(%worker, "Backend worker error: {reason}");
            }
        }
    }

    /// Ends the process of a worker that is no longer wanted.
    async fn end(&self, live: Live) {
        let Live { mut process, output, talk } = live;
        // The link ends first: a worker that waits for work leaves by itself.
        if let Talk::Serving(mut exchange) = talk {
            let circumstances = Circumstances { retry: true, unresponsive: true, memory: false };
            self.floor.queue.put_back(settle_lost(exchange.take_all(), circumstances));
        }
        process.stop(TERM_GRACE).await;
        let exit = process.reap().await;
        output.finish().await;
        tracing::info!(worker = %self.name, "worker stopped: {exit}");
    }
}

/// Why a worker was lost, as it is shown.
struct Buried {
    /// For counting.
    word: &'static str,
    reason: String,
    out_of_memory: bool,
}

fn ended(ended: Ended) -> Result<Event, Loss> {
    match ended {
        Ended::Drained => Ok(Event::Drained),
        Ended::Lost(loss) => Err(loss),
    }
}

fn greeting() -> Hello {
    Hello {
        role: "server".into(),
        name: concat!("zoo-server ", env!("CARGO_PKG_VERSION")).into(),
        pid: std::process::id(),
    }
}

/// The next frame, whatever it is.
fn poll_frame(
    link: &mut Link<UnixStream>,
    process: &mut Process,
    cx: &mut Context<'_>,
) -> Poll<Result<Frame, Loss>> {
    // A link that is closed for writing may still hold an answer, e.g. why the model couldn't be loaded.
    let _ = link.poll_flush(cx);
    loop {
        match link.next()? {
            Some(Incoming::Frame(frame)) => return Poll::Ready(Ok(frame)),
            Some(Incoming::Body { item, .. }) => {
                return Poll::Ready(Err(WireError::UnknownItem { kind: Kind::Body, item }.into()));
            }
            None => {}
        }
        match link.poll_fill(cx) {
            Poll::Ready(Ok(Filled::Some)) => {}
            Poll::Ready(Ok(Filled::End) | Err(_)) => return Poll::Ready(Err(Loss::Gone)),
            // Everything that it sent has been read; a grandchild may hold the link open.
            Poll::Pending if process.poll_exited(cx).is_ready() => return Poll::Ready(Err(Loss::Gone)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

fn reason(loss: &Loss, exit: Exit, kept: &[KeptLine]) -> String {
    let mut reason = format!("{loss} ({exit})");
    if matches!(loss, Loss::Load(LoadFailed { trace, .. }) if !trace.is_empty()) {
        // The traceback says it all; the worker has written it to its output too.
        return reason;
    }
    // What it wrote to standard error is likely the reason; what it printed only if there is nothing else.
    let stream = if kept.iter().any(|line| line.stream == Stream::Err) { Stream::Err } else { Stream::Out };
    let lines: Vec<_> = kept.iter().filter(|line| line.stream == stream).collect();
    for line in &lines[lines.len().saturating_sub(REASON_LINES)..] {
        reason.push_str("\n  ");
        reason.push_str(&line.text);
    }
    reason
}

/// Spreads the restarts of workers that were lost together; nothing depends on its quality.
fn jitter() -> f64 {
    (RandomState::new().hash_one(()) >> 11) as f64 / (1_u64 << 53) as f64
}
