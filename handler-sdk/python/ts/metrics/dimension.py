"""Labels of metrics."""

from zoo_handler.metrics import Dimension

__all__ = ["Dimension"]
