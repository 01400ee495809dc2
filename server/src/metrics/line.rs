//! Metrics as lines of text: what workers print after `[METRICS]`, and what goes to the log.

use std::fmt::Write;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use regex::Regex;

use super::definition::Kind;
use super::number::Java;

/// A value that a worker reports.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation<'a> {
    /// Of the metric.
    pub name: &'a str,
    /// What it is measured in, for metrics that nobody declared.
    pub unit: &'a str,
    /// How it adds up, for metrics that nobody declared.
    pub kind: Kind,
    /// What is reported.
    pub value: f64,
    /// Names and values, in order.
    pub dimensions: Vec<(&'a str, &'a str)>,
    /// The machine; `None` for this one.
    pub hostname: Option<&'a str>,
    /// Seconds since 1970; `None` for now.
    pub timestamp: Option<u64>,
    /// The requests it belongs to, joined by commas; may be empty.
    pub request_ids: &'a str,
}

impl<'a> Observation<'a> {
    /// What follows the mark in a `[METRICS]` line; `None` if it isn't a metric.
    pub fn parse(line: &'a str) -> Option<Self> {
        // TorchServe's, with the ASCII classes that Java means, and matching all of the line.
        #[expect(clippy::expect_used, reason = "a constant that each test compiles")]
        static FORM: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(
                r"(?x)^([0-9A-Za-z_\ \t]+)\.([0-9A-Za-z_\ \t]+):([0-9\-,.e]+)
                  \|\#([^|]*)(?:\|\#type:([^|,]+))?\|\#hostname:([^,]+),([^,]+)(?:,(.*))?$",
            )
            .expect("a regular expression")
        });
        let parts = FORM.captures(line)?;
        let part = |at: usize| parts.get(at).map(|found| found.as_str());
        let value = part(3)?.parse().ok().filter(|value: &f64| value.is_finite())?;
        let kind = part(5).map_or(Some(Kind::Gauge), |word| Kind::of(word.trim()))?;
        let dimensions = part(4)?.split(',').filter(|pair| !pair.is_empty());
        Some(Self {
            name: part(1)?.trim(),
            unit: part(2)?.trim(),
            kind,
            value,
            dimensions: dimensions.map(|pair| pair.split_once(':')).collect::<Option<_>>()?,
            hostname: part(6),
            timestamp: part(7)?.trim().parse().ok(),
            request_ids: part(8).unwrap_or_default(),
        })
    }
}

/// A metric on its way to the log.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) unit: &'a str,
    pub(super) value: f64,
    pub(super) hostname: &'a str,
    pub(super) request_ids: &'a str,
    pub(super) timestamp: Option<u64>,
}

