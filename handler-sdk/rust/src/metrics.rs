//! What a handler measures: kept here, and sent once per batch, in front of its answers.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use zoo_proto::wire::Outbox;
use zoo_proto::wire::event::{self, MetricType, encode_metrics};
use zoo_proto::wire::frame::MAX_PAYLOAD;

/// The longest name, unit or value of a dimension; the rest is cut off.
const MAX_TEXT: usize = 4096;
/// The most dimensions of one metric; more are left out.
const MAX_DIMENSIONS: usize = 64;

/// A value that a handler reports, with the name, unit and dimensions that its metric has.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric(event::Metric);

impl Metric {
    fn new(kind: MetricType, name: &str, unit: &str, value: f64) -> Self {
        let (name, unit) = (cut(name), cut(unit));
        Self(event::Metric { name, unit, kind, value, request_ids: String::new(), dimensions: Vec::new() })
    }

    /// A value that is added to those before.
    pub fn counter(name: &str, unit: &str, value: f64) -> Self {
        Self::new(MetricType::Counter, name, unit, value)
    }

    /// A value that replaces the one before.
    pub fn gauge(name: &str, unit: &str, value: f64) -> Self {
        Self::new(MetricType::Gauge, name, unit, value)
    }

    /// A value that is counted into a bucket.
    pub fn histogram(name: &str, unit: &str, value: f64) -> Self {
        Self::new(MetricType::Histogram, name, unit, value)
    }

    /// The same value under one more dimension, beside `ModelName` and `Level`, which are there already.
    #[must_use]
    pub fn dimension(mut self, name: &str, value: &str) -> Self {
        if self.0.dimensions.len() < MAX_DIMENSIONS {
            self.0.dimensions.push((cut(name), cut(value)));
        }
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its value.
    pub fn value(&self) -> f64 {
        self.0.value
    }

    /// Its dimensions.
    pub fn dimensions(&self) -> &[(String, String)] {
        &self.0.dimensions
    }

    /// The ids of the requests it belongs to, joined by commas; empty until it is sent.
    pub fn request_ids(&self) -> &str {
        &self.0.request_ids
    }

    pub(crate) fn received(metric: event::Metric) -> Self {
        Self(metric)
    }

    /// Bytes that it takes in a frame, at most.
    fn encoded_len(&self) -> usize {
        let metric = &self.0;
        let dimensions: usize =
            metric.dimensions.iter().map(|(name, value)| 4 + name.len() + value.len()).sum();
        17 + metric.name.len() + metric.unit.len() + metric.request_ids.len() + dimensions
    }
}

/// Takes metrics from any thread.
pub struct Metrics {
    model: String,
    any: AtomicBool,
    waiting: Mutex<Vec<Metric>>,
}

impl Metrics {
    pub(crate) fn new(model: &str) -> Self {
        Self { model: cut(model), any: AtomicBool::new(false), waiting: Mutex::default() }
    }

    /// Reports a value. It belongs to the requests of the batch that is being handled.
    pub fn add(&self, mut metric: Metric) {
        let mut own =
            vec![("ModelName".to_owned(), self.model.clone()), ("Level".to_owned(), "Model".to_owned())];
        metric.0.dimensions.retain(|(name, _)| own.iter().all(|(own, _)| own != name));
        metric.0.dimensions.append(&mut own);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(metric);
        self.any.store(true, Ordering::Release);
    }

    /// Puts what was reported since the last time into frames.
    pub(crate) fn send<'a>(&self, request_ids: impl Iterator<Item = &'a str>, out: &mut Outbox) {
        if !self.any.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut metrics = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut ids = request_ids.collect::<Vec<_>>().join(",");
        ids.truncate(ids.floor_char_boundary(usize::from(u16::MAX)));
        for metric in &mut metrics {
            metric.0.request_ids.clone_from(&ids);
        }
        for frame in frames(metrics) {
            encode_metrics(&frame, out);
        }
    }
}

/// As many groups as it takes for each to fit a frame.
fn frames(metrics: Vec<Metric>) -> Vec<Vec<event::Metric>> {
    let mut frames = Vec::new();
    let mut frame = Vec::new();
    let mut size = 2;
    for metric in metrics {
        let more = metric.encoded_len();
        if size + more > MAX_PAYLOAD || frame.len() == usize::from(u16::MAX) {
            frames.push(std::mem::take(&mut frame));
            size = 2;
        }
        size += more;
        frame.push(metric.0);
    }
    frames.push(frame);
    frames
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("model", &self.model).finish_non_exhaustive()
    }
}
