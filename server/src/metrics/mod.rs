//! What the server measures of itself, what handlers report, and what the machine has left: kept here, and read by
//! Prometheus or from the log. Names, types and texts are TorchServe's, so that dashboards and scrape rules go on working.
//!
//! ```text
//! requests ─► Meter, one for each version ─┐
//! workers ──► Series, one for each metric ─┼─► text (port 8082)
//! machine ──► Series ──────────────────────┘   line (the log)
//! ```
//!
//! Knows no HTTP, no model and no worker, only their names.

mod definition;
mod host;
mod line;
mod meter;
mod number;
mod series;
mod shards;
mod text;
mod voice;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tracing::{error, warn};

pub use definition::{Definition, DefinitionError, Definitions, Kind};
pub use host::measure_host;
pub use line::Observation;
pub use meter::{Meter, Watched};
pub use text::CONTENT_TYPE;
pub use voice::Mode;

use definition::OWN_PREFIX;
use series::Series;
use shards::{Sharded, add};
use text::{Family, Sample};
use voice::{UNSET, Voice};

const RESPONSES: [&str; 3] = ["Requests2XX", "Requests4XX", "Requests5XX"];
const INFERENCE_REQUESTS: &str = "ts_inference_requests_total";
const INFERENCE_LATENCY: &str = "ts_inference_latency_microseconds";
const QUEUE_LATENCY: &str = "ts_queue_latency_microseconds";
const QUEUE_TIME: &str = "QueueTime";
const WORKER_THREAD_TIME: &str = "WorkerThreadTime";
const WORKER_LOAD_TIME: &str = "WorkerLoadTime";

/// Metrics that workers may bring along undeclared.
const MOST_DETECTED: usize = 1_000;
/// Versions that are remembered; beyond it those that are no more are forgotten.
const MOST_METERS: usize = 1_000;

/// What is decided once.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where metrics go.
    pub mode: Mode,
    /// Metrics of workers are kept even if nobody declared them.
    pub auto_detect: bool,
    /// The machine's name.
    pub hostname: String,
    /// Which metrics there are.
    pub definitions: Definitions,
}

