"""The example handler of old, for DenseNet and other models of ImageNet: one class, used by a function
`handle`.
"""

from typing import Any, List

import torch

from ts.utils.util import map_class_to_label

from .image_classifier import ImageClassifier


class DenseNetHandler(ImageClassifier):
    """Classifies one image at a time."""

    def inference(self, data: Any, topk: int = 5) -> List[Any]:
        """The likeliest classes of each image, as objects from label to probability."""
        scores = super().inference(data)
        probabilities = torch.nn.functional.softmax(scores, dim=1)
        best, classes = torch.topk(probabilities, min(topk, probabilities.shape[1]), dim=1)
        return map_class_to_label(best.tolist(), self.mapping, classes.tolist())

    def postprocess(self, data: List[Any]) -> List[Any]:
        return data


_service = DenseNetHandler()


def handle(data: Any, context: Any) -> Any:
    """The entry point; the first call, without data, loads the model."""
    if not _service.initialized:
        _service.initialize(context)
    if data is None:
        return None
    return _service.handle(data, context)
