"""The cache of metrics that a worker has, and the reading of a metrics configuration file.

The metrics that TorchServe's own file declares are known without a file; PyYAML is needed only for a file of
one's own.
"""

from typing import Any, Dict, Optional

from zoo_handler.metrics import (
    MetricsCacheIOError,
    MetricsCacheKeyError,
    MetricsCachePyYamlError,
    MetricsCacheTypeError,
)

from .metric_cache_abstract import MetricCacheAbstract


class MetricsCacheYamlImpl(MetricCacheAbstract):
    """Metrics declared under `model_metrics` of a YAML file, beside those that are always there."""

    def __init__(self, config_file_path: Optional[str] = None, collect: bool = False) -> None:
        super().__init__(config_file_path, collect)
        self.initialize_cache()

    def initialize_cache(self) -> None:
        if not self.config_file_path:
            return
        declared = self._parse_yaml_file(self.config_file_path).get("model_metrics")
        if declared is None:
            raise MetricsCacheKeyError("{}: the key model_metrics is missing".format(self.config_file_path))
        self.declare(declared, self.config_file_path)

    @staticmethod
    def _parse_yaml_file(path: str) -> Dict[str, Any]:
        try:
            import yaml
        except ImportError as cause:
            raise MetricsCachePyYamlError(
                "metrics configuration {}: reading it needs the Python package pyyaml, "
                "which isn't installed".format(path)
            ) from cause
        try:
            with open(path, encoding="utf-8") as file:
                content = yaml.safe_load(file)
        except OSError as cause:
            raise MetricsCacheIOError("metrics configuration {}: {}".format(path, cause.strerror)) from cause
        except yaml.YAMLError as cause:
            raise MetricsCachePyYamlError("metrics configuration {}: {}".format(path, cause)) from cause
        if not isinstance(content, dict):
            raise MetricsCacheTypeError("metrics configuration {}: must be a mapping".format(path))
        return content
