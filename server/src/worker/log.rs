//! Where the words of workers go: into the log, under TorchServe's name for its part, and metrics among the metrics.

use std::sync::Arc;

use zoo_proto::wire::event::{Log, Metric, MetricType};

use super::exchange::Sink;
use super::output::{LineSink, Stream};
use crate::metrics::{Kind, Metrics, Observation};

/// The log part that holds what models write.
pub const MODEL_LOG: &str = "MODEL_LOG";

/// Sends words to `tracing`, and numbers to the metrics.
#[derive(Debug, Clone, Default)]
pub struct ModelLog {
    metrics: Arc<Metrics>,
}

impl ModelLog {
    /// One for all workers.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl LineSink for ModelLog {
    fn line(&self, worker: &str, stream: Stream, line: &str) {
        match stream {
            Stream::Out => {
                tracing::info!(target: MODEL_LOG, worker = format_args!("{worker}-stdout"), "{line}");
            }
            Stream::Err => {
                tracing::warn!(target: MODEL_LOG, worker = format_args!("{worker}-stderr"), "{line}");
            }
        }
    }

    fn metrics(&self, worker: &str, metrics: &str) {
        self.metrics.observe_line(worker, metrics);
    }
}

impl Sink for ModelLog {
    fn log(&self, log: Log) {
        let Log { level, logger, message } = log;
        match level {
            0..=19 => tracing::debug!(target: MODEL_LOG, logger, "{message}"),
            20..=29 => tracing::info!(target: MODEL_LOG, logger, "{message}"),
            30..=39 => tracing::warn!(target: MODEL_LOG, logger, "{message}"),
            _ => tracing::error!(target: MODEL_LOG, logger, "{message}"),
        }
    }

    fn metrics(&self, metrics: Vec<Metric>) {
        for metric in metrics {
            self.metrics.observe(&observation(&metric));
        }
    }
}

fn observation(metric: &Metric) -> Observation<'_> {
    Observation {
        name: &metric.name,
        unit: &metric.unit,
        kind: match metric.kind {
            MetricType::Counter => Kind::Counter,
            MetricType::Gauge => Kind::Gauge,
            MetricType::Histogram => Kind::Histogram,
        },
        value: metric.value,
        dimensions: metric.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        hostname: None,
        timestamp: None,
        request_ids: &metric.request_ids,
    }
}
