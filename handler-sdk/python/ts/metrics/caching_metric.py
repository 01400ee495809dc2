"""A declared metric."""

from zoo_handler.metrics import CachingMetric

__all__ = ["CachingMetric"]
