"""The older metrics API: values pile up in `store`, and `ts.service.emit_metrics` prints them."""

from typing import Any, Dict, List, Optional

from zoo_handler.metrics import SIZE_UNITS, TIME_UNITS, Dimension, MetricsCacheValueError

from .metric import Metric


class MetricsStore:
    """Values of one batch. Counters with the same name, unit and requests add up."""

    def __init__(self, request_ids: Optional[Dict[int, str]], model_name: Optional[str]) -> None:
        self.store: List[Metric] = []
        self.request_ids = request_ids
        self.model_name = model_name
        self.cache: Dict[Any, Metric] = {}

    def add_metric(
        self,
        name: str,
        value: float,
        unit: Optional[str],
        idx: Optional[int] = None,
        dimensions: Optional[List[Dimension]] = None,
    ) -> None:
        """Reports a value."""
        self._add(name, value, unit, self._requests(idx), dimensions, None)

    def add_counter(
        self, name: str, value: float, idx: Optional[int] = None, dimensions: Optional[List[Dimension]] = None
    ) -> None:
        """Adds to a counter."""
        self._add(name, value, "count", self._requests(idx), dimensions, "counter")

    def add_time(
        self,
        name: str,
        value: float,
        idx: Optional[int] = None,
        unit: str = "ms",
        dimensions: Optional[List[Dimension]] = None,
    ) -> None:
        """Reports a time, in `ms` or `s`."""
        if unit not in TIME_UNITS:
            raise MetricsCacheValueError(
                "metric {}: the unit {!r} of a time must be ms or s".format(name, unit)
            )
        self._add(name, value, unit, self._requests(idx), dimensions, None)

    def add_size(
        self,
        name: str,
        value: float,
        idx: Optional[int] = None,
        unit: str = "MB",
        dimensions: Optional[List[Dimension]] = None,
    ) -> None:
        """Reports a size, in `MB`, `kB`, `GB` or `B`."""
        if unit not in SIZE_UNITS:
            raise MetricsCacheValueError(
                "metric {}: the unit {!r} of a size must be MB, kB, GB or B".format(name, unit)
            )
        self._add(name, value, unit, self._requests(idx), dimensions, None)

    def add_percent(
        self, name: str, value: float, idx: Optional[int] = None, dimensions: Optional[List[Dimension]] = None
    ) -> None:
        """Reports a percentage."""
        self._add(name, value, "percent", self._requests(idx), dimensions, None)

    def add_error(self, name: str, value: Any, dimensions: Optional[List[Dimension]] = None) -> None:
        """Reports an error, which has no model and no request."""
        self._add(name, value, "", None, dimensions, None)

    def _requests(self, idx: Optional[int]) -> Optional[str]:
        if not self.request_ids:
            return None
        if idx is not None and idx in self.request_ids:
            return self.request_ids[idx]
        return ",".join(self.request_ids.values())

    def _add(
        self,
        name: str,
        value: Any,
        unit: Optional[str],
        requests: Optional[str],
        dimensions: Optional[List[Dimension]],
        method: Optional[str],
    ) -> None:
        if requests is None:
            labels = [Dimension("Level", "Error")]
        else:
            labels = [Dimension("ModelName", self.model_name or ""), Dimension("Level", "Model")]
        key = (name, unit, requests, method)
        if method == "counter" and key in self.cache:
            self.cache[key].update(value)
            return
        metric = Metric(name, value, unit, list(dimensions or []) + labels, requests, method)
        self.cache[key] = metric
        self.store.append(metric)
