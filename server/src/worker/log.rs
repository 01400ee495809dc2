//! Where the words of workers go: into the log, under TorchServe's names for its parts.

use zoo_proto::wire::event::{Log, Metric};

use super::exchange::Sink;
use super::output::{LineSink, Stream};

/// The log part that holds what models write.
pub const MODEL_LOG: &str = "MODEL_LOG";
/// The log part that holds what models measure.
pub const MODEL_METRICS: &str = "MODEL_METRICS";

/// Sends everything to `tracing`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelLog;

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
        tracing::info!(target: MODEL_METRICS, worker, "{metrics}");
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
            tracing::info!(target: MODEL_METRICS, "{}", torchserve_form(&metric));
        }
    }
}

/// `Name.Unit:value|#Dimension:value,…|#requestID:…`
fn torchserve_form(metric: &Metric) -> String {
    let dimensions: Vec<_> =
        metric.dimensions.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    let mut line = format!("{}.{}:{:?}|#{}", metric.name, metric.unit, metric.value, dimensions.join(","));
    if !metric.request_ids.is_empty() {
        line.push_str("|#requestID:");
        line.push_str(&metric.request_ids);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use zoo_proto::wire::event::MetricType;

    #[test]
    fn a_metric_looks_as_in_torchserve() {
        let metric = Metric {
            name: "HandlerTime".into(),
            unit: "Milliseconds".into(),
            kind: MetricType::Gauge,
            value: 2.0,
            request_ids: "a,b".into(),
            dimensions: vec![("ModelName".into(), "mnist".into()), ("Level".into(), "Model".into())],
        };
        let line = "HandlerTime.Milliseconds:2.0|#ModelName:mnist,Level:Model|#requestID:a,b";
        assert_eq!(torchserve_form(&metric), line);
    }
}
