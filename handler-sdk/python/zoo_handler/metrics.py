"""Metrics that a handler reports: collected here, and taken by the worker once per batch.

A `MetricsCache` holds two things: the metrics that are declared (name, unit, dimensions, type) and the values
that were reported and not taken yet. With `collect=False` nobody takes them, and each value is printed at
once in the `[METRICS]` form that log scrapers and the server read from a worker's output.

This module knows neither the link to the server nor the configuration file; `ts.metrics` is a surface over
it.
"""

import enum
import logging
import math
import socket
import sys
import time
from collections import deque
from typing import Any, Deque, Dict, Iterable, List, Optional, Sequence, Tuple, Union

logger = logging.getLogger(__name__)

# name, unit, type code, value, request ids joined by commas, dimensions
Record = Tuple[str, str, int, float, str, List[Tuple[str, str]]]

UNITS = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "MB": "Megabytes",
    "GB": "Gigabytes",
    "kB": "Kilobytes",
    "B": "Bytes",
    "": "unit",
    None: "unit",
}
TIME_UNITS = ("ms", "s")
SIZE_UNITS = ("MB", "kB", "GB", "B")


class GeneralMetricsCacheError(Exception):
    """What all errors of the metrics API have in common."""


class MetricsCacheIOError(GeneralMetricsCacheError):
    """The metrics configuration can't be read."""


class MetricsCachePyYamlError(GeneralMetricsCacheError):
    """The metrics configuration isn't valid YAML, or there is no YAML parser."""


class MetricsCacheTypeError(GeneralMetricsCacheError):
    """An argument has the wrong type."""


class MetricsCacheValueError(GeneralMetricsCacheError):
    """An argument has a value that isn't allowed."""


class MetricsCacheKeyError(GeneralMetricsCacheError):
    """No such metric, or a key that the configuration lacks."""


class MetricTypes(enum.Enum):
    """How values of a metric add up: counters sum, gauges replace, histograms count into buckets."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


TYPE_CODES = {MetricTypes.COUNTER: 0, MetricTypes.GAUGE: 1, MetricTypes.HISTOGRAM: 2}
TYPE_NAMES = ("COUNTER", "GAUGE", "HISTOGRAM")


class Dimension:
    """A label of a metric."""

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        return "{}:{}".format(self.name, self.value)

    def __repr__(self) -> str:
        return "Dimension({!r}, {!r})".format(self.name, self.value)

    def to_dict(self) -> Dict[str, str]:
        return {"Name": self.name, "Value": self.value}


def hostname() -> str:
    """The name of this machine, looked up once: it costs a system call."""
    global _hostname
    if _hostname is None:
        _hostname = socket.gethostname()
    return _hostname


_hostname: Optional[str] = None


def full_unit(unit: Optional[str]) -> str:
    """`ms` → `Milliseconds`; a unit that isn't one of the short forms stays what it is."""
    return UNITS.get(unit, unit) or "unit"


def _log_safe(text: Any) -> str:
    # `,`, `|`, `:` and line ends separate the fields of the log form: a value that has them would lose the
    # whole line.
    return "".join("_" if char in ",|:\r\n" else char for char in str(text))


def log_line(record: Record, now: Optional[float] = None) -> str:
    """The `[METRICS]` form of one value."""
    name, unit, type_code, value, request_ids, dimensions = record
    return "[METRICS]{}.{}:{}|#{}|#type:{}|#hostname:{},{}{}".format(
        name,
        unit,
        repr(value).replace("e+", "e"),  # readers of this form know digits, `-`, `.` and `e` only
        ",".join("{}:{}".format(_log_safe(key), _log_safe(text)) for key, text in dimensions),
        TYPE_NAMES[type_code],
        hostname(),
        int(time.time() if now is None else now),
        "," + request_ids if request_ids else "",
    )


