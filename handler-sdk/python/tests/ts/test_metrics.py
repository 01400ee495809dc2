"""The metrics API: names, units, dimensions, what is refused, and the printed form."""

import io
import json
import re
import sys

import pytest

from ts.metrics.caching_metric import CachingMetric
from ts.metrics.dimension import Dimension
from ts.metrics.metric import Metric
from ts.metrics.metric_cache_errors import (
    GeneralMetricsCacheError,
    MetricsCacheIOError,
    MetricsCacheKeyError,
    MetricsCachePyYamlError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
)
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.metrics.metric_encoder import MetricEncoder
from ts.metrics.metric_type_enum import MetricTypes
from ts.metrics.metrics_store import MetricsStore
from ts.metrics.unit import Units
from ts.service import emit_metrics

# The form that log scrapers read.
LINE = re.compile(
    r"\[METRICS]\s*([\w\s]+)\.([\w\s]+):([0-9\-,.e]+)\|#([^|]*)(\|#type:([^|,]+))?\|#hostname:([^,]+),([^,]+)(,(.*))?"
)


@pytest.fixture
def cache():
    made = MetricsCacheYamlImpl(None, collect=True)
    made.model_name = "m"
    made.set_request_ids("a,b")
    return made


MODEL = [("ModelName", "m"), ("Level", "Model")]


@pytest.mark.parametrize(
    ("call", "record"),
    [
        (lambda c: c.add_counter("n", 2), ("n", "Count", 0, 2.0, "a,b", MODEL)),
        (lambda c: c.add_counter("n", 2, 1), ("n", "Count", 0, 2.0, "b", MODEL)),
        (lambda c: c.add_counter("n", 2, 7), ("n", "Count", 0, 2.0, "a,b", MODEL)),
        (
            lambda c: c.add_time("HandlerTime", 1.5, None, "ms"),
            ("HandlerTime", "Milliseconds", 1, 1.5, "a,b", MODEL),
        ),
        (lambda c: c.add_time("t", 1, 0, "s"), ("t", "Seconds", 1, 1.0, "a", MODEL)),
        (lambda c: c.add_size("s", 1), ("s", "Megabytes", 1, 1.0, "a,b", MODEL)),
        (lambda c: c.add_size("s", 1, None, "kB"), ("s", "Kilobytes", 1, 1.0, "a,b", MODEL)),
        (lambda c: c.add_size("s", 1, None, "GB"), ("s", "Gigabytes", 1, 1.0, "a,b", MODEL)),
        (lambda c: c.add_size("s", 1, None, "B"), ("s", "Bytes", 1, 1.0, "a,b", MODEL)),
        (lambda c: c.add_percent("p", 50), ("p", "Percent", 1, 50.0, "a,b", MODEL)),
        (lambda c: c.add_error("e", 1), ("e", "unit", 0, 1.0, "", [("Level", "Error")])),
        (
            lambda c: c.add_metric("x", 3, "furlongs", 0, [Dimension("d", 1)], MetricTypes.HISTOGRAM),
            ("x", "furlongs", 2, 3.0, "a", [("d", "1")] + MODEL),
        ),
        (
            lambda c: c.add_time("t", 1, metric_type=MetricTypes.HISTOGRAM),
            ("t", "Milliseconds", 2, 1.0, "a,b", MODEL),
        ),
    ],
)
def test_values_are_recorded(cache, call, record):
    call(cache)
    assert cache.take() == [record]
    assert cache.take() == []


def test_without_a_request_the_level_is_error():
    cache = MetricsCacheYamlImpl(None, collect=True)
    cache.add_counter("n", 1)
    assert cache.take() == [("n", "Count", 0, 1.0, "", [("Level", "Error")])]


def test_the_same_metric_may_be_reported_with_and_without_a_request(cache):
    cache.set_request_ids("")
    cache.add_counter("n", 1)
    cache.set_request_ids({0: "z"})
    cache.add_counter("n", 1)
    assert [record[4] for record in cache.take()] == ["", "z"]
    assert cache.request_ids == {0: "z"}


