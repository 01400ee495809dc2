//! The process of a worker: takes the link, loads the handler, runs batch after batch, leaves.
//!
//! There is no reader thread. The loop reads all that is readable before each batch, and sends answers when nothing else is on
//! hand or when they have waited for a millisecond of work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use zoo_proto::wire::answer::encode_bye;
use zoo_proto::wire::start::{Hello, LoadFailed, Loaded};

use crate::channel::{Channel, Halt, cut};
use crate::context::Context;
use crate::error::{LoadError, panic_text};
use crate::handler::Handler;
use crate::link::Link;
use crate::logger;
use crate::service::Service;

/// Work for which answers may wait to be sent together.
const HOLD: Duration = Duration::from_millis(1);
const HOLD_BYTES: usize = 64 * 1024;

/// How a worker that didn't fail has ended.
enum Ended {
    Drained,
    LoadFailed,
}

/// Serves a model with this handler: what `main` returns.
///
/// The process is started by the server, with the link to it as standard input. What the handler prints goes to the model's log.
/// Returns when the server says so, or when it is gone.
///
/// ```no_run
/// # use zoo_handler::{Answers, Batch, Context, Handler, LoadError};
/// # struct Upper;
/// # impl Handler for Upper {
/// #     fn load(_: &Context) -> Result<Self, LoadError> { Ok(Upper) }
/// #     fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> { batch.each(|request| Ok(request.to_bytes())) }
/// # }
/// fn main() -> std::process::ExitCode {
///     zoo_handler::serve::<Upper>()
/// }
/// ```
pub fn serve<H: Handler>() -> ExitCode {
    // A Ctrl-C in the server's terminal is the server's to handle. A flag that nobody reads is a signal that does nothing.
    if let Err(error) =
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::new(AtomicBool::new(false)))
    {
        eprintln!("zoo-handler: SIGINT can't be ignored: {error}");
    }
    let link = match Link::take_standard_input() {
        Ok(link) => link,
        Err(error) => {
            eprintln!(
                "zoo-handler: standard input is not the link to a server: {error}. Pack this program with \
                 `zoo-archiver --runtime native --handler` and let zoo-server start it; \
                 zoo_handler::testing runs a handler by itself."
            );
            return ExitCode::FAILURE;
        }
    };
    match run::<H>(link) {
        Ok(Ended::Drained) | Err(Halt::Closed) => ExitCode::SUCCESS,
        Ok(Ended::LoadFailed) => ExitCode::FAILURE,
        Err(Halt::Broken(why)) => {
            eprintln!("zoo-handler: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run<H: Handler>(link: Link) -> Result<Ended, Halt> {
    let channel = Arc::new(Channel::new(Some(link)));
    let name = concat!("zoo-handler ", env!("CARGO_PKG_VERSION"), " (Rust)").to_owned();
    channel.outgoing(|out| Hello { role: "worker".to_owned(), name, pid: process::id() }.encode(out));
    channel.flush()?;
    logger::install(&channel);
    let Some(context) = wait_for_load(&channel)? else { return leave(&channel) };
    let handler = match load::<H>(&context) {
        Ok(handler) => handler,
        Err(error) => return load_failed(&channel, &error),
    };
    let loaded = Loaded { concurrency: 1, signature: handler.signature(), describes: true };
    channel.outgoing(|out| {
        context.metrics().send(std::iter::empty(), out);
        loaded.encode(out);
    });
    channel.flush()?;
    let coalesce = context.load().coalesce;
    serve_batches(&channel, &mut Service::new(handler, context, channel.clone()), coalesce)?;
    leave(&channel)
}

/// `None` if the server wants the worker to leave instead.
fn wait_for_load(channel: &Channel) -> Result<Option<Context>, Halt> {
    let mut arrivals = channel.arrivals();
    loop {
        if let Some(load) = arrivals.take_load() {
            return Ok(Some(Context::new(load)));
        }
        if arrivals.draining() {
            return Ok(None);
        }
        channel.flush()?;
        channel.fill(&mut arrivals, true)?;
    }
}

/// Loads the handler; a panic is an error.
pub(crate) fn load<H: Handler>(context: &Context) -> Result<H, LoadError> {
    catch_unwind(AssertUnwindSafe(|| H::load(context))).unwrap_or_else(|panic| {
        Err(LoadError::new(format!(
            "the handler panicked while it was loaded: {}",
            panic_text(panic.as_ref())
        )))
    })
}

fn load_failed(channel: &Channel, error: &LoadError) -> Result<Ended, Halt> {
    log::error!("Failed to load the model: {error}");
    let message = cut(error.message().lines().next().unwrap_or("no reason given")).to_owned();
    let failed = LoadFailed { kind: error.kind, message, trace: String::new() };
    channel.outgoing(|out| failed.encode(out));
    channel.flush()?;
    Ok(Ended::LoadFailed)
}

fn leave(channel: &Channel) -> Result<Ended, Halt> {
    channel.outgoing(|out| encode_bye("", out));
    channel.flush()?;
    Ok(Ended::Drained)
}

fn serve_batches<H: Handler>(
    channel: &Channel,
    service: &mut Service<H>,
    coalesce: bool,
) -> Result<(), Halt> {
    let mut held_since: Option<Instant> = None; // when the oldest answer that waits was made
    let mut usual = Duration::ZERO; // what a batch takes, rather too long than too short
    let mut arrivals = channel.arrivals();
    loop {
        if arrivals.has_any() {
            channel.fill(&mut arrivals, false)?;
        }
        let batch = loop {
            if let Some(batch) = arrivals.begin() {
                break batch;
            }
            channel.flush()?;
            held_since = None;
            if arrivals.draining() && !arrivals.has_any() {
                return Ok(());
            }
            channel.fill(&mut arrivals, true)?;
        };
        drop(arrivals);
        let began = Instant::now();
        service.run(batch)?;
        let now = Instant::now();
        usual = (now - began).max(usual.mul_f32(0.9));
        let held = now - *held_since.get_or_insert(now);
        arrivals = channel.arrivals();
        arrivals.finish();
        let waiting = channel.outgoing(|out| out.len());
        if !coalesce || !arrivals.has_any() || waiting > HOLD_BYTES || held + usual > HOLD {
            channel.flush()?;
            held_since = None;
        }
    }
}
