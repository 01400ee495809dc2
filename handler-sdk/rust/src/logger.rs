//! Log records on their way to the server.
//!
//! The facade is the `log` crate, because the libraries that handlers use write to it (or to `tracing`, which can): so the
//! records of tokenizers and model runtimes arrive with the handler's own, each with its level and its module.

use std::sync::Arc;

use log::{Level, LevelFilter, Log, Metadata, Record};
use zoo_proto::wire::event::{self, encode_log};

use crate::channel::Channel;

const MAX_TARGET: usize = 1024;
const MAX_MESSAGE: usize = 64 * 1024;

/// Sends each record at once: what a process said before it died is what one wants to read.
struct Logger(Arc<Channel>);

/// Sends records from `info` up over this link, unless the program has a logger already.
pub(crate) fn install(channel: &Arc<Channel>) {
    if log::set_boxed_logger(Box::new(Logger(channel.clone()))).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let log = encoded(record);
        self.0.outgoing(|out| encode_log(&log, out));
        if self.0.flush().is_err() {
            eprintln!("{}: {}", log.logger, log.message);
        }
    }

    fn flush(&self) {}
}

fn encoded(record: &Record<'_>) -> event::Log {
    let level = match record.level() {
        Level::Error => 40,
        Level::Warn => 30,
        Level::Info => 20,
        Level::Debug | Level::Trace => 10,
    };
    let mut message = record.args().to_string();
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    let target = record.target();
    event::Log { level, logger: target[..target.floor_char_boundary(MAX_TARGET)].to_owned(), message }
}
