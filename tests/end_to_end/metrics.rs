//! What a scrape of a running server sees, and what its log says of it.

use std::fs;
use std::process::{Command, Stdio};

use zoo_e2e::harness::{Home, Zoo};

/// Reports in each way that there is.
const REPORTER: &str = r#"
import sys

from ts.metrics.metric_type_enum import MetricTypes


def handle(data, context):
    if data is None:
        return None
    metrics = context.metrics
    metrics.add_counter("Cats", 2)
    metrics.add_time("HandlerTime", 1.5)
    metrics.get_metric("Sizes", MetricTypes.HISTOGRAM).add_or_update(0.3, ["small"])
    metrics.add_counter("Undeclared", 1)
    print("[METRICS]Printed.Count:3|#Level:Model|#type:GAUGE|#hostname:elsewhere,1700000000,an-id")
    print("[METRICS]nonsense")
    sys.stdout.flush()
    return ["done"] * len(data)
"#;

const DECLARED: &str = r#"
dimensions:
  - &level "Level"
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [*level, "Hostname"]}
    - {name: ts_inference_latency_microseconds, unit: Microseconds, dimensions: [model_name, model_version, hostname]}
model_metrics:
  counter:
    - {name: Cats, unit: count, dimensions: ["ModelName", *level]}
  gauge:
    - {name: HandlerTime, unit: ms, dimensions: ["ModelName", *level]}
    - {name: Printed, unit: Count, dimensions: [*level]}
  histogram:
    - {name: Sizes, unit: B, dimensions: ["Size"]}
"#;

fn reporting(arguments: &[&str]) -> Zoo {
    let home = Home::new();
    fs::write(home.path().join("metrics.yaml"), DECLARED).unwrap();
    let zoo = Zoo::at(home, &[&["--metrics-config", "metrics.yaml"], arguments].concat());
    zoo.serve("reporter", REPORTER, "");
    for path in ["reporter", "reporter", "reporter/1.0"] {
        let request = format!("POST /predictions/{path}");
        assert_eq!(zoo.infer(&request, &["x-request-id: my-id"], b"x").text(), "done");
    }
    zoo
}

/// A scrape that has lines which begin like these.
fn scrape(zoo: &Zoo, lines: &[&str]) -> String {
    let mut text = String::new();
    zoo_e2e::wait_until(&format!("a scrape with {lines:#?}"), || {
        text = zoo.measure("GET /metrics").text().to_owned();
        lines.iter().all(|line| text.lines().any(|seen| seen.starts_with(line)))
    });
    text
}

#[test]
fn metrics_of_a_handler_are_seen_by_prometheus_and_in_the_log() {
    let zoo = reporting(&["--metrics-mode", "log"]);
    let text = scrape(
        &zoo,
        &[
            r#"Requests2XX{Level="Host",Hostname=""#,
            r#"ts_inference_latency_microseconds{model_name="reporter",model_version="default",hostname=""#,
            r#"ts_inference_latency_microseconds{model_name="reporter",model_version="1.0",hostname=""#,
            r#"Printed{Level="Model",Hostname="elsewhere",} 3.0"#,
            r#"zoo_request_duration_seconds_count{model="reporter",version="1.0",} 3.0"#,
            r#"zoo_batch_size_sum{model="reporter",version="1.0",} 3.0"#,
            r#"zoo_workers{model="reporter",version="1.0",state="READY",} 1.0"#,
            r#"zoo_queue_depth{model="reporter",version="1.0",} 0.0"#,
        ],
    );
    let value = |start: &str| {
        let line =
            text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(value(r#"Cats{ModelName="reporter",Level="Model",Hostname=""#), "6.0");
    assert_eq!(value(r#"HandlerTime{ModelName="reporter",Level="Model",Hostname=""#), "1.5");
    assert_eq!(value("Sizes_count{"), "3.0");
    assert!(!text.contains("Undeclared") && !text.contains("QueueTime"), "{text}");

    for said in [
        "MODEL_METRICS: Cats.count:2.0|#ModelName:reporter,Level:Model|#hostname:",
        "MODEL_METRICS: Printed.Count:3.0|#Level:Model|#hostname:elsewhere,requestID:an-id,timestamp:1700000000",
        "TS_METRICS: ts_inference_latency_microseconds.Microseconds:",
        "ERROR zoo_server::metrics: Failed to parse metrics line: \"nonsense\".",
        ",requestID:my-id,timestamp:",
    ] {
        zoo.until_logged(said, 3);
    }
    zoo.until_logged("TS_METRICS: Requests2XX.Count:1.0|#Level:Host|#hostname:", 4);
    zoo.until_logged("|#model_name:reporter,model_version:default|#hostname:", 2);
}

#[test]
fn the_format_is_prometheus() {
    let zoo = reporting(&["--model-metrics-auto-detect"]);
    scrape(&zoo, &["Undeclared{", "Cats{", "Printed{"]);
    let reply = zoo.measure("GET /metrics");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(!zoo.has_logged("_METRICS: "));
    let environment = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/python-env"))
        .arg("light")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(environment.status.success());
    let python = format!("{}/bin/python", String::from_utf8(environment.stdout).unwrap().trim());
    fs::write(zoo.home().join("text"), &reply.body).unwrap();
    let code = "\
from prometheus_client.parser import text_string_to_metric_families as parse
families = {family.name: family for family in parse(open('text').read())}
for family in families.values():
    print(family.name, family.type, len(family.samples))
";
    let parsed = Command::new(python).args(["-c", code]).current_dir(zoo.home()).output().unwrap();
    assert!(parsed.status.success(), "{parsed:?}");
    let parsed = String::from_utf8(parsed.stdout).unwrap();
    for family in [
        "Requests2XX counter 1",
        "ts_inference_latency_microseconds counter 2",
        "Cats counter 1",
        "HandlerTime gauge 1",
        "Sizes histogram 17",
        "zoo_request_duration_seconds histogram 21",
        "zoo_workers gauge 7",
        "zoo_worker_restarts counter 0",
    ] {
        assert!(parsed.lines().any(|line| line == family), "{family}: {parsed}");
    }
}

#[test]
fn a_scrape_may_ask_for_names_and_other_paths_lead_nowhere() {
    let zoo = reporting(&[]);
    let text = zoo.measure("GET /metrics?name[]=Cats&name%5B%5D=zoo_queue_depth").text().to_owned();
    let names: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(|line| &line[..4]).collect();
    assert_eq!(names, ["Cats", "zoo_"]);
    zoo.measure("GET /other").fails(
        404,
        "ResourceNotFoundException",
        "Requested resource is not found, please refer to API document.",
    );
    zoo.measure("POST /metrics").fails(
        405,
        "MethodNotAllowedException",
        "Requested method is not allowed, please refer to API document.",
    );
    assert_eq!(zoo.infer("GET /metrics", &[], b"").status, 404);
}
