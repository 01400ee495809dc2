//! Which metrics there are: TorchServe's own, as its default `metrics.yaml` declares them, or those of a file in that form.

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::yaml;

/// The dimension that names the machine; metrics of workers have it without declaring it.
const HOSTNAME: &str = "Hostname";
/// What metrics of the server's own begin with.
pub(super) const OWN_PREFIX: &str = "zoo_";

/// How values of a metric add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They are summed.
    Counter,
    /// The latest one holds.
    Gauge,
    /// They are counted by size.
    Histogram,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Counter, Self::Gauge, Self::Histogram];

    /// The word in files and in Prometheus' format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    /// The kind that a word stands for, in any case.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(word))
    }
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// How its values add up.
    pub kind: Kind,
    /// What its values are, as the file writes it.
    pub unit: String,
    /// Names of its labels, in order.
    pub dimensions: Vec<String>,
}

impl Definition {
    pub(super) fn new(name: &str, kind: Kind, unit: &str, dimensions: &[&str]) -> Self {
        let dimensions = dimensions.iter().map(|&name| name.to_owned()).collect();
        Self { name: name.to_owned(), kind, unit: unit.to_owned(), dimensions }
    }

    /// TorchServe's help text.
    pub(super) fn help(&self) -> String {
        format!("Torchserve prometheus {} metric with unit: {}", self.kind.as_str(), self.unit)
    }

    /// Of a metric that workers report: the dimensions of the machine come last.
    pub(super) fn with_hostname(mut self) -> Self {
        self.dimensions.retain(|name| name != HOSTNAME);
        self.dimensions.push(HOSTNAME.to_owned());
        self
    }

    /// Why Prometheus couldn't take it.
    pub(super) fn problem(&self) -> Option<String> {
        if !is_name(&self.name, true) {
            return Some("the name must be letters, digits, `_` and `:`, no digit first".to_owned());
        }
        let histogram = self.kind == Kind::Histogram;
        let wrong = |label: &&String| {
            !is_name(label, false) || label.starts_with("__") || (histogram && *label == "le")
        };
        if let Some(label) = self.dimensions.iter().find(wrong) {
            return Some(format!("`{label}` can't be a dimension: letters, digits and `_`, no digit first"));
        }
        let twice = |(at, label): (usize, &String)| self.dimensions[..at].contains(label);
        self.dimensions.iter().enumerate().any(twice).then(|| "has a dimension twice".to_owned())
    }
}

fn is_name(text: &str, colons: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    text.starts_with(|c: char| !c.is_ascii_digit()) && text.chars().all(fits)
}

/// All metrics that are declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definitions {
    /// The server's and the machine's: section `ts_metrics`.
    pub frontend: Vec<Definition>,
    /// Those that handlers report: section `model_metrics`, `Hostname` added.
    pub model: Vec<Definition>,
}

impl Default for Definitions {
    /// TorchServe's.
    fn default() -> Self {
        use Kind::{Counter, Gauge};
        let host = ["Level", "Hostname"];
        let device = ["Level", "DeviceId", "Hostname"];
        let version = ["model_name", "model_version", "hostname"];
        let frontend = vec![
            Definition::new("Requests2XX", Counter, "Count", &host),
            Definition::new("Requests4XX", Counter, "Count", &host),
            Definition::new("Requests5XX", Counter, "Count", &host),
            Definition::new("ts_inference_requests_total", Counter, "Count", &version),
            Definition::new("ts_inference_latency_microseconds", Counter, "Microseconds", &version),
            Definition::new("ts_queue_latency_microseconds", Counter, "Microseconds", &version),
            Definition::new("QueueTime", Gauge, "Milliseconds", &host),
            Definition::new("WorkerThreadTime", Gauge, "Milliseconds", &host),
            Definition::new("WorkerLoadTime", Gauge, "Milliseconds", &["WorkerName", "Level", "Hostname"]),
            Definition::new("CPUUtilization", Gauge, "Percent", &host),
            Definition::new("MemoryUsed", Gauge, "Megabytes", &host),
            Definition::new("MemoryAvailable", Gauge, "Megabytes", &host),
            Definition::new("MemoryUtilization", Gauge, "Percent", &host),
            Definition::new("DiskUsage", Gauge, "Gigabytes", &host),
            Definition::new("DiskAvailable", Gauge, "Gigabytes", &host),
            Definition::new("DiskUtilization", Gauge, "Percent", &host),
            Definition::new("GPUMemoryUtilization", Gauge, "Percent", &device),
            Definition::new("GPUMemoryUsed", Gauge, "Megabytes", &device),
            Definition::new("GPUUtilization", Gauge, "Percent", &device),
        ];
        let model = ["HandlerTime", "PredictionTime"]
            .map(|name| Definition::new(name, Gauge, "ms", &["ModelName", "Level"]).with_hostname())
            .into();
        Self { frontend, model }
    }
}