class CachingMetric:
    """A declared metric: `add_or_update` reports a value of it."""

    def __init__(
        self,
        metric_name: str,
        unit: Optional[str],
        dimension_names: Optional[Sequence[str]] = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
        cache: "Optional[MetricsCache]" = None,
    ) -> None:
        self.metric_name = metric_name
        self.unit = full_unit(unit)
        self.dimension_names = list(dimension_names or [])
        self.metric_type = metric_type
        self._cache = cache

    def __str__(self) -> str:
        return "name: {}, unit: {}, dimensions: {}, type: {}".format(
            self.metric_name, self.unit, self.dimension_names, self.metric_type
        )

    def add_or_update(
        self, value: float, dimension_values: Optional[Sequence[str]] = None, request_id: str = ""
    ) -> None:
        """Reports a value; `dimension_values` in the order of `dimension_names`."""
        values = list(dimension_values or [])
        if len(values) != len(self.dimension_names):
            raise ValueError(
                "metric {}: {} dimension values {} for the dimensions {}".format(
                    self.metric_name, len(values), values, self.dimension_names
                )
            )
        self.report(value, list(zip(self.dimension_names, values)), request_id)

    def update(
        self, value: float, request_id: str = "", dimensions: "Optional[Iterable[Dimension]]" = None
    ) -> None:
        """The older form: the dimensions come with the value."""
        self.report(value, [(dim.name, dim.value) for dim in dimensions or []], request_id)

    def report(self, value: float, dimensions: List[Tuple[str, str]], request_id: str) -> None:
        """Hands a value to the cache, or prints it. A value that can't be one is logged: it must not fail a
        request.
        """
        try:
            number = float(value)
        except (TypeError, ValueError):
            logger.error("metric %s: the value %r is not a number", self.metric_name, value)
            return
        if not math.isfinite(number):
            logger.error("metric %s: the value %r is not finite", self.metric_name, value)
            return
        if number < 0 and self.metric_type is MetricTypes.COUNTER:
            logger.error(
                "metric %s: a counter can't be changed by the negative value %s", self.metric_name, value
            )
            return
        pairs = [(str(name), str(text)) for name, text in dimensions]
        record = (self.metric_name, self.unit, TYPE_CODES[self.metric_type], number, request_id or "", pairs)
        if self._cache is None:
            print_record(record)
        else:
            self._cache.record(record)


def print_record(record: Record) -> None:
    """Prints one value. One write per line, so that lines of several threads don't mix."""
    sys.stdout.write(log_line(record) + "\n")
    sys.stdout.flush()


