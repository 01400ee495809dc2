"""One value of the older metrics API."""

import time
from typing import Any, Dict, List, Optional

from zoo_handler.metrics import TYPE_CODES, Dimension, MetricTypes, full_unit, hostname, log_line


class Metric:
    """A value with its name, unit and dimensions; as text it is a line of the `[METRICS]` form without that
    mark.
    """

    def __init__(
        self,
        name: str,
        value: float,
        unit: Optional[str],
        dimensions: Optional[List[Dimension]] = None,
        request_id: Optional[str] = None,
        metric_method: Optional[str] = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        self.name = name
        self.value = value
        self.unit = full_unit(unit)
        self.dimensions = list(dimensions or [])
        self.request_id = request_id
        self.metric_method = metric_method
        self.metric_type = MetricTypes.COUNTER if metric_method == "counter" else metric_type

    def update(self, value: float) -> None:
        """Adds to a counter, replaces any other value."""
        if self.metric_type is MetricTypes.COUNTER:
            self.value += value
        else:
            self.value = value

    def __str__(self) -> str:
        pairs = [(dim.name, dim.value) for dim in self.dimensions]
        record = (
            self.name,
            self.unit,
            TYPE_CODES[self.metric_type],
            self.value,
            self.request_id or "",
            pairs,
        )
        return log_line(record)[len("[METRICS]") :]

    def to_dict(self) -> Dict[str, Any]:
        """What `MetricEncoder` writes."""
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": self.dimensions,
            "Timestamp": int(time.time()),
            "HostName": hostname(),
            "RequestId": self.request_id,
        }