impl Definitions {
    /// Those of a file.
    ///
    /// # Errors
    /// The file, where in it, and what would be right.
    pub fn read(path: &Path) -> Result<Self, DefinitionError> {
        let wrong = |problem: String| DefinitionError { file: path.display().to_string(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let keys = yaml::parse(&text).map_err(|error| wrong(error.to_string()))?;
        Self::of(&keys).map_err(wrong)
    }

    fn of(keys: &Map<String, Value>) -> Result<Self, String> {
        let frontend = section(keys, "ts_metrics")?;
        let model: Vec<_> =
            section(keys, "model_metrics")?.into_iter().map(Definition::with_hostname).collect();
        let usual = Self::default().frontend;
        let mut names: Vec<&str> = Vec::new();
        for definition in frontend.iter().chain(&model) {
            let refuse = |why: String| Err(format!("{}: {why}", definition.name));
            if let Some(problem) = definition.problem() {
                return refuse(problem);
            }
            if definition.name.starts_with(OWN_PREFIX) {
                return refuse(format!("names beginning with `{OWN_PREFIX}` are the server's own"));
            }
            if names.contains(&definition.name.as_str()) {
                return refuse("declared twice".to_owned());
            }
            names.push(&definition.name);
        }
        for definition in &frontend {
            let Some(usual) = usual.iter().find(|usual| usual.name == definition.name) else { continue };
            // The server fills in the values by position.
            if (usual.kind, usual.dimensions.len()) != (definition.kind, definition.dimensions.len()) {
                let (kind, dimensions) = (usual.kind.as_str(), usual.dimensions.join(", "));
                return Err(format!("{}: must be a {kind} with the dimensions {dimensions}", usual.name));
            }
        }
        Ok(Self { frontend, model })
    }

    /// The section `model_metrics` as JSON, for workers.
    pub fn model_section(&self) -> Value {
        let mut section = Map::new();
        for kind in Kind::ALL {
            let of_kind = self.model.iter().filter(|definition| definition.kind == kind);
            let list: Vec<_> = of_kind
                .map(|definition| {
                    let own = definition.dimensions.iter().filter(|name| *name != HOSTNAME);
                    let dimensions: Vec<_> = own.collect();
                    json!({"name": definition.name, "unit": definition.unit, "dimensions": dimensions})
                })
                .collect();
            if !list.is_empty() {
                section.insert(kind.as_str().to_owned(), list.into());
            }
        }
        section.into()
    }
}

fn section(keys: &Map<String, Value>, name: &str) -> Result<Vec<Definition>, String> {
    let kinds = match keys.get(name) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(kinds)) => kinds,
        Some(_) => return Err(format!("{name}: must be keys, of counter, gauge and histogram")),
    };
    let mut all = Vec::new();
    for (word, list) in kinds {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == word);
        let kind = kind.ok_or_else(|| format!("{name}: `{word}` must be counter, gauge or histogram"))?;
        let list = match list {
            Value::Null => continue,
            Value::Array(list) => list,
            _ => return Err(format!("{name}: {word}: must be a list")),
        };
        for (at, metric) in list.iter().enumerate() {
            all.push(definition(kind, metric).ok_or_else(|| {
                format!("{name}: {word}: metric {} must have name, unit and a list of dimensions", at + 1)
            })?);
        }
    }
    Ok(all)
}

fn definition(kind: Kind, metric: &Value) -> Option<Definition> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let dimensions = metric.get("dimensions")?.as_array()?;
    Some(Definition {
        name: text(metric.get("name")?)?,
        kind,
        unit: text(metric.get("unit")?)?,
        dimensions: dimensions.iter().map(text).collect::<Option<_>>()?,
    })
}

/// A file that declares no metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionError {
    file: String,
    problem: String,
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "metrics configuration {}: {}", self.file, self.problem)
    }
}

