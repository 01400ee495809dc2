//! Counts outcomes: latencies of right answers inside the window, failures at any time. Knows no socket and
//! no loop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use super::connection::Answer;
use crate::report::Latency;

/// The finest step and the longest latency that the histogram tells apart, in nanoseconds.
const FINEST_NS: u64 = 100;
const LONGEST: Duration = Duration::from_secs(600);
/// Three digits: 1 000 µs and 1 001 µs are different, and the table still fits the cache.
const DIGITS: u8 = 3;
/// How much of a refusal's text the report quotes.
const QUOTED_BYTES: usize = 300;

/// The outcomes of one run.
#[derive(Debug)]
pub(super) struct Recorder {
    from: Instant,
    until: Instant,
    latencies_ns: Histogram<u64>,
    failures: BTreeMap<String, u64>,
    first_failure: Option<String>,
}

impl Recorder {
    /// Counts the answers that arrive between `from` and `until`.
    pub(super) fn new(from: Instant, until: Instant) -> Result<Self> {
        let longest_ns = u64::try_from(LONGEST.as_nanos()).context("the longest latency doesn't fit")?;
        let latencies_ns = Histogram::new_with_bounds(FINEST_NS, longest_ns, DIGITS)
            .context("cannot lay out the latency histogram")?;
        Ok(Self { from, until, latencies_ns, failures: BTreeMap::new(), first_failure: None })
    }

    /// An answer arrived at `end` to a request that was due at `start`.
    pub(super) fn answer(&mut self, start: Instant, end: Instant, answer: &Answer<'_>, expect: Option<&str>) {
        if !(200..300).contains(&answer.status) {
            let kind = format!("status {}", answer.status);
            self.fail(&kind, || quote(answer.body));
        } else if expect.is_some_and(|expect| expect.as_bytes() != answer.body) {
            self.fail("unexpected body", || quote(answer.body));
        } else if (self.from..=self.until).contains(&end) {
            let nanoseconds = u64::try_from((end - start).as_nanos()).unwrap_or(u64::MAX);
            self.latencies_ns.saturating_record(nanoseconds);
        }
    }

    /// A request failed; `detail` is asked for only once, because a run may fail a million times for one
    /// reason.
    pub(super) fn fail(&mut self, kind: &str, detail: impl FnOnce() -> String) {
        self.first_failure.get_or_insert_with(|| format!("{kind}: {}", detail()));
        match self.failures.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(self.failures.insert(kind.to_owned(), 1)),
        }
    }

    /// Right answers inside the window.
    pub(super) fn answered(&self) -> u64 {
        self.latencies_ns.len()
    }

    /// How often each kind of failure happened.
    pub(super) fn failures(&self) -> &BTreeMap<String, u64> {
        &self.failures
    }

    /// The first failure in words.
    pub(super) fn first_failure(&self) -> Option<&str> {
        self.first_failure.as_deref()
    }

    /// Latencies of the right answers; none when there was no answer.
    pub(super) fn latency(&self) -> Option<Latency> {
        let at = |quantile| self.latencies_ns.value_at_quantile(quantile) as f64 / 1e3;
        (self.answered() > 0).then(|| Latency {
            mean: self.latencies_ns.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.latencies_ns.max() as f64 / 1e3,
        })
    }
}

fn quote(body: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&body[..body.len().min(QUOTED_BYTES)]);
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Answer<'_> = Answer { status: 200, body: b"ok" };

    #[test]
    fn answers_outside_the_window_are_not_counted() {
        let from = Instant::now();
        let second = Duration::from_secs(1);
        let mut recorder = Recorder::new(from + second, from + 2 * second).unwrap();
        recorder.answer(from, from, &OK, None);
        recorder.answer(from, from + second, &OK, None);
        recorder.answer(from, from + 3 * second, &OK, None);
        assert_eq!(recorder.answered(), 1);
    }

    #[test]
    fn percentiles_come_from_the_start_that_the_caller_names() {
        let from = Instant::now();
        let mut recorder = Recorder::new(from, from + Duration::from_secs(10)).unwrap();
        assert!(recorder.latency().is_none());
        for milliseconds in 1..=1000 {
            recorder.answer(from, from + Duration::from_millis(milliseconds), &OK, Some("ok"));
        }
        let latency = recorder.latency().unwrap();
        for (seen, right) in
            [(latency.p50, 5e5), (latency.p90, 9e5), (latency.p99, 9.9e5), (latency.max, 1e6)]
        {
            assert!((seen / right - 1.0).abs() < 0.002, "{seen} instead of {right}");
        }
    }
}
