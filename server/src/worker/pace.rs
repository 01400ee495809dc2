//! How fast a handler is: the 99th percentile of its recent calls, from buckets a quarter octave wide.

use std::time::Duration;

const BUCKETS: usize = 128;
/// Calls before the estimate is believed.
const ENOUGH: u32 = 16;
/// Calls after which all counts are halved, so that old ones fade.
const FADE_AFTER: u32 = 1024;
/// Calls between two looks at the buckets.
const REFRESH: u32 = 16;

/// The estimate.
#[derive(Debug)]
pub struct Pace {
    counts: [u32; BUCKETS],
    total: u32,
    since_refresh: u32,
    p99: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0, since_refresh: 0, p99: None }
    }
}

impl Pace {
    /// Counts a call that took so many microseconds.
    pub fn record(&mut self, micros: u32) {
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        self.since_refresh += 1;
        if self.total >= FADE_AFTER {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
        if self.since_refresh >= REFRESH && self.total >= ENOUGH {
            self.since_refresh = 0;
            self.p99 = Some(self.percentile());
        }
    }

    /// The 99th percentile, rounded up to its bucket's end; `None` until enough calls were seen.
    pub fn p99(&self) -> Option<Duration> {
        self.p99
    }

    fn percentile(&self) -> Duration {
        let mut above = self.total / 100;
        for (index, &count) in self.counts.iter().enumerate().rev() {
            if count > above {
                return Duration::from_micros(bucket_end(index));
            }
            above -= count;
        }
        Duration::ZERO
    }
}

/// Four buckets for each power of two: 0, 1, 2, 3, 4, 5, 6, 7, 8–9, 10–11, …
fn bucket(micros: u32) -> usize {
    if micros < 8 {
        return micros as usize;
    }
    let octave = micros.ilog2();
    let quarter = (micros >> (octave - 2)) & 3;
    (octave as usize - 1) * 4 + quarter as usize
}

fn bucket_end(index: usize) -> u64 {
    if index < 8 {
        return index as u64 + 1;
    }
    let octave = index / 4 + 1;
    let quarter = index as u64 % 4;
    (4 + quarter + 1) << (octave - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_end_beyond_what_they_hold() {
        let mut last = 0;
        for micros in (0..5000).chain((5000..u32::MAX - 100_000).step_by(99_991)).chain([u32::MAX]) {
            let index = bucket(micros);
            assert!(index >= last && index < BUCKETS, "{micros} → {index}");
            assert!(bucket_end(index) > u64::from(micros), "{micros} → {index} → {}", bucket_end(index));
            assert!(bucket_end(index) <= u64::from(micros) * 5 / 4 + 2, "{micros} → {}", bucket_end(index));
            last = index;
        }
    }

    #[test]
    fn one_slow_call_in_a_hundred_does_not_count_two_do() {
        let mut pace = Pace::default();
        (0..15).for_each(|_| pace.record(10));
        assert_eq!(pace.p99(), None);
        (0..84).for_each(|_| pace.record(10));
        pace.record(5000);
        (0..12).for_each(|_| pace.record(10));
        assert!(pace.p99() <= Some(Duration::from_micros(12)), "{:?}", pace.p99());
        (0..16).for_each(|_| pace.record(5000));
        assert!(pace.p99() >= Some(Duration::from_micros(5000)), "{:?}", pace.p99());
    }

    #[test]
    fn old_calls_fade() {
        let mut pace = Pace::default();
        (0..500).for_each(|_| pace.record(50_000));
        (0..20_000).for_each(|_| pace.record(20));
        assert!(pace.p99() < Some(Duration::from_micros(100)), "{:?}", pace.p99());
    }
}