impl Entry<'_> {
    /// `Name.Unit:value|#Dimension:value,…|#hostname:h[,requestID:r],timestamp:seconds`
    pub(super) fn line<'d>(&self, dimensions: impl Iterator<Item = (&'d str, &'d str)>) -> String {
        let mut line = format!("{}.{}:{}|#", self.name, self.unit, Java(self.value));
        for (at, (name, value)) in dimensions.enumerate() {
            let comma = if at > 0 { "," } else { "" };
            // Writing into a string can't fail.
            let _ = write!(line, "{comma}{name}:{value}");
        }
        let _ = write!(line, "|#hostname:{}", self.hostname);
        if !self.request_ids.is_empty() {
            let _ = write!(line, ",requestID:{}", self.request_ids);
        }
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let _ = write!(line, ",timestamp:{}", self.timestamp.unwrap_or_else(now));
        line.retain(|c| !c.is_control());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str =
        "HandlerTime.Milliseconds:1.5e-3|#ModelName:m,Level:Model|#type:GAUGE|#hostname:box,1700000000,a,b";

    fn whole() -> Observation<'static> {
        Observation {
            name: "HandlerTime",
            unit: "Milliseconds",
            kind: Kind::Gauge,
            value: 0.0015,
            dimensions: vec![("ModelName", "m"), ("Level", "Model")],
            hostname: Some("box"),
            timestamp: Some(1_700_000_000),
            request_ids: "a,b",
        }
    }

    #[test]
    fn lines_of_workers_are_read() {
        let plain = Observation { timestamp: Some(1), request_ids: "", ..whole() };
        let bare = |kind| Observation {
            name: "a",
            unit: "B",
            kind,
            value: 7.0,
            dimensions: vec![],
            ..plain.clone()
        };
        for (line, expected) in [
            (WHOLE, Some(whole())),
            ("a.B:7|#|#hostname:box,1", Some(bare(Kind::Gauge))),
            (" a .B :7|#|#type:counter|#hostname:box,1", Some(bare(Kind::Counter))),
            ("a.B:7.0|#|#type:HISTOGRAM|#hostname:box,1", Some(bare(Kind::Histogram))),
            ("a.B:7|#|#hostname:box,1,", Some(bare(Kind::Gauge))),
            ("a.B:7|#|#hostname:box,soon", Some(Observation { timestamp: None, ..bare(Kind::Gauge) })),
            (
                "a.B:7|#x:y:z|#hostname:box,1",
                Some(Observation { dimensions: vec![("x", "y:z")], ..bare(Kind::Gauge) }),
            ),
            ("a.B:7|#x|#hostname:box,1", None),
            ("a.B:7|#|#type:SUMMARY|#hostname:box,1", None),
            ("a.B:1,5|#|#hostname:box,1", None),
            ("a.B:-|#|#hostname:box,1", None),
            ("a.B:1e999|#|#hostname:box,1", None),
            ("a.B:NaN|#|#hostname:box,1", None),
            ("a.B:7|#|#hostname:box", None),
            ("a.B:7|#", None),
            ("a:7|#|#hostname:box,1", None),
            ("é.B:7|#|#hostname:box,1", None),
            ("", None),
        ] {
            assert_eq!(Observation::parse(line), expected, "{line}");
        }
    }

    /// Whatever becomes of a line, reading it never fails, and what is read can be written.
    #[test]
    fn mutated_lines_are_read_or_refused() {
        let (mut seed, mut read) = (0x9e37_79b9_u64, 0);
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for _ in 0..20_000 {
            let mut line: Vec<char> = WHOLE.chars().collect();
            for _ in 0..=random(3) {
                let at = random(line.len().max(1)).min(line.len());
                match random(3) {
                    0 => drop(line.drain(at..(at + 1).min(line.len()))),
                    1 => line.insert(at, ['|', '#', ':', ',', '.', 'e', '-', '9', ' ', 'ü'][random(10)]),
                    _ => line.truncate(at.max(1)),
                }
            }
            let line: String = line.into_iter().collect();
            let Some(seen) = Observation::parse(&line) else { continue };
            read += 1;
            assert!(seen.value.is_finite() && line.contains(seen.name), "{line}");
            let entry = Entry {
                name: seen.name,
                unit: seen.unit,
                value: seen.value,
                hostname: seen.hostname.unwrap_or_default(),
                request_ids: seen.request_ids,
                timestamp: seen.timestamp,
            };
            assert!(entry.line(seen.dimensions.iter().copied()).contains("|#hostname:"), "{line}");
        }
        assert!((2_000..18_000).contains(&read), "{read} of the lines were metrics");
    }

    #[test]
    fn the_log_has_torchserves_form() {
        let mut entry = Entry {
            name: "Requests2XX",
            unit: "Count",
            value: 1.0,
            hostname: "box",
            request_ids: "",
            timestamp: Some(1_700_000_000),
        };
        let line = entry.line([("Level", "Host")].into_iter());
        assert_eq!(line, "Requests2XX.Count:1.0|#Level:Host|#hostname:box,timestamp:1700000000");
        entry.request_ids = "a,b\n";
        let line = entry.line([("ModelName", "m"), ("Level", "Model")].into_iter());
        let expected =
            "Requests2XX.Count:1.0|#ModelName:m,Level:Model|#hostname:box,requestID:a,b,timestamp:1700000000";
        assert_eq!(line, expected);
    }
}
