"""What handlers of images have in common: decoding, and explanations through captum."""

import base64
import io
from abc import ABC
from typing import Any, List

import torch
from PIL import Image

from ts.handler_utils.timer import timed

from .base_handler import BaseHandler, require_captum, row_value


def rgb(image: Any) -> Any:
    """An image with three channels, which is what models trained on photographs take."""
    return image if getattr(image, "mode", "RGB") == "RGB" else image.convert("RGB")


class VisionHandler(BaseHandler, ABC):
    """Makes a tensor of each image by the subclass's `image_processing`."""

    def __init__(self) -> None:
        super().__init__()
        self._ig: Any = None

    def initialize(self, context: Any) -> None:
        super().initialize(context)
        if not context.system_properties.get("limit_max_image_pixels", True):
            Image.MAX_IMAGE_PIXELS = None

    @property
    def ig(self) -> Any:
        """captum's integrated gradients of the model, made when first used: only explanations need captum."""
        if self._ig is None:
            if not callable(self.model):
                raise RuntimeError("explanations need gradients, which a model on ONNX Runtime doesn't have")
            integrated_gradients = require_captum("explanations of images").IntegratedGradients
            self._ig = integrated_gradients(self.model)
        return self._ig

    @ig.setter
    def ig(self, attribution: Any) -> None:
        self._ig = attribution

    @timed
    def preprocess(self, data: List[Any]) -> Any:
        """Takes images as bytes or base64, and anything else as numbers of a tensor; answers one stacked
        tensor.
        """
        return torch.stack(self.tensors(data)).to(self.device)

    def tensors(self, data: List[Any]) -> List[Any]:
        """One tensor for each request."""
        return [self._tensor(row_value(row)) for row in data]

    def _tensor(self, value: Any) -> Any:
        if isinstance(value, str):
            value = base64.b64decode(value)
        if isinstance(value, (bytearray, bytes)):
            return self.image_processing(Image.open(io.BytesIO(value)))
        return torch.FloatTensor(value)

    def get_insights(self, tensor_data: Any, _: Any, target: Any = 0) -> List[Any]:
        """How much each value of the input adds to the model's output for `target`."""
        return self.ig.attribute(tensor_data, target=target, n_steps=15).tolist()
