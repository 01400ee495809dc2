"""Image handlers whose preprocessing is a pipeline of NVIDIA DALI."""

from abc import ABC
from typing import Any, List

from ts.handler_utils.preprocess.dali import load_pipeline, run_pipeline

from .base_handler import row_value
from .vision_handler import VisionHandler


class DALIHandler(VisionHandler, ABC):
    """Preprocesses by the pipeline that model-config.yaml names under `dali`."""

    def __init__(self) -> None:
        super().__init__()
        self.pipeline: Any = None

    def initialize(self, context: Any) -> None:
        self.pipeline = load_pipeline(context)
        super().initialize(context)

    def preprocess(self, data: List[Any]) -> Any:
        return run_pipeline(self.pipeline, [row_value(row) for row in data], self.device)