def test_declared_metrics(cache):
    metric = cache.add_metric_to_cache("g", "MB", ["host", "disk"], MetricTypes.GAUGE)
    metric.add_or_update(5, ["h", "d"], "req")
    assert cache.take() == [("g", "Megabytes", 1, 5.0, "req", [("host", "h"), ("disk", "d")])]
    assert cache.get_metric("g", MetricTypes.GAUGE) is metric
    assert cache.get_metric("HandlerTime", MetricTypes.GAUGE).dimension_names == ["ModelName", "Level"]
    assert cache.cache[MetricTypes.GAUGE]["g"] is metric
    assert cache.cache_keys() == [MetricTypes.GAUGE]


def test_older_update_brings_its_dimensions(cache):
    cache.add_metric_to_cache("c", "count").update(1, "r", [Dimension("a", "b")])
    assert cache.take() == [("c", "Count", 0, 1.0, "r", [("a", "b")])]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda c: c.add_time("t", 1, unit="h"), MetricsCacheValueError),
        (lambda c: c.add_size("t", 1, unit="TB"), MetricsCacheValueError),
        (lambda c: c.get_metric("t"), MetricsCacheKeyError),
        (lambda c: c.get_metric("HandlerTime", MetricTypes.COUNTER), MetricsCacheKeyError),
        (lambda c: c.add_metric(3, 1, "ms"), MetricsCacheTypeError),
        (lambda c: c.add_metric("t", 1, 4), MetricsCacheTypeError),
        (lambda c: c.add_metric("t", 1, "ms", dimensions="no list"), MetricsCacheTypeError),
        (lambda c: c.add_metric("t", 1, "ms", metric_type="sum"), MetricsCacheTypeError),
        (lambda c: c.add_metric_to_cache("t", "ms", "no list"), MetricsCacheTypeError),
        (lambda c: c.add_metric_to_cache("t", "ms", ["a"]).add_or_update(1, []), ValueError),
    ],
)
def test_wrong_calls_raise(cache, call, error):
    with pytest.raises(error):
        call(cache)
    assert cache.take() == []
    if error is not ValueError:
        assert issubclass(error, GeneralMetricsCacheError)


@pytest.mark.parametrize("value", [-1, "many", None, float("nan"), float("inf")])
def test_values_that_are_none_are_logged_and_never_raise(cache, caplog, value):
    cache.add_counter("n", value)
    assert cache.take() == []
    assert "metric n" in caplog.text


def test_gauges_may_be_negative(cache):
    cache.add_metric("g", -1, "ms", metric_type=MetricTypes.GAUGE)
    assert cache.take()[0][3] == -1.0


def test_threads_lose_nothing(cache):
    import threading

    def report():
        for _ in range(1000):
            cache.add_counter("n", 1)

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = []
    while any(thread.is_alive() for thread in threads):
        taken += cache.take()
    for thread in threads:
        thread.join()
    assert len(taken + cache.take()) == 4000


@pytest.mark.parametrize("value", [1, 0.5, 1e16, 1e-7, 123456789])
def test_printed_form_is_what_scrapers_read(capsys, value):
    cache = MetricsCacheYamlImpl(None)
    cache.model_name = "m,1|2:3\n4"
    cache.set_request_ids("a,b")
    cache.add_metric("some_name", value, "ms", metric_type=MetricTypes.GAUGE)
    (line,) = capsys.readouterr().out.splitlines()
    found = LINE.fullmatch(line)
    assert found, line
    name, unit, number, dimensions, _, kind, _host, timestamp, _, ids = found.groups()
    assert (name, unit, float(number)) == ("some_name", "Milliseconds", value)
    assert dimensions == "ModelName:m_1_2_3_4,Level:Model"
    assert (kind, ids) == ("GAUGE", "a,b")
    assert timestamp.isdigit()


def test_metric_without_a_cache_prints(capsys):
    CachingMetric("n", "count", ["d"]).add_or_update(1, ["v"])
    assert capsys.readouterr().out.startswith("[METRICS]n.Count:1.0|#d:v|#type:COUNTER|#hostname:")


@pytest.mark.parametrize("short", [key for key in Units().units if key])
def test_units(short):
    assert Metric("n", 1, short).unit == Units().units[short]


