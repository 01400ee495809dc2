//! The values of one metric whose labels aren't known beforehand: those that workers report, and those of the machine.
//!
//! They come once in a batch at most, so a lock for each metric is no matter; a series that exists costs no allocation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::definition::{Definition, Kind};
use super::text::{Family, Sample};

/// The bounds of histograms, in whatever unit: those of TorchServe's library.
pub(super) const BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Label values may come from anywhere; memory has to end somewhere.
const MOST_SERIES: usize = 10_000;

/// A metric and its series.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) definition: Definition,
    inner: Mutex<Inner>,
    complained: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    /// Label values, joined, to the place in the list.
    index: HashMap<Box<str>, usize>,
    list: Vec<(Vec<String>, Value)>,
    key: String,
}

#[derive(Debug)]
enum Value {
    Number(f64),
    Histogram { counts: [u64; BOUNDS.len() + 1], sum: f64 },
}

impl Value {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Histogram => Self::Histogram { counts: Default::default(), sum: 0.0 },
            Kind::Counter | Kind::Gauge => Self::Number(0.0),
        }
    }
}

/// Why a value isn't kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Counters only grow.
    Negative,
    /// There are too many series.
    Crowded,
}

impl Series {
    pub(super) fn new(definition: Definition) -> Self {
        Self { definition, inner: Mutex::default(), complained: AtomicBool::new(false) }
    }

    /// Takes a value for the series with these label values, one for each dimension.
    pub(super) fn take<'a>(
        &self,
        labels: impl Iterator<Item = &'a str> + Clone,
        value: f64,
    ) -> Result<(), Refusal> {
        let kind = self.definition.kind;
        if kind == Kind::Counter && value < 0.0 {
            return Err(Refusal::Negative);
        }
        let Inner { index, list, key } = &mut *self.inner.lock();
        key.clear();
        for label in labels.clone() {
            key.push_str(label);
            key.push('\0');
        }
        let at = match index.get(key.as_str()) {
            Some(&at) => at,
            None if list.len() >= MOST_SERIES => return Err(Refusal::Crowded),
            None => {
                index.insert(key.as_str().into(), list.len());
                list.push((labels.map(str::to_owned).collect(), Value::new(kind)));
                list.len() - 1
            }
        };
        match &mut list[at].1 {
            Value::Number(number) if kind == Kind::Counter => *number += value,
            Value::Number(number) => *number = value,
            Value::Histogram { counts, sum } => {
                counts[BOUNDS.partition_point(|&bound| bound < value)] += 1;
                *sum += value;
            }
        }
        Ok(())
    }

    /// Whether this is the first complaint about the metric; one is enough for a log.
    pub(super) fn complains(&self) -> bool {
        !self.complained.swap(true, Ordering::Relaxed)
    }

    /// All that is known.
    pub(super) fn family(&self) -> Family {
        let inner = self.inner.lock();
        let samples = inner.list.iter().flat_map(|(labels, value)| match value {
            Value::Number(number) => vec![Sample::plain(labels.clone(), *number)],
            Value::Histogram { counts, sum } => Sample::histogram(labels, &BOUNDS, counts, *sum),
        });
        self.definition.family(samples.collect())
    }
}

impl Definition {
    /// With what is known of it.
    pub(super) fn family(&self, samples: Vec<Sample>) -> Family {
        let Self { name, kind, dimensions, .. } = self.clone();
        Family { name, help: self.help(), kind: kind.as_str(), labels: dimensions, samples }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::text::render;

    fn lines(kind: Kind, values: &[f64]) -> Vec<String> {
        let series = Series::new(Definition::new("x", kind, "s", &["l"]));
        for &value in values {
            series.take(["v"].into_iter(), value).unwrap();
        }
        render(&[series.family()], &[]).lines().skip(2).map(str::to_owned).collect()
    }

    #[test]
    fn counters_add_gauges_replace_histograms_count() {
        assert_eq!(lines(Kind::Counter, &[1.0, 2.5]), ["x{l=\"v\",} 3.5"]);
        assert_eq!(lines(Kind::Gauge, &[1.0, -2.5]), ["x{l=\"v\",} -2.5"]);
        let histogram = lines(Kind::Histogram, &[0.1, 0.11, 100.0]);
        assert_eq!(histogram.len(), BOUNDS.len() + 3);
        assert_eq!(histogram[5], "x_bucket{l=\"v\",le=\"0.1\",} 1.0");
        assert_eq!(histogram[6], "x_bucket{l=\"v\",le=\"0.25\",} 2.0");
        assert_eq!(histogram[14], "x_bucket{l=\"v\",le=\"+Inf\",} 3.0");
        assert_eq!(&histogram[15..], ["x_count{l=\"v\",} 3.0", "x_sum{l=\"v\",} 100.21"]);
    }

    #[test]
    fn what_cant_be_kept_is_refused() {
        let series = Series::new(Definition::new("x", Kind::Counter, "s", &["l"]));
        assert_eq!(series.take(["v"].into_iter(), -1.0), Err(Refusal::Negative));
        for number in 0..MOST_SERIES {
            series.take([number.to_string().as_str()].into_iter(), 1.0).unwrap();
        }
        assert_eq!(series.take(["one more"].into_iter(), 1.0), Err(Refusal::Crowded));
        assert_eq!(series.take(["7"].into_iter(), 1.0), Ok(()));
    }
}
