//! Whether and how metrics are said in the log, and what all meters have in common.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tracing::{Level, enabled, info};

use super::definition::{Definition, Definitions, OWN_PREFIX};
use super::line::{Entry, Observation};
use super::{INFERENCE_LATENCY, INFERENCE_REQUESTS, QUEUE_LATENCY};

/// The log part that holds what the server measures.
const TS_METRICS: &str = "TS_METRICS";
/// The log part that holds what models measure.
const MODEL_METRICS: &str = "MODEL_METRICS";
/// What a gauge holds that was never set.
pub(super) const UNSET: u64 = u64::MAX;

/// Where metrics go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// To the log, and to Prometheus.
    Log,
    /// To Prometheus only.
    #[default]
    Prometheus,
    /// TorchServe's three `ts_` counters to Prometheus, its others to the log.
    Legacy,
}

impl Mode {
    /// The mode that a word stands for.
    pub fn of(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "log" => Some(Self::Log),
            "prometheus" => Some(Self::Prometheus),
            "legacy" => Some(Self::Legacy),
            _ => None,
        }
    }

    /// Whether Prometheus sees this metric.
    pub(super) fn shows(self, name: &str) -> bool {
        let always = [INFERENCE_REQUESTS, INFERENCE_LATENCY, QUEUE_LATENCY].contains(&name);
        self != Self::Legacy || always || name.starts_with(OWN_PREFIX)
    }

    fn logs(self, name: &str) -> bool {
        self == Self::Log || !self.shows(name)
    }
}

/// What speaks of metrics.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) mode: Mode,
    pub(super) hostname: Arc<str>,
    pub(super) definitions: Definitions,
    /// Microseconds that the latest request waited.
    pub(super) queue_time: AtomicU64,
    /// Microseconds that the latest batch took beside its handler.
    pub(super) worker_thread_time: AtomicU64,
}

impl Voice {
    pub(super) fn new(mode: Mode, hostname: &str, definitions: Definitions) -> Self {
        Self {
            mode,
            hostname: hostname.into(),
            definitions,
            queue_time: AtomicU64::new(UNSET),
            worker_thread_time: AtomicU64::new(UNSET),
        }
    }

    /// Whether there is any use in telling: decided before a text is made.
    pub(super) fn speaks(&self) -> bool {
        self.mode != Mode::Prometheus && enabled!(target: TS_METRICS, Level::INFO)
    }

    /// Logs a metric of the server. `values`: of its dimensions, but the last, which is the machine.
    pub(super) fn tell(&self, name: &str, value: f64, values: &[&str]) {
        let declared = self.definitions.frontend.iter().find(|definition| definition.name == name);
        let Some(definition) = declared.filter(|_| self.mode.logs(name)) else { return };
        let dimensions = definition.dimensions.iter().map(String::as_str).zip(values.iter().copied());
        let line = self.entry(definition, value).line(dimensions);
        info!(target: TS_METRICS, "{line}");
    }

    /// Logs a metric of a worker.
    pub(super) fn repeat(&self, definition: &Definition, said: &Observation<'_>) {
        if self.mode.logs(&definition.name) && enabled!(target: MODEL_METRICS, Level::INFO) {
            let mut entry = self.entry(definition, said.value);
            entry.hostname = said.hostname.unwrap_or(entry.hostname);
            (entry.request_ids, entry.timestamp) = (said.request_ids, said.timestamp);
            let line = entry.line(said.dimensions.iter().copied());
            info!(target: MODEL_METRICS, "{line}");
        }
    }

    fn entry<'a>(&'a self, definition: &'a Definition, value: f64) -> Entry<'a> {
        Entry {
            name: &definition.name,
            unit: &definition.unit,
            value,
            hostname: &self.hostname,
            request_ids: "",
            timestamp: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_say_who_sees_what() {
        for (mode, name, shows, logs) in [
            (Mode::Log, "QueueTime", true, true),
            (Mode::Log, QUEUE_LATENCY, true, true),
            (Mode::Prometheus, "QueueTime", true, false),
            (Mode::Prometheus, QUEUE_LATENCY, true, false),
            (Mode::Legacy, "QueueTime", false, true),
            (Mode::Legacy, "HandlerTime", false, true),
            (Mode::Legacy, INFERENCE_REQUESTS, true, false),
            (Mode::Legacy, INFERENCE_LATENCY, true, false),
            (Mode::Legacy, QUEUE_LATENCY, true, false),
            (Mode::Legacy, "zoo_workers", true, false),
        ] {
            assert_eq!((mode.shows(name), mode.logs(name)), (shows, logs), "{mode:?} {name}");
        }
    }

    #[test]
    fn modes_have_names() {
        let modes = ["log", "PROMETHEUS", "legacy", "other"].map(Mode::of);
        assert_eq!(modes, [Some(Mode::Log), Some(Mode::Prometheus), Some(Mode::Legacy), None]);
    }
}
