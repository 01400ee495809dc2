//! The metrics as a whole: what goes in, and what a scrape sees.

use super::*;

fn metrics(auto_detect: bool) -> Metrics {
    Metrics::new(Settings { hostname: "box".into(), auto_detect, ..Settings::default() })
}

/// The lines of a scrape that are no comments.
fn samples(metrics: &Metrics, name: &str) -> Vec<String> {
    let text = metrics.text(&[name.to_owned()]);
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn gauge<'a>(name: &'a str, value: f64, dimensions: &[(&'a str, &'a str)]) -> Observation<'a> {
    let dimensions = dimensions.to_vec();
    let (unit, kind) = ("ms", Kind::Gauge);
    Observation { name, unit, kind, value, dimensions, hostname: None, timestamp: None, request_ids: "" }
}

#[test]
fn all_declared_metrics_are_shown_before_anything_happened() {
    let text = metrics(false).text(&[]);
    let Definitions { frontend, model } = Definitions::default();
    let mut expected = String::new();
    for definition in frontend.iter().chain(&model) {
        let (name, kind, unit) = (&definition.name, definition.kind.as_str(), &definition.unit);
        expected += &format!("# HELP {name} Torchserve prometheus {kind} metric with unit: {unit}\n");
        expected += &format!("# TYPE {name} {kind}\n");
    }
    for (definition, help) in meter::definitions() {
        let (name, kind) = (&definition.name, definition.kind.as_str());
        expected += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }
    assert_eq!(text, expected);
}

