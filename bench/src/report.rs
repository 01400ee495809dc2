//! The result of one run, as it is written out: field names carry their unit, so the JSON explains itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// What one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Address that the requests went to.
    pub target: String,
    /// Connections in the closed loop.
    pub clients: usize,
    /// Size of each request's body.
    pub body_bytes: usize,
    /// Load before the window.
    pub warm_up_s: f64,
    /// The measured window.
    pub duration_s: f64,
    /// Right answers inside the window.
    pub requests: u64,
    /// Right answers per second of the window.
    pub requests_per_s: f64,
    /// Latencies of the right answers; absent when there was none.
    pub latency_us: Option<Latency>,
    /// Failures of the whole run, warm-up included.
    pub failed: u64,
    /// The same by kind.
    pub failures: BTreeMap<String, u64>,
    /// The first failure in words.
    pub first_failure: Option<String>,
    /// What the load generator itself used.
    pub generator: Generator,
    /// What the measured server used; absent when no process was named.
    pub server: Option<Server>,
    /// CPU time of all other programs inside the window, in cores: how far the result can be trusted. Absent
    /// when no process was named, as the server would count as another program.
    pub others_cores: Option<f64>,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean: f64,
    /// Half of the requests were faster.
    pub p50: f64,
    /// Nine of ten were faster.
    pub p90: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
    /// 999 of 1 000 were faster.
    pub p999: f64,
    /// The slowest one.
    pub max: f64,
}

/// What the load generator used, to show that it isn't what limits the result.
#[derive(Debug, Clone, Serialize)]
pub struct Generator {
    /// CPU time inside the window.
    pub cpu_s: f64,
    /// The same as a share of one core; the generator has one thread, so 1 would mean that it is the limit.
    pub core_share: f64,
}

/// What the measured server's process tree used.
#[derive(Debug, Clone, Serialize)]
pub struct Server {
    /// Processes alive at the window's end.
    pub processes: usize,
    /// CPU time inside the window.
    pub cpu_s: f64,
    /// CPU time per 1 000 right answers; absent when there was none.
    pub cpu_s_per_1000: Option<f64>,
    /// Resident memory at the window's end, shared pages counted in each process.
    pub rss_bytes: u64,
    /// Resident memory at the window's end, shared pages split between their owners.
    pub pss_bytes: u64,
}

impl Report {
    /// Whether every request was answered right, and at least one was.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.requests > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} requests/s", self.requests_per_s)?;
        if let Some(latency) = &self.latency_us {
            write!(f, ", p50 {:.0} µs, p99 {:.0} µs, max {:.0} µs", latency.p50, latency.p99, latency.max)?;
        }
        if let Some(per_1000) = self.server.as_ref().and_then(|server| server.cpu_s_per_1000) {
            write!(f, ", server {per_1000:.3} CPU s per 1000")?;
        }
        write!(f, ", generator {:.0} % of a core", self.generator.core_share * 100.0)?;
        if let Some(failure) = &self.first_failure {
            write!(f, ", {} FAILED, first: {failure}", self.failed)?;
        }
        Ok(())
    }
}
