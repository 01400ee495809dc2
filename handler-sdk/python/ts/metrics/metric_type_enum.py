"""The types of metrics."""

from zoo_handler.metrics import MetricTypes

__all__ = ["MetricTypes"]