#[test]
fn responses_are_counted_by_class() {
    let metrics = metrics(false);
    for status in [200, 201, 299, 302, 404, 503, 507] {
        metrics.responded(status);
    }
    assert_eq!(samples(&metrics, "Requests2XX"), [r#"Requests2XX{Level="Host",Hostname="box",} 3.0"#]);
    assert_eq!(samples(&metrics, "Requests4XX"), [r#"Requests4XX{Level="Host",Hostname="box",} 1.0"#]);
    assert_eq!(samples(&metrics, "Requests5XX"), [r#"Requests5XX{Level="Host",Hostname="box",} 2.0"#]);
}

#[test]
fn requests_are_counted_under_the_words_of_the_client() {
    let metrics = metrics(false);
    let ms = Duration::from_millis;
    let (one, two) = (metrics.meter("m", "1"), metrics.meter("m", "2"));
    for (meter, named) in [(&one, false), (&one, true), (&two, false)] {
        meter.asked(named);
        meter.sent(1);
        meter.answered(named, ms(10), 4_000);
        meter.finished(ms(6), 4_000);
    }
    let line = |name: &str, version: &str, value: &str| {
        format!("{name}{{model_name=\"m\",model_version=\"{version}\",hostname=\"box\",}} {value}")
    };
    for (name, default, first) in [
        ("ts_inference_requests_total", "2.0", "1.0"),
        ("ts_inference_latency_microseconds", "20000.0", "10000.0"),
        ("ts_queue_latency_microseconds", "12000.0", "6000.0"),
    ] {
        assert_eq!(samples(&metrics, name), [line(name, "1", first), line(name, "default", default)]);
    }
    assert_eq!(samples(&metrics, "QueueTime"), [r#"QueueTime{Level="Host",Hostname="box",} 6.0"#]);
    let thread_time = [r#"WorkerThreadTime{Level="Host",Hostname="box",} 2.0"#];
    assert_eq!(samples(&metrics, "WorkerThreadTime"), thread_time);
    let counts = samples(&metrics, "zoo_request_duration_seconds_count");
    let count = |version: &str, n: &str| {
        format!("zoo_request_duration_seconds_count{{model=\"m\",version=\"{version}\",}} {n}")
    };
    assert_eq!(counts, [count("1", "2.0"), count("2", "1.0")]);
    let buckets = samples(&metrics, "zoo_handler_duration_seconds_bucket");
    assert!(buckets.contains(
        &r#"zoo_handler_duration_seconds_bucket{model="m",version="1",le="0.0025",} 0.0"#.to_owned()
    ));
    assert!(buckets.contains(
        &r#"zoo_handler_duration_seconds_bucket{model="m",version="1",le="0.005",} 2.0"#.to_owned()
    ));
    assert_eq!(
        samples(&metrics, "zoo_batch_size_sum")[0],
        r#"zoo_batch_size_sum{model="m",version="1",} 2.0"#
    );
}

struct Shop;

impl Watched for Shop {
    fn queued(&self) -> usize {
        3
    }

    fn workers(&self) -> Vec<(&'static str, usize)> {
        vec![("READY", 2), ("LOADING", 0)]
    }
}

#[test]
fn a_version_is_watched_as_long_as_it_lives_and_its_counters_stay() {
    let metrics = metrics(false);
    let shop: Arc<dyn Watched> = Arc::new(Shop);
    metrics.meter("m", "1").watch(Arc::downgrade(&shop));
    metrics.meter("m", "1").restarts("died");
    assert_eq!(samples(&metrics, "zoo_queue_depth"), [r#"zoo_queue_depth{model="m",version="1",} 3.0"#]);
    let workers = [
        r#"zoo_workers{model="m",version="1",state="READY",} 2.0"#,
        r#"zoo_workers{model="m",version="1",state="LOADING",} 0.0"#,
    ];
    assert_eq!(samples(&metrics, "zoo_workers"), workers);
    drop(shop);
    assert_eq!(samples(&metrics, "zoo_queue_depth"), [""; 0]);
    assert_eq!(samples(&metrics, "zoo_workers"), [""; 0]);
    let restarts = [r#"zoo_worker_restarts_total{model="m",version="1",reason="died",} 1.0"#];
    assert_eq!(samples(&metrics, "zoo_worker_restarts_total"), restarts);
}

#[test]
fn versions_that_are_no_more_are_forgotten_when_there_are_too_many() {
    let metrics = metrics(false);
    let shop: Arc<dyn Watched> = Arc::new(Shop);
    metrics.meter("stays", "1").watch(Arc::downgrade(&shop));
    for version in 0..MOST_METERS {
        let gone: Arc<dyn Watched> = Arc::new(Shop);
        metrics.meter("goes", &version.to_string()).watch(Arc::downgrade(&gone));
    }
    assert_eq!(metrics.meters.lock().len(), 2);
    assert_eq!(samples(&metrics, "zoo_queue_depth").len(), 1);
}

#[test]
fn declared_metrics_of_workers_are_kept_by_name_or_by_position() {
    let metrics = metrics(false);
    metrics.observe(&gauge("HandlerTime", 1.0, &[("ModelName", "a"), ("Level", "Model")]));
    metrics.observe(&gauge("HandlerTime", 2.0, &[("Level", "Model"), ("Extra", "x"), ("ModelName", "b")]));
    metrics.observe(&gauge("HandlerTime", 3.0, &[("Model", "c"), ("L", "Model")]));
    metrics.observe_line("w", "HandlerTime.ms:4|#ModelName:d,Level:Model|#type:GAUGE|#hostname:other,1,id");
    // Neither.
    metrics.observe(&gauge("HandlerTime", 9.0, &[("ModelName", "e")]));
    metrics.observe(&gauge("HandlerTime", f64::NAN, &[("ModelName", "e"), ("Level", "Model")]));
    metrics.observe_line("w", "nonsense");
    let line = |model: &str, host: &str, value: &str| {
        format!("HandlerTime{{ModelName=\"{model}\",Level=\"Model\",Hostname=\"{host}\",}} {value}")
    };
    let expected = [
        line("a", "box", "1.0"),
        line("b", "box", "2.0"),
        line("c", "box", "3.0"),
        line("d", "other", "4.0"),
    ];
    assert_eq!(samples(&metrics, "HandlerTime"), expected);
}

#[test]
fn undeclared_metrics_are_dropped_unless_wanted() {
    let said = |metrics: &Metrics| {
        metrics.observe(&gauge("Cats", 1.0, &[("Color", "red")]));
        metrics.observe(&gauge("Two words", 1.0, &[]));
        metrics.observe(&gauge("Bad", 1.0, &[("a-b", "")]));
        metrics.observe(&gauge("QueueTime", 1.0, &[]));
        metrics.observe(&gauge("zoo_workers", 1.0, &[]));
        metrics.text(&[])
    };
    assert_eq!(said(&metrics(false)), metrics(false).text(&[]));
    let text = said(&metrics(true));
    let added: Vec<_> =
        text.lines().filter(|line| !metrics(true).text(&[]).contains(&format!("{line}\n"))).collect();
    let expected = [
        "# HELP Cats Torchserve prometheus gauge metric with unit: ms",
        "# TYPE Cats gauge",
        r#"Cats{Color="red",Hostname="box",} 1.0"#,
    ];
    assert_eq!(added, expected);
}

#[test]
fn handlers_bring_along_so_many_metrics_and_no_more() {
    let metrics = metrics(true);
    for number in 0..=MOST_DETECTED {
        metrics.observe(&gauge(&format!("m{number}"), 1.0, &[]));
    }
    assert_eq!(metrics.model.read().len(), MOST_DETECTED);
}

#[test]
fn legacy_mode_shows_three_of_torchserves_metrics() {
    let metrics = Metrics::new(Settings { mode: Mode::Legacy, ..Settings::default() });
    let text = metrics.text(&[]);
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| !name.starts_with("zoo_"))
        .collect();
    assert_eq!(names, [INFERENCE_REQUESTS, INFERENCE_LATENCY, QUEUE_LATENCY]);
}

/// The page of the manual is a table of what is declared.
#[test]
fn the_manual_lists_all_metrics() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let Definitions { frontend, model } = Definitions::default();
    let own = meter::definitions().map(|(definition, _)| definition);
    let row = |one: &Definition| {
        let (kind, labels) = (one.kind.as_str(), one.dimensions.join(", "));
        format!("| `{}` | {kind} | {} | {labels} |", one.name, one.unit)
    };
    let expected: Vec<_> = frontend.iter().chain(&model).chain(&own).map(row).collect();
    let listed: Vec<_> = page
        .lines()
        .skip_while(|line| *line != "## What there is")
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.splitn(6, '|').take(5).collect::<Vec<_>>().join("|") + "|")
        .collect();
    assert_eq!(listed, expected);
}
