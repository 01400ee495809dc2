"""The base of caches of metrics."""

from typing import Optional

from zoo_handler.metrics import MetricsCache


class MetricCacheAbstract(MetricsCache):
    """A cache whose declared metrics come from a configuration; `initialize_cache` reads it.

    Made directly, it prints each value at once in the `[METRICS]` form. A worker makes one that collects.
    """

    def __init__(self, config_file_path: Optional[str] = None, collect: bool = False) -> None:
        super().__init__(collect=collect)
        self.config_file_path = config_file_path

    def initialize_cache(self) -> None:
        """Declares what the configuration declares."""
        raise NotImplementedError("{} must define initialize_cache".format(type(self).__name__))
