"""Classes of images."""

from typing import Any, Dict, List

import torch
from torchvision import transforms

from ts.handler_utils.timer import timed
from ts.utils.util import map_class_to_label

from .vision_handler import VisionHandler, rgb


class ImageClassifier(VisionHandler):
    """Answers each image with its likeliest classes and their probabilities."""

    topk = 5
    image_processing = transforms.Compose(
        [
            transforms.Lambda(rgb),
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )

    def set_max_result_classes(self, topk: int) -> None:
        """How many classes an answer names at most."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """How many classes an answer names at most."""
        return self.topk

    @timed
    def postprocess(self, data: Any) -> List[Dict[str, float]]:
        probabilities = torch.nn.functional.softmax(data, dim=1)
        # A model with fewer classes names all that it has.
        best, classes = torch.topk(probabilities, min(self.topk, probabilities.shape[1]), dim=1)
        return map_class_to_label(best.tolist(), self.mapping, classes.tolist())
