"""The base classes of MXNet Model Server, from which old handlers still derive."""

import json
import os
from abc import ABCMeta, abstractmethod
from typing import Any, Dict, List, Optional


class ModelService(metaclass=ABCMeta):
    """A service with the three stages of a prediction."""

    def __init__(
        self, model_name: str, model_dir: str, manifest: Dict[str, Any], gpu: Optional[int] = None
    ) -> None:
        self.model_name = model_name
        self.model_dir = model_dir
        self.manifest = manifest
        self.gpu = gpu
        self.ctx: Any = None
        self.signature: Any = None

    def initialize(self, context: Any) -> None:
        """Takes the context, and `signature.json` if the archive has one."""
        self.ctx = context
        self.model_name = context.model_name
        self.model_dir = context.system_properties.get("model_dir")
        self.manifest = context.manifest
        self.gpu = context.system_properties.get("gpu_id")
        path = os.path.join(self.model_dir, "signature.json")
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                self.signature = json.load(file)

    @abstractmethod
    def inference(self, data: Any) -> Any:
        """Everything between the request and its answer."""

    def ping(self) -> Optional[str]:
        """Whether the service works: None, or what is wrong."""
        return None

    def handle(self, data: List[Any], context: Any) -> Any:
        """The entry point."""
        self.ctx = context
        return self.inference(data)


class SingleNodeService(ModelService):
    """A service that predicts in this process: preprocess, infer, postprocess."""

    def inference(self, data: Any) -> Any:
        return self._postprocess(self._inference(self._preprocess(data)))

    @abstractmethod
    def _inference(self, data: Any) -> Any:
        """Runs the model."""

    def _preprocess(self, data: Any) -> Any:
        return data

    def _postprocess(self, data: Any) -> Any:
        return data