class MetricsCache:
    """What `context.metrics` is: the calls by which a handler reports, and `take` for the worker."""

    def __init__(self, model_name: Optional[str] = None, collect: bool = True) -> None:
        self.model_name = model_name
        self._collect = collect
        self._records: Deque[Record] = deque()
        self._request_ids: Dict[int, str] = {}
        self._joined_ids = ""
        self._metrics: Dict[MetricTypes, Dict[str, CachingMetric]] = {kind: {} for kind in MetricTypes}
        for name in ("HandlerTime", "PredictionTime"):
            self.add_metric_to_cache(name, "ms", ["ModelName", "Level"], MetricTypes.GAUGE)

    # What the worker calls.

    def record(self, record: Record) -> None:
        """Keeps a value until it is taken. Any thread may report; append and popleft need no lock."""
        if self._collect:
            self._records.append(record)
        else:
            print_record(record)

    def take(self) -> List[Record]:
        """All values reported since the last call, oldest first."""
        taken = []
        while self._records:
            taken.append(self._records.popleft())
        return taken

    def set_request_ids(self, request_ids: Union[str, Dict[int, str], Sequence[str]]) -> None:
        """The requests of the batch that runs: ids joined by commas, or in order, or by index."""
        if isinstance(request_ids, str):
            self._joined_ids = request_ids
            self._request_ids = dict(enumerate(request_ids.split(","))) if request_ids else {}
            return
        self._request_ids = (
            dict(request_ids) if isinstance(request_ids, dict) else dict(enumerate(request_ids or ()))
        )
        self._joined_ids = ",".join(self._request_ids.values())

    @property
    def request_ids(self) -> Dict[int, str]:
        return self._request_ids

    @request_ids.setter
    def request_ids(self, request_ids: Union[str, Dict[int, str], Sequence[str], None]) -> None:
        self.set_request_ids(request_ids or {})

    # Declared metrics.

    @property
    def cache(self) -> Dict[MetricTypes, Dict[str, CachingMetric]]:
        return self._metrics

    def cache_keys(self) -> List[MetricTypes]:
        """The types of which at least one metric is declared."""
        return [kind for kind, metrics in self._metrics.items() if metrics]

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: Optional[str],
        dimension_names: Optional[Sequence[str]] = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> CachingMetric:
        """Declares a metric; a second declaration replaces the first."""
        if not isinstance(metric_name, str) or not metric_name:
            raise MetricsCacheTypeError(
                "metric name {!r}: must be a string that isn't empty".format(metric_name)
            )
        if unit is not None and not isinstance(unit, str):
            raise MetricsCacheTypeError("metric {}: the unit {!r} must be a string".format(metric_name, unit))
        if dimension_names is not None and not isinstance(dimension_names, (list, tuple)):
            raise MetricsCacheTypeError(
                "metric {}: dimension names must be a list of strings".format(metric_name)
            )
        metric = CachingMetric(metric_name, unit, dimension_names, _metric_type(metric_type), self)
        self._metrics[metric.metric_type][metric_name] = metric
        return metric

    def declare(self, section: Any, origin: str) -> None:
        """Declares what the section `model_metrics` of a metrics configuration does: metric type → list of
        metrics, each with name, unit and dimensions. `origin` says in errors where the section is from.
        """
        if not isinstance(section, dict):
            raise MetricsCacheTypeError("{}: model_metrics must map metric types to lists".format(origin))
        for type_name, metrics in section.items():
            try:
                kind = MetricTypes(type_name)
            except ValueError:
                raise MetricsCacheKeyError(
                    "{}: metric type {!r} under model_metrics: must be counter, gauge or histogram".format(
                        origin, type_name
                    )
                ) from None
            for metric in metrics or []:
                try:
                    self.add_metric_to_cache(metric["name"], metric["unit"], metric["dimensions"], kind)
                except (KeyError, TypeError) as cause:
                    raise MetricsCacheKeyError(
                        "{}: {} {!r}: needs name, unit and dimensions".format(origin, type_name, metric)
                    ) from cause

    def get_metric(self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER) -> CachingMetric:
        """A declared metric."""
        kind = _metric_type(metric_type)
        metric = self._metrics[kind].get(metric_name)
        if metric is None:
            raise MetricsCacheKeyError("there is no {} named {!r}".format(kind.value, metric_name))
        return metric

    # Reporting.

    def add_metric(
        self,
        name: str,
        value: float,
        unit: Optional[str],
        idx: Optional[int] = None,
        dimensions: Optional[Sequence[Dimension]] = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Reports a value, with the model's name as a dimension; declares the metric if it is new."""
        if dimensions is not None and not isinstance(dimensions, (list, tuple)):
            raise MetricsCacheTypeError("metric {}: dimensions must be a list of Dimension".format(name))
        request_id = self._request_ids.get(idx, self._joined_ids) if idx is not None else self._joined_ids
        pairs = [(dim.name, dim.value) for dim in dimensions or ()]
        if request_id:
            pairs += [("ModelName", self.model_name or ""), ("Level", "Model")]
        else:
            pairs.append(("Level", "Error"))
        self._declared(name, unit, pairs, metric_type).report(value, pairs, request_id)

    def add_counter(
        self,
        name: str,
        value: float,
        idx: Optional[int] = None,
        dimensions: Optional[Sequence[Dimension]] = None,
    ) -> None:
        """Adds to a counter."""
        self.add_metric(name, value, "count", idx, dimensions, MetricTypes.COUNTER)

    def add_time(
        self,
        name: str,
        value: float,
        idx: Optional[int] = None,
        unit: str = "ms",
        dimensions: Optional[Sequence[Dimension]] = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Reports a time, in `ms` or `s`."""
        if unit not in TIME_UNITS:
            raise MetricsCacheValueError(
                "metric {}: the unit {!r} of a time must be ms or s".format(name, unit)
            )
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_size(
        self,
        name: str,
        value: float,
        idx: Optional[int] = None,
        unit: str = "MB",
        dimensions: Optional[Sequence[Dimension]] = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Reports a size, in `MB`, `kB`, `GB` or `B`."""
        if unit not in SIZE_UNITS:
            raise MetricsCacheValueError(
                "metric {}: the unit {!r} of a size must be MB, kB, GB or B".format(name, unit)
            )
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: Optional[int] = None,
        dimensions: Optional[Sequence[Dimension]] = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Reports a percentage."""
        self.add_metric(name, value, "percent", idx, dimensions, metric_type)

    def add_error(self, name: str, value: float, dimensions: Optional[Sequence[Dimension]] = None) -> None:
        """Adds to a counter of errors, which has no model and no request."""
        pairs = [(dim.name, dim.value) for dim in dimensions or ()] + [("Level", "Error")]
        self._declared(name, "", pairs, MetricTypes.COUNTER).report(value, pairs, "")

    def _declared(
        self, name: str, unit: Optional[str], pairs: List[Tuple[str, str]], metric_type: MetricTypes
    ) -> CachingMetric:
        metric = self._metrics[_metric_type(metric_type)].get(name)
        if metric is None:
            metric = self.add_metric_to_cache(name, unit, [key for key, _ in pairs], metric_type)
        return metric


def _metric_type(value: Union[MetricTypes, str]) -> MetricTypes:
    if isinstance(value, MetricTypes):
        return value
    try:
        return MetricTypes(value)
    except ValueError:
        raise MetricsCacheTypeError(
            "metric type {!r}: must be one of MetricTypes.COUNTER, GAUGE, HISTOGRAM".format(value)
        ) from None
