//! Prometheus' text format 0.0.4 as TorchServe's library writes it: a comma after the last label, numbers in Java's form.

use std::fmt::Write;

use super::number::Java;

/// The media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metric and all that is known of it.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) help: String,
    pub(super) kind: &'static str,
    pub(super) labels: Vec<String>,
    pub(super) samples: Vec<Sample>,
}

/// One line.
#[derive(Debug)]
pub(super) struct Sample {
    /// What follows the metric's name in that of the line.
    pub(super) suffix: &'static str,
    /// Values of the labels.
    pub(super) values: Vec<String>,
    /// The bound of a bucket.
    pub(super) bound: Option<f64>,
    pub(super) value: f64,
}

impl Sample {
    pub(super) fn plain(values: Vec<String>, value: f64) -> Self {
        Self { suffix: "", values, bound: None, value }
    }

    /// The lines of a histogram. `counts`: of each bucket by itself, that of larger values last.
    pub(super) fn histogram(values: &[String], bounds: &[f64], counts: &[u64], sum: f64) -> Vec<Self> {
        let line = |suffix, bound, value| Self { suffix, values: values.to_vec(), bound, value };
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let mut total = 0;
        let mut lines: Vec<_> = bounds
            .zip(counts)
            .map(|(bound, count)| {
                total += count;
                line("_bucket", Some(bound), total as f64)
            })
            .collect();
        lines.extend([line("_count", None, total as f64), line("_sum", None, sum)]);
        lines
    }
}

/// All metrics; if `names` has any, only the lines with these names, and the heads of metrics that have some.
pub(super) fn render(families: &[Family], names: &[String]) -> String {
    let mut text = String::new();
    for family in families {
        let wanted = |sample: &&Sample| {
            let name = |name: &String| name.strip_prefix(family.name.as_str()) == Some(sample.suffix);
            names.is_empty() || names.iter().any(name)
        };
        let samples: Vec<_> = family.samples.iter().filter(wanted).collect();
        if samples.is_empty() && !names.is_empty() {
            continue;
        }
        let (name, help) = (&family.name, family.help.replace('\\', "\\\\").replace('\n', "\\n"));
        // Writing into a string can't fail, here and below.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {}\n", family.kind);
        for sample in samples {
            line(&mut text, family, sample);
        }
    }
    text
}

fn line(text: &mut String, family: &Family, sample: &Sample) {
    let _ = write!(text, "{}{}", family.name, sample.suffix);
    let bound = sample.bound.map(|bound| Java(bound).to_string());
    if !sample.values.is_empty() || bound.is_some() {
        text.push('{');
        for (label, value) in family.labels.iter().zip(&sample.values) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(text, "{label}=\"{value}\",");
        }
        if let Some(bound) = bound {
            let _ = write!(text, "le=\"{bound}\",");
        }
        text.push('}');
    }
    let _ = writeln!(text, " {}", Java(sample.value));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(name: &str, labels: &[&str], samples: Vec<Sample>) -> Family {
        Family {
            name: name.into(),
            help: "Of\\no\nuse".into(),
            kind: "counter",
            labels: labels.iter().map(|&label| label.into()).collect(),
            samples,
        }
    }

    fn families() -> Vec<Family> {
        let plain = |values: &[&str], value| Sample::plain(values.iter().map(|&v| v.into()).collect(), value);
        let buckets = Sample::histogram(&["x".into()], &[0.005, 1.0], &[1, 0, 2], 1.5e7);
        vec![
            family("a", &["l", "m"], vec![plain(&["x", "q\"\\\n"], 8.0), plain(&["y", ""], 1e7)]),
            family("empty", &["l"], vec![]),
            family("bare", &[], vec![plain(&[], 0.0001)]),
            family("h", &["l"], buckets),
        ]
    }

    #[test]
    fn the_format_is_that_of_torchserves_library() {
        let head = |name: &str| format!("# HELP {name} Of\\\\no\\nuse\n# TYPE {name} counter\n");
        let a = head("a") + "a{l=\"x\",m=\"q\\\"\\\\\\n\",} 8.0\na{l=\"y\",m=\"\",} 1.0E7\n";
        let bare = head("bare") + "bare 1.0E-4\n";
        let buckets = "h_bucket{l=\"x\",le=\"0.005\",} 1.0\nh_bucket{l=\"x\",le=\"1.0\",} 1.0\n\
                       h_bucket{l=\"x\",le=\"+Inf\",} 3.0\n";
        let count = "h_count{l=\"x\",} 3.0\n";
        let h = head("h") + buckets + count + "h_sum{l=\"x\",} 1.5E7\n";
        let all = a.clone() + &head("empty") + &bare + &h;
        for (names, expected) in [
            (&[][..], all),
            (&["a"], a),
            (&["bare", "empty"], bare),
            (&["h"], String::new()),
            (&["h_count"], head("h") + count),
            (&["unknown"], String::new()),
        ] {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(render(&families(), &names), expected, "{names:?}");
        }
    }
}