/// All metrics of a server.
#[derive(Debug)]
pub struct Metrics {
    voice: Arc<Voice>,
    auto_detect: bool,
    responses: Sharded<[AtomicU64; RESPONSES.len()]>,
    meters: Mutex<BTreeMap<(String, String), Arc<Meter>>>,
    /// Those of the section `ts_metrics` that aren't counted elsewhere, by name.
    frontend: BTreeMap<String, Series>,
    /// What workers report, by name.
    model: RwLock<BTreeMap<String, Arc<Series>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl Metrics {
    /// Nothing measured yet.
    pub fn new(settings: Settings) -> Self {
        let Settings { mode, auto_detect, hostname, definitions } = settings;
        let series = |all: &[Definition]| {
            all.iter().map(|one| (one.name.clone(), Series::new(one.clone()))).collect::<BTreeMap<_, _>>()
        };
        let model = series(&definitions.model).into_iter().map(|(name, series)| (name, series.into()));
        Self {
            auto_detect,
            responses: Sharded::default(),
            meters: Mutex::default(),
            frontend: series(&definitions.frontend),
            model: RwLock::new(model.collect()),
            voice: Arc::new(Voice::new(mode, &hostname, definitions)),
        }
    }

    /// The section `model_metrics` as workers read it.
    pub fn model_section(&self) -> Value {
        self.voice.definitions.model_section()
    }

    /// Counts a response by its status.
    pub fn responded(&self, status: u16) {
        let class = match status {
            200..=299 => 0,
            400..=499 => 1,
            500..=599 => 2,
            _ => return,
        };
        add(&self.responses.mine()[class], 1);
        if self.voice.speaks() {
            self.voice.tell(RESPONSES[class], 1.0, &["Host"]);
        }
    }

    /// The meter of a version; the same one whenever a version of that name comes back, because counters only grow.
    pub fn meter(&self, model: &str, version: &str) -> Arc<Meter> {
        let mut meters = self.meters.lock();
        if meters.len() >= MOST_METERS {
            meters.retain(|_, meter| !meter.is_over());
        }
        let new = || Arc::new(Meter::new(model, version, self.voice.clone()));
        meters.entry((model.to_owned(), version.to_owned())).or_insert_with(new).clone()
    }

    /// A worker took so long to load its model.
    pub fn loaded(&self, worker: &str, took: Duration) {
        self.set(WORKER_LOAD_TIME, took.as_millis() as f64, &[worker, "Host"]);
    }

    /// Sets a metric of the server or the machine, if it is declared. `values`: of its dimensions but the machine's name.
    fn set(&self, name: &str, value: f64, values: &[&str]) {
        let Some(series) = self.frontend.get(name) else { return };
        // A file may have made it a counter; such a value can't be negative.
        let _ = series.take(values.iter().copied().chain([&*self.voice.hostname]), value);
        if self.voice.speaks() {
            self.voice.tell(name, value, values);
        }
    }

    /// Takes what follows the mark in a worker's `[METRICS]` line.
    pub fn observe_line(&self, worker: &str, line: &str) {
        match Observation::parse(line) {
            Some(observation) => self.observe(&observation),
            None => error!(worker, "Failed to parse metrics line: \"{line}\"."),
        }
    }

    /// Takes what a worker reports. What nobody declared is dropped, unless such metrics are wanted.
    pub fn observe(&self, said: &Observation<'_>) {
        let known = self.model.read().get(said.name).cloned();
        let Some(series) = known.or_else(|| self.detect(said)) else { return };
        if let Err(problem) = self.take(&series, said) {
            if series.complains() {
                warn!(metric = said.name, "values of a handler's metric are dropped: {problem}");
            }
            return;
        }
        self.voice.repeat(&series.definition, said);
    }

    fn take(&self, series: &Series, said: &Observation<'_>) -> Result<(), String> {
        let hostname = said.hostname.unwrap_or(&self.voice.hostname);
        // The last one is the machine.
        let labels = series.definition.dimensions.split_last().map_or(&[][..], |(_, labels)| labels);
        let named = |label: &str| said.dimensions.iter().find(|(name, _)| *name == label);
        let by_name = labels.iter().all(|label| named(label).is_some());
        if !by_name && labels.len() != said.dimensions.len() {
            return Err(format!("{} dimensions, and it has {}", said.dimensions.len(), labels.join(", ")));
        }
        let values = labels.iter().zip(0..).map(|(label, at)| {
            let found = if by_name { named(label) } else { said.dimensions.get::<usize>(at) };
            found.map_or("", |(_, value)| value)
        });
        if !said.value.is_finite() {
            return Err("it is no finite number".to_owned());
        }
        series.take(values.chain([hostname]), said.value).map_err(|refusal| match refusal {
            series::Refusal::Negative => "a counter can't be changed by a negative value".to_owned(),
            series::Refusal::Crowded => "too many different values of its dimensions".to_owned(),
        })
    }

    /// Makes a metric of what nobody declared, if that is wanted and possible.
    fn detect(&self, said: &Observation<'_>) -> Option<Arc<Series>> {
        if !self.auto_detect || self.frontend.contains_key(said.name) || said.name.starts_with(OWN_PREFIX) {
            return None;
        }
        let dimensions: Vec<_> = said.dimensions.iter().map(|(name, _)| *name).collect();
        let definition = Definition::new(said.name, said.kind, said.unit, &dimensions).with_hostname();
        let mut model = self.model.write();
        if definition.problem().is_some() || model.len() >= MOST_DETECTED {
            return None;
        }
        let new = || Arc::new(Series::new(definition));
        Some(model.entry(said.name.to_owned()).or_insert_with(new).clone())
    }

    /// Everything in Prometheus' text format; only the lines of these names, if there are any.
    pub fn text(&self, names: &[String]) -> String {
        let meters: Vec<_> = self.meters.lock().values().cloned().collect();
        let frontend = self.voice.definitions.frontend.iter().map(|one| self.frontend_family(one, &meters));
        let mut families: Vec<_> = frontend.collect();
        families.extend(self.model.read().values().map(|series| series.family()));
        families.extend(meter::families(&meters));
        families.retain(|family| self.voice.mode.shows(&family.name));
        text::render(&families, names)
    }

    fn frontend_family(&self, definition: &Definition, meters: &[Arc<Meter>]) -> Family {
        let host =
            |value: f64| Sample::plain(vec!["Host".to_owned(), self.voice.hostname.to_string()], value);
        let gauge = |micros: &AtomicU64| {
            let micros = micros.load(Ordering::Relaxed);
            (micros != UNSET).then(|| host(micros as f64 / 1e3)).into_iter().collect()
        };
        let name = definition.name.as_str();
        let samples = match name {
            QUEUE_TIME => gauge(&self.voice.queue_time),
            WORKER_THREAD_TIME => gauge(&self.voice.worker_thread_time),
            INFERENCE_REQUESTS => self.by_version(meters, 0),
            INFERENCE_LATENCY => self.by_version(meters, 1),
            QUEUE_LATENCY => self.by_version(meters, 2),
            _ => match RESPONSES.iter().position(|&class| class == name) {
                Some(class) => match self.responses.sum(|classes| &classes[class]) {
                    0 => vec![],
                    count => vec![host(count as f64)],
                },
                None => {
                    return self.frontend.get(name).map_or_else(|| definition.family(vec![]), Series::family);
                }
            },
        };
        definition.family(samples)
    }

    /// Of all versions that are asked for by the same words, one sample. `which`: the place in [`Meter::totals`].
    fn by_version(&self, meters: &[Arc<Meter>], which: usize) -> Vec<Sample> {
        let mut totals: BTreeMap<[&str; 2], u64> = BTreeMap::new();
        for meter in meters {
            for (labels, numbers) in meter.totals() {
                if numbers[0] > 0 {
                    *totals.entry(labels).or_default() += numbers[which];
                }
            }
        }
        let sample = |([model, version], total): ([&str; 2], u64)| {
            let values = vec![model.to_owned(), version.to_owned(), self.voice.hostname.to_string()];
            Sample::plain(values, total as f64)
        };
        totals.into_iter().map(sample).collect()
    }
}

#[cfg(test)]
mod tests;