impl std::error::Error for DefinitionError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Definitions, String> {
        Definitions::of(&yaml::parse(text).unwrap())
    }

    #[test]
    fn a_file_declares_metrics_with_anchors() {
        let text = "
dimensions:
  - &model \"ModelName\"
  - &level \"Level\"
ts_metrics:
  counter:
    - name: Requests2XX
      unit: Count
      dimensions: [*level, \"Hostname\"]
  gauge:
model_metrics:
  gauge:
    - {name: HandlerTime, unit: ms, dimensions: [*model, *level]}
  histogram:
    - {name: Sizes, unit: B, dimensions: []}
";
        let Definitions { frontend, model } = parse(text).unwrap();
        assert_eq!(
            frontend,
            [Definition::new("Requests2XX", Kind::Counter, "Count", &["Level", "Hostname"])]
        );
        let expected = [
            Definition::new("HandlerTime", Kind::Gauge, "ms", &["ModelName", "Level", "Hostname"]),
            Definition::new("Sizes", Kind::Histogram, "B", &["Hostname"]),
        ];
        assert_eq!(model, expected);
        assert_eq!(parse("").unwrap(), Definitions { frontend: vec![], model: vec![] });
    }

    #[test]
    fn workers_get_the_section_as_they_know_it() {
        let expected = json!({"gauge": [
            {"name": "HandlerTime", "unit": "ms", "dimensions": ["ModelName", "Level"]},
            {"name": "PredictionTime", "unit": "ms", "dimensions": ["ModelName", "Level"]},
        ]});
        assert_eq!(Definitions::default().model_section(), expected);
    }

    #[test]
    fn a_file_that_declares_nonsense_is_refused_in_one_line() {
        let model = |metrics: &str| format!("model_metrics: {metrics}");
        let gauge = |metric: &str| model(&format!("{{gauge: [{metric}]}}"));
        for (text, problem) in [
            (model("[]"), "model_metrics: must be keys, of counter, gauge and histogram"),
            (model("{summary: []}"), "model_metrics: `summary` must be counter, gauge or histogram"),
            (model("{gauge: a}"), "model_metrics: gauge: must be a list"),
            (
                gauge("{name: a, dimensions: []}"),
                "model_metrics: gauge: metric 1 must have name, unit and a list of dimensions",
            ),
            (
                gauge("{name: 7a, unit: s, dimensions: []}"),
                "7a: the name must be letters, digits, `_` and `:`, no digit first",
            ),
            (
                gauge("{name: a, unit: s, dimensions: [a-b]}"),
                "a: `a-b` can't be a dimension: letters, digits and `_`, no digit first",
            ),
            (gauge("{name: a, unit: s, dimensions: [b, b]}"), "a: has a dimension twice"),
            (
                gauge("{name: a, unit: s, dimensions: []}, {name: a, unit: s, dimensions: []}"),
                "a: declared twice",
            ),
            (
                gauge("{name: zoo_a, unit: s, dimensions: []}"),
                "zoo_a: names beginning with `zoo_` are the server's own",
            ),
            (
                "ts_metrics: {gauge: [{name: QueueTime, unit: ms, dimensions: [Level]}]}".to_owned(),
                "QueueTime: must be a gauge with the dimensions Level, Hostname",
            ),
        ] {
            assert_eq!(parse(&text).unwrap_err(), problem, "{text}");
        }
        let missing = Definitions::read(Path::new("/nonexistent/metrics.yaml")).unwrap_err().to_string();
        assert!(
            missing.starts_with("metrics configuration /nonexistent/metrics.yaml: No such file"),
            "{missing}"
        );
    }

    /// The whole table of TorchServe's metrics: name, type, unit, dimensions in order.
    #[test]
    fn the_usual_metrics_are_torchserves() {
        let expected = "\
Requests2XX counter Count Level,Hostname
Requests4XX counter Count Level,Hostname
Requests5XX counter Count Level,Hostname
ts_inference_requests_total counter Count model_name,model_version,hostname
ts_inference_latency_microseconds counter Microseconds model_name,model_version,hostname
ts_queue_latency_microseconds counter Microseconds model_name,model_version,hostname
QueueTime gauge Milliseconds Level,Hostname
WorkerThreadTime gauge Milliseconds Level,Hostname
WorkerLoadTime gauge Milliseconds WorkerName,Level,Hostname
CPUUtilization gauge Percent Level,Hostname
MemoryUsed gauge Megabytes Level,Hostname
MemoryAvailable gauge Megabytes Level,Hostname
MemoryUtilization gauge Percent Level,Hostname
DiskUsage gauge Gigabytes Level,Hostname
DiskAvailable gauge Gigabytes Level,Hostname
DiskUtilization gauge Percent Level,Hostname
GPUMemoryUtilization gauge Percent Level,DeviceId,Hostname
GPUMemoryUsed gauge Megabytes Level,DeviceId,Hostname
GPUUtilization gauge Percent Level,DeviceId,Hostname
HandlerTime gauge ms ModelName,Level,Hostname
PredictionTime gauge ms ModelName,Level,Hostname
";
        let Definitions { frontend, model } = Definitions::default();
        let table: String = frontend
            .iter()
            .chain(&model)
            .map(|one| {
                format!("{} {} {} {}\n", one.name, one.kind.as_str(), one.unit, one.dimensions.join(","))
            })
            .collect();
        assert_eq!(table, expected);
    }
}
