"""Metrics as JSON."""

import json
from typing import Any


class MetricEncoder(json.JSONEncoder):
    """Writes objects that have `to_dict`, such as `Metric` and `Dimension`."""

    def default(self, o: Any) -> Any:
        to_dict = getattr(o, "to_dict", None)
        return to_dict() if callable(to_dict) else super().default(o)