def test_older_store_adds_counters_and_prints(capsys):
    store = MetricsStore({0: "a", 1: "b"}, "m")
    store.add_counter("n", 1, 0)
    store.add_counter("n", 2, 0)
    store.add_time("t", 4)
    store.add_size("s", 1, 1, "B")
    store.add_percent("p", 5)
    store.add_metric("x", 1, "things")
    store.add_error("e", 1)
    with pytest.raises(MetricsCacheValueError):
        store.add_time("t", 4, unit="h")
    emit_metrics(store.store)
    lines = capsys.readouterr().out.splitlines()
    assert [LINE.fullmatch(line) is not None for line in lines] == [True] * 6
    assert lines[0].startswith("[METRICS]n.Count:3|#ModelName:m,Level:Model|#type:COUNTER")
    assert lines[0].endswith(",a")
    assert "#Level:Error" in lines[5]


def test_encoder():
    metric = Metric("n", 1, "ms", [Dimension("d", "v")], "r")
    parsed = json.loads(json.dumps(metric, cls=MetricEncoder))
    assert (parsed["MetricName"], parsed["Unit"], parsed["RequestId"]) == ("n", "Milliseconds", "r")
    assert parsed["Dimensions"] == [{"Name": "d", "Value": "v"}]
    with pytest.raises(TypeError):
        json.dumps(object(), cls=MetricEncoder)


CONFIGURATION = """
dimensions:
  - &model_name "ModelName"
  - &level "Level"
model_metrics:
  counter:
    - {name: lemons, unit: count, dimensions: [*model_name]}
  gauge:
  histogram:
    - {name: wait, unit: ms, dimensions: [*model_name, *level]}
"""


def test_configuration_file(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "metrics.yaml"
    path.write_text(CONFIGURATION)
    cache = MetricsCacheYamlImpl(str(path))
    assert cache.get_metric("lemons").dimension_names == ["ModelName"]
    assert cache.get_metric("wait", MetricTypes.HISTOGRAM).unit == "Milliseconds"
    assert cache.get_metric("HandlerTime", MetricTypes.GAUGE)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, MetricsCacheIOError),
        ("a: [", MetricsCachePyYamlError),
        ("[]", MetricsCacheTypeError),
        ("ts_metrics: {}", MetricsCacheKeyError),
        ("model_metrics: []", MetricsCacheTypeError),
        ("model_metrics: {sum: []}", MetricsCacheKeyError),
        ("model_metrics: {gauge: [{name: a}]}", MetricsCacheKeyError),
    ],
)
def test_wrong_configuration_files(tmp_path, content, error):
    pytest.importorskip("yaml")
    path = tmp_path / "metrics.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=re.escape(str(path))):
        MetricsCacheYamlImpl(str(path))


def test_metrics_that_the_server_declares():
    cache = MetricsCacheYamlImpl(None)
    cache.declare(
        {"counter": [{"name": "lemons", "unit": "count", "dimensions": ["who"]}], "gauge": None}, "Load"
    )
    assert cache.get_metric("lemons").dimension_names == ["who"]


def test_configuration_file_without_a_yaml_parser(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MetricsCachePyYamlError, match="pyyaml, which isn't installed"):
        MetricsCacheYamlImpl(str(tmp_path / "metrics.yaml"))
    MetricsCacheYamlImpl(None)


def test_system_metrics(caplog):
    from ts.metrics import system_metrics

    caplog.set_level("INFO")
    system_metrics.collect_all(system_metrics, 0)
    names = [record.getMessage().split(".")[0] for record in caplog.records]
    assert names == [
        "CPUUtilization",
        "MemoryUsed",
        "MemoryAvailable",
        "MemoryUtilization",
        "DiskUsage",
        "DiskUtilization",
        "DiskAvailable",
    ]
    assert all(LINE.fullmatch("[METRICS]" + record.getMessage()) for record in caplog.records)


def test_gpu_metrics_without_pynvml_say_so(caplog, monkeypatch):
    from ts.metrics import system_metrics

    monkeypatch.setitem(sys.modules, "pynvml", None)
    system_metrics.collect_gpu_metrics(2)
    assert "pynvml isn't installed" in caplog.text


def test_process_memory():
    import os

    from ts.metrics.process_memory_metric import check_process_mem_usage, get_cpu_usage

    mine = "{}".format(os.getpid())
    assert get_cpu_usage(mine) > 1_000_000
    usage = check_process_mem_usage(io.StringIO(mine + ",\n"))
    assert len(usage) == 1
    assert usage[0].startswith(mine + ":")
    assert get_cpu_usage("0") == 0
