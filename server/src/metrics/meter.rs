//! What is measured of one model version while it works. Made once for each version and held by its workers' common
//! floor, so that a request costs a few additions in memory that this thread has to itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::definition::{Definition, Kind};
use super::shards::{Buckets, Sharded, add};
use super::text::{Family, Sample};
use super::voice::Voice;
use super::{INFERENCE_LATENCY, INFERENCE_REQUESTS, QUEUE_LATENCY, QUEUE_TIME, WORKER_THREAD_TIME};

/// The bounds of durations, in microseconds.
const DURATIONS: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// The bounds of batch sizes.
const SIZES: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
/// The version of those who named none.
const DEFAULT: &str = "default";

/// What can be asked of a version at any time.
pub trait Watched: Send + Sync {
    /// Requests that wait.
    fn queued(&self) -> usize;
    /// Workers by state.
    fn workers(&self) -> Vec<(&'static str, usize)>;
}

/// The measuring of one model version.
pub struct Meter {
    model: String,
    version: String,
    shards: Sharded<Shard>,
    restarts: Mutex<BTreeMap<&'static str, u64>>,
    watched: Mutex<Option<Weak<dyn Watched>>>,
    voice: Arc<Voice>,
}

/// Pairs are for requests that named no version, and for those that did.
#[derive(Debug, Default)]
struct Shard {
    requests: [AtomicU64; 2],
    latency: [AtomicU64; 2],
    queued: [AtomicU64; 2],
    latency_buckets: Buckets<{ DURATIONS.len() }>,
    queued_buckets: Buckets<{ DURATIONS.len() }>,
    handler: AtomicU64,
    handler_buckets: Buckets<{ DURATIONS.len() }>,
    items: AtomicU64,
    size_buckets: Buckets<{ SIZES.len() }>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter")
            .field("model", &self.model)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Meter {
    pub(super) fn new(model: &str, version: &str, voice: Arc<Voice>) -> Self {
        Self {
            model: model.to_owned(),
            version: version.to_owned(),
            shards: Sharded::default(),
            restarts: Mutex::default(),
            watched: Mutex::default(),
            voice,
        }
    }

    /// Says whom to ask for what changes without being counted.
    pub fn watch(&self, watched: Weak<dyn Watched>) {
        *self.watched.lock() = Some(watched);
    }

    /// Whether the version is no more.
    pub(super) fn is_over(&self) -> bool {
        self.watched.lock().as_ref().is_some_and(|watched| watched.strong_count() == 0)
    }

    /// A request came. `named`: it named the version.
    pub fn asked(&self, named: bool) {
        add(&self.shards.mine().requests[usize::from(named)], 1);
        if self.voice.speaks() {
            self.voice.tell(INFERENCE_REQUESTS, 1.0, &[&self.model, self.label(named)]);
        }
    }

    /// A worker has answered a request, with the last piece if there were several. `lasted`: since it came into the
    /// queue; `handler_us`: the time that the handler took. The rest is waiting.
    pub fn answered(&self, named: bool, lasted: Duration, handler_us: u32) {
        let (shard, which) = (self.shards.mine(), usize::from(named));
        let lasted = micros(lasted);
        let queued = lasted.saturating_sub(handler_us.into());
        add(&shard.latency[which], lasted);
        add(&shard.queued[which], queued);
        shard.latency_buckets.count(&DURATIONS, lasted);
        shard.queued_buckets.count(&DURATIONS, queued);
        self.voice.queue_time.store(queued, Ordering::Relaxed);
        if self.voice.speaks() {
            let labels = [self.model.as_str(), self.label(named)];
            self.voice.tell(INFERENCE_LATENCY, lasted as f64, &labels);
            self.voice.tell(QUEUE_LATENCY, queued as f64, &labels);
            self.voice.tell(QUEUE_TIME, queued as f64 / 1e3, &["Host"]);
        }
    }

    /// A worker has got a batch.
    pub fn sent(&self, items: usize) {
        let shard = self.shards.mine();
        add(&shard.items, items as u64);
        shard.size_buckets.count(&SIZES, items as u64);
    }

    /// A batch is finished. `lasted`: since the worker had nothing else to do; `handler_us`: the handler's part.
    pub fn finished(&self, lasted: Duration, handler_us: u32) {
        let shard = self.shards.mine();
        add(&shard.handler, handler_us.into());
        shard.handler_buckets.count(&DURATIONS, handler_us.into());
        let overhead = micros(lasted).saturating_sub(handler_us.into());
        self.voice.worker_thread_time.store(overhead, Ordering::Relaxed);
        if self.voice.speaks() {
            self.voice.tell(WORKER_THREAD_TIME, overhead as f64 / 1e3, &["Host"]);
        }
    }

    /// A worker was lost and will be started again.
    pub fn restarts(&self, reason: &'static str) {
        *self.restarts.lock().entry(reason).or_default() += 1;
    }

    fn label(&self, named: bool) -> &str {
        if named { &self.version } else { DEFAULT }
    }

    /// Model and version as they are asked for, with the number of requests and the microseconds that they took and
    /// waited, for TorchServe's metrics.
    pub(super) fn totals(&self) -> [([&str; 2], [u64; 3]); 2] {
        [false, true].map(|named| {
            let (labels, which) = ([self.model.as_str(), self.label(named)], usize::from(named));
            let requests = self.shards.sum(|shard| &shard.requests[which]);
            let latency = self.shards.sum(|shard| &shard.latency[which]);
            let queued = self.shards.sum(|shard| &shard.queued[which]);
            (labels, [requests, latency, queued])
        })
    }

    fn labels(&self) -> Vec<String> {
        vec![self.model.clone(), self.version.clone()]
    }

    fn histogram<const N: usize>(
        &self,
        bounds: &[u64; N],
        scale: f64,
        buckets: impl Fn(&Shard) -> &Buckets<N>,
        sum: u64,
    ) -> Vec<Sample> {
        let counts: Vec<_> = (0..=N).map(|at| self.shards.sum(|shard| buckets(shard).at(at))).collect();
        let bounds = bounds.map(|bound| bound as f64 / scale);
        Sample::histogram(&self.labels(), &bounds, &counts, sum as f64 / scale)
    }

    fn pair(&self, of: impl Fn(&Shard) -> &[AtomicU64; 2]) -> u64 {
        [0, 1].map(|which| self.shards.sum(|shard| &of(shard)[which])).iter().sum()
    }

    fn samples(&self, name: &str) -> Vec<Sample> {
        const MICROS: f64 = 1e6;
        let watched = self.watched.lock().as_ref().and_then(Weak::upgrade);
        let with = |label: &str| [self.labels(), vec![label.to_owned()]].concat();
        match name {
            REQUEST_DURATION => {
                let sum = self.pair(|shard| &shard.latency);
                self.histogram(&DURATIONS, MICROS, |shard| &shard.latency_buckets, sum)
            }
            QUEUE_DURATION => {
                let sum = self.pair(|shard| &shard.queued);
                self.histogram(&DURATIONS, MICROS, |shard| &shard.queued_buckets, sum)
            }
            HANDLER_DURATION => {
                let sum = self.shards.sum(|shard| &shard.handler);
                self.histogram(&DURATIONS, MICROS, |shard| &shard.handler_buckets, sum)
            }
            BATCH_SIZE => {
                let sum = self.shards.sum(|shard| &shard.items);
                self.histogram(&SIZES, 1.0, |shard| &shard.size_buckets, sum)
            }
            QUEUE_DEPTH => watched
                .map(|watched| Sample::plain(self.labels(), watched.queued() as f64))
                .into_iter()
                .collect(),
            WORKERS => watched
                .map_or_else(Vec::new, |watched| watched.workers())
                .into_iter()
                .map(|(state, count)| Sample::plain(with(state), count as f64))
                .collect(),
            _ => {
                let restarts = self.restarts.lock();
                restarts.iter().map(|(reason, &count)| Sample::plain(with(reason), count as f64)).collect()
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

const REQUEST_DURATION: &str = "zoo_request_duration_seconds";
const QUEUE_DURATION: &str = "zoo_queue_duration_seconds";
const HANDLER_DURATION: &str = "zoo_handler_duration_seconds";
const BATCH_SIZE: &str = "zoo_batch_size";
const QUEUE_DEPTH: &str = "zoo_queue_depth";
const WORKERS: &str = "zoo_workers";
const RESTARTS: &str = "zoo_worker_restarts_total";

/// The metrics that TorchServe doesn't have, and their help texts.
pub(super) fn definitions() -> [(Definition, &'static str); 7] {
    use Kind::{Counter, Gauge, Histogram};
    let by_version = |name, kind, unit| Definition::new(name, kind, unit, &["model", "version"]);
    let and = |name, kind, label| Definition::new(name, kind, "Count", &["model", "version", label]);
    [
        (
            by_version(REQUEST_DURATION, Histogram, "Seconds"),
            "From a request's entering the queue to its answer by a worker.",
        ),
        (
            by_version(QUEUE_DURATION, Histogram, "Seconds"),
            "The part of a request's duration in which its handler didn't run.",
        ),
        (by_version(HANDLER_DURATION, Histogram, "Seconds"), "Calls of the handler, one for each batch."),
        (by_version(BATCH_SIZE, Histogram, "Count"), "Requests that a worker got at once."),
        (by_version(QUEUE_DEPTH, Gauge, "Count"), "Requests that wait for a worker."),
        (and(WORKERS, Gauge, "state"), "Workers by state."),
        (and(RESTARTS, Counter, "reason"), "Workers that were lost and are started again, by reason."),
    ]
}

/// The metrics that TorchServe doesn't have, of all versions.
pub(super) fn families(meters: &[Arc<Meter>]) -> Vec<Family> {
    let family = |(definition, help): (Definition, &str)| {
        let samples = meters.iter().flat_map(|meter| meter.samples(&definition.name)).collect();
        Family { help: help.to_owned(), ..definition.family(samples) }
    };
    definitions().into_iter().map(family).collect()
}
